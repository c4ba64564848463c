"""The slices of every weight that belong to a unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.costs.polynomial import parameters
from onnxslim_learn.graph.load import release
from onnxslim_learn.rewrite.merge import fronted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxslim_learn.coupling.solver import Coupling


BLOCK = 1 << 18  # numbers that are converted to single precision at a time; they fit into a core's cache

Numbers = Callable[[Array], Array]  # of as many numbers in single precision


@dataclass(frozen=True)
class Slices:
    """One labelled digit of one parameter, whose elements are rows, one per label, of everything else.

    Attributes:
        name: The parameter.
        labels: The digit's labels.
        summed: Whether a contraction sums over the digit, so that rows are what consumers multiply a unit by.
        whole: All numbers, in the type of the file, with axes for the labels first.
    """

    name: str
    labels: Labels
    summed: bool
    whole: Array

    @property
    def others(self) -> int:
        """Numbers of a row."""
        return self.whole.size // max(self.labels.size, 1)

    @property
    def array(self) -> Array:
        """All numbers in single precision, one row per label."""
        return np.asarray(self.whole, np.float32).reshape(self.labels.size, -1)

    def sums(self, function: Numbers = np.asarray) -> Array:
        """Sum of a function of its numbers for every row, taken block by block: no copy of the whole is made."""
        whole, count = self.whole, self.labels.ndim
        along = int(np.argmax(whole.strides)) if whole.ndim else 0
        step = max(1, BLOCK * whole.shape[along] // max(whole.size, 1))
        total = np.zeros(whole.shape[:count])
        for start in range(0, whole.shape[along], step):
            here = (*[slice(None)] * along, slice(start, start + step))
            part = function(np.asarray(whole[here], np.float32)).sum(axis=tuple(range(count, whole.ndim)))
            total[here if along < count else ...] += part
        return total.reshape(-1)


def slices(coupling: Coupling, *, least_rank: int = 1, held: bool = True) -> Iterator[Slices]:
    """Every labelled digit of every floating parameter, as rows of its elements.

    Weights in external files are let go of as the next ones are read: hold on to none of them.

    Args:
        coupling: The model.
        least_rank: Fewest axes of a parameter.
        held: Whether digits count, too, of which nothing can ever go.
    """
    inputs, before = coupling.summed, None
    for name, value in parameters(coupling).items():
        layout = coupling.values.get(name)
        if layout is None or len(layout.axes) < least_rank:
            continue
        digits = [d for d in layout.digits.values() if d.labels is not None and (held or _can_go(coupling, d.labels))]
        if not digits:
            continue
        array = value.const_value.numpy()
        for digit in digits:
            assert digit.labels is not None
            axis = next(a for a, axis in enumerate(layout.axes) if digit in axis)
            yield Slices(name, digit.labels, axis in inputs.get(name, ()), fronted(array, layout, digit))
            release(before)  # of what came before this weight nobody has a slice any more
        before = value.const_value


def _can_go(coupling: Coupling, labels: Labels) -> bool:
    """Whether any of these may go, by itself or with a row."""
    classes = coupling.strong[labels[labels > 0]]
    return bool((coupling.pinned[0][classes] < 0).any())


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
