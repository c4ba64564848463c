"""What a set of removed classes may break, each kept by the classes it is about.

A removal is held against what it touches and nothing else, so that trying every group of a model in turn takes time in
step with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from onnxslim_learn.array_types import Array, Labels, Mask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.coupling.relations import Grid, Relation, Relations


@dataclass(frozen=True, slots=True)
class Constraint:
    """Something that must hold.

    Attributes:
        atoms: What it is about; a removal of none of these leaves it as it was.
        broken: What is wrong after a removal, in words, or an empty string; takes which classes went and whether parts
            and parameters may vanish as a whole.
    """

    atoms: Labels
    broken: Callable[[Mask, bool], str]


def linked(matrix: Any, rows: Labels, entries: Array | None = None) -> Array:
    """Column indices (or other entries of the places) of some rows of a CSR matrix, one row after the other."""
    first, count = matrix.indptr[rows], matrix.indptr[rows + 1] - matrix.indptr[rows]
    before = np.cumsum(count) - count
    places = np.repeat(first - before, count) + np.arange(int(count.sum()))
    result: Array = (matrix.indices if entries is None else entries)[places]
    return result


def incidence(rows: Labels, columns: Labels, shape: tuple[int, int]) -> Any:
    """CSR matrix with a one at each of these places."""
    matrix = sp.coo_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=shape).tocsr()
    matrix.data[:] = 1  # places given twice were added up
    return matrix


class Constraints:
    """All that relations and parameters ask for but pins, in the order in which it is told.

    Attributes:
        strong: Class of every atom.
        where: A node by its index, in words.
        listed: The constraints.
    """

    def __init__(
        self,
        relations: Relations,
        parameters: Iterable[tuple[str, Labels]],
        strong: Labels,
        where: Callable[[int], str],
    ) -> None:
        """Take up relations, and parameters by name with the labels of each of their digits."""
        self.strong, self.where = strong, where
        self.listed = list(self._all(relations, parameters))

    def broken(self, gone: Mask, *, empty: bool) -> list[str]:
        """What a removal breaks, in words.

        Args:
            gone: Which classes go.
            empty: Whether parts and parameters may vanish as a whole.
        """
        touched = np.unique(linked(self._by_class, np.flatnonzero(gone)))
        return [said for number in touched if (said := self.listed[number].broken(gone, empty))]

    @cached_property
    def _by_class(self) -> Any:
        """Sparse matrix, classes × constraints about them."""
        atoms = [constraint.atoms.reshape(-1) for constraint in self.listed]
        numbers = np.repeat(np.arange(len(atoms)), [len(a) for a in atoms])
        flat = np.concatenate([np.zeros(0, np.int64), *atoms])
        shape = (int(self.strong.max()) + 1, max(1, len(atoms)))
        return incidence(self.strong[flat[flat > 0]], numbers[flat > 0], shape)

    def _all(self, relations: Relations, parameters: Iterable[tuple[str, Labels]]) -> Iterator[Constraint]:
        for grid in relations.grids:
            yield Constraint(_of_grid(grid), partial(self._uneven, grid))
        for grid in relations.alike:
            yield Constraint(_of_grid(grid), partial(self._unlike, grid))
        for grid in relations.whole:
            yield Constraint(_of_grid(grid), partial(self._partial, grid))
        for relation in relations.weak:
            atoms = np.concatenate([relation.a, relation.b, *relation.rows])
            yield Constraint(atoms, partial(self._misaligned, relation))
        for node, atoms in relations.some:
            if (atoms > 0).all():
                yield Constraint(atoms, partial(self._vanished, node, atoms))
        for name, labels in parameters:
            if labels.all():
                yield Constraint(labels, partial(self._nothing_left, name, labels))

    def _removed(self, labels: Labels, gone: Mask) -> Mask:
        result: Mask = gone[self.strong[labels]] & (labels > 0)
        return result

    def _uneven(self, grid: Grid, gone: Mask, empty: bool) -> str:
        counts = self._kept(grid, gone).sum(axis=1)
        if not len(counts) or (empty and not counts.any()):
            return ""
        if counts.min() != counts.max():
            return f"{self.where(grid.node)}: its rows must keep equally many, not {counts.min()} to {counts.max()}"
        if counts.min() < grid.least:
            return f"{self.where(grid.node)}: {grid.least} of its units must stay, not {counts.min()}"
        return ""

    def _unlike(self, grid: Grid, gone: Mask, empty: bool) -> str:
        kept = self._kept(grid, gone)
        return f"{self.where(grid.node)}: its rows must keep the same positions" if (kept != kept[:1]).any() else ""

    def _partial(self, grid: Grid, gone: Mask, empty: bool) -> str:
        if self._kept(grid, gone).all():
            return ""
        return f"{self.where(grid.node)}: removes single positions from rows that keep all"

    def _misaligned(self, relation: Relation, gone: Mask, empty: bool) -> str:
        wrong = gone[self.strong[relation.a]] != gone[self.strong[relation.b]]
        for rows in relation.rows:
            wrong &= ~self._removed(rows, gone)
        return f"{self.where(relation.node)}: positions that meet would not go together" if wrong.any() else ""

    def _vanished(self, node: int, atoms: Labels, gone: Mask, empty: bool) -> str:
        if empty or not gone[self.strong[atoms]].all():
            return ""
        return f"{self.where(node)}: nothing would be left of a part"

    def _nothing_left(self, name: str, labels: Labels, gone: Mask, empty: bool) -> str:
        return "" if empty or not self._removed(labels, gone).all() else f"{name}: nothing would be left of it"

    def _kept(self, grid: Grid, gone: Mask) -> Mask:
        """Which cells of a grid stay, in the rows that stay."""
        kept = ~self._removed(grid.cells, gone)
        alive = np.ones(len(kept), bool)
        for rows in grid.rows:
            alive &= ~self._removed(rows, gone)
        return kept[alive]


def _of_grid(grid: Grid) -> Labels:
    return np.concatenate([grid.cells.reshape(-1), *(rows.reshape(-1) for rows in grid.rows)])
