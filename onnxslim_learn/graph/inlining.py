"""Branches of Ifs in the main graph: what conditions choose that are constant, or known from values for inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.graph.bodies import is_choice, parameters
from onnxslim_learn.runtime.node import inside

if TYPE_CHECKING:
    from onnxslim_learn.graph.shape_info import Shapes

CHOSEN = "onnxslim_learn.chosen"  # metadata of an If whose branch of that name is in the main graph
TRIED = 3  # values, where none is given


def inline_branches(module: ir.Model, shapes: Shapes) -> bool:
    """Put the branch that a known condition chooses into the main graph; says whether there was one.

    Of a constant condition, it takes the place of the If. Of one that is known from values given for inputs, the If
    stays for what runs with other values: the branch that is chosen only passes on there what the main graph computes
    (:func:`onnxslim_learn.graph.inlining.put_back`).
    """
    graph = module.graph
    changed = False
    for node in list(graph):
        condition = None if not node.inputs or node.inputs[0] is None else str(node.inputs[0].name)
        if not {"then_branch", "else_branch"} <= set(node.attributes) or condition is None:
            continue
        known = shapes.nominal.value.get(condition)
        if known is None or known.size != 1 or CHOSEN in node.metadata_props:
            continue
        branch = "then_branch" if known.reshape(())[()] else "else_branch"
        if condition in shapes.nominal.told:
            _choose(graph, node, branch)
        elif shapes.static(condition) is not None:
            _splice(graph, node, node.attributes[branch].as_graph())
        else:
            continue
        changed = True
    return changed


def passed(node: ir.Node) -> dict[str, str]:
    """Output of an If of which a branch is in the main graph -> what that branch passes on; else nothing."""
    if CHOSEN not in node.metadata_props:
        return {}
    body = node.attributes[node.metadata_props[CHOSEN]].as_graph()
    sources = [value.producer().inputs[0] for value in body.outputs]  # type: ignore[union-attr]
    return {str(o.name): str(s.name) for o, s in zip(node.outputs, sources, strict=True) if o.name and s is not None}


def put_back(graph: ir.Graph) -> None:
    """Move branches that were chosen back into their Ifs: whatever only such a branch reads."""
    for node in list(graph):
        branch = node.metadata_props.pop(CHOSEN, None)
        if branch is None:
            continue
        body = node.attributes[branch].as_graph()
        moved = set(body)
        for before in reversed(list(graph)):
            uses = [use for value in before.outputs for use in value.uses()]
            put_out = any(value.is_graph_output() for value in before.outputs)
            if before is not node and uses and not put_out and all(use.node in moved for use in uses):
                graph.remove(before)
                body.insert_before(body[0], before)
                moved |= {before, *inside(before)}


def _choose(graph: ir.Graph, node: ir.Node, branch: str) -> None:
    """Move a branch in front of its If, and let it pass on the results."""
    results = _unfold(graph, node, node.attributes[branch].as_graph())
    passing = [ir.Node("", "Identity", [value], name=f"{node.name}.passed{k}") for k, value in enumerate(results)]
    for old, one in zip(results, passing, strict=True):
        one.outputs[0].name, one.outputs[0].type, one.outputs[0].shape = f"{old.name}~passed", old.type, old.shape
    body = ir.Graph([], [one.outputs[0] for one in passing], nodes=passing, name=f"{node.name}.{branch}")
    node.attributes[branch] = ir.AttrGraph(branch, body)
    node.metadata_props[CHOSEN] = branch


def _splice(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    """Move a branch in front of its If, and its results in place of the If's."""
    taken = _taken(graph)
    for old, new in zip(list(node.outputs), _unfold(graph, node, branch), strict=True):
        if old.is_graph_output():
            identity = ir.Node("", "Identity", [new], name=_free_name(f"{node.name}.result", taken))
            name, old.name = old.name, _free_name(f"{old.name}~if", taken)
            identity.outputs[0].name, identity.outputs[0].type, identity.outputs[0].shape = name, old.type, old.shape
            graph.insert_before(node, identity)
            new = identity.outputs[0]  # noqa: PLW2901
            for place, output in enumerate(list(graph.outputs)):
                if output is old:
                    graph.outputs[place] = new
        ir.convenience.replace_all_uses_with(old, new)
    for held in list(inside(node)):  # of the branch that never runs
        for slot in range(len(held.inputs)):
            held.replace_input_with(slot, None)
    graph.remove(node, safe=True)


def _taken(graph: ir.Graph) -> set[str]:
    """Names of all values of a graph."""
    taken = {str(v.name) for other in graph for v in other.outputs} | set(graph.initializers)
    return taken | {str(v.name) for v in graph.inputs}


def _unfold(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> list[ir.Value]:
    """Move the nodes and initializers of a branch in front of its If; returns its results."""
    taken = _taken(graph)
    for value in list(branch.initializers.values()):
        tensor = value.const_value
        free = _free_name(str(value.name), taken)
        fresh = ir.Value(name=free, shape=value.shape, type=value.type, const_value=tensor)
        graph.register_initializer(fresh)
        ir.convenience.replace_all_uses_with(value, fresh)
    results = list(branch.outputs)
    inner = list(branch)
    branch.outputs.clear()
    branch.remove(inner)
    for moved in inner:
        moved.name = _free_name(f"{node.name}.{moved.name}", taken)
        for output in moved.outputs:
            if output.name:
                output.name = _free_name(str(output.name), taken)
    graph.insert_before(node, inner)
    return results


def _free_name(wish: str, taken: set[str]) -> str:
    """A name that is not taken yet; takes it."""
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    taken.add(name)
    return name


def deciding(graph: ir.Graph) -> dict[str, list[Any]]:
    """Single numbers among the graph inputs that alone decide on a branch with weights -> values to try for them.

    These are what they are compared with, in order.
    """
    values: dict[str, list[Any]] = {}
    for node in graph:
        condition = node.inputs[0] if len(node.inputs) else None
        if not is_choice(node) or condition is None or not _weighs(node):
            continue
        inputs, compared = _asked(condition)
        value = next(iter(inputs)) if len(inputs) == 1 else None
        if value is not None:
            tried = [True] if value.dtype == ir.DataType.BOOL else compared
            values.setdefault(str(value.name), []).extend(tried)
    return {name: list(dict.fromkeys(tried))[:TRIED] for name, tried in values.items()}


def decided_by(node: ir.Node) -> list[str]:
    """The single numbers among the graph inputs that alone decide which branch of an If runs; else none."""
    condition = node.inputs[0] if is_choice(node) else None
    inputs = set() if condition is None else _asked(condition)[0]
    return [] if None in inputs else sorted(str(value.name) for value in inputs if value is not None)


def _weighs(node: ir.Node) -> bool:
    """Whether branches hold or read initializers with axes."""
    held = [value for _, value in parameters(node)]
    held += [value for inner in inside(node) for value in inner.inputs if value is not None]
    tensors = [value.const_value for value in held if value.const_value is not None]
    return any(tensor.dtype.is_floating_point() and len(tensor.shape) > 1 for tensor in tensors)


def _asked(condition: ir.Value) -> tuple[set[ir.Value | None], list[Any]]:
    """Graph inputs that a condition is computed from, and single constants on the way, the nearest first.

    ``None`` among the inputs stands for one that is no single number.
    """
    inputs: set[ir.Value | None] = set()
    constants: list[Any] = []
    reached, seen = [condition], {condition}
    for value in reached:
        node, tensor = value.producer(), value.const_value
        if tensor is not None:
            constants += [np.asarray(tensor.numpy()).item()] if tensor.size == 1 else []
        elif node is None:
            inputs.add(value if value.shape is not None and all(dim == 1 for dim in value.shape) else None)
        else:
            fresh = [given for given in dict.fromkeys(node.inputs) if given is not None and given not in seen]
            reached += fresh
            seen.update(fresh)
    return inputs, constants
