"""Groups: the columns of a coupling gathered into what a plan decides on, named by their first parameter axis."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from onnxslim_learn.array_types import Labels
from onnxslim_learn.coupling.relations import Pin
from onnxslim_learn.coupling.solver import Coupling
from onnxslim_learn.errors import InputError
from onnxslim_learn.readers import pattern

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from onnxslim_learn.array_types import Array, Labels
    from onnxslim_learn.coupling.residual import Block
    from onnxslim_learn.coupling.solver import Coupling

Codes = np.ndarray[Any, np.dtype[np.uint64]]

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Occurrence:
    """A label array in which columns occur: a parameter axis, or (unnamed) fresh atoms such as rows."""

    name: str
    columns: Labels
    positions: Labels


def find(coupling: Coupling) -> list[Group]:
    """All groups of a coupling in order of their first parameter.

    Columns that occur in the same label arrays and have the same pin are one group: its units are exchangeable but
    for the rows they sit in. Columns of which rows that keep equal counts would lose unequally join those that even it
    out (query and key with value, in a packed projection): one group of several strata.
    """
    places = _places(coupling)
    first, position = _first_occurrence(coupling, places)
    label, used = _same_places(coupling, places)
    label = _balanced(coupling, label, used)
    strata = _strata(coupling)
    rows = np.zeros(coupling.columns, bool)
    rows[coupling.column[coupling.is_row]] = True
    members = _members(places, label, used)
    groups: list[Group] = []
    taken: set[str] = set()
    _, pins = coupling.pinned
    shares, rivals = _shares(coupling), coupling.rivals
    for number in range(int(label.max(initial=-1)) + 1):
        units = used[label == number]
        ordered = units[np.lexsort((position[units], first[units]))]
        member_axes = members.get(number, [])
        place = places[first[ordered[0]]]
        name = _name(place, ordered, int(position[ordered[0]])) if member_axes else _row_name(coupling, places, ordered)
        while name in taken:
            name += "'"
        taken.add(name)
        parts = tuple(np.flatnonzero(strata[ordered] == s) for s in np.unique(strata[ordered]))
        held = pins[ordered][pins[ordered] >= 0]
        pin = coupling.relations.pins[int(held[0])] if len(held) else None
        floor = math.ceil(len(ordered) * float(shares[ordered].max()) - 1e-9)
        is_row, fights = bool(rows[ordered].all()), bool(rivals[ordered].all())
        groups.append(Group(name, ordered, tuple(member_axes), parts, is_row, pin, max(1, floor), fights))
    return sorted(groups, key=lambda group: int(first[group.units[0]]))


def _places(coupling: Coupling) -> list[Occurrence]:
    """Parameter axes by name first, then fresh atoms."""
    used = dict.fromkeys(str(v.name) for node in coupling.nodes for v in node.inputs if v is not None)
    named = [
        (f"{name}:{axis}", digit.labels)
        for name in used
        if name in coupling.graph.initializers
        if name in coupling.values
        for axis, digits in enumerate(coupling.values[name].axes)
        for digit in digits
        if digit.labels is not None
    ]
    places = []
    for name, labels in [*named, *(("", labels) for _, labels in coupling.relations.leaves)]:
        atoms = labels.reshape(-1)
        columns, positions = np.unique(coupling.column[coupling.strong[atoms[atoms > 0]]], return_index=True)
        places.append(Occurrence(name, columns, positions))
    return places


def _first_occurrence(coupling: Coupling, places: list[Occurrence]) -> tuple[Labels, Labels]:
    """For every column, the first place it occurs in and where there."""
    first, position = np.full(coupling.columns, NEVER), np.full(coupling.columns, NEVER)
    for number, place in enumerate(places):
        fresh = first[place.columns] == NEVER
        first[place.columns[fresh]], position[place.columns[fresh]] = number, place.positions[fresh]
    return first, position


def _same_places(coupling: Coupling, places: list[Occurrence]) -> tuple[Labels, Labels]:
    """A label per occurring column, equal where columns occur in the same places and have the same pin."""
    random = np.random.default_rng(0)
    signature: Codes = np.zeros(coupling.columns, np.uint64)
    for place in places:
        signature[place.columns] += random.integers(1, 2**63, dtype=np.uint64)
    used = np.flatnonzero(signature)
    pins = (coupling.pinned[1][used] + 1).astype(np.uint64)
    _, label = np.unique(np.stack([signature[used], pins], axis=1), axis=0, return_inverse=True)
    return label.reshape(-1), used


def _balanced(coupling: Coupling, label: Labels, used: Labels) -> Labels:
    """Labels merged where, of the rows of a grid, some would lose more than others by one label alone."""
    number = np.full(coupling.columns, -1)
    number[used] = label
    pairs: list[tuple[int, int]] = []
    for grid in coupling.relations.grids:
        rows = len(grid.cells)
        row, where = np.nonzero(grid.cells > 0)
        labels = number[coupling.column[coupling.strong[grid.cells[row, where]]]]
        here, times = np.unique(labels * rows + row, return_counts=True)
        pairs_of_row, start, spread = np.unique(here // rows, return_index=True, return_counts=True)
        if rows > 1 and len(pairs_of_row) > 1:
            even = (spread == rows) & (np.maximum.reduceat(times, start) == np.minimum.reduceat(times, start))
            pairs += itertools.pairwise(pairs_of_row[~even].tolist())
    size = int(label.max(initial=-1)) + 1
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    ties = sp.coo_matrix((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(size, size))
    merged: Labels = np.asarray(connected_components(ties, directed=False)[1], np.int64)
    return merged[label]


def _strata(coupling: Coupling) -> Codes:
    """A number per column: equal where columns sit in the same rows of all grids."""
    random = np.random.default_rng(1)
    strata: Codes = np.zeros(coupling.columns, np.uint64)
    for grid in coupling.relations.grids:
        if len(grid.cells) > 1:
            rows = len(grid.cells)
            codes = random.integers(1, 2**63, rows, dtype=np.uint64)
            row, where = np.nonzero(grid.cells > 0)
            columns = coupling.column[coupling.strong[grid.cells[row, where]]]
            pairs, times = np.unique(columns * rows + row, return_counts=True)
            _, start, spread = np.unique(pairs // rows, return_index=True, return_counts=True)
            even = (spread == rows) & (np.maximum.reduceat(times, start) == np.minimum.reduceat(times, start))
            uneven = ~np.repeat(even, spread)  # a column that all rows have alike leaves them in step by itself
            np.add.at(strata, pairs[uneven] // rows, codes[pairs[uneven] % rows])
    return strata


def _shares(coupling: Coupling) -> Array:
    """For every column the share of the units beside it that must stay."""
    shares = np.zeros(coupling.columns)
    for grid in coupling.relations.grids:
        if grid.least > 1:
            columns = coupling.column[coupling.strong[grid.cells[grid.cells > 0]]]
            shares[columns] = np.maximum(shares[columns], grid.least / grid.cells.shape[1])
    return shares


def _members(places: list[Occurrence], label: Labels, used: Labels) -> dict[int, list[str]]:
    """Group label -> names of the parameter axes that carry it."""
    members: dict[int, list[str]] = {}
    for place in places:
        if place.name:
            for group in np.unique(label[np.searchsorted(used, place.columns)]):
                members.setdefault(int(group), []).append(place.name)
    return members


def _name(place: Occurrence, units: Labels, position: int) -> str:
    """The first parameter axis, and the first position there if others share it."""
    return place.name if len(place.columns) == len(units) else f"{place.name}@{position}"


def _row_name(coupling: Coupling, places: list[Occurrence], rows: Labels) -> str:
    """The first parameter axis that carries cells of the rows, and how many rows there are."""
    chosen = np.isin(coupling.column, rows)
    inside = np.unique(coupling.column[coupling.membership[:, np.flatnonzero(chosen)].nonzero()[0]])
    for place in places:
        if place.name and np.isin(place.columns, inside).any():
            return f"{place.name}/{len(rows)}"
    return f"fresh/{len(rows)}"


@dataclass(frozen=True)
class Group:
    """Units that a plan keeps or removes.

    Attributes:
        name: Its first parameter axis, ``initializer:axis``, with what tells it from others on that axis.
        units: Column of each unit, in order of position.
        members: Parameter axes that carry its units.
        strata: Units that must lose in proportion, as index arrays over ``units`` (one array if they are free).
        rows: Whether a unit is a whole row (an attention head, a convolution group).
        pin: Why it cannot go, or ``None``.
        floor: How many units must stay.
        competes: Whether its units compete, so that what one had others get (experts).
    """

    name: str
    units: Labels
    members: tuple[str, ...]
    strata: tuple[Labels, ...]
    rows: bool
    pin: Pin | None
    floor: int = 1
    competes: bool = False

    def __repr__(self) -> str:
        held = "" if self.pin is None else f", {self.pin.reason}"
        return f"<Group {self.name}: {self.width} units{held}>"

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.units)

    def lies_in(self, initializers: Container[str]) -> bool:
        """Whether all parameters that carry its units are among some."""
        return bool(self.members) and all(axis.rpartition(":")[0] in initializers for axis in self.members)

    @property
    def levels(self) -> int:
        """Number of equal steps from empty to full that keep all strata in proportion."""
        return int(np.gcd.reduce([len(s) for s in self.strata]))

    @property
    def spare(self) -> int:
        """How many of these steps it may lose."""
        return (self.width - self.floor) * self.levels // self.width


def expression(option: str, text: str) -> re.Pattern[str]:
    """Compile what an option gives as a regular expression.

    Raises:
        InputError: If it is none.
    """
    try:
        return re.compile(pattern(text))
    except ValueError as error:
        raise InputError(f"{option} {text}: {error}. Change it.") from error


def decidable(coupling: Coupling, groups: Sequence[Group]) -> list[Group]:
    """The groups with the reason filled in for those that cannot lose any unit alone."""
    result = []
    for group in groups:
        if group.pin is None:
            reason = _refusal(coupling, group)
            pin = Pin(-2, np.zeros(0, np.int64), reason, weak=False) if reason else None
            result.append(replace(group, pin=pin))
        else:
            result.append(group)
    return result


def _presence(coupling: Coupling, block: Block) -> int:
    """The column of a block's presence, or -1 where it cannot go."""
    return coupling.column_of(block) if block.atom else -1


def _refusal(coupling: Coupling, group: Group) -> str:
    """Why a group cannot lose one step of units, or an empty string."""
    levels = group.levels
    if levels < 2 and group.competes and group.width == 1:
        (block, *_) = [*(b for b in coupling.blocks if _presence(coupling, b) == group.units[0]), None]
        return f"goes with residual block {block.name}" if block else "has a branch of its own, which no sum adds up"
    if levels < 2:
        return _indivisible(coupling, group)
    removed = np.zeros(coupling.columns, bool)
    for part in group.strata:
        removed[group.units[part[: len(part) // levels]]] = True
    faults = coupling.faults(coupling.close(removed))
    return faults[0] if faults else ""


def _indivisible(coupling: Coupling, group: Group) -> str:
    """Why a group goes as a whole or not at all, and does not go."""
    if group.width == 1:
        return "has one unit only"
    sizes = [len(part) for part in group.strata]
    if min(sizes) < max(sizes):
        return f"has rows of {min(sizes)} to {max(sizes)} units, which can only lose in proportion"
    removed = np.zeros(coupling.columns, bool)
    removed[group.units] = True
    gone = coupling.close(removed)
    if coupling.is_row[gone].any():
        return "has rows of which each would lose its last unit"
    faults = coupling.faults(gone)
    return faults[0] if faults else "has one unit in each of its rows, beside others: all of them go or none"
