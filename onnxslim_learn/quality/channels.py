"""Where the channels of an output lie, and which concatenation made them: walked back from the output."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.operators import elementwise, movement, table
from onnxslim_learn.metrics import Channels

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.coupling.context import Rule
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.graph.shape_info import Shape

DEPTH = 200  # nodes between an output and a concatenation
MANY = 32  # blocks of one output: more are no meanings but repetitions


def channels(coupling: Coupling) -> dict[str, Channels]:
    """The channel axis of every output, the cuts that concatenations along it make, and what the last operator says."""
    by_output, tokens = {}, any(map(_tokens, coupling.graph.model.graph.inputs))
    for value in coupling.graph.model.graph.outputs:
        name = str(value.name)
        axis = _axis(coupling, name)
        cuts = set() if axis is None else _Walk(coupling).cuts(value, axis, DEPTH)
        known = tuple(sorted(cuts)) if len(cuts) < MANY else ()
        by_output[name] = Channels(axis, known, roles.puts_out(value), tokens)
    return by_output


def _tokens(value: ir.Value) -> bool:
    """Whether an input holds rows of whole numbers: pixels have more axes."""
    whole = value.dtype is not None and value.dtype.is_integer()
    return whole and value.shape is not None and len(value.shape) == 2


def _axis(coupling: Coupling, name: str) -> int | None:
    """The last axis but the first all of whose digits carry labels: others are places, tokens or samples."""
    layout = coupling.values.get(name)
    if layout is None:
        return None
    labelled = [k for k, axis in enumerate(layout.axes) if k and axis and all(d.labels is not None for d in axis)]
    return labelled[-1] if labelled else None


@dataclass(frozen=True)
class _Walk:
    """Finds cuts behind a value: positions along an axis where one input of a concatenation ends."""

    coupling: Coupling
    known: dict[tuple[str, int], set[int]] = field(default_factory=dict)

    def shape(self, value: ir.Value | None) -> Shape:
        """The sizes of a value, empty where they are not known."""
        return () if value is None else self.coupling.graph.shapes.analysis.shape.get(str(value.name), ())

    def cuts(self, value: ir.Value | None, axis: int, depth: int) -> set[int]:
        """The cuts of a value along an axis."""
        node = None if value is None else value.producer()
        if value is None or node is None or not depth or len(self.shape(value)) <= axis:
            return set()
        key, step = (str(value.name), axis), _STEPS.get(roles.of(node).rule)
        if key not in self.known:
            self.known[key] = set() if step is None else step(self, node, axis, depth - 1)
        return self.known[key]

    def alike(self, node: ir.Node, axis: int, depth: int) -> set[int]:
        """All operands that have the axis."""
        size = self.shape(node.outputs[0])
        operands: set[int] = set()
        for value in node.inputs:
            shape = self.shape(value)
            aligned = axis - len(size) + len(shape)
            if aligned >= 0 and shape[aligned] == size[axis] > 1:
                operands |= self.cuts(value, aligned, depth)
        return operands

    def joined(self, node: ir.Node, axis: int, depth: int) -> set[int]:
        """Ends of what is concatenated along the axis, and cuts inside."""
        along = int(node.attributes["axis"].value) % len(self.shape(node.outputs[0]))
        inside = [self.cuts(value, axis, depth) for value in node.inputs]
        if along != axis:
            return set().union(*inside)
        sizes = [self.shape(value)[axis] if self.shape(value) else 0 for value in node.inputs]
        starts = [0, *itertools.accumulate(sizes)]
        within = {start + cut for start, cuts in zip(starts, inside, strict=False) for cut in cuts}
        return within | {start for start in starts[1:-1] if start}

    def permuted(self, node: ir.Node, axis: int, depth: int) -> set[int]:
        """The axis it was before."""
        rank = len(self.shape(node.outputs[0]))
        order = list(node.attributes["perm"].value) if "perm" in node.attributes else list(range(rank))[::-1]
        return self.cuts(node.inputs[0], int(order[axis]), depth)

    def regrouped(self, node: ir.Node, axis: int, depth: int) -> set[int]:
        """The axis that has as many numbers before and after it."""
        before, after = self.shape(node.inputs[0]), self.shape(node.outputs[0])
        for place, size in enumerate(before):
            same = size == after[axis] and math.prod(before[:place]) == math.prod(after[:axis])
            if same and math.prod(before[place + 1 :]) == math.prod(after[axis + 1 :]):
                return self.cuts(node.inputs[0], place, depth)
        return set()

    def sliced(self, node: ir.Node, axis: int, depth: int) -> set[int]:
        """The same along an axis of which nothing is taken away."""
        before, after = self.shape(node.inputs[0]), self.shape(node.outputs[0])
        whole = len(before) == len(after) and before[axis] == after[axis]
        return self.cuts(node.inputs[0], axis, depth) if whole else set()


_ALIKE: list[Rule] = [elementwise.elementwise, elementwise.first_input, table.TABLE["Softmax"].rule]
_STEPS: dict[Rule, Callable[[_Walk, ir.Node, int, int], set[int]]] = {
    **dict.fromkeys(_ALIKE, _Walk.alike),
    movement.concat: _Walk.joined,
    movement.transpose: _Walk.permuted,
    movement.reshape: _Walk.regrouped,
    movement.regrouped: _Walk.regrouped,
    movement.slice_axes: _Walk.sliced,
}
