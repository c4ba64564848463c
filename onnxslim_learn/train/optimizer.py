"""How weights are trained: optimizer, rate and schedule, and what they are where nobody says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from onnxslim_learn.coupling import roles

if TYPE_CHECKING:
    from torch import nn

    from onnxslim_learn.graph.load import Graph

RATES = {"sgd": 0.05, "adam": 1e-3}
DELICATE = 0.3  # of the rate, where LayerNormalization says that it is a transformer
MOMENTUM = 0.9


@dataclass(frozen=True)
class Recipe:
    """How weights are trained.

    Attributes:
        steps: Steps of the optimizer.
        batch_size: Samples a step, over all processes and accumulated portions.
        optimizer: ``sgd`` (Nesterov momentum 0.9) or ``adam`` (AdamW).
        rate: The highest learning rate.
        schedule: ``cosine`` falls to zero, ``constant`` stays; both rise in the warm-up.
        warmup: Share of the steps in which the rate rises.
        decay: Weight decay of matrices and kernels.
        clip: Largest norm of the gradient of all parameters; 0 for any.
        accumulate: Portions that a step's batch is computed in.
        bf16: Whether to compute in bfloat16 where that is safe (autocast).
        seed: Determines order and chance.
    """

    steps: int
    batch_size: int = 64
    optimizer: Literal["sgd", "adam"] = "adam"
    rate: float = RATES["adam"]
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    decay: float = 1e-4
    clip: float = 5.0
    accumulate: int = 1
    bf16: bool = False
    seed: int = 0

    def factor(self, step: int) -> float:
        """What the rate is multiplied by at a step."""
        rising = max(round(self.warmup * self.steps), 1)
        if step < rising:
            return (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(self.steps - rising, 1)))

    def make(self, parameters: Sequence[nn.Parameter], extra: Sequence[dict[str, Any]] = ()) -> torch.optim.Optimizer:
        """The optimizer; ``extra`` are groups of a learner, whose ``factor`` multiplies their rate."""
        wide, thin = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        groups = [{"params": wide, "weight_decay": self.decay}, {"params": thin, "weight_decay": 0.0}]
        groups = [{"factor": 1.0, "weight_decay": 0.0, **group} for group in [*groups, *extra] if group["params"]]
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.rate, momentum=MOMENTUM, nesterov=True)
        return torch.optim.AdamW(groups, lr=self.rate)

    def pace(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set the rates of a step; returns the common one."""
        rate = self.rate * self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        return rate


def sensible(graph: Graph) -> tuple[Literal["sgd", "adam"], float]:
    """Optimizer and rate for a trained graph of which nothing else is known: Adam, gently for transformers."""
    delicate = any((norm := roles.normalisation(node)) is not None and norm.features for node in graph.nodes)
    return "adam", RATES["adam"] * (DELICATE if delicate else 1.0)
