"""Choose widths by what they cost and what they lose, and let samples decide between ways to weigh losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.repair.deviation import deviation
from onnxslim_learn.repair.fit import QUICK
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.repair.walk import Walk
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.select import budget, sensitivity

if TYPE_CHECKING:
    from onnxslim_learn.graph.coupling import Removal
    from onnxslim_learn.select.budget import Choice, Search
    from onnxslim_learn.select.evidence import Evidence

Progress = Callable[[float], None]

MOST = 448  # samples to measure curves on
FEWEST = 32

# How measured losses are weighed: by a power, higher ones spread them evenly; and how far below the uniform width a
# group may go, since what is lost by itself says little about extremes of several groups together.
WAYS: dict[str, tuple[float, float]] = {
    "least loss, widths near uniform": (1.0, 0.75),
    "least loss, widths at least half of uniform": (1.0, 0.5),
    "least loss": (1.0, 0.0),
    "least squared loss, widths at least half of uniform": (2.0, 0.5),
}


@dataclass(frozen=True)
class Chosen:
    """A choice of widths.

    Attributes:
        removal: What goes.
        allocation: How it was found: ``uniform`` or one of :data:`WAYS`.
        trials: Every allocation tried and its loss after a quick repair.
    """

    removal: Removal
    allocation: str
    trials: dict[str, float]


def choose(task: Search, evidence: Evidence | None, progress: Progress = lambda share: None) -> Chosen:
    """Meet the bounds: all groups alike, or by measured curves where that turns out better on held-back samples.

    Raises:
        TargetError, PlanError: See :func:`onnxslim_learn.select.budget.search`.
    """
    uniform = budget.search(task, progress)
    if evidence is None or not evidence.seconds or not uniform.gone.any():
        return Chosen(uniform, "uniform", {})
    record = Record(task.coupling.graph.model, evidence.feeds, -(-sensitivity.PLACES // len(evidence.feeds)))
    start = perf_counter()
    found, trials = {"uniform": uniform}, {"uniform": _trial(uniform, record)}
    feeds = _affordable(evidence.feeds, perf_counter() - start, evidence, len(task.choices))
    if feeds:
        _measure(task, evidence, feeds, progress)
    if evidence.curves.complete(task.choices):
        for name, way in WAYS.items():
            found[name] = budget.search(_weighed(task, evidence, uniform, way))
            trials[name] = _trial(found[name], record)
    best = min(trials, key=lambda name: trials[name])
    return Chosen(found[best], best, trials)


def _weighed(task: Search, evidence: Evidence, uniform: Removal, way: tuple[float, float]) -> Search:
    """The same search by measured curves, with widths bounded from below."""
    power, floor = way
    columns = np.zeros(task.coupling.columns, bool)
    columns[task.coupling.column[~uniform.gone]] = True
    choices = []
    for choice in task.choices:
        least = floor * columns[choice.group.units].sum()
        kept = tuple(k for k in choice.kept if k >= least)
        curve = evidence.curves.curve(replace(choice, kept=kept)) ** power
        choices.append(replace(choice, kept=kept, curve=curve))
    return replace(task, choices=choices)


def _trial(cut: Removal, record: Record) -> float:
    """The loss on held-back samples after a quick repair of everything."""
    walk = Walk(cut, slim(cut), record, QUICK)
    walk.go()
    return sensitivity.total(deviation(record.outputs(), walk.outputs()))


def _affordable(
    feeds: Sequence[Mapping[str, Any]], spent: float, evidence: Evidence, choices: int
) -> Sequence[Mapping[str, Any]]:
    """As many batches as the time allows to measure every choice at a few widths; none if they would say nothing."""
    batch = len(next(iter(feeds[0].values())))
    count = min(len(feeds), -(-MOST // batch))
    each = spent / len(feeds)
    rounds = max(choices, 1) * (sensitivity.LEAST + 1)
    able = int(evidence.seconds / max(each * rounds, 1e-9))
    count = min(count, able)
    enough = count * batch >= min(FEWEST, len(feeds) * batch) and count > 1
    return feeds[:count] if enough else []


def _measure(task: Search, evidence: Evidence, feeds: Sequence[Mapping[str, Any]], progress: Progress) -> None:
    widths = [choice.group.width for choice in task.choices]

    def alone(choice: Choice, kept: int) -> Removal:
        return task.removal([kept if c is choice else w for c, w in zip(task.choices, widths, strict=True)])

    evidence.curves = sensitivity.measure(
        task.coupling, task.choices, feeds, alone, seconds=evidence.seconds, known=evidence.curves, progress=progress
    )
