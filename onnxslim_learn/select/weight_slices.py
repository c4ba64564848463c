"""The slices of every weight that belong to a unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.costs.polynomial import parameters
from onnxslim_learn.graph.load import release
from onnxslim_learn.rewrite.merge import front

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxslim_learn.array_types import Labels
    from onnxslim_learn.coupling.solver import Coupling


@dataclass(frozen=True)
class Slices:
    """One labelled digit of one parameter: an array brought to (labels..., everything else)."""

    name: str
    labels: Labels
    array: Array
    summed: bool


def slices(coupling: Coupling, *, least_rank: int = 1) -> Iterator[Slices]:
    """Every labelled digit of every floating parameter, as rows of its elements.

    ``summed`` says whether a contraction sums over the digit, so that the rows are what consumers multiply a unit by.
    Weights in external files are let go of as the next ones are read: hold on to none of them.
    """
    inputs, before = coupling.summed, None
    for name, value in parameters(coupling).items():
        layout = coupling.values.get(name)
        if layout is None or len(layout.axes) < least_rank:
            continue
        if not any(d.labels is not None for d in layout.digits.values()):
            continue
        array = np.asarray(value.const_value.numpy(), np.float32)
        for axis, digits in enumerate(layout.axes):
            for digit in digits:
                if digit.labels is not None:
                    yield Slices(name, digit.labels, front(array, layout, digit), axis in inputs.get(name, ()))
                    release(before)  # of what came before this weight nobody has a slice any more
        before = value.const_value


class _Sums:
    """Sums per column, with the count of what was added."""

    def __init__(self, coupling: Coupling) -> None:
        self.coupling = coupling
        self.total = np.zeros(coupling.columns)
        self.count = np.zeros_like(self.total)

    def add(self, labels: Labels, values: Array) -> None:
        atoms = labels.reshape(-1)
        columns = self.coupling.column[self.coupling.strong[atoms[atoms > 0]]]
        np.add.at(self.total, columns, values[atoms > 0])
        np.add.at(self.count, columns, 1)

    def mean(self) -> Array:
        result: Array = self.total / np.maximum(self.count, 1)
        return result
