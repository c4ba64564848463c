"""Residual blocks: branches from a fork to a sum whose other side is the fork itself, so that they can go as a whole.

A summand *a* of a sum is the end of a block where another summand is, but for conversions and constant factors, a value
that *a* was computed from, of equal shape. All nodes whose every path to an output leads through *a*, the subtree below
it in the tree of post-dominators, are the block; without it, the sum is its other side. Of nested blocks the innermost
are offered. Blocks are relations like others: each has one atom, its presence, which factors into the costs of its
nodes. (Networks survive without some of these blocks, since they act like ensembles of shallow ones: Veit et al. 2016,
arXiv:1605.06431; layers of language models likewise: Men et al. 2024, arXiv:2403.03853.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx

from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.roles import OWN, Trait
from onnxslim_learn.runtime.node import reads

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.graph.load import Graph

OUTSIDE = -1  # where graphs begin and end
FACTORS = ("multiply", "divide")


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        name: Its first parameter, and ``:block``.
        nodes: Indices of the nodes that are only there for it, in order.
        sum: Index of the node that adds it up.
        slot: Which input of that it is; :data:`onnxslim_learn.coupling.roles.OWN` for what the node multiplies itself.
        attends: Whether it multiplies activations with one another.
        pin: Why it cannot go, or an empty string.
        atom: Its presence; none where it cannot go.
    """

    name: str
    nodes: tuple[int, ...]
    sum: int
    slot: int
    attends: bool
    pin: str = ""
    atom: int = 0


@dataclass(frozen=True)
class _Summand:
    """One of the values that a tree of sums adds up: the sum it enters, by which input, and its name."""

    sum: int
    slot: int
    name: str


@dataclass(frozen=True)
class _Branch:
    """What is computed for one summand alone: where it ends, its nodes, and the computed values that it reads."""

    end: int
    nodes: tuple[int, ...]
    read: frozenset[str]


def find(graph: Graph) -> list[Block]:
    """All residual blocks of a graph, in order of their sums, without atoms."""
    return list(_Finder(graph).blocks())


class _Finder:
    """The dataflow by places: one for each node, for what a fused layer multiplies before it adds, and each input."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes = graph, graph.nodes
        self.reads = {index: reads(node) for index, node in enumerate(self.nodes)}
        self.maker = {str(v.name): index for index, node in enumerate(self.nodes) for v in node.outputs if v.name}
        self.outputs = {str(v.name) for v in graph.model.graph.outputs}
        self.sums = {index: several for index in range(len(self.nodes)) if (several := self._summands(index))}
        for value in graph.model.graph.inputs:
            self.maker[str(value.name)] = len(self.maker) + 2 * len(self.nodes)
        self.readers: dict[str, list[int]] = {}
        for place, names in self.reads.items():
            for name in names:
                self.readers.setdefault(name, []).append(place)
        self.after = self._tree(backwards=True)
        self.before = self._tree(backwards=False)
        self.below: dict[int, list[int]] = {}
        for place, parent in self.after.items():
            self.below.setdefault(parent, []).append(place)
        self.spans = _spans(self.before)

    # --- the graph ------------------------------------------------------------------------------------------------

    def _summands(self, index: int) -> list[_Summand]:
        """What a node adds up, if that is several computed tensors as large as the sum."""
        node = self.nodes[index]
        summands = []
        for slot in roles.summands(node):
            name = self._product(index) if slot == OWN else _name(node, slot)
            if name and name not in self.graph.initializers:
                summands.append(_Summand(index, slot, name))
        output = str(node.outputs[0].name)
        if len(summands) < 2 or not all(s.slot == OWN or self._alike(s.name, output) for s in summands):
            return []
        if any(s.slot == OWN for s in summands):  # it is two places: what multiplies, and what adds
            added = {s.name for s in summands if s.slot != OWN}
            place = len(self.nodes) + index
            self.reads[place] = [name for name in self.reads[index] if name not in added]
            self.reads[index] = [s.name for s in summands]
            self.maker[self._product(index)] = place
        return summands

    def _product(self, index: int) -> str:
        return f"{self.nodes[index].name}\nproduct"

    def _alike(self, name: str, other: str) -> bool:
        """Whether two tensors have the same shape at all sizes."""
        samples = self.graph.shapes.samples
        return all(name in s.shape and s.shape[name] == s.shape.get(other) for s in samples)

    def _tree(self, *, backwards: bool) -> dict[int, int]:
        """The tree of dominators, or of post-dominators: place -> the nearest that all paths to (from) it pass."""
        view = nx.DiGraph()
        for place, names in self.reads.items():
            makers = {self.maker[name] for name in names if name in self.maker}
            view.add_edges_from(((maker, place) for maker in makers) if makers else [(OUTSIDE, place)])
        view.add_edges_from((OUTSIDE, self.maker[str(v.name)]) for v in self.graph.model.graph.inputs)
        if backwards:
            view = view.reverse()
            if OUTSIDE in view:
                view.remove_node(OUTSIDE)
            view.add_edges_from((OUTSIDE, self.maker[name]) for name in self.outputs if name in self.maker)
        if OUTSIDE not in view:
            return {}
        nearest = nx.immediate_dominators(view, OUTSIDE)
        return {place: parent for place, parent in nearest.items() if place != OUTSIDE and parent is not None}

    def _dominates(self, one: str, other: str) -> bool:
        """Whether a value was computed from another, whatever else it was computed from."""
        places = [self.maker.get(name, OUTSIDE) for name in (one, other)]
        if any(place not in self.spans for place in places):
            return False
        (first, last), (enter, _) = (self.spans[place] for place in places)
        return first <= enter <= last

    # --- blocks ---------------------------------------------------------------------------------------------------

    def blocks(self) -> Iterator[Block]:
        """All blocks; what encloses one is none."""
        enclosing, taken = set[int](), set[str]()
        for top in self.sums:
            if self._inner(top):
                continue
            summands = self._flat(top)
            branches = {s: b for s in summands if (b := self._branch(s)) is not None and b.end not in enclosing}
            for summand, branch in branches.items():
                others = [s for s in summands if s is not summand]
                pin = self._held(branch, others, [branches.get(s) for s in others])
                if pin is not None:
                    yield self._named(summand, branch, taken, pin)
                    place = summand.sum
                    while place not in enclosing and place != OUTSIDE:
                        enclosing.add(place)
                        place = self.after.get(place, OUTSIDE)

    def _inner(self, index: int) -> bool:
        """Whether a sum is a summand of another, and nothing else."""
        output = str(self.nodes[index].outputs[0].name)
        uses = self.readers.get(output, [])
        plain = roles.of(self.nodes[index]).arithmetic == "add" and output not in self.outputs
        return plain and len(uses) == 1 and any(s.name == output for s in self.sums.get(uses[0], ()))

    def _flat(self, index: int) -> list[_Summand]:
        """What a tree of sums adds up."""
        summands = []
        for summand in self.sums[index]:
            maker = self.maker.get(summand.name, OUTSIDE)
            summands += self._flat(maker) if maker in self.sums and self._inner(maker) else [summand]
        return summands

    def _branch(self, summand: _Summand) -> _Branch | None:
        """What is computed for a summand alone, if layers with weights are among it."""
        end = self.maker.get(summand.name, OUTSIDE)
        shared = len(self.readers[summand.name]) > 1 or summand.name in self.outputs
        given = end >= 2 * len(self.nodes)
        if shared or given or self.after.get(end) != summand.sum:
            return None
        places = self._below(end)
        nodes = tuple(sorted({place % len(self.nodes) for place in places}))
        if not self._weight(nodes):
            return None
        makes = {name for place in places for name in self._made(place)}
        read = {name for place in places for name in self.reads[place] if name in self.maker}
        return _Branch(end, nodes, frozenset(read - makes))

    def _below(self, end: int) -> list[int]:
        """A place and all whose every path to an output leads through it."""
        places = [end]
        for place in places:
            places += [below for below in self.below.get(place, ()) if below < 2 * len(self.nodes)]
        return places

    def _made(self, place: int) -> list[str]:
        if place >= len(self.nodes):
            return [self._product(place - len(self.nodes))]
        return [str(v.name) for v in self.nodes[place].outputs if v.name]

    def _weight(self, nodes: Iterable[int]) -> str:
        """The first weight of a layer among some nodes, or their first parameter if weights are computed."""
        first = ""
        layers = False
        for index in nodes:
            read = [name for name in reads(self.nodes[index]) if name in self.graph.initializers]
            ranks = {name: len(value.const_value.shape) for name in read if (value := self._initializer(name))}  # type: ignore[union-attr]
            matrices = [name for name, rank in ranks.items() if rank > 1]
            layers = layers or roles.factors(self.nodes[index]) is not None
            first = first or (matrices[0] if matrices else "")
        return first if layers else ""

    def _initializer(self, name: str) -> ir.Value | None:
        value = self.graph.initializers[name]
        return value if value.const_value is not None else None

    def _held(self, branch: _Branch, others: list[_Summand], beside: list[_Branch | None]) -> str | None:
        """Why a branch cannot go, empty if it can; ``None`` where it is no residual branch."""
        forks = {name for other in others for name in self._behind(other.name)}
        if any(name in forks or any(self._dominates(fork, name) for fork in forks) for name in branch.read):
            return self._state(branch, forks)
        projected = [b for b in beside if b is not None and b.read & branch.read and len(b.nodes) < len(branch.nodes)]
        if not projected:
            return None
        node = next(self.nodes[k] for k in projected[0].nodes if roles.factors(self.nodes[k]) is not None)
        return f"has a shortcut with weights of its own ({node.name}, {node.op_type})"

    def _state(self, branch: _Branch, forks: set[str]) -> str:
        """Which output of the graph is makes on the way, if one is: a cache of keys and values, say."""
        for name in sorted(branch.read - forks):
            place = self.maker[name]
            makes = self._made(place) if place < 2 * len(self.nodes) else []
            put_out = [one for one in makes if one in self.outputs]
            if put_out:
                return f"puts out {put_out[0]}"
            inside = any(self._dominates(fork, name) for fork in forks)
            if inside and self.after.get(place, OUTSIDE) == OUTSIDE:
                return f"puts out {self._reached(name)}"
        return ""

    def _reached(self, name: str) -> str:
        """The nearest output of the graph that is computed from a value."""
        queue = [name]
        for one in queue:
            if one in self.outputs:
                return one
            queue += [makes for place in self.readers.get(one, ()) for makes in self._made(place) if makes not in queue]
        return name

    def _behind(self, name: str) -> Iterator[str]:
        """A value, and those that it is but for a conversion or a constant factor."""
        yield name
        place = self.maker.get(name, OUTSIDE)
        if not 0 <= place < len(self.nodes):
            return
        node = self.nodes[place]
        computed = [read for read in self.reads[place] if read in self.maker]
        passes = roles.has(node, Trait.MOVES | Trait.QUANTIZES | Trait.DEQUANTIZES)
        scales = roles.of(node).arithmetic in FACTORS
        if len(computed) == 1 and (passes or scales) and self._alike(computed[0], name):
            yield from self._behind(computed[0])

    def _named(self, summand: _Summand, branch: _Branch, taken: set[str], pin: str) -> Block:
        name = f"{self._weight(branch.nodes)}:block"
        while name in taken:
            name += "'"
        taken.add(name)
        attends = any(self._attends(self.nodes[index]) for index in branch.nodes)
        return Block(name, branch.nodes, summand.sum, summand.slot, attends, pin)

    def _attends(self, node: ir.Node) -> bool:
        """Whether a node multiplies two computed tensors and sums over them."""
        computed = [name for name in reads(node) if name in self.maker]
        return (roles.multiplies(node) and len(computed) > 1) or roles.has(node, Trait.ATTENDS)


def _name(node: ir.Node, slot: int) -> str:
    value = node.inputs[slot] if slot < len(node.inputs) else None
    return "" if value is None else str(value.name)


def _spans(parents: dict[int, int]) -> dict[int, tuple[int, int]]:
    """For every place of a tree the numbers of its subtree, first and last, in depth-first order."""
    below: dict[int, list[int]] = {}
    for place, parent in parents.items():
        below.setdefault(parent, []).append(place)
    first: dict[int, int] = {}
    spans: dict[int, tuple[int, int]] = {}
    pending, count = [(OUTSIDE, False)], itertools.count()
    while pending:
        place, done = pending.pop()
        if done:
            spans[place] = first[place], next(count)
            continue
        first[place] = next(count)
        pending.append((place, True))
        pending += [(child, False) for child in below.get(place, ())]
    return spans
