"""From targets to a plan, and from a plan back to the removal it describes."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.coupling.solver import Removal, removal
from onnxslim_learn.errors import InputError, PlanError
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.merge import inherited
from onnxslim_learn.rewrite.slim import kept_positions
from onnxslim_learn.select import budget, folding, kernel_widths, weight_criteria
from onnxslim_learn.select.allocation import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.polynomial import Array, Priced
    from onnxslim_learn.coupling.relations import Labels
    from onnxslim_learn.coupling.solver import Group
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
    groups = budget.protected(analysis.groups, protect)
    criterion = criterion or ("energy" if evidence is None else "obs")
    merging = folding.clusters(analysis.coupling, groups) if criterion == weight_criteria.FOLDING else None
    scores = merging.scores if merging else _scores(analysis, groups, criterion, evidence)
    timed = analysis.latency if "latency" in target else None
    for cells in (False, True):
        choices = budget.choices(analysis.coupling, groups, scores, budget.Freedom(multiple, cells, allow_empty))
        heirs = folding.by_class(analysis.coupling, [c.group for c in choices], merging.heirs) if merging else None
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


def describe(analysis: Analysis, cut: Removal, made: Mapping[str, Any]) -> Plan:
    """Write a removal down as a plan."""
    coupling = analysis.coupling
    whole = np.ones(coupling.columns, bool)
    whole[coupling.column[~cut.gone]] = False
    kept, widths, merged = {}, {}, dict[str, list[list[int]]]()
    for group in analysis.groups:
        gone = whole[group.units]
        if gone.any():
            kept[group.name] = np.flatnonzero(~gone).tolist()
            widths[group.name] = group.width
            clusters = _clusters(cut, group)
            merged |= {group.name: clusters} if clusters else {}
    provenance = {
        "source": str(analysis.graph.source.name) if analysis.graph.source else "",
        "sha256": analysis.graph.digest,
        **made,
        "allow_sensitive": analysis.sensitive,
        "before": analysis.price(analysis.whole),
        "after": analysis.price(cut),
    }
    return Plan(kept, widths, _tensors(cut), provenance, merged)


def _clusters(cut: Removal, group: Group) -> list[list[int]]:
    """The units of a group that are merged, one list for each that stays, which comes first; none by way of rows."""
    if cut.heirs is None:
        return []
    coupling, own = cut.coupling, np.arange(cut.coupling.size)
    moved = cut.heirs != own
    moved &= (coupling.membership @ (moved & coupling.is_row).astype(np.int32)) == 0
    place = np.full(coupling.columns, -1)
    place[group.units] = np.arange(group.width)
    found: dict[int, set[int]] = {}
    for unit, kept in zip(place[coupling.column[moved]], place[coupling.column[cut.heirs[moved]]], strict=True):
        if unit >= 0:
            found.setdefault(int(kept), set()).add(int(unit))
    return [[kept, *sorted(found[kept])] for kept in sorted(found)]


def _tensors(cut: Removal) -> dict[str, dict[str, list[Any]]]:
    found = {}
    for name in cut.coupling.graph.initializers:
        if name in cut.coupling.values:
            axes = kept_positions(cut, name)
            if axes:
                found[name] = {str(axis): kept for axis, kept in axes.items()}
    return found


def realize(analysis: Analysis, chosen: Plan) -> Removal:
    """The removal that a plan describes, checked against the model.

    Raises:
        PlanError: If the plan does not fit the model, was edited inconsistently, or breaks a constraint.
    """
    try:
        return _realize(analysis, chosen)
    except PlanError as error:
        made = chosen.provenance
        if made.get("sha256") in (None, analysis.graph.digest):
            raise
        raise PlanError(f"{error} The plan was made for another file ({made.get('source', 'unnamed')}).") from error


def _realize(analysis: Analysis, chosen: Plan) -> Removal:
    columns: list[int] = []
    for name, kept in chosen.groups.items():
        group = analysis.group(name)
        if group.width != chosen.widths[name]:
            raise PlanError(
                f"group {name}: it has {group.width} units, but {chosen.widths[name]!r} in the plan. Use its model."
            )
        if any(not 0 <= k < group.width for k in kept) or len(set(kept)) != len(kept):
            raise PlanError(f"group {name}: kept indices must be distinct and below {group.width}, found {kept}.")
        columns += group.units[np.setdiff1d(np.arange(group.width), kept)].tolist()
    found = removal(analysis.coupling, columns, empty=bool(chosen.provenance.get("allow_empty")))
    if chosen.merged:
        found = replace(found, heirs=_merging(analysis, chosen, found))
    if chosen.tensors:
        derived = _tensors(found)
        for name in sorted({*derived, *chosen.tensors}):
            if derived.get(name) != chosen.tensors.get(name):
                raise PlanError(
                    f"tensor {name}: 'tensors' and 'groups' of the plan disagree. Drop 'tensors' or correct it."
                )
    return found


def _merging(analysis: Analysis, chosen: Plan, cut: Removal) -> Labels:
    """For every class the one that stands for it, as a plan says."""
    coupling, heirs, groups = analysis.coupling, {}, []
    for name, clusters in chosen.merged.items():
        group = analysis.group(name)
        own, kept = np.arange(group.width), set(chosen.groups.get(name, range(group.width)))
        for first, *others in clusters:
            stratum = next((set(part.tolist()) for part in group.strata if first in part), set())
            if first not in kept or not {*others} <= stratum - kept:
                raise PlanError(
                    f"group {name}: 'merged' must list a kept unit, then removed ones that it stands for, but found "
                    f"{[first, *others]}. Write it with slim."
                )
            own[others] = first
        reason = folding.refusal(coupling, group)
        if reason:
            raise PlanError(f"group {name}: units of it cannot be merged, because {reason}. Leave it out of 'merged'.")
        heirs[name] = own
        groups.append(group)
    return inherited(folding.by_class(coupling, groups, heirs), cut.gone)


def bounds(analysis: Analysis, target: Mapping[str, float]) -> dict[str, tuple[Priced, float]]:
    """Absolute bounds of cost targets; the bound on file bytes leaves room for everything but weights."""
    before = analysis.price(analysis.whole)
    known, found = analysis.bounded, {}
    for name, wish in target.items():
        if name not in known:
            also = "" if name != "latency" else " Latency needs a device: give one to analyze."
            raise InputError(f"--target {name}: expected {', '.join(known)}. Use one of them.{also}")
        if not wish > 0 or not np.isfinite(wish):
            raise InputError(
                f"--target {name}={wish}: expected a positive number. At most 1 is a fraction, more is absolute."
            )
        total: float = before[name] if name in before else known[name].value(np.ones(analysis.coupling.size))
        overhead = 0.0
        if name == "bytes" and analysis.graph.source is not None:
            total = save.size_on_disk(analysis.graph.source)
            overhead = max(total - before[name], 0)
        bound = wish * total if wish <= 1 else wish
        found[name] = (known[name], bound - overhead)
    return found
