"""Normalisations."""

from nets.frames import on_map, on_tokens, ort

NORMS = {
    "SkipLayerNormalization": on_tokens(
        f"""k = MatMul(x, wk) n, , , s = {ort("SkipLayerNormalization")}(a, k, gain, shift, b4)
            m = MatMul(n, w4) z = Add(m, s)""",
        "wk 6x8, gain shift b4 8, w4 8x8",
    ),
    "SkipLayerNormalization_broadcast": on_tokens(
        f"n = {ort('SkipLayerNormalization')}(a, skip, gain) z = MatMul(n, w4)", "skip 4x8, gain 8, w4 8x8"
    ),
    "SkipSimplifiedLayerNormalization": on_tokens(
        f"""k = MatMul(x, wk) n, , , s = {ort("SkipSimplifiedLayerNormalization")}(a, k, gain, b4)
            m = MatMul(n, w4) z = Add(m, s)""",
        "wk 6x8, gain b4 8, w4 8x8",
    ),
    "SimplifiedLayerNormalization": on_tokens("z = SimplifiedLayerNormalization(a, gain)", "gain 8"),
    "EmbedLayerNormalization": on_tokens(
        f"""p = Greater(a, {{0.0}}) i = Cast<to=6>(p) ids = ReduceSum<keepdims=0>(i, [2])
            e, c, s = {ort("EmbedLayerNormalization")}(ids, kinds, words, places, types, gain, shift, mask)
            t = Add(e, s) z = MatMul(t, w4)""",
        "words 9x8, places 4x8, types 2x8, gain shift 8, w4 8x8",
        given="int32[2,4] kinds = {0, 1, 1, 0, 0, 0, 1, 1}, int32[2,4] mask = {1, 1, 1, 1, 1, 1, 0, 0}",
    ),
    "LayerNormalization_mean": on_tokens("n, m, d = LayerNormalization(a, gain, shift) z = Sub(n, m)", "gain shift 8"),
    "RMSNormalization": on_tokens("n = RMSNormalization(a, gain) z = MatMul(n, w4)", "gain 8, w4 8x8", opset=23),
    "RMSNormalization_heads": on_tokens(
        """q = Reshape(a, [2, 4, 4, 2]) n = RMSNormalization(q, gain) z = Reshape(n, [2, 4, 8])""", "gain 2", opset=23
    ),
    "GroupNormalization_18": on_map("z = GroupNormalization<num_groups=4>(a, s, t)", "s t 4", opset=18),
    "GroupNormalization_21": on_map("z = GroupNormalization<num_groups=4>(a, s, t)", "s t 8", opset=21),
    "GroupNormalization_instance": on_map("z = GroupNormalization<num_groups=8>(a, s, t)", "s t 8", opset=21),
}
