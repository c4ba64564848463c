"""Operators that work on windows of space: pooling, unpooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.contract import padding, sides
from onnxslim_learn.bridge.ops.finite import finite
from onnxslim_learn.bridge.ops.kinds import Plain

MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _frame(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], ceil_mode: int
) -> Callable[[str, Plain], tuple[list[int], list[int], list[int]]]:
    """Padding before and after, and what to add after so that a floor counts the windows that a ceiling does."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]

    def found(auto_pad: str, pads: Plain) -> tuple[list[int], list[int], list[int]]:
        before, after = padding(sizes, reach, strides, auto_pad, pads)
        more = []
        for n, k, s, b, a in zip(sizes, reach, strides, before, after, strict=True):
            windows = (n + b + a - k) // s + 1
            if ceil_mode and (n + b + a - k) % s and windows * s < n + b:  # a window may not start in the padding
                windows += 1
            more.append(max((windows - 1) * s + k - (n + b + a), 0))
        return before, after, more

    return found


def max_pool(
    x: Tensor,
    *,
    kernel_shape: Plain,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Plain = None,
    pads: Plain = None,
    storage_order: int = 0,
    strides: Plain = None,
    outputs: int = 1,
) -> Any:
    """MaxPool; positions, where asked for, count through the whole tensor."""
    rank = len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    frame = _frame(x.shape[2:], kernel_shape, strides, dilations, ceil_mode)
    before, after, more = frame(auto_pad, pads)
    if (
        outputs == 1
        and before == after
        and not any(more)
        and all(2 * p <= k for p, k in zip(before, kernel_shape, strict=True))
    ) and x.is_floating_point():
        return MAX[rank](x, kernel_shape, strides, before, dilations)
    whole = x if x.is_floating_point() else x.to(torch.float64)
    wide = F.pad(whole, sides(before, [a + m for a, m in zip(after, more, strict=True)]), value=-math.inf)
    y, place = MAX[rank](wide, kernel_shape, strides, 0, dilations, False, True)
    if outputs == 1:
        return y.to(x.dtype)
    return y.to(x.dtype), _unpadded(place, wide.shape, x.shape, before, storage_order)


def _unpadded(place: Tensor, wide: Sequence[int], sizes: Sequence[int], before: Sequence[int], order: int) -> Tensor:
    """Positions in a padded plane as positions in the tensor (``order`` 1: the last two axes column by column)."""
    space: list[Tensor] = []
    for n, p in zip(reversed(wide[2:]), reversed(before), strict=True):
        space.insert(0, place % n - p)
        place = place // n
    if order:
        space[-2:], sizes = space[-2:][::-1], [*sizes[:-2], sizes[-1], sizes[-2]]
    flat = torch.zeros_like(place)
    for index, n in zip(space, sizes[2:], strict=True):
        flat = flat * n + index
    plane = math.prod(sizes[2:])
    outer = torch.arange(math.prod(sizes[:2]), device=place.device).reshape(*sizes[:2], *[1] * len(space))
    return flat + outer * plane


def average_pool(
    x: Tensor,
    *,
    kernel_shape: Plain,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Plain = None,
    pads: Plain = None,
    strides: Plain = None,
) -> Tensor:
    """AveragePool: padding counts only if asked for, what a ceiling adds never does."""
    rank = len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    before, after, more = _frame(x.shape[2:], kernel_shape, strides, dilations, ceil_mode)(auto_pad, pads)
    small = all(2 * p <= k for p, k in zip(before, kernel_shape, strict=True))
    if before == after and not any(more) and small and max(dilations) == 1:
        result: Tensor = MEAN[rank](x, kernel_shape, strides, before, False, bool(count_include_pad))
        return result
    ends = [a + m for a, m in zip(after, more, strict=True)]
    one = torch.ones_like(x[:1, :1])
    counted = F.pad(one, sides(before, after), value=1.0) if count_include_pad else F.pad(one, sides(before, after))
    counted = F.pad(counted, sides([0] * rank, more))
    return _window_sum(F.pad(x, sides(before, ends)), kernel_shape, strides, dilations) / _window_sum(
        counted, kernel_shape, strides, dilations
    )


def _window_sum(x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """Sum over windows, one axis after the other."""
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True), 2):
        x = x.unfold(axis, (k - 1) * d + 1, s)[..., ::d].sum(-1)
    return x


@finite
def lp_pool(
    x: Tensor,
    *,
    kernel_shape: Plain,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Plain = None,
    p: float = 2,
    pads: Plain = None,
    strides: Plain = None,
) -> Tensor:
    """LpPool."""
    rank = len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    before, after, more = _frame(x.shape[2:], kernel_shape, strides, dilations, ceil_mode)(auto_pad, pads)
    wide = F.pad(x.abs() ** p, sides(before, [a + m for a, m in zip(after, more, strict=True)]))
    return _window_sum(wide, kernel_shape, strides, dilations) ** (1.0 / p)


def global_average(x: Tensor) -> Tensor:
    """GlobalAveragePool."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max(x: Tensor) -> Tensor:
    """GlobalMaxPool."""
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


@finite
def global_lp(x: Tensor, *, p: float = 2) -> Tensor:
    """GlobalLpPool."""
    return (x.abs() ** p).sum(tuple(range(2, x.ndim)), keepdim=True) ** (1.0 / p)


def max_unpool(
    x: Tensor,
    place: Tensor,
    shape: Plain = None,
    *,
    kernel_shape: Plain,
    pads: Plain = None,
    strides: Plain = None,
) -> Tensor:
    """MaxUnpool: put values back where they came from; positions count through the unpadded tensor."""
    rank = len(kernel_shape)
    strides, pads = strides or [1] * rank, pads or [0] * (2 * rank)
    sizes = [
        (n - 1) * s + k - a - b
        for n, s, k, a, b in zip(x.shape[2:], strides, kernel_shape, pads[:rank], pads[rank:], strict=True)
    ]
    flat = x.new_zeros(x.shape[0] * x.shape[1] * math.prod(sizes)).scatter(0, place.reshape(-1), x.reshape(-1))
    y = flat.reshape(*x.shape[:2], *sizes)
    if shape is None:
        return y
    return F.pad(y, sides([0] * rank, [w - n for w, n in zip(shape[2:], sizes, strict=True)]))


TABLE: dict[str, Callable[..., Any]] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalLpPool": global_lp,
    "GlobalMaxPool": global_max,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
}
