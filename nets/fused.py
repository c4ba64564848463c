"""Models as onnxruntime fuses them: nets of which every law holds as of the plain ones."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import onnxruntime as ort

from nets.notation import Net

Level = Literal["basic", "extended"]

LEVELS: dict[Level, ort.GraphOptimizationLevel] = {
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}


def fused(model: onnx.ModelProto, level: Level) -> onnx.ModelProto:
    """Return a model as onnxruntime writes it after its optimisations of a level."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = LEVELS[level]
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


@dataclass(frozen=True)
class Fused:
    """A net that onnxruntime has fused."""

    plain: Net
    level: Level

    def build(self) -> onnx.ModelProto:
        """Return a fresh model; the same one on every call."""
        return fused(self.plain.build(), self.level)


def in_all_forms(nets: Mapping[str, Net]) -> dict[str, Net | Fused]:
    """Return nets as they are and, as ``NAME-basic`` and ``NAME-extended``, as onnxruntime fuses them."""
    return {**nets, **{f"{name}-{level}": Fused(net, level) for name, net in nets.items() for level in LEVELS}}


def plain(name: str) -> str:
    """Return the name of the net that a form is made of."""
    stem, _, level = name.rpartition("-")
    return stem if level in LEVELS else name
