"""One tiny net per operator of the table that no zoo net uses: the operator between two convolutions."""

from tests.zoo_net import Net


def _between(body: str, weights: str = "", opset: int = 17, kernel: int = 1, wide: int = 8) -> Net:
    """Return a net in which `body` makes `z`, of `wide` channels, from `a` ``[2, 8, 4, 4]``, on which a group ends.

    Its last convolution takes windows of `kernel` pixels, and so has one output pixel where that is the size of `z`.
    """
    return Net(
        f"""(float[2,3,4,4] x) => (float[2,5,height,width] y) {{
            a = Conv(x, w1, b1)
            {body}
            h = Conv(z, w2, b2)
            r = Relu(h)
            y = Conv(r, w3, b3)
        }}""",
        f"w1 8x3x1x1, b1 8, w2 6x{wide}x{kernel}x{kernel}, b2 6, w3 5x6x1x1, b3 5, {weights}",
        opset=opset,
    )


_FLOAT = "Identity Neg Atan Asinh Sin Cos Sinh Cosh Celu Elu Selu Softplus Softsign Exp Floor Ceil Round Sign"
_LATER = {"Mish": 18, "Swish": 24}
_COMPARED = "Equal Less LessOrEqual GreaterOrEqual"
_VARIADIC = "Max Min Mean Sum"
_BITS = "BitwiseAnd BitwiseOr BitwiseXor"
_LAST = "LogSoftmax Hardmax LpNormalization"
_LESS_EXACT = "ReduceMin ReduceProd ReduceLogSum ReduceLogSumExp"
_EXACT = "ReduceL1 ReduceL2 ReduceSum ReduceSumSquare"
_INT, _FLOAT32, _BOOL, _UINT = 7, 1, 9, 12
"""Element types as numbers: int64, float, bool and uint32."""

EXAMPLES: dict[str, Net] = {
    **{op: _between(f"z = {op}(a)") for op in _FLOAT.split()},
    **{op: _between(f"z = {op}(a)", opset=opset) for op, opset in _LATER.items()},
    **{op: _between(f"s = Tanh(a) z = {op}(s)") for op in ("Acos", "Asin", "Tan")},
    "Atanh": _between("s = Tanh(a) half = Mul(s, {0.5}) z = Atanh(half)"),
    **{op: _between(f"s = Softplus(a) p = Add(s, {{1.0}}) z = {op}(p)") for op in ("Acosh", "Log", "Reciprocal")},
    "ThresholdedRelu": _between("z = ThresholdedRelu<alpha=0.3>(a)"),
    "Dropout": _between("z = Dropout(a, {0.5})"),
    "CastLike": _between(f"i = Cast<to={_INT}>(a) z = CastLike(i, a)"),
    "Mod": _between("z = Mod<fmod=1>(a, {0.7})"),
    **{op: _between(f"b = Conv(x, w4, b4) z = {op}(a, b)", "w4 8x3x1x1, b4 8") for op in _VARIADIC.split()},
    **{op: _between(f"p = Round(a) q = {op}(p, {{0.0}}) z = Cast<to={_FLOAT32}>(q)") for op in _COMPARED.split()},
    **{
        op: _between(
            f"n = Neg(s) p = Greater(a, n) q = Less(a, s) t = {op}(p, q) z = Cast<to={_FLOAT32}>(t)", "s 8x1x1"
        )
        for op in ("And", "Xor")
    },
    "Or": _between(f"n = Neg(s) p = Greater(a, s) q = Less(a, n) t = Or(p, q) z = Cast<to={_FLOAT32}>(t)", "s 8x1x1"),
    "Not": _between(f"p = Greater(a, {{0.0}}) q = Not(p) z = Cast<to={_FLOAT32}>(q)"),
    "IsNaN": _between(f"p = IsNaN(a) q = Cast<to={_FLOAT32}>(p) z = Sub(a, q)"),
    "IsInf": _between(f"p = IsInf(a) q = Cast<to={_FLOAT32}>(p) z = Sub(a, q)"),
    "Where": _between("p = Greater(a, {0.0}) z = Where(p, a, s)", "s 8x1x1"),
    "BitShift": _between(
        f"""m = Abs(a) i = Cast<to={_UINT}>(m) one = Cast<to={_UINT}>({{1}})
            j = BitShift<direction="LEFT">(i, one) z = Cast<to={_FLOAT32}>(j)"""
    ),
    **{
        op: _between(
            f"big = Mul(a, {{9.0}}) i = Cast<to={_INT}>(big) j = {op}(i, {{5}}) z = Cast<to={_FLOAT32}>(j)", opset=18
        )
        for op in _BITS.split()
    },
    "BitwiseNot": _between(
        f"big = Mul(a, {{9.0}}) i = Cast<to={_INT}>(big) j = BitwiseNot(i) z = Cast<to={_FLOAT32}>(j)", opset=18
    ),
    **{op: _between(f"z = {op}<axis=-1>(a)") for op in _LAST.split()},
    "RMSNormalization": _between("z = RMSNormalization<axis=-1>(a, gain)", "gain 4", opset=23),
    "LRN": _between("z = LRN<size=3>(a)"),
    "MeanVarianceNormalization": _between("z = MeanVarianceNormalization<axes=[2, 3]>(a)"),
    "Trilu": _between("z = Trilu(a)"),
    **{op: _between(f"i = {op}<axis=2>(a) z = Cast<to={_FLOAT32}>(i)") for op in ("ArgMax", "ArgMin")},
    **{
        op: _between(f"q = Sigmoid(a) s = Add(q, {{0.6}}) t = {op}<axes=[2, 3]>(s) z = Mul(a, t)", opset=12)
        for op in _LESS_EXACT.split()
    },
    **{
        op: _between(f"t = {op}(a, [1]) u = {op}(a, [2, 3]) v = Add(t, u) d = Div(a, {{9.0}}) z = Mul(d, v)", opset=18)
        for op in _EXACT.split()
    },
    "GlobalMaxPool": _between("z = GlobalMaxPool(a)"),
    "GlobalLpPool": _between("z = GlobalLpPool(a)"),
    "LpPool": _between("z = LpPool<kernel_shape=[2, 2]>(a)"),
    "Upsample": _between("z = Upsample(a, [1.0, 1.0, 2.0, 2.0])", opset=9),
    "Tile": _between("z = Tile(a, [1, 2, 1, 1])", wide=16),
    "Size": _between(f"n = Size(a) m = Cast<to={_FLOAT32}>(n) l = Log(m) z = Div(a, l)"),
    "Range": _between(
        f"n = Shape(a) k = Gather(n, {{3}}) i = Range({{0}}, k, {{1}}) f = Cast<to={_FLOAT32}>(i) z = Add(a, f)"
    ),
    "NonZero": _between(
        f"""p = Relu(a) i = NonZero(p) n = Shape(i) k = Gather(n, {{1}}) m = Cast<to={_FLOAT32}>(k)
            d = Div(m, {{99.0}}) z = Add(a, d)"""
    ),
    "EyeLike": _between("q = Reshape(a, [16, 16]) e = EyeLike(q) f = Mul(q, e) z = Reshape(f, [2, 8, 4, 4])"),
    **{
        op: _between(f"n = {op}<seed=1.0>(a) d = Mul(n, {{0.1}}) z = Add(a, d)")
        for op in ("RandomNormalLike", "RandomUniformLike")
    },
}
