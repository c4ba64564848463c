"""One tiny net per operator of the table that no zoo net uses: the operator between two convolutions or products.

Keys are operators; those of onnxruntime's own domain are spelled with it.
"""

from typing import Any

from nets.frames import SCALES, on_map, on_tokens, ort
from nets.notation import Net, random_bytes
from nets.variants import VARIANTS
from onnxslim_learn.coupling.operators import counted
from onnxslim_learn.coupling.operators.facts import Operator

__all__ = ["EXAMPLES", "UNCHECKED", "UNRUNNABLE", "VARIANTS", "is_only_counted"]

_FLOAT32, _UINT8, _INT32, _INT64, _UINT32 = 1, 2, 6, 7, 12
"""Element types as numbers."""


def _map(op: str, body: str, weights: str = "", **settings: Any) -> tuple[str, Net]:
    return op, on_map(body.replace("OP", op), weights, **{"opset": 17, **settings})


def _tokens(op: str, body: str, weights: str = "", **settings: Any) -> tuple[str, Net]:
    return op, on_tokens(body.replace("OP", op), weights, **{"opset": 17, **settings})


_UNARY = """
    Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Exp Floor Identity Log Mish Reciprocal Round Selu Shrink
    Sign Sin Sinh Softplus Softsign Swish Tan ThresholdedRelu
""".split()  # noqa: SIM905
_RANGE = {
    **dict.fromkeys(["Acos", "Asin", "Atanh", "Tan"], "t = Tanh(a) u = Mul(t, {0.9})"),
    **dict.fromkeys(["Acosh", "Log", "Reciprocal"], "t = Softplus(a) u = Add(t, {1.0})"),
}
"""What comes before an operator that is not defined, or has poles, on all numbers."""

ELEMENTWISE = [
    *(_map(op, f"{_RANGE.get(op, 'u = Mul(a, {1.1})')} z = OP(u)", opset=24) for op in _UNARY),
    *(_map(op, "b = Conv(x, w4, b4) z = OP(a, b)", "w4 8x3x1x1, b4 8") for op in ("Max", "Min", "Mean", "Sum")),
    *(
        _map(op, f"p = Round(a) q = OP(p, {{0.0}}) z = Cast<to={_FLOAT32}>(q)")
        for op in ("Equal", "Less", "LessOrEqual", "GreaterOrEqual")
    ),
    *(
        _map(op, f"n = Neg(s) p = Greater({a}, s) q = Less({b}, a) t = OP(p, q) z = Cast<to={_FLOAT32}>(t)", "s 8x1x1")
        for op, a, b in (("And", "a", "n"), ("Or", "a", "s"), ("Xor", "a", "n"))
    ),
    *(
        _map(
            op,
            f"big = Mul(a, {{9.0}}) i = Cast<to={_INT64}>(big) j = OP(i, {{5}}) z = Cast<to={_FLOAT32}>(j)",
            opset=18,
        )
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ),
    _map(
        "BitwiseNot",
        f"big = Mul(a, {{9.0}}) i = Cast<to={_INT64}>(big) j = OP(i) z = Cast<to={_FLOAT32}>(j)",
        opset=18,
    ),
    _map(
        "BitShift",
        f"""m = Abs(a) i = Cast<to={_UINT32}>(m) one = Cast<to={_UINT32}>({{1}})
            j = OP<direction="LEFT">(i, one) z = Cast<to={_FLOAT32}>(j)""",
    ),
    _map(
        "BitCast",
        f"i = OP<to={_INT32}>(a) j = BitwiseAnd(i, keep) z = OP<to={_FLOAT32}>(j)",
        opset=26,
        given="int32 keep = {-65536}",
    ),
    _map("Bernoulli", f"p = Greater(a, {{0.2}}) q = Cast<to={_FLOAT32}>(p) z = OP(q)"),
    _map("CastLike", f"i = Cast<to={_INT64}>(a) z = OP(i, a)"),
    _map("Dropout", "z = OP(a, {0.5})"),
    _map("IsInf", f"p = OP(a) q = Cast<to={_FLOAT32}>(p) z = Sub(a, q)"),
    _map("IsNaN", f"p = OP(a) q = Cast<to={_FLOAT32}>(p) z = Sub(a, q)"),
    _map("Mod", "z = OP<fmod=1>(a, {0.7})"),
    _map("Not", f"p = Greater(a, {{0.2}}) q = OP(p) z = Cast<to={_FLOAT32}>(q)"),
    _map("Where", "p = Greater(a, {0.0}) z = OP(p, a, s)", "s 8x1x1"),
]

AXES = [
    *(_map(op, "z = OP<axis=-1>(a)") for op in ("LogSoftmax", "Hardmax", "LpNormalization")),
    _map("RMSNormalization", "z = OP<axis=-1>(a, gain)", "gain 4", opset=23),
    _map("LRN", "z = OP<size=3>(a)"),
    _map("MeanVarianceNormalization", "z = OP<axes=[2, 3]>(a)"),
    _map("Trilu", "z = OP(a)"),
    *(_map(op, f"i = OP<axis=2>(a) z = Cast<to={_FLOAT32}>(i)") for op in ("ArgMax", "ArgMin")),
    *(
        _map(op, "q = Sigmoid(a) s = Add(q, {0.4}) t = OP<axes=[2, 3]>(s) z = Mul(a, t)", opset=12)
        for op in ("ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")
    ),
    *(
        _map(op, "t = OP(a, [1]) u = OP(a, [2, 3]) v = Add(t, u) d = Div(a, {9.0}) z = Mul(d, v)", opset=18)
        for op in ("ReduceL1", "ReduceSum", "ReduceSumSquare")
    ),
    _map(
        "ReverseSequence",
        """t = Transpose<perm=[0,2,1,3]>(a) q = OP<batch_axis=0, time_axis=1>(t, [4, 2])
           z = Transpose<perm=[0,2,1,3]>(q)""",
    ),
]

SPACE = [
    *(_map(op, "z = OP(a)") for op in ("GlobalMaxPool", "GlobalLpPool")),
    _map("LpPool", "z = OP<kernel_shape=[2, 2]>(a)"),
    _map("Upsample", "z = OP(a, [1.0, 1.0, 2.0, 2.0])", opset=9),
    _map(
        "RoiAlign",
        "z = OP<output_height=3, output_width=3>(a, boxes, [1, 0])",
        given="float[2,4] boxes = {0.0, 0.0, 3.0, 3.0, 1.0, 0.0, 3.5, 2.0}",
    ),
    _map(
        "MaxRoiPool",
        "z = OP<pooled_shape=[2, 2]>(a, boxes)",
        given="float[2,5] boxes = {0.0, 0.0, 0.0, 3.0, 3.0, 1.0, 1.0, 0.0, 3.0, 2.0}",
    ),
    _map("GridSample", "g = Tanh(grid) z = OP(a, g)", "grid 2x3x3x2"),
    _map("AffineGrid", "g = OP(turn, [2, 8, 4, 4]) z = GridSample(a, g)", "turn 2x2x3", opset=20),
]

MOVES = [
    _map("Tile", "z = OP(a, [1, 2, 1, 1])", wide=16),
    _map("GatherND", "z = OP(a, places)", given="int64[2,1] places = {1, 0}"),
    _map("GatherElements", "i = ArgMax<axis=3>(a) z = OP<axis=3>(a, i)"),
    *(
        _map(op, "i = ArgMax<axis=3>(a) s = Sigmoid(a) u = ReduceMax<axes=[3]>(s) z = OP<axis=3>(a, i, u)", opset=opset)
        for op, opset in (("ScatterElements", 13), ("Scatter", 10))
    ),
]

FRESH = [
    _map(
        "Range", f"n = Shape(a) k = Gather(n, {{3}}) i = OP({{0}}, k, {{1}}) f = Cast<to={_FLOAT32}>(i) z = Add(a, f)"
    ),
    _map(
        "NonZero",
        f"""p = Relu(a) i = OP(p) n = Shape(i) k = Gather(n, {{1}}) m = Cast<to={_FLOAT32}>(k) d = Div(m, {{99.0}})
            z = Add(a, d)""",
    ),
    _map(
        "NonMaxSuppression",
        f"""b = Conv(x, w4, b4) boxes = Squeeze(b, [1]) s = Gather<axis=2>(b, {{0}}) i = OP(boxes, s, {{3}})
            n = Shape(i) k = Gather(n, {{0}}) m = Cast<to={_FLOAT32}>(k) d = Div(m, {{3.0}}) z = Add(a, d)""",
        "w4 1x3x1x1, b4 1",
    ),
    _map("EyeLike", "q = Reshape(a, [16, 16]) e = OP(q) f = Mul(q, e) z = Reshape(f, [2, 8, 4, 4])"),
    *(
        _map(op, "n = OP<seed=1.0>(a) d = Mul(n, {0.1}) z = Add(a, d)")
        for op in ("RandomNormalLike", "RandomUniformLike")
    ),
    *(_map(op, "n = OP<seed=1.0, shape=[4, 4]>() z = Add(a, n)") for op in ("RandomNormal", "RandomUniform")),
    _map(
        "Multinomial",
        f"""l = ReduceMean<axes=[2, 3], keepdims=0>(a) i = OP<sample_size=4, seed=1.0>(l) f = Cast<to={_FLOAT32}>(i)
            u = Unsqueeze(f, [1, 2]) z = Mul(a, u)""",
    ),
    *(_map(op, "n = OP({4}) z = Add(a, n)") for op in ("BlackmanWindow", "HammingWindow", "HannWindow")),
    _map("MelWeightMatrix", "n = OP({4}, {6}, {16000}, {0.0}, {8000.0}) m = Add(n, {0.5}) z = MatMul(a, m)"),
]

QUANTIZED = [
    _map("DynamicQuantizeLinear", "q, s, p = OP(a) z = DequantizeLinear(q, s, p)"),
    _map(
        "ConvInteger",
        f"q = QuantizeLinear(a, sx, zx) i = OP(q, w4, zx) f = Cast<to={_FLOAT32}>(i) z = Mul(f, {{0.0002}})",
        "w4 8x8x1x1:int8",
        given=SCALES,
    ),
    _tokens(
        "MatMulInteger",
        f"q = QuantizeLinear(a, sx, zx) i = OP(q, w4, zx) f = Cast<to={_FLOAT32}>(i) z = Mul(f, {{0.0002}})",
        "w4 8x8:int8",
        given=SCALES,
    ),
    _map(
        "QLinearConv",
        "q = QuantizeLinear(a, sx, zx) i = OP(q, sx, zx, w4, sw, zw, sx, zx) z = DequantizeLinear(i, sx, zx)",
        "w4 8x8x1x1:int8",
        given=SCALES,
    ),
    _tokens(
        "QLinearMatMul",
        "q = QuantizeLinear(a, sx, zx) i = OP(q, sx, zx, w4, sw, zw, sx, zx) z = DequantizeLinear(i, sx, zx)",
        "w4 8x8:int8",
        given=SCALES,
    ),
]

SEQUENCES = [
    _tokens(
        "SimplifiedLayerNormalization",
        "m = MatMul(a, w4) n = OP<axis=-1>(m, gain) z = Add(n, m)",
        "w4 8x8, gain 8",
    ),
    _tokens(
        "RNN",
        """t = Transpose<perm=[1,0,2]>(a) s, = OP<hidden_size=8>(t, w4, r4, b4) q = Squeeze(s, [1])
           z = Transpose<perm=[1,0,2]>(q)""",
        "w4 1x8x8, r4 1x8x8, b4 1x16",
    ),
    _tokens(
        "Attention",
        "k = MatMul(x, wk) v = MatMul(x, wv) z = OP<q_num_heads=4, kv_num_heads=2>(a, k, v)",
        "wk wv 6x8",
        opset=23,
        width=16,
        wide=16,
    ),
    _tokens(
        "RotaryEmbedding",
        """k = MatMul(x, wk) q = OP<num_heads=2>(a, c, s) t = Transpose<perm=[0,2,1]>(k) m = MatMul(q, t)
           z = MatMul(m, k)""",
        "wk 6x8, c s 2x4x2",
        opset=23,
    ),
]

_QKV = "k = MatMul(x, wk) v = MatMul(x, wv)"

CONTRIB = [
    *(_tokens(ort(op), "z = OP(a)") for op in ("Gelu", "QuickGelu")),
    *(_tokens(ort(op), "z = OP(a, s)", "s 8") for op in ("BiasGelu", "FastGelu")),
    _map(ort("FusedConv"), 'z = OP<activation="Relu">(a, w4, b4)', "w4 8x8x1x1, b4 8"),
    _tokens(
        ort("FusedGemm"),
        'f = Reshape(a, [8, 8]) g = OP<activation="Relu", transB=1>(f, w4, b4) z = Reshape(g, [2, 4, 8])',
        "w4 8x8, b4 8",
    ),
    *(_tokens(ort(op), "z = OP<alpha=0.5, transB=1>(a, w4)", "w4 8x8") for op in ("FusedMatMul", "TransposeMatMul")),
    _tokens(
        ort("MatMulNBits"),
        "z = OP<K=16, N=8, bits=4, block_size=16>(a, w4, s)",
        "w4 8x1x8:uint8, s 8x1",
        width=16,
    ),
    _tokens(
        ort("QGemm"),
        """f = Reshape(a, [8, 8]) q = QuantizeLinear(f, sx, zx) i = OP<transB=1>(q, sx, zx, w4, sw, zw, , sx, zx)
           d = DequantizeLinear(i, sx, zx) z = Reshape(d, [2, 4, 8])""",
        "w4 8x8:int8",
        given=SCALES,
    ),
    _tokens(
        ort("MatMulIntegerToFloat"),
        "q = QuantizeLinear(a, sx, zx) z = OP(q, w4, sx, sw, zx, zw, b4)",
        "w4 8x8:int8, b4 8",
        given=SCALES,
    ),
    _tokens(ort("DynamicQuantizeMatMul"), "z = OP(a, w4, sw, zw, b4)", "w4 8x8:int8, b4 8", given=SCALES),
    _tokens(
        ort("DynamicQuantizeLSTM"),
        """t = Transpose<perm=[1,0,2]>(a) s, = OP<hidden_size=5>(t, w4, r4, b4, , , , , sw, zw, sw, zw)
           q = Squeeze(s, [1]) z = Transpose<perm=[1,0,2]>(q)""",
        "w4 1x8x20:int8, r4 1x5x20:int8, b4 1x40",
        wide=5,
        given="int8[1] zw = {0}, float[1] sw = {0.01}",
    ),
    _map(
        ort("QLinearGlobalAveragePool"),
        "q = QuantizeLinear(a, sx, zx) i = OP(q, sx, zx, sx, zx) z = DequantizeLinear(i, sx, zx)",
        given=SCALES,
    ),
    _map(
        ort("QLinearAveragePool"),
        """q = QuantizeLinear(a, sx, zx) i = OP<kernel_shape=[3,3]>(q, sx, zx, sx, zx)
           z = DequantizeLinear(i, sx, zx)""",
        given=SCALES,
    ),
    _map(
        ort("QLinearConcat"),
        """b = Relu(a) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
           i = OP<axis=1>(sx, zx, q, sx, zx, p, sx, zx) z = DequantizeLinear(i, sx, zx)""",
        wide=16,
        given=SCALES,
    ),
    _map(
        ort("QLinearWhere"),
        """b = Conv(x, w4, b4) m = Greater(b, {0.0}) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
           i = OP(m, q, sx, zx, p, sx, zx, sx, zx) z = DequantizeLinear(i, sx, zx)""",
        "w4 8x3x1x1, b4 8",
        given=SCALES,
    ),
    _tokens(
        ort("QLinearSoftmax"),
        "q = QuantizeLinear(a, sx, zx) i = OP<axis=1, opset=13>(q, sx, zx, sw, zx) z = DequantizeLinear(i, sw, zx)",
        given=SCALES,
    ),
    _tokens(
        ort("QAttention"),
        "q = QuantizeLinear(a, sx, zx) z = OP<num_heads=4>(q, w4, b4, sx, sw, , zx, zw)",
        "w4 8x48:int8, b4 48",
        wide=16,
        given=SCALES,
    ),
    _tokens(
        ort("QEmbedLayerNormalization"),
        f"""p = Greater(a, {{0.0}}) i = Cast<to={_INT32}>(p) ids = ReduceSum<keepdims=0>(i, [2])
            e, c = OP(ids, , words, places, , gain, shift, , sx, sw, , sw, sw, zw, zw, , zw, zw) z = Add(a, e)""",
        "words 9x8:int8, places 4x8:int8, gain shift 8:int8",
        given=SCALES,
    ),
    *(
        _map(
            ort(op),
            """b = Conv(x, w4, b4) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
               i = OP(q, sx, zx, p, sx, zx, sx, zx) z = DequantizeLinear(i, sx, zx)""",
            "w4 8x3x1x1, b4 8",
            given=SCALES,
        )
        for op in ("QLinearAdd", "QLinearMul")
    ),
    *(
        _map(
            ort(op),
            "q = QuantizeLinear(a, sx, zx) i = OP(q, sx, zx, sx, zx) z = DequantizeLinear(i, sx, zx)",
            given=SCALES,
        )
        for op in ("QLinearLeakyRelu", "QLinearSigmoid")
    ),
    _map(ort("QuantizeLinear"), "q = OP(a, sx, zx) z = DequantizeLinear(q, sx, zx)", given=SCALES),
    _map(ort("DequantizeLinear"), "q = QuantizeLinear(a, sx, zx) z = OP(q, sx, zx)", given=SCALES),
    _tokens(
        ort("SkipLayerNormalization"),
        "n, , , s = OP(a, skip, gain, shift) m = MatMul(n, w4) z = Add(m, s)",
        "skip 2x4x8, gain shift 8, w4 8x8",
    ),
    _tokens(
        ort("SkipSimplifiedLayerNormalization"),
        "n, , , s = OP(a, skip, gain) m = MatMul(n, w4) z = Add(m, s)",
        "skip 2x4x8, gain 8, w4 8x8",
    ),
    _tokens(
        ort("EmbedLayerNormalization"),
        f"""p = Greater(a, {{0.0}}) i = Cast<to={_INT32}>(p) ids = ReduceSum<keepdims=0>(i, [2])
            e, c = OP(ids, , words, places, , gain, shift) z = Add(a, e)""",
        "words 9x8, places 4x8, gain shift 8",
    ),
    _tokens(ort("Attention"), "z, = OP<num_heads=4>(a, w4, b4)", "w4 8x48, b4 48", wide=16),
    _tokens(
        ort("MultiHeadAttention"), f"{_QKV} z, = OP<num_heads=4>(a, k, v, b4)", "wk wv 6x16, b4 48", wide=16, width=16
    ),
    _tokens(
        ort("GroupQueryAttention"),
        f"{_QKV} z = OP<num_heads=4, kv_num_heads=2>(a, k, v, , , last, total)",
        "wk wv 6x16",
        given="int32[2] last = {3, 3}, int32 total = {4}",
        width=32,
        wide=32,
    ),
    _tokens(
        ort("RotaryEmbedding"),
        """k = MatMul(x, wk) q = OP<num_heads=2>(a, places, c, s) t = Transpose<perm=[0,2,1]>(k) m = MatMul(q, t)
           z = MatMul(m, k)""",
        "wk 6x8, c s 6x2",
        given="int64[2,4] places = {0, 1, 2, 3, 2, 3, 4, 5}",
    ),
    _tokens(
        ort("MoE"),
        """f = Reshape(a, [8, 8]) p = MatMul(f, wr)
           z = OP<k=2, activation_type="silu", normalize_routing_weights=1>(a, p, w4, b4, w5, b5)""",
        "wr 8x5, w4 5x6x8, b4 5x6, w5 5x8x6, b5 5x8",
    ),
    _tokens(
        ort("QMoE"),
        """f = Reshape(a, [8, 32]) p = MatMul(f, wr)
           z = OP<k=2, activation_type="swiglu", swiglu_fusion=1, block_size=16>(a, p, w4, s4, , w5, s5)""",
        "wr 32x4, s4 4x96x2, s5 4x32x3",
        given=f"{random_bytes('w4', 4, 96, 16)}, {random_bytes('w5', 4, 32, 24)}",
        width=32,
        wide=32,
    ),
]

LATER = [
    _tokens(
        "OneHot",
        """best, i = TopK<axis=-1>(a, [3]) hot = OP(i, {8}, [0.5, 2.0]) m = ReduceSum<keepdims=0>(hot, [2])
           z = Mul(m, a)""",
    ),
    _map("CumProd", "s = Sigmoid(a) z = OP(s, {3})", opset=26),
    _map("DFT", "u = Unsqueeze(a, [4]) d = OP(u, , {3}) z = Gather<axis=4>(d, {0})", opset=20),
    _map("Det", "d = OP(a) z = Unsqueeze(d, [2, 3])", opset=22),
    _map("DeformConv", "o = Conv(x, w5, b5) z = OP(a, w4, o, b4)", "w4 8x8x1x1, b4 8, w5 2x3x1x1, b5 2", opset=22),
    _map(
        "MaxUnpool",
        "p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) z = OP<kernel_shape=[2,2], strides=[2,2]>(p, i)",
    ),
    _map("Col2Im", "f = Reshape(a, [2, 8, 16]) z = OP(f, [5, 5], [2, 2])", opset=18, wide=2),
    _map("CenterCropPad", "z = OP<axes=[2,3]>(a, [6, 3])", opset=18),
    _tokens("TensorScatter", "s = Slice(a, [0], [2], [1]) z = OP(cache, s)", "cache 2x4x8", opset=24),
    _tokens(
        "LinearAttention",
        f"""{_QKV} g = MatMul(x, wg) rate = Sigmoid(g)
            e = ReduceMean<keepdims=0>(x, [1]) f = MatMul(e, ws) past = Reshape(f, [2, 2, 8, 8])
            z, s = OP<q_num_heads=4, kv_num_heads=2, update_rule="delta">(a, k, v, past, , rate)""",
        "wk wv 6x16, wg 6x2, ws 6x128",
        opset=27,
        width=32,
        wide=32,
    ),
    _tokens(
        "CausalConvWithState",
        "t = Transpose<perm=[0,2,1]>(a) c, s = OP(t, w4, b4) z = Transpose<perm=[0,2,1]>(c)",
        "w4 8x1x3, b4 8",
        opset=27,
    ),
]

EXAMPLES: dict[str, Net] = dict([*ELEMENTWISE, *AXES, *SPACE, *MOVES, *FRESH, *QUANTIZED, *SEQUENCES, *CONTRIB, *LATER])

UNCHECKED = {"SimplifiedLayerNormalization"}
"""Operators that onnxruntime has in the domain of ONNX, and onnx.checker therefore refuses."""

UNRUNNABLE = {
    "SwiGLU": "no kernel yet",
    "com.microsoft.BiasAdd": "no kernel for the CPU",
    "com.microsoft.BiasSplitGelu": "no kernel for the CPU",
    "com.microsoft.BiasDropout": "no kernel for the CPU",
}
"""Operators with a rule of which onnxruntime can run no example."""


def is_only_counted(operator: Operator) -> bool:
    """Whether an operator has a row for its work alone: no rule cuts it, and torch need not run it."""
    return operator.rule.__module__ == counted.__name__
