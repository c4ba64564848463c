"""The body of a node as a model of its own, with all shapes: to count what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import common as passes

from onnxslim_learn.errors import InputError
from onnxslim_learn.graph import inlining, input_sizes, shapes
from onnxslim_learn.graph.bodies import is_loop
from onnxslim_learn.graph.shape_info import Sample, Shapes
from onnxslim_learn.runtime.node import captured

if TYPE_CHECKING:
    from collections.abc import Iterator


def alone(body: ir.Graph, node: ir.Node, sample: Sample) -> tuple[ir.Model, Shapes] | None:
    """A body as a model whose inputs are its own and what it captures, with all shapes; ``None`` if one is unknown.

    Args:
        body: One of the node's bodies.
        node: The node.
        sample: What is known outside.
    """
    proto = ir.to_proto(body)
    outside = [name for name in captured(body) if name in sample.shape and sample.dtype.get(name)]
    given = dict(zip([str(v.name) for v in body.inputs], _fed(node, sample), strict=False))
    del proto.input[:]
    for name, (shape, kind) in {**given, **{n: (sample.shape[n], sample.dtype[n]) for n in outside}}.items():
        proto.input.append(ir.to_proto(_value(name, shape, kind)))
    graph = ir.serde.deserialize_graph(proto)
    model = ir.Model(graph, ir_version=10)
    assert node.graph is not None
    model.graph.opset_imports.update(node.graph.opset_imports)
    inside = Sample({str(v.name): input_sizes.fixed(v, {}) for v in graph.inputs})
    inside.value |= {name: sample.value[name] for name in outside if name in sample.value}
    return _resolved(model, inside)


def _resolved(model: ir.Model, sample: Sample) -> tuple[ir.Model, Shapes] | None:
    """All shapes, branches that are known put in place."""
    known = dict(sample.value)
    while True:
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        trial = Sample(sample.inputs, value=dict(known))
        try:
            missing = shapes.walk(model, trial)
        except InputError:
            return None
        settled = Shapes(trial, trial, trial)
        if not inlining.inline_branches(model, settled):
            return None if missing else (model, settled)


def _fed(node: ir.Node, sample: Sample) -> Iterator[tuple[tuple[int, ...], int]]:
    """Shape and element type of what a body gets at its inputs, in order."""
    states = list(node.inputs)
    if is_loop(node):
        yield from (((), int(ir.DataType.INT64)), ((), int(ir.DataType.BOOL)))
        states = states[2:]
    scanned = node.attributes.get_int("num_scan_inputs", 0) or 0
    axes = node.attributes.get_ints("scan_input_axes", None) or [0] * scanned
    for place, value in enumerate(states):
        name = "" if value is None else str(value.name)
        shape = list(sample.shape.get(name, ()))
        if (late := place - (len(states) - scanned)) >= 0 and shape:
            del shape[axes[late]]
        yield tuple(shape), sample.dtype.get(name, int(ir.DataType.FLOAT))


def _value(name: str, shape: tuple[int, ...], kind: int) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType(kind)))
