"""Sparse weights learnt while training: masks that grow with a schedule (Zhu & Gupta 2017, arXiv:1710.01878).

At a refresh the smallest weights of every layer are masked, by the magnitude they have or had when they were masked, so
that weights come back. In between masked weights are zero and stay so: their gradients are zeroed before the optimizer
sees them, what the optimizer remembers of them is zeroed at the refresh, and weight decay finds nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from onnxslim_learn.bridge import initializers
from onnxslim_learn.errors import InputError
from onnxslim_learn.sparse import patterns
from onnxslim_learn.sparse.schedule import Schedule
from onnxslim_learn.train.loop import Learner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, fx, nn

    from onnxslim_learn.sparse.maskable import Layer
    from onnxslim_learn.sparse.patterns import Pattern


class WeightSparse(Learner):
    """Masks the smallest weights of every layer, ever more of them.

    Attributes:
        masks: Weight -> which of its entries stay.
        backups: Weight -> its entries, the masked ones as they were when they were masked.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        layers: Sequence[Layer],
        ratios: Mapping[str, float],
        schedule: Schedule,
        pattern: Pattern = patterns.Pattern(),  # noqa: B008
    ) -> None:
        """Prepare; no weight is masked before the first refresh."""
        parameters = initializers.parameters(module)
        self.layers = {layer.name: layer for layer in layers if layer.name in parameters}
        if not self.layers:
            raise InputError("model: none of its weights of convolutions and fully-connected layers trains.")
        self.parameters = {name: parameters[name] for name in self.layers}
        self.ratios, self.schedule, self.pattern = dict(ratios), schedule, pattern
        self.masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in self.parameters.items()}
        self.backups = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimizer: torch.optim.Optimizer | None = None
        self.share = 0.0

    def meet(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the optimizer; the module is on its device by now."""
        self.optimizer = optimizer
        for name, parameter in self.parameters.items():
            self.masks[name] = self.masks[name].to(parameter.device)
            self.backups[name] = self.backups[name].to(parameter.device)

    def begin(self, step: int) -> None:
        """Refresh the masks when it is time."""
        if self.schedule.refreshes(step):
            self.refresh(self.schedule.share(step))

    def refresh(self, share: float) -> None:
        """Choose the masks anew; ``share`` of every layer's own share goes."""
        self.share = share
        for name, parameter in self.parameters.items():
            with torch.no_grad():
                backup = torch.where(self.masks[name], parameter, self.backups[name])
                scores = backup.detach().abs().to("cpu", torch.float64).numpy()
                kept = patterns.keep(scores, share * self.ratios[name], self.pattern, self.layers[name])
                self.backups[name] = backup
                self.masks[name] = torch.from_numpy(np.ascontiguousarray(kept)).to(parameter.device)
                parameter.copy_(backup * self.masks[name])
                self._forget(parameter, self.masks[name])

    def _forget(self, parameter: nn.Parameter, mask: Tensor) -> None:
        """Zero what the optimizer remembers of masked weights."""
        state = {} if self.optimizer is None else self.optimizer.state.get(parameter, {})
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                value.mul_(mask)

    def gradients(self, step: int) -> None:
        """Zero the gradients of masked weights."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                parameter.grad.mul_(self.masks[name])

    def updated(self, step: int, rate: float) -> None:
        """Keep masked weights at zero, whatever the optimizer did."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.mul_(self.masks[name])

    def state(self) -> dict[str, Tensor]:
        """Masks and backups."""
        masks = {f"mask/{name}": mask for name, mask in self.masks.items()}
        return {**masks, **{f"backup/{name}": backup for name, backup in self.backups.items()}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up masks and backups."""
        for name, parameter in self.parameters.items():
            self.masks[name] = state[f"mask/{name}"].to(parameter.device, torch.bool)
            self.backups[name] = state[f"backup/{name}"].to(parameter.device)

    def scalars(self) -> dict[str, float]:
        """Share of the maskable weights that is masked."""
        return {"sparsity": self.sparsity}

    def parts(self) -> dict[str, float]:
        """The share of every weight that is masked."""
        return {f"sparsity/{name}": float((~mask).float().mean()) for name, mask in self.masks.items()}

    @property
    def sparsity(self) -> float:
        """Share of the maskable weights that is masked."""
        masked = sum(int((~mask).sum()) for mask in self.masks.values())
        return masked / sum(mask.numel() for mask in self.masks.values())

    def keep_zeros(self) -> None:
        """Mask exactly the weights that are zero now."""
        self.share = 1.0
        for name, parameter in self.parameters.items():
            self.masks[name] = parameter.detach() != 0
            self.backups[name] = parameter.detach().clone()

    def structure(self, step: int) -> dict[str, str]:
        """The share of zeros in every layer."""
        shares = {name: float((~mask).float().mean()) for name, mask in self.masks.items()}
        return {"sparsity.json": json.dumps({"step": step, "layers": shares}, indent=1) + "\n"}


class Fixed(WeightSparse):
    """Masks that stay as another learner chose them."""

    def __init__(self, chosen: WeightSparse) -> None:
        """Take over the masks."""
        self.__dict__.update(chosen.__dict__)

    def begin(self, step: int) -> None:
        """No refresh."""


def zeros_of(module: fx.GraphModule, layers: Sequence[Layer]) -> Fixed:
    """A learner that keeps the weights of these layers zero that are zero now."""
    learner = WeightSparse(module, layers, dict.fromkeys([layer.name for layer in layers], 0.0), Schedule(1))
    learner.keep_zeros()
    return Fixed(learner)
