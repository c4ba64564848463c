"""Folding with shapes at hand: static arithmetic becomes constant, branches with a constant condition go inline.

So does what normalises parameters, say: the cut of a standardised weight is not the standardised cut.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxslim_learn.graph import schemas, shape_arithmetic
from onnxslim_learn.graph.bodies import bodies
from onnxslim_learn.runtime.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnxslim_learn.graph.shape_info import Shapes


def settle(module: ir.Model, shapes: Shapes) -> None:
    """Fold what is static among the shape arithmetic, and rewrite Reshape and Expand targets to constants.

    A dynamic target becomes constant where ``0`` (copy), ``1`` (keep) or a single ``-1`` says the same.
    """
    graph = module.graph
    outputs = set(graph.outputs)
    for node in list(graph):
        for value in node.outputs:
            name = str(value.name)
            if name not in shapes.nominal.value or value in outputs or not value.uses():
                continue
            static = shapes.static(name)
            if static is not None:
                _replace(graph, value, static)
    for node in graph:
        target = node.inputs[1] if len(node.inputs) > 1 else None
        if target is not None and not target.is_initializer():
            constant = shape_arithmetic.constant_target(node, shapes)
            if constant is not None:
                name = f"{node.name}.target"
                fresh = _constant(graph, name, np.array(constant, np.int64))
                node.replace_input_with(1, fresh)
                for sample in shapes.samples:
                    sample.value[name] = np.array(constant, np.int64)
                    sample.shape[name], sample.dtype[name] = (len(constant),), onnx.TensorProto.INT64


def drop_unused(module: ir.Model) -> None:
    """Drop nodes and initializers that nobody reads. Optional outputs keep their names: runtimes insist on some."""
    graph = module.graph
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]


IR_VERSION = 8  # any that every onnxruntime reads
GROWTH = 2  # no parameter is computed ahead that would take this many times the place


def settle_parameters(module: ir.Model, whole: Callable[[ir.Node], bool]) -> None:
    """Compute ahead what normalises parameters, or writes to places of them: then cutting them is exact.

    Args:
        module: The model.
        whole: Whether a node reads whole axes or places: what it makes of a cut parameter is no cut of what it makes.
    """
    graph = module.graph
    sources = {value: {value} for value in graph.initializers.values() if not value.is_graph_input()}
    settled: set[ir.Value] = set()
    pure = []
    for node in graph:
        given = [value for value in node.inputs if value is not None]
        if given and all(value in sources for value in given) and not node.domain and not _is_random(node):
            pure.append(node)
            sources |= {value: set().union(*(sources[v] for v in given)) for value in node.outputs}
            if whole(node) or not settled.isdisjoint(given):
                settled.update(node.outputs)
    inside = set(pure)
    ends = [v for v in settled if not v.is_graph_output() and any(use.node not in inside for use in v.uses())]
    arrays = _computed(pure, ends)
    for value in ends:
        size = sum(source.const_value.size for source in sources[value] if source.const_value is not None)
        array = arrays.get(str(value.name))
        if array is not None and array.size <= GROWTH * size:
            _replace(graph, value, array)


def _computed(pure: list[ir.Node], ends: list[ir.Value]) -> dict[str, np.ndarray[Any, Any]]:
    """Some values and what they are computed from, by name, as far as nodes in order can be computed."""
    needed = set(ends)
    for node in reversed(pure):
        if not needed.isdisjoint(node.outputs):
            needed.update(value for value in node.inputs if value is not None)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for node in pure:
        known = all(v is None or v.const_value is not None or str(v.name) in arrays for v in node.inputs)
        if known and not needed.isdisjoint(node.outputs):
            arrays |= compute(node, arrays)
    return arrays


def _is_random(node: ir.Node) -> bool:
    """Whether a node may draw numbers, by itself or in what it holds."""
    return schemas.has_attribute(node, "seed") or any(bodies(node))


def compute(node: ir.Node, known: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name of a node whose inputs are known or constant; none if nothing here can run it.

    By onnxruntime, else (some types) by the onnx reference, which fails at some sizes.
    """
    feeds = {}
    for value in node.inputs:
        if value is not None:
            found = known.get(str(value.name))
            if found is None:
                assert value.const_value is not None
                found = value.const_value.numpy()
            feeds[str(value.name)] = found
    assert node.graph is not None
    names = [str(value.name) for value in node.outputs if value.name]
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    given = [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    body = onnx.helper.make_graph([ir.to_proto(node)], "node", given, [onnx.ValueInfoProto(name=n) for n in names])
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in node.graph.opset_imports.items()]
    model = onnx.helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION)
    for run in (_by_runtime, _by_reference):
        with contextlib.suppress(Exception):  # of onnxruntime's and onnx's, which have no base in common
            return dict(zip(names, run(model, feeds), strict=True))
    return {}


def _by_runtime(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    return [np.asarray(array) for array in open_session(model.SerializeToString(), optimize=False).run(None, feeds)]


def _by_reference(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    return list(ReferenceEvaluator(model).run(None, dict(feeds)))


def inline_branches(module: ir.Model, shapes: Shapes) -> bool:
    """Put the branch that a constant condition chooses in place of its If; says whether there was one."""
    graph = module.graph
    found = False
    for node in list(graph):
        condition = None if not node.inputs or node.inputs[0] is None else str(node.inputs[0].name)
        if not {"then_branch", "else_branch"} <= set(node.attributes) or condition is None:
            continue
        static = shapes.static(condition)
        if static is None or static.size != 1:
            continue
        chosen: ir.Graph = node.attributes["then_branch" if static.reshape(())[()] else "else_branch"].as_graph()
        _splice(graph, node, chosen)
        found = True
    return found


def _splice(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    """Move the nodes and initializers of a branch in front of its If, and its results in place of the If's."""
    taken = {str(v.name) for other in graph for v in other.outputs} | set(graph.initializers)
    taken |= {str(v.name) for v in graph.inputs}
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
    for old, new in zip(list(node.outputs), results, strict=True):
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
    graph.remove(node, safe=True)


def _free_name(wish: str, taken: set[str]) -> str:
    """A name that is not taken yet; takes it."""
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    taken.add(name)
    return name


def _constant(graph: ir.Graph, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _replace(graph: ir.Graph, value: ir.Value, array: np.ndarray[Any, Any]) -> None:
    """Let an initializer of the same name take the place of a computed value."""
    name = str(value.name)
    value.name = f"{name}~computed"
    fresh = _constant(graph, name, np.array(array, order="C"))
    ir.convenience.replace_all_uses_with(value, fresh)
