"""Checkpoints: tensors in safetensors, the rest in JSON, no pickle; the JSON comes last, with checksums of both."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.readers import no_file
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

KEPT = 2  # checkpoints: should the newest be damaged, there is one before

logger = logging.getLogger(__name__)


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
    """Write a checkpoint; the one before stays beside it, older ones go.

    Raises:
        InputError: If it cannot be written.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    index = folder / f"step_{checkpoint.facts['step']:08d}.json"
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in checkpoint.tensors.items()}
    try:
        with atomic.replacing(_tensors(index)) as draft:
            save_file(tensors, draft)
            sha256 = checksum(draft)
    except InputError:
        raise
    except Exception as error:  # safetensors' own, which is no OSError
        raise InputError(f"{folder}: a checkpoint cannot be written ({reason(error)}). Free space there.") from error
    facts = json.dumps(checkpoint.facts)
    atomic.write_text(index, json.dumps({"facts": facts, "sha256": [_digest(facts.encode()), sha256]}) + "\n")
    kept = {one.stem for one in _indices(folder)[:KEPT]}
    for old in folder.glob("step_*"):
        if old.stem not in kept:
            old.unlink()


def load(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint of a folder that is whole; ``None`` if there is none.

    Raises:
        InputError: If there are some, and none can be read.
    """
    broken = None
    for index in _indices(folder):
        try:
            checkpoint = _read(index)
        except Exception as error:
            broken = broken or (index, reason(error))
            continue
        if broken is not None:
            logger.warning(
                "%s: is damaged (%s). The one before is taken, of step %d.", *broken, checkpoint.facts["step"]
            )
        return checkpoint
    if broken is not None:
        raise InputError(f"{broken[0]}: no checkpoint ({broken[1]}). Start again without ⟨resume⟩.")
    return None


def _read(index: Path) -> Checkpoint:
    """A checkpoint, if it is as it was written."""
    from safetensors.torch import load_file

    for file in (index, _tensors(index)):
        if problem := no_file(file):
            raise ValueError(f"{file.name} {problem}")
    written = json.loads(index.read_text(encoding="utf-8"))
    if [_digest(written["facts"].encode()), checksum(_tensors(index))] != written["sha256"]:
        raise ValueError("its checksum is another")
    return Checkpoint(load_file(_tensors(index)), json.loads(written["facts"]))


def _indices(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    return sorted(folder.glob("step_*.json"), reverse=True)


def _tensors(index: Path) -> Path:
    """Where the tensors of a checkpoint lie."""
    return index.with_suffix(".safetensors")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def checksum(file: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
