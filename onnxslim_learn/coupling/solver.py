"""What must be cut together: atoms solved into classes, classes gathered into groups, plans checked.

The relations that operators stated are solved once. A *class* is a set of atoms removed together always; a *column* a
set of classes removed together unless a whole row goes; a *group* the columns that meet in the same places, which is
what a plan decides on. Rows (attention heads, convolution groups) are atoms like others; their cells follow them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from onnxslim_learn.array_types import Labels, Mask
from onnxslim_learn.coupling import residual, roles
from onnxslim_learn.coupling.constraints import Constraints, incidence, linked
from onnxslim_learn.coupling.context import NodeContext
from onnxslim_learn.coupling.records import Inside, Records
from onnxslim_learn.coupling.relations import OUTPUT, Digit, Pin, Relation, Relations, Value
from onnxslim_learn.coupling.residual import Block
from onnxslim_learn.graph import bodies, standalone
from onnxslim_learn.graph.load import Graph
from onnxslim_learn.runtime import node as running

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnx_ir as ir

logger = logging.getLogger(__name__)

_ALWAYS = Digit(-1, 1)  # of what is in no residual block


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
        blocks: The residual blocks.
    """

    graph: Graph
    values: dict[str, Value]
    relations: Relations
    records: Records
    strong: Labels
    column: Labels
    blocks: tuple[Block, ...] = ()

    def __repr__(self) -> str:
        return f"<Coupling of {len(self.values)} values: {self.columns} units>"

    @cached_property
    def nodes(self) -> list[ir.Node]:
        """The nodes of the graph in topological order."""
        return self.graph.nodes

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self.column)

    @cached_property
    def columns(self) -> int:
        """Number of columns."""
        return int(self.column.max()) + 1

    @cached_property
    def presence(self) -> dict[int, Digit]:
        """Node -> the digit that a residual block adds to the widths of all that is only there for it."""
        digits = {block: self.relations.digit(1, np.array([block.atom])) for block in self.blocks if block.atom}
        return {node: digit for block, digit in digits.items() for node in block.nodes}

    def present(self, readers: Iterable[int]) -> tuple[Digit, ...]:
        """The digit of the residual block that all of some nodes are in, if they are in one."""
        digits = {digit.key: digit for node in readers if (digit := self.presence.get(node, _ALWAYS))}
        return () if len(digits) != 1 or _ALWAYS.key in digits else tuple(digits.values())

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Value -> the nodes that read it."""
        reading: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in running.reads(node):
                reading.setdefault(name, []).append(index)
        return reading

    def column_of(self, block: Block) -> int:
        """The column of a residual block's presence."""
        return int(self.column[self.strong[block.atom]])

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
            source = self.nodes[record.node].inputs[record.slot]
            assert source is not None
            axes_summed.setdefault(str(source.name), set()).update(record.axes)
        return axes_summed

    @cached_property
    def rivals(self) -> Mask:
        """Which columns compete."""
        columns = np.zeros(self.columns, bool)
        for contest in self.records.contests:
            for labels in (digit.labels for axis in contest.axes for digit in contest.value.axes[axis]):
                if labels is not None:
                    columns[self.column[self.strong[labels[labels > 0]]]] = True
        return columns

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
        outputs_first = sorted(pins, key=lambda k: (self.relations.pins[k].node != OUTPUT, k))
        for index in reversed(outputs_first):
            pin = self.relations.pins[index]
            atoms = self.strong[pin.atoms[pin.atoms > 0]]
            if pin.weak:
                columns[self.column[atoms]] = index
            else:
                classes[atoms] = index
        transposed = self._cells_of_row
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
        gone: Mask = columns[self.column]
        fresh = np.flatnonzero(gone & self._leading)
        while len(fresh):
            rows = np.unique(linked(self.membership, fresh))
            emptied = rows[self._intact(rows, gone) == 0]
            reached = np.concatenate([linked(self._cells_of_row, fresh), linked(self._above, fresh), emptied])
            reached = np.unique(reached[~gone[reached]])
            gone[reached] = True
            fresh = reached[self._leading[reached]]
        return gone

    @cached_property
    def _leading(self) -> Mask:
        """Classes with which others may go."""
        links = (self.membership, self._cells_of_row, self._above)
        leading: Mask = np.logical_or.reduce([np.diff(matrix.indptr) > 0 for matrix in links])
        return leading

    def emptied(self, gone: Mask) -> Labels:
        """The rows of which no cell stays when these classes go."""
        rows = np.flatnonzero(self.is_row)
        emptied: Labels = rows[self._intact(rows, gone) == 0]
        return emptied

    def classes_of(self, columns: Labels) -> Labels:
        """Classes of some columns."""
        return linked(self._classes_of_column, columns)

    def cells_of(self, rows: Labels) -> Labels:
        """Classes of the cells of some rows."""
        return linked(self._cells_of_row, rows)

    def first_positions(self, classes: Labels) -> int:
        """How many positions these classes take along the first parameter digit that has any of them."""
        digits = linked(self._digits_of_class, classes)
        if not len(digits):
            return 0
        return int(linked(self._digits_of_class, classes, self._digits_of_class.data)[digits == digits.min()].sum())

    @cached_property
    def _digits_of_class(self) -> Any:
        """Sparse matrix, classes × digits of parameters: how many positions are of a class."""
        labels = [labels.reshape(-1) for _, labels in self._parameter_labels()]
        numbers = np.repeat(np.arange(len(labels)), [len(flat) for flat in labels])
        atoms = np.concatenate([np.zeros(0, np.int64), *labels])
        places = (self.strong[atoms[atoms > 0]], numbers[atoms > 0])
        counts = sp.coo_matrix((np.ones(len(places[0]), np.int64), places), shape=(self.size, max(1, len(labels))))
        return counts.tocsr()

    @cached_property
    def on_parameters(self) -> Mask:
        """Which classes have positions on parameters."""
        counts: Labels = np.diff(self._digits_of_class.indptr)
        return counts > 0

    def _parameter_labels(self) -> Iterator[tuple[str, Labels]]:
        """Names of parameters and the labels of each of their digits."""
        for name in self.graph.initializers:
            for digit in self.values[name].digits.values() if name in self.values else ():
                if digit.labels is not None:
                    yield name, digit.labels

    def _intact(self, rows: Labels, gone: Mask) -> Labels:
        """How many cells of each row stay."""
        cells = linked(self._cells_of_row, rows)
        counts = np.diff(self._cells_of_row.indptr)[rows]
        return np.bincount(np.repeat(np.arange(len(rows)), counts), ~gone[cells], len(rows)).astype(np.int64)

    @cached_property
    def _classes_of_column(self) -> Any:
        return incidence(self.column, np.arange(self.size), (self.columns, self.size))

    @cached_property
    def _cells_of_row(self) -> Any:
        return self.membership.T.tocsr()

    @cached_property
    def _above(self) -> Any:
        """Sparse matrix over classes: which take which with them when they go, of weakly tied ones."""
        return self.under.T.tocsr()

    def faults(self, gone: Mask, *, empty: bool = False) -> list[str]:
        """Constraints that a set of removed classes breaks, in words; empty for a valid plan.

        Args:
            gone: The classes.
            empty: Whether parts and parameters may vanish as a whole.
        """
        broken, went = [], np.flatnonzero(gone)
        classes, columns = self.pinned
        held = classes[went]
        if (held >= 0).any():
            pin = self.relations.pins[int(held[held >= 0][0])]
            broken.append(f"{self.where(pin.node)}: removes positions pinned because it {pin.reason}")
        single = columns[self.column[went[~self._with_row(went, gone)]]]
        if (single >= 0).any():
            pin = self.relations.pins[int(single.max())]
            broken.append(f"{self.where(pin.node)}: removes single positions pinned because it {pin.reason}")
        return broken + self._constraints.broken(gone, empty=empty)

    def _with_row(self, classes: Labels, gone: Mask) -> Mask:
        """Which of these classes are cells of a row that goes."""
        counts = np.diff(self.membership.indptr)[classes]
        rows = linked(self.membership, classes)
        return np.bincount(np.repeat(np.arange(len(classes)), counts), gone[rows], len(classes)) > 0

    @cached_property
    def _constraints(self) -> Constraints:
        return Constraints(self.relations, self._parameter_labels(), self.strong, self.where)

    def where(self, node: int) -> str:
        """A node in words."""
        return f"node {self.nodes[node].name} ({self.nodes[node].op_type})" if 0 <= node < len(self.nodes) else "model"

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
            if not roles.has(node, roles.Trait.MEASURES):
                context.hand_on_places(moves=roles.has(node, roles.Trait.MOVES))
        if running.bodies(node):
            _count_inside(context)
    relations.node = OUTPUT
    for value in graph.model.graph.outputs:
        name = str(value.name)
        if name in values:
            relations.pin_axes(values[name], range(len(values[name].axes)), f"is the graph output {name}")
        if name in records.places:
            relations.pins.append(Pin(OUTPUT, records.places[name], f"has its place put out as {name}", weak=False))
    blocks = tuple(block if block.pin else replace(block, atom=relations.atom()) for block in residual.find(graph))
    _tie_branches(relations, records, blocks)
    strong = _strong(relations)
    column = _components(int(strong.max()) + 1, relations.weak, strong)
    return Coupling(graph, values, relations, records, strong, column, blocks)


def _tie_branches(relations: Relations, records: Records, blocks: Sequence[Block]) -> None:
    """A residual block that picks one of several rivals goes with it: the branch of an expert, with its chance."""
    rivals = {atom for one in records.contests for axis in one.axes for d in one.value.axes[axis] for atom in _atoms(d)}
    block_of = {node: block for block in blocks if block.atom for node in block.nodes}
    tied = {node for node, atom in records.alone.items() if atom in rivals and node in block_of}
    for node in sorted(tied):
        ends = np.array([[block_of[node].atom], [records.alone[node]]], np.int64)
        relations.strong.append(Relation(node, *ends))
    relations.some = [(node, atoms) for node, atoms in relations.some if node not in tied]


def _atoms(digit: Digit) -> list[int]:
    return [] if digit.labels is None else digit.labels[digit.labels > 0].tolist()


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


def _strong(relations: Relations) -> Labels:
    """Class of every atom: what is tied always goes together, and so do rows that have the same cells."""
    while True:
        strong = _components(relations.count, relations.strong)
        ties = _alike(relations.member, strong)
        if not ties:
            return strong
        relations.strong += ties


def _alike(members: Sequence[Relation], strong: Labels) -> list[Relation]:
    """Ties between rows that some statements give the same cells, none of them pinned, where they are not tied yet."""
    first: dict[bytes, int] = {}
    ties = []
    for member in (one for one in members if one.b.size):
        order = np.argsort(member.b, kind="stable")
        rows, starts = np.unique(member.b[order], return_index=True)
        cells = np.split(member.a[order], starts[1:])
        keyed = [
            (first.setdefault(np.unique(strong[c]).tobytes(), r), r)
            for r, c in zip(rows.tolist(), cells, strict=True)
            if r and c.all()
        ]
        apart = np.array([(a, b) for a, b in keyed if strong[a] != strong[b]], np.int64)
        if len(apart):
            ties.append(Relation(member.node, *apart.T))
    return ties


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
    return incidence(*ends, (size, size))
