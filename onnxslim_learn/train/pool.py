"""Samples to train on, in memory, in an order that the seed and the step alone determine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxslim_learn.data.source import Batch, regroup
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from onnxslim_learn.data.declared import Declared
    from onnxslim_learn.data.source import Source

Array = np.ndarray[Any, Any]

MOST_BYTES = 16 << 30  # of samples in memory
MOST_HELD = 2048  # samples held back to judge by
SHARE_HELD = 0.1


@dataclass(frozen=True)
class Portion:
    """Samples on their way through a module.

    Attributes:
        inputs: Graph input -> tensor.
        labels: What the outputs should be, or ``None``.
        targets: Output -> what the teacher puts out; empty without a teacher.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    targets: Mapping[str, Tensor]


@dataclass(frozen=True)
class Pool:
    """Samples in memory.

    Attributes:
        shelves: All samples of one shape each.
        declared: What the model declares.
    """

    shelves: tuple[Batch, ...]
    declared: Declared

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(shelf.count for shelf in self.shelves)

    @property
    def labelled(self) -> bool:
        """Whether samples have labels."""
        return all(shelf.labels is not None for shelf in self.shelves)

    def rows(self, step: int, size: int, seed: int) -> tuple[int, Array]:
        """Which samples a step sees: their shelf, and their places on it.

        Every epoch goes through all samples in an order of its own; what is left over of a shelf waits for the next.
        """
        epoch, place = divmod(step, self.steps(size))
        return _order(tuple(shelf.count for shelf in self.shelves), size, seed, epoch)[place]

    def steps(self, size: int) -> int:
        """Steps of an epoch."""
        return sum(max(shelf.count // size, 1) for shelf in self.shelves)

    def take(self, shelf: int, rows: Array) -> Batch:
        """Samples of a shelf."""
        held = self.shelves[shelf]
        inputs = {
            name: array if (axis := self.declared.inputs[name].axis) is None else array.take(rows, axis)
            for name, array in held.inputs.items()
        }
        return Batch(inputs, None if held.labels is None else held.labels[rows], len(rows))


@lru_cache(maxsize=4)
def _order(counts: Sequence[int], size: int, seed: int, epoch: int) -> list[tuple[int, Array]]:
    """The batches of an epoch."""
    rng, found = np.random.default_rng((seed, epoch)), []
    for shelf, count in enumerate(counts):
        order = rng.permutation(count)
        if count < size:
            order = np.resize(order, size)
        found += [(shelf, rows) for rows in np.split(order[: len(order) // size * size], max(count // size, 1))]
    return [found[k] for k in rng.permutation(len(found))]


def gather(source: Source, held: int | None = None) -> tuple[Pool, Pool]:
    """Read a source into memory: samples to train on, and some held back, the last.

    Args:
        source: The samples.
        held: How many to hold back; by default a tenth.

    Raises:
        InputError: If they are too few or too many.
    """
    shelves: list[list[Batch]] = []
    size = 0
    for batch in source.batches():
        if not shelves or _shapes(shelves[-1][0], source) != _shapes(batch, source):
            shelves.append([])
        shelves[-1].append(batch)
        size += sum(array.nbytes for array in batch.inputs.values())
        if size > MOST_BYTES:
            raise InputError(f"{source.name}: more than {MOST_BYTES >> 30} GiB of samples. Use fewer with --samples.")
    count = sum(batch.count for shelf in shelves for batch in shelf)
    held = min(MOST_HELD, int(count * SHARE_HELD)) if held is None else held
    merged = [_merged(shelf, source.declared) for shelf in shelves]
    train, rest = _split(merged, count - held, source.declared)
    least = source.declared.batch or 1
    if not train or sum(shelf.count for shelf in train) < least:
        raise InputError(f"{source.name}: {count} samples are too few to train on. Give more.")
    return Pool(tuple(train), source.declared), Pool(tuple(rest), source.declared)


def _shapes(batch: Batch, source: Source) -> list[tuple[int, ...]]:
    """Shapes of one sample."""
    axes = {name: one.axis for name, one in source.declared.inputs.items()}
    return [tuple(np.delete(array.shape, axes[name] or 0)) for name, array in batch.inputs.items()]


def _merged(shelf: Sequence[Batch], declared: Declared) -> Batch:
    """All batches of one shape as one."""
    first = shelf[0]
    inputs = {
        name: array
        if (axis := declared.inputs[name].axis) is None
        else np.concatenate([b.inputs[name] for b in shelf], axis)
        for name, array in first.inputs.items()
    }
    labels = [b.labels for b in shelf if b.labels is not None]
    return Batch(inputs, np.concatenate(labels) if len(labels) == len(shelf) else None, sum(b.count for b in shelf))


def _split(shelves: Iterable[Batch], count: int, declared: Declared) -> tuple[list[Batch], list[Batch]]:
    """So many samples, and the others."""
    first: list[Batch] = []
    rest: list[Batch] = []
    for shelf in shelves:
        here = max(min(count, shelf.count), 0)
        count -= here
        one = Pool((shelf,), declared)
        first += [one.take(0, np.arange(here))] if here else []
        rest += [one.take(0, np.arange(here, shelf.count))] if here < shelf.count else []
    return first, rest


def portions(pool: Pool, size: int) -> Iterator[Batch]:
    """All samples of a pool in order, in batches that the model takes; what a fixed batch leaves over is dropped."""
    return regroup(pool.shelves, pool.declared, size)


def tensors(batch: Batch, device: torch.device) -> tuple[dict[str, Tensor], Tensor | None]:
    """Inputs and labels of a batch as tensors."""
    inputs = {name: _tensor(array).to(device) for name, array in batch.inputs.items()}
    return inputs, None if batch.labels is None else _tensor(batch.labels).to(device)


def _tensor(array: Array) -> Tensor:
    plain = array.astype(np.float32) if array.dtype.kind == "V" else array
    return torch.from_numpy(np.ascontiguousarray(plain))
