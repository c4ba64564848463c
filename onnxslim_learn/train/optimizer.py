"""How weights are trained: optimizer, rate and schedule, and what they are where nobody says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from onnxslim_learn.coupling import roles
from onnxslim_learn.registry import ADAM, FP32, OPTIMIZERS

if TYPE_CHECKING:
    from torch import nn

    from onnxslim_learn.graph.load import Graph

DELICATE = 0.3  # of the rate, where LayerNormalization says that it is a transformer


@dataclass(frozen=True)
class Recipe:
    """How weights are trained.

    Attributes:
        steps: Steps of the optimizer.
        batch_size: Samples a step, over all processes and accumulated portions.
        optimizer: See :data:`onnxslim_learn.registry.OPTIMIZERS`.
        rate: The highest learning rate.
        schedule: ``cosine`` falls to zero, ``constant`` stays; both rise in the warm-up.
        warmup: Share of the steps in which the rate rises.
        decay: Weight decay of matrices and kernels.
        clip: Largest norm of the gradient of all parameters; 0 for any.
        accumulate: Portions that a step's batch is computed in.
        precision: See :mod:`onnxslim_learn.train.precision`.
        compile: Whether the module goes through ``torch.compile``.
        channels_last: Whether tensors of rank 4 lie in memory with their channels last.
        seed: Determines order and chance.
        average: The share of a running mean of the parameters that a step keeps; the mean is what a run ends with, or,
            with 0, the last parameters.
    """

    steps: int
    batch_size: int = 64
    optimizer: str = ADAM
    rate: float = OPTIMIZERS[ADAM].rate
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    decay: float = 1e-4
    clip: float = 5.0
    accumulate: int = 1
    precision: str = FP32
    compile: bool = False
    channels_last: bool = False
    seed: int = 0
    average: float = 0.0

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
        optimizer: torch.optim.Optimizer = OPTIMIZERS.load(self.optimizer)(groups, self.rate)
        return optimizer

    def pace(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set the rates of a step; returns the common one."""
        rate = self.rate * self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        return rate


def sgd(groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    """Stochastic gradients with Nesterov momentum."""
    return torch.optim.SGD(groups, lr=rate, momentum=OPTIMIZERS["sgd"].momentum, nesterov=True)


def adam(groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    """AdamW."""
    return torch.optim.AdamW(groups, lr=rate)


def sensible(graph: Graph) -> tuple[str, float]:
    """Optimizer and rate for a trained graph of which nothing else is known: Adam, gently for transformers."""
    delicate = any((norm := roles.normalisation(node)) is not None and norm.features for node in graph.nodes)
    return ADAM, OPTIMIZERS[ADAM].rate * (DELICATE if delicate else 1.0)
