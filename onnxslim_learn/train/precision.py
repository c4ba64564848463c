"""In which numbers a step computes: single precision, or half of it where torch says that this is safe (autocast).

Weights, their gradients and the optimizer stay in single precision. In fp16 gradients that small would vanish, so the
loss is multiplied by a scale that halves whenever they overflow (Micikevicius et al. 2018, arXiv:1710.03740); a step
whose gradients overflowed is left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from onnxslim_learn.registry import FP16, PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEAST_SCALE = 2.0**-10  # below, it is not the range of numbers that gradients are too large for


class Precision:
    """The numbers that the steps of a run compute in."""

    def __init__(self, name: str, device: torch.device) -> None:
        """Begin a run on a device; ``name`` is one of :data:`onnxslim_learn.registry.PRECISIONS`."""
        self.type, self.device = getattr(torch, PRECISIONS[name]), device.type
        self.scaler = GradScaler(self.device, enabled=name == FP16)

    def computing(self) -> torch.autocast:
        """What the forward pass runs in."""
        return torch.autocast(self.device, self.type, enabled=self.type != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients, multiplied by the scale."""
        torch.autograd.backward(self.scaler.scale(loss))

    def clipped(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], most: float) -> float:
        """Divide gradients by the scale and clip them; returns their norm, which is finite but for overflows."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)
        return float(torch.nn.utils.clip_grad_norm_(parameters, most or math.inf))

    @property
    def overflows(self) -> bool:
        """Whether gradients that are not finite tell no more than that the scale was too large."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > LEAST_SCALE

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step, unless gradients overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.scaler.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take it up."""
        known: dict[str, Any] = self.scaler.state_dict()
        self.scaler.load_state_dict({name: type(value)(float(state[name])) for name, value in known.items()})
