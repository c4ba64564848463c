"""A batch of samples."""

from __future__ import annotations

from dataclasses import dataclass

from onnxslim_learn.array_types import Array


@dataclass(frozen=True)
class Batch:
    """Samples that go through a model together.

    Attributes:
        inputs: Graph input -> array, of the type the model declares.
        labels: What the outputs should be, a row or entry for each sample (:mod:`onnxslim_learn.labels`), or ``None``.
        count: Number of samples.
    """

    inputs: dict[str, Array]
    labels: Array | None
    count: int
