"""Folding with shapes at hand: static arithmetic becomes constant, branches with a constant condition go inline.

So does what normalises parameters, say: the cut of a standardised weight is not the standardised cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.graph import schemas, shape_arithmetic
from onnxslim_learn.runtime.node import bodies, compute

if TYPE_CHECKING:
    from collections.abc import Callable

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
                _replace(graph, shapes, value, static)
    for node in graph:
        target = node.inputs[1] if len(node.inputs) > 1 else None
        if target is not None and not target.is_initializer():
            constant = shape_arithmetic.constant_target(node, shapes)
            if constant is not None:
                name = f"{node.name}.target"
                fresh = initializer(graph, name, np.array(constant, np.int64))
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


GROWTH = 2  # no parameter is computed ahead that would take more than this many times the place


def settle_parameters(
    module: ir.Model, shapes: Shapes, whole: Callable[[ir.Node], bool], stacks: Callable[[ir.Node], bool]
) -> None:
    """Compute ahead what normalises parameters or writes to places of them, and what is stacked.

    Then cutting them is exact, and what exporters put together from slices of a cell's parameters is one parameter.

    Args:
        module: The model.
        shapes: Its shapes.
        whole: Whether a node reads whole axes or places: what it makes of a cut parameter is no cut of what it makes.
        stacks: Whether a node wants parts stacked on the axes of its parameters.
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
    computed = {value for node in pure for value in node.outputs}
    for node in graph:
        if stacks(node):
            settled.update(value for value in node.inputs[1:] if value in computed)
    ends = [v for v in settled if not v.is_graph_output() and any(use.node not in inside for use in v.uses())]
    arrays = _computed(pure, ends)
    for value in ends:
        size = sum(source.const_value.nbytes for source in sources[value] if source.const_value is not None)
        array = arrays.get(str(value.name))
        if array is not None and array.nbytes <= GROWTH * size:
            _replace(graph, shapes, value, array)


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
    return schemas.has_attribute(node, "seed") or bool(bodies(node))


def initializer(graph: ir.Graph, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
    """Add an initializer."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _replace(graph: ir.Graph, shapes: Shapes, value: ir.Value, array: np.ndarray[Any, Any]) -> None:
    """Let an initializer of the same name take the place of a computed value, which a node of several still yields."""
    name = str(value.name)
    value.name = renamed = f"{name}~computed"
    for sample in shapes.samples:
        sample.shape[renamed], sample.dtype[renamed] = sample.shape[name], sample.dtype[name]
    fresh = initializer(graph, name, np.array(array, order="C"))
    ir.convenience.replace_all_uses_with(value, fresh)
