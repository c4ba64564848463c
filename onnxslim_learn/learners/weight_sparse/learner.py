"""Sparse weights learnt while training: masks that grow with a schedule (Zhu & Gupta 2017, arXiv:1710.01878).

At a refresh the smallest weights of every layer are masked, by the magnitude they have or had when they were masked, so
that weights come back. In between masked weights are zero and stay so: their gradients are zeroed before the optimizer
sees them, what the optimizer remembers of them is zeroed at the refresh, and weight decay finds nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

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


@dataclass(frozen=True)
class Settings:
    """The parameters of the method under their original names, with their defaults.

    Attributes:
        ws_prune_ratio: Share of all maskable weights that goes.
        ws_prune_ratio_prtl: How it is spread over layers: ``uniform``, ``heurist``, ``optimal`` (by reinforcement
            learning) or ``search`` (by measured curves, in minutes).
        ws_nb_rlouts: Roll-outs of the agent.
        ws_nb_rlouts_min: Roll-outs by chance before the agent trains.
        ws_reward_type: ``single-obj``: accuracy, with the share met exactly. ``multi-obj``: accuracy times
            ln(1 + share).
        ws_lrn_rate_rg: Rate of the layer-wise regression in a roll-out.
        ws_nb_iters_rg: Its steps per layer.
        ws_lrn_rate_ft: Rate of the fine-tuning in a roll-out.
        ws_nb_iters_ft: Its steps.
        ws_nb_iters_feval: Batches on which a roll-out is judged.
        ws_prune_ratio_exp: Exponent of the schedule.
        ws_iter_ratio_beg: Share of the steps after which the share begins to rise.
        ws_iter_ratio_end: Share of the steps at which it has risen.
        ws_mask_update_step: Steps between two refreshes of the masks.
        ws_save_path: Folder for checkpoints.
        enbl_dst: Whether the original teaches, too.
        loss_w_dst: Weight of that.
        tempr_dst: Its temperature.
    """

    ws_prune_ratio: float = 0.75
    ws_prune_ratio_prtl: Literal["uniform", "heurist", "optimal", "search"] = "optimal"
    ws_nb_rlouts: int = 200
    ws_nb_rlouts_min: int = 50
    ws_reward_type: Literal["single-obj", "multi-obj"] = "single-obj"
    ws_lrn_rate_rg: float = 3e-2
    ws_nb_iters_rg: int = 20
    ws_lrn_rate_ft: float = 3e-4
    ws_nb_iters_ft: int = 400
    ws_nb_iters_feval: int = 25
    ws_prune_ratio_exp: float = 3.0
    ws_iter_ratio_beg: float = 0.1
    ws_iter_ratio_end: float = 0.5
    ws_mask_update_step: int = 500
    ws_save_path: str | None = None
    enbl_dst: bool = False
    loss_w_dst: float = 4.0
    tempr_dst: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: With the parameter at fault.
        """
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{_flag(name)} {value}: expected a number from {low:g} to {high:g}. Change it.")
        if self.ws_iter_ratio_beg > self.ws_iter_ratio_end:
            raise InputError("--ws-iter-ratio-beg: expected at most --ws-iter-ratio-end. Change one of them.")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{_flag(name)} {getattr(self, name)}: expected one of {', '.join(known)}.")

    @property
    def taught(self) -> dict[str, Any]:
        """Loss and temperature as the training loop takes them when the original teaches, too (``enbl_dst``).

        The method has no factor T², which the loop's distillation has.
        """
        share = self.loss_w_dst / self.tempr_dst**2
        return {"loss": f"cross-entropy=1,distill={share!r}", "temperature": self.tempr_dst}


MOST = 1e9
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("ws_prune_ratio", "ws_iter_ratio_beg", "ws_iter_ratio_end"), (0.0, 1.0)),
    **dict.fromkeys(("ws_nb_rlouts", "ws_nb_iters_feval", "ws_mask_update_step"), (1.0, MOST)),
    **dict.fromkeys(("ws_nb_rlouts_min", "ws_nb_iters_rg", "ws_nb_iters_ft"), (0.0, MOST)),
    **dict.fromkeys(
        ("ws_lrn_rate_rg", "ws_lrn_rate_ft", "ws_prune_ratio_exp", "loss_w_dst", "tempr_dst"), (1e-9, MOST)
    ),
}
CHOICES = {
    "ws_prune_ratio_prtl": ("uniform", "heurist", "optimal", "search"),
    "ws_reward_type": ("single-obj", "multi-obj"),
}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def settings(given: Mapping[str, Any]) -> Settings:
    """Settings from names and values, underscores or hyphens.

    Raises:
        InputError: If a name is none, or a value does not fit.
    """
    known = {one.name for one in fields(Settings)}
    plain = {name.replace("-", "_"): value for name, value in given.items() if value is not None}
    for name in plain:
        if name not in known:
            raise InputError(f"{name}: weight sparsification has no such parameter. It has {', '.join(sorted(known))}.")
    return Settings(**plain)


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
        own = initializers.parameters(module)
        self.layers = {layer.name: layer for layer in layers if layer.name in own}
        if not self.layers:
            raise InputError("model: none of its weights of convolutions and fully-connected layers trains.")
        self.parameters = {name: own[name] for name in self.layers}
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
        found = {name: float((~mask).float().mean()) for name, mask in self.masks.items()}
        return {"sparsity.json": json.dumps({"step": step, "layers": found}, indent=1) + "\n"}


class Fixed(WeightSparse):
    """Masks that stay as another learner chose them."""

    def __init__(self, chosen: WeightSparse) -> None:
        """Take over the masks."""
        self.__dict__.update(chosen.__dict__)

    def begin(self, step: int) -> None:
        """No refresh."""


def zeros_of(module: fx.GraphModule, layers: Sequence[Layer]) -> Fixed:
    """A learner that keeps the weights of these layers zero that are zero now."""
    made = WeightSparse(module, layers, dict.fromkeys([layer.name for layer in layers], 0.0), Schedule(1))
    made.keep_zeros()
    return Fixed(made)
