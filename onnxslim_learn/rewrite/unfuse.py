"""Take fused nodes apart: a layer with an activation, a sum or a normalisation inside becomes nodes that do one each.

What repair compares then lies between nodes, as in the file before a runtime fused it. The weights are the same ones,
by name: what is fitted on the nodes taken apart goes back into the fused ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxslim_learn.coupling import roles
from onnxslim_learn.runtime.node import reads

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_PARTS = 6  # of a fused node
SUM = 3  # output of a normalisation that adds before: the sum


def unfuse(model: ir.Model) -> ir.Model:
    """The model with its fused nodes taken apart, in reading order; the model itself where it is so."""
    if list(model.graph) == _reading_order(model.graph) and not any(roles.of(node).parts for node in model.graph):
        return model
    twin = model.clone()
    for node in list(twin.graph):
        take_apart(twin, node)
    order = _reading_order(twin.graph)
    twin.graph.remove(order)
    twin.graph.extend(order)
    return twin


def _reading_order(graph: ir.Graph) -> list[ir.Node]:
    """All nodes, each behind those that it reads, first operands first.

    Which of two summands makes up for the other is decided so, and not by the order in which a file has its nodes.
    """
    makers = {str(value.name): node for node in graph for value in node.outputs if value.name}
    ends = [makers[str(value.name)] for value in graph.outputs if value.name in makers]
    order: dict[ir.Node, None] = {}
    pending = [*reversed(graph), *reversed(ends)]
    while pending:
        waiting = [makers[name] for name in reads(pending[-1]) if name in makers and makers[name] not in order]
        if waiting and pending[-1] not in order:
            pending += reversed(waiting)
        else:
            order[pending.pop()] = None
    return list(order)


def take_apart(model: ir.Model, node: ir.Node) -> ir.Node:
    """Put what a fused node is made of in its place; returns the layer among it, or the node if it stays."""
    make = roles.of(node).parts
    version = model.opset_imports.get("", 1)
    parts = make(node, version) if make and not any(v.name for v in node.outputs[1:SUM]) else None
    return node if parts is None else _replace(model.graph, node, parts)


def names_of_parts(name: str) -> list[str]:
    """What the nodes may be called that a node is taken apart into, its own name first."""
    return [name, *(f"{name}.{number}" for number in range(MOST_PARTS))]


def give_back(unfused: ir.Model, model: ir.Model) -> None:
    """Put the weights of what :func:`unfuse` made of a model into the model."""
    for name, value in unfused.graph.initializers.items():
        if name in model.graph.initializers:
            model.graph.initializers[name].const_value = value.const_value


def _replace(graph: ir.Graph, node: ir.Node, parts: Sequence[ir.Node]) -> ir.Node:
    """Put parts in the place of a node; the first that multiplies has its name and is returned."""
    layer = next((part for part in parts if roles.multiplies(part)), parts[0])
    for number, part in enumerate(parts):
        part.name = node.name if part is layer else f"{node.name}.{number}"
        for place, output in enumerate(part.outputs):
            output.name = f"{node.name}.{number}.{place}"
        for value in part.inputs:
            if value is not None and value.const_value is not None and value.name not in graph.initializers:
                graph.register_initializer(value)
    graph.insert_before(node, list(parts))
    stand = {0: parts[-1].outputs[0]}
    if len(node.outputs) > SUM and node.outputs[SUM].name:
        stand[SUM] = parts[-2].outputs[0]
    for slot, value in stand.items():
        old = node.outputs[slot]
        value.type, value.shape = old.type, old.shape
        name = str(old.name)
        for user, index in list(old.uses()):
            user.replace_input_with(index, value)
        graph.outputs[:] = [value if v is old else v for v in graph.outputs]
        old.name, value.name = f"{name}.fused", name
    graph.remove(node, safe=True)
    return layer
