"""The network as reports draw it: the layers and where branches meet; what lies between belongs to what it follows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxslim_learn.coupling.titles import module_path, shared_path
from onnxslim_learn.registry import MACS, PARAMS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Labels
    from onnxslim_learn.coupling.relations import Value
    from onnxslim_learn.coupling.removal import Removal

Data = dict[str, Any]
Times: TypeAlias = "Mapping[str, tuple[float, float]]"
COSTS = (MACS, PARAMS)
MS, DIGITS = "ms", 6  # of milliseconds, to the nanosecond
HUES = (211, 30, 145, 350, 275, 180, 55, 95, 320, 240, 12, 165)  # of groups, in degrees
WORDS = ("op_type", "module")  # of a node, which many share


def network(analysis: Analysis, cut: Removal | None = None, times: Times | None = None) -> list[Data]:
    """Every layer and every node where branches meet, in the order of the file, as plain data.

    Costs of nodes in between (activations, normalisations, views) count for the layer they follow.

    Args:
        analysis: The model.
        cut: What goes; nothing by default.
        times: Node -> milliseconds before and after, where they were measured; else those that the latency of the
            analysis estimates, if it has one.

    Returns:
        For each its ``name``, ``op_type``, ``module``; ``width`` (units of its output), ``macs``, ``params``, each
        before and after, and where times are known ``ms``; the ``group`` that its output carries, or ``None``;
        ``inputs``: places in the list.
    """
    cut = cut or analysis.whole
    drawing = _Drawing(analysis, cut, _estimated(analysis, cut) if times is None else times)
    for index in range(len(analysis.coupling.nodes)):
        drawing.add(index)
    return drawing.nodes


def times_of(nodes: Sequence[Mapping[str, Any]]) -> Times | None:
    """Times of nodes as :func:`onnxslim_learn.workflow.timed.by_node` tells them; ``None`` where none were measured."""
    return {one["name"]: (one["before_ms"] or 0.0, one["after_ms"] or 0.0) for one in nodes} or None


def _estimated(analysis: Analysis, cut: Removal) -> Times:
    """Milliseconds of nodes before and after, by the latency of an analysis; none where it has none."""
    if analysis.latency is None:
        return {}
    alive = (~cut.gone).astype(float)
    before, after = (analysis.latency.by_node(one) for one in (np.ones(len(alive)), alive))
    return {name: (us / 1e3, after.get(name, 0.0) / 1e3) for name, us in before.items()}


def grown(before: Sequence[Data], after: Sequence[Data]) -> list[Data]:
    """The layers of a model, with widths and costs after it became another, whose nodes have the same names."""
    others = {node["name"]: node for node in after}
    nodes = []
    for node in before:
        other = others.get(node["name"], node)
        told = [key for key in ("width", *COSTS, MS) if node.get(key) and other.get(key)]
        pairs = {key: [node[key][0], other[key][0]] for key in told}
        nodes.append({**node, **pairs})
    return nodes


def packed(nodes: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]) -> Data:
    """A picture in few letters: names stand once, a pair of equal numbers is one, and keys are places in a list."""
    words = {word: place for place, word in enumerate(dict.fromkeys(node[k] for node in nodes for k in WORDS))}
    numbers = {group["name"]: place for place, group in enumerate(groups)}

    def short(pair: Sequence[float] | None) -> Any:
        return 0 if not pair else pair[0] if pair[0] == pair[1] else list(pair)

    rows = [
        [
            node["name"],
            *(words[node[key]] for key in WORDS),
            *(short(node[key]) for key in ("width", *COSTS)),
            numbers.get(node["group"], -1),
            node["inputs"],
            *([short(node[MS])] if MS in node else []),
        ]
        for node in nodes
    ]
    return {"words": list(words), "nodes": rows, "groups": list(groups), "hues": HUES}


@dataclass
class _Drawing:
    """What is drawn so far.

    Attributes:
        analysis: The model.
        cut: What goes.
        times: Node -> milliseconds before and after.
        nodes: What is drawn.
        sources: Value -> what is drawn of which it comes.
        made_of: Value -> parameters, and nodes that do work, of which alone it is made.
        counted: Parameters and nodes whose costs are counted.
    """

    analysis: Analysis
    cut: Removal
    times: Times
    nodes: list[Data] = field(default_factory=list)
    sources: dict[str, tuple[int, ...]] = field(default_factory=dict)
    made_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        coupling = self.analysis.coupling
        self.group_of = np.full(coupling.columns, -1)
        for number, group in enumerate(self.analysis.groups):
            self.group_of[group.units] = number
        alive = (~self.cut.gone).astype(float)
        self.costs = {
            name: (self.analysis.costs[name].by_node(np.ones(coupling.size)), self.analysis.costs[name].by_node(alive))
            for name in COSTS
        }
        for value in self.analysis.graph.model.graph.inputs:
            name = str(value.name)
            self._draw({"name": name, "op_type": "input", "module": ""}, name, ())
            self.sources[name] = (len(self.nodes) - 1,)

    def add(self, index: int) -> None:
        """Draw a node, or let it belong to what it follows; what only parameters make belongs to what reads it."""
        node = self.analysis.coupling.nodes[index]
        read = [str(value.name) for value in node.inputs if value is not None]
        outputs = [str(value.name) for value in node.outputs if value.name]
        weights = [one for name in dict.fromkeys(read) for one in self._weights(name)]
        comes = tuple(dict.fromkeys(k for name in read for k in self.sources.get(name, ())))
        if not comes:
            self.made_of.update(dict.fromkeys(outputs, (*weights, *self._spent(node))))
            return
        shown = [str(value.name) for value in node.outputs if value.name and not _is_size(value)]
        if shown and (len(comes) > 1 or self._is_layer(node, weights)):
            path = module_path(node, weights) or shared_path([tuple(self.nodes[k]["module"].split(".")) for k in comes])
            about = {"name": str(node.name), "op_type": node.op_type, "module": ".".join(path)}
            self._draw(about, shown[0], comes)
            comes = (len(self.nodes) - 1,)
        self.sources.update(dict.fromkeys(shown, comes))
        self._count(self.nodes[comes[0]], [*weights, *self._spent(node)])
        for side, ms in enumerate(self.times.get(str(node.name), ())):
            self.nodes[comes[0]][MS][side] = round(self.nodes[comes[0]][MS][side] + ms, DIGITS)

    def _weights(self, name: str) -> tuple[str, ...]:
        """The parameters that a value is, or is made of."""
        return (name,) if name in self.analysis.graph.initializers else self.made_of.get(name, ())

    def _spent(self, node: ir.Node) -> tuple[str, ...]:
        """The owner of a node's work, if it has any."""
        return (str(node.name),) if self.costs[MACS][0].get(str(node.name)) else ()

    def _is_layer(self, node: ir.Node, weights: Sequence[str]) -> bool:
        """Whether a node has work to do, or a matrix of parameters."""
        initializers = self.analysis.graph.initializers
        matrices = (name for name in weights if name in initializers and len(initializers[name].shape or ()) > 1)
        return bool(self._spent(node)) or next(matrices, None) is not None

    def _draw(self, about: Data, output: str, inputs: tuple[int, ...]) -> None:
        value = self.analysis.coupling.values.get(output)
        width, group = (None, None) if value is None else (self._width(value), self._group(value))
        spent = {MS: [0.0, 0.0]} if self.times else {}
        self.nodes.append(
            {**about, "width": width, "macs": [0, 0], "params": [0, 0], **spent, "group": group, "inputs": [*inputs]}
        )

    def _count(self, drawn: Data, owners: Sequence[str]) -> None:
        """Count what nodes and parameters cost, each once."""
        for owner in dict.fromkeys(owners):
            if owner not in self.counted:
                self.counted.add(owner)
                for cost, side in itertools.product(self.costs, range(2)):
                    drawn[cost][side] += round(self.costs[cost][side].get(owner, 0))

    def _width(self, value: Value) -> list[int] | None:
        """How many units a value carries before and after."""
        digits = [digit for digit in value.digits.values() if digit.labels is not None]
        if not digits:
            return None
        before, after = 1, 1
        for digit in digits:
            before, after = before * digit.size, after * self.cut.width(value, digit)
        return [before, after]

    def _group(self, value: Value) -> str | None:
        """The group of most of the units of a value."""
        coupling = self.analysis.coupling
        labels: list[Labels] = [d.labels.reshape(-1) for d in value.digits.values() if d.labels is not None]
        atoms = np.concatenate(labels) if labels else np.zeros(0, np.int64)
        numbers = self.group_of[coupling.column[coupling.strong[atoms[atoms > 0]]]]
        numbers = numbers[numbers >= 0]
        return self.analysis.groups[int(np.bincount(numbers).argmax())].name if len(numbers) else None


def _is_size(value: ir.Value) -> bool:
    """Whether a value is a vector of sizes or positions: what is computed of them is no part of the picture."""
    kind, shape = value.dtype, value.shape
    return kind is not None and not kind.is_floating_point() and shape is not None and len(shape) < 2
