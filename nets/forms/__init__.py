"""Fused, attention, recurrent and quantized operators in all their forms: tiny nets of one each."""

from nets.forms.attention import ATTENTION
from nets.forms.experts import EXPERTS
from nets.forms.fused import BLOCKS, FUSED
from nets.forms.norms import NORMS
from nets.forms.quantized import QUANTIZED
from nets.forms.recurrent import CELLS
from nets.notation import Net

__all__ = ["ATTENTION", "FUSED", "NETS", "NORMS", "REFERENCE"]

NETS: dict[str, Net] = {**FUSED, **BLOCKS, **NORMS, **ATTENTION, **CELLS, **QUANTIZED, **EXPERTS}

REFERENCE = {name: "onnxruntime has no batch-first cells" for name in NETS if name.endswith("_batch_first")}
"""Nets that onnxruntime cannot run, with the reason: the onnx reference runs them."""
