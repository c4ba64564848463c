"""Widths that somebody chooses by hand: which units stay then, and what every group loses at each of its widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxslim_learn.errors import PlanError
from onnxslim_learn.plans.realize import describe
from onnxslim_learn.registry import CRITERIA, MACS
from onnxslim_learn.select import budget, criteria
from onnxslim_learn.select.allocation import curve_points, losses
from onnxslim_learn.select.bounds import bounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Progress
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.select.calibration import Calibration

HALF = {MACS: 0.5}  # what is measured first are the groups that matter most for this


@dataclass(frozen=True)
class ByHand:
    """A model whose widths somebody chooses.

    Attributes:
        analysis: The model.
        search: Its groups, rows and what lies in them alike, with the order in which their units go.
        criterion: What ranks them.
        curves: Group -> units that stay -> loss by itself, after repair; empty where nothing tells.
        measured: Groups whose losses were measured; those of the others are predicted.
    """

    analysis: Analysis
    search: budget.Search
    criterion: str
    curves: Mapping[str, Mapping[int, float]]
    measured: frozenset[str] = frozenset()

    def plan(self, widths: Mapping[str, int]) -> Plan:
        """The plan that keeps so many units of groups, the best by the criterion, and all of those not named.

        Raises:
            PlanError: If a group is unknown, cannot have that width, or widths do not combine.
        """
        choices = {choice.group.name: choice for choice in self.search.choices}
        for name, width in widths.items():
            if name not in choices:
                raise PlanError(f"{name}: is no group that can be cut. Choose one that analyze lists.")
            if width not in choices[name].kept:
                allowed = choices[name].kept
                nearest = min(allowed, key=lambda one: abs(one - width))
                raise PlanError(f"{name}: cannot keep {width} of its {allowed[-1]} units. Keep {nearest}.")
        cut = self.search.removal([widths.get(name, choice.group.width) for name, choice in choices.items()])
        if faults := self.search.faults(cut):
            raise PlanError(f"{faults[0]}. Keep that group whole.")
        return describe(self.analysis, cut, {"criterion": self.criterion, "target": {}, "multiple": 1})


def by_hand(
    analysis: Analysis,
    criterion: str | None = None,
    calibration: Calibration | None = None,
    progress: Progress = lambda share: None,
) -> ByHand:
    """Rank the units of every group that can be cut, and find out what its widths lose.

    Args:
        analysis: The model.
        criterion: What ranks units: see :func:`onnxslim_learn.select.planner.plan`.
        calibration: Samples to rank by, and to find losses on with the work that it allows.
        progress: Called with the share done.

    Raises:
        InputError: If the criterion does not fit.
    """
    criterion = criterion or criteria.usual(calibration)
    scores = criteria.rank(analysis, analysis.groups, criterion, calibration).scores
    choices = budget.choices(analysis.coupling, analysis.groups, scores, budget.Freedom(cells=True))
    target = HALF if analysis.price(analysis.whole)[MACS] else {}
    search = budget.Search(analysis.coupling, choices, bounds(analysis, target), target)
    curves, measured = dict[str, dict[int, float]](), frozenset[str]()
    if choices and calibration is not None and 0 not in (calibration.work, calibration.seconds):
        _, lost = losses(search, scores, calibration, progress)
        curves = curve_points(choices, lost)
        measured = frozenset(calibration.curves.points)
    return ByHand(analysis, search, CRITERIA.row(criterion).name, curves, measured)
