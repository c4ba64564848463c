"""Operators that pick from places, or put to places, that another input names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.context import aligned
from onnxslim_learn.coupling.relations import Value

if TYPE_CHECKING:
    from onnxslim_learn.coupling.context import Cut, NodeContext


def gather(context: NodeContext) -> None:
    """Pick along an axis: constant positions are picked from the labels, computed ones pin the axis."""
    shape = context.shape(0)
    axis = int(context.attr("axis", 0)) % len(shape)
    index = context.static(1)
    if index is not None and index.ndim <= 1 and context.node.inputs[1].is_initializer():  # type: ignore[union-attr]
        value = layout.fuse(context.relations, context.value(0), axis)
        picked = index.reshape(-1) % shape[axis]
        result = layout.take(context.relations, value, axis, picked, len(picked))
        if index.ndim == 0:
            result = layout.drop(context.relations, result, [axis])
        context.yields(result)

        def make(cut: Cut) -> dict[int | str, Any]:
            keep = cut.keep(value, axis)
            new = (np.cumsum(keep) - 1)[picked[keep[picked]]]
            return {} if keep.all() else {1: new.astype(index.dtype).reshape((-1,) if index.ndim else ())}

        return context.patch(make)
    letters = list(aligned(len(shape)))
    joined = context.join((0, context.operand(0, [None if a == axis else c for a, c in enumerate(letters)])), reason="")
    where = context.value(1)
    context.records.indices[str(context.name(1))] = min(shape[axis], context.nominal(0)[axis])
    context.pin(where, range(len(where.axes)), "is an index")
    rest = joined.output(context.relations, [c for a, c in enumerate(letters) if a != axis])
    context.yields(Value((*rest.axes[:axis], *context.relations.free(context.shape(1)).axes, *rest.axes[axis:])))
    return None


def gather_nd(context: NodeContext) -> None:
    """GatherND: indexed axes are pinned, the axes behind them pass."""
    shape, index = context.shape(0), context.shape(1)
    first = int(context.attr("batch_dims", 0))
    depth = first + index[-1]
    value = context.freed(context.value(0), range(depth), "is picked from at computed places", shape)
    context.leave(1)
    lead = context.relations.free(index[:-1])
    context.yields(Value((*lead.axes, *value.axes[depth:])))


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
    letters = [None if a == axis or index[a] != shape[a] else c for a, c in enumerate(aligned(len(shape)))]
    joined = context.join(*((slot, context.operand(slot, letters)) for slot in context.given()))
    kept = [c for c in letters if c]
    passed = dict(zip(kept, joined.output(context.relations, kept).axes, strict=True))
    out = context.out_shape()
    context.yields(Value(tuple(passed[c] if c else context.relations.axis(out[a]) for a, c in enumerate(letters))))
