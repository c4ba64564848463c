"""Samples to train on, read once, in an order that the seed and the step alone determine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from onnxslim_learn.array_types import Array
from onnxslim_learn.data.batch import Batch
from onnxslim_learn.data.source import part, regroup
from onnxslim_learn.errors import InputError
from onnxslim_learn.labels import collated, structured
from onnxslim_learn.train.mapped_buffer import MappedBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from onnxslim_learn.data.signature import Declared
    from onnxslim_learn.data.source import Source


MOST_HELD = 2048  # samples held back to judge by
SHARE_HELD = 0.1


@dataclass(frozen=True)
class Portion:
    """Samples on their way through a module.

    Attributes:
        inputs: Graph input -> tensor.
        labels: What the outputs should be, a tensor or what :func:`onnxslim_learn.labels.collated` makes; or
            ``None``.
        targets: Output -> what the teacher puts out; empty without a teacher.
    """

    inputs: dict[str, Tensor]
    labels: Any
    targets: Mapping[str, Tensor]


@dataclass(frozen=True)
class Unread:
    """Samples that are read when they are taken.

    Attributes:
        pick: Reads those at some places of the source's order.
        start: The place of the first.
        count: How many there are.
        labelled: Whether they have labels.
        blocks: See :class:`onnxslim_learn.data.source.Source`.
    """

    pick: Callable[[Array], Batch]
    start: int
    count: int
    labelled: bool
    blocks: tuple[int, ...] = ()

    def part(self, start: int, stop: int) -> Unread:
        """Those from one place up to another."""
        ends = np.cumsum(self.blocks)
        blocks = np.diff(np.unique(np.clip([0, *ends], start, stop))) if self.blocks else ()
        return replace(self, start=self.start + start, count=stop - start, blocks=tuple(map(int, blocks)))


Shelf: TypeAlias = Batch | Unread


@dataclass(frozen=True)
class SampleStore:
    """Samples.

    Attributes:
        shelves: All samples of one shape each; their arrays may be mapped files.
        declared: What the model declares.
    """

    shelves: tuple[Shelf, ...]
    declared: Declared

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(shelf.count for shelf in self.shelves)

    @property
    def labelled(self) -> bool:
        """Whether samples have labels."""
        shelves = self.shelves
        return all(one.labelled if isinstance(one, Unread) else one.labels is not None for one in shelves)

    def rows(self, step: int, size: int, seed: int) -> tuple[int, Array]:
        """Which samples a step sees: their shelf, and their places on it.

        Every epoch goes through all samples in an order of its own, one block after the other where samples are read
        in blocks; what is left over of a shelf waits for the next.
        """
        epoch, place = divmod(step, self.steps(size))
        blocks = tuple((isinstance(shelf, Unread) and shelf.blocks) or (shelf.count,) for shelf in self.shelves)
        return _order(blocks, size, seed, epoch)[place]

    def steps(self, size: int) -> int:
        """Steps of an epoch."""
        return sum(max(shelf.count // size, 1) for shelf in self.shelves)

    def take(self, shelf: int, rows: Array) -> Batch:
        """Samples of a shelf."""
        held = self.shelves[shelf]
        if isinstance(held, Unread):
            return held.pick(held.start + rows)
        inputs = {
            name: array if (axis := self.declared.inputs[name].axis) is None else array.take(rows, axis)
            for name, array in held.inputs.items()
        }
        return Batch(inputs, None if held.labels is None else held.labels[rows], len(rows))


@lru_cache(maxsize=4)
def _order(shelves: Sequence[Sequence[int]], size: int, seed: int, epoch: int) -> list[tuple[int, Array]]:
    """The batches of an epoch, of shelves whose samples lie in blocks of these sizes."""
    rng, batches = np.random.default_rng((seed, epoch)), []
    for shelf, blocks in enumerate(shelves):
        count, order = sum(blocks), _permuted(blocks, rng)
        if count < size:
            order = np.resize(order, size)
        batches += [(shelf, rows) for rows in np.split(order[: len(order) // size * size], max(count // size, 1))]
    together = any(len(blocks) > 1 for blocks in shelves)
    return batches if together else [batches[k] for k in rng.permutation(len(batches))]


def _permuted(blocks: Sequence[int], rng: np.random.Generator) -> Array:
    """All places in an order by chance that goes through one block after the other."""
    if len(blocks) == 1:
        return rng.permutation(blocks[0])
    starts = np.cumsum([0, *blocks])
    order: Array = np.concatenate([starts[k] + rng.permutation(blocks[k]) for k in rng.permutation(len(blocks))])
    return order


def gather(
    source: Source, held: int | None = None, folder: Path | None = None, *, unread: bool = False
) -> tuple[SampleStore, SampleStore]:
    """Read a source once: samples to train on, and some held back, the last.

    They are kept in a file that is mapped, so that memory holds no more of them than the system has room for.

    Args:
        source: The samples.
        held: How many to hold back; by default a tenth.
        folder: Where the file lies until nothing reads it any more; by default where temporary files do.
        unread: Whether each sample is read whenever it is wanted instead.

    Raises:
        InputError: If they are too few, there is no room for them, or they cannot be read one by one.
    """
    shelves = [_unread(source)] if unread else _read(source, folder)
    count = sum(shelf.count for shelf in shelves)
    held = min(MOST_HELD, int(count * SHARE_HELD)) if held is None else held
    least = source.declared.batch or 1
    held = held // least * least  # a batch that the model does not take would judge nothing
    train, rest = _split(shelves, count - held, source.declared)
    if not train or sum(shelf.count for shelf in train) < least:
        raise InputError(f"{source.name}: {count} samples are too few to train on. Give more.")
    return SampleStore(tuple(train), source.declared), SampleStore(tuple(rest), source.declared)


def _unread(source: Source) -> Unread:
    """A source whose samples are read one by one."""
    if source.pick is None or source.count is None:
        raise InputError(
            f"⟨stream⟩: is for folders and .tar files of images and for .parquet files, but the data is {source.name}. "
            f"Leave it out."
        )
    whole = Unread(source.pick, 0, sum(source.blocks) or source.count, source.labelled, source.blocks)
    return whole.part(0, source.count)


def _read(source: Source, folder: Path | None) -> list[Batch]:
    """All samples, one shelf for each shape, in a mapped file."""
    kept = MappedBuffer(folder)
    shelves: list[tuple[Batch, list[int]]] = []
    entries: dict[int, list[Any]] = {}  # shelf, from one -> labels that are no rows, which stay in memory
    last: object = None
    for batch in source.batches():
        kind = _kind(batch, source.declared)
        if kind != last:
            shelves.append((part(batch, source.declared, 0, 0), []))
            last = kind
        shelves[-1][1].append(batch.count)
        if structured(batch.labels):
            entries.setdefault(len(shelves), []).append(batch.labels)
        try:
            for name, array in _parts(batch, source.declared).items():
                kept.add(name, array)
        except OSError as error:
            said = f"no room in {kept.place} for its samples ({error.strerror})"
            raise InputError(
                f"{source.name}: {said}. Use fewer with ⟨samples⟩, or a ⟨checkpoint_dir⟩ with room."
            ) from error
    merged = [_merged(like, sum(counts), kept, source.declared) for like, counts in shelves]
    return [
        replace(shelf, labels=np.concatenate(entries[k])) if k in entries else shelf
        for k, shelf in enumerate(merged, 1)
    ]


def _kind(batch: Batch, declared: Declared) -> object:
    """What samples on one shelf have in common."""
    parts = [(name, array.shape[1:], array.dtype) for name, array in _parts(batch, declared).items()]
    fixed = [array for name, array in batch.inputs.items() if declared.inputs[name].axis is None]
    return parts, structured(batch.labels), [(array.shape, array.tobytes()) for array in fixed]


def _parts(batch: Batch, declared: Declared) -> dict[str | None, Array]:
    """What differs from sample to sample, samples first; labels that are rows under ``None``."""
    axes = {name: one.axis for name, one in declared.inputs.items()}
    parts: dict[str | None, Array] = {
        name: np.moveaxis(array, axis, 0) for name, array in batch.inputs.items() if (axis := axes[name]) is not None
    }
    return parts if batch.labels is None or structured(batch.labels) else {**parts, None: batch.labels}


def _merged(like: Batch, count: int, kept: MappedBuffer, declared: Declared) -> Batch:
    """The next samples in the file, so many that are like those of a batch."""
    parts = {name: kept.take(name, array, count) for name, array in _parts(like, declared).items()}
    inputs = {
        name: array if (axis := declared.inputs[name].axis) is None else np.moveaxis(parts[name], 0, axis)
        for name, array in like.inputs.items()
    }
    return Batch(inputs, parts.get(None), count)


def _split(shelves: Iterable[Shelf], count: int, declared: Declared) -> tuple[list[Shelf], list[Shelf]]:
    """So many samples, and the others; nothing is read."""
    first: list[Shelf] = []
    rest: list[Shelf] = []
    for shelf in shelves:
        here = max(min(count, shelf.count), 0)
        count -= here
        first += [_between(shelf, declared, 0, here)] if here else []
        rest += [_between(shelf, declared, here, shelf.count)] if here < shelf.count else []
    return first, rest


def _between(shelf: Shelf, declared: Declared, start: int, stop: int) -> Shelf:
    """Samples from one place up to another, where they lie."""
    if isinstance(shelf, Unread):
        return shelf.part(start, stop)
    inputs = {
        name: array
        if (axis := declared.inputs[name].axis) is None
        else np.moveaxis(np.moveaxis(array, axis, 0)[start:stop], 0, axis)
        for name, array in shelf.inputs.items()
    }
    return Batch(inputs, None if shelf.labels is None else shelf.labels[start:stop], stop - start)


def portions(pool: SampleStore, size: int) -> Iterator[Batch]:
    """All samples of a pool in order, in batches that the model takes; what a fixed batch leaves over is dropped."""
    size = pool.declared.batch or size
    chunks = (
        pool.take(shelf, rows)
        for shelf, held in enumerate(pool.shelves)
        for rows in np.array_split(np.arange(held.count), range(size, held.count, size))
    )
    return regroup(chunks, pool.declared, size)


def tensors(batch: Batch, device: torch.device) -> tuple[dict[str, Tensor], Any]:
    """Inputs and labels of a batch as tensors."""
    for name, array in batch.inputs.items():
        if array.dtype.kind in "OSU":
            raise InputError(f"input {name}: is text, and training takes numbers only. Cut the model behind it.")
    inputs = {name: _tensor(array).to(device) for name, array in batch.inputs.items()}
    labels = batch.labels
    return inputs, None if labels is None else collated(labels, lambda array: _tensor(array).to(device))


def _tensor(array: Array) -> Tensor:
    plain = array.astype(np.float32) if array.dtype.kind == "V" else array
    return torch.from_numpy(np.ascontiguousarray(plain))
