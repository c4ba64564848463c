"""From strengths to structure: which units are alive, what that costs, and what every unit costs more.

This side is arithmetic on the coupling, without torch: a unit's strength comes in, widths, costs and slopes go out.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.carriers import carriers
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import InputError, PlanError
from onnxslim_learn.plans.realize import describe
from onnxslim_learn.registry import COSTS, LATENCY
from onnxslim_learn.select import budget, kernel_widths
from onnxslim_learn.select.budget import Freedom, Search
from onnxslim_learn.select.search import solve

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.polynomial import Priced
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.plans.plan import Plan


WEIGHT = re.compile(r"[./_](weights?|kernel|filters?)(:\d+)?$", re.IGNORECASE)
"""What the name of a weight ends with beside that of its layer."""


@dataclass(frozen=True)
class Structure:
    """What can be learnt about a model's widths.

    Attributes:
        analysis: The model.
        search: What can be decided, and the bounds to be met (none for a fixed strength).
        cost: What every unit is charged for.
        twice: Costs whose slopes are added once more (MorphNet's counting of depthwise convolutions), or ``None``.
        bonds: Places of groups that keep equally many units.
    """

    analysis: Analysis
    search: Search
    cost: Priced
    twice: Priced | None = None
    bonds: Sequence[Sequence[int]] = ()

    @property
    def groups(self) -> list[Group]:
        """The groups, in the order of their units."""
        return [choice.group for choice in self.search.choices]

    @cached_property
    def ends(self) -> Array:
        """Where the units of every group begin, and where the last end."""
        return np.cumsum([0, *(group.width for group in self.groups)])

    @cached_property
    def total(self) -> float:
        """Cost of the whole model."""
        return self.cost.value(np.ones(self.analysis.coupling.size))

    @cached_property
    def carried(self) -> Array:
        """For every class the units whose removal takes it: 1 + place, 0 for none."""
        return carriers(self.analysis.coupling, self.groups)

    def removal(self, strengths: Array, dead: Array) -> Removal:
        """What goes when the weakest of every group go: as many as are dead, and as the group's rows allow."""
        return self.narrowed(strengths, self.widths(dead))

    def widths(self, dead: Array) -> list[int]:
        """Smallest allowed widths that leave room for all units that are not dead."""
        widths = []
        for choice, start in zip(self.search.choices, self.ends, strict=False):
            width = choice.group.width
            living = [int((~dead[start + part]).sum()) * width / len(part) for part in choice.group.strata]
            widths.append(min(kept for kept in choice.kept if kept >= max(living) - 1e-9))
        return widths

    def open(self, dead: Array) -> Array:
        """Which units are of groups that could be narrower than is allowed when these are dead: ``[units]``."""
        able = [width > min(c.kept) for c, width in zip(self.search.choices, self.widths(dead), strict=True)]
        return np.repeat(able, np.diff(self.ends))

    def narrowed(self, strengths: Array, widths: Sequence[int]) -> Removal:
        """The removal that leaves so many of every group, the strongest."""
        return self.ordered(strengths).removal(widths)

    def ordered(self, strengths: Array) -> Search:
        """The search, with the strongest units first."""
        choices = []
        for choice, start in zip(self.search.choices, self.ends, strict=False):
            order = [part[np.argsort(-strengths[start + part], kind="stable")] for part in choice.group.strata]
            choices.append(replace(choice, order=tuple(order)))
        return replace(self.search, choices=choices)

    def share(self, removal: Removal) -> float:
        """Cost if a removal were adopted, as a share of the whole."""
        return self.cost.value((~removal.gone).astype(float)) / self.total

    def slopes(self, removal: Removal) -> Array:
        """What every unit adds to the cost where so much is left, as shares of the whole cost: ``[units]``."""
        alive = (~removal.gone).astype(float)
        gradient = self.cost.gradient(alive)
        if self.twice is not None:
            gradient = gradient + self.twice.gradient(alive)
        slopes = np.zeros(int(self.ends[-1]) + 1)
        np.add.at(slopes, self.carried.reshape(-1), np.repeat(gradient, self.carried.shape[1]))
        result: Array = slopes[1:] / self.total
        return result

    # --- targets ------------------------------------------------------------------------------------------------------

    def above(self, share: float) -> Structure:
        """The same, in which every group keeps a share of the width that narrowing all alike to the bounds leaves."""
        widths = solve(self.search)
        for bond in self.bonds:
            least = min(widths[k] for k in bond)
            widths = [least if k in bond else width for k, width in enumerate(widths)]
        return replace(self, search=self.search.above(widths, share))

    def in_multiples(self, multiple: int) -> Structure:
        """The same with coarser widths: of those there are, the multiples of so many channels."""
        return replace(self, search=kernel_widths.coarser(self.search, multiple))

    def eased(self, share: float) -> Search:
        """The search with bounds that lie so far, from 0 to 1, on the way down from the whole model to its own."""
        whole, bounds = np.ones(self.analysis.coupling.size), {}
        for name, (cost, bound) in self.search.bounds.items():
            start = cost.value(whole)
            bounds[name] = cost, start + (bound - start) * share if bound < start else bound
        return replace(self.search, bounds=bounds)

    def level(self, ratios: Array, share: float = 1.0) -> float:
        """The lowest level such that, with all units up to it dead, the bounds are met; 0 if with those that are dead.

        Args:
            ratios: Of all units.
            share: How far on the way down to the bounds (see :meth:`eased`).
        """
        search = self.eased(share)
        known = np.unique(ratios[np.isfinite(ratios)])
        if search.fits(self.widths(ratios <= 0)):
            return 0.0
        low, high = -1, len(known) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if search.fits(self.widths(ratios <= known[middle])) else (middle, high)
        return float(known[high])

    def decided(self, ratios: Array) -> Removal:
        """The removal that meets the bounds with the units of the highest ratios, and with no room for one more.

        Raises:
            TargetError: If the narrowest widths do not meet the bounds.
            PlanError: If a constraint that no single group shows is broken.
        """
        search = self.ordered(ratios)
        if not search.fits(search.at(0.0)):
            solve(search)  # says so
        widths = self.widths(ratios <= (self.level(ratios) if self.search.bounds else 0.0))
        if self.search.bounds:
            widths = self._filled(search, widths, ratios)
        removal = search.removal(widths)
        faults = search.faults(removal)
        if faults:
            raise PlanError(f"{faults[0]}. Protect that group.")
        return removal

    def _filled(self, search: Search, widths: list[int], ratios: Array) -> list[int]:
        """Give back the strongest units that still fit, one after the other; of equal ones in the narrowest group."""
        alone = [[k] for k in range(len(widths)) if not any(k in bond for bond in self.bonds)]
        groups, choices = self.groups, search.choices
        strongest = [np.sort(ratios[a:b])[::-1] for a, b in itertools.pairwise(self.ends)]

        def merit(bond: Sequence[int]) -> tuple[float, float, int]:
            k = bond[0]
            return float(strongest[k][widths[k]]), -widths[k] / groups[k].width, -k

        open_ = [bond for bond in (*self.bonds, *alone) if widths[bond[0]] < groups[bond[0]].width]
        while open_:
            bond = max(open_, key=merit)
            tried = list(widths)
            for k in bond:
                tried[k] = min(kept for kept in choices[k].kept if kept > widths[k])
            fits = search.fits(tried)
            widths = tried if fits else widths
            if not fits or widths[bond[0]] == groups[bond[0]].width:
                open_.remove(bond)
        return widths

    # --- what is written ----------------------------------------------------------------------------------------------

    def plan(self, removal: Removal, provenance: Mapping[str, Any]) -> Plan:
        """A removal as a plan."""
        return describe(self.analysis, removal, provenance)

    def alive(self, removal: Removal, *, by_weight: bool = False) -> dict[str, int]:
        """Alive output channels of every convolution by name: the node's, or what the weight's says of the layer."""
        coupling = self.analysis.coupling
        return {
            _layer(node) if by_weight else str(node.name): removal.size(coupling.values[str(node.outputs[0].name)], 1)
            for node in coupling.nodes
            if roles.convolution(node)
        }

    def alive_json(self, removal: Removal, *, by_weight: bool = False) -> str:
        """The same as MorphNet's StructureExporter writes it."""
        return json.dumps(self.alive(removal, by_weight=by_weight), indent=2, sort_keys=True)


def structure(
    analysis: Analysis,
    cost: str | Callable[..., Any],
    bounds: Mapping[str, tuple[Any, float]],
    wishes: Mapping[str, float | str],
    *,
    freedom: Freedom | None = None,
    protect: Sequence[str] = (),
    double: bool = False,
) -> Structure:
    """What can be learnt about a model.

    Args:
        analysis: The model.
        cost: What units are charged for: see :meth:`onnxslim_learn.analysis.Analysis.cost`.
        bounds: Cost name -> the cost and its largest value.
        wishes: The bounds as they were asked for.
        freedom: How far widths may go.
        protect: Regular expressions; groups they find stay whole.
        double: Whether to count depthwise convolutions as MorphNet does.

    Raises:
        InputError: If there is nothing to decide, or a name or pattern finds nothing.
    """
    if not COSTS.row(cost).charged:
        raise InputError(f"⟨cost⟩ {cost}: units cannot be charged for it. Choose another cost.")
    price = analysis.cost(cost)
    freedom = freedom or Freedom()
    groups = analysis.free_groups(protect)
    choices = budget.choices(analysis.coupling, groups, np.zeros(analysis.coupling.columns), freedom)
    search = Search(analysis.coupling, choices, bounds, wishes, freedom.empty)
    timed = analysis.latency if LATENCY in {cost, *bounds} else None
    search = kernel_widths.narrowed(search, freedom.multiple, timed)
    search = replace(search, choices=[choice for choice in search.choices if len(choice.kept) > 1])
    if not search.choices:
        raise InputError("model: nothing can be cut, so there is no structure to learn. See analyze for why.")
    twice = _depthwise(analysis, price) if double else None
    return Structure(analysis, search, price, twice)


def _layer(node: ir.Node) -> str:
    """What people call a convolution: the name that its weight has in the framework it comes from, or the node's."""
    factors = roles.convolution(node)
    value = None if factors is None else node.inputs[factors.weight]
    stored = value is not None and value.is_initializer()
    return WEIGHT.sub("", str(value.name)) if value is not None and stored else str(node.name)


def _depthwise(analysis: Analysis, cost: Any) -> Priced:
    """The part of a cost that depthwise convolutions have."""
    if not hasattr(cost, "coefficients"):
        raise InputError("⟨count_depthwise_twice⟩: is for costs that are sums over nodes. Leave it out.")
    names: set[str] = set()
    for node in analysis.graph.nodes:
        factors = roles.convolution(node)
        value = None if factors is None else node.inputs[factors.weight]
        groups = node.attributes.get_int("group", 1)
        if value is not None and value.shape is not None and groups > 1 and value.shape[0] == groups:
            names |= {str(node.name), str(value.name)}
    mask = np.array([owner in names for owner in cost.owners], float)
    part: Priced = replace(cost, coefficients=cost.coefficients * mask)
    return part
