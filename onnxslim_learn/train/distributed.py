"""One process or several: who takes part in training, and on which device (``torchrun`` starts several)."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from onnxslim_learn.errors import InputError, TrainError, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
_LOST = re.compile("gloo|connection (closed|reset)|broken pipe", re.IGNORECASE)  # as gloo says that nobody answers


@dataclass(frozen=True)
class World:
    """The processes that train one model together.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        device: Where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are the mean over all processes."""
        if self.size == 1:
            return module
        where = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=where, find_unused_parameters=True)

    def led(self, act: Callable[[], T]) -> T | None:
        """What the leading process makes, while the others wait; ``None`` for them."""
        result = act() if self.leads else None
        if self.size > 1:
            distributed.barrier()
        return result


def join(device: str = "auto") -> World:
    """Join the processes that ``torchrun`` started, by nccl on GPUs and gloo elsewhere; without it, stay alone.

    Args:
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        InputError: If there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("⟨train_on⟩ cuda: torch finds no GPU. Use ⟨train_on⟩ cpu.")
    cuda = device != "cpu" and torch.cuda.is_available()
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    here = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(here)
    if size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo")
    return World(rank, size, here)


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The processes of :func:`join` while a block runs.

    Raises:
        TrainError: If another one ended before all were done.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        yield join(device)
    except RuntimeError as error:
        if size == 1 or not (isinstance(error, distributed.DistError) or _LOST.search(str(error))):
            raise
        raise TrainError(
            f"learn: all {size} processes must take part to the end, but another one did not ({reason(error)})."
            " See what it said, and start all again, with ⟨resume⟩ if they have a ⟨checkpoint_dir⟩."
        ) from error
    finally:
        leave()


def leave() -> None:
    """Leave the processes that were joined."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
