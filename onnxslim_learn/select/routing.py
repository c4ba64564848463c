"""What samples say of experts: how often a router chooses each of them; and what is known where they say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.runtime.executor import Runner
from onnxslim_learn.select.criteria import rows_by_cells
from onnxslim_learn.select.weight_criteria import energies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.records import Contest
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.calibration import Calibration


def completed(analysis: Analysis, groups: Sequence[Group], scores: Array, samples: Calibration) -> Array:
    """Scores by column, by weights where samples say nothing, and of experts in proportion to how often each is chosen.

    Units inside a node (hidden ones of its experts), and of weights that are picked for each token, are such that no
    input of a contraction tells.
    """
    coupling = analysis.coupling
    silent = [group for group in groups if group.pin is None and not scores[group.units].any()]
    if silent:
        by_weights = rows_by_cells(coupling, energies(coupling))
        for group in silent:
            scores[group.units] = by_weights[group.units]
    if any(group.competes and group.pin is None for group in groups):
        scores = scores * chosen(coupling, samples.feeds)
    return scores


def chosen(coupling: Coupling, feeds: Sequence[Mapping[str, Array]]) -> Array:
    """How often each column is among the largest where it competes, as a multiple of the mean; 1 where it does not."""
    use = np.ones(coupling.columns)
    contests = [c for c in coupling.records.contests if _labels(c).ndim == 1]
    sources = [str(coupling.nodes[c.node].inputs[c.slot].name) for c in contests]  # type: ignore[union-attr]
    runner = Runner(coupling.graph.model, feeds, set(sources))
    for number, (contest, name) in enumerate(zip(contests, sources, strict=True)):
        runner.run_past(name)
        (axis,), labels = contest.axes, _labels(contest)
        times = np.zeros(len(labels))
        for array in runner.get(name):
            rows = np.moveaxis(array, axis, -1).reshape(-1, len(labels))
            times += np.bincount(
                np.argsort(-rows, axis=1, kind="stable")[:, : contest.least].reshape(-1), None, len(labels)
            )
        columns = coupling.column[coupling.strong[labels]]
        totals = np.bincount(columns, times, coupling.columns)
        use[columns] = totals[columns] / max(totals[np.unique(columns)].mean(), 1e-30)
        if name not in sources[number + 1 :]:
            runner.drop(name)
    return use


def _labels(contest: Contest) -> Array:
    (digit,) = (digit for axis in contest.axes for digit in contest.value.axes[axis])
    assert digit.labels is not None
    return digit.labels
