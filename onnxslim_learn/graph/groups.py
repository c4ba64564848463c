"""Groups: the columns of a coupling gathered into what a plan decides on, named by their first parameter axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.graph.coupling import Coupling, Group

if TYPE_CHECKING:
    from onnxslim_learn.graph.layout import Labels


def find(coupling: Coupling) -> list[Group]:
    """All groups of a coupling in order of their first parameter.

    Columns that occur in the same label arrays and have the same pin are one group: its units are exchangeable but
    for the rows they sit in.
    """
    places, names = _places(coupling)
    columns = int(coupling.column.max()) + 1
    random = np.random.default_rng(0)
    signature = np.zeros(columns, np.uint64)
    first = np.full(columns, np.iinfo(np.int64).max)
    order = np.full(columns, np.iinfo(np.int64).max)
    for number, labels in enumerate(places):
        atoms = labels.reshape(-1)
        atoms = atoms[atoms > 0]
        found, where = np.unique(coupling.column[coupling.strong[atoms]], return_index=True)
        signature[found] += random.integers(1, 2**63, dtype=np.uint64)
        fresh = first[found] == np.iinfo(np.int64).max
        first[found[fresh]], order[found[fresh]] = number, where[fresh]
    used = np.flatnonzero(signature)
    _, pinned = coupling.pinned
    key = np.stack([signature[used].astype(np.uint64), (pinned[used] + 1).astype(np.uint64)], axis=1)
    _, label = np.unique(key, axis=0, return_inverse=True)
    label = label.reshape(-1)
    strata = _strata(coupling, columns)
    rows = np.zeros(columns, bool)
    rows[coupling.column[coupling.is_row]] = True
    members: dict[int, list[str]] = {}
    for number, labels in enumerate(places):
        if names[number]:
            atoms = labels.reshape(-1)
            touched = np.zeros(columns, bool)
            touched[coupling.column[coupling.strong[atoms[atoms > 0]]]] = True
            for group in np.unique(label[touched[used]]):
                members.setdefault(int(group), []).append(names[number])
    groups = []
    taken: set[str] = set()
    for group in range(int(label.max()) + 1 if len(label) else 0):
        units = used[label == group]
        units = units[np.lexsort((order[units], first[units]))]
        pin = None if pinned[units[0]] < 0 else coupling.ledger.pins[int(pinned[units[0]])]
        own = members.get(group, [])
        name = _name(coupling, places, names, first, order, units, own, bool(rows[units].all()))
        while name in taken:
            name += "'"
        taken.add(name)
        parts = tuple(np.flatnonzero(strata[units] == s) for s in np.unique(strata[units]))
        groups.append((int(first[units[0]]), Group(name, units, tuple(own), parts, bool(rows[units].all()), pin)))
    return [group for _, group in sorted(groups, key=lambda item: item[0])]


def _places(coupling: Coupling) -> tuple[list[Labels], list[str]]:
    """Label arrays in which atoms occur: parameter axes by name first, then rows and other fresh ones unnamed."""
    places: list[Labels] = []
    names: list[str] = []
    for name in coupling.graph.initializers:
        if name in coupling.values:
            for axis, digits in enumerate(coupling.values[name].axes):
                for digit in digits:
                    if digit.labels is not None:
                        places.append(digit.labels)
                        names.append(f"{name}:{axis}")
    for _, labels in coupling.ledger.leaves:
        places.append(labels)
        names.append("")
    return places, names


def _strata(coupling: Coupling, columns: int) -> Any:
    """A number per column: equal where columns sit in the same rows of all grids."""
    random = np.random.default_rng(1)
    strata = np.zeros(columns, np.uint64)
    for grid in coupling.ledger.grids:
        if len(grid.cells) > 1:
            codes = random.integers(1, 2**63, len(grid.cells), dtype=np.uint64)
            cells = np.where(grid.cells > 0, coupling.column[coupling.strong[grid.cells]], -1)
            row = np.broadcast_to(np.arange(len(cells))[:, None], cells.shape)
            pairs = np.unique(np.stack([cells.reshape(-1), row.reshape(-1)], axis=1), axis=0)
            pairs = pairs[pairs[:, 0] >= 0]
            np.add.at(strata, pairs[:, 0], codes[pairs[:, 1]])
    return strata


def _name(
    coupling: Coupling, places: Any, names: Any, first: Any, order: Any, units: Any, own: list[str], rows: bool
) -> str:
    """A stable name: the first parameter axis, its rows' count, and the first position where the axis is shared."""
    if own:
        place = int(first[units[0]])
        base = names[place] or own[0]
        whole = len(np.unique(coupling.column[coupling.strong[places[place].reshape(-1)]])) == len(units)
        return base if whole else f"{base}@{int(order[units[0]])}"
    atoms = places[int(first[units[0]])].reshape(-1)
    cells = coupling.membership[:, coupling.strong[atoms[atoms > 0]]]
    inside = np.unique(coupling.column[cells.nonzero()[0]])
    for place, name in enumerate(names):
        if name and np.isin(coupling.column[coupling.strong[places[place].reshape(-1)]], inside).any():
            return f"{name}/{len(units)}"
    return f"{'rows' if rows else 'fresh'}/{len(units)}"
