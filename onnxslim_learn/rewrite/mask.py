"""The reference a slimmed model is checked against: the original with removed positions zeroed where consumed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.coupling.layout import over
from onnxslim_learn.rewrite import edit
from onnxslim_learn.rewrite.merge import merged

if TYPE_CHECKING:
    from onnxslim_learn.coupling.relations import Value
    from onnxslim_learn.coupling.removal import Removal


OPEN = "onnxslim_learn.open"  # the extra input that lifts all masks
WHERE = 9  # the operator set that brought Where


def mask(removal: Removal) -> ir.Model:
    """Build the masked original: zeros put in front of every contraction input that loses positions.

    An extra boolean input, :data:`OPEN`, lifts all masks: with it the model must compute what the source computes,
    which proves the reference itself.
    """
    coupling = removal.coupling
    model = merged(removal)
    graph, nodes = model.graph, list(model.graph)
    lift = ir.Value(name=OPEN, shape=ir.Shape(()), type=ir.TensorType(ir.DataType.BOOL))
    graph.inputs.append(lift)
    for contraction in coupling.records.contractions:
        keep = mask_array(contraction.value, contraction.axes, removal)
        if keep.all():
            continue
        node = nodes[contraction.node]
        source = node.inputs[contraction.slot]
        assert source is not None
        name = f"{node.name}.masked{contraction.slot}"
        dtype = ir.DataType(coupling.graph.shapes.analysis.dtype[str(source.name)]).numpy()
        zero = None if contraction.zero is None else node.inputs[contraction.zero]
        zero = zero or edit.constant(graph, f"{name}.zero", np.zeros((), dtype))
        kept = _insert(graph, node, "Or", [lift, edit.constant(graph, f"{name}.keep", keep)], f"{name}.kept")
        if model.opset_imports.get("", WHERE) >= WHERE:
            masked = _insert(graph, node, "Where", [kept, source, zero], name)
        else:
            factor = _insert(graph, node, "Cast", [kept], f"{name}.factor")
            factor.producer().attributes["to"] = ir.AttrInt64("to", int(ir.DataType.from_numpy(dtype)))  # type: ignore[union-attr]
            masked = _insert(graph, node, "Mul", [source, factor], name)
        node.replace_input_with(contraction.slot, masked)
    return model


def _insert(graph: ir.Graph, before: ir.Node, op_type: str, inputs: list[ir.Value], name: str) -> ir.Value:
    """Put a node in front of another; returns its output."""
    node = ir.Node("", op_type, inputs, name=name)
    node.outputs[0].name = name
    graph.insert_before(before, node)
    return node.outputs[0]


def mask_array(value: Value, axes: tuple[int, ...], removal: Removal) -> np.ndarray[Any, Any]:
    """Which elements stay, as booleans that broadcast against a tensor of this layout; only ``axes`` count."""
    digits = [d for axis in axes for d in value.axes[axis] if d.labels is not None]
    sizes = {d.key: d.size for d in value.digits.values()}
    keys = list(sizes)
    needed = {k for d in digits for k in (d.key, *d.deps)}
    full = {k for axis in value.axes if any(d.key in needed for d in axis) for k in (d.key for d in axis)}
    keep = np.ones([sizes[k] if k in full else 1 for k in keys], bool)
    for digit in digits:
        own = [*digit.deps, digit.key]
        keep &= over(removal.kept(digit), own, keys, {k: n if k in own else 1 for k, n in sizes.items()})
    return keep.reshape([math.prod(sizes[d.key] if d.key in full else 1 for d in axis) for axis in value.axes])
