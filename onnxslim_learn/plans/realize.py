"""From a removal to a plan, and from a plan to the removal it describes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.coupling.relations import over
from onnxslim_learn.coupling.removal import Removal, removal
from onnxslim_learn.errors import PlanError
from onnxslim_learn.plans.plan import BASES, Plan, digest
from onnxslim_learn.rewrite import merge
from onnxslim_learn.rewrite.merge import inherited
from onnxslim_learn.rewrite.slim import cut as cut_array
from onnxslim_learn.rewrite.slim import kept_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Labels, Mask
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.relations import Digit, Value


def describe(analysis: Analysis, cut: Removal, about: Mapping[str, Any]) -> Plan:
    """Write a removal down as a plan."""
    coupling = analysis.coupling
    whole = np.ones(coupling.columns, bool)
    whole[coupling.column[~cut.gone]] = False
    kept, widths, merged = {}, {}, dict[str, list[list[int]]]()
    for group in analysis.groups:
        gone = whole[group.units]
        if gone.any() and not group.lies_in(cut.without):
            kept[group.name] = np.flatnonzero(~gone).tolist()
            widths[group.name] = group.width
            clusters = _clusters(cut, group)
            merged |= {group.name: clusters} if clusters else {}
    provenance = {
        "source": str(analysis.graph.source.name) if analysis.graph.source else "",
        "sha256": analysis.graph.digest,
        **about,
        **({BASES: {"sha256": digest(analysis.bases)}} if analysis.bases else {}),
        "allow_sensitive": analysis.sensitive,
        "before": analysis.price(analysis.whole),
        "after": analysis.price(cut),
    }
    dropped = tuple(block.name for block in cut.dropped)
    return Plan(kept, widths, _tensors(cut), provenance, merged, dropped, analysis.bases)


def _clusters(cut: Removal, group: Group) -> list[list[int]]:
    """The units of a group that are merged, one list for each that stays, which comes first; none by way of rows."""
    if cut.merged_into is None:
        return []
    coupling, standing = cut.coupling, np.arange(cut.coupling.size)
    moved = cut.merged_into != standing
    moved &= (coupling.membership @ (moved & coupling.is_row).astype(np.int32)) == 0
    place = np.full(coupling.columns, -1)
    place[group.units] = np.arange(group.width)
    clusters: dict[int, set[int]] = {}
    for unit, kept in zip(place[coupling.column[moved]], place[coupling.column[cut.merged_into[moved]]], strict=True):
        if unit >= 0:
            clusters.setdefault(int(kept), set()).add(int(unit))
    return [[kept, *sorted(clusters[kept])] for kept in sorted(clusters)]


def _tensors(cut: Removal) -> dict[str, dict[str, list[Any]]]:
    positions, without = {}, cut.without
    for name in cut.coupling.graph.initializers:
        if name in cut.coupling.values and name not in without:
            axes = kept_positions(cut, name)
            if axes:
                positions[name] = {str(axis): kept for axis, kept in axes.items()}
    return positions


def check_source(analysis: Analysis, chosen: Plan, *, other: bool) -> tuple[str, ...]:
    """Refuse a plan that was made for another file; returns what is to be told where it does not say for which.

    Args:
        analysis: The model.
        chosen: The plan.
        other: Whether it may be of another file.

    Raises:
        PlanError: If it is, and may not.
    """
    told = chosen.provenance.get("sha256")
    if told is None:
        return (f"{chosen.where}: does not say for which file it was made.",)
    if told != analysis.graph.digest and not other:
        source, here = chosen.provenance.get("source") or "unnamed", analysis.graph.source or "this model"
        raise PlanError(
            f"{chosen.where}: was made for another file ({source}), and not for {here} as it is now. Give that one, or "
            f"⟨other_model⟩ if it is meant so."
        )
    return ()


def realize(analysis: Analysis, chosen: Plan) -> Removal:
    """The removal that a plan describes, checked against the model.

    Raises:
        PlanError: If the plan does not fit the model, was edited inconsistently, or breaks a constraint.
    """
    try:
        return _realize(analysis, chosen)
    except PlanError as error:
        provenance, said = chosen.provenance, f"{chosen.where}: {error.message}"
        if provenance.get("sha256") not in (None, analysis.graph.digest):
            said += f" The plan was made for another file ({provenance.get('source', 'unnamed')})."
        raise PlanError(said) from error


def composed(first: Removal, second: Removal) -> Removal:
    """One removal for two, the second of which is of what the first leaves.

    What stays of the first model is read off the initializers that both have; its rows go that nothing is left of.

    Raises:
        PlanError: If a column that goes is on none of them, or both together break a constraint.
    """
    here, after = first.coupling, second.coupling
    lost = np.ones(after.columns, bool)
    lost[after.column[~second.gone | after.is_row | after.on_parameters]] = False  # rows go with their cells
    if lost.any():
        raise PlanError("plan: units go that lie on no initializer of the model. Use ⟨stages⟩ 1.")
    went, stays = _seen(first, second)
    went[here.emptied(first.gone | went)] = True
    stays |= here.is_row & ~first.gone & ~went
    gone = np.ones(here.columns, bool)
    gone[here.column[~first.gone]] = False
    gone[here.column[went]] = True
    gone[here.column[stays]] = False
    try:
        both = removal(here, np.flatnonzero(gone).tolist(), empty=True)
    except PlanError as error:
        told = error.message.removesuffix(" Choose other positions.")
        raise PlanError(f"plan: two cuts of this model are not one ({told}). Use ⟨stages⟩ 1.") from error
    if name := _unlike(first, second, both):
        raise PlanError(f"plan: two cuts of this model are not one ({name} would keep others). Use ⟨stages⟩ 1.")
    return both


def _unlike(first: Removal, second: Removal, both: Removal) -> str:
    """The first initializer of which one removal keeps other numbers than two in turn; empty if there is none."""
    for name, after in second.coupling.values.items():
        before = first.coupling.values.get(name)
        if before is None or name not in second.coupling.graph.initializers:
            continue
        places = np.arange(math.prod(before.shape)).reshape(before.shape)
        left = cut_array(places, before, first)
        if left.shape == after.shape and not np.array_equal(
            cut_array(left, after, second), cut_array(places, before, both)
        ):
            return name
    return ""


def _seen(first: Removal, second: Removal) -> tuple[Mask, Mask]:
    """Which classes of the model a second removal takes from all initializers, and which it leaves on some."""
    before, after = np.zeros(first.coupling.size, bool), np.zeros(first.coupling.size, bool)
    for name in second.coupling.graph.initializers:
        sides = [one.coupling.values.get(name) for one in (first, second)]
        if sides[0] is None or sides[1] is None:
            continue
        for digit in sides[0].digits.values():
            if digit.labels is None:
                continue
            left = cut_array(_classes(first, sides[0], digit), sides[0], first)
            if left.shape == sides[1].shape:
                before[left[left >= 0]] = True
                kept = cut_array(left, sides[1], second)
                after[kept[kept >= 0]] = True
    return before & ~after, after


def _classes(of: Removal, layout: Value, digit: Digit) -> Labels:
    """The class of every element of a value by one of its digits, in its shape; -1 where there is none."""
    keys, sizes = list(layout.digits), {key: one.size for key, one in layout.digits.items()}
    labels = digit.labels
    assert labels is not None
    classes = np.where(labels > 0, of.coupling.strong[labels], -1)
    spread = over(classes, (*digit.deps, digit.key), keys, sizes)
    result: Labels = np.broadcast_to(spread, [sizes[key] for key in keys]).reshape(layout.shape)
    return result


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
    columns += [analysis.coupling.column_of(analysis.block(name)) for name in chosen.blocks]
    cut = removal(analysis.coupling, columns, empty=bool(chosen.provenance.get("allow_empty")))
    if chosen.merged:
        cut = replace(cut, merged_into=_merging(analysis, chosen, cut))
    if chosen.tensors:
        derived = _tensors(cut)
        for name in sorted({*derived, *chosen.tensors}):
            if derived.get(name) != chosen.tensors.get(name):
                raise PlanError(
                    f"tensor {name}: 'tensors' and 'groups' of the plan disagree. Drop 'tensors' or correct it."
                )
    return cut


def _merging(analysis: Analysis, chosen: Plan, cut: Removal) -> Labels:
    """For every class the one that stands for it, as a plan says."""
    coupling, merged_into, groups = analysis.coupling, {}, []
    for name, clusters in chosen.merged.items():
        group = analysis.group(name)
        standing, kept = np.arange(group.width), set(chosen.groups.get(name, range(group.width)))
        for first, *others in clusters:
            stratum = next((set(part.tolist()) for part in group.strata if first in part), set())
            if first not in kept or not {*others} <= stratum - kept:
                raise PlanError(
                    f"group {name}: 'merged' must list a kept unit, then removed ones that it stands for, but found "
                    f"{[first, *others]}. Write it with slim."
                )
            standing[others] = first
        reason = merge.refusal(coupling, group)
        if reason:
            raise PlanError(f"group {name}: units of it cannot be merged, because {reason}. Leave it out of 'merged'.")
        merged_into[name] = standing
        groups.append(group)
    return inherited(merge.by_class(coupling, groups, merged_into), cut.gone)
