"""Operators that pick from places, or put to places, that another input names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.context import aligned
from onnxslim_learn.coupling.relations import Value

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Array, Labels
    from onnxslim_learn.coupling.context import NodeContext
    from onnxslim_learn.coupling.records import Cut
    from onnxslim_learn.coupling.relations import Axis


def gather(context: NodeContext) -> None:
    """Pick along an axis: known positions are picked from the labels, computed ones pin the axis.

    Places along an axis that is cut leave it free: they count what is left.
    """
    shape = context.shape(0)
    axis = int(context.attr("axis", 0)) % len(shape)
    index = context.static(1)
    if index is not None and index.ndim <= 1 and context.node.inputs[1].is_initializer():  # type: ignore[union-attr]
        return _picked(context, axis, index)
    places = context.places(1, shape[axis])
    if places is not None:
        rest = layout.drop(context.relations, context.along(0, axis, places), [axis])
        where = context.value(1)
    else:
        letters = list(aligned(len(shape)))
        joined = context.join((0, context.operand(0, [None if a == axis else c for a, c in enumerate(letters)])))
        context.pin(context.value(1), range(len(context.shape(1))), "is an index")
        context.records.indices[str(context.name(1))] = min(shape[axis], context.nominal(0)[axis])
        context.records.tables[str(context.name(1))] = str(context.name(0)), axis
        rest = joined.output(context.relations, [c for a, c in enumerate(letters) if a != axis])
        where = context.relations.free(context.shape(1))
    return context.yields(Value((*rest.axes[:axis], *where.axes, *rest.axes[axis:])))


def _picked(context: NodeContext, axis: int, index: Array) -> None:
    """Pick at known positions."""
    value = layout.fuse(context.relations, context.value(0), axis)
    picked = index.reshape(-1) % context.shape(0)[axis]
    result = layout.take(context.relations, value, axis, picked, len(picked))
    if index.ndim == 0:
        result = layout.drop(context.relations, result, [axis])
        for digit in value.axes[axis]:
            if digit.labels is not None and not digit.deps:
                context.records.alone[context.index] = int(digit.labels[picked[0]])
    context.yields(result)

    def make(cut: Cut) -> dict[int | str, Any]:
        keep = cut.keep(value, axis)
        if not index.ndim and not keep[picked[0]]:
            return {}  # only a branch that goes reads it
        new = (np.cumsum(keep) - 1)[picked[keep[picked]]]
        return {} if keep.all() else {1: new.astype(index.dtype).reshape((-1,) if index.ndim else ())}

    context.patch(make)


def gather_nd(context: NodeContext) -> None:
    """GatherND: indexed axes are pinned, the axes behind them pass."""
    shape, index = context.shape(0), context.shape(1)
    first = int(context.attr("batch_dims", 0))
    depth = first + index[-1]
    if index[-1] == 1 and not first and (places := context.places(1, shape[0])) is not None:
        rest = layout.drop(context.relations, context.along(0, 0, places), [0])
        return context.yields(Value((*context.value(1).axes[:-1], *rest.axes)))
    value = context.freed(context.value(0), range(depth), "is picked from at computed places", shape)
    context.leave(1)
    lead = context.relations.free(index[:-1])
    return context.yields(Value((*lead.axes, *value.axes[depth:])))


def scatter_nd(context: NodeContext) -> None:
    """ScatterND: indexed axes are pinned, the axes behind them align with the updates'."""
    shape, depth = context.shape(0), context.shape(1)[-1]
    letters = aligned(len(shape) - depth)
    lead = len(context.shape(2)) - len(letters)
    context.leave(1)
    data = context.operand(0, [*([None] * depth), *letters])
    joined = context.join((0, data), (2, context.operand(2, [*([None] * lead), *letters])))
    rest = joined.output(context.relations, letters)
    context.yields(Value((*context.relations.free(shape[:depth]).axes, *rest.axes)))


def tensor_scatter(context: NodeContext) -> None:
    """TensorScatter: an update is written along one axis at places per batch entry; other axes align."""
    letters: list[str | None] = list(aligned(len(context.shape(0))))
    letters[int(context.attr("axis", -2))] = None
    if context.name(2):
        letters[0] = None
        context.leave(2)
    joined = context.join(*((slot, context.operand(slot, letters)) for slot in (0, 1)))
    free = context.relations.free(context.shape(0))
    rest = joined.output(context.relations, [c for c in letters if c])
    axes = iter(rest.axes)
    context.yields(Value(tuple(next(axes) if c else axis for c, axis in zip(letters, free.axes, strict=True))))


def elements(context: NodeContext) -> None:
    """GatherElements and ScatterElements: the axis is pinned; others align with the indices' where they are as long."""
    shape, axis = context.shape(0), int(context.attr("axis", 0)) % len(context.shape(0))
    index = context.shape(1)
    if (places := context.places(1, shape[axis])) is not None:
        return _at_places(context, axis, places)
    letters = [None if a == axis or index[a] != shape[a] else c for a, c in enumerate(aligned(len(shape)))]
    joined = context.join(*((slot, context.operand(slot, letters)) for slot in context.given()))
    kept = [c for c in letters if c]
    passed = dict(zip(kept, joined.output(context.relations, kept).axes, strict=True))
    out = context.out_shape()
    context.yields(Value(tuple(passed[c] if c else context.relations.axis(out[a]) for a, c in enumerate(letters))))
    return None


def _at_places(context: NodeContext, axis: int, places: Labels) -> None:
    """Read from, or write to, places along an axis that can be cut; other axes stay."""
    name, out = str(context.name(0)), context.out_shape()
    if name not in context.values:
        context.values[name] = _labelled(
            context.relations.free(context.shape(0)), axis, (context.relations.digit(len(places), places),)
        )
    for slot in context.given()[1:]:
        context.leave(slot)
    others = [a for a in range(len(out)) if a != axis]
    value = context.freed(context.along(0, axis, places), others, f"is aligned by {context.node.op_type}", out)
    if len(context.given()) < 3:  # what is read has as many entries as places
        value = _labelled(
            layout.drop(context.relations, value, [axis], keep=True), axis, context.relations.axis(out[axis])
        )
    context.yields(value)


def _labelled(value: Value, axis: int, digits: Axis) -> Value:
    """A layout with other digits along an axis."""
    return Value((*value.axes[:axis], digits, *value.axes[axis + 1 :]))


def one_hot(context: NodeContext) -> None:
    """OneHot: an axis with an entry per place."""
    for slot in context.given()[1:]:
        context.leave(slot)
    (out,), depth = context.free_outputs(0), context.static(1)
    axis = int(context.attr("axis", -1)) % len(out.axes)
    places = context.places(0, out.shape[axis])
    if places is None or depth is None:
        context.leave(0)
        return context.yields(out)
    where = context.value(0).axes
    value = Value((*where[:axis], (context.relations.digit(len(places), places),), *where[axis:]))
    context.patch(lambda cut: {1: np.array(cut.size(value, axis), depth.dtype).reshape(depth.shape)})
    return context.yields(value)
