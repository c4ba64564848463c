"""Gates as strengths: each is open by chance, and the chance is learnt (FiGS, Ding et al. 2020, arXiv:2006.09581)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxslim_learn.bridge import gates
from onnxslim_learn.learners.morphnet.settings import TAU
from onnxslim_learn.learners.morphnet.strengths import LOGIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group


class Gates:
    """A gate ``sigmoid((logit + logistic noise) / tau)`` in front of all that consumes a unit.

    The regularization term takes a gate's expectation, ``sigmoid(logit)`` for a small tau, rather than its sample: its
    gradient is the same on average and far steadier. Without noise a gate is ``sigmoid(logit / tau)``.

    Attributes:
        logits: One per unit; tied units use that of the first.
        count: Number of units.
        ties: For every unit the first one it is tied to.
    """

    speed = 30.0

    def __init__(
        self,
        module: fx.GraphModule,
        analysis: Analysis,
        groups: Sequence[Group],
        *,
        ties: Tensor | None = None,
        tau: float = TAU,
    ) -> None:
        self.gates = list(gates.attach(module, analysis, groups).values())
        self.count, self.tau = sum(len(gate) for gate in self.gates), tau
        self.ties = torch.arange(self.count) if ties is None else ties
        self.logits = nn.Parameter(torch.full((self.count,), LOGIT))
        self.steepness = torch.zeros(self.count)

    def own(self) -> list[nn.Parameter]:
        """The logits."""
        return [self.logits]

    def draw(self) -> None:
        """Draw all gates, alike in all processes."""
        with torch.no_grad():
            chance = torch.rand(self.count).clamp(1e-6, 1 - 1e-6).to(self.logits.device)
            drawn = torch.sigmoid((self.logits + torch.logit(chance)) / self.tau)[self.ties]
            self.steepness = drawn * (1 - drawn) / self.tau
            self._set(drawn)

    def hand_on(self) -> None:
        """Hand the gradients of gates on to their logits."""
        parts = [torch.zeros_like(gate) if gate.grad is None else gate.grad for gate in self.gates]
        gradient = torch.zeros_like(self.logits).index_add(0, self.ties, torch.cat(parts) * self.steepness)
        self.logits.grad = gradient if self.logits.grad is None else self.logits.grad + gradient
        for gate in self.gates:
            gate.grad = None

    def __call__(self) -> Tensor:
        """Expectation of every gate."""
        return torch.sigmoid(self.logits)[self.ties]

    def still(self) -> Tensor:
        """Every gate without noise."""
        return torch.sigmoid(self.logits / self.tau)[self.ties]

    def alive(self, values: np.ndarray[Any, Any], threshold: float) -> np.ndarray[Any, Any]:
        """Which gates are open, at the threshold included."""
        is_open: np.ndarray[Any, Any] = values >= threshold
        return is_open

    def known(self) -> Tensor:
        """Which units have a gate: all."""
        return torch.ones(self.count, dtype=torch.bool, device=self.logits.device)

    def tied(self, amounts: Tensor) -> Tensor:
        """For every unit the sum over all that it is tied to."""
        return amounts.new_zeros(self.count).index_add(0, self.ties, amounts)[self.ties]

    def distances(self) -> Tensor:
        """What must be taken off every gate until it is shut."""
        return self()

    def lower(self, amounts: Tensor) -> None:
        """Gates go by gradients alone."""
        raise NotImplementedError

    def open(self) -> None:
        """Open all gates, as in a file."""
        self._set(torch.ones(self.count))

    def _set(self, values: Tensor) -> None:
        with torch.no_grad():
            for gate, part in zip(self.gates, torch.split(values, [len(gate) for gate in self.gates]), strict=True):
                gate.copy_(part)
