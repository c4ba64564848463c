"""Strengths: how much of every unit there is, told by its scales, its weights, or a gate.

====================  ==================================================================================  ==============
gamma                 ``|gamma|`` of a normalisation, or of a virtual gamma where none follows            ``> 1e-3``
group-lasso           ``l1·mean|w| + (1 - l1)·sqrt(mean w²)`` over all axes of a weight but the unit's     ``> 1e-2``
gates                 ``sigmoid((logit + logistic noise) / tau)``, one sample per unit and step            ``≥ 0.1``
====================  ==================================================================================  ==============

Sources: MorphNet (arXiv:1711.06798), its published code, and FiGS (arXiv:2006.09581) for the gates. Means rather than
sums make filters of different sizes comparable. Where several weights make one unit, their strengths are combined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onnxslim_learn.bridge import gammas, initializers
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx, nn

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group

LOGIT = 2.5


@dataclass(frozen=True)
class StrengthPart:
    """What one parameter says of the units it makes.

    Attributes:
        parameter: The parameter.
        axis: Of the parameter, along which units lie; ``None`` for a vector of scales.
        units: For every position of that axis 1 + the unit, 0 for none.
        l1: Share of the mean of magnitudes, beside the root of the mean square.
    """

    parameter: nn.Parameter
    axis: int | None
    units: Tensor
    l1: float = 0.0

    def strengths(self) -> Tensor:
        """Strength of every position."""
        if self.axis is None:
            return self.parameter.abs()
        rows = self.parameter.movedim(self.axis, 0).flatten(1)
        root: Tensor = torch.linalg.vector_norm(rows, dim=1) / rows.shape[1] ** 0.5
        return root if not self.l1 else self.l1 * rows.abs().mean(1) + (1 - self.l1) * root

    def scale(self, factors: Tensor) -> None:
        """Multiply every position, which multiplies its strength."""
        with torch.no_grad():
            shape = [-1 if k == (self.axis or 0) else 1 for k in range(self.parameter.ndim)]
            self.parameter.mul_(factors.reshape(shape))


def combine(values: Tensor, units: Tensor, count: int, how: str = "max") -> Tensor:
    """Strengths of units from those of their members.

    Args:
        values: Members' strengths, not negative.
        units: For every member 1 + its unit, 0 for none.
        count: Number of units.
        how: ``max``; ``l2``, root of the sum of squares; ``probabilistic``, 1 - Π(1 - p).
    """
    if how == "max":
        return values.new_zeros(count + 1).scatter_reduce(0, units, values, "amax")[1:]
    if how == "probabilistic":
        return 1 - values.new_ones(count + 1).scatter_reduce(0, units, 1 - values, "prod")[1:]
    squares = values.new_zeros(count + 1).index_add(0, units, values.square())[1:]
    return torch.where(squares > 0, squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt(), squares)


def lowered(values: Tensor, units: Tensor, amounts: Tensor, how: str) -> Tensor:
    """Members' strengths after their units' were lowered by the proximal operator, exactly to zero where it gets there.

    Of the maximum it lowers the highest members to a common level until so much has been taken off all of them; of the
    root of the sum of squares it shrinks all members alike (Parikh & Boyd 2014, sections 6.5.1 and 6.4.2).
    """
    count = len(amounts)
    if how == "l2":
        length = combine(values, units, count, "l2")
        factor = torch.where(length > amounts, 1 - amounts / length.clamp_min(1e-30), torch.zeros_like(length))
        return values * torch.cat([factor.new_ones(1), factor])[units]
    order = torch.argsort(values, descending=True, stable=True)
    order = order[torch.argsort(units[order], stable=True)]
    sizes = torch.bincount(units, minlength=count + 1)
    first = torch.cumsum(sizes, 0) - sizes
    place = torch.arange(len(values), device=values.device) - first[units[order]]
    table = values.new_zeros(count + 1, int(sizes.max()))
    table[units[order], place] = values[order]
    ranks = torch.arange(1, table.shape[1] + 1, device=values.device)
    levels = (table.cumsum(1) - torch.cat([amounts.new_zeros(1), amounts])[:, None]) / ranks
    level = levels.max(1).values.clamp_min(0)
    return torch.where(units > 0, torch.minimum(values, level[units]), values)


@dataclass(frozen=True)
class Strengths:
    """Strengths of all units.

    Attributes:
        parts: What parameters say.
        count: Number of units.
        how: str members are combined.
        ties: For every unit the first one it is tied to by ``force_group`` (itself if none).
    """

    parts: tuple[StrengthPart, ...]
    count: int
    how: str
    ties: Tensor

    speed = 1.0

    def own(self) -> list[nn.Parameter]:
        """Parameters that are not the module's: none."""
        return []

    def draw(self) -> None:
        """Before the module runs: nothing is left to chance."""

    def hand_on(self) -> None:
        """After the backward pass: the parameters are the module's own."""

    def still(self) -> Tensor:
        """Strength of every unit without chance."""
        return self()

    def alive(self, values: np.ndarray[Any, Any], threshold: float) -> np.ndarray[Any, Any]:
        """Which strengths are alive."""
        is_alive: np.ndarray[Any, Any] = values > threshold
        return is_alive

    def tied(self, amounts: Tensor) -> Tensor:
        """For every unit the sum over all that it is tied to."""
        return amounts.new_zeros(self.count).index_add(0, self.ties, amounts)[self.ties]

    def members(self) -> tuple[Tensor, Tensor]:
        """Strengths of all positions, and the (tied) units they belong to, 0 for none."""
        values = [part.strengths() for part in self.parts]
        tied = torch.cat([self.ties.new_zeros(1), self.ties + 1])
        return torch.cat(values), torch.cat([tied[part.units] for part in self.parts])

    def __call__(self) -> Tensor:
        """Strength of every unit, ``[units]``; tied units have that of the strongest."""
        values, units = self.members()
        return combine(values, units, self.count, self.how)[self.ties]

    def distances(self) -> Tensor:
        """How much must be taken off every unit until nothing is left."""
        values, units = self.members()
        if self.how == "l2":
            return combine(values, units, self.count, "l2")[self.ties]
        return values.new_zeros(self.count + 1).index_add(0, units, values)[1:][self.ties]

    def known(self) -> Tensor:
        """Which units have a strength at all."""
        is_known = torch.zeros(self.count + 1, dtype=torch.bool, device=self.ties.device)
        for part in self.parts:
            is_known[part.units] = True
        return is_known[1:][self.ties]

    def lower(self, amounts: Tensor) -> None:
        """Take so much off every unit (of tied units, all together)."""
        with torch.no_grad():
            values, units = self.members()
            together = amounts.new_zeros(self.count).index_add(0, self.ties, amounts)
            fresh = lowered(values, units, together, self.how)
            factors = torch.where(values > 0, fresh / values.clamp_min(torch.finfo(values.dtype).tiny), values)
            for part, factor in zip(self.parts, torch.split(factors, [len(p.units) for p in self.parts]), strict=True):
                part.scale(factor)


def read(
    module: fx.GraphModule,
    analysis: Analysis,
    groups: Sequence[Group],
    kind: str,
    *,
    how: str = "max",
    l1: float = 0.0,
    ties: Tensor | None = None,
) -> Strengths:
    """Find what tells the strengths of units.

    Args:
        module: What :func:`onnxslim_learn.bridge.module.bridge` made of the analysis; ``gamma`` adds virtual gammas.
        analysis: The analysis.
        groups: Whose units, in order.
        kind: ``gamma`` or ``group-lasso``; gates are in :mod:`onnxslim_learn.learners.morphnet.logistic_gates`.
        how: See :func:`combine`.
        l1: For group lasso.
        ties: See :class:`Strengths`.
    """
    starts = np.cumsum([0, *(group.width for group in groups)])
    start = {group.name: int(first) for group, first in zip(groups, starts, strict=False)}
    parts: list[StrengthPart] = []
    if kind == "gamma":
        for scale in gammas.attach(module, analysis, groups, carry_norm=True):
            places = np.arange(1, len(scale.parameter) + 1) if scale.virtual else scale.places
            parts.append(StrengthPart(scale.parameter, None, _units(places, start[scale.group])))
    else:
        trained = initializers.parameters(module)
        for name, axis, group, places in gammas.producers(module, analysis, groups):
            parts.append(StrengthPart(trained[name], axis, _units(places, start[group]), l1))
    if not parts:
        raise InputError(f"⟨regularizer⟩ {kind}: no weight makes the units alone. Use ⟨regularizer⟩ gates.")
    ties = torch.arange(int(starts[-1])) if ties is None else ties
    return Strengths(tuple(parts), int(starts[-1]), how, ties)


def _units(places: np.ndarray[Any, Any], start: int) -> Tensor:
    """Places within a group as places among all units."""
    return torch.from_numpy(np.where(places > 0, places + start, 0).astype(np.int64))
