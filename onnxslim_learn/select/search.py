"""Widths that meet all bounds: by what units are worth, or one share of every group, grown until no step fits."""

from __future__ import annotations

import bisect
import heapq
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import PlanError
from onnxslim_learn.select.budget import Choice, Search
from onnxslim_learn.select.knapsack import allocate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from onnxslim_learn.array_types import Mask


BISECTIONS = 24


def solve(search: Search, progress: Callable[[float], None] = lambda share: None) -> list[int]:
    """Find the widths.

    Raises:
        TargetError: If the narrowest widths do not meet the bounds.
    """
    if search.fits(search.at(1.0)):
        return search.at(1.0)
    if not search.fits(search.at(0.0)):
        raise search.unreachable()
    curves = [c.curve for c in search.choices if c.curve is not None]
    if len(curves) == len(search.choices):
        return allocate(search, curves, progress)
    low, high = 0.0, 1.0
    for step in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if search.fits(search.at(middle)) else (low, middle)
        progress(0.5 * (step + 1) / BISECTIONS)
    return _fill(search, search.at(low), progress)


def _fill(search: Search, widths: list[int], progress: Callable[[float], None]) -> list[int]:
    """Give back steps, to the most narrowed group first, until none fits."""
    stuck, ahead = np.zeros(len(search.choices), bool), 1
    while True:
        steps = list(itertools.islice(_steps(search, widths, stuck), ahead))
        if not steps:
            return widths
        fitting = bisect.bisect_left(
            range(len(steps)), 1, key=lambda n: not search.fits(_after(widths, steps[: n + 1]))
        )
        widths = _after(widths, steps[:fitting])
        if fitting == len(steps):
            ahead *= 2
            continue
        ahead = max(1, fitting)
        stuck[steps[fitting][0]] = True
        sizes = [_next(choice, width) - width for choice, width in zip(search.choices, widths, strict=True)]
        stuck |= search.filled(widths, np.array(sizes))
        progress(0.5 + 0.5 * float(stuck.mean()))


def _steps(search: Search, widths: Sequence[int], stuck: Mask) -> Iterator[tuple[int, int]]:
    """Steps in the order in which they are given back while all fit: which choice, to which of its widths."""
    shares = [(k, choice.group.width) for k, choice in enumerate(search.choices) if not stuck[k]]
    waiting = [(widths[k] / whole, k, widths[k]) for k, whole in shares if widths[k] < whole]
    heapq.heapify(waiting)
    while waiting:
        _, k, width = heapq.heappop(waiting)
        choice = search.choices[k]
        wider = _next(choice, width)
        yield k, wider
        if wider < choice.group.width:
            heapq.heappush(waiting, (wider / choice.group.width, k, wider))


def _next(choice: Choice, width: int) -> int:
    """The next of its widths, or the last."""
    return choice.kept[min(bisect.bisect_right(choice.kept, width), len(choice.kept) - 1)]


def _after(widths: Sequence[int], steps: Iterable[tuple[int, int]]) -> list[int]:
    wider = list(widths)
    for k, width in steps:
        wider[k] = width
    return wider


def search(search: Search, progress: Callable[[float], None] = lambda share: None) -> Removal:
    """Find a valid removal that meets the bounds.

    Raises:
        TargetError: If the bounds cannot be met.
        PlanError: If the choice breaks a constraint that no single group shows.
    """
    removal = search.removal(solve(search, progress))
    faults = search.faults(removal)
    if not faults:
        return removal
    kept: list[Choice] = []
    for choice in search.choices:  # leave out the groups that do not combine with the ones before
        trial = replace(search, choices=[*kept, choice])
        if not search.faults(trial.removal(trial.at(0.5))):
            kept.append(choice)
    if len(kept) == len(search.choices):
        raise PlanError(f"{faults[0]}. Protect that group.")
    trial = replace(search, choices=kept)
    removal = trial.removal(solve(trial, progress))
    faults = search.faults(removal)
    if faults:
        raise PlanError(f"{faults[0]}. Protect that group.")
    return removal
