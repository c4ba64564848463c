"""A set of classes that goes: what a patch, a slice or a mask asks of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Labels, Mask
from onnxslim_learn.coupling.relations import Digit, Value, in_rows, over, row_atoms, rows_of
from onnxslim_learn.coupling.solver import Coupling
from onnxslim_learn.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.coupling.residual import Block


@dataclass(frozen=True)
class Removal:
    """A closed set of removed classes: what a patch, a slice or a mask asks (see :class:`records.Cut`).

    Attributes:
        coupling: The model.
        gone: Which classes go.
        merged_into: For every class the one that stands for it, itself where it stays or nothing stands for it;
            ``None`` if no units are merged (:mod:`onnxslim_learn.rewrite.merge`).
    """

    coupling: Coupling
    gone: Mask
    merged_into: Labels | None = None

    def kept(self, digit: Digit) -> Mask:
        """Which labels of a digit stay, shape of its labels."""
        assert digit.labels is not None
        return ~self.coupling.removed(digit.labels, self.gone)

    @cached_property
    def dropped(self) -> list[Block]:
        """The residual blocks that go as a whole."""
        strong = self.coupling.strong
        return [block for block in self.coupling.blocks if block.atom and self.gone[strong[block.atom]]]

    @cached_property
    def without(self) -> set[str]:
        """The initializers that go as a whole: only residual blocks read them that go."""
        nodes = {node for block in self.dropped for node in block.nodes}
        readers = self.coupling.readers if nodes else {}
        return {
            name for name in self.coupling.graph.initializers if nodes and nodes.issuperset(readers.get(name, (-1,)))
        }

    @cached_property
    def exact(self) -> bool:
        """Whether no axis that is normalised over loses a position in a row that stays."""
        for record in self.coupling.records.delicate:
            for axis in record.axes:
                for digit in record.value.axes[axis]:
                    if digit.labels is not None:
                        kept = in_rows(record.value.digits, digit, self.kept(digit))
                        if not kept[self._alive(record.value, digit)].all():
                            return False
        return True

    def width(self, value: Value, digit: Digit) -> int:
        """How many indices of a digit stay in every kept row."""
        if digit.labels is None:
            return digit.size
        if not digit.deps:
            return int(np.count_nonzero(self.kept(digit)))
        counts = in_rows(value.digits, digit, self.kept(digit)).sum(axis=1)[self._alive(value, digit)]
        return int(counts[0]) if len(counts) else 0

    def _alive(self, value: Value, digit: Digit) -> Mask:
        """Which rows of a digit (:func:`relations.in_rows`) stay."""
        sizes = {d.key: d.size for d in value.digits.values()}
        alive = np.ones(math.prod([sizes[k] for k in rows_of(value.digits, digit.deps)]), bool)
        for atoms in row_atoms(value.digits, digit):
            alive &= ~self.coupling.removed(atoms, self.gone)
        return alive

    def size(self, value: Value, axis: int) -> int:
        """New length of an axis."""
        return int(np.prod([self.width(value, digit) for digit in value.axes[axis]], dtype=np.int64))

    def emptied(self, value: Value, axis: int) -> bool:
        """Whether nothing is left of an axis that had something."""
        able = [digit for digit in value.axes[axis] if digit.labels is not None]
        return value.shape[axis] > 0 and any(self.width(value, digit) == 0 for digit in able)

    def keep(self, value: Value, axis: int) -> Mask:
        """Which positions of an axis stay; where rows of other axes differ, those of the first row that stays."""
        rows, alive = self.positions(value, axis)
        result: Mask = rows[alive][0] if alive.any() else np.zeros(rows.shape[1], bool)
        return result

    def positions(self, value: Value, axis: int) -> tuple[Mask, Mask]:
        """Which positions of an axis stay in every row of the other axes that it depends on, and which rows stay.

        Returns:
            ``(rows, positions)`` and ``(rows,)``.
        """
        digits = value.digits
        keys = [d.key for d in value.axes[axis]]
        outside = [k for k in rows_of(digits, keys) if k not in keys]
        order, sizes = [*outside, *keys], {key: d.size for key, d in digits.items()}
        keep, alive = np.ones([sizes[k] for k in order], bool), np.ones([sizes[k] for k in outside], bool)
        for digit in (digits[k] for k in order if digits[k].labels is not None):
            inside = digit.key in keys
            kept = over(self.kept(digit), [*digit.deps, digit.key], order if inside else outside, sizes)
            if inside:
                keep &= kept
            else:
                alive &= kept
        return keep.reshape(alive.size, -1), alive.reshape(-1)


def removal(coupling: Coupling, columns: Iterable[int], *, empty: bool = False) -> Removal:
    """The closure of a set of columns, checked; ``empty`` allows whole branches to go.

    Raises:
        PlanError: If it breaks a constraint.
    """
    chosen = np.zeros(coupling.columns, bool)
    chosen[list(columns)] = True
    gone = coupling.close(chosen)
    faults = coupling.faults(gone, empty=empty)
    if faults:
        raise PlanError(f"{faults[0]}. Choose other positions.")
    return Removal(coupling, gone)
