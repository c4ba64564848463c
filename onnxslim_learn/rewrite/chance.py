"""Noise that two models draw alike: what nodes draw by chance is computed from places instead, to compare models by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxslim_learn.graph import external_files

if TYPE_CHECKING:
    from pathlib import Path

RANGE = 11  # the operator set that brought Range
FACTORS = ((12.9898, 43758.5453), (78.233, 12543.1234))
"""A sine of so many times the place, so many times, has digits behind its point that look drawn by chance."""


def without(path: Path, folder: Path) -> Path:
    """A file in which nothing is drawn by chance: the same (what is no model, too), or a copy in a folder."""
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:  # of protobuf's: who opens it says what is wrong
        return path
    drawing = [node for node in proto.graph.node if _kind(node)]
    version = max((entry.version for entry in proto.opset_import if not entry.domain), default=0)
    if not drawing or version < RANGE:
        return path
    external_files.read_in(proto, path)
    nodes = [replacement for node in proto.graph.node for replacement in (_computed(node) if _kind(node) else [node])]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    folder.mkdir()
    onnx.save(proto, folder / path.name)
    return folder / path.name


def _kind(node: onnx.NodeProto) -> str:
    """The distribution that a node draws from, if it draws numbers."""
    schema = onnx.defs.get_schema(node.op_type) if not node.domain and onnx.defs.has(node.op_type) else None
    attributes = set() if schema is None or "seed" not in schema.attributes else set(schema.attributes)
    return "normal" if {"mean", "scale"} <= attributes else "uniform" if {"low", "high"} <= attributes else ""


def _computed(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Nodes that put out numbers of the same distribution, told by their places."""
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    nodes: list[onnx.NodeProto] = []

    def add(op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{node.output[0]}~{len(nodes)}"
        nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def number(value: float, kind: type = np.float64) -> str:
        return add("Constant", value=numpy_helper.from_array(np.array(value, kind)))

    like = node.input[0] if node.input else ""
    shape = add("Shape", like) if like else add("Constant", value_ints=settings["shape"])
    size = add("ReduceProd", shape, keepdims=0)
    places = add("Cast", add("Range", number(0, np.int64), size, number(1, np.int64)), to=TensorProto.DOUBLE)

    def chance(turns: float, large: float) -> str:
        spread = add("Mul", add("Sin", add("Mul", places, number(turns))), number(large))
        return add("Sub", spread, add("Floor", spread))

    first, second = (chance(*factors) for factors in FACTORS)
    if _kind(node) == "normal":
        far = add("Sqrt", add("Mul", add("Log", add("Max", first, number(1e-9))), number(-2.0)))
        drawn = add("Mul", far, add("Cos", add("Mul", second, number(2 * math.pi))))
        scale, shift = settings.get("scale", 1.0), settings.get("mean", 0.0)
    else:
        drawn, shift = first, settings.get("low", 0.0)
        scale = settings.get("high", 1.0) - shift
    shaped = add("Reshape", add("Add", add("Mul", drawn, number(scale)), number(shift)), shape)
    typed = "dtype" in settings or not like
    last = add("Cast", shaped, to=settings.get("dtype", TensorProto.FLOAT)) if typed else add("CastLike", shaped, like)
    nodes.append(helper.make_node("Identity", [last], [node.output[0]], name=node.name))
    return nodes
