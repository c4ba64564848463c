"""Widths from curves: what every group loses at every width, against what the widths cost.

A multiple-choice knapsack. Its costs are products of two groups' widths, so it is solved in small steps at the prices
of the moment: the step that loses least for what it saves comes first, and what the last steps saved too much is given
back where it gains most. Pairs of groups then trade widths as long as that lowers the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array, Labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxslim_learn.select.budget import Search


STRIDE = 48  # a group is narrowed in at most about so many steps
TRADES = 120  # tried
PRICED = 64  # of more choices than that, several take a step at the prices of a moment


def allocate(
    search: Search, curves: Sequence[Array], progress: Callable[[float], None] = lambda share: None
) -> list[int]:
    """Find the widths with the least total loss that meet the bounds.

    Args:
        search: Choices and bounds; its narrowest widths must meet them.
        curves: For every choice the loss at each of its widths, the last (all units) 0.
        progress: Called with the share done.
    """
    return _Knapsack(search, [_falling(c) for c in curves]).solve(progress)


def _falling(curve: Array) -> Array:
    """A curve that never falls as units go: what is measured is noisy."""
    result: Array = np.maximum.accumulate(np.asarray(curve, float)[::-1])[::-1] - min(float(curve[-1]), 0.0)
    return result


class _Knapsack:
    """The widths of all choices laid end to end; ``at`` says for every choice at which of its widths it stands."""

    def __init__(self, search: Search, curves: list[Array]) -> None:
        self.search = search
        self.counts = np.array([len(curve) for curve in curves])
        self.first = np.cumsum(self.counts) - self.counts
        self.kept = np.concatenate([np.array(c.kept) for c in search.choices])
        self.losses = np.concatenate(curves)
        self.gains = np.append(self.losses[:-1] - self.losses[1:], 0.0)  # of the next width
        self.gains[self.first + self.counts - 1] = -np.inf  # nothing is beyond the last
        self.units = np.append(np.diff(self.kept), 0)
        self.at_once = max(1, len(curves) // PRICED)

    def solve(self, progress: Callable[[float], None]) -> list[int]:
        at = self.counts - 1
        start = self._excess(at)
        steps = [self._cheapest(k, here) for k, here in enumerate(at.tolist())]
        while (excess := self._excess(at)) > 0:
            progress(1 - excess / start)
            slopes = np.array([slope for slope, _ in steps]) / self._prices(at, exceeded=True)
            chosen = np.argsort(slopes, kind="stable")[: self.at_once]
            assert np.isfinite(slopes[chosen[0]]), "the narrowest widths meet the bounds"
            for k in chosen[np.isfinite(slopes[chosen])].tolist():
                at[k] = steps[k][1]
                steps[k] = self._cheapest(k, int(at[k]))
        widths: list[int] = self._widths(self._trade(self._give_back(at))).tolist()
        return widths

    def _widths(self, at: Labels) -> Labels:
        result: Labels = self.kept[self.first + at]
        return result

    def _excess(self, at: Labels) -> float:
        """By which share the bounds are exceeded, summed."""
        return sum(max(share - 1, 0) for share in self._shares(at).values())

    def _shares(self, at: Labels) -> dict[str, float]:
        """What is used of every bound."""
        alive = self.search.alive(self._widths(at))
        return {n: cost.value(alive) / (bound * (1 + 1e-9)) for n, (cost, bound) in self.search.bounds.items()}

    def _prices(self, at: Labels, *, exceeded: bool) -> Array:
        """What one unit of every choice costs at the widths of the moment, in shares of the bounds (still exceeded)."""
        names = [name for name, share in self._shares(at).items() if share > 1] if exceeded else self.search.bounds
        return np.maximum(self.search.prices(self._widths(at), names), 1e-15)

    def _cheapest(self, k: int, here: int) -> tuple[float, int]:
        """A choice's step that loses least for the units that go: what it loses for each, and to which width."""
        if here == 0:
            return np.inf, 0
        span = slice(self.first[k], self.first[k] + here + 1)
        kept, losses = self.kept[span], self.losses[span]
        slopes = (losses[:-1] - losses[-1] + 1e-12) / (kept[-1] - kept[:-1])
        near = here - 1 - int(np.argmin(slopes[::-1]))  # the nearest of the best: curves need not be convex
        return float(slopes[near]), max(near, here - max(1, int(self.counts[k]) // STRIDE))

    def _give_back(self, at: Labels, but: int = -1) -> Labels:
        """Widen where that gains most, until nothing fits any more."""
        at, gains, prices = at.copy(), self.gains[self.first + at], self._prices(at, exceeded=False)
        if but >= 0:
            gains[but] = -np.inf
        while True:
            k = int(np.argmax(gains / prices))
            if gains[k] == -np.inf:
                return at
            at[k] += 1
            if self.search.fits(self._widths(at)):
                gains[k] = self.gains[self.first[k] + at[k]]
                prices = self._prices(at, exceeded=False)
            else:
                at[k] -= 1
                gains[k] = -np.inf
                gains[self.search.filled(self._widths(at), self.units[self.first + at])] = -np.inf

    def _trade(self, at: Labels) -> Labels:
        """Narrow one group and give what that saves to the others, as long as the total falls."""
        rng, loss = np.random.default_rng(0), self._loss(at)
        for number in range(TRADES if len(at) > 1 else 0):
            a = number % len(at)
            step = int(rng.integers(1, 4)) * max(1, int(self.counts[a]) // STRIDE)
            if at[a] < step:
                continue
            narrowed = at.copy()
            narrowed[a] -= step
            tried = self._give_back(narrowed, but=a)
            if (tried_loss := self._loss(tried)) < loss - 1e-12:
                at, loss = tried, tried_loss
        return at

    def _loss(self, at: Labels) -> float:
        return float(self.losses[self.first + at].sum())
