"""Fused, attention, recurrent and quantized operators in all their forms: tiny nets of one each."""

from nets.notation import Net, random_bytes

_ORT = ', "com.microsoft" : 1'
_QUANTIZED = "uint8 zx = {128}, int8 zw = {0}, float sx = {0.02}, float sw = {0.01}"
_HALF = "float[2,4,4] mask = {" + ", ".join(["0.0", "-1.0", "0.5", "0.25"] * 8) + "}"


def _map(body: str, weights: str = "", *, wide: int = 8, given: str = "", opset: int = 21) -> Net:
    """Return a net in which `body` makes `z`, of `wide` channels, from the feature map `a` ``[2, 8, 4, 4]``."""
    text = f"""(float[2,3,4,4] x) => (float[2,5,height,width] y) {f"<{given}>" if given else ""} {{
        a = Conv(x, w1, b1) {body} h = Conv(z, w2, b2) r = Relu(h) y = Conv(r, w3, b3)
    }}"""
    layers = f"w1 8x3x1x1, b1 8, w2 6x{wide}x1x1, b2 6, w3 5x6x1x1, b3 5"
    return Net(text, f"{layers}, {weights}", opset=opset, domains=_ORT)


def _tokens(
    body: str, weights: str = "", *, width: int = 8, wide: int = 8, given: str = "", opset: int = 21, seq: int = 4
) -> Net:
    """Return a net in which `body` makes `z`, of `wide` channels, from the tokens `a` ``[2, seq, width]``."""
    text = f"""(float[2,{seq},6] x) => (float[outer,tokens,5] y) {f"<{given}>" if given else ""} {{
        a = MatMul(x, w1) {body} h = MatMul(z, w2) r = Relu(h) y = MatMul(r, w3)
    }}"""
    layers = f"w1 6x{width}, w2 {wide}x6, w3 6x5"
    return Net(text, f"{layers}, {weights}", opset=opset, domains=_ORT)


def _ms(op: str) -> str:
    return f"com.microsoft.{op}"


FUSED = {
    "FusedConv": _map(f'z = {_ms("FusedConv")}<activation="Relu">(a, w4, b4)', "w4 8x8x3x3, b4 8", opset=17),
    "FusedConv_no_bias": _map(
        f'z = {_ms("FusedConv")}<activation="LeakyRelu", activation_params=[0.1]>(a, w4)', "w4 8x8x1x1"
    ),
    "FusedConv_group": _map(
        f'z = {_ms("FusedConv")}<activation="Relu", group=4, pads=[1,1,1,1]>(a, w4, b4)', "w4 8x2x3x3, b4 8"
    ),
    "FusedConv_depthwise": _map(f'z = {_ms("FusedConv")}<activation="Tanh", group=8>(a, w4, b4)', "w4 8x1x1x1, b4 8"),
    "FusedConv_sum": _map(
        f'c = Conv(x, w5) z = {_ms("FusedConv")}<activation="Relu">(a, w4, b4, c)', "w4 8x8x1x1, b4 8, w5 8x3x1x1"
    ),
    **{
        f"FusedGemm_{name}": _tokens(
            f"""f = Reshape(a, [8, 8]) g = {_ms("FusedGemm")}<activation="Relu", alpha=0.5, {attributes}>(f, w4{more})
                z = Reshape(g, [2, 4, 8])""",
            f"w4 8x8{weights}",
        )
        for name, attributes, more, weights in (
            ("plain", "transB=0", ", b4", ", b4 8"),
            ("transB", "transB=1, beta=0.5", ", b4", ", b4 8"),
            ("no_bias", "transB=1", "", ""),
            ("bias_1x8", "transB=1", ", b4", ", b4 1x8"),
        )
    },
    "FusedGemm_transA": _tokens(
        f"""f = Reshape(a, [8, 8]) t = Transpose(f) g = {_ms("FusedGemm")}<activation="Relu", transA=1>(t, w4, b4)
            z = Reshape(g, [2, 4, 8])""",
        "w4 8x8, b4 8",
    ),
    "FusedMatMul": _tokens(f"z = {_ms('FusedMatMul')}<alpha=0.5>(a, w4)", "w4 8x8"),
    "FusedMatMul_transB": _tokens(f"z = {_ms('FusedMatMul')}<transB=1>(a, w4)", "w4 7x8", wide=7),
    "FusedMatMul_transA": _tokens(
        f"k = MatMul(x, wk) z = {_ms('FusedMatMul')}<transA=1>(a, k)", "wk 6x7", wide=7, width=9
    ),
    "FusedMatMul_scores": _tokens(
        f"k = MatMul(x, wk) s = {_ms('FusedMatMul')}<transB=1, alpha=0.3>(a, k) z = MatMul(s, k)", "wk 6x8"
    ),
    "FusedMatMul_transBatchA": _tokens(
        f"""k = MatMul(x, wk) t = Transpose<perm=[1,0,2]>(a) z = {_ms("FusedMatMul")}<transBatchA=1, transB=1>(t, k)""",
        "wk 6x8",
        wide=4,
    ),
    "FusedMatMul_transBatchB": _tokens(
        f"""k = MatMul(x, wk) t = Transpose<perm=[1,0,2]>(k) z = {_ms("FusedMatMul")}<transBatchB=1, transB=1>(a, t)""",
        "wk 6x8",
        wide=4,
    ),
    "FusedMatMul_transBatch_trans": _tokens(
        f"""k = MatMul(x, wk) t = Transpose<perm=[2,0,1]>(a) z = {_ms("FusedMatMul")}<transBatchA=1, transA=1>(t, k)""",
        "wk 6x8",
        width=4,
    ),
    "BiasGelu": _tokens(f"z = {_ms('BiasGelu')}(a, s)", "s 8"),
    "FastGelu": _tokens(f"z = {_ms('FastGelu')}(a)"),
    "FastGelu_bias": _tokens(f"z = {_ms('FastGelu')}(a, s)", "s 8"),
    "QuickGelu": _tokens(f"z = {_ms('QuickGelu')}<alpha=1.3>(a)"),
    "Gelu": _tokens(f"z = {_ms('Gelu')}(a)"),
    "MatMulNBits": _tokens(
        f"z = {_ms('MatMulNBits')}<K=32, N=8, bits=4, block_size=16>(a, w4, s)",
        "s 8x2",
        width=32,
        given=random_bytes("w4", 8, 2, 8),
    ),
    "MatMulNBits_flat": _tokens(
        f"z = {_ms('MatMulNBits')}<K=32, N=8, bits=4, block_size=16>(a, w4, s, p)",
        "s 16",
        width=32,
        given=f"{random_bytes('w4', 8, 2, 8)}, {random_bytes('p', 8)}",
    ),
    "MatMulNBits_bias": _tokens(
        f"z = {_ms('MatMulNBits')}<K=32, N=8, bits=8, block_size=16>(a, w4, s, p, , b4)",
        "s 8x2, b4 8",
        width=32,
        given=f"{random_bytes('w4', 8, 2, 16)}, {random_bytes('p', 8, 2)}",
    ),
}


def _n_bits(body: str, given: str = "", *, bits: int = 4, blocks: int = 3, weights: str = "") -> Net:
    """Return a net in which `OP` makes `z` of `a`, which a layer of the same kind has made, in blocks of 16."""
    call = f"{_ms('MatMulNBits')}<K=%d, N=%d, bits={bits}, block_size=16>"
    made = f"a = {call % (16, 16 * blocks)}(first, w0, s0) {body}".replace("OP", call % (16 * blocks, 8))
    text = f"""(float[2,4,6] x) => (float[outer,tokens,5] y)
        <{random_bytes("w0", 16 * blocks, 1, 2 * bits)}, {random_bytes("w4", 8, blocks, 2 * bits)}{given}> {{
        first = MatMul(x, w1) {made} h = MatMul(z, w2) r = Relu(h) y = MatMul(r, w3)
    }}"""
    layers = f"w1 6x16, w2 8x6, w3 6x5, s0 {16 * blocks}x1, s 8x{blocks}, {weights}"
    return Net(text, layers, opset=21, domains=_ORT)


BLOCKS = {
    "DequantizeLinear_blocks": _tokens(
        "d = DequantizeLinear<axis=0, block_size=4>(w4, s4, p4) z = MatMul(a, d)",
        "s4 4x8",
        width=16,
        given=f"{random_bytes('w4', 16, 8)}, {random_bytes('p4', 4, 8)}",
    ),
    "MatMulNBits_blocks": _n_bits("z = OP(a, w4, s)"),
    "MatMulNBits_blocks_zeros": _n_bits("z = OP(a, w4, s, p)", f", {random_bytes('p', 8, 3)}", blocks=5),
    "MatMulNBits_blocks_zeros_flat": _n_bits("z = OP(a, w4, s, p)", f", {random_bytes('p', 16)}", blocks=4),
    "MatMulNBits_blocks_8": _n_bits("z = OP(a, w4, s, p)", f", {random_bytes('p', 8, 3)}", bits=8),
    "MatMulNBits_blocks_float_zeros": _n_bits("z = OP(a, w4, s, p, , b4)", weights="p 8x3, b4 8"),
}

NORMS = {
    "SkipLayerNormalization": _tokens(
        f"""k = MatMul(x, wk) n, , , s = {_ms("SkipLayerNormalization")}(a, k, gain, shift, b4)
            m = MatMul(n, w4) z = Add(m, s)""",
        "wk 6x8, gain shift b4 8, w4 8x8",
    ),
    "SkipLayerNormalization_broadcast": _tokens(
        f"n = {_ms('SkipLayerNormalization')}(a, skip, gain) z = MatMul(n, w4)", "skip 4x8, gain 8, w4 8x8"
    ),
    "SkipSimplifiedLayerNormalization": _tokens(
        f"""k = MatMul(x, wk) n, , , s = {_ms("SkipSimplifiedLayerNormalization")}(a, k, gain, b4)
            m = MatMul(n, w4) z = Add(m, s)""",
        "wk 6x8, gain b4 8, w4 8x8",
    ),
    "SimplifiedLayerNormalization": _tokens("z = SimplifiedLayerNormalization(a, gain)", "gain 8"),
    "EmbedLayerNormalization": _tokens(
        f"""p = Greater(a, {{0.0}}) i = Cast<to=6>(p) ids = ReduceSum<keepdims=0>(i, [2])
            e, c, s = {_ms("EmbedLayerNormalization")}(ids, kinds, words, places, types, gain, shift, mask)
            t = Add(e, s) z = MatMul(t, w4)""",
        "words 9x8, places 4x8, types 2x8, gain shift 8, w4 8x8",
        given="int32[2,4] kinds = {0, 1, 1, 0, 0, 0, 1, 1}, int32[2,4] mask = {1, 1, 1, 1, 1, 1, 0, 0}",
    ),
    "LayerNormalization_mean": _tokens("n, m, d = LayerNormalization(a, gain, shift) z = Sub(n, m)", "gain shift 8"),
    "RMSNormalization": _tokens("n = RMSNormalization(a, gain) z = MatMul(n, w4)", "gain 8, w4 8x8", opset=23),
    "RMSNormalization_heads": _tokens(
        """q = Reshape(a, [2, 4, 4, 2]) n = RMSNormalization(q, gain) z = Reshape(n, [2, 4, 8])""", "gain 2", opset=23
    ),
    "GroupNormalization_18": _map("z = GroupNormalization<num_groups=4>(a, s, t)", "s t 4", opset=18),
    "GroupNormalization_21": _map("z = GroupNormalization<num_groups=4>(a, s, t)", "s t 8", opset=21),
    "GroupNormalization_instance": _map("z = GroupNormalization<num_groups=8>(a, s, t)", "s t 8", opset=21),
}

_QKV = "k = MatMul(x, wk) v = MatMul(x, wv)"
_MHA = _ms("MultiHeadAttention")
_GQA = _ms("GroupQueryAttention")
_LAST = "int32[2] last = {3, 3}, int32 total = {4}"
_FOUR = """q4 = Reshape(a, [2, 4, HEADS, SIZE]) q = Transpose<perm=[0,2,1,3]>(q4)
    ka = MatMul(x, wk) k4 = Reshape(ka, [2, 4, 2, SIZE]) k = Transpose<perm=[0,2,1,3]>(k4)
    va = MatMul(x, wv) v4 = Reshape(va, [2, 4, 2, 3]) v = Transpose<perm=[0,2,1,3]>(v4)"""
_BACK = "t = Transpose<perm=[0,2,1,3]>(o) z = Reshape(t, [2, 4, WIDE])"


def _four(call: str, heads: int = 4) -> Net:
    text = f"{_FOUR} o = {call} {_BACK}".replace("HEADS", str(heads)).replace("SIZE", "4")
    return _tokens(text.replace("WIDE", str(3 * heads)), "wk 6x8, wv 6x6", width=4 * heads, wide=3 * heads, opset=23)


ATTENTION = {
    "Attention_packed": _tokens(f"z = {_ms('Attention')}<num_heads=4>(a, w4, b4)", "w4 8x48, b4 48", wide=16),
    "Attention_packed_no_bias": _tokens(f"z = {_ms('Attention')}<num_heads=4>(a, w4)", "w4 8x48", wide=16),
    "Attention_packed_causal": _tokens(
        f"z = {_ms('Attention')}<num_heads=4, unidirectional=1, scale=0.4>(a, w4, b4)", "w4 8x48, b4 48", wide=16
    ),
    "Attention_packed_mask": _tokens(
        f"z = {_ms('Attention')}<num_heads=4>(a, w4, b4, ends)",
        "w4 8x48, b4 48",
        wide=16,
        given="int32[2] ends = {4, 3}",
    ),
    "MultiHeadAttention": _tokens(f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v)", "wk wv 6x16", width=16, wide=16),
    "MultiHeadAttention_bias": _tokens(
        f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v, b4)", "wk wv 6x16, b4 48", width=16, wide=16
    ),
    "MultiHeadAttention_value_size": _tokens(
        f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v)", "wk 6x16, wv 6x12", width=16, wide=12
    ),
    "MultiHeadAttention_mask": _tokens(
        f"{_QKV} z = {_MHA}<num_heads=4, scale=0.3>(a, k, v, , ends)",
        "wk wv 6x16",
        width=16,
        wide=16,
        given="int32[2] ends = {4, 3}",
    ),
    "MultiHeadAttention_scores_bias": _tokens(
        f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v, , , extra)", "wk wv 6x16, extra 1x4x4x4", width=16, wide=16
    ),
    "MultiHeadAttention_scores_bias_shared": _tokens(
        f"{_QKV} z = {_MHA}<num_heads=4>(a, k, v, , , extra)", "wk wv 6x16, extra 1x1x4x4", width=16, wide=16
    ),
    "MultiHeadAttention_present": _tokens(
        f"""{_QKV} o, pk, pv = {_MHA}<num_heads=4>(a, k, v) t = Transpose<perm=[0,2,1,3]>(pv)
            u = Reshape(t, [2, 4, 16]) z = Add(o, u)""",
        "wk wv 6x16",
        width=16,
        wide=16,
    ),
    "MultiHeadAttention_past": _tokens(
        f"""{_QKV} kp = MatMul(x, wkp) kr = Reshape(kp, [2, 4, 4, 4]) kt = Transpose<perm=[0,2,1,3]>(kr)
            vp = MatMul(x, wvp) vr = Reshape(vp, [2, 4, 4, 4]) vt = Transpose<perm=[0,2,1,3]>(vr)
            z, pk, pv = {_MHA}<num_heads=4>(a, k, v, , , , kt, vt)""",
        "wk wv wkp wvp 6x16",
        width=16,
        wide=16,
    ),
    "GroupQueryAttention": _tokens(
        f"{_QKV} z = {_GQA}<num_heads=4, kv_num_heads=2>(a, k, v, , , last, total)",
        "wk wv 6x16",
        width=32,
        wide=32,
        given=_LAST,
    ),
    "GroupQueryAttention_scale": _tokens(
        f"{_QKV} z = {_GQA}<num_heads=4, kv_num_heads=4, scale=0.2, softcap=5.0>(a, k, v, , , last, total)",
        "wk wv 6x32",
        width=32,
        wide=32,
        given=_LAST,
    ),
    "GroupQueryAttention_rotary": _tokens(
        f"{_QKV} z = {_GQA}<num_heads=4, kv_num_heads=2, do_rotary=1>(a, k, v, , , last, total, c, s)",
        "wk wv 6x32, c s 8x8",
        width=64,
        wide=64,
        given=_LAST,
    ),
    "GroupQueryAttention_rotary_interleaved": _tokens(
        f"""{_QKV} z = {_GQA}<num_heads=4, kv_num_heads=2, do_rotary=1, rotary_interleaved=1>(
                a, k, v, , , last, total, c, s)""",
        "wk wv 6x32, c s 8x8",
        width=64,
        wide=64,
        given=_LAST,
    ),
    "GroupQueryAttention_packed": _tokens(
        f"z = {_GQA}<num_heads=4, kv_num_heads=2>(a, , , , , last, total)", width=64, wide=32, given=_LAST
    ),
    "onnx_Attention": _tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=4>(a, k, v)", "wk wv 6x16", width=16, wide=16, opset=23
    ),
    "onnx_Attention_gqa": _tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1>(a, k, v)",
        "wk wv 6x8",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_value_size": _tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=2, scale=0.4, softcap=2.0>(a, k, v)",
        "wk 6x8, wv 6x6",
        width=16,
        wide=12,
        opset=23,
    ),
    "onnx_Attention_mask": _tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=2>(a, k, v, mask)",
        "wk wv 6x8, mask 4x4",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_mask_by_head": _tokens(
        f"{_QKV} z = Attention<q_num_heads=4, kv_num_heads=2>(a, k, v, mask)",
        "wk wv 6x8, mask 1x4x4x4",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_past": _tokens(
        f"""{_QKV} kr = Reshape(k, [2, 4, 2, 4]) kt = Transpose<perm=[0,2,1,3]>(kr) vr = Reshape(v, [2, 4, 2, 4])
            vt = Transpose<perm=[0,2,1,3]>(vr) o, pk, pv = Attention<q_num_heads=4, kv_num_heads=2>(a, k, v, , kt, vt)
            b = Add(pk, pv) s = ReduceMean<keepdims=0>(b, [2]) u = Reshape(s, [2, 1, 8])
            w = MatMul(u, w4) z = Add(o, w)""",
        "wk wv 6x8, w4 8x16",
        width=16,
        wide=16,
        opset=23,
    ),
    "onnx_Attention_scores": _tokens(
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
    "RotaryEmbedding": _tokens(
        f"q = {_ms('RotaryEmbedding')}<num_heads=2>(a, places, c, s) z = MatMul(q, w4)",
        "c s 6x2, w4 8x8",
        given="int64[2,4] places = {0, 1, 2, 3, 2, 3, 4, 5}",
    ),
    "RotaryEmbedding_interleaved": _tokens(
        f"q = {_ms('RotaryEmbedding')}<num_heads=2, interleaved=1>(a, places, c, s) z = MatMul(q, w4)",
        "c s 6x2, w4 8x8",
        given="int64[1] places = {1}",
    ),
    "RotaryEmbedding_4d": _tokens(
        f"""n = Reshape(a, [2, 4, 2, 4]) t = Transpose<perm=[0,2,1,3]>(n) q = {_ms("RotaryEmbedding")}(t, places, c, s)
            u = Transpose<perm=[0,2,1,3]>(q) z = Reshape(u, [2, 4, 8])""",
        "c s 6x2",
        given="int64[1] places = {1}",
    ),
    "RotaryEmbedding_partial": _tokens(
        f"z = {_ms('RotaryEmbedding')}<num_heads=2, rotary_embedding_dim=2>(a, places, c, s)",
        "c s 6x1",
        given="int64[1] places = {1}",
    ),
    **{
        f"onnx_RotaryEmbedding_{k}": _tokens(
            f"q = RotaryEmbedding<num_heads=2, interleaved={k}>(a, c, s) z = MatMul(q, w4)",
            "c s 2x4x2, w4 8x8",
            opset=23,
        )
        for k in (0, 1)
    },
    **{
        f"onnx_RotaryEmbedding_4d_{k}": _tokens(
            f"""n = Reshape(a, [2, 4, 2, 4]) t = Transpose<perm=[0,2,1,3]>(n)
                q = RotaryEmbedding<interleaved={k}>(t, c, s, places) u = Transpose<perm=[0,2,1,3]>(q)
                z = Reshape(u, [2, 4, 8])""",
            "c s 6x2",
            given="int64[2,4] places = {0, 1, 2, 3, 2, 3, 4, 5}",
            opset=23,
        )
        for k in (0, 1)
    },
    "onnx_RotaryEmbedding_partial": _tokens(
        "z = RotaryEmbedding<num_heads=2, rotary_embedding_dim=2>(a, c, s)", "c s 2x4x1", opset=23
    ),
}


def _directions(op: str, gates: int) -> dict[str, Net]:
    """A cell in every direction, with its weights alone and with all inputs that it may have."""
    nets = {}
    states, peepholes = ("h0, c0", ", p4") if op == "LSTM" else ("h0", "")
    for way, number in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        flat = f"q1 = Transpose<perm=[0,2,1,3]>(s) q = Reshape(q1, [4, 2, {5 * number}])"
        tail = f"{flat} z = Transpose<perm=[1,0,2]>(q)"
        weights = f"w4 {number}x{5 * gates}x8, r4 {number}x{5 * gates}x5"
        starts = ", ".join(f"{s} {number}x2x5" for s in states.split(", "))
        head = f't = Transpose<perm=[1,0,2]>(a) s, = {op}<hidden_size=5, direction="{way}"'
        nets[f"{op}_{way}"] = _tokens(f"{head}>(t, w4, r4) {tail}", weights, wide=5 * number)
        nets[f"{op}_{way}_all"] = _tokens(
            f"{head}>(t, w4, r4, b4, ends, {states}{peepholes}) {tail}",
            f"{weights}, b4 {number}x{10 * gates}, {starts}" + (f", p4 {number}x15" if peepholes else ""),
            wide=5 * number,
            given="int32[2] ends = {4, 3}",
        )
    return nets


def _cells() -> dict[str, Net]:
    nets = {}
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        nets |= _directions(op, gates)
        nets[f"{op}_final"] = _tokens(
            f"""t = Transpose<perm=[1,0,2]>(a) , f = {op}<hidden_size=5>(t, w4, r4, b4) g = Squeeze(f, [0])
                z = Unsqueeze(g, [1])""",
            f"w4 1x{5 * gates}x8, r4 1x{5 * gates}x5, b4 1x{10 * gates}",
            wide=5,
        )
        nets[f"{op}_batch_first"] = _tokens(
            f"s, = {op}<hidden_size=5, layout=1>(a, w4, r4, b4) z = Squeeze(s, [2])",
            f"w4 1x{5 * gates}x8, r4 1x{5 * gates}x5, b4 1x{10 * gates}",
            wide=5,
        )
    nets["GRU_reset_after"] = _tokens(
        """t = Transpose<perm=[1,0,2]>(a) s, = GRU<hidden_size=5, linear_before_reset=1>(t, w4, r4, b4)
            q = Squeeze(s, [1]) z = Transpose<perm=[1,0,2]>(q)""",
        "w4 1x15x8, r4 1x15x5, b4 1x30",
        wide=5,
    )
    nets["LSTM_forget"] = _tokens(
        """t = Transpose<perm=[1,0,2]>(a) , e, c = LSTM<hidden_size=5, clip=3.0>(t, w4, r4, b4) d = Add(e, c)
            z = Transpose<perm=[1,0,2]>(d)""",
        "w4 1x20x8, r4 1x20x5, b4 1x40",
        wide=5,
    )
    return nets


def _quantized_cells() -> dict[str, Net]:
    """A cell with integer weights: stacked in both directions, a zero point each; by column, with all inputs."""
    op, tail = _ms("DynamicQuantizeLSTM"), "q1 = Transpose<perm=[0,2,1,3]>(s) q = Reshape(q1, [4, 2, 10])"
    signed = "float[2] sw = {0.01, 0.02}, int8[2] zw = {0, 0}"
    columns, nothing = ", ".join(["0.01", "0.02", "0.005", "0.015"] * 10), ", ".join(["0"] * 40)
    return {
        "DynamicQuantizeLSTM_stacked": _tokens(
            f"""t = Transpose<perm=[1,0,2]>(a)
                s1, = {op}<hidden_size=5, direction="bidirectional">(t, w4, r4, b4, , , , , sx, zx, sx, zx)
                t1 = Transpose<perm=[0,2,1,3]>(s1) u = Reshape(t1, [4, 2, 10])
                s, = {op}<hidden_size=5, direction="bidirectional">(u, w5, r5, b5, , , , , sw, zw, sw, zw)
                {tail} z = Transpose<perm=[1,0,2]>(q)""",
            "w5 2x10x20:int8, r5 2x5x20:int8, b4 b5 2x40",
            wide=10,
            given=f"""float[2] sx = {{0.01, 0.02}}, uint8[2] zx = {{128, 120}}, {signed},
                {random_bytes("w4", 2, 8, 20)}, {random_bytes("r4", 2, 5, 20)}""",
        ),
        "DynamicQuantizeLSTM_all": _tokens(
            f"""t = Transpose<perm=[1,0,2]>(a)
                s, = {op}<hidden_size=5, direction="bidirectional">(t, w4, r4, b4, ends, h0, c0, p4, sw, zw, sw, zw)
                {tail} z = Transpose<perm=[1,0,2]>(q)""",
            "w4 2x8x20:int8, r4 2x5x20:int8, b4 2x40, h0 c0 2x2x5, p4 2x15",
            wide=10,
            given=f"int32[2] ends = {{4, 3}}, float[2,20] sw = {{{columns}}}, int8[2,20] zw = {{{nothing}}}",
        ),
    }


def _quantized(body: str) -> str:
    return f"q = QuantizeLinear(a, sx, zx) {body} z = DequantizeLinear(i, sx, zx)"


QUANTIZED = {
    "QLinearConv": _map(
        _quantized("i = QLinearConv(q, sx, zx, w4, sv, zv, sx, zx, b4)"),
        "w4 8x8x1x1:int8, b4 8:int32, sv 8, zv 8:int8",
        given=_QUANTIZED,
    ),
    "QLinearConv_group": _map(
        _quantized("i = QLinearConv<group=4>(q, sx, zx, w4, sw, zw, sx, zx)"), "w4 8x2x3x3:int8", given=_QUANTIZED
    ),
    "QLinearMatMul": _tokens(
        _quantized("i = QLinearMatMul(q, sx, zx, w4, sv, zv, sx, zx)"),
        "w4 8x8:int8, sv 8, zv 8:int8",
        given=_QUANTIZED,
    ),
    "QGemm_bias": _tokens(
        f"""f = Reshape(a, [8, 8]) q = QuantizeLinear(f, sx, zx)
            i = {_ms("QGemm")}<transB=1>(q, sx, zx, w4, sv, zv, b4, sx, zx) d = DequantizeLinear(i, sx, zx)
            z = Reshape(d, [2, 4, 8])""",
        "w4 8x8:int8, sv 8, zv 8:int8, b4 8:int32",
        given=_QUANTIZED,
    ),
    "QGemm_float": _tokens(
        f"""f = Reshape(a, [8, 8]) q = QuantizeLinear(f, sx, zx) g = {_ms("QGemm")}(q, sx, zx, w4, sw, zw)
            z = Reshape(g, [2, 4, 8])""",
        "w4 8x8:int8",
        given=_QUANTIZED,
    ),
    **{
        op: _map(
            f"""b = Conv(x, w4, b4) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
                i = {_ms(op)}(q, sx, zx, p, sx, zx, sx, zx) z = DequantizeLinear(i, sx, zx)""",
            "w4 8x3x1x1, b4 8",
            given=_QUANTIZED,
        )
        for op in ("QLinearAdd", "QLinearMul")
    },
    "QLinearLeakyRelu": _map(
        _quantized(f"i = {_ms('QLinearLeakyRelu')}<alpha=0.2>(q, sx, zx, sx, zx)"), given=_QUANTIZED
    ),
    "QLinearSigmoid": _map(_quantized(f"i = {_ms('QLinearSigmoid')}(q, sx, zx, sx, zx)"), given=_QUANTIZED),
    "QLinearAveragePool": _map(
        _quantized(
            f"""i = {_ms("QLinearAveragePool")}<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>
                (q, sx, zx, sx, zx)"""
        ),
        given=_QUANTIZED,
    ),
    "QLinearConcat": _map(
        f"""b = Conv(x, w4, b4) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
            i = {_ms("QLinearConcat")}<axis=1>(sx, zx, p, sx, zx, q, sx, zx) z = DequantizeLinear(i, sx, zx)""",
        "w4 6x3x1x1, b4 6",
        wide=14,
        given=_QUANTIZED,
    ),
    "QLinearWhere": _map(
        f"""b = Conv(x, w4, b4) m = Greater(b, {{0.0}}) q = QuantizeLinear(a, sx, zx) p = QuantizeLinear(b, sx, zx)
            i = {_ms("QLinearWhere")}(m, q, sx, zx, p, sx, zx, sx, zx) z = DequantizeLinear(i, sx, zx)""",
        "w4 8x3x1x1, b4 8",
        given=_QUANTIZED,
    ),
    "QLinearSoftmax": _tokens(
        _quantized(f"i = {_ms('QLinearSoftmax')}<axis=1, opset=13>(q, sx, zx, sy, zy)"),
        given=_QUANTIZED + ", float sy = {0.00390625}, uint8 zy = {0}",
    ),
    "QAttention": _tokens(
        f"q = QuantizeLinear(a, sx, zx) z = {_ms('QAttention')}<num_heads=4>(q, w4, b4, sx, sw, ends, zx, zw)",
        "w4 8x48:int8, b4 48",
        wide=16,
        given=_QUANTIZED + ", int32[2] ends = {4, 3}",
    ),
    "QAttention_columns": _tokens(
        f"""q, s, t = DynamicQuantizeLinear(a)
            z = {_ms("QAttention")}<num_heads=4, unidirectional=1>(q, w4, b4, s, sv, , t, zv)""",
        "w4 8x48:int8, b4 48, sv 48, zv 48:int8",
        wide=16,
    ),
    "QEmbedLayerNormalization": _tokens(
        f"""p = Greater(a, {{0.0}}) i = Cast<to=6>(p) ids = ReduceSum<keepdims=0>(i, [2])
            z, c = {_ms("QEmbedLayerNormalization")}
                (ids, kinds, words, places, types, gain, shift, mask, sx, sw, sx, sw, sw, zw, zw, zw, zw, zw)""",
        "words 9x8:int8, places 4x8:int8, types 2x8:int8, gain shift 8:int8",
        given=_QUANTIZED + ", int32[2,4] kinds = {0, 1, 1, 0, 0, 0, 1, 1}, int32[2,4] mask = {1, 1, 1, 1, 1, 1, 0, 0}",
    ),
    **{
        f"{op}_last": _map(
            _quantized(
                f"""t = Transpose<perm=[0,2,3,1]>(q) u = {_ms(op)}<{attributes}channels_last=1>(t, sx, zx, sx, zx)
                    i = Transpose<perm=[0,3,1,2]>(u)"""
            ),
            given=_QUANTIZED,
        )
        for op, attributes in (("QLinearAveragePool", "kernel_shape=[3,3], "), ("QLinearGlobalAveragePool", ""))
    },
    "QLinearGlobalAveragePool": _map(
        _quantized(f"i = {_ms('QLinearGlobalAveragePool')}(q, sx, zx, sx, zx)"), given=_QUANTIZED
    ),
    "MatMulIntegerToFloat": _tokens(
        f"q = QuantizeLinear(a, sx, zx) z = {_ms('MatMulIntegerToFloat')}(q, w4, sx, sv, zx, zv, b4)",
        "w4 8x8:int8, sv 8, zv 8:int8, b4 8",
        given=_QUANTIZED,
    ),
    "MatMulInteger_dynamic": _tokens(
        """q, sq, zq = DynamicQuantizeLinear(a) i = MatMulInteger(q, w4, zq, zv) f = Cast<to=1>(i) s = Mul(sq, sv)
           m = Mul(f, s) z = Add(m, b4)""",
        "w4 8x8:int8, sv 8, zv 8:int8, b4 8",
        given=_QUANTIZED,
    ),
    "ConvInteger_dynamic": _map(
        """q, sq, zq = DynamicQuantizeLinear(a) i = ConvInteger<group=2>(q, w4, zq, zw) f = Cast<to=1>(i)
           s = Mul(sq, sw) m = Mul(f, s) z = Add(m, b4)""",
        "w4 8x4x3x3:int8, b4 1x8x1x1",
        given=_QUANTIZED,
    ),
}


def _experts(
    operator: str, settings: str, inputs: str, weights: str, *, width: int = 8, given: str = "", more: str = ""
) -> Net:
    """Return a net in which each token meets two of four experts."""
    return _tokens(
        f"f = Reshape(a, [-1, {width}]) p = MatMul(f, wr) {more} z = {_ms(operator)}<k=2, {settings}>(a, p, {inputs})",
        f"wr {width}x4, {weights}",
        width=width,
        wide=width,
        given=given,
    )


EXPERTS = {
    "MoE": _experts("MoE", 'activation_type="gelu"', "u, , d", "u 4x6x8, d 4x8x6"),
    "MoE_gated": _experts(
        "MoE",
        """activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.7, activation_beta=1.0, swiglu_limit=0.7,
           normalize_routing_weights=1""",
        "u, ub, d, db",
        "u 4x12x8, ub 4x12, d 4x8x6, db 4x8",
    ),
    "QMoE_rows": _experts(
        "QMoE",
        'activation_type="silu", expert_weight_bits=8',
        "u, us, , d, ds, db",
        "us 4x16, ds 4x8, db 4x8",
        given=f"{random_bytes('u', 4, 16, 8)}, {random_bytes('d', 4, 8, 16)}",
    ),
    "QMoE_blocks": _experts(
        "QMoE",
        "block_size=16",
        "u, us, ub, d, ds, db, , , , uz, dz, , c",
        "us 4x64x2, ub 4x64, ds 4x32x4, db 4x32",
        width=32,
        given=f"{random_bytes('u', 4, 64, 16)}, {random_bytes('d', 4, 32, 32)}, {random_bytes('uz', 4, 64, 1)}, "
        f"{random_bytes('dz', 4, 32, 2)}",
        more="c = Sigmoid(p)",
    ),
}

CELLS = _cells() | _quantized_cells()
NETS: dict[str, Net] = {**FUSED, **BLOCKS, **NORMS, **ATTENTION, **CELLS, **QUANTIZED, **EXPERTS}

REFERENCE = {name: "onnxruntime has no batch-first cells" for name in NETS if name.endswith("_batch_first")}
"""Nets that onnxruntime cannot run, with the reason: the onnx reference runs them."""
