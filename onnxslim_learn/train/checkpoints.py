"""Checkpoints: tensors in safetensors, the rest in JSON, no pickle. The JSON is written last and names the tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

INDEX = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stood.

    Attributes:
        tensors: By name: weights, optimizer state, the learner's.
        facts: What is plain data: the step, the settings, what was recorded so far.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under a prefix, without it."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one before stays until this one is whole.

    Raises:
        InputError: If it cannot be written.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    name = f"step_{checkpoint.facts['step']:08d}.safetensors"
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in checkpoint.tensors.items()}
    try:
        with atomic.replacing(folder / name) as draft:
            save_file(tensors, draft)
    except InputError:
        raise
    except Exception as error:  # safetensors' own, which is no OSError
        raise InputError(f"{folder}: a checkpoint cannot be written ({reason(error)}). Free space there.") from error
    atomic.write_text(folder / INDEX, json.dumps({**checkpoint.facts, "tensors": name}, indent=1) + "\n")
    for old in folder.glob("step_*.safetensors"):
        if old.name != name:
            old.unlink()


def load(folder: Path) -> Checkpoint | None:
    """Read the checkpoint of a folder; ``None`` if there is none.

    Raises:
        InputError: If what is there cannot be read.
    """
    from safetensors.torch import load_file

    if not (folder / INDEX).is_file():
        return None
    try:
        facts = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return Checkpoint(load_file(folder / facts["tensors"]), facts)
    except Exception as error:
        raise InputError(f"{folder / INDEX}: no checkpoint ({reason(error)}). Start again without ⟨resume⟩.") from error


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as tensors, ``parameter/key``; groups and rates follow from the settings and the step."""
    return {
        f"{index}/{key}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give an optimizer the state that :func:`optimizer_state` wrote."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        index, _, key = name.partition("/")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
