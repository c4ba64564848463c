"""Operators that read or write at positions given as data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import Plain, Scalar, single

REDUCTIONS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


def _counted(index: Tensor, size: int) -> Tensor:
    """Positions from the front, as int64."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index)


def gather(x: Tensor, index: Scalar, *, axis: int = 0) -> Tensor:
    """Gather: one position, rows of a table, or positions along an axis."""
    if not isinstance(index, Tensor):
        return x.select(axis, index)
    if axis == 0 and x.ndim == 2 and x.is_floating_point():
        return F.embedding(_counted(index, x.shape[0]), x)
    if index.ndim == 1:
        return x.index_select(axis, _counted(index, x.shape[axis]))
    result: Tensor = torch.index_select(x, axis, _counted(index, x.shape[axis]).reshape(-1))
    return result.reshape((*x.shape[: axis % x.ndim], *index.shape, *x.shape[axis % x.ndim + 1 :]))


def gather_elements(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    """GatherElements."""
    return torch.gather(x, axis, _counted(index, x.shape[axis]))


def gather_nd(x: Tensor, index: Tensor, *, batch_dims: int = 0) -> Tensor:
    """GatherND."""
    leading = [
        torch.arange(n, device=x.device).reshape([-1 if k == axis else 1 for k in range(index.ndim - 1)])
        for axis, n in enumerate(x.shape[:batch_dims])
    ]
    return x[(*leading, *index.to(torch.int64).unbind(-1))]


def scatter_elements(x: Tensor, index: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    """ScatterElements."""
    place = _counted(index, x.shape[axis])
    if reduction == "none":
        return torch.scatter(x, axis, place, updates)
    return torch.scatter_reduce(x, axis, place, updates, REDUCTIONS[reduction])


def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """ScatterND."""
    depth = index.shape[-1]
    place = torch.zeros_like(index[..., 0], dtype=torch.int64)
    for k in range(depth):
        place = place * x.shape[k] + _counted(index[..., k], x.shape[k])
    rows, rest = math.prod(x.shape[:depth]), x.shape[depth:]
    flat, new = x.reshape(rows, *rest), updates.reshape(-1, *rest)
    place = place.reshape(-1)
    if reduction == "none":
        return flat.index_copy(0, place, new).reshape(x.shape)
    spread = place.reshape(-1, *[1] * len(rest)).expand(new.shape)
    return torch.scatter_reduce(flat, 0, spread, new, REDUCTIONS[reduction]).reshape(x.shape)


def tensor_scatter(
    past: Tensor, update: Tensor, place: Tensor | None = None, *, axis: int = -2, mode: str = "linear"
) -> Tensor:
    """TensorScatter: write a stretch into a cache, every sequence from its own position."""
    axis %= past.ndim
    start = place if place is not None else torch.zeros(past.shape[0], dtype=torch.int64, device=past.device)
    index = start[:, None] + torch.arange(update.shape[axis], device=past.device)
    index = index % past.shape[axis] if mode == "circular" else index
    view = [1] * past.ndim
    view[0], view[axis] = index.shape
    return past.scatter(axis, index.reshape(view).expand(update.shape), update)


def one_hot(indices: Tensor, depth: Plain, values: Tensor, *, axis: int = -1) -> Tensor:
    """OneHot: values are what stands off and on."""
    size = int(single(depth))
    wanted = indices.to(torch.int64)
    wanted = torch.where(wanted < 0, wanted + size, wanted).unsqueeze(axis)
    view = [1] * wanted.ndim
    view[axis] = size
    hot = torch.arange(size, device=indices.device).reshape(view) == wanted
    return torch.where(hot, values[1], values[0])


def non_zero(x: Tensor) -> Tensor:
    """NonZero: positions by axis."""
    return torch.nonzero(x).T


def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """Compress."""
    flat, along = (x.reshape(-1), 0) if axis is None else (x, axis)
    return flat.index_select(along, torch.nonzero(condition).reshape(-1))


def unique(x: Tensor, *, axis: int | None = None, sorted: int = 1, outputs: int = 1) -> Any:
    """Unique: values, where they come first, which one stands where, how often."""
    values, which, counts = torch.unique(x, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    flat = which.reshape(-1)
    many = counts.numel()
    first = torch.full((many,), flat.numel(), device=x.device, dtype=torch.int64)
    first = first.scatter_reduce(0, flat, torch.arange(flat.numel(), device=x.device), "amin")
    if not sorted:
        order = torch.argsort(first)
        values = values.index_select(axis or 0, order)
        which = torch.argsort(order)[flat]
        first, counts = first[order], counts[order]
    return (values, first, which.reshape(-1), counts)[:outputs] if outputs > 1 else values


TABLE: dict[str, Callable[..., Any]] = {
    "Compress": compress,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": non_zero,
    "OneHot": one_hot,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "Unique": unique,
}
