"""Models as onnxruntime fuses them."""

import tempfile
from pathlib import Path
from typing import Literal

import onnx
import onnxruntime as ort

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
