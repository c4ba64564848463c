"""Widths that meet all bounds: by what units are worth, or one share of every group, grown until no step fits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import PlanError
from onnxslim_learn.select.budget import Choice, Search
from onnxslim_learn.select.knapsack import allocate

if TYPE_CHECKING:
    from collections.abc import Callable


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
    stuck: set[int] = set()
    while len(stuck) < len(search.choices):
        open_ = [k for k in range(len(search.choices)) if k not in stuck]
        k = min(open_, key=lambda k: (widths[k] / search.choices[k].group.width, k))
        kept = search.choices[k].kept
        after = kept.index(widths[k]) + 1
        if after == len(kept):
            stuck.add(k)
            continue
        tried = [*widths[:k], kept[after], *widths[k + 1 :]]
        if search.fits(tried):
            widths = tried
        else:
            stuck.add(k)
        progress(0.5 + 0.5 * len(stuck) / len(search.choices))
    return widths


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
