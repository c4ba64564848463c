"""Which share of every layer's weights goes: protocols and bounds, from layer sizes alone.

``target`` is the share of all weights that goes; a protocol's shares weighted by layer size have it as their mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Limits: TypeAlias = tuple[float, float]

REACH = 3.0  # a layer keeps at least 1/3 of the mean density, and at most 3 times as much


def uniform(sizes: Sequence[int], target: float) -> list[float]:
    """The same share for every layer."""
    return [target] * len(sizes)


def logarithmic(sizes: Sequence[int], target: float) -> list[float]:
    """Shares in proportion to ``ln n``: ``r_l = s_f · Σn / Σ(n · ln n) · ln n_l``; they may exceed 1."""
    scale = sum(n * math.log(n) for n in sizes)
    return [target * sum(sizes) / scale * math.log(n) if scale else target for n in sizes]


def heurist(sizes: Sequence[int], target: float) -> list[float]:
    """:func:`logarithmic` with shares clipped at :func:`bounds`, and what that leaves shared out among the others."""
    ceiling = bounds(target)[1]
    ratios, clipped = logarithmic(sizes, target), {k for k, n in enumerate(sizes) if n < 2}
    shares = dict.fromkeys(clipped, 0.0)
    while True:
        over = [k for k in range(len(sizes)) if k not in clipped and ratios[k] > ceiling]
        if not over:
            return [shares.get(k, ratios[k]) for k in range(len(sizes))]
        clipped.update(over)
        shares |= dict.fromkeys(over, ceiling)
        left = target * sum(sizes) - sum(shares[k] * sizes[k] for k in clipped)
        weight = sum(n * math.log(n) for k, n in enumerate(sizes) if k not in clipped)
        ratios = [left / weight * math.log(n) if weight else target for n in sizes]


def bounds(target: float) -> Limits:
    """Least and largest share of one layer: ``max(0, 1 − 3(1 − s_f))`` and ``1 − (1 − s_f)/3``."""
    return max(0.0, 1 - REACH * (1 - target)), 1 - (1 - target) / REACH


def from_action(action: float, middle: float, limits: Limits) -> float:
    """An action in [0, 1] as a share: linear pieces through the limits, with 0.5 ↦ ``middle``."""
    low, high = limits
    if action < 0.5:
        return low + (middle - low) * 2 * action
    return middle + (high - middle) * (2 * action - 1)


def to_action(share: float, middle: float, limits: Limits) -> float:
    """The inverse of :func:`from_action`, of the nearest share within the limits."""
    low, high = limits
    share = min(max(share, low), high)
    if share == middle:
        return 0.5
    return 0.5 * (share - low) / (middle - low) if share < middle else 0.5 + 0.5 * (share - middle) / (high - middle)


def met(sizes: Sequence[int], shares: Sequence[float], target: float, limits: Limits) -> list[float]:
    """Shares whose mean is exactly the target: all densities times one factor, within the limits of one layer."""
    low, high = limits
    wanted = (1 - target) * sum(sizes)

    def times(factor: float) -> list[float]:
        return [min(max((1 - r) * factor, 1 - high), 1 - low) for r in shares]

    small, large = 0.0, 2.0**60
    for _ in range(200):
        factor = math.sqrt(max(small, 2.0**-60) * large)
        weights = sum(n * d for n, d in zip(sizes, times(factor), strict=True))
        small, large = (factor, large) if weights < wanted else (small, factor)
    return [1 - d for d in times(large)]
