"""Widths from curves: what every group loses at every width, against what the widths cost.

A multiple-choice knapsack. Its costs are products of two groups' widths, so it is solved in small steps at the prices
of the moment: the step that loses least for what it saves comes first, and what the last steps saved too much is given
back where it gains most. Pairs of groups then trade widths as long as that lowers the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxslim_learn.select.budget import Search


STRIDE = 48  # a group is narrowed in at most about so many steps
TRADES = 120  # tried


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
    def __init__(self, search: Search, curves: list[Array]) -> None:
        self.search, self.curves = search, curves
        self.kept = [c.kept for c in search.choices]

    def solve(self, progress: Callable[[float], None]) -> list[int]:
        at = [len(kept) - 1 for kept in self.kept]
        start = self._excess(at)
        while (excess := self._excess(at)) > 0:
            progress(1 - excess / start)
            k, to = self._cheapest(at)
            at[k] = to
        at = self._give_back(at)
        at = self._trade(at)
        return [kept[k] for kept, k in zip(self.kept, at, strict=True)]

    def _widths(self, at: Sequence[int]) -> list[int]:
        return [kept[k] for kept, k in zip(self.kept, at, strict=True)]

    def _alive(self, at: Sequence[int]) -> Array:
        return (~self.search.removal(self._widths(at)).gone).astype(float)

    def _excess(self, at: Sequence[int]) -> float:
        """By which share the bounds are exceeded, summed."""
        alive = self._alive(at)
        return sum(max(c.value(alive) / (bound * (1 + 1e-9)) - 1, 0) for c, bound in self.search.bounds.values())

    def _fits(self, at: Sequence[int]) -> bool:
        return self.search.fits(self._widths(at))

    def _prices(self, at: Sequence[int], *, exceeded: bool) -> list[float]:
        """What one unit of every choice costs at the widths of the moment, in shares of the bounds (still exceeded)."""
        alive, coupling = self._alive(at), self.search.coupling
        total = np.zeros(coupling.size)
        for cost, bound in self.search.bounds.values():
            if not exceeded or cost.value(alive) > bound:
                total += cost.gradient(alive) * alive / bound
        by_column = np.bincount(coupling.column, total, coupling.columns)
        rows = np.flatnonzero(coupling.is_row)
        inside = coupling.membership.T @ total  # a row is worth its cells
        by_column += np.bincount(coupling.column[rows], inside[rows], coupling.columns)
        pairs = zip(self.search.choices, self._widths(at), strict=True)
        return [max(float(by_column[c.group.units].sum()) / max(width, 1), 1e-15) for c, width in pairs]

    def _cheapest(self, at: Sequence[int]) -> tuple[int, int]:
        """The step that loses least for what it saves: which choice, to which of its widths."""
        prices, best = self._prices(at, exceeded=True), (np.inf, 0, -1)
        for k, here in enumerate(at):
            if here == 0:
                continue
            kept, curve = np.array(self.kept[k]), self.curves[k]
            saved = (kept[here] - kept[:here]) * prices[k]
            slopes = (curve[:here] - curve[here] + 1e-12) / saved
            lowest = int(np.argmin(slopes[::-1]))  # the nearest of the best: curves need not be convex
            near = here - 1 - lowest
            slope = float(slopes[near])
            step = max(1, len(kept) // STRIDE)
            if slope < best[0]:
                best = (slope, k, max(near, here - step))
        assert best[2] >= 0, "the narrowest widths meet the bounds"
        return best[1], best[2]

    def _give_back(self, at: list[int], but: int = -1) -> list[int]:
        """Widen where that gains most, until nothing fits any more."""
        stuck = {but}
        while True:
            able = [k for k in range(len(at)) if k not in stuck and at[k] + 1 < len(self.kept[k])]
            if not able:
                return at
            prices = self._prices(at, exceeded=False)
            k = max(able, key=lambda k: (self.curves[k][at[k]] - self.curves[k][at[k] + 1]) / prices[k])
            tried = [*at[:k], at[k] + 1, *at[k + 1 :]]
            if self._fits(tried):
                at = tried
            else:
                stuck.add(k)

    def _trade(self, at: list[int]) -> list[int]:
        """Narrow one group and give what that saves to the others, as long as the total falls."""
        rng, loss = np.random.default_rng(0), self._loss(at)
        for number in range(TRADES if len(at) > 1 else 0):
            a = number % len(at)
            step = int(rng.integers(1, 4)) * max(1, len(self.kept[a]) // STRIDE)
            if at[a] < step:
                continue
            tried = self._give_back([*at[:a], at[a] - step, *at[a + 1 :]], but=a)
            if (tried_loss := self._loss(tried)) < loss - 1e-12:
                at, loss = tried, tried_loss
        return at

    def _loss(self, at: Sequence[int]) -> float:
        return float(sum(curve[k] for curve, k in zip(self.curves, at, strict=True)))
