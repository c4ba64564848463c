"""Digits and values, and the relations between atoms that operators append to.

A *digit* is a named mixed-radix factor of an axis; an axis is a tuple of digits, outermost first, and a size-1 axis has
none. A labelled digit carries one integer *atom* per index: what can be removed. A digit's labels may depend on outer
digits of the same value: splitting C into (H, D) gives H fresh row atoms and D cell labels that depend on H.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array, Labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


PINNED = 0  # the atom of positions that can never go
OUTPUT = -1  # in place of a node: graph outputs


@dataclass(frozen=True, slots=True)
class Digit:
    """One factor of an axis.

    Attributes:
        key: Identity within its value.
        size: Number of indices.
        labels: Atoms, shape ``(*sizes of deps, size)``, or ``None`` for a free digit (batch, space, tokens).
        deps: Keys of the digits of the same value that the labels depend on.
    """

    key: int
    size: int
    labels: Labels | None = None
    deps: tuple[int, ...] = ()


Axis = tuple[Digit, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """The layout of a tensor: one tuple of digits per axis."""

    axes: tuple[Axis, ...]

    @property
    def digits(self) -> dict[int, Digit]:
        """All digits by key, in axis order."""
        return {digit.key: digit for axis in self.axes for digit in axis}

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(math.prod(d.size for d in axis) for axis in self.axes)

    @property
    def firm(self) -> set[int]:
        """Keys of the digits that are labelled or that labels depend on; what is left of an axis may be open."""
        return {key for d in self.digits.values() if d.labels is not None for key in (d.key, *d.deps)}


def over(labels: Array, keys: Sequence[int], target: Sequence[int], sizes: Mapping[int, int]) -> Array:
    """Broadcast an array with one axis per key of ``keys`` to one per key of ``target`` (which has them all)."""
    order = sorted(range(len(keys)), key=lambda i: target.index(keys[i]))
    shape = [sizes[k] if k in keys else 1 for k in target]
    return np.broadcast_to(labels.transpose(order).reshape(shape), [sizes[k] for k in target])


def rows_of(known: Mapping[int, Digit], deps: Iterable[int]) -> tuple[int, ...]:
    """Keys that these depend on, and those in turn, outermost first."""
    keys_above: list[int] = []
    for key in deps:
        keys_above += [k for k in (*rows_of(known, known[key].deps), key) if k not in keys_above]
    return tuple(keys_above)


def row_atoms(known: Mapping[int, Digit], digit: Digit) -> tuple[Labels, ...]:
    """Atoms of the rows a digit's labels depend on, one flat array per labelled digit of :func:`rows_of`."""
    rows, sizes = rows_of(known, digit.deps), {key: d.size for key, d in known.items()}
    labelled = ((key, known[key]) for key in rows)
    return tuple(over(d.labels, (*d.deps, k), rows, sizes).reshape(-1) for k, d in labelled if d.labels is not None)


def lacked(known: Mapping[int, Digit], deps: Sequence[int], have: Iterable[int], size: int) -> list[Labels]:
    """Row atoms of those of ``deps`` that are not in ``have``, each broadcast to ``(*deps, size)``."""
    sizes, rest = {key: d.size for key, d in known.items()} | {-1: size}, set(have)
    rows = [(key, known[key]) for key in deps if key not in rest]
    inside = [(k, d) for k, d in rows if d.labels is not None and set(d.deps) <= set(deps)]
    return [over(d.labels, (*d.deps, k), (*deps, -1), sizes) for k, d in inside if d.labels is not None]


def in_rows(known: Mapping[int, Digit], digit: Digit, labels: Array) -> Array:
    """An array ``(*deps, n)`` over a digit as rows × n, in the rows of :func:`row_atoms`."""
    rows, size = rows_of(known, digit.deps), labels.shape[-1]
    sizes = {key: d.size for key, d in known.items()} | {-1: size}
    return over(labels, (*digit.deps, -1), (*rows, -1), sizes).reshape(-1, size)


@dataclass(frozen=True, slots=True)
class Part:
    """A factor of an axis as a mask sees it: a digit (``key``), or a run of digits that it says nothing about."""

    axis: int
    size: int
    key: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The axes that a mask speaks of, in parts; an axis whose size is open must have one run at most, the open one.

    Attributes:
        parts: In the order of the axes.
        rank: Number of axes of the tensor.
        varying: Axes whose size is open.
    """

    parts: tuple[Part, ...]
    rank: int
    varying: frozenset[int]

    @property
    def keys(self) -> list[int]:
        """The digits that it speaks of, in order."""
        return [part.key for part in self.parts if part.key is not None]

    @property
    def axes(self) -> set[int]:
        """The axes that it speaks of."""
        return {part.axis for part in self.parts}

    @property
    def undecided(self) -> set[int]:
        """Open axes of which several runs might be what is open."""
        runs = [part.axis for part in self.parts if part.key is None and part.axis in self.varying]
        return {axis for axis in runs if runs.count(axis) > 1}

    def fixed(self, axis: int) -> int:
        """Product of the digits of an axis that it speaks of."""
        return math.prod(part.size for part in self.parts if part.axis == axis and part.key is not None)

    def open_parts(self) -> list[bool]:
        """Which parts have a size that is known only at run time."""
        return [part.key is None and part.axis in self.varying for part in self.parts]

    def over(self, array: Array, keys: Sequence[int]) -> Array:
        """An array with one axis per key of ``keys`` as one with an axis per part: of length 1 along the others."""
        sizes = {part.key: part.size if part.key in keys else 1 for part in self.parts if part.key is not None}
        laid = over(array, keys, self.keys, sizes)
        return laid.reshape([1 if part.key is None else sizes[part.key] for part in self.parts])

    def laid(self, array: Array) -> Array:
        """An array over parts as one that broadcasts against the tensor, for axes that are not open."""
        full = np.broadcast_to(array, [part.size for part in self.parts])
        sizes = [1] * self.rank
        for part in self.parts:
            sizes[part.axis] *= part.size
        return full.reshape(sizes)


def parts(value: Value, needed: set[int], varying: Iterable[int] = ()) -> Parts:
    """The axes with one of some digits as those digits and the runs between them."""
    listed: list[Part] = []
    for a, axis in enumerate(value.axes):
        if needed.isdisjoint(d.key for d in axis):
            continue
        for run, digits in itertools.groupby(axis, lambda d: d.key if d.key in needed else None):
            listed.append(Part(a, math.prod(d.size for d in digits), run))
    return Parts(tuple(listed), len(value.axes), frozenset(varying))


@dataclass(frozen=True, slots=True)
class Relation:
    """Pairs of atoms related by one node: ``a`` and ``b`` are arrays of equal shape, and so are all of ``rows``.

    A pair whose row, in one of ``rows``, goes need not go together.
    """

    node: int
    a: Labels
    b: Labels
    rows: tuple[Labels, ...] = ()


@dataclass(frozen=True, slots=True)
class Pin:
    """Atoms that cannot go. Weak: not as a column, though a whole row still can.

    ``node`` is ``OUTPUT`` for graph outputs and -2 for what no node holds (a protected group, a refusal that names its
    node). A ``delicate`` one holds only what may be cut where results need not be exact.
    """

    node: int
    atoms: Labels
    reason: str
    weak: bool
    axis: str = ""
    delicate: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells of which kept rows must keep equal counts, and ``least`` at least, or what else is asked of rows.

    ``cells`` is rows × n; a row is kept while none of its atoms, one per array of ``rows``, is removed.
    """

    node: int
    cells: Labels
    rows: tuple[Labels, ...]
    least: int = 1


@dataclass
class Relations:
    """Fresh atoms and the relations between them, in the order operators state them.

    Attributes:
        node: Index of the node now being laid out; every relation remembers it.
        strong: Removed together, always.
        weak: Removed together as a column; a row removal ignores it.
        under: Those of the weak relations where ``a`` goes whenever ``b`` goes.
        member: ``a`` is a cell of row ``b``.
        pins: What cannot go and why.
        grids: Rows that keep equal counts.
        alike: Rows that keep the same cells, by their place.
        whole: Rows that keep all their cells.
        some: Sets of atoms of which one at least must stay.
        leaves: Label arrays as they were created, with a description of where.
    """

    node: int = -1
    count: int = 1
    strong: list[Relation] = field(default_factory=list)
    weak: list[Relation] = field(default_factory=list)
    under: list[Relation] = field(default_factory=list)
    member: list[Relation] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    alike: list[Grid] = field(default_factory=list)
    whole: list[Grid] = field(default_factory=list)
    some: list[tuple[int, Labels]] = field(default_factory=list)
    leaves: list[tuple[int, Labels]] = field(default_factory=list)
    splits: dict[tuple[int, int, bytes], Labels] = field(default_factory=dict)
    keys: Iterator[int] = field(default_factory=itertools.count)

    def fresh(self, *shape: int) -> Labels:
        """New atoms in an array of the given shape."""
        size = math.prod(shape)
        labels = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        self.leaves.append((self.node, labels))
        return labels

    def atom(self) -> int:
        """A new atom that lies on no axis: the presence of a residual block."""
        self.count += 1
        return self.count - 1

    def digit(self, size: int, labels: Labels | None = None, deps: Sequence[int] = ()) -> Digit:
        """A digit with a new key; labels that are all pinned make it free."""
        if labels is not None and not labels.any():
            labels = None
        return Digit(next(self.keys), size, labels, tuple(deps) if labels is not None else ())

    def axis(self, size: int) -> Axis:
        """A free axis."""
        return (self.digit(size),) if size != 1 else ()

    def free(self, shape: Iterable[int]) -> Value:
        """A value with no labels."""
        return Value(tuple(self.axis(size) for size in shape))

    def tie(self, a: Labels, b: Labels) -> None:
        """State that ``a`` and ``b`` (broadcast against each other) are removed together, always."""
        self._relate(self.strong, a, b)

    def tie_columns(self, fine: Labels, coarse: Labels, rows: Sequence[Labels], *, under: bool = True) -> None:
        """State that cells and labels that lack the cells' rows go together, except that a row takes its cells only.

        Args:
            fine: The cells.
            coarse: What they meet.
            rows: The rows of the cells that ``coarse`` lacks, broadcast against them.
            under: Whether the cells go wherever it goes; else both are cells.
        """
        count = len(self.weak)
        self._relate(self.weak, fine, coarse, rows)
        if under:
            self.under += self.weak[count:]

    def place(self, cells: Labels, rows: Labels) -> None:
        """State that each cell belongs to the row it is broadcast against; a row with a pinned one cannot go."""
        cells, rows = (array.reshape(-1) for array in np.broadcast_arrays(cells, rows))
        held = np.unique(rows[cells == PINNED])
        if held.any():
            self.pins.append(Pin(self.node, held, "has rows with positions that cannot go", weak=False))
        self.member.append(Relation(self.node, cells, rows))

    def pin(
        self, digit: Digit, reason: str, known: Mapping[int, Digit], axis: str = "", *, delicate: bool = False
    ) -> None:
        """Forbid removal along a digit; if it depends on rows (by key in ``known``), from every row that stays."""
        if digit.labels is not None:
            self.pins.append(Pin(self.node, digit.labels.reshape(-1), reason, bool(digit.deps), axis, delicate))
        if digit.labels is not None and digit.deps:
            self.whole.append(Grid(self.node, in_rows(known, digit, digit.labels), row_atoms(known, digit)))

    def pin_axes(self, value: Value, axes: Iterable[int], reason: str, *, delicate: bool = False) -> None:
        """Forbid removal along whole axes of a value."""
        known = value.digits
        for axis in axes:
            for digit in value.axes[axis]:
                self.pin(digit, reason, known, str(axis), delicate=delicate)

    def _relate(self, store: list[Relation], a: Labels, b: Labels, rows: Sequence[Labels] = ()) -> None:
        if a is b:
            return
        a, b, *rows = (array.reshape(-1) for array in np.broadcast_arrays(a, b, *rows))
        differ = a != b
        if not differ.any():
            return
        a, b, *rows = (array[differ] for array in (a, b, *rows))
        for one, other in ((a, b), (b, a)):
            pinned = one == PINNED
            if pinned.any():
                weak = store is self.weak
                self.pins.append(Pin(self.node, other[pinned], "meets positions that cannot go", weak))
                if weak:
                    self.whole.append(Grid(self.node, other[pinned][:, None], tuple(row[pinned] for row in rows)))
        both = (a != PINNED) & (b != PINNED)
        if both.any():
            store.append(Relation(self.node, a[both], b[both], tuple(row[both] for row in rows)))
