"""Operators that pick from places, or put to places, that another input names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.context import aligned
from onnxslim_learn.coupling.relations import Value

if TYPE_CHECKING:
    from onnxslim_learn.coupling.context import Cut, Site


def gather(site: Site) -> None:
    """Pick along an axis: constant positions are picked from the labels, computed ones pin the axis."""
    shape = site.shape(0)
    axis = int(site.attr("axis", 0)) % len(shape)
    index = site.static(1)
    if index is not None and index.ndim <= 1 and site.node.inputs[1].is_initializer():  # type: ignore[union-attr]
        value = layout.fuse(site.ledger, site.value(0), axis)
        picked = index.reshape(-1) % shape[axis]
        result = layout.take(site.ledger, value, axis, picked, len(picked))
        if index.ndim == 0:
            result = layout.drop(site.ledger, result, [axis])
        site.yields(result)

        def make(cut: Cut) -> dict[int | str, Any]:
            keep = cut.keep(value, axis)
            new = (np.cumsum(keep) - 1)[picked[keep[picked]]]
            return {} if keep.all() else {1: new.astype(index.dtype).reshape((-1,) if index.ndim else ())}

        return site.patch(make)
    letters = list(aligned(len(shape)))
    joined = site.join((0, site.operand(0, [None if a == axis else c for a, c in enumerate(letters)])), reason="")
    where = site.value(1)
    site.records.indices[str(site.name(1))] = min(shape[axis], site.nominal(0)[axis])
    site.pin(where, range(len(where.axes)), "is an index")
    rest = joined.output(site.ledger, [c for a, c in enumerate(letters) if a != axis])
    site.yields(Value((*rest.axes[:axis], *site.ledger.free(site.shape(1)).axes, *rest.axes[axis:])))
    return None


def gather_nd(site: Site) -> None:
    """GatherND: indexed axes are pinned, the axes behind them pass."""
    shape, index = site.shape(0), site.shape(1)
    first = int(site.attr("batch_dims", 0))
    depth = first + index[-1]
    value = site.freed(site.value(0), range(depth), "is picked from at computed places", shape)
    site.leave(1)
    lead = site.ledger.free(index[:-1])
    site.yields(Value((*lead.axes, *value.axes[depth:])))


def scatter_nd(site: Site) -> None:
    """ScatterND: indexed axes are pinned, the axes behind them align with the updates'."""
    shape, depth = site.shape(0), site.shape(1)[-1]
    letters = aligned(len(shape) - depth)
    lead = len(site.shape(2)) - len(letters)
    site.leave(1)
    data = site.operand(0, [*([None] * depth), *letters])
    joined = site.join((0, data), (2, site.operand(2, [*([None] * lead), *letters])))
    rest = joined.output(site.ledger, letters)
    site.yields(Value((*site.ledger.free(shape[:depth]).axes, *rest.axes)))


def tensor_scatter(site: Site) -> None:
    """TensorScatter: an update is written along one axis at places per batch entry; other axes align."""
    letters: list[str | None] = list(aligned(len(site.shape(0))))
    letters[int(site.attr("axis", -2))] = None
    if site.name(2):
        letters[0] = None
        site.leave(2)
    joined = site.join(*((slot, site.operand(slot, letters)) for slot in (0, 1)))
    free = site.ledger.free(site.shape(0))
    rest = joined.output(site.ledger, [c for c in letters if c])
    axes = iter(rest.axes)
    site.yields(Value(tuple(next(axes) if c else axis for c, axis in zip(letters, free.axes, strict=True))))


def elements(site: Site) -> None:
    """GatherElements and ScatterElements: the axis is pinned; others align with the indices' where they are as long."""
    shape, axis = site.shape(0), int(site.attr("axis", 0)) % len(site.shape(0))
    index = site.shape(1)
    letters = [None if a == axis or index[a] != shape[a] else c for a, c in enumerate(aligned(len(shape)))]
    joined = site.join(*((slot, site.operand(slot, letters)) for slot in site.given()))
    kept = [c for c in letters if c]
    passed = dict(zip(kept, joined.output(site.ledger, kept).axes, strict=True))
    out = site.out_shape()
    site.yields(Value(tuple(passed[c] if c else site.ledger.axis(out[a]) for a, c in enumerate(letters))))
