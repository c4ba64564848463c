"""The reference a slimmed model is checked against: the original with removed positions zeroed where consumed.

Where entries compete (the experts of a router), a removed one is given no chance: minus infinity.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.coupling.context import WHERE
from onnxslim_learn.coupling.records import Contest
from onnxslim_learn.coupling.relations import over, parts
from onnxslim_learn.rewrite import dropped_blocks, edit
from onnxslim_learn.rewrite.merge import merged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.array_types import Array
    from onnxslim_learn.coupling.records import Contraction
    from onnxslim_learn.coupling.relations import Digit, Parts, Value
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.coupling.solver import Coupling

OPEN = "onnxslim_learn.open"  # the extra input that lifts all masks


def mask(removal: Removal) -> ir.Model:
    """Build the masked original: zeros put in front of every contraction input that loses positions.

    In front of every contest, it is minus infinity.

    An extra boolean input, :data:`OPEN`, lifts all masks: with it the model must compute what the source computes,
    which proves the reference itself.
    """
    coupling = removal.coupling
    model = merged(removal)
    graph, nodes = model.graph, list(model.graph)
    lift = ir.Value(name=OPEN, shape=ir.Shape(()), type=ir.TensorType(ir.DataType.BOOL))
    graph.inputs.append(lift)
    for number, record in enumerate([*coupling.records.consumed, *coupling.records.silenced]):
        node = nodes[record.node]
        read = coupling.nodes[record.node].inputs[record.slot]
        assert read is not None
        varying = coupling.graph.shapes.varying(str(read.name))
        keep, spoken = kept_parts(record.value, record.axes, removal, varying)
        if keep.all():
            continue
        source = node.inputs[record.slot]
        assert source is not None
        name = f"{node.name}.masked{record.slot}.{number}"
        dtype = ir.DataType(coupling.graph.shapes.analysis.dtype[str(read.name)]).numpy()
        competes = isinstance(record, Contest)
        zero = None if isinstance(record, Contest) else _zero(coupling, node, record, name)
        zero = zero or edit.constant(graph, f"{name}.zero", np.array(-np.inf if competes else 0).astype(dtype))
        stays = _laid_at_run_time(graph, node, source, keep, spoken) if any(spoken.open_parts()) else spoken.laid(keep)
        kept = _insert(graph, node, "Or", [lift, stays], f"{name}.kept")
        if model.opset_imports.get("", WHERE) >= WHERE:
            masked = _insert(graph, node, "Where", [kept, source, zero], name)
        else:
            factor = _insert(graph, node, "Cast", [kept], f"{name}.factor")
            factor.producer().attributes["to"] = ir.AttrInt64("to", int(ir.DataType.from_numpy(dtype)))  # type: ignore[union-attr]
            masked = _insert(graph, node, "Mul", [source, factor], name)
        node.replace_input_with(record.slot, masked)
    for block in removal.dropped:
        kind = ir.DataType(coupling.graph.shapes.analysis.dtype[str(coupling.nodes[block.sum].outputs[0].name)])
        _silence(model, dropped_blocks.summand(model, nodes, block), kind, lift)
    return model


def _zero(coupling: Coupling, node: ir.Node, record: Contraction, name: str) -> ir.Value | None:
    """What stands for zero in an input, laid along its first axis (and last one) if there are several."""
    value = None if record.zero is None else node.inputs[record.zero]
    if value is None:
        return None
    stated = coupling.nodes[record.node].inputs[record.zero]  # type: ignore[index]
    shape, rank = coupling.graph.shapes.analysis.shape[str(stated.name)], len(record.value.axes)  # type: ignore[union-attr]
    if math.prod(shape) == 1 or len(shape) == rank:
        return value
    laid = np.array([shape[0], *[1] * (rank - len(shape)), *shape[1:]])
    return _insert(node.graph, node, "Reshape", [value, laid], f"{name}.zero")  # type: ignore[arg-type]


def _silence(model: ir.Model, summand: tuple[ir.Node, int, ir.Value], dtype: ir.DataType, lift: ir.Value) -> None:
    """Zero what a residual block adds."""
    node, slot, value = summand
    name = f"{node.name}.present{slot}"
    if model.opset_imports.get("", WHERE) >= WHERE:
        zero = edit.constant(model.graph, f"{name}.zero", np.zeros((), dtype.numpy()))
        masked = _insert(model.graph, node, "Where", [lift, value, zero], name)
    else:
        factor = _insert(model.graph, node, "Cast", [lift], f"{name}.factor")
        factor.producer().attributes["to"] = ir.AttrInt64("to", int(dtype))  # type: ignore[union-attr]
        masked = _insert(model.graph, node, "Mul", [value, factor], name)
    node.replace_input_with(slot, masked)


def _insert(graph: ir.Graph, before: ir.Node, op_type: str, inputs: list[Any], name: str) -> ir.Value:
    """Put a node in front of another, arrays among its inputs as constants; returns its output."""
    given = [edit.constant(graph, f"{name}.{k}", v) if isinstance(v, np.ndarray) else v for k, v in enumerate(inputs)]
    node = ir.Node("", op_type, given, name=name)
    node.outputs[0].name = name
    graph.insert_before(before, node)
    return node.outputs[0]


def _laid_at_run_time(graph: ir.Graph, node: ir.Node, source: ir.Value, keep: Array, spoken: Parts) -> ir.Value:
    """A mask that shares axes with what is open: repeated as often as the tensor at hand asks.

    The open part of an axis is as long as the axis is, divided by the parts of it that are known.
    """
    name = f"{node.name}.mask.{source.name}"
    axes = np.array([part.axis for part in spoken.parts])
    known = np.array([part.size for part in spoken.parts])
    fixed = np.array([spoken.fixed(part.axis) for part in spoken.parts])
    told = np.array([a in spoken.axes for a in range(spoken.rank)])
    shape = _insert(graph, node, "Shape", [source], f"{name}.shape")
    whole = _insert(graph, node, "Gather", [shape, axes], f"{name}.axes")
    rest = _insert(graph, node, "Div", [whole, fixed], f"{name}.open")
    sizes = _insert(graph, node, "Where", [np.array(spoken.open_parts()), rest, known], f"{name}.parts")
    laid = _insert(graph, node, "Expand", [keep, sizes], f"{name}.laid")
    target = _insert(graph, node, "Where", [told, shape, np.ones(spoken.rank, np.int64)], f"{name}.target")
    return _insert(graph, node, "Reshape", [laid, target], name)


def kept_parts(value: Value, axes: Iterable[int], removal: Removal, varying: Iterable[int] = ()) -> tuple[Array, Parts]:
    """Which elements of a tensor of this layout stay, as booleans over its parts; only what goes along ``axes`` counts.

    Args:
        value: The layout.
        axes: The axes of the tensor that are summed over.
        removal: What goes.
        varying: Axes whose size is open.
    """
    digits = [d for axis in axes for d in value.axes[axis] if d.labels is not None]
    kept = {digit.key: _kept(value, digit, {d.key for d in digits}, removal) for digit in digits}
    lost = [digit for digit in digits if not kept[digit.key].all()]
    spoken = parts(value, {key for d in lost for key in (d.key, *d.deps)}, varying)
    if spoken.undecided:
        spoken = parts(value, {key for d in digits for key in (d.key, *d.deps)}, varying)
    keep = np.ones([1] * len(spoken.parts), bool)
    for digit in lost:
        keep = keep & spoken.over(kept[digit.key], [*digit.deps, digit.key])
    return keep, spoken


def _kept(value: Value, digit: Digit, summed: set[int], removal: Removal) -> Array:
    """Which labels of a digit stay; in rows that go as a whole, and are not summed over, nothing need be masked."""
    known, kept = value.digits, removal.kept(digit)
    sizes = {key: d.size for key, d in known.items()}
    for row in (known[key] for key in digit.deps if key not in summed and known[key].labels is not None):
        gone = ~removal.kept(row)
        kept = kept | over(gone, [*row.deps, row.key], [*digit.deps, digit.key], {**sizes, digit.key: 1})
    return kept
