"""What decides which units go: criteria by name, what they are given, and what they may answer.

A criterion is a function of an analysis, the groups to rank, and samples or ``None``
(:class:`~onnxslim_learn.select.calibration.Calibration`). It answers with one score per column, of which the lowest of
a group go first, or with a :class:`Ranking` where units are merged. Rows (heads, groups of a convolution) may be left
NaN: they get the sum of their cells' scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import CRITERIA
from onnxslim_learn.rewrite import stretches
from onnxslim_learn.select.ranking import Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.registry import CriterionRow
    from onnxslim_learn.select.calibration import Calibration


def usual(calibration: Calibration | None) -> str:
    """The criterion that is used where none is named; units of large models are scored by weights."""
    told = calibration is not None and stretches.weight_bytes(calibration.coupling) <= stretches.LARGEST
    return next(row.name for row in CRITERIA.values() if row.usual and row.samples == told)


def rank(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: str | Callable[..., Any],
    calibration: Calibration | None = None,
) -> Ranking:
    """Rank units; with samples the answer is kept beside them, since one model is often planned for again.

    Args:
        analysis: The model.
        groups: Its groups.
        criterion: A name, a function, or ``module:function``: see :data:`onnxslim_learn.registry.CRITERIA`.
        calibration: The samples.

    Raises:
        InputError: If there is no such criterion, it lacks what it needs, or its answer cannot be used.
    """
    row = CRITERIA.row(criterion)
    known = {} if calibration is None else calibration.ranked
    key = (row, *(group.name for group in groups if group.pin is None))
    if key not in known:
        _check_needs(row, calibration)
        answer = CRITERIA.load(criterion)(analysis, groups, calibration)
        ranking = answer if isinstance(answer, Ranking) else Ranking(np.asarray(answer, np.float64))
        known[key] = _checked(row, analysis.coupling, groups, ranking)
        analysis.graph.release()
    return known[key]


def scores(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: str | Callable[..., Any],
    calibration: Calibration | None = None,
) -> Array:
    """One score per column; see :func:`rank`."""
    return rank(analysis, groups, criterion, calibration).scores


def _check_needs(row: CriterionRow, calibration: Calibration | None) -> None:
    """Refuse a criterion that lacks samples, or their labels."""
    if calibration is None and (row.samples or row.labels):
        what = "samples with labels" if row.labels else "samples"
        raise InputError(f"⟨criterion⟩ {row.name}: needs {what}. Give ⟨data⟩, or another criterion.")
    if calibration is not None and row.labels and any(labels is None for labels in calibration.labels):
        raise InputError(
            f"⟨criterion⟩ {row.name}: needs labels, and {calibration.source.name} has none. Choose another criterion."
        )


def _checked(row: CriterionRow, coupling: Coupling, groups: Sequence[Group], ranking: Ranking) -> Ranking:
    """A ranking whose scores are numbers wherever units can go."""
    scores = ranking.scores
    if scores.shape != (coupling.columns,):
        raise InputError(
            f"⟨criterion⟩ {row.name}: expected one score for each of {coupling.columns} columns, but got an array of "
            f"shape {scores.shape}. Correct it."
        )
    silent = np.isnan(scores)
    if silent.any():
        scores = np.where(silent, rows_by_cells(coupling, np.where(silent, 0.0, scores), missing=np.nan), scores)
    for group in groups:
        if group.pin is None and np.isnan(scores[group.units]).any():
            raise InputError(f"⟨criterion⟩ {row.name}: units of {group.name} have no score. Correct it.")
    return replace(ranking, scores=scores)


def rows_by_cells(coupling: Coupling, by_column: Array, *, missing: float | None = None) -> Array:
    """Give a column of rows (heads, convolution groups) the sum of its cells' scores.

    Args:
        coupling: The model.
        by_column: Scores of all columns.
        missing: What columns without rows get, or ``None`` for what they have.
    """
    rows = coupling.is_row
    cells = coupling.membership.T @ np.where(rows, 0.0, by_column[coupling.column])
    totals, columns = np.zeros(coupling.columns), np.zeros(coupling.columns, bool)
    np.add.at(totals, coupling.column[rows], cells[rows])
    columns[coupling.column[rows]] = True
    return np.where(columns, totals, by_column if missing is None else missing)
