"""Which onnxruntime first runs a net: operators and cures of defects that came after the lowest one declared."""

import onnxruntime as ort

from nets.fused import plain

_FIRST = {
    25: """
        BitCast CumProd DeformConv TensorScatter com.microsoft.QMoE QMoE_rows QMoE_blocks onnx_Attention_mask_by_head
    """,
    27: """
        com.microsoft.GroupQueryAttention GroupQueryAttention GroupQueryAttention_scale GroupQueryAttention_rotary
        GroupQueryAttention_rotary_interleaved GroupQueryAttention_packed FusedConv_sum QLinearConv
    """,
    32: "LinearAttention CausalConvWithState Attention_packed_no_bias",
}
NEEDS = {name: minor for minor, names in _FIRST.items() for name in names.split()}
"""Net -> the minor version of onnxruntime 1 that first runs it, and as it should."""

INSTALLED = int(ort.__version__.split(".")[1])


def lacking(name: str) -> str:
    """Why the installed onnxruntime cannot run a net; empty if it can."""
    needed = NEEDS.get(plain(name), 0)
    return f"{name} needs onnxruntime 1.{needed}, and 1.{INSTALLED} is installed" if needed > INSTALLED else ""
