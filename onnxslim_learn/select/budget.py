"""From cost targets to widths, and from scores to the units that stay.

Where it is known what every group loses at every width, :mod:`onnxslim_learn.select.knapsack` finds the widths. Else
all groups are narrowed by one fraction, the largest that meets every bound, and what is left of the budget is given
back unit by unit, so that no single step more would fit.

Scores rank units within a group; they do not share the budget among groups. Widths of least total score against what
units cost, with scores as they are, standardised per group, or per class of isomorphic groups, were measured at half
the MACs (% on Fashion-MNIST, none under half of its uniform width, single runs). ResNet-20 with ``folding`` and no
repair: 76 for uniform widths, against 78, 17 and 16; with folded normalisations 50, against 30, 16 and 36. The latter
with ``energy`` and repair on made-up inputs: 82, against 88, 79 and 81; with scores as they are, also 85 to 88 where
normalisations are not folded, but 79 to 78 on a MobileNet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array, Labels, Mask
from onnxslim_learn.costs.polynomial import Cost
from onnxslim_learn.costs.targets import shown
from onnxslim_learn.coupling.branches import foresee
from onnxslim_learn.coupling.constraints import incidence
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import TargetError
from onnxslim_learn.registry import COSTS, LATENCY
from onnxslim_learn.rewrite.merge import inherited

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from onnxslim_learn.costs.polynomial import Priced
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling


ROWS_SUFFICE = 4  # with at least this many rows (heads, convolution groups), whole rows go and not cells of each
Widths = Sequence[int] | Labels  # one per choice
RECENT = 2  # widths of which it is kept what stays: those that were tried, and those before
ROUNDING = 1e-7  # of a bound: what is nearer than that is tried
SMALL = 1000  # an absolute bound below this is likely meant as a fraction


@dataclass(frozen=True)
class Choice:
    """One group as the budget sees it.

    Attributes:
        group: The group.
        order: Its units, in every stratum the most important first: what stays at ``k`` is a prefix of every stratum.
        kept: Allowed numbers of units to keep, ascending; the last is all of them.
        curve: What is lost at each of them, the last 0, or ``None`` if all groups are to be narrowed alike.
    """

    group: Group
    order: tuple[Array, ...]
    kept: tuple[int, ...]
    curve: Array | None = None

    @property
    def places(self) -> Array:
        """Every unit's column, place in the order of its stratum, and size of that; shape ``(units, 3)``."""
        parts = [np.column_stack([self.group.units[p], np.arange(len(p)), np.full(len(p), len(p))]) for p in self.order]
        return np.concatenate(parts)


@dataclass(frozen=True)
class Freedom:
    """How far a budget may go.

    Attributes:
        multiple: Kept positions on a group's parameter axis are a multiple of this, where it is long enough; ``auto``
            is for :mod:`onnxslim_learn.select.kernel_widths`, and any number here.
        cells: Whether to cut inside rows that could go as a whole, too.
        empty: Whether whole branches may go.
        least: Group -> share of its units that it keeps at least.
        turned: Groups of cells in principal directions: these go, and rows stay whole.
    """

    multiple: int | str = 1
    cells: bool = False
    empty: bool = False
    least: Mapping[str, float] = field(default_factory=dict)
    turned: frozenset[str] = frozenset()


def choices(coupling: Coupling, groups: Sequence[Group], scores: Array, freedom: Freedom) -> list[Choice]:
    """What can be decided, with the allowed widths.

    Args:
        coupling: The coupling.
        groups: Its groups, pinned where they cannot go.
        scores: One number per column; low goes first.
        freedom: How far it may go.
    """
    free = [group for group in groups if group.pin is None]
    shadowed = set() if freedom.cells else _shadowed(coupling, free, freedom.turned)
    beside = _beside(coupling, free)
    decidable_choices = []
    multiple = 1 if isinstance(freedom.multiple, str) else freedom.multiple
    for group in free:
        if group.name in shadowed:
            continue
        order = tuple(part[np.argsort(-scores[group.units[part]], kind="stable")] for part in group.strata)
        step = group.width // group.levels
        each = span(coupling, group)
        apart = freedom.cells or group.name in beside
        if apart and not group.rows:  # rows may go too: what stays of each must be a multiple by itself
            kept = [k for k in range(step, group.width, step) if k // len(group.strata) % multiple == 0]
        else:
            kept = [k for k in range(step, group.width, step) if k * each % multiple == 0]
        if freedom.empty and _can_vanish(coupling, group):
            kept = [0, *kept]
        least = freedom.least.get(group.name, 0.0) * group.width - 1e-9
        kept = [k for k in kept if k >= least and (k >= group.floor or not k)]
        decidable_choices.append(Choice(group, order, (*kept, group.width)))
    return decidable_choices


def _can_vanish(coupling: Coupling, group: Group) -> bool:
    """Whether a group can go as a whole and leave a graph that still computes something."""
    columns = np.zeros(coupling.columns, bool)
    columns[group.units] = True
    gone = coupling.close(columns)
    return not coupling.faults(gone, empty=True) and not foresee(Removal(coupling, gone)).problem


def _shadowed(coupling: Coupling, groups: Sequence[Group], turned: Container[str]) -> set[str]:
    """Groups of cells whose rows can go as a whole, where these are enough; else the groups of the rows.

    Rows stay whole where their cells are ``turned``. Neither where rows compete: fewer experts are no less work for a
    token, and narrower ones are.
    """
    shadowed = set()
    for cell, row in _nested(coupling, groups):
        if not row.competes:
            shadowed.add(row.name if row.levels < ROWS_SUFFICE or cell.name in turned else cell.name)
    return shadowed


def _beside(coupling: Coupling, groups: Sequence[Group]) -> set[str]:
    """Groups of cells that are narrowed beside their rows."""
    return {cell.name for cell, row in _nested(coupling, groups) if row.competes}


def _nested(coupling: Coupling, groups: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Groups of cells with the groups of their rows."""
    owner = np.full(coupling.columns, -1)
    for number, group in enumerate(groups):
        owner[group.units] = number
    cells, rows = coupling.membership.nonzero()
    pairs = {(int(a), int(b)) for a, b in zip(owner[coupling.column[cells]], owner[coupling.column[rows]], strict=True)}
    return [(groups[cell], groups[row]) for cell, row in sorted(pairs) if row >= 0 and cell >= 0 and cell != row]


def span(coupling: Coupling, group: Group) -> int:
    """Positions on the first parameter axis that one unit takes."""
    inside = coupling.classes_of(group.units[:1])
    if group.rows:
        inside = np.unique(coupling.cells_of(inside))
    return coupling.first_positions(inside) or 1


@dataclass(frozen=True)
class Search:
    """A budget search over choices.

    Attributes:
        coupling: The coupling.
        choices: What can be decided.
        bounds: Cost name -> the cost and its largest value.
        wishes: Cost name -> the bound as it was asked for.
        empty: Whether whole branches may go.
        merged_into: For every class the one that it is merged into when it goes, or ``None`` if units are dropped.
        dropped: Columns of the residual blocks that go.
    """

    coupling: Coupling
    choices: Sequence[Choice]
    bounds: Mapping[str, tuple[Priced, float]]
    wishes: Mapping[str, Bound]
    empty: bool = False
    merged_into: Labels | None = None
    dropped: tuple[int, ...] = ()

    def removal(self, widths: Widths) -> Removal:
        """The removal that keeps these numbers of units, unchecked."""
        column, stays, owner = self._units
        columns = np.zeros(self.coupling.columns, bool)
        columns[list(self.dropped)] = True
        columns[column[stays > np.asarray(widths, np.int64)[owner]]] = True
        gone = self.coupling.close(columns)
        return Removal(self.coupling, gone, None if self.merged_into is None else inherited(self.merged_into, gone))

    def alive(self, widths: Widths) -> Array:
        """Which classes stay at these widths, as ones and zeros; those of the last few widths are kept."""
        key = np.asarray(widths, np.int64).tobytes()
        if key not in self._recent:
            self._recent[key] = (~self.removal(widths).gone).astype(float)
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
        return self._recent[key]

    @cached_property
    def _recent(self) -> dict[bytes, Array]:
        return {}

    @cached_property
    def _units(self) -> tuple[Array, Array, Array]:
        """For every unit its column, the width from which it stays, and its choice."""
        places = np.concatenate([np.zeros((0, 3), np.int64), *(choice.places for choice in self.choices)])
        widths = np.array([choice.group.width for choice in self.choices], np.int64)
        owner = np.repeat(np.arange(len(widths)), widths)
        column, place, length = places.T
        return column, -(-(place + 1) * widths[owner] // length), owner

    def faults(self, removal: Removal) -> list[str]:
        """What makes a removal invalid."""
        broken = self.coupling.faults(removal.gone, empty=self.empty)
        problem = foresee(removal).problem if self.empty else ""
        return [*broken, problem] if problem else broken

    def fits(self, widths: Widths) -> bool:
        """Whether all bounds hold."""
        alive = self.alive(widths)
        return all(cost.value(alive) <= bound * (1 + 1e-9) for cost, bound in self.bounds.values())

    def prices(self, widths: Widths, names: Iterable[str]) -> Array:
        """What one unit of every choice costs at these widths, in shares of some bounds; shape ``(choices,)``.

        One step more costs at least that for each of its units where a cost is a polynomial in widths.
        """
        alive = self.alive(widths)
        total = np.zeros(self.coupling.size)
        for cost, bound in (self.bounds[name] for name in names):
            total += cost.gradient(alive) * alive / bound
        result: Array = (self._inside @ total) / np.maximum(widths, 1)
        return result

    @cached_property
    def _inside(self) -> Any:
        """Sparse matrix, choices × classes: those that units of a choice are; a row is worth its cells."""
        column, _, owner = self._units
        units = incidence(owner, column, (len(self.choices), self.coupling.columns))
        classes = incidence(self.coupling.column, np.arange(self.coupling.size), (units.shape[1], self.coupling.size))
        classes = units @ classes
        return (classes + classes @ self.coupling.membership.T).tocsr()

    def filled(self, widths: Widths, steps: Array) -> Mask:
        """Choices that surely have no room for their next step of so many units; shape ``(choices,)``."""
        alive, full = self.alive(widths), np.zeros(len(self.choices), bool)
        for name, (cost, bound) in self.bounds.items():
            if isinstance(cost, Cost):
                full |= self.prices(widths, [name]) * steps > 1 + ROUNDING - cost.value(alive) / bound
        return full

    def at(self, fraction: float) -> list[int]:
        """Widths at one fraction of every group, rounded down to what is allowed."""
        return [
            max([k for k in c.kept if k <= fraction * c.group.width + 1e-9], default=c.kept[0]) for c in self.choices
        ]

    def above(self, widths: Sequence[int], share: float) -> Search:
        """The same search, in which no group becomes narrower than a share of these widths."""
        choices = []
        for choice, width in zip(self.choices, widths, strict=True):
            stays = [k >= share * width for k in choice.kept]
            kept = tuple(k for k, stay in zip(choice.kept, stays, strict=True) if stay)
            curve = None if choice.curve is None else choice.curve[stays]
            choices.append(replace(choice, kept=kept, curve=curve))
        return replace(self, choices=choices)

    def unreachable(self) -> TargetError:
        """What to raise when even the narrowest widths do not meet the bounds."""
        alive = (~self.removal(self.at(0.0)).gone).astype(float)
        everything = np.ones(self.coupling.size)
        sentences, missed = [], {}
        for name, (cost, bound) in self.bounds.items():
            best, total = cost.value(alive), cost.value(everything)
            if best > bound:
                timed = name == LATENCY
                missed[name] = (best / 1e3, bound / 1e3) if timed else (best, bound)
                wish = self.wishes.get(name, missed[name][1])
                small = not isinstance(wish, str) and 1 < wish < SMALL and not timed
                read = " (above 1, so absolute)" if small else ""
                least = f"{best / 1e3:.4g}ms" if timed else round(best)
                share = f"{least} ({best / total:.4f} of the original)"
                wished = shown(wish, COSTS.find(name))
                sentences.append(f"⟨target.{name}⟩={wished}{read} cannot be reached, the best is {share}")
        return TargetError(f"{'; '.join(sentences)}. Raise it, or see analyze for what is pinned.", missed)
