"""A graph in fragments: a contraction and what follows it, which runtimes fuse, and what tells fragments apart.

Times of nodes mean little by themselves where a runtime fuses them; times of fragments do. Every node belongs to the
last fragment it depends on, so that no path leaves a fragment and returns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.costs.roofline import known
from onnxslim_learn.runtime.node import inside, reads

if TYPE_CHECKING:
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.coupling.solver import Coupling


@dataclass(frozen=True)
class Fragment:
    """Nodes that are timed together.

    Attributes:
        name: Name of its first node, the contraction unless the graph begins otherwise.
        nodes: Indices of its nodes in the graph.
    """

    name: str
    nodes: tuple[int, ...]


def fragments(coupling: Coupling) -> list[Fragment]:
    """Every node of a graph in exactly one fragment, in the order of the graph."""
    heads = {term.node for term in coupling.records.terms if term.coefficient}
    at: dict[str, int] = {}
    parts: list[list[int]] = []
    for index, node in enumerate(coupling.nodes):
        if index in heads or not parts:
            parts.append([])
            place = len(parts) - 1
        else:
            place = max((at[name] for name in reads(node) if name in at), default=0)
        parts[place].append(index)
        at |= {str(value.name): place for value in node.outputs}
    nodes = coupling.nodes
    return [Fragment(str(nodes[part[0]].name), tuple(part)) for part in parts]


def key(fragment: Fragment, removal: Removal) -> str:
    """What tells a fragment apart from all whose times differ: operators, attributes, shapes, types, and how tied."""
    nodes = removal.coupling.nodes
    numbers: dict[str, int] = {}
    told = [_described(nodes[index], _attributes(nodes, index, removal), removal, numbers) for index in fragment.nodes]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return f"{nodes[fragment.nodes[0]].op_type} {digest[:32]}"


def _attributes(nodes: Sequence[ir.Node], index: int, removal: Removal) -> dict[str, Any]:
    """Whole numbers and texts among a node's attributes, as they are after a removal."""
    attributes: dict[str, Any] = {}
    for name, attribute in nodes[index].attributes.items():
        if attribute.type in (ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.STRING):
            attributes[name] = attribute.value if isinstance(attribute.value, int | str) else list(attribute.value)
    for patch in removal.coupling.records.patches:
        if patch.node == index:
            patched = patch.make(removal).items()
            attributes |= {str(slot): int(new) for slot, new in patched if slot in attributes and np.ndim(new) == 0}
    return attributes


def _described(node: ir.Node, attributes: dict[str, Any], removal: Removal, numbers: dict[str, int]) -> list[Any]:
    """A node as plain data, its values by the order in which they occur."""
    values: list[Any] = []
    for value in (*node.inputs, None, *node.outputs):
        if value is None or not value.name:
            values.append(None)
            continue
        number = numbers.setdefault(str(value.name), len(numbers))
        values.append([number, value.is_initializer(), *_typed(removal, str(value.name))])
    held = [inner.op_type for inner in inside(node)]
    return [node.domain, node.op_type, attributes, values, held]


def _typed(removal: Removal, name: str) -> list[Any]:
    """Type and shape of a value after a removal, at the nominal sizes."""
    graph = removal.coupling.graph
    if not known(removal.coupling, name):
        return []
    weight = graph.initializers.get(name)
    if weight is not None and weight.const_value is not None:
        return [int(weight.const_value.dtype), *_cut(removal, name, tuple(weight.const_value.shape.numpy()))]
    sample = graph.shapes.nominal
    return [int(sample.dtype[name]), *_cut(removal, name, sample.shape[name])]


def _cut(removal: Removal, name: str, shape: Sequence[int]) -> Sequence[int]:
    """A shape at the nominal sizes after a removal."""
    layout = removal.coupling.values.get(name)
    if layout is None or len(layout.axes) != len(shape):
        return shape
    old = layout.shape
    return [size * removal.size(layout, axis) // max(old[axis], 1) for axis, size in enumerate(shape)]
