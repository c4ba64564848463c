"""Attention and rotary positions."""

from nets.frames import on_tokens, ort
from nets.notation import Net

_MASK = "float[2,4,4] mask = {" + ", ".join(["0.0", "-1.0", "0.5", "0.25"] * 8) + "}"
_QKV = "k = MatMul(x, wk) v = MatMul(x, wv)"
_MHA = ort("MultiHeadAttention")
_GQA = ort("GroupQueryAttention")
_LAST = "int32[2] last = {3, 3}, int32 total = {4}"
_FOUR = """q4 = Reshape(a, [2, 4, HEADS, SIZE]) q = Transpose<perm=[0,2,1,3]>(q4)
    ka = MatMul(x, wk) k4 = Reshape(ka, [2, 4, 2, SIZE]) k = Transpose<perm=[0,2,1,3]>(k4)
    va = MatMul(x, wv) v4 = Reshape(va, [2, 4, 2, 3]) v = Transpose<perm=[0,2,1,3]>(v4)"""
_BACK = "t = Transpose<perm=[0,2,1,3]>(o) z = Reshape(t, [2, 4, WIDE])"


def _four(call: str, heads: int = 4) -> Net:
    text = f"{_FOUR} o = {call} {_BACK}".replace("HEADS", str(heads)).replace("SIZE", "4")
    return on_tokens(text.replace("WIDE", str(3 * heads)), "wk 6x8, wv 6x6", width=4 * heads, wide=3 * heads, opset=23)


ATTENTION = {
    "Attention_packed": on_tokens(f"z = {ort('Attention')}<num_heads=4>(a, w4, b4)", "w4 8x48, b4 48", wide=16),
    "Attention_packed_no_bias": on_tokens(f"z = {ort('Attention')}<num_heads=4>(a, w4)", "w4 8x48", wide=16),
    "Attention_packed_causal": on_tokens(
        f"z = {ort('Attention')}<num_heads=4, unidirectional=1, scale=0.4>(a, w4, b4)", "w4 8x48, b4 48", wide=16
    ),
    "Attention_packed_mask": on_tokens(
        f"z = {ort('Attention')}<num_heads=4>(a, w4, b4, ends)",
        "w4 8x48, b4 48",
        wide=16,
        given="int32[2] ends = {4, 3}",
    ),
    "MultiHeadAttention": on_tokens(f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v)", "wk wv 6x16", width=16, wide=16),
    "MultiHeadAttention_bias": on_tokens(
        f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v, b4)", "wk wv 6x16, b4 48", width=16, wide=16
    ),
    "MultiHeadAttention_value_size": on_tokens(
        f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v)", "wk 6x16, wv 6x12", width=16, wide=12
    ),
    "MultiHeadAttention_mask": on_tokens(
        f"{_QKV} z = {_MHA}<num_heads=4, scale=0.3>(a, k, v, , ends)",
        "wk wv 6x16",
        width=16,
        wide=16,
        given="int32[2] ends = {4, 3}",
    ),
    "MultiHeadAttention_scores_bias": on_tokens(
        f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v, , , extra)", "wk wv 6x16, extra 1x4x4x4", width=16, wide=16
    ),
    "MultiHeadAttention_scores_bias_shared": on_tokens(
        f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v, , , extra)", "wk wv 6x16, extra 1x1x4x4", width=16, wide=16
    ),
    "MultiHeadAttention_present": on_tokens(
        f"""{_QKV} o, pk, pv = {_MHA}<num_heads=4>(a, k, v) t = Transpose<perm=[0,2,1,3]>(pv)
            u = Reshape(t, [2, 4, 16]) z = Add(o, u)""",
        "wk wv 6x16",
        width=16,
        wide=16,
    ),
    "MultiHeadAttention_past": on_tokens(
        f"""{_QKV} kp = MatMul(x, wkp) kr = Reshape(kp, [2, 4, 4, 4]) kt = Transpose<perm=[0,2,1,3]>(kr)
            vp = MatMul(x, wvp) vr = Reshape(vp, [2, 4, 4, 4]) vt = Transpose<perm=[0,2,1,3]>(vr)
            z, pk, pv = {_MHA}<num_heads=4>(a, k, v, , , , kt, vt)""",
        "wk wv wkp wvp 6x16",
        width=16,
        wide=16,
    ),
    "GroupQueryAttention": on_tokens(
        f"{_QKV} z = {_GQA}<num_heads=4, kv_num_heads=2>(a, k, v, , , last, total)",
        "wk wv 6x16",
        width=32,
        wide=32,
        given=_LAST,
    ),
    "GroupQueryAttention_scale": on_tokens(
        f"{_QKV} z = {_GQA}<num_heads=4, kv_num_heads=4, scale=0.2, softcap=5.0>(a, k, v, , , last, total)",
        "wk wv 6x32",
        width=32,
        wide=32,
        given=_LAST,
    ),
    "GroupQueryAttention_rotary": on_tokens(
        f"{_QKV} z = {_GQA}<num_heads=4, kv_num_heads=2, do_rotary=1>(a, k, v, , , last, total, c, s)",
        "wk wv 6x32, c s 8x8",
        width=64,
        wide=64,
        given=_LAST,
    ),
    "GroupQueryAttention_rotary_interleaved": on_tokens(
        f"""{_QKV} z = {_GQA}<num_heads=4, kv_num_heads=2, do_rotary=1, rotary_interleaved=1>(
                a, k, v, , , last, total, c, s)""",
        "wk wv 6x32, c s 8x8",
        width=64,
        wide=64,
        given=_LAST,
    ),
    "GroupQueryAttention_packed": on_tokens(
        f"z = {_GQA}<num_heads=4, kv_num_heads=2>(a, , , , , last, total)", width=64, wide=32, given=_LAST
    ),
    "onnx_Attention": on_tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=4>(a, k, v)", "wk wv 6x16", width=16, wide=16, opset=23
    ),
    "onnx_Attention_gqa": on_tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1>(a, k, v)",
        "wk wv 6x8",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_value_size": on_tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=2, scale=0.4, softcap=2.0>(a, k, v)",
        "wk 6x8, wv 6x6",
        width=16,
        wide=12,
        opset=23,
    ),
    "onnx_Attention_mask": on_tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=2>(a, k, v, mask)",
        "wk wv 6x8, mask 4x4",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_mask_by_head": on_tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=2>(a, k, v, mask)",
        "wk wv 6x8, mask 1x4x4x4",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_past": on_tokens(
        f"""{_QKV} kr = Reshape(k, [2, 4, 2, 4]) kt = Transpose<perm=[0,2,1,3]>(kr) vr = Reshape(v, [2, 4, 2, 4])
            vt = Transpose<perm=[0,2,1,3]>(vr) o, pk, pv = Attention<q_num_heads=4, kv_num_heads=2>(a, k, v, , kt, vt)
            b = Add(pk, pv) s = ReduceMean<keepdims=0>(b, [2]) u = Reshape(s, [2, 1, 8])
            w = MatMul(u, w4) z = Add(o, w)""",
        "wk wv 6x8, w4 8x16",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_scores": on_tokens(
        f"""{_QKV} o, , , s = Attention<q_num_heads=4, kv_num_heads=4, qk_matmul_output_mode=0>(a, k, v)
            m = ReduceMean<keepdims=0>(s, [1, 2]) n = Unsqueeze(m, [2]) z = Add(o, n)""",
        "wk wv 6x16",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_4d": _four("Attention(q, k, v)", heads=2),
    "onnx_Attention_4d_gqa": _four("Attention<is_causal=1>(q, k, v)"),
    "onnx_Attention_4d_scale": _four("Attention<scale=0.2>(q, k, v)"),
    "RotaryEmbedding": on_tokens(
        f"q = {ort('RotaryEmbedding')}<num_heads=2>(a, places, c, s) z = MatMul(q, w4)",
        "c s 6x2, w4 8x8",
        given="int64[2,4] places = {0, 1, 2, 3, 2, 3, 4, 5}",
    ),
    "RotaryEmbedding_interleaved": on_tokens(
        f"q = {ort('RotaryEmbedding')}<num_heads=2, interleaved=1>(a, places, c, s) z = MatMul(q, w4)",
        "c s 6x2, w4 8x8",
        given="int64[1] places = {1}",
    ),
    "RotaryEmbedding_4d": on_tokens(
        f"""n = Reshape(a, [2, 4, 2, 4]) t = Transpose<perm=[0,2,1,3]>(n) q = {ort("RotaryEmbedding")}(t, places, c, s)
            u = Transpose<perm=[0,2,1,3]>(q) z = Reshape(u, [2, 4, 8])""",
        "c s 6x2",
        given="int64[1] places = {1}",
    ),
    "RotaryEmbedding_partial": on_tokens(
        f"z = {ort('RotaryEmbedding')}<num_heads=2, rotary_embedding_dim=2>(a, places, c, s)",
        "c s 6x1",
        given="int64[1] places = {1}",
    ),
    **{
        f"onnx_RotaryEmbedding_{k}": on_tokens(
            f"q = RotaryEmbedding<num_heads=2, interleaved={k}>(a, c, s) z = MatMul(q, w4)",
            "c s 2x4x2, w4 8x8",
            opset=23,
        )
        for k in (0, 1)
    },
    **{
        f"onnx_RotaryEmbedding_4d_{k}": on_tokens(
            f"""n = Reshape(a, [2, 4, 2, 4]) t = Transpose<perm=[0,2,1,3]>(n)
                q = RotaryEmbedding<interleaved={k}>(t, c, s, places) u = Transpose<perm=[0,2,1,3]>(q)
                z = Reshape(u, [2, 4, 8])""",
            "c s 6x2",
            given="int64[2,4] places = {0, 1, 2, 3, 2, 3, 4, 5}",
            opset=23,
        )
        for k in (0, 1)
    },
    "onnx_RotaryEmbedding_partial": on_tokens(
        "z = RotaryEmbedding<num_heads=2, rotary_embedding_dim=2>(a, c, s)", "c s 2x4x1", opset=23
    ),
}
