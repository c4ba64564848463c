"""What is measured for so much work: which groups at which widths, on how many samples, and how many ways are tried.

Counted in multiply-accumulates (:mod:`onnxslim_learn.select.trial_cost`), so that a busy machine measures what an idle
one does. Where not all fits, samples are halved down to a few, then the groups that carry most of what is bounded come
first and the losses of the others are predicted, then fewer ways to weigh losses are tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.select.trial_cost import TrialCost

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Array, Feeds
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.budget import Choice, Search
    from onnxslim_learn.select.calibration import Calibration


WORK = 1.5e11  # multiply-accumulates where nothing else is said: some seconds
RUNS = 2  # or so many runs over all samples, if that is more; repair takes as much
SMALL = 4e11  # or as much as measuring every group takes, or else trying one way beside all alike, if no more than this
SURE = 128  # samples: where nothing is said, losses measured on fewer are not preferred to those that are predicted
CURVES = 0.5  # share of the work for curves of single groups
MOST, FEWEST = 448, 32  # samples to measure curves on
DISTURBED = (64, 32, 16, 8)  # samples to see on what errors inside do, where not all groups are measured
INFLUENCE = 0.25  # share of the work for that, at most
SHARES = (1 / 2, 1 / 4, 3 / 4, 1 / 8, 3 / 8, 7 / 8, 1 / 16)  # of a group's units that stay, in the order measured
ROWS = 8192  # of each regression on all samples, those held back included


@dataclass(frozen=True)
class Portion:
    """Samples that something is tried on.

    Attributes:
        feeds: Their inputs, in batches.
        labels: Their labels.
        rows: Rows of each regression that come from one batch.
    """

    feeds: Sequence[Mapping[str, Any]]
    labels: Sequence[Any]
    rows: int

    def trials(self, cost: TrialCost) -> Array:
        """Multiply-accumulates of a trial on them of what changes the model from each node on, ``(nodes + 1,)``."""
        return cost.trials(self.feeds, self.rows * len(self.feeds))


@dataclass(frozen=True)
class Schedule:
    """What is measured.

    Attributes:
        disturbed: The samples that values are disturbed on, to predict what groups lose that are not measured.
        curves: The samples that groups are measured on.
        points: Group and number of units kept, in the order measured.
        trials: The samples that allocations are tried on.
        ways: How many ways to weigh losses are tried beside all groups alike; 0 where the work is too little for any.
        work: Multiply-accumulates that were allowed.
        all_measured: What would have to be allowed to measure every group.
    """

    disturbed: Sequence[Feeds]
    curves: Portion
    points: Sequence[tuple[Choice, int]]
    trials: Portion
    ways: int
    work: float
    all_measured: float


def schedule(task: Search, calibration: Calibration, most_ways: int) -> Schedule:
    """Decide what is measured.

    Args:
        task: The groups, and what is bounded.
        calibration: The samples, and the work that is allowed.
        most_ways: How many ways there are to weigh losses.
    """
    cost, counts = TrialCost.of(task.coupling), _counts(calibration.count)
    portions = [_portion(calibration, count) for count in counts]
    prices, firsts = [one.trials(cost) for one in portions], [cost.first(_gone(task, one)) for one in task.choices]
    least = 2 * prices[-1][0]
    rounds = [cost.run(one.feeds) + price[firsts].sum() for one, price in zip(portions, prices, strict=True)]
    usual = calibration.work is None
    sure = min(SURE, calibration.count) if usual else 0
    few = [k for k, count in enumerate(counts) if sure <= count <= MOST]
    work = _usual(cost, calibration, rounds[few[-1]] / CURVES, least) if calibration.work is None else calibration.work
    disturbed: Sequence[Feeds] = ()
    measurable = rounds[few[-1]] <= min(CURVES * work, work - least)
    if not measurable:
        disturbed = _disturbed(cost, calibration, INFLUENCE * min(work, work - least))
    for_trials = work - (cost.influences(disturbed) if disturbed else 0.0)
    allowed = min(CURVES * for_trials, for_trials - least)
    at = next((k for k in few if rounds[k] <= allowed), few[-1])
    for_points = allowed - cost.run(portions[at].feeds) if measurable or not usual else 0.0
    points, spent = _points(task, prices[at][firsts].tolist(), for_points)
    left = for_trials - spent - (cost.run(portions[at].feeds) if points else 0.0)
    tried = next((k for k, price in enumerate(prices) if (1 + most_ways) * price[0] <= left), len(portions) - 1)
    ways = max(min(most_ways, int(left // prices[tried][0]) - 1), 0)
    all_measured = max(rounds[-1] / CURVES, rounds[-1] + least)
    return Schedule(disturbed, portions[at], points, portions[tried], ways, work, float(all_measured))


def _usual(cost: TrialCost, calibration: Calibration, *useful: float) -> float:
    """Multiply-accumulates where nothing is said, if so many are of use."""
    return max(WORK, RUNS * cost.run(calibration.feeds), *(work for work in useful if work <= SMALL))


def _disturbed(cost: TrialCost, calibration: Calibration, allowed: float) -> Sequence[Feeds]:
    """The first samples, as many as what is allowed does for."""
    portions = map(calibration.first, DISTURBED)  # nothing is held back, so that batches need not be small
    return next((feeds for feeds in portions if cost.influences(feeds) <= allowed), ())


def affordable(coupling: Coupling, calibration: Calibration, trials: int) -> Portion:
    """As many samples as so many trials of the whole model may be made on, but a few at least."""
    cost = TrialCost.of(coupling)
    work = calibration.work or _usual(cost, calibration)
    portions = [_portion(calibration, count) for count in _counts(calibration.count) if count <= MOST]
    return next((one for one in portions if trials * one.trials(cost)[0] <= work), portions[-1])


def _counts(samples: int) -> list[int]:
    """All samples, as many as curves are measured on at most, half of them, and so on down to a few."""
    counts = [samples] if samples > MOST else []
    count = min(samples, MOST)
    while count > FEWEST:
        counts.append(count)
        count //= 2
    return [*counts, min(samples, FEWEST)]


def _portion(calibration: Calibration, count: int) -> Portion:
    """The first samples, with their share of the rows of a regression."""
    feeds, labels = calibration.some(count)
    rows = ROWS * min(count / calibration.count, 1.0)
    return Portion(feeds, labels, int(-(-rows // len(feeds))))


def _gone(task: Search, choice: Choice) -> Array:
    """The classes of a choice."""
    columns = np.zeros(task.coupling.columns, bool)
    columns[choice.group.units] = True
    return task.coupling.close(columns)


def _points(task: Search, prices: Sequence[float], allowed: float) -> tuple[list[tuple[Choice, int]], float]:
    """The measurements that fit into some work, and what they take: a round over all groups for every share of units.

    The groups that carry most come first. After the first round, which may be all, they are in the order of the model,
    so that what comes before a cut is not run again.
    """
    whole = np.array(task.at(1.0))
    costliest = np.argsort(-task.prices(whole, task.bounds) * whole, kind="stable").tolist()
    points, spent, known = list[tuple["Choice", int]](), 0.0, set[tuple[int, int]]()
    for number, share in enumerate(SHARES):
        chosen = []
        for k in costliest:
            choice = task.choices[k]
            kept = min(choice.kept, key=lambda units: abs(units - share * choice.group.width))
            if kept < choice.group.width and (k, kept) not in known and spent + prices[k] <= allowed:
                known.add((k, kept))
                chosen.append((k, kept))
                spent += prices[k]
        points += [(task.choices[k], kept) for k, kept in (sorted(chosen) if number else chosen)]
    return points, spent
