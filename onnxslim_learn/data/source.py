"""A source of samples: batches that a model accepts, as often as they are asked for, always the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.data.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from onnxslim_learn.data.signature import Declared


@dataclass(frozen=True)
class Source:
    """Where samples come from.

    Attributes:
        name: What it is, in words for a report.
        synthetic: Whether the samples are made up.
        count: Number of samples, or ``None`` where only reading tells.
        labelled: Whether batches have labels.
        stream: Starts over and yields all batches.
        declared: What the model declares.
        pick: The samples at some places of that order, where each can be read by itself; or ``None``.
        doubts: Why the samples are hardly what the model was made for, in sentences.
        blocks: How many samples of that order, one block after the other, are best read together; empty where it does
            not matter.
        cure: The options that cure these doubts, by name.
    """

    name: str
    synthetic: bool
    count: int | None
    labelled: bool
    stream: Callable[[], Iterator[Batch]]
    declared: Declared
    pick: Callable[[Array], Batch] | None = None
    doubts: tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()
    cure: Mapping[str, str] = field(default_factory=dict)

    def used(self, judged: int, fitted: int, *, held_back: bool = True) -> dict[str, Any]:
        """How many samples judge a result and how many it was fitted to, as reports tell of them."""
        inputs = "made-up" if self.synthetic else "given"
        told = {"data": self.name, "samples": judged, "doubts": list(self.doubts), "cure": dict(self.cure)}
        return {**told, "fitted": fitted, "held_back": held_back, "inputs": inputs}

    def batches(self, limit: int | None = None) -> Iterator[Batch]:
        """The batches from the start, the same every time.

        Args:
            limit: Stop after so many samples; where the model fixes the batch, after the batch that reaches it.

        Raises:
            InputError: If what is read does not fit the model.
        """
        return limited(self.stream(), self.declared, limit)


def limited(batches: Iterable[Batch], declared: Declared, limit: int | None) -> Iterator[Batch]:
    """The first so many samples; see :meth:`Source.batches`."""
    left = np.inf if limit is None else limit
    for batch in batches:
        whole = declared.batch is not None or batch.count <= left
        yield batch if whole else part(batch, declared, 0, int(left))
        left -= batch.count
        if left <= 0:
            return


def part(batch: Batch, declared: Declared, start: int, stop: int) -> Batch:
    """The samples from one position up to another, where they lie."""
    rows = slice(start, stop)
    inputs = {
        name: array if (axis := declared.inputs[name].axis) is None else array[(slice(None),) * axis + (rows,)]
        for name, array in batch.inputs.items()
    }
    return Batch(inputs, None if batch.labels is None else batch.labels[rows], stop - start)


def regroup(chunks: Iterable[Batch], declared: Declared, size: int) -> Iterator[Batch]:
    """Batches of one size from batches of any; samples of different shapes never share one.

    Args:
        chunks: Samples in portions of any size.
        declared: What the model declares; where it fixes the batch, that is the size, and what is left over is dropped.
        size: Samples in a batch where the model leaves that open.
    """
    size = declared.batch or size
    held: Batch | None = None
    for chunk in chunks:
        if held is not None and not _alike(held, chunk, declared):
            yield from _rest(held, declared)
            held = None
        held = chunk if held is None else _joined(held, chunk, declared)
        while held.count >= size:
            yield part(held, declared, 0, size)
            held = part(held, declared, size, held.count)
        held = held if held.count else None
    if held is not None:
        yield from _rest(held, declared)


def _rest(held: Batch, declared: Declared) -> Iterator[Batch]:
    if held.count and declared.batch is None:
        yield held


def _alike(one: Batch, other: Batch, declared: Declared) -> bool:
    """Whether two portions can be joined: same sizes but for the number of samples, same constant inputs."""
    for name, a in one.inputs.items():
        b, axis = other.inputs[name], declared.inputs[name].axis
        if axis is None:
            if not np.array_equal(a, b):
                return False
        elif a.shape[:axis] + a.shape[axis + 1 :] != b.shape[:axis] + b.shape[axis + 1 :]:
            return False
    return _row(one.labels) == _row(other.labels)


def _row(labels: Array | None) -> tuple[int, ...] | None:
    return None if labels is None else labels.shape[1:]


def _joined(one: Batch, other: Batch, declared: Declared) -> Batch:
    inputs = {
        name: a if (axis := declared.inputs[name].axis) is None else np.concatenate((a, other.inputs[name]), axis)
        for name, a in one.inputs.items()
    }
    labels = None if one.labels is None or other.labels is None else np.concatenate((one.labels, other.labels))
    return Batch(inputs, labels, one.count + other.count)
