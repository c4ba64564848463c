"""What becomes of a graph where a whole group goes: which tensors are dead, which constant, and whether that works.

A tensor with an axis of which nothing is left is *dead*; nodes that make only dead tensors disappear. A node whose
summed input is dead puts out its bias, which is constant; elementwise operators carry the constant on to where it meets
a live tensor. A Concat loses its dead parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.coupling.records import Contraction
    from onnxslim_learn.coupling.removal import Removal


@dataclass
class Fate:
    """What becomes of a graph's values and nodes.

    Attributes:
        dead: Values with an axis of which nothing is left.
        constant: Values that no longer depend on an input.
        silent: Node index -> the contraction whose input is dead.
        problem: Why the branch cannot be dropped, or an empty string.
    """

    dead: set[str] = field(default_factory=set)
    constant: set[str] = field(default_factory=set)
    silent: dict[int, Contraction] = field(default_factory=dict)
    problem: str = ""


def foresee(removal: Removal) -> Fate:
    """Find out what becomes of every value, and whether all of it can be carried out."""
    coupling = removal.coupling
    fate = Fate()
    for name, layout in coupling.values.items():
        if any(removal.emptied(layout, axis) for axis in range(len(layout.axes))):
            fate.dead.add(name)
    if not fate.dead:
        return fate
    records = coupling.records.contractions
    summed = {r.node: r for r in records if any(removal.emptied(r.value, axis) for axis in r.axes)}
    for index, node in enumerate(coupling.nodes):
        if all(str(value.name) in fate.dead for value in node.outputs if value.name):
            continue
        if index in summed:
            fate.silent[index] = summed[index]
        problem = _pass_on(removal, index, node, fate)
        if problem and not fate.problem:
            fate.problem = f"node {node.name} ({node.op_type}) {problem}"
    for value in coupling.graph.model.graph.outputs:
        if str(value.name) in fate.constant | fate.dead:
            fate.problem = fate.problem or f"the graph output {value.name} would be constant"
    return fate


def _pass_on(removal: Removal, index: int, node: ir.Node, fate: Fate) -> str:
    """Note whether a node's outputs are constant; returns what is wrong, or an empty string."""
    records = removal.coupling.records
    inputs = {str(value.name) for value in node.inputs if value is not None}
    if index in fate.silent:
        fate.constant.update(str(value.name) for value in node.outputs)
        return "" if fate.silent[index].bias is not None else "has no rule for an input that vanishes"
    if inputs & fate.constant:
        return _meet(removal, index, node, fate)
    if inputs & fate.dead and index not in records.joins:
        return "would lose an input"
    return ""


def _meet(removal: Removal, index: int, node: ir.Node, fate: Fate) -> str:
    """What happens where a constant meets a node: it goes on, or is broadcast against a live input; else a problem."""
    if index not in removal.coupling.records.elementwise:
        return "reads a branch that vanishes"
    shapes = removal.coupling.graph.shapes.analysis.shape
    moving = [str(v.name) for v in node.inputs if v is not None and not v.is_initializer()]
    live = [name for name in moving if name not in fate.constant]
    if not live:
        fate.constant.update(str(v.name) for v in node.outputs)
        return ""
    output = shapes[str(node.outputs[0].name)]
    return "" if any(shapes[name] == output for name in live) else "broadcasts a branch that vanishes"
