"""Why things are coupled and why something cannot go, as paths through the graph."""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from onnxslim_learn.errors import InputError
from onnxslim_learn.graph.dataflow import dataflow
from onnxslim_learn.runtime.node import reads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from onnxslim_learn.array_types import Labels
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.relations import Value
    from onnxslim_learn.coupling.solver import Coupling

Axis = tuple[str, int]  # a tensor's name and one of its axes


@dataclass(frozen=True)
class Step:
    """One step of an explanation: an operator that ties an axis of one tensor to an axis of another (or pins it)."""

    source: str
    node: str
    op_type: str
    target: str


def axes_of(coupling: Coupling, columns: Labels) -> Any:
    """All tensor axes that carry some of these columns, as a ``networkx.Graph`` whose edges are operators.

    Nodes are ``(tensor, axis)``; an edge carries ``node`` and ``op_type``. Axes that only rows connect are left apart.
    """
    view, wanted = nx.Graph(), np.zeros(coupling.columns, bool)
    wanted[columns] = True
    carried: dict[str, list[tuple[int, set[int]]]] = {}
    for name, value in coupling.values.items():
        for axis in range(len(value.axes)):
            units = _columns(coupling, (name, axis))
            if wanted[units].any():
                view.add_node((name, axis))
                carried.setdefault(name, []).append((axis, set(units[wanted[units]].tolist())))
    for node in coupling.nodes:
        near = [name for name in dict.fromkeys(_touched(node)) if name in carried]
        ends = [(name, axis, shared) for name in near for axis, shared in carried[name]]
        for k, (name, axis, shared) in enumerate(ends):
            for other, position, also in ends[k + 1 :]:
                if shared & also:
                    view.add_edge((name, axis), (other, position), node=str(node.name), op_type=node.op_type)
    return view


def why(coupling: Coupling, groups: Sequence[Group], question: str) -> list[Step]:
    """Answer what a group, a block or ``tensor:axis`` is held by, or why ``axis,axis`` go together; empty if nothing.

    Raises:
        InputError: If the question names nothing.
    """
    first, comma, second = (part.strip() for part in question.partition(","))
    return why_coupled(coupling, first, second) if comma else why_not(coupling, groups, first)


def why_coupled(coupling: Coupling, first: str, second: str) -> list[Step]:
    """The shortest chain of operators that ties one tensor axis to another; empty if nothing does.

    Args:
        coupling: The coupling.
        first: An axis, ``tensor:axis``.
        second: Another.

    Raises:
        InputError: If an axis does not exist, or both are the same.
    """
    ends = [_parse(coupling, text) for text in (first, second)]
    if ends[0] == ends[1]:
        raise InputError(f"⟨why⟩ '{first},{second}': names one axis twice. Give two.")
    one, other = (_columns(coupling, end) for end in ends)
    for end, columns in zip(ends, (one, other), strict=True):
        if not len(columns):
            return _why_fixed(coupling, end)
    view = axes_of(coupling, np.intersect1d(one, other))
    if not all(view.has_node(end) for end in ends) or not nx.has_path(view, *ends):
        return []
    return _steps(view, nx.shortest_path(view, *ends))


def _columns(coupling: Coupling, axis: Axis) -> Labels:
    """Columns that an axis carries, each as often as it does."""
    digits = coupling.values[axis[0]].axes[axis[1]]
    atoms = [digit.labels[digit.labels > 0] for digit in digits if digit.labels is not None]
    columns: Labels = coupling.column[coupling.strong[np.concatenate([np.zeros(0, np.int64), *atoms])]]
    return columns


def why_not(coupling: Coupling, groups: Sequence[Group], text: str) -> list[Step]:
    """The chain of operators that holds a group, named by itself or by an axis that carries it; empty if nothing does.

    Of a residual block, named as :class:`~onnxslim_learn.coupling.residual.Block` is, it is the sum that it ends in.

    Raises:
        InputError: If there is no such group, block or axis.
    """
    named = [g for g in groups if g.name == text]
    if named:
        return why_pinned(coupling, named[0])
    for block in (block for block in coupling.blocks if block.name == text):
        node = coupling.nodes[block.sum]
        return [Step(text, str(node.name), node.op_type, f"cannot go: {block.pin}")] if block.pin else []
    axis = _axis(coupling, text)
    if axis is None:
        blocks = [block.name for block in coupling.blocks]
        names = list(dict.fromkeys([*(n for g in groups for n in (g.name, *g.members)), *blocks]))
        near = [n for n in names if n.rpartition(":")[0] == text] or difflib.get_close_matches(text, names, 3, 0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else " Run analyze to see their names."
        raise InputError(f"⟨why⟩ {text!r}: no group, block or axis has that name.{hint}")
    columns = np.unique(_columns(coupling, axis))
    if not len(columns):
        return _why_fixed(coupling, axis)
    held = [g for g in groups if g.pin is not None and np.isin(g.units, columns).any()]
    return why_pinned(coupling, held[0]) if held else []


def _why_fixed(coupling: Coupling, axis: Axis) -> list[Step]:
    """Why an axis that carries no units stays: it belongs to a graph input or meets one, or nothing on it could go."""
    name, position = axis
    shape = coupling.values[name].shape
    alike = shape[: position + 1].count(shape[position])
    sources = _sources(coupling)
    for node in coupling.nodes:
        for other in dict.fromkeys((name, *_touched(node))) if name in _touched(node) else ():
            source = sources.get(other)
            if source and alike <= coupling.values[source].shape.count(shape[position]):
                relation = "is" if source == name else "comes from" if other == name else "meets"
                reason = f"cannot go: it {relation} graph input {source}, whose axes stay"
                return [Step(_text(axis), str(node.name), node.op_type, reason)]
    return [
        Step(_text(axis), "the model", "", "cannot go: no units lie on it (a kernel, position, token or batch axis)")
    ]


def _sources(coupling: Coupling) -> dict[str, str]:
    """Value -> the first graph input that it comes from through values without units."""
    flow = dataflow(coupling.graph)
    labelled = {("value", name) for name, value in coupling.values.items() if _labelled(value)}
    view = flow.subgraph(flow.nodes - labelled)
    sources: dict[str, str] = {}
    for value in coupling.graph.model.graph.inputs:
        start = ("value", str(value.name))
        reached = {start, *nx.descendants(view, start)} if start in view else {start}
        for kind, name in reached:
            if kind == "value":
                sources.setdefault(name, start[1])
    return sources


def why_pinned(coupling: Coupling, group: Group) -> list[Step]:
    """The chain of operators from a group's first parameter axis to the node that pins it, and the reason last."""
    if group.pin is None:
        return []
    start = group.members[0] if group.members else group.name
    reason = group.pin.reason
    if group.pin.node < -1 or not group.members:
        where = coupling.where(group.pin.node) if group.pin.node >= 0 else "the choice of units"
        return [Step(start, where, "", f"cannot go: {reason}")]
    view = axes_of(coupling, group.units)
    where, op_type, tensors = _holder(coupling, group.pin.node)
    pinned = coupling.strong[group.pin.atoms[group.pin.atoms > 0]]
    ends = [axis for axis in view if axis[0] in tensors and _carries(coupling, axis, pinned)]
    origin = _parse(coupling, start)
    paths = [
        nx.shortest_path(view, origin, end) for end in ends if view.has_node(origin) and nx.has_path(view, origin, end)
    ]
    path: list[Axis] = min(paths, key=len, default=[])
    return [*_steps(view, path), Step(_text(path[-1]) if path else start, where, op_type, f"cannot go: it {reason}")]


def _holder(coupling: Coupling, index: int) -> tuple[str, str, set[str]]:
    """Name and operator of what pins, and the tensors it touches; the model itself for its outputs."""
    if index < 0:
        return "the model", "graph output", {str(v.name) for v in coupling.graph.model.graph.outputs}
    node = coupling.nodes[index]
    return str(node.name), node.op_type, set(_touched(node))


def _touched(node: ir.Node) -> list[str]:
    """Tensors that a node reads or makes, those that its bodies capture included."""
    return [*reads(node), *(str(v.name) for v in node.outputs if v.name)]


def _carries(coupling: Coupling, axis: Axis, classes: Any) -> bool:
    digits = coupling.values[axis[0]].axes[axis[1]]
    return any(d.labels is not None and np.isin(coupling.strong[d.labels], classes).any() for d in digits)


def _labelled(value: Value) -> bool:
    return any(digit.labels is not None for digit in value.digits.values())


def _axis(coupling: Coupling, text: str) -> Axis | None:
    """The axis that ``tensor:axis`` names, if there is one."""
    name, _, axis = text.rpartition(":")
    exists = name in coupling.values and axis.isdecimal() and int(axis) < len(coupling.values[name].axes)
    return (name, int(axis)) if exists else None


def _parse(coupling: Coupling, text: str) -> Axis:
    axis = _axis(coupling, text)
    if axis is not None:
        return axis
    name = text.rpartition(":")[0]
    near = [f"{known}:0" for known in difflib.get_close_matches(name or text, coupling.values, 3, 0.4)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(f"⟨why⟩ {text!r}: no such axis.{hint} Give tensor:axis as analyze lists them.")


def _text(axis: Axis) -> str:
    return f"{axis[0]}:{axis[1]}"


def _steps(view: Any, path: Sequence[Axis]) -> list[Step]:
    pairs = itertools.pairwise(path)
    return [Step(_text(a), view.edges[a, b]["node"], view.edges[a, b]["op_type"], _text(b)) for a, b in pairs]
