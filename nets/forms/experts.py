"""Mixtures of experts."""

from nets.frames import on_tokens, ort
from nets.notation import Net, random_bytes


def _experts(
    operator: str, settings: str, inputs: str, weights: str, *, width: int = 8, given: str = "", more: str = ""
) -> Net:
    """Return a net in which each token meets two of four experts."""
    return on_tokens(
        f"f = Reshape(a, [-1, {width}]) p = MatMul(f, wr) {more} z = {ort(operator)}<k=2, {settings}>(a, p, {inputs})",
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
