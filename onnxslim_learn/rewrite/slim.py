"""Carry out a removal: slice every initializer, patch what states a size, keep everything else.

The result computes what the original computes when the removed positions are zeroed where they are consumed
(:mod:`onnxslim_learn.rewrite.mask` builds that reference).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.coupling.branches import foresee
from onnxslim_learn.coupling.relations import Value, over, rows_of
from onnxslim_learn.errors import PlanError
from onnxslim_learn.graph import constant_folding
from onnxslim_learn.graph.load import release
from onnxslim_learn.rewrite import dropped_blocks, edit
from onnxslim_learn.rewrite.dead_branches import vanish
from onnxslim_learn.rewrite.merge import merged
from onnxslim_learn.runtime.part import READING

if TYPE_CHECKING:
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.coupling.solver import Coupling


def slim(removal: Removal) -> ir.Model:
    """Build the slimmed model; its weights are sliced when they are read.

    Raises:
        PlanError: If a node cannot state the new sizes.
    """
    coupling = removal.coupling
    model = merged(removal)
    nodes = list(model.graph)
    fate = foresee(removal)
    if fate.problem:
        raise PlanError(f"{fate.problem}, so a whole branch cannot go. Keep one unit of it.")
    for name, value in model.graph.initializers.items():
        if name in coupling.values:
            _slice(value, coupling.values[name], removal)
    sizes = edit.restated(coupling, removal, model.graph, nodes)
    for patch in coupling.records.patches:
        node = nodes[patch.node]
        if all(value.name in fate.dead for value in node.outputs):
            continue
        edit.follow(model.graph, node, patch, removal, sizes)
    if fate.dead:
        vanish(model.graph, nodes, removal, fate)
    dropped_blocks.drop(model, nodes, removal.dropped)
    _restate_shapes(nodes, removal)
    reunite(model, coupling)
    return model


def kept_positions(removal: Removal, name: str) -> dict[int, list[Any]]:
    """Kept positions of every cut axis of an initializer, in the order in which they stay.

    An axis uneven over rows is listed over the merged rows.
    """
    value = removal.coupling.values[name]
    positions: dict[int, list[Any]] = {}
    for axis, digits in enumerate(value.axes):
        if any(d.labels is not None and not removal.kept(d).all() for d in digits):
            rows, places = staying(value, axis, removal)
            kept: list[Any] = [[] for _ in removal.positions(value, axis)[0]]
            for row, stay in zip(rows.tolist(), places.tolist(), strict=True):
                kept[row] = stay
            positions[axis] = kept[0] if len(kept) == 1 else kept
    return positions


def staying(layout: Value, axis: int, removal: Removal) -> tuple[Labels, Labels]:
    """Which rows of other axes that an axis depends on stay, and the positions of the axis that stay in each of them.

    Positions are in the order in which the cut tensor has them: where an axis merges rows that keep other positions
    each, what was behind may come before.

    Returns:
        ``(rows that stay,)`` and ``(rows that stay, positions that stay)``.
    """
    digits, factors = layout.digits, layout.axes[axis]
    inside = [d.key for d in factors]
    above = tuple(digits[k] for k in rows_of(digits, inside) if k not in inside)
    rows, places = np.arange(math.prod(d.size for d in above)), np.arange(layout.shape[axis])
    table = np.broadcast_to(places, (len(rows), len(places)))
    return cut(rows, Value((above,)), removal), cut(table, Value((above, factors)), removal)


def _slice(value: ir.Value, layout: Value, removal: Removal) -> None:
    """Replace an initializer's tensor by one that reads and slices on demand."""
    digits = layout.digits.values()
    if all(d.labels is None or removal.kept(d).all() for d in digits):
        return
    tensor = value.const_value
    assert tensor is not None
    shape = ir.Shape([removal.size(layout, axis) for axis in range(len(layout.axes))])

    def reduced() -> ir.TensorProtocol:
        with READING:
            array = cut(tensor.numpy(), layout, removal)
            release(tensor)
        return ir.tensor(array, dtype=tensor.dtype, name=tensor.name)

    value.const_value = ir.LazyTensor(
        reduced,
        dtype=tensor.dtype,
        shape=shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
    value.shape = shape


def cut(array: Array, layout: Value, removal: Removal) -> Array:
    """Slice an array of the layout's shape to what a removal keeps.

    A digit whose labels depend on others may keep other positions in every row: rows are brought to the front and
    one boolean mask over all labelled digits cuts them at once.
    """
    digits = layout.digits
    labelled = [d for d in digits.values() if d.labels is not None and not (removal.kept(d).all() and not d.deps)]
    if not any(d.deps for d in labelled):
        for axis, parts in enumerate(layout.axes):
            if any(d in labelled for d in parts):
                array = np.take(array, np.flatnonzero(removal.keep(layout, axis)), axis=axis)
        return np.ascontiguousarray(array)
    keys = list(digits)
    needed = {k for d in labelled for k in (d.key, *d.deps)}
    front = sorted((k for k in keys if k in needed), key=lambda k: (len(digits[k].deps), keys.index(k)))
    order = [*front, *(k for k in keys if k not in needed)]
    sizes = {k: d.size for k, d in digits.items()}
    moved = array.reshape([sizes[k] for k in keys]).transpose([keys.index(k) for k in order])
    mask = np.ones([sizes[k] for k in front], bool)
    for digit in labelled:
        own_keys = [*digit.deps, digit.key]
        mask &= over(removal.kept(digit), own_keys, front, sizes)
    widths = {k: removal.width(layout, d) for k, d in digits.items()}
    picked = moved[mask].reshape([widths[k] for k in order])
    back = picked.transpose([order.index(k) for k in keys])
    return np.ascontiguousarray(back.reshape([math.prod(widths[d.key] for d in axis) for axis in layout.axes]))


def _restate_shapes(nodes: list[ir.Node], removal: Removal) -> None:
    """Correct the declared shapes of intermediate values."""
    values = removal.coupling.values
    for node in nodes:
        for output in node.outputs:
            layout = values.get(str(output.name))
            if output.shape is None or layout is None or len(output.shape) != len(layout.axes):
                continue
            sizes = [removal.size(layout, axis) for axis in range(len(layout.axes))]
            dims = [
                new if new != old and isinstance(dim, int) else dim
                for dim, new, old in zip(output.shape, sizes, layout.shape, strict=True)
            ]
            output.shape = ir.Shape(dims)


def reunite(model: ir.Model, coupling: Coupling) -> None:
    """Share again what was un-shared: copies that every plan cuts alike, and constants that are still equal.

    What nothing reads any more goes.
    """
    clones = coupling.graph.clones
    origins = set(clones.values())
    kept: dict[tuple[str, bytes], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        origin = clones.get(name, name)
        if origin in origins and value.const_value is not None:
            mark = coupling.signature(name) if name in coupling.values else value.const_value.tobytes()
            if (origin, mark) in kept:
                ir.convenience.replace_all_uses_with(value, kept[origin, mark])
            kept.setdefault((origin, mark), value)
    constant_folding.drop_unused(model)
