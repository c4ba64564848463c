"""Choose widths by what they cost and what they lose, and let samples decide between ways to weigh losses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.costs import store
from onnxslim_learn.repair.runner import Runner
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.select import budget, sensitivity
from onnxslim_learn.select.pool import WORKERS, spread
from onnxslim_learn.select.sensitivity import Curves, loss

if TYPE_CHECKING:
    from onnxslim_learn.graph.coupling import Removal
    from onnxslim_learn.select.budget import Choice, Search
    from onnxslim_learn.select.evidence import Evidence

Progress = Callable[[float], None]

MOST = 448  # samples to measure curves on
FEWEST = 32
CURVES = 0.5  # share of the time for curves of single groups
ALONE = 0.8  # of a trial's time: what one group's takes, as what comes before it is not run again
CROWD = 0.7  # of a core's work, in each of several cores at once
NEARBY = (0.75, 1.33)  # widths measured around an allocation, relative to its own
REFINED = ", refined"
KEPT = "curves"  # kind of what is kept on disk

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
    """Meet the bounds: all groups alike, or by measured losses where that turns out better on held-back samples.

    Half of the time goes to curves of single groups, which serve every target. The rest goes to the neighbourhood of
    the best allocation found: what each group is worth there, with all others cut as well.

    Raises:
        TargetError, PlanError: See :func:`onnxslim_learn.select.budget.search`.
    """
    start, uniform = perf_counter(), budget.search(task, progress)
    if evidence is None or not evidence.seconds or not uniform.gone.any():
        return Chosen(uniform, "uniform", {})
    record = Record(task.coupling.graph.model, evidence.feeds, _places(evidence))
    before = perf_counter()
    found, trials = {"uniform": uniform}, {"uniform": _trial(uniform, record)}
    each = perf_counter() - before
    feeds = evidence.feeds[: _affordable(evidence, each, len(task.choices))]
    if feeds:
        _measure(task, evidence, feeds, progress)
    if evidence.curves.complete(task.choices):
        found |= {name: budget.search(_weighed(task, evidence, uniform, way)) for name, way in WAYS.items()}
        trials |= spread((name, partial(_trial, found[name], record)) for name in WAYS)
    best = min(trials, key=lambda name: trials[name])
    round_ = 2 * each * len(task.choices) / max(CROWD * WORKERS, 1)
    while perf_counter() - start + round_ < evidence.seconds:
        refined = budget.search(_nearby(task, found[best], trials[best], record, progress))
        lost = _trial(refined, record)
        if lost >= trials[best]:
            break
        best = best if best.endswith(REFINED) else best + REFINED
        found[best], trials[best] = refined, lost
    return Chosen(found[best], best, trials)


def _widths(task: Search, cut: Removal) -> list[int]:
    """Units that every choice keeps."""
    columns = np.zeros(task.coupling.columns, bool)
    columns[task.coupling.column[~cut.gone]] = True
    return [int(columns[choice.group.units].sum()) for choice in task.choices]


def _nearby(task: Search, cut: Removal, lost: float, record: Record, progress: Progress) -> Search:
    """The same search over widths near a cut, by what one group's change does while all others stay cut."""
    widths, choices = _widths(task, cut), []

    def jobs() -> Iterator[tuple[tuple[int, int], Callable[[], float]]]:
        for k, choice in enumerate(task.choices):
            kept = np.array(choice.kept)
            ends = {int(kept[np.abs(kept - share * widths[k]).argmin()]) for share in NEARBY}
            for end in ends - {widths[k]}:
                yield (k, end), partial(_trial, task.removal([*widths[:k], end, *widths[k + 1 :]]), record)

    found = [{width: 0.0} for width in widths]
    for (k, end), value in spread(jobs()):
        progress(k / len(task.choices))
        found[k][end] = value - lost
    for choice, points in zip(task.choices, found, strict=True):
        near = tuple(int(n) for n in choice.kept if min(points) <= n <= max(points))
        at = sorted(points)
        values = np.maximum.accumulate([points[n] for n in at][::-1])[::-1]
        curve = np.interp(np.log(np.maximum(near, 0.5)), np.log(np.maximum(at, 0.5)), values)
        choices.append(replace(choice, kept=near, curve=curve - curve[-1]))
    return replace(task, choices=choices)


def _weighed(task: Search, evidence: Evidence, uniform: Removal, way: tuple[float, float]) -> Search:
    """The same search by measured curves, with widths bounded from below."""
    power, floor = way
    choices = []
    for choice, width in zip(task.choices, _widths(task, uniform), strict=True):
        kept = tuple(k for k in choice.kept if k >= floor * width)
        curve = evidence.curves.curve(replace(choice, kept=kept)) ** power
        choices.append(replace(choice, kept=kept, curve=curve))
    return replace(task, choices=choices)


def _trial(cut: Removal, record: Record) -> float:
    """The loss on held-back samples after a quick repair of everything."""
    slimmed = slim(cut)
    return loss(cut, slimmed, record, Runner(slimmed, record.feeds, (), threads=1))


def _affordable(evidence: Evidence, spent: float, choices: int) -> int:
    """How many batches the time allows to measure every choice with; none if they would say nothing.

    ``spent`` is what a trial on all of them took.
    """
    every = len(evidence.feeds)
    batch = len(next(iter(evidence.feeds[0].values())))
    each = ALONE * spent / every * max(choices, 1) * sensitivity.LEAST / max(CROWD * WORKERS, 1)
    count = min(every, -(-MOST // batch), int(evidence.seconds * CURVES / max(each, 1e-9)))
    enough = count * batch >= min(FEWEST, every * batch) and count > 1
    return count if enough else 0


def _measure(task: Search, evidence: Evidence, feeds: Sequence[Mapping[str, Any]], progress: Progress) -> None:
    widths = [choice.group.width for choice in task.choices]

    def alone(choice: Choice, kept: int) -> Removal:
        return task.removal([kept if c is choice else w for c, w in zip(task.choices, widths, strict=True)])

    about = _about(task, feeds, _places(evidence))
    stored = Curves()
    for key, lost in store.read(KEPT, about).items():
        kept, _, name = key.partition(" ")
        stored.points.setdefault(name, {})[int(kept)] = lost
    for name, own in evidence.curves.points.items():
        stored.points.setdefault(name, {}).update(own)
    evidence.curves = sensitivity.measure(
        task.coupling.graph.model,
        Record(task.coupling.graph.model, feeds, _places(evidence)),
        task.choices,
        alone,
        seconds=evidence.seconds * CURVES,
        known=stored,
        keep=lambda name, kept, lost: store.add(KEPT, about, {f"{kept} {name}": lost}),
        progress=progress,
    )


def _places(evidence: Evidence) -> int:
    """Rows of a regression that come from one batch."""
    return -(-sensitivity.PLACES // len(evidence.feeds))


def _about(task: Search, feeds: Sequence[Mapping[str, Any]], places: int) -> dict[str, str | int]:
    """What measured losses depend on: the model, the samples, and the order in which units go."""
    samples, orders = hashlib.sha256(), hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            samples.update(name.encode() + np.ascontiguousarray(array).tobytes())
    for choice in task.choices:
        orders.update(choice.group.name.encode() + b"".join(part.tobytes() for part in choice.order))
    if task.heirs is not None:
        orders.update(task.heirs.tobytes())
    about = {"model": task.coupling.graph.digest, "samples": samples.hexdigest(), "orders": orders.hexdigest()}
    return {**about, "places": places}
