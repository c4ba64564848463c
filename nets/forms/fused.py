"""Layers that onnxruntime fuses with what follows, and weights in blocks of few bits."""

from nets.frames import DOMAIN, on_map, on_tokens, ort
from nets.notation import Net, random_bytes

FUSED = {
    "FusedConv": on_map(f'z = {ort("FusedConv")}<activation="Relu">(a, w4, b4)', "w4 8x8x3x3, b4 8", opset=17),
    "FusedConv_no_bias": on_map(
        f'z = {ort("FusedConv")}<activation="LeakyRelu", activation_params=[0.1]>(a, w4)', "w4 8x8x1x1"
    ),
    "FusedConv_group": on_map(
        f'z = {ort("FusedConv")}<activation="Relu", group=4, pads=[1,1,1,1]>(a, w4, b4)', "w4 8x2x3x3, b4 8"
    ),
    "FusedConv_depthwise": on_map(f'z = {ort("FusedConv")}<activation="Tanh", group=8>(a, w4, b4)', "w4 8x1x1x1, b4 8"),
    "FusedConv_sum": on_map(
        f'c = Conv(x, w5) z = {ort("FusedConv")}<activation="Relu">(a, w4, b4, c)', "w4 8x8x1x1, b4 8, w5 8x3x1x1"
    ),
    **{
        f"FusedGemm_{name}": on_tokens(
            f"""f = Reshape(a, [8, 8]) g = {ort("FusedGemm")}<activation="Relu", alpha=0.5, {attributes}>(f, w4{more})
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
    "FusedGemm_transA": on_tokens(
        f"""f = Reshape(a, [8, 8]) t = Transpose(f) g = {ort("FusedGemm")}<activation="Relu", transA=1>(t, w4, b4)
            z = Reshape(g, [2, 4, 8])""",
        "w4 8x8, b4 8",
    ),
    "FusedMatMul": on_tokens(f"z = {ort('FusedMatMul')}<alpha=0.5>(a, w4)", "w4 8x8"),
    "FusedMatMul_transB": on_tokens(f"z = {ort('FusedMatMul')}<transB=1>(a, w4)", "w4 7x8", wide=7),
    "FusedMatMul_transA": on_tokens(
        f"k = MatMul(x, wk) z = {ort('FusedMatMul')}<transA=1>(a, k)", "wk 6x7", wide=7, width=9
    ),
    "FusedMatMul_scores": on_tokens(
        f"k = MatMul(x, wk) s = {ort('FusedMatMul')}<transB=1, alpha=0.3>(a, k) z = MatMul(s, k)", "wk 6x8"
    ),
    "FusedMatMul_transBatchA": on_tokens(
        f"""k = MatMul(x, wk) t = Transpose<perm=[1,0,2]>(a) z = {ort("FusedMatMul")}<transBatchA=1, transB=1>(t, k)""",
        "wk 6x8",
        wide=4,
    ),
    "FusedMatMul_transBatchB": on_tokens(
        f"""k = MatMul(x, wk) t = Transpose<perm=[1,0,2]>(k) z = {ort("FusedMatMul")}<transBatchB=1, transB=1>(a, t)""",
        "wk 6x8",
        wide=4,
    ),
    "FusedMatMul_transBatch_trans": on_tokens(
        f"""k = MatMul(x, wk) t = Transpose<perm=[2,0,1]>(a) z = {ort("FusedMatMul")}<transBatchA=1, transA=1>(t, k)""",
        "wk 6x8",
        width=4,
    ),
    "BiasGelu": on_tokens(f"z = {ort('BiasGelu')}(a, s)", "s 8"),
    "FastGelu": on_tokens(f"z = {ort('FastGelu')}(a)"),
    "FastGelu_bias": on_tokens(f"z = {ort('FastGelu')}(a, s)", "s 8"),
    "QuickGelu": on_tokens(f"z = {ort('QuickGelu')}<alpha=1.3>(a)"),
    "Gelu": on_tokens(f"z = {ort('Gelu')}(a)"),
    "MatMulNBits": on_tokens(
        f"z = {ort('MatMulNBits')}<K=32, N=8, bits=4, block_size=16>(a, w4, s)",
        "s 8x2",
        width=32,
        given=random_bytes("w4", 8, 2, 8),
    ),
    "MatMulNBits_flat": on_tokens(
        f"z = {ort('MatMulNBits')}<K=32, N=8, bits=4, block_size=16>(a, w4, s, p)",
        "s 16",
        width=32,
        given=f"{random_bytes('w4', 8, 2, 8)}, {random_bytes('p', 8)}",
    ),
    "MatMulNBits_bias": on_tokens(
        f"z = {ort('MatMulNBits')}<K=32, N=8, bits=8, block_size=16>(a, w4, s, p, , b4)",
        "s 8x2, b4 8",
        width=32,
        given=f"{random_bytes('w4', 8, 2, 16)}, {random_bytes('p', 8, 2)}",
    ),
}


def _n_bits(body: str, given: str = "", *, bits: int = 4, blocks: int = 3, weights: str = "") -> Net:
    """Return a net in which `OP` makes `z` of `a`, which a layer of the same kind has made, in blocks of 16."""
    call = f"{ort('MatMulNBits')}<K=%d, N=%d, bits={bits}, block_size=16>"
    made = f"a = {call % (16, 16 * blocks)}(first, w0, s0) {body}".replace("OP", call % (16 * blocks, 8))
    text = f"""(float[2,4,6] x) => (float[outer,tokens,5] y)
        <{random_bytes("w0", 16 * blocks, 1, 2 * bits)}, {random_bytes("w4", 8, blocks, 2 * bits)}{given}> {{
        first = MatMul(x, w1) {made} h = MatMul(z, w2) r = Relu(h) y = MatMul(r, w3)
    }}"""
    layers = f"w1 6x16, w2 8x6, w3 6x5, s0 {16 * blocks}x1, s 8x{blocks}, {weights}"
    return Net(text, layers, opset=21, domains=DOMAIN)


BLOCKS = {
    "DequantizeLinear_blocks": on_tokens(
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
