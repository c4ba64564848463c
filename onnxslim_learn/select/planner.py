"""From targets to a plan, and from a plan back to the removal it describes."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from onnxslim_learn.coupling.groups import protected
from onnxslim_learn.errors import InputError
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.plans.realize import describe
from onnxslim_learn.rewrite import merge
from onnxslim_learn.select import budget, folding, kernel_widths, weight_criteria
from onnxslim_learn.select.allocation import choose
from onnxslim_learn.select.bounds import bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Array
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.select.calibration import Evidence


def plan(
    analysis: Analysis,
    target: Mapping[str, float],
    *,
    criterion: str | None = None,
    multiple: int = 1,
    protect: Sequence[str] = (),
    allow_empty: bool = False,
    evidence: Evidence | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Plan:
    """Choose what to keep so that every target is met from below.

    Args:
        analysis: The model.
        target: ``macs``, ``params``, ``bytes``, ``memory`` or, where the analysis has it, ``latency`` -> bound; at most
            1 is a fraction of the original, more is absolute. ``bytes`` is the size of the file, ``memory`` the peak of
            activations in bytes, ``latency`` in microseconds.
        criterion: What scores the units of a group; by default ``obs`` where there are samples, else ``energy``.
        multiple: Widths are multiples of this where the group is wide enough.
        protect: Regular expressions; groups they find stay whole.
        allow_empty: Whether a whole branch may go; otherwise one unit of every group stays.
        evidence: Samples to score units on and to measure what each group's width is worth.
        progress: Called with the share done.

    Raises:
        InputError: If an argument does not fit.
        TargetError: If a target cannot be met.
    """
    if multiple < 1:
        raise InputError(f"--multiple {multiple}: expected a positive number. Use 1 for any width.")
    limits = bounds(analysis, target)
    groups = protected(analysis.groups, protect)
    criterion = criterion or ("energy" if evidence is None else "obs")
    merging = folding.clusters(analysis.coupling, groups) if criterion == weight_criteria.FOLDING else None
    scores = merging.scores if merging else _scores(analysis, groups, criterion, evidence)
    timed = analysis.latency if "latency" in target else None
    for cells in (False, True):
        choices = budget.choices(analysis.coupling, groups, scores, budget.Freedom(multiple, cells, allow_empty))
        heirs = merge.by_class(analysis.coupling, [c.group for c in choices], merging.heirs) if merging else None
        task = budget.Search(analysis.coupling, choices, limits, dict(target), allow_empty, heirs)
        task = kernel_widths.on_steps(task, timed.device.steps, below=timed.below) if timed else task
        if task.fits(task.at(0.0)):
            break
    found = choose(task, evidence, progress)
    made = {"criterion": criterion, "target": dict(target), "multiple": multiple, "protect": list(protect)}
    made |= {"allow_empty": allow_empty, "allocation": found.allocation, "trials": found.trials}
    if merging:
        decided = {choice.group.name for choice in choices}
        made["dropped"] = {name: why for name, why in merging.refused.items() if name in decided}
    if evidence is not None:
        made |= {"data": evidence.source.name, "sensitivity_seconds": evidence.seconds}
        made["curves"] = {name: {str(k): v for k, v in own.items()} for name, own in evidence.curves.points.items()}
    return describe(analysis, found.removal, made)


def _scores(analysis: Analysis, groups: Sequence[Group], criterion: str, evidence: Evidence | None) -> Array:
    """The score of every column; with samples it is kept beside them, since one model is often planned for again."""
    known = {} if evidence is None else evidence.scored
    key = (criterion, *(group.name for group in groups if group.pin is None))
    if key not in known:
        labelled = criterion in weight_criteria.LABELLED
        known[key] = (
            _labelled(analysis, groups, criterion, evidence)
            if labelled
            else weight_criteria.scores(analysis.coupling, groups, criterion, evidence)
        )
    return known[key]


def _labelled(analysis: Analysis, groups: Sequence[Group], criterion: str, evidence: Evidence | None) -> Array:
    """Scores that take gradients of a loss."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"--criterion {criterion}: needs torch. Install onnxslim-learn[train].")
    if evidence is None:
        raise InputError(f"--criterion {criterion}: needs samples with labels. Give --data, or another criterion.")
    from onnxslim_learn.train import gradient_criteria as labelled

    return labelled.scores(analysis, groups, criterion, evidence)
