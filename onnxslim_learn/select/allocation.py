"""Choose widths by what they cost and what they lose, and let samples decide between ways to weigh losses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn import metrics
from onnxslim_learn.array_types import Progress
from onnxslim_learn.quality.channels import channels
from onnxslim_learn.repair.least_squares import ENOUGH
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.runtime import cache
from onnxslim_learn.runtime.parallel import WORKERS, spread
from onnxslim_learn.select import search, sensitivity
from onnxslim_learn.select.sensitivity import Curves

if TYPE_CHECKING:
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.select.budget import Choice, Search
    from onnxslim_learn.select.calibration import Calibration


MOST = 448  # samples to measure curves on
FEWEST = 32
CURVES = 0.5  # share of the time for curves of single groups
ALONE = 0.8  # of a trial's time: what one group's takes, as what comes before it is not run again
CROWD = 0.7  # of a core's work, in each of several cores at once
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
        trials: Every allocation tried and its loss after a quick repair: that of the metric, if there is one.
    """

    removal: Removal
    allocation: str
    trials: dict[str, float]


def choose(task: Search, calibration: Calibration | None, progress: Progress = lambda share: None) -> Chosen:
    """Meet the bounds: all groups alike, or by measured losses where that turns out better on the samples.

    Half of the time goes to curves of single groups, which serve every target. To go on from the best allocation, one
    group's width at a time with all others cut, was measured and is left out: on a residual net at 30 % of the MACs it
    lowered the loss on 512 samples by a sixth and cost 0.2 points on test images (the mean of three draws).

    Raises:
        TargetError, PlanError: See :func:`onnxslim_learn.select.search.search`.
    """
    uniform = search.search(task, progress)
    if calibration is None or not calibration.seconds or not uniform.gone.any():
        return Chosen(uniform, "uniform", {})
    feeds = calibration.feeds[: _affordable(task, calibration, uniform)]
    if feeds:
        _measure(task, calibration, feeds, progress)
    if not calibration.curves.complete(task.choices):
        return Chosen(uniform, "uniform", {})
    record = Record(task.coupling.graph.model, calibration.feeds, _places(calibration), whole=True)
    candidates = {"uniform": uniform}
    candidates |= {name: search.search(_weighed(task, calibration, uniform, way)) for name, way in WAYS.items()}
    trials = dict(spread((name, partial(_trial, cut, record, calibration)) for name, cut in candidates.items()))
    best = min(trials, key=lambda name: trials[name])
    return Chosen(candidates[best], best, {name: lost[0] for name, lost in trials.items()})


def _widths(task: Search, cut: Removal) -> list[int]:
    """Units that every choice keeps."""
    columns = np.zeros(task.coupling.columns, bool)
    columns[task.coupling.column[~cut.gone]] = True
    return [int(columns[choice.group.units].sum()) for choice in task.choices]


def _weighed(task: Search, calibration: Calibration, uniform: Removal, way: tuple[float, float]) -> Search:
    """The same search by measured curves, with widths bounded from below."""
    power, least = way
    bounded = task.above(_widths(task, uniform), least)
    curves = [calibration.curves.curve(choice) ** power for choice in bounded.choices]
    return replace(bounded, choices=[replace(c, curve=x) for c, x in zip(bounded.choices, curves, strict=True)])


def _trial(cut: Removal, record: Record, calibration: Calibration) -> tuple[float, ...]:
    """What is lost after a quick repair of everything: by the metric, if there is one, then by divergence."""
    outputs = sensitivity.repaired(cut, slim(cut), record)
    lost = metrics.loss(record.outputs(), outputs, channels(cut.coupling))
    if calibration.metric is None:
        return (lost,)
    return calibration.metric.lost(outputs, [calibration.labels[k] for k in record.judged]), lost


def _affordable(task: Search, calibration: Calibration, uniform: Removal) -> int:
    """How many batches the time allows to measure every choice with; none if they would say nothing."""
    batch, every = len(next(iter(calibration.feeds[0].values()))), len(calibration.feeds)
    some = calibration.feeds[: max(2, -(-ENOUGH // batch))]
    record = Record(task.coupling.graph.model, some, _places(calibration))
    start = perf_counter()
    _trial(uniform, record, calibration)
    each = ALONE * (perf_counter() - start) / len(some)
    round_ = each * sensitivity.LEAST * max(len(task.choices), 1) / max(CROWD * WORKERS, 1)
    count = min(every, -(-MOST // batch), int(calibration.seconds * CURVES / max(round_, 1e-9)))
    enough = count * batch >= min(FEWEST, every * batch) and count > 1
    return count if enough else 0


def _measure(task: Search, calibration: Calibration, feeds: Sequence[Mapping[str, Any]], progress: Progress) -> None:
    widths = [choice.group.width for choice in task.choices]

    def alone(choice: Choice, kept: int) -> Removal:
        return task.removal([kept if c is choice else w for c, w in zip(task.choices, widths, strict=True)])

    about = _about(task, feeds, _places(calibration))
    stored = Curves()
    for key, lost in cache.read(KEPT, about).items():
        kept, _, name = key.partition(" ")
        stored.points.setdefault(name, {})[int(kept)] = lost
    for name, points in calibration.curves.points.items():
        stored.points.setdefault(name, {}).update(points)
    calibration.curves = sensitivity.measure(
        task.coupling.graph.model,
        Record(task.coupling.graph.model, feeds, _places(calibration), whole=True),
        task.choices,
        alone,
        seconds=calibration.seconds * CURVES,
        known=stored,
        keep=lambda name, kept, lost: cache.add(KEPT, about, {f"{kept} {name}": lost}),
        progress=progress,
    )


def _places(calibration: Calibration) -> int:
    """Rows of a regression that come from one batch."""
    return -(-sensitivity.PLACES // len(calibration.feeds))


def _about(task: Search, feeds: Sequence[Mapping[str, Any]], places: int) -> dict[str, str | int]:
    """What measured losses depend on: the model, the samples, and the order in which units go."""
    samples, orders = hashlib.sha256(), hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            samples.update(name.encode() + np.ascontiguousarray(array).tobytes())
    for choice in task.choices:
        orders.update(choice.group.name.encode() + b"".join(part.tobytes() for part in choice.order))
    if task.merged_into is not None:
        orders.update(task.merged_into.tobytes())
    about = {"model": task.coupling.graph.digest, "samples": samples.hexdigest(), "orders": orders.hexdigest()}
    return {**about, "places": places}
