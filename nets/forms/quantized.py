"""Layers of integers."""

from nets.frames import SCALES, on_map, on_tokens, ort


def _quantized(body: str) -> str:
    return f"q = QuantizeLinear(a, sx, zx) {body} z = DequantizeLinear(i, sx, zx)"


QUANTIZED = {
    "QLinearConv": on_map(
        _quantized("i = QLinearConv(q, sx, zx, w4, sv, zv, sx, zx, b4)"),
        "w4 8x8x1x1:int8, b4 8:int32, sv 8, zv 8:int8",
        given=SCALES,
    ),
    "QLinearConv_group": on_map(
        _quantized("i = QLinearConv<group=4>(q, sx, zx, w4, sw, zw, sx, zx)"), "w4 8x2x3x3:int8", given=SCALES
    ),
    "QLinearMatMul": on_tokens(
        _quantized("i = QLinearMatMul(q, sx, zx, w4, sv, zv, sx, zx)"),
        "w4 8x8:int8, sv 8, zv 8:int8",
        given=SCALES,
    ),
    "QGemm_bias": on_tokens(
        f"""f = Reshape(a, [8, 8]) q = QuantizeLinear(f, sx, zx)
            i = {ort("QGemm")}<transB=1>(q, sx, zx, w4, sv, zv, b4, sx, zx) d = DequantizeLinear(i, sx, zx)
            z = Reshape(d, [2, 4, 8])""",
        "w4 8x8:int8, sv 8, zv 8:int8, b4 8:int32",
        given=SCALES,
    ),
    "QGemm_float": on_tokens(
        f"""f = Reshape(a, [8, 8]) q = QuantizeLinear(f, sx, zx) g = {ort("QGemm")}(q, sx, zx, w4, sw, zw)
            z = Reshape(g, [2, 4, 8])""",
        "w4 8x8:int8",
        given=SCALES,
    ),
    **{
        op: on_map(
            f"""b = Conv(x, w4, b4) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
                i = {ort(op)}(q, sx, zx, p, sx, zx, sx, zx) z = DequantizeLinear(i, sx, zx)""",
            "w4 8x3x1x1, b4 8",
            given=SCALES,
        )
        for op in ("QLinearAdd", "QLinearMul")
    },
    "QLinearLeakyRelu": on_map(
        _quantized(f"i = {ort('QLinearLeakyRelu')}<alpha=0.2>(q, sx, zx, sx, zx)"), given=SCALES
    ),
    "QLinearSigmoid": on_map(_quantized(f"i = {ort('QLinearSigmoid')}(q, sx, zx, sx, zx)"), given=SCALES),
    "QLinearAveragePool": on_map(
        _quantized(
            f"""i = {ort("QLinearAveragePool")}<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>
                (q, sx, zx, sx, zx)"""
        ),
        given=SCALES,
    ),
    "QLinearConcat": on_map(
        f"""b = Conv(x, w4, b4) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
            i = {ort("QLinearConcat")}<axis=1>(sx, zx, p, sx, zx, q, sx, zx) z = DequantizeLinear(i, sx, zx)""",
        "w4 6x3x1x1, b4 6",
        wide=14,
        given=SCALES,
    ),
    "QLinearWhere": on_map(
        f"""b = Conv(x, w4, b4) m = Greater(b, {{0.0}}) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
            i = {ort("QLinearWhere")}(m, q, sx, zx, p, sx, zx, sx, zx) z = DequantizeLinear(i, sx, zx)""",
        "w4 8x3x1x1, b4 8",
        given=SCALES,
    ),
    "QLinearSoftmax": on_tokens(
        _quantized(f"i = {ort('QLinearSoftmax')}<axis=1, opset=13>(q, sx, zx, sy, zy)"),
        given=SCALES + ", float sy = {0.00390625}, uint8 zy = {0}",
    ),
    "QAttention": on_tokens(
        f"q = QuantizeLinear(a, sx, zx) z = {ort('QAttention')}<num_heads=4>(q, w4, b4, sx, sw, ends, zx, zw)",
        "w4 8x48:int8, b4 48",
        wide=16,
        given=SCALES + ", int32[2] ends = {4, 3}",
    ),
    "QAttention_columns": on_tokens(
        f"""q, s, t = DynamicQuantizeLinear(a)
            z = {ort("QAttention")}<num_heads=4, unidirectional=1>(q, w4, b4, s, sv, , t, zv)""",
        "w4 8x48:int8, b4 48, sv 48, zv 48:int8",
        wide=16,
    ),
    "QEmbedLayerNormalization": on_tokens(
        f"""p = Greater(a, {{0.0}}) i = Cast<to=6>(p) ids = ReduceSum<keepdims=0>(i, [2])
            z, c = {ort("QEmbedLayerNormalization")}
                (ids, kinds, words, places, types, gain, shift, mask, sx, sw, sx, sw, sw, zw, zw, zw, zw, zw)""",
        "words 9x8:int8, places 4x8:int8, types 2x8:int8, gain shift 8:int8",
        given=SCALES + ", int32[2,4] kinds = {0, 1, 1, 0, 0, 0, 1, 1}, int32[2,4] mask = {1, 1, 1, 1, 1, 1, 0, 0}",
    ),
    **{
        f"{op}_last": on_map(
            _quantized(
                f"""t = Transpose<perm=[0,2,3,1]>(q) u = {ort(op)}<{attributes}channels_last=1>(t, sx, zx, sx, zx)
                    i = Transpose<perm=[0,3,1,2]>(u)"""
            ),
            given=SCALES,
        )
        for op, attributes in (("QLinearAveragePool", "kernel_shape=[3,3], "), ("QLinearGlobalAveragePool", ""))
    },
    "QLinearGlobalAveragePool": on_map(
        _quantized(f"i = {ort('QLinearGlobalAveragePool')}(q, sx, zx, sx, zx)"), given=SCALES
    ),
    "MatMulIntegerToFloat": on_tokens(
        f"q = QuantizeLinear(a, sx, zx) z = {ort('MatMulIntegerToFloat')}(q, w4, sx, sv, zx, zv, b4)",
        "w4 8x8:int8, sv 8, zv 8:int8, b4 8",
        given=SCALES,
    ),
    "MatMulInteger_dynamic": on_tokens(
        """q, sq, zq = DynamicQuantizeLinear(a) i = MatMulInteger(q, w4, zq, zv) f = Cast<to=1>(i) s = Mul(sq, sv)
           m = Mul(f, s) z = Add(m, b4)""",
        "w4 8x8:int8, sv 8, zv 8:int8, b4 8",
        given=SCALES,
    ),
    "ConvInteger_dynamic": on_map(
        """q, sq, zq = DynamicQuantizeLinear(a) i = ConvInteger<group=2>(q, w4, zq, zw) f = Cast<to=1>(i)
           s = Mul(sq, sw) m = Mul(f, s) z = Add(m, b4)""",
        "w4 8x4x3x3:int8, b4 1x8x1x1",
        given=SCALES,
    ),
}
