"""Take dead branches out of a graph; the result computes what the masked original computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import PlanError
from onnxslim_learn.rewrite import edit
from onnxslim_learn.runtime.node import compute

if TYPE_CHECKING:
    from onnxslim_learn.coupling.branches import Fate
    from onnxslim_learn.coupling.records import Contraction
    from onnxslim_learn.coupling.removal import Removal


def vanish(graph: ir.Graph, nodes: list[ir.Node], removal: Removal, fate: Fate) -> None:
    """Take the dead branches out of a slimmed graph.

    Args:
        graph: The slimmed graph; nodes nobody uses afterwards are left for the caller to drop.
        nodes: Its nodes as numbered in the original.
        removal: What goes.
        fate: From :func:`onnxslim_learn.coupling.branches.foresee`, without a problem.
    """
    constants: dict[str, Array] = {}
    for index, node in enumerate(nodes):
        outputs = [v for v in node.outputs if v.name]
        if index in fate.silent:
            constants[str(outputs[0].name)] = _bias(node, fate.silent[index], removal)
        elif str(outputs[0].name) in fate.constant:
            constants |= _constant(node, constants)
        elif index in removal.coupling.records.joins:
            _drop_parts(node, fate)
        else:
            for slot, value in enumerate(node.inputs):
                if value is not None and value.name in constants:
                    array = constants[str(value.name)]
                    node.replace_input_with(slot, edit.constant(graph, f"{value.name}.constant", array))


def _constant(node: ir.Node, constants: dict[str, Array]) -> dict[str, Array]:
    outputs = compute(node, constants)
    if not outputs:
        raise PlanError(
            f"{node.name} ({node.op_type}) cannot be computed ahead where a branch goes. Protect the branch."
        )
    return outputs


def _bias(node: ir.Node, record: Contraction, removal: Removal) -> Array:
    """What a contraction puts out when its input is zero, with one entry along every axis but the bias's."""
    sample = removal.coupling.graph.shapes.analysis
    name = str(node.outputs[0].name)
    dtype = ir.DataType(sample.dtype[name]).numpy()
    shape = [1] * len(sample.shape[name])
    slot, axis = record.bias or (-1, -1)
    value = node.inputs[slot] if 0 <= slot < len(node.inputs) else None
    if value is None or value.const_value is None:
        return np.zeros(shape, dtype)
    bias = np.asarray(value.const_value.numpy()) * np.asarray(node.attributes.get_float("beta", 1.0), dtype)
    if bias.ndim == 1:
        shape[axis] = bias.size
        bias = bias.reshape(shape)
    shaped: Array = bias.reshape((1,) * (len(shape) - bias.ndim) + bias.shape).astype(dtype)
    return shaped


def _drop_parts(node: ir.Node, fate: Fate) -> None:
    """Leave the dead parts out of a Concat."""
    parts = [value for value in node.inputs if value is not None and value.name not in fate.dead]
    if len(parts) < len(node.inputs):
        for slot, value in enumerate(parts):
            node.replace_input_with(slot, value)
        node.resize_inputs(len(parts))
