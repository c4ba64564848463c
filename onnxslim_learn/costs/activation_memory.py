"""Peak memory of activations: what is alive at once when nodes run in the order of the file.

A tensor lives from the node that makes it to the last that reads it; a node's inputs and outputs live together. Views
(Reshape, Squeeze, ...) take no memory of their own and keep alive what they show, and so does the sum of a residual
block that goes: it becomes its other side. Weights are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.costs.polynomial import Cost, polynomial
from onnxslim_learn.costs.roofline import IDLE, known, volume
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.roles import OWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from onnxslim_learn.coupling.relations import Digit
    from onnxslim_learn.coupling.residual import Block
    from onnxslim_learn.coupling.solver import Coupling


@dataclass(frozen=True)
class Peak:
    """The most bytes alive at once.

    Attributes:
        coupling: The model.
        sizes: Bytes of all activations, owned by their names.
    """

    coupling: Coupling
    sizes: Cost
    _known: dict[tuple[Block, ...], tuple[Labels, Labels]] = field(default_factory=dict, repr=False)

    def _highest(self, alive: Array) -> tuple[Array, Array]:
        """Bytes of every activation, and which of them live at the peak."""
        terms = self.sizes.terms(alive)
        born, end = self._spans(alive)
        steps = np.zeros(len(self.coupling.graph.nodes) + 1)
        np.add.at(steps, born, terms)
        np.subtract.at(steps, end, terms)
        at = int(np.argmax(np.cumsum(steps)[:-1])) if len(steps) > 1 else 0
        lives: Array = ((born <= at) & (at < end)).astype(float)
        return terms, lives

    def _spans(self, alive: Array) -> tuple[Labels, Labels]:
        """From which node on activations live, and from which on no more, without the blocks that are gone."""
        strong = self.coupling.strong
        gone = tuple(block for block in self.coupling.blocks if block.atom and alive[strong[block.atom]] == 0)
        if gone not in self._known:
            spans = _spans(self.coupling, gone)
            ends = [spans.get(name, (0, 0)) for name in self.sizes.owners]
            born, end = np.array(ends, np.int64).reshape(-1, 2).T
            self._known[gone] = born, end
        return self._known[gone]

    def value(self, alive: Array) -> float:
        """Bytes at the peak; ``alive`` is ``classes`` numbers in [0, 1]."""
        terms, lives = self._highest(alive)
        return float(terms @ lives)

    def gradient(self, alive: Array) -> Array:
        """Derivative by every class's aliveness, shape ``(classes,)``; that of the present peak."""
        return self.sizes.gradient(alive, self._highest(alive)[1])

    def by_value(self, alive: Array) -> dict[str, float]:
        """Bytes of every activation that lives at the peak."""
        terms, lives = self._highest(alive)
        rows = zip(self.sizes.owners, terms.tolist(), lives.tolist(), strict=True)
        return {owner: size for owner, size, at_peak in rows if at_peak}


def peak(coupling: Coupling) -> Peak:
    """Peak activation memory at the nominal input sizes."""
    makers = {str(v.name): at for at, node in enumerate(coupling.graph.nodes) for v in node.outputs}
    names = [name for name in _spans(coupling, ()) if known(coupling, name)]
    return Peak(coupling, polynomial("memory", coupling, (_size(coupling, name, makers.get(name)) for name in names)))


def _size(coupling: Coupling, name: str, maker: int | None) -> tuple[str, int, Sequence[Digit]]:
    each, digits = volume(coupling, name)
    return name, each, (*digits, *(() if maker is None else coupling.present([maker])))


def _spans(coupling: Coupling, gone: Sequence[Block]) -> dict[str, tuple[int, int]]:
    """Activation -> the node from which on it lives, and from which on no more, without some residual blocks."""
    absent, shown = _left_out(coupling, gone)
    born = {str(value.name): 0 for value in coupling.graph.model.graph.inputs}
    end = dict(born)
    for at, node in enumerate(coupling.graph.nodes):
        if at in absent:
            continue
        read = (shown.get(str(value.name), str(value.name)) for value in node.inputs if value is not None)
        end |= {owner: at + 1 for owner in read if owner in born}
        outputs = [str(value.name) for value in node.outputs if value.name and str(value.name) not in shown]
        born |= dict.fromkeys(outputs, at)
        end |= dict.fromkeys(outputs, at + 1)
    ends = (shown.get(str(value.name), str(value.name)) for value in coupling.graph.model.graph.outputs)
    end |= {owner: len(coupling.graph.nodes) for owner in ends if owner in born}
    return {name: (start, end[name]) for name, start in born.items()}


def _left_out(coupling: Coupling, gone: Sequence[Block]) -> tuple[set[int], dict[str, str]]:
    """The nodes that are not there without some blocks, and output of a view -> the activation whose memory it shows.

    See :func:`onnxslim_learn.rewrite.dropped_blocks.drop`: a sum of which one side is left is that side.
    """
    nodes, absent, shown = coupling.graph.nodes, {node for block in gone for node in block.nodes}, dict[str, str]()
    silent = {_name(nodes[block.sum].inputs[block.slot]) for block in gone if block.slot != OWN}
    for at, node in enumerate(nodes):
        outputs = [str(value.name) for value in node.outputs if value.name]
        left = [name for value in node.inputs if (name := _name(value)) not in silent]
        if at in absent or (silent.issuperset(map(_name, node.inputs)) and node.inputs):
            absent, silent = absent | {at}, silent | set(outputs)
        elif len(left) == 1 < len(node.inputs) and roles.of(node).parts is None:
            absent, shown = absent | {at}, shown | dict.fromkeys(outputs, shown.get(left[0], left[0]))
        elif roles.has(node, IDLE) and left and (source := node.inputs[0]) is not None and not source.is_initializer():
            shown |= dict.fromkeys(outputs, shown.get(left[0], left[0]))
    return absent, shown


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)
