"""What every unit is worth: what is lost when it goes after all of its group that matter less.

Units of a group go in the order of the usual criterion, and what is lost at every width, after all layers behind are
refitted, is computed and measured as ``slim`` does to choose widths (:mod:`onnxslim_learn.select.allocation`). A unit
is worth what that curve rises by when it goes. The curve is made convex first, since learning takes the units of least
worth for their cost, as a greedy choice does. It rises ever more as a group gets narrow: no group needs a limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import isotonic_regression

from onnxslim_learn.array_types import Array
from onnxslim_learn.select import criteria
from onnxslim_learn.select.allocation import losses

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Progress
    from onnxslim_learn.learners.morphnet.structure import Structure
    from onnxslim_learn.select.budget import Choice
    from onnxslim_learn.select.calibration import Calibration

LEAST = 1e-15  # of the mean: what nothing is lost by still has a worth
ORDER = 1e-3  # share of its worth by which the first unit of a group is ahead of the last, where curves are straight


def unit_losses(space: Structure, calibration: Calibration, progress: Progress) -> Array | None:
    """What all units are worth, one on average, ``(units,)``; ``None`` where the model is too large for the usual work.

    Args:
        space: Whose units, and the bounds to be met.
        calibration: Samples.
        progress: Called with the share done.
    """
    criterion = criteria.usual(calibration)
    scores = criteria.rank(space.analysis, space.groups, criterion, calibration).scores
    task = space.ordered(np.concatenate([scores[group.units] for group in space.groups]))
    _, curves = losses(task, scores, calibration, progress)
    if not curves:
        return None
    units = np.concatenate([_rises(choice, curve) for choice, curve in zip(task.choices, curves, strict=True)])
    mean = max(float(units.mean()), np.finfo(float).tiny)
    result: Array = np.maximum(units / mean, LEAST)
    return result


def _rises(choice: Choice, curve: Array) -> Array:
    """What a convex curve rises by with every unit of a choice, in the group's order; the last is ahead of all."""
    kept = np.array(choice.kept, float)
    spans = np.diff(kept)
    slopes = isotonic_regression(-np.diff(curve) / spans, weights=spans, increasing=False).x
    rises = np.zeros(choice.group.width)
    for part in choice.order:
        share = np.arange(len(part)) / len(part)
        goes_below = np.searchsorted(kept / choice.group.width, share, side="right") - 1
        rises[part] = slopes[np.clip(goes_below, 0, len(slopes) - 1)] * (1 + ORDER * (1 - share))
    return rises
