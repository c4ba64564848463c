"""Noise that two models draw alike: what nodes draw by chance is computed from places instead, to compare models by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper

from onnxslim_learn.coupling.relations import Value
from onnxslim_learn.graph import external_files
from onnxslim_learn.rewrite.slim import cut

if TYPE_CHECKING:
    from pathlib import Path

    from onnxslim_learn.array_types import Array
    from onnxslim_learn.coupling.removal import Removal

RANGE = 11  # the operator set that brought Range
FACTORS = ((12.9898, 43758.5453), (78.233, 12543.1234))
"""A sine of so many times the place, so many times, has digits behind its point that look drawn by chance."""


@dataclass(frozen=True)
class Left:
    """What is left of a tensor of numbers that are drawn by chance.

    Attributes:
        sizes: Sizes of the axes it is cut along, in the original; ``None`` for the others.
        places: For each axis that it is cut along, where along it lies what is left; of size one along the others.
    """

    sizes: tuple[int | None, ...]
    places: Mapping[int, Array]


def left(removal: Removal) -> dict[str, Left]:
    """What a removal leaves of each tensor that is drawn, by name: it gets the same numbers as in the original."""
    tensors: dict[str, Left] = {}
    for node in removal.coupling.nodes:
        name = str(node.outputs[0].name) if len(node.outputs) else ""
        layout = removal.coupling.values.get(name)
        if layout is None or not layout.firm or not _kind(node.op_type, node.domain):
            continue
        firm = [any(d.key in layout.firm for d in axis) for axis in layout.axes]
        alone = Value(tuple(axis if one else () for axis, one in zip(layout.axes, firm, strict=True)))
        along = {a: np.indices(alone.shape)[a].astype(np.float64) for a, one in enumerate(firm) if one}
        sizes = tuple(size if one else None for size, one in zip(layout.shape, firm, strict=True))
        tensors[name] = Left(sizes, {a: cut(array, alone, removal) for a, array in along.items()})
    return tensors


def without(path: Path, folder: Path, left: Mapping[str, Left] | None = None) -> Path:
    """A file in which nothing is drawn by chance: the same (what is no model, too), or a copy in a folder.

    Args:
        path: The file.
        folder: Where a copy goes.
        left: What the file has of tensors that are drawn, where that is not all.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:  # of protobuf's: who opens it says what is wrong
        return path
    if any(_kind(node.op_type, node.domain) for function in proto.functions for node in function.node):
        proto = inliner.inline_local_functions(proto)
    drawing = {node.output[0] for node in proto.graph.node if _kind(node.op_type, node.domain)}
    version = max((entry.version for entry in proto.opset_import if not entry.domain), default=0)
    if not drawing or version < RANGE:
        return path
    external_files.read_in(proto, path)
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        drawn = bool(node.output) and node.output[0] in drawing
        nodes += _computed(node, (left or {}).get(node.output[0])) if drawn else [node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    folder.mkdir()
    onnx.save(proto, folder / path.name)
    return folder / path.name


def _kind(op_type: str, domain: str) -> str:
    """The distribution that an operator draws from, if it draws numbers."""
    schema = onnx.defs.get_schema(op_type) if not domain and onnx.defs.has(op_type) else None
    attributes = set() if schema is None or "seed" not in schema.attributes else set(schema.attributes)
    return "normal" if {"mean", "scale"} <= attributes else "uniform" if {"low", "high"} <= attributes else ""


class _Nodes(list[onnx.NodeProto]):
    """Nodes under names that start with that of the value they make."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        name = f"{self.name}~{len(self)}"
        self.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def array(self, value: Any, kind: type = np.float64) -> str:
        """Add a constant."""
        return self.add("Constant", value=numpy_helper.from_array(np.array(value, kind)))

    def counted(self, size: str) -> str:
        """Add the numbers from zero on, so many."""
        numbers = self.add("Range", self.array(0, np.int64), size, self.array(1, np.int64))
        return self.add("Cast", numbers, to=TensorProto.DOUBLE)

    def chance(self, places: str, turns: float, large: float) -> str:
        """Add numbers between zero and one that look drawn by chance."""
        sine = self.add("Sin", self.add("Mul", places, self.array(turns)))
        spread = self.add("Mul", sine, self.array(large))
        return self.add("Sub", spread, self.add("Floor", spread))


def _computed(node: onnx.NodeProto, left: Left | None) -> list[onnx.NodeProto]:
    """Nodes that put out numbers of the same distribution, told by their places in the original."""
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    nodes, like = _Nodes(node.output[0]), node.input[0] if node.input else ""
    add, number = nodes.add, nodes.array
    shape = add("Shape", like) if like else add("Constant", value_ints=settings["shape"])
    size = add("ReduceProd", shape, keepdims=0)
    places = nodes.counted(size) if left is None else _places(nodes, shape, left)
    first, second = (nodes.chance(places, *factors) for factors in FACTORS)
    if _kind(node.op_type, node.domain) == "normal":
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


def _places(nodes: _Nodes, shape: str, left: Left) -> str:
    """The places that the entries of a cut tensor had in the original, row by row."""
    add, rank = nodes.add, len(left.sizes)
    total, stride = nodes.array(0.0), nodes.array(1.0)
    for axis in reversed(range(rank)):
        known = left.sizes[axis]
        if known is None:
            size = add("Gather", shape, nodes.array(axis, np.int64))
            along = nodes.array([-1 if a == axis else 1 for a in range(rank)], np.int64)
            places, length = add("Reshape", nodes.counted(size), along), add("Cast", size, to=TensorProto.DOUBLE)
        else:
            places, length = nodes.array(left.places[axis]), nodes.array(float(known))
        total, stride = add("Add", total, add("Mul", places, stride)), add("Mul", stride, length)
    return total
