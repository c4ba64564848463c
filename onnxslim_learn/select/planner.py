"""From targets to a plan, and from a plan back to the removal it describes."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.coupling import selection
from onnxslim_learn.errors import InputError
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.plans.realize import describe
from onnxslim_learn.readers import AUTO
from onnxslim_learn.registry import CRITERIA, LATENCY
from onnxslim_learn.rewrite import merge
from onnxslim_learn.select import budget, criteria, kernel_widths
from onnxslim_learn.select.allocation import Chosen, choose
from onnxslim_learn.select.blocks import decide
from onnxslim_learn.select.bounds import bounds, named
from onnxslim_learn.select.ranking import Ranking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.residual import Block
    from onnxslim_learn.select.bounds import Target
    from onnxslim_learn.select.calibration import Calibration


def plan(  # noqa: PLR0913  everything a user may say about a plan
    analysis: Analysis,
    target: Target,
    *,
    criterion: str | Callable[..., Any] | None = None,
    multiple: int | str = 1,
    protect: Sequence[str] = (),
    only: Sequence[str] = (),
    keep: Mapping[str, float] | None = None,
    allow_empty: bool = False,
    drop_blocks: int | str | None = None,
    calibration: Calibration | None = None,
    allocation: str | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Plan:
    """Choose what to keep so that every target is met from below.

    Args:
        analysis: The model.
        target: Cost -> bound; at most 1 is a fraction of the original, more is absolute. A cost is ``macs``,
            ``params``, ``bytes`` (the size of the file), ``memory`` (the peak of activations, bytes), where the
            analysis has it ``latency`` (milliseconds), a function of a coupling, or ``module:function``.
        criterion: What scores the units of a group: see :func:`onnxslim_learn.select.criteria.rank`; by default ``obs``
            where there are samples, else ``energy``.
        multiple: Widths are multiples of this where the group is wide enough; ``auto`` for the steps of this machine's
            kernels (:func:`onnxslim_learn.select.kernel_widths.on_kernels`).
        protect: Regular expressions; groups of which they find anything (role, module, nodes, tensors) stay whole.
        only: Regular expressions; all groups but those that they name, or that lie in modules they find, stay whole.
        keep: Regular expression -> share of its units that a group at least keeps of which it finds anything.
        allow_empty: Whether a whole branch may go; otherwise one unit of every group stays.
        drop_blocks: How many residual blocks go as a whole, ``auto`` for as many as turn out best beside widths;
            by default none, unless ``only`` names ``blocks``.
        calibration: Samples to score units on and to measure what each group's width is worth.
        allocation: See :func:`onnxslim_learn.select.allocation.choose`.
        progress: Called with the share done.

    Raises:
        InputError: If an argument does not fit.
        TargetError: If a target cannot be met.
    """
    target, groups = named(analysis, target), analysis.free_groups(protect, only)
    asked, freedom = _asked(analysis, target, groups, multiple, keep or {}, empty=allow_empty)
    criterion = criterion or criteria.usual(calibration)
    ranking = criteria.rank(analysis, groups, criterion, calibration)

    def make(blocks: Sequence[Block]) -> budget.Search:
        return _decidable(analysis, groups, ranking, _beside(asked, blocks), freedom)

    drop_blocks = _number(drop_blocks, only)
    able = analysis.free_blocks(protect, only) if drop_blocks else []
    if able:
        _reachable(make(able))
    decided = decide(make, able, drop_blocks, calibration, progress)
    task = make(decided.blocks)
    chosen = choose(task, ranking.scores, calibration, progress, allocation)
    provenance: dict[str, Any] = {"criterion": CRITERIA.row(criterion).name, "target": target, "multiple": multiple}
    provenance |= {"protect": list(protect), "allow_empty": allow_empty}
    provenance |= {"only": list(only)} if only else {}
    provenance |= {"keep": dict(keep)} if keep else {}
    if drop_blocks:
        losses = dict(zip([block.name for block in decided.blocks], decided.losses, strict=True))
        provenance["blocks"] = {"number": drop_blocks, "losses": losses, "trials": decided.trials}
    return describe(analysis, chosen.removal, provenance | _found(task, ranking, chosen, calibration))


def _found(task: budget.Search, ranking: Ranking, chosen: Chosen, calibration: Calibration | None) -> dict[str, Any]:
    """What a plan tells of how its widths were found."""
    told: dict[str, Any] = {"allocation": chosen.allocation, "trials": chosen.trials}
    if ranking.merged_into is not None:
        cuttable = {choice.group.name for choice in task.choices}
        told["dropped"] = {name: why for name, why in ranking.refused.items() if name in cuttable}
    if calibration is not None:
        told |= {"data": calibration.source.name, "work": chosen.spent and asdict(chosen.spent)}
        told["curves"] = {name: {str(k): v for k, v in lost.items()} for name, lost in chosen.curves.items()}
        told["measured"] = [name for name in chosen.curves if name in calibration.curves.points]
    return told


def check(
    analysis: Analysis,
    target: Target,
    *,
    multiple: int | str = 1,
    protect: Sequence[str] = (),
    only: Sequence[str] = (),
    keep: Mapping[str, float] | None = None,
    allow_empty: bool = False,
    drop_blocks: int | str | None = None,
) -> None:
    """Refuse a target that the narrowest widths miss, before there are samples; see :func:`plan`.

    Raises:
        InputError: If an argument does not fit.
        TargetError: If the target cannot be met.
    """
    groups = analysis.free_groups(protect, only)
    asked, freedom = _asked(analysis, named(analysis, target), groups, multiple, keep or {}, empty=allow_empty)
    if _number(drop_blocks, only):
        asked = _beside(asked, analysis.free_blocks(protect, only))
    _reachable(_decidable(analysis, groups, Ranking(np.zeros(analysis.coupling.columns)), asked, freedom))


def _reachable(task: budget.Search) -> None:
    """Raise where even the narrowest widths miss a bound."""
    if not task.fits(task.at(0.0)) and not task.fits(task.at(1.0)):
        raise task.unreachable()


def _number(drop_blocks: int | str | None, only: Sequence[str]) -> int | str:
    """How many residual blocks go: as many as turn out best where only they are meant and nothing else is said."""
    if drop_blocks is None:
        return AUTO if selection.BLOCKS in only else 0
    if drop_blocks != AUTO and not (isinstance(drop_blocks, int) and drop_blocks >= 0):
        raise InputError(f"⟨drop_blocks⟩ {drop_blocks}: expected a number, or auto. Use 0 to keep all blocks.")
    return drop_blocks


def _beside(asked: budget.Search, blocks: Sequence[Block]) -> budget.Search:
    """The same search where some residual blocks go."""
    return replace(asked, dropped=tuple(map(asked.coupling.column_of, blocks)))


def _asked(
    analysis: Analysis,
    target: Mapping[str, Bound],
    groups: Sequence[Group],
    multiple: int | str,
    keep: Mapping[str, float],
    *,
    empty: bool,
) -> tuple[budget.Search, budget.Freedom]:
    """A search without choices, and how far it may go."""
    if multiple != AUTO and not (isinstance(multiple, int) and multiple > 0):
        raise InputError(f"⟨multiple⟩ {multiple}: expected a positive number, or auto. Use 1 for any width.")
    least = selection.shares(groups, analysis.titles, keep)
    search = budget.Search(analysis.coupling, (), bounds(analysis, target), target, empty)
    turned = frozenset(name.rpartition("|")[0] for name in analysis.bases)
    return search, budget.Freedom(multiple, empty=empty, least=least, turned=turned)


def _decidable(
    analysis: Analysis, groups: Sequence[Group], ranking: Ranking, asked: budget.Search, freedom: budget.Freedom
) -> budget.Search:
    """A search with what can be decided; rows are cut into only where the bounds cannot be met otherwise."""
    coupling, without = analysis.coupling, asked.removal(()).without
    groups = [group for group in groups if not group.lies_in(without)]
    timed = analysis.latency if LATENCY in asked.bounds else None
    for cells in (False, True):
        choices = budget.choices(coupling, groups, ranking.scores, replace(freedom, cells=cells))
        cut = [choice.group for choice in choices]
        merged_into = None if ranking.merged_into is None else merge.by_class(coupling, cut, ranking.merged_into)
        task = replace(asked, choices=choices, merged_into=merged_into)
        task = kernel_widths.narrowed(task, freedom.multiple, timed, below=timed is not None and timed.below)
        if task.fits(task.at(0.0)):
            break
    return task
