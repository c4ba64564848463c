"""What must be cut together: atoms solved into classes, classes gathered into groups, plans checked.

The relations that operators stated are solved once. A *class* is a set of atoms removed together always; a *column* a
set of classes removed together unless a whole row goes; a *group* the columns that meet in the same places, which is
what a plan decides on. Rows (attention heads, convolution groups) are atoms like others; their cells follow them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from onnxslim_learn.array_types import Labels, Mask
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.context import Inside, NodeContext, Records
from onnxslim_learn.coupling.relations import Grid, Relation, Relations, Value
from onnxslim_learn.graph import bodies, standalone
from onnxslim_learn.graph.load import Graph
from onnxslim_learn.runtime import node as running

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)


@dataclass
class Coupling:
    """The solved coupling of a graph.

    Attributes:
        graph: The graph.
        values: Layout of every value by name.
        relations: The relations as stated.
        records: Contractions, work and patches as stated.
        strong: Class of every atom.
        column: Column of every class.
    """

    graph: Graph
    values: dict[str, Value]
    relations: Relations
    records: Records
    strong: Labels
    column: Labels
    _cells: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Coupling of {len(self.values)} values: {self.columns} units>"

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self.column)

    @property
    def columns(self) -> int:
        """Number of columns."""
        return int(self.column.max()) + 1

    @cached_property
    def membership(self) -> Any:
        """Sparse matrix, cells × rows, over classes."""
        return _matrix(self.relations.member, self.strong, self.size)

    @cached_property
    def under(self) -> Any:
        """Sparse matrix over classes: which goes when which goes, of weakly tied ones."""
        return _matrix(self.relations.under, self.strong, self.size)

    @cached_property
    def is_row(self) -> Mask:
        """Which classes are rows."""
        return np.asarray(self.membership.sum(axis=0)).reshape(-1) > 0

    @cached_property
    def summed(self) -> dict[str, set[int]]:
        """Parameter -> its axes that a contraction sums over."""
        axes_summed = {name: set(axes) for name, axes in self.records.summed.items()}
        for record in self.records.contractions:
            source = self.graph.nodes[record.node].inputs[record.slot]
            assert source is not None
            axes_summed.setdefault(str(source.name), set()).update(record.axes)
        return axes_summed

    @cached_property
    def pinned(self) -> tuple[Labels, Labels]:
        """For every class and every column the index of a pin that holds it, or -1."""
        return self._held(range(len(self.relations.pins)))

    @cached_property
    def delicate(self) -> Mask:
        """Which columns nothing holds but that they are normalised over."""
        firm = self._held([k for k, pin in enumerate(self.relations.pins) if not pin.delicate])[1]
        loose: Mask = (self.pinned[1] >= 0) & (firm < 0)
        return loose

    def _held(self, pins: Sequence[int]) -> tuple[Labels, Labels]:
        """For every class and every column the index of one of these pins that holds it, or -1."""
        classes = np.full(self.size, -1, np.int64)
        columns = np.full(self.columns, -1, np.int64)
        for index in reversed(pins):
            pin = self.relations.pins[index]
            atoms = self.strong[pin.atoms[pin.atoms > 0]]
            if pin.weak:
                columns[self.column[atoms]] = index
            else:
                classes[atoms] = index
        transposed = self.membership.T.tocsr()
        while True:  # a row with a cell that can never go can never go
            held = classes >= 0
            reached = (transposed @ held.astype(np.int32) > 0) & ~held
            if not reached.any():
                break
            for row in np.flatnonzero(reached):
                cells = transposed.indices[transposed.indptr[row] : transposed.indptr[row + 1]]
                classes[row] = classes[cells].max()
        held = classes >= 0
        columns[self.column[held]] = classes[held]
        return classes, columns

    def signature(self, name: str) -> bytes:
        """Equal for copies of one initializer that every plan cuts alike."""
        layout = self.values.get(name)
        labels = [d.labels for d in layout.digits.values()] if layout else []
        return b"|".join(
            b"" if label_array is None else (self.strong[label_array] * (label_array > 0)).tobytes()
            for label_array in labels
        )

    # --- plans ------------------------------------------------------------------------------------------------

    def close(self, columns: Mask) -> Mask:
        """Which classes go when these columns go: cells follow rows and what they lie under, rows all their cells."""
        gone = columns[self.column].copy()
        counts = np.asarray(self.membership.sum(axis=0)).reshape(-1)
        while True:
            before = int(gone.sum())
            gone |= (self.membership @ (gone & self.is_row).astype(np.int32)) > 0
            gone |= (self.under @ gone.astype(np.int32)) > 0
            gone |= self.is_row & ((self.membership.T @ gone.astype(np.int32)) == counts)
            if int(gone.sum()) == before:
                return gone

    def faults(self, gone: Mask, *, empty: bool = False) -> list[str]:
        """Constraints that a set of removed classes breaks, in words; empty for a valid plan.

        Args:
            gone: The classes.
            empty: Whether parts and parameters may vanish as a whole.
        """
        broken = []
        classes, columns = self.pinned
        if (gone & (classes >= 0)).any():
            pin = self.relations.pins[int(classes[gone & (classes >= 0)][0])]
            broken.append(f"{self.where(pin.node)}: removes positions pinned because it {pin.reason}")
        rowless = gone & ((self.membership @ (gone & self.is_row).astype(np.int32)) == 0)
        if (rowless & (columns[self.column] >= 0)).any():
            pin = self.relations.pins[int(columns[self.column[rowless]].max())]
            broken.append(f"{self.where(pin.node)}: removes single positions pinned because it {pin.reason}")
        broken += self._uneven(gone, empty=empty) + self._partial(gone) + self._misaligned(gone)
        return broken if empty else broken + self._empty(gone)

    def _empty(self, gone: Mask) -> list[str]:
        broken = []
        for node, atoms in self.relations.some:
            if gone[self.strong[atoms]].all() and (atoms > 0).all():
                broken.append(f"{self.where(node)}: nothing would be left of a part")
        for name in self.graph.initializers:
            for axis in self.values[name].axes if name in self.values else ():
                for digit in axis:
                    if digit.labels is not None and self.removed(digit.labels, gone).all():
                        broken.append(f"{name}: nothing would be left of it")
        return broken

    def _uneven(self, gone: Mask, *, empty: bool) -> list[str]:
        broken = []
        for grid in self.relations.grids:
            counts = self._kept(grid, gone).sum(axis=1)
            if len(counts) and (counts.min() != counts.max() or counts.min() < (0 if empty else grid.least)):
                broken.append(
                    f"{self.where(grid.node)}: its rows must keep equally many, not {counts.min()} to {counts.max()}"
                )
        return broken

    def _partial(self, gone: Mask) -> list[str]:
        return [
            f"{self.where(grid.node)}: removes single positions from rows that keep all"
            for grid in self.relations.whole
            if not self._kept(grid, gone).all()
        ]

    def _kept(self, grid: Grid, gone: Mask) -> Mask:
        """Which cells of a grid stay, in the rows that stay."""
        kept = ~self.removed(grid.cells, gone)
        alive = np.ones(len(kept), bool)
        for rows in grid.rows:
            alive &= ~self.removed(rows, gone)
        return kept[alive]

    def _misaligned(self, gone: Mask) -> list[str]:
        broken = []
        for relation in self.relations.weak:
            wrong = gone[self.strong[relation.a]] != gone[self.strong[relation.b]]
            for rows in relation.rows:
                wrong &= ~self.removed(rows, gone)
            if wrong.any():
                broken.append(f"{self.where(relation.node)}: positions that meet would not go together")
        return broken

    def where(self, node: int) -> str:
        """A node in words."""
        nodes = self.graph.nodes
        return f"node {nodes[node].name} ({nodes[node].op_type})" if 0 <= node < len(nodes) else "model"

    def removed(self, labels: Labels, gone: Mask) -> Mask:
        """Which positions of a label array go (pinned ones never)."""
        result: Mask = gone[self.strong[labels]] & (labels > 0)
        return result


def couple(graph: Graph, *, sensitive: bool = False) -> Coupling:
    """Lay out every value of a graph and solve what must be cut together.

    Args:
        graph: The graph in normal form.
        sensitive: Whether axes that are normalised over may be cut (legal, but not exact).
    """
    relations, records, values = Relations(), Records(), {}
    for value in graph.model.graph.inputs:
        values[str(value.name)] = relations.free(graph.shapes.analysis.shape[str(value.name)])
    values |= {name: relations.free(graph.shapes.analysis.shape[name]) for name in _counting(graph)}
    for index, node in enumerate(graph.nodes):
        relations.node = index
        version = graph.model.opset_imports.get(node.domain, 1)
        context = NodeContext(node, index, version, relations, graph.shapes, values, records, sensitive, roles.sizes)
        if graph.shapes.is_arithmetic(node):
            context.yields(*context.free_outputs(0))
        else:
            roles.of(node).rule(context)
            context.hold_open_axes()
        if running.bodies(node):
            _count_inside(context)
    relations.node = -1
    for value in graph.model.graph.outputs:
        name = str(value.name)
        if name in values:
            relations.pin_axes(values[name], range(len(values[name].axes)), f"is the graph output {name}")
    strong = _components(relations.count, relations.strong)
    column = _components(int(strong.max()) + 1, relations.weak, strong)
    return Coupling(graph, values, relations, records, strong, column)


def _counting(graph: Graph) -> list[str]:
    """Constants that only count positions, or descend from sizes alone: no unit lies on them."""
    nominal = graph.shapes.nominal
    counts = []
    for name, value in graph.initializers.items():
        if not any(use.idx not in roles.sizes(use.node) for use in value.uses()):
            continue  # it only says how large something is
        known = nominal.value.get(name)
        steps = np.diff(known) if known is not None and known.ndim == 1 and known.dtype.kind in "if" else np.zeros(0)
        derived = name in nominal.derived and known is not None and len(np.unique(known)) > 1  # a fill counts nothing
        if derived or (len(steps) > 1 and steps[0] != 0 and (steps == steps[0]).all()):
            counts.append(name)
    return counts


def _count_inside(context: NodeContext) -> None:
    """State the work of a node's bodies, each counted as a model of its own at the nominal sizes."""
    nominal = context.shapes.nominal
    works, counted, rounds = [0], True, bodies.rounds(context.node, nominal)
    for body in bodies.chosen(context.node, nominal.value):
        apart = standalone.alone(body, context.node, nominal)
        if apart is None:
            counted = False
            continue
        records = couple(Graph(apart[0], None, b"", apart[1], {}, external=False)).records
        works.append(sum(term.whole for term in records.terms))
        counted &= all(inner.counted for inner in records.inside)
    macs = max(works) * (1 if rounds is None else rounds)
    context.records.inside.append(Inside(context.index, macs, counted, rounds))
    if macs:
        context.fixed_work(macs)


def _components(count: int, relations: Sequence[Relation], through: Labels | None = None) -> Labels:
    """Connected components of ``count`` things under relations (mapped by ``through`` first)."""
    if not relations:
        return np.arange(count)
    a = np.concatenate([r.a for r in relations])
    b = np.concatenate([r.b for r in relations])
    if through is not None:
        a, b = through[a], through[b]
    matrix = sp.coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    return np.asarray(connected_components(matrix, directed=False)[1], np.int64)


def _matrix(relations: Sequence[Relation], strong: Labels, size: int) -> Any:
    """Sparse 0/1 matrix of the related classes, without pinned atoms."""
    if not relations:
        return sp.csr_matrix(np.zeros((size, 0), np.int32)) @ sp.csr_matrix(np.zeros((0, size), np.int32))
    a = np.concatenate([r.a for r in relations])
    b = np.concatenate([r.b for r in relations])
    use = (a > 0) & (b > 0)
    ends = (strong[a[use]], strong[b[use]])
    matrix = sp.coo_matrix((np.ones(len(ends[0]), np.int32), ends), shape=(size, size)).tocsr()
    matrix.data[:] = 1  # pairs stated twice were added up
    return matrix
