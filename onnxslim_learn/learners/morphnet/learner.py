"""MorphNet: learn widths by charging every unit what it costs (Gordon et al. 2018, arXiv:1711.06798).

The regularization term is the gradient of the cost at the present structure times the strengths of all units. It is
minimised with the loss, units whose strength falls to the threshold are dead, and the structure is what is alive.

Either its weight, ``strength``, is given (the original: look around 1 on a log scale, since costs are shares of the
whole), or a target is. Then the cost is led down to it in a straight line over four fifths of the steps: the term is
weighed so that, at the pace of the moment, the units that must go within the next tenth of the steps are gone by then.
With ``proximal``, strengths are lowered by the term's proximal operator after the optimizer's step, exactly to zero,
rather than by gradients: what is dead then computes nothing. With a target units are charged by what they are worth,
too (:mod:`onnxslim_learn.learners.morphnet.unit_losses`; of models too large for that by
:mod:`onnxslim_learn.train.unit_sensitivity`): in short runs the loss alone does not tell which strengths matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onnxslim_learn.coupling.groups import expression
from onnxslim_learn.errors import InputError
from onnxslim_learn.readers import AUTO
from onnxslim_learn.registry import OPTIMIZERS
from onnxslim_learn.train.loop import Learner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.learners.morphnet.logistic_gates import Gates
    from onnxslim_learn.learners.morphnet.strengths import Strengths
    from onnxslim_learn.learners.morphnet.structure import Structure
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.train.optimizer import Recipe

ARRIVAL = 0.8  # share of the steps after which a target is met
AHEAD = 0.1  # share of the steps that are planned ahead
REACH = (
    1.5  # units up to this many times as far from their end as those that must go are lowered, the others left alone
)
WINDOW = 0.05  # share of the steps over which the regularization loss is averaged to see whether it settles
LEAST_WINDOW = 50
STILL = 0.01  # relative change between two windows that counts as none
GAIN, GREATEST = 0.2, 0.05  # how fast the strength is steered: its logarithm, a step, for an excess of the whole bound
START = 1e-2  # first strength where it is found while training


@dataclass(frozen=True)
class Control:
    """How strongly the cost counts.

    Attributes:
        threshold: Units whose strength is above are alive.
        strength: Weight of the regularization term, or ``None`` to meet the bounds of the structure.
        proximal: Whether strengths are lowered exactly to zero.
        every: Steps between two looks at the structure.
    """

    threshold: float
    strength: float | None = None
    proximal: bool = True
    every: int = 5


class MorphNet(Learner):
    """Learns widths.

    Attributes:
        space: What can be decided.
        strengths: Strength of every unit, as a function of the module's parameters.
        removal: What would go if the present structure were adopted.
    """

    def __init__(
        self,
        space: Structure,
        strengths: Strengths | Gates,
        control: Control,
        recipe: Recipe,
        provenance: Mapping[str, Any],
    ) -> None:
        """Prepare; ``provenance`` goes into the provenance of plans."""
        self.space, self.strengths, self.control = space, strengths, control
        self.steps, self.momentum = recipe.steps, OPTIMIZERS.row(recipe.optimizer).momentum
        self.provenance = {"criterion": "morphnet", "allocation": "learned", **provenance}
        self.removal: Removal = space.analysis.whole
        self.slopes = torch.zeros(strengths.count)
        self.weight = torch.tensor(START if control.strength is None else control.strength, dtype=torch.float64)
        self.seen = torch.zeros(0)
        self.pace, self.near = 0.0, torch.ones(strengths.count)
        self.rates = torch.ones(strengths.count)

    def calibrate(self, worth: Tensor) -> None:
        """Charge units in inverse proportion to what they are worth for the strength they have now.

        Strengths of different layers do not compare: afterwards units go in the order of worth over cost, as far as
        training does not change their strengths.
        """
        with torch.no_grad():
            rates = self.strengths.distances().clamp_min(1e-12) / self.strengths.tied(worth.to(self.slopes.device))
            self.rates = rates / rates.mean()

    # --- the steps of the loop ----------------------------------------------------------------------------------------

    def groups(self) -> list[dict[str, Any]]:
        """The logits of gates."""
        return [{"params": self.strengths.own(), "factor": self.strengths.speed}] if self.strengths.own() else []

    def begin(self, step: int) -> None:
        """Look at the structure and draw gates."""
        if step % self.control.every == 0:
            self._look()
            if self.control.proximal and self.control.strength is None:
                self._plan(step)
        self.strengths.draw()

    def loss(self, step: int) -> Tensor | None:
        """The regularization term times its weight."""
        term = (self.slopes * self.strengths()).sum()
        if self.control.proximal:
            self._record(float(term.detach()))
            return None
        if self.control.strength is None:
            self._steer(step)
        self._record(float(term.detach()))
        return term * float(self.weight)

    def gradients(self, step: int) -> None:
        """Hand the gradients of gates on to their logits."""
        self.strengths.hand_on()

    def updated(self, step: int, rate: float) -> None:
        """Lower strengths, where that is not left to gradients."""
        if not self.control.proximal:
            return
        if self.control.strength is not None:
            self.pace = rate * self.control.strength / (1 - self.momentum)
        if self.pace > 0:
            self.strengths.lower(self.slopes * self.pace * self.near)

    def settled(self, step: int) -> bool:
        """Whether the regularization loss no longer changes, and the bounds are met."""
        window = max(round(WINDOW * self.steps), LEAST_WINDOW)
        if step + 1 < 2 * window or len(self.seen) < 2 * window:
            return False
        before, now = float(self.seen[:window].mean()), float(self.seen[window:].mean())
        if self.control.strength is None:
            return step >= round(ARRIVAL * self.steps) and abs(now - before) <= STILL * abs(before)
        return abs(now - before) <= STILL * abs(before)

    def _record(self, term: float) -> None:
        window = max(round(WINDOW * self.steps), LEAST_WINDOW)
        self.seen = torch.cat([self.seen, torch.tensor([term])])[-2 * window :]

    def _look(self) -> None:
        """What is alive, and what every unit costs in the structure that is."""
        self.removal = self.space.removal(self.values(), self.dead())
        slopes = torch.from_numpy(self.space.slopes(self.removal)).to(torch.float32)
        known = self.strengths.known()
        slopes = slopes.to(known.device) * self.rates
        self.slopes = torch.where(known, slopes, torch.zeros_like(slopes))

    def _plan(self, step: int) -> None:
        """How fast the term must work to keep to the way down, and on which units.

        On those that are near their end, but for those of groups that are as narrow as may be: they stay, and would
        only be lost to the net meanwhile.
        """
        arrival = max(round(ARRIVAL * self.steps), 1)
        left = max(min(arrival - step, round(AHEAD * self.steps)), 1)
        ratios = self.ratios()
        level = self.space.level(ratios, min((step + left) / arrival, 1.0))
        self.pace = level / left
        near = (ratios <= REACH * level) & self.space.open(self.dead())
        self.near = torch.from_numpy(near).to(self.slopes.device, torch.float32)

    def _steer(self, step: int) -> None:
        """Strengthen while the cost is above its way down to the bounds, weaken while it is below."""
        done = min(step / (ARRIVAL * self.steps), 1.0)
        here, whole = (~self.removal.gone).astype(float), np.ones(self.space.analysis.coupling.size)
        off = -np.inf
        for cost, bound in self.space.search.bounds.values():
            start = cost.value(whole) / bound
            off = max(off, cost.value(here) / bound - (start + (1 - start) * done))
        self.weight = self.weight * float(np.exp(np.clip(GAIN * off, -GREATEST, GREATEST)))

    # --- what is learnt -----------------------------------------------------------------------------------------------

    def values(self) -> np.ndarray[Any, Any]:
        """Strengths of all units; those that nothing tells are as strong as can be."""
        with torch.no_grad():
            known_values = torch.where(self.strengths.known(), self.strengths.still(), torch.inf)
        values: np.ndarray[Any, Any] = known_values.cpu().numpy().astype(np.float64)
        return values

    def dead(self) -> np.ndarray[Any, Any]:
        """Which units are at or below the threshold."""
        return ~self.strengths.alive(self.values(), self.control.threshold)

    def ratios(self) -> np.ndarray[Any, Any]:
        """In which order units go: what must be taken off each until nothing is left, over what it costs.

        Those that are dead already are below 0.
        """
        with torch.no_grad():
            slopes = self.strengths.tied(self.slopes)
            ratios = self.strengths.distances() / slopes.clamp_min(1e-30)
            result = torch.where(self.strengths.known() & (slopes > 0), ratios, torch.inf)
        values: np.ndarray[Any, Any] = result.cpu().numpy().astype(np.float64)
        dead = self.dead() & np.isfinite(values)
        values[dead] = -1 / (1 + values[dead])  # below all others, in the same order
        return values

    def decided(self, multiple: int | str = AUTO) -> Plan:
        """The structure that was learnt, within the bounds.

        Args:
            multiple: Of how many channels widths are multiples; ``auto`` for what they were while it was learnt.

        Raises:
            TargetError: If the narrowest widths do not meet the bounds.
        """
        self._look()
        space = self.space if isinstance(multiple, str) else self.space.in_multiples(multiple)
        return space.plan(space.decided(self.ratios()), self.provenance)

    # --- what is kept and shown ---------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Slopes, the structure, the weight, and the last regularization losses; logits."""
        tensors = {f"own/{k}": p.detach() for k, p in enumerate(self.strengths.own())}
        pace = torch.tensor(self.pace, dtype=torch.float64)
        prices = {"slopes": self.slopes, "rates": self.rates, "near": self.near, "pace": pace}
        gone = torch.from_numpy(self.removal.gone.copy())
        return {**prices, "gone": gone, "weight": self.weight, "seen": self.seen, **tensors}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take them up."""
        self.weight, self.seen, self.pace = state["weight"], state["seen"], float(state["pace"])
        with torch.no_grad():
            for k, parameter in enumerate(self.strengths.own()):
                parameter.copy_(state[f"own/{k}"])
        self.rates = state["rates"].to(self.slopes.device)
        self._look()
        self.slopes, self.near = (state[name].to(self.slopes.device) for name in ("slopes", "near"))
        self.removal = replace(self.removal, gone=state["gone"].cpu().numpy())  # of the last look, before this step

    def scalars(self) -> dict[str, float]:
        """The term, the cost if the structure were adopted, and how much is alive."""
        weight = self.pace if self.control.proximal else float(self.weight)
        alive = 1 - float(self.dead().mean())
        return {
            "term": float(self.seen[-1]),
            "strength": weight,
            "cost": self.space.share(self.removal),
            "alive": alive,
        }

    def parts(self) -> dict[str, float]:
        """How many units of every group are alive."""
        living, ends = ~self.dead(), self.space.ends
        parts = zip(self.space.groups, ends[:-1], ends[1:], strict=True)
        return {f"alive/{group.name}": float(living[start:stop].sum()) for group, start, stop in parts}

    def histograms(self) -> dict[str, Tensor]:
        """Strengths of every group."""
        values, ends = self.values(), self.space.ends
        return {
            f"strengths/{group.name}": torch.from_numpy(values[start:stop])
            for group, start, stop in zip(self.space.groups, ends[:-1], ends[1:], strict=True)
            if np.isfinite(values[start:stop]).all()
        }

    def structure(self, step: int) -> dict[str, str]:
        """MorphNet's alive counts, by nodes and as layers are called, and the plan with indices."""
        plan = self.space.plan(self.removal, {**self.provenance, "step": step})
        return {
            f"learned_structure/alive_{step}": self.space.alive_json(self.removal),
            f"learned_structure/alive_layers_{step}": self.space.alive_json(self.removal, by_weight=True),
            f"learned_structure/plan_{step}.json": plan.to_json(),
        }


def ties(groups: Sequence[Group], bonds: Sequence[Sequence[int]]) -> Tensor:
    """For every unit the first of those it is tied to: units at the same place of groups that are tied."""
    starts = np.cumsum([0, *(group.width for group in groups)])
    first = np.arange(starts[-1])
    for bond in bonds:
        for k in bond:
            first[starts[k] : starts[k + 1]] = first[starts[bond[0]] : starts[bond[0] + 1]]
    return torch.from_numpy(first)


def bonds(groups: Sequence[Group], patterns: Sequence[str]) -> list[list[int]]:
    """Places of the groups that are tied: all that one pattern finds; patterns that find the same group are as one.

    Raises:
        InputError: If a pattern is invalid, finds fewer than two groups, or groups of different widths.
    """
    places: list[list[int]] = []
    for pattern in patterns:
        compiled = expression("⟨force_group⟩", pattern)
        hits = {k for k, g in enumerate(groups) if any(compiled.search(text) for text in (g.name, *g.members))}
        if len(hits) < 2:
            raise InputError(f"⟨force_group⟩ {pattern}: it finds {len(hits)} groups to tie, not two. See analyze.")
        hits = hits.union(*(bond for bond in places if hits & set(bond)))
        widths = {groups[k].width for k in hits}
        if len(widths) > 1:
            raise InputError(f"⟨force_group⟩ {pattern}: its groups have {sorted(widths)} units, not equally many.")
        places = [*(bond for bond in places if not hits & set(bond)), sorted(hits)]
    return places
