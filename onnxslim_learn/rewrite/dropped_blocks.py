"""Take residual blocks out of a graph: their sums become their other sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxslim_learn.coupling.roles import OWN
from onnxslim_learn.rewrite.unfuse import take_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.coupling.residual import Block


def summand(model: ir.Model, nodes: Sequence[ir.Node], block: Block) -> tuple[ir.Node, int, ir.Value]:
    """The node that adds a block up, which input of it the block is, and that value.

    Args:
        model: The model; a layer that adds to what it multiplies itself is taken apart.
        nodes: Its nodes as numbered in the original.
        block: The block.
    """
    node, slot = nodes[block.sum], block.slot
    if slot == OWN:
        layer = take_apart(model, node)
        ((node, slot),) = layer.outputs[0].uses()
    value = node.inputs[slot]
    assert value is not None
    return node, slot, value


def drop(model: ir.Model, nodes: Sequence[ir.Node], blocks: Sequence[Block]) -> None:
    """Take blocks out; nodes nobody uses afterwards are left for the caller to drop.

    Args:
        model: The model.
        nodes: Its nodes as numbered in the original.
        blocks: What goes, in order of their sums.
    """
    silent = set[ir.Value]()
    for block in blocks:
        node, _, value = summand(model, nodes, block)
        if block.slot != OWN:
            take_apart(model, node)
            ((node, _),) = value.uses()
        silent.add(value)
    for node in list(model.graph):
        lost = [value for value in node.inputs if value in silent]
        if lost:
            _without(model.graph, node, [value for value in node.inputs if value not in silent], silent)


def _without(graph: ir.Graph, node: ir.Node, left: Sequence[ir.Value | None], silent: set[ir.Value]) -> None:
    """Let a sum add up what is left."""
    output = node.outputs[0]
    if not left:
        silent.add(output)
    elif len(left) > 1:
        for slot, value in enumerate(left):
            node.replace_input_with(slot, value)
        node.resize_inputs(len(left))
    elif output.is_graph_output():
        copy = ir.Node("", "Identity", list(left), name=node.name)
        copy.outputs[0].type, copy.outputs[0].shape = output.type, output.shape
        output.name, copy.outputs[0].name = f"{output.name}~sum", output.name
        graph.insert_before(node, copy)
        graph.outputs[:] = [copy.outputs[0] if value is output else value for value in graph.outputs]
        ir.convenience.replace_all_uses_with(output, copy.outputs[0])
    else:
        assert left[0] is not None
        ir.convenience.replace_all_uses_with(output, left[0])
