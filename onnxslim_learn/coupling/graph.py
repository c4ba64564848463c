"""The coupling as a networkx graph: what goes together, which operator ties it, and what holds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import networkx as nx
import numpy as np

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Labels
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.relations import Grid, Pin, Relation
    from onnxslim_learn.coupling.solver import Coupling

Key: TypeAlias = tuple[str, str]  # kind and name of a node of the graph
Part: TypeAlias = tuple[int, int]  # label array, and number of the group


def coupling_graph(coupling: Coupling, groups: Sequence[Group]) -> Any:
    """Parameter axes, groups, grids and pins as a ``networkx.DiGraph``.

    Nodes:

    - ``("parameter", "initializer:axis")`` with ``axis``, ``group`` and ``units`` (how many lie there); an axis on
      which several groups lie is a node for each, ``"initializer:axis of group"``;
    - ``("fresh", "operator 3")`` with ``group``, units of an operator that no parameter carries, such as heads;
    - ``("group", name)`` with ``width``, ``rows`` and ``prunable``;
    - ``("grid", operator)``, rows that keep equally many cells; ``("pin", reason)``.

    Edges carry ``relation``, and ``node`` and ``op_type`` of the operator that states it. Those between parameters go
    both ways: ``reads`` (the operator reads one along the units of the other), ``strong`` (always together), ``weak``
    (together as a column; a row may go by itself), ``cell`` and ``row``. All others go one way: from a group to its
    parameters (``carries``), its pin and the group of its rows (with ``row=True``), and from units to grids and pins.
    So ``networkx.shortest_path`` between two parameters tells why they go together, and one to a pin why units stay.
    """
    view = nx.DiGraph()
    built = _Built(coupling, groups, view)
    built.place()
    for relations, there, back in (
        (coupling.relations.strong, "strong", "strong"),
        (coupling.relations.weak, "weak", "weak"),
        (coupling.relations.member, "row", "cell"),
    ):
        for relation in relations:
            built.relate(relation, there, back)
    for pin in coupling.relations.pins:
        built.hold(pin)
    for grid in coupling.relations.grids:
        built.balance(grid)
    built.gather()
    return view


@dataclass
class _Built:
    """A coupling graph under construction.

    Label arrays are created in one piece, so that a range of atoms is one array: what is said of parts of arrays, by
    group, needs no node per atom.
    """

    coupling: Coupling
    groups: Sequence[Group]
    view: Any
    home: dict[Part, Key] = field(default_factory=dict)

    def __post_init__(self) -> None:
        coupling = self.coupling
        leaves = [(node, labels) for node, labels in coupling.relations.leaves if labels.size]
        starts = np.array([labels.reshape(-1)[0] for _, labels in leaves], np.int64)
        order = np.argsort(starts)
        owner = np.full(coupling.columns, -1, np.int64)
        for number, group in enumerate(self.groups):
            owner[group.units] = number
        self._maker = [leaves[k][0] for k in order]
        self._array = np.searchsorted(starts[order], np.arange(coupling.relations.count), "right") - 1
        self._group = owner[coupling.column[coupling.strong]]

    def parts(self, *labels: Labels) -> Iterator[list[Part]]:
        """The parts that atoms of an array, or of two at the same place, belong to, each combination once."""
        flat = np.stack(np.broadcast_arrays(*labels)).reshape(len(labels), -1)
        flat = flat[:, (flat > 0).all(axis=0)]
        kept = flat[:, (self._group[flat] >= 0).all(axis=0)]
        width = max(len(self.groups), 1)
        codes = self._array[kept] * width + self._group[kept]
        most = len(self._maker) * width + 1
        for code in np.unique(codes[0] if len(labels) == 1 else codes[0] * most + codes[1]).tolist():
            yield [divmod(one, width) for one in ([code] if len(labels) == 1 else divmod(code, most))]

    def place(self) -> None:
        """Give every part of a label array its place: the first parameter axis that has it."""
        coupling, placed = self.coupling, set[str]()
        for index, node in enumerate(coupling.nodes):
            for value in node.inputs:
                name = "" if value is None else str(value.name)
                if name in coupling.graph.initializers and name in coupling.values and name not in placed:
                    placed.add(name)
                    for axis, digits in enumerate(coupling.values[name].axes):
                        self._settle(index, f"{name}:{axis}", [d.labels for d in digits if d.labels is not None])

    def _settle(self, index: int, axis: str, labels: Sequence[Labels]) -> None:
        """Make the node of a parameter axis for every group on it, and join it to where its units lie already."""
        parts = [part for array in labels for (part,) in self.parts(array)]
        present = list(dict.fromkeys(group for _, group in parts))
        for group in present:
            name = self.groups[group].name
            me = ("parameter", axis if len(present) == 1 else f"{axis} of {name}")
            units = np.unique(np.concatenate([array[self._group[array] == group] for array in labels]))
            columns = np.unique(self.coupling.column[self.coupling.strong[units[units > 0]]])
            self.view.add_node(me, axis=axis, group=name, units=len(columns))
            for part in (part for part in parts if part[1] == group):
                self._join(self.home.setdefault(part, me), me, index, "reads", "reads")

    def at(self, part: Part) -> Key:
        """The node of a part; one that no parameter carries is the operator's."""
        if part not in self.home:
            array, group = part
            self.home[part] = ("fresh", f"{self._named(self._maker[array])['node']} {array}")
            if self.home[part] in self.view:  # of several groups
                self.home[part] = ("fresh", f"{self.home[part][1]} of {self.groups[group].name}")
            self.view.add_node(self.home[part], group=self.groups[group].name)
        return self.home[part]

    def relate(self, relation: Relation, there: str, back: str) -> None:
        """Join what a relation ties."""
        for one, other in self.parts(relation.a, relation.b):
            self._join(self.at(one), self.at(other), relation.node, there, back)

    def hold(self, pin: Pin) -> None:
        """Join what a pin holds to it."""
        for (part,) in self.parts(pin.atoms):
            self._edge(self.at(part), ("pin", pin.reason), pin.node, "weak pin" if pin.weak else "pin")

    def balance(self, grid: Grid) -> None:
        """Join rows and cells to the grid that evens them out."""
        me = ("grid", str(self._named(grid.node)["node"]))
        for labels, relation in ((grid.cells, "cells"), *((rows, "rows") for rows in grid.rows)):
            for (part,) in self.parts(labels):
                self._edge(self.at(part), me, grid.node, relation)

    def gather(self) -> None:
        """Join groups to the parameters that carry them, to what holds them, and to the groups of their rows."""
        coupling, view = self.coupling, self.view
        names = {group.name: group for group in self.groups}
        carried = [(key, data["group"]) for key, data in view.nodes(data=True) if key[0] in ("parameter", "fresh")]
        for group in self.groups:
            view.add_node(("group", group.name), width=group.width, rows=group.rows, prunable=group.pin is None)
            if group.pin is not None:
                self._edge(("group", group.name), ("pin", group.pin.reason), group.pin.node, "pin")
        for key, name in carried:
            if key[0] == "parameter" and view.nodes[key]["axis"] in names[name].members:
                view.add_edge(("group", name), key, relation="carries", node="", op_type="")
        cells, rows = coupling.membership.nonzero()
        owner = np.full(coupling.columns, -1, np.int64)
        owner[coupling.column[coupling.strong]] = self._group
        pairs = np.unique(np.stack([owner[coupling.column[cells]], owner[coupling.column[rows]]]), axis=1)
        for cell, row in pairs.T.tolist():
            if cell >= 0 and row >= 0 and cell != row:
                ends = [("group", self.groups[number].name) for number in (cell, row)]
                view.add_edge(*ends, row=True, relation="row", node="", op_type="")

    def _join(self, one: Key, other: Key, index: int, there: str, back: str) -> None:
        if one != other:
            self._edge(one, other, index, there)
            self._edge(other, one, index, back)

    def _edge(self, one: Key, other: Key, index: int, relation: str) -> None:
        """An edge, unless there is one: of several operators that tie two things the first is told."""
        if not self.view.has_edge(one, other):
            self.view.add_edge(one, other, relation=relation, **self._named(index))

    def _named(self, index: int) -> dict[str, str]:
        nodes = self.coupling.nodes
        known = 0 <= index < len(nodes)
        return {"node": str(nodes[index].name), "op_type": nodes[index].op_type} if known else _MODEL


_MODEL = {"node": "the model", "op_type": ""}
