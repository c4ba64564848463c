"""What it takes to try a cut out, in multiply-accumulates: told by model and samples alone, on every machine the same.

A trial runs the model from the first node that changes and, unless the model is large, refits every layer after it
(:func:`onnxslim_learn.select.sensitivity.repaired`).
Both are counted at the original's widths, which is the most that it takes. On one core of a desktop processor, trials
of five nets made 8 to 42 billion of them in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array, Feeds, Labels
from onnxslim_learn.costs.polynomial import macs
from onnxslim_learn.repair.linear_nodes import linears
from onnxslim_learn.repair.targets import share
from onnxslim_learn.rewrite import stretches
from onnxslim_learn.rewrite.unfuse import unfuse

if TYPE_CHECKING:
    from onnxslim_learn.costs.polynomial import Cost
    from onnxslim_learn.coupling.solver import Coupling


COPIED = 100  # multiply-accumulates in the time of copying one number of a regression's inputs to their place
CALLED = 4e6  # in the time of a layer's calls for one batch, whatever it computes
TRIED = 4  # times that a regression's inputs are multiplied by weights


@dataclass(frozen=True)
class _Layer:
    """A layer that is refitted: where it stands, its matrix ``(groups, inputs, outputs)``, its places in one run."""

    node: int
    matrix: tuple[int, ...]
    places: float

    def refit(self, rows: int, passes: float, batches: int) -> float:
        """Multiply-accumulates of refitting it to at most so many rows."""
        groups, inputs, outputs = self.matrix
        rows_there = min(rows * share(inputs), self.places * passes)
        moved = rows_there * inputs * (inputs / 2 + TRIED * outputs + COPIED)
        return groups * (moved + inputs**3) + CALLED * batches


@dataclass(frozen=True)
class TrialCost:
    """What trials of a model take.

    Attributes:
        coupling: The model.
        macs: Its multiply-accumulates.
        owners: ``(terms,)``: the node of every term of that.
        after: ``(nodes + 1,)``: multiply-accumulates of one run from each node on, at the nominal sizes.
        each: ``(nodes,)``: those of every node.
    """

    coupling: Coupling
    macs: Cost
    owners: Labels
    after: Array
    each: Array

    @classmethod
    def of(cls, coupling: Coupling) -> TrialCost:
        """Look at a model."""
        nodes, cost = {str(node.name): number for number, node in enumerate(coupling.graph.nodes)}, macs(coupling)
        by_node = cost.by_node(np.ones(coupling.size))
        each = np.array([by_node.get(name, 0.0) for name in nodes])
        owners = np.array([nodes.get(name, 0) for name in cost.owners], np.int64)
        return cls(coupling, cost, owners, np.append(np.cumsum(each[::-1])[::-1], 0.0), each)

    @cached_property
    def layers(self) -> tuple[_Layer, ...]:
        """What can be refitted; their weights are read for it."""
        nodes = {str(node.name): number for number, node in enumerate(self.coupling.graph.nodes)}
        layers = []
        for one in linears(unfuse(self.coupling.graph.model)):
            place, matrix = nodes.get(str(one.node.name)), one.form.shape
            macs_there = 0.0 if place is None else float(self.each[place])
            places = macs_there / float(np.prod(matrix)) if macs_there else np.inf
            layers.append(_Layer(place or 0, matrix, places))
        return tuple(layers)

    def passes(self, feeds: Sequence[Feeds]) -> float:
        """Runs at the nominal sizes that take as much as one over some batches, by the size of the inputs."""
        nominal = sum(np.prod(shape) for shape in self.coupling.graph.shapes.nominal.inputs.values())
        return sum(np.size(array) for feed in feeds for array in feed.values()) / max(float(nominal), 1.0)

    def run(self, feeds: Sequence[Feeds]) -> float:
        """Multiply-accumulates of the original over some batches."""
        return float(self.after[0]) * self.passes(feeds)

    def trials(self, feeds: Sequence[Feeds], rows: int) -> Array:
        """Multiply-accumulates of a trial of what changes the model from each node on, ``(nodes + 1,)``.

        Args:
            feeds: The batches.
            rows: Rows of each regression, at most.
        """
        passes, refits = self.passes(feeds), np.zeros(len(self.after))
        for layer in () if stretches.weight_bytes(self.coupling) > stretches.LARGEST else self.layers:
            refits[layer.node] += layer.refit(rows, passes, len(feeds))
        result: Array = self.after * passes + np.cumsum(refits[::-1])[::-1]
        return result

    def influences(self, feeds: Sequence[Feeds]) -> float:
        """Multiply-accumulates of disturbing what every contraction puts out, each time with all after it run."""
        nodes = np.unique([c.node for c in self.coupling.records.contractions]).astype(np.int64)
        calls = CALLED * len(feeds) * (len(self.after) - nodes).sum()
        return float(self.after[np.append(0, nodes + 1)].sum() * self.passes(feeds) + calls)

    def singly(self, feeds: Sequence[Feeds], rows: int) -> float:
        """Multiply-accumulates of refitting every layer by itself, each time with all that comes after it run."""
        passes = self.passes(feeds)
        runs = (float(self.after[layer.node]) * passes for layer in self.layers)
        return sum(runs) + sum(layer.refit(rows, passes, len(feeds)) for layer in self.layers)

    def first(self, gone: Array) -> int:
        """The first node whose work falls with some classes, ``(classes,)`` of truth values."""
        lost = np.append(self.macs.counts @ gone.astype(float), 0.0)[self.macs.widths].sum(axis=1)
        return int(self.owners[lost > 0].min()) if (lost > 0).any() else 0
