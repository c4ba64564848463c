"""Operators that reduce, cumulate, sort or look for the largest along axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onnxslim_learn.bridge.ops.finite import finite
from onnxslim_learn.bridge.ops.kinds import Plain, listed, single

Axes: TypeAlias = tuple[int, ...]
Fold: TypeAlias = Callable[[Tensor, Axes, bool], Tensor]


def _reducer(name: str, fold: Fold) -> Callable[..., Tensor]:
    """A Reduce operator: axes are an input or, in older operator sets, an attribute; integers keep their type."""

    def reduced(
        x: Tensor, at: Plain = None, *, axes: Plain = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        chosen = axes if at is None else at
        chosen = None if chosen is None else listed(chosen)
        if not chosen:
            chosen = () if noop_with_empty_axes else range(x.ndim)
        if x.ndim == 0 or not chosen:  # an axis of its own, so that the fold still does what it does to one number
            result = fold(x.unsqueeze(0), (0,), False)
        else:
            result = fold(x, tuple(chosen), bool(keepdims))
        return result if result.dtype == x.dtype else result.to(x.dtype)

    reduced.__name__ = reduced.__qualname__ = name
    return reduced


def _mean(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return (x if x.is_floating_point() else x.double()).mean(axes, keepdim=keep)


def _product(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _extreme(function: Callable[..., Tensor], sign: int) -> Fold:
    """Largest or smallest; of nothing the one that all others exceed."""

    def fold(x: Tensor, axes: Axes, keep: bool) -> Tensor:
        if x.numel() == 0:
            pad = [0, 0] * (x.ndim - 1 - axes[0] % x.ndim) + [0, 1]
            x = torch.nn.functional.pad(x, pad, value=sign * math.inf if x.is_floating_point() else 0)
        result: Tensor = function(x.to(torch.uint8) if x.dtype == torch.bool else x, axes, keep)
        return result

    return fold


reduce_l1 = _reducer("reduce_l1", lambda x, axes, keep: x.abs().sum(axes, keepdim=keep))
reduce_l2 = _reducer("reduce_l2", finite(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()))
reduce_log_sum = _reducer("reduce_log_sum", finite(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()))
reduce_log_sum_exp = _reducer(
    "reduce_log_sum_exp", finite(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep))
)
reduce_max = _reducer("reduce_max", _extreme(torch.amax, -1))
reduce_mean = _reducer("reduce_mean", _mean)
reduce_min = _reducer("reduce_min", _extreme(torch.amin, 1))
reduce_prod = _reducer("reduce_prod", finite(_product))
reduce_sum = _reducer("reduce_sum", lambda x, axes, keep: x.sum(axes, keepdim=keep))
reduce_sum_square = _reducer("reduce_sum_square", lambda x, axes, keep: x.square().sum(axes, keepdim=keep))


def _place(x: Tensor, axis: int, keepdims: int, last: int, function: Callable[..., Tensor]) -> Tensor:
    place: Tensor
    if last:
        place = x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=bool(keepdims))
    else:
        place = function(x, axis, keepdim=bool(keepdims))
    return place


def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """ArgMax."""
    return _place(x, axis, keepdims, select_last_index, torch.argmax)


def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """ArgMin."""
    return _place(x, axis, keepdims, select_last_index, torch.argmin)


def _cumulate(x: Tensor, axis: int, exclusive: int, reverse: int, function: Callable[..., Tensor]) -> Tensor:
    """Cumulate, backwards if asked for, leaving out the own element if asked for."""
    x = x.flip(axis) if reverse else x
    if exclusive:
        neutral = torch.full_like(x.narrow(axis, 0, 1), 0 if function is torch.cumsum else 1)
        x = torch.cat([neutral, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    result = function(x, axis).to(x.dtype)
    return result.flip(axis) if reverse else result


def cum_sum(x: Tensor, axis: Plain, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """CumSum."""
    return _cumulate(x, single(axis), exclusive, reverse, torch.cumsum)


def cum_prod(x: Tensor, axis: Plain, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """CumProd."""
    return _cumulate(x, single(axis), exclusive, reverse, torch.cumprod)


def top_k(
    x: Tensor,
    count: Plain = None,
    *,
    k: int = 1,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
) -> tuple[Tensor, Tensor]:
    """TopK: of equal elements those that come first."""
    wanted = k if count is None else single(count)
    values, places = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, wanted), places.narrow(axis, 0, wanted)


TABLE: dict[str, Callable[..., Any]] = {
    "ArgMax": arg_max,
    "ArgMin": arg_min,
    "CumProd": cum_prod,
    "CumSum": cum_sum,
    "ReduceL1": reduce_l1,
    "ReduceL2": reduce_l2,
    "ReduceLogSum": reduce_log_sum,
    "ReduceLogSumExp": reduce_log_sum_exp,
    "ReduceMax": reduce_max,
    "ReduceMean": reduce_mean,
    "ReduceMin": reduce_min,
    "ReduceProd": reduce_prod,
    "ReduceSum": reduce_sum,
    "ReduceSumSquare": reduce_sum_square,
    "TopK": top_k,
}
