"""A node by itself: the graphs inside it, what it reads, and what it makes of given inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxslim_learn.array_types import Array, Feeds
from onnxslim_learn.runtime.session import open_session

IR_VERSION = 8  # any that every onnxruntime reads


@overload
def bodies(node: ir.Node) -> list[ir.Graph]: ...
@overload
def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]: ...
def bodies(node: ir.Node | onnx.NodeProto) -> Sequence[Any]:
    """List the graphs that a node holds: the branches of an If, the body of a Loop or Scan."""
    if isinstance(node, ir.Node):
        return [
            body
            for attribute in node.attributes.values()
            if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for body in ([attribute.value] if attribute.type == ir.AttributeType.GRAPH else attribute.value)
        ]
    return [
        body
        for attribute in node.attribute
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


@overload
def inside(node: ir.Node) -> Iterator[ir.Node]: ...
@overload
def inside(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]: ...
def inside(node: ir.Node | onnx.NodeProto) -> Iterator[Any]:
    """Walk all nodes of the graphs that a node holds, at any depth."""
    for body in bodies(node):
        for inner in body if isinstance(body, ir.Graph) else body.node:
            yield inner
            yield from inside(inner)


def reads(node: ir.Node) -> list[str]:
    """Name the values from outside that a node, or a graph inside it, reads, in order and each once."""
    names = dict.fromkeys(str(value.name) for value in node.inputs if value is not None and value.name)
    for body in bodies(node):
        names |= dict.fromkeys(captured(body))
    return list(names)


def captured(body: ir.Graph) -> list[str]:
    """Name the values from outside that a graph inside a node reads, in order and each once."""
    local = {str(value.name) for value in body.inputs} | set(body.initializers)
    names: dict[str, None] = {}
    for node in body:
        names |= dict.fromkeys(reads(node))
        local |= {str(value.name) for value in node.outputs}
    names |= dict.fromkeys(str(value.name) for value in body.outputs)
    return [name for name in names if name not in local]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Feeds,
    outputs: Iterable[str],
    opsets: Mapping[str, int],
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """Make nodes a model of their own.

    Args:
        nodes: In topological order.
        inputs: What comes from outside, by name; of these arrays, only the element types and numbers of axes count.
        outputs: Names of the values it puts out.
        opsets: Domain -> version.
        initializers: Their weights.
    """
    types = {n: (onnx.helper.np_dtype_to_tensor_dtype(a.dtype), [None] * np.ndim(a)) for n, a in inputs.items()}
    graph = onnx.helper.make_graph(
        nodes,
        "part",
        [onnx.helper.make_tensor_value_info(name, *one) for name, one in types.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        initializers,
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def output_types(
    node: onnx.NodeProto, inputs: Mapping[str, tuple[int, tuple[int, ...]]], opsets: Mapping[str, int]
) -> dict[str, tuple[int, tuple[int | None, ...]]]:
    """What onnxruntime infers for the outputs of a node, which are tensors; nothing if it cannot open the node.

    Args:
        node: The node.
        inputs: Name -> ONNX element type number and shape.
        opsets: Domain -> version.

    Returns:
        Name -> ONNX element type number and shape, ``None`` for sizes that depend on data. Values without axes are
        left out: onnxruntime says the same of them and of values whose number of axes it does not know.
    """
    names = [name for name in node.output if name]
    model = model_of([node], {}, names, opsets)
    model.graph.input.extend(onnx.helper.make_tensor_value_info(name, *known) for name, known in inputs.items())
    with contextlib.suppress(Exception):  # of onnxruntime's, which have no base in common
        outputs = open_session(model.SerializeToString(), optimize=False).get_outputs()
        kinds = [onnx.TensorProto.DataType.Value(o.type[len("tensor(") : -1].upper()) for o in outputs]
        dims = [tuple(d if isinstance(d, int) else None for d in o.shape) for o in outputs]
        return {o.name: (kind, d) for o, kind, d in zip(outputs, kinds, dims, strict=True) if d}
    return {}


def compute(node: ir.Node, known: Feeds) -> dict[str, Array]:
    """Compute the outputs of a node by name; nothing if neither onnxruntime nor the onnx reference can run it.

    Args:
        node: The node.
        known: Values by name; for those that are missing, the node's constants are taken.
    """
    assert node.graph is not None
    constants = {str(value.name): value.const_value for value in node.inputs if value is not None and value.name}
    feeds = {name: known[name] if name in known else tensor.numpy() for name, tensor in constants.items()}  # type: ignore[union-attr]
    return run(ir.serde.serialize_node(node), feeds, node.graph.opset_imports)


def run(node: onnx.NodeProto, feeds: Feeds, opsets: Mapping[str, int]) -> dict[str, Array]:
    """Run a node by itself; gives its outputs by name, or nothing if there is nothing here to run it.

    Args:
        node: The node.
        feeds: Its inputs by name.
        opsets: Domain -> version.
    """
    names = [name for name in node.output if name]
    model = model_of([node], feeds, names, opsets)
    for engine in (_by_onnxruntime, _by_reference):
        with contextlib.suppress(Exception):  # of onnxruntime's and onnx's, which have no base in common
            return dict(zip(names, engine(model, feeds), strict=True))
    return {}


def _by_onnxruntime(model: onnx.ModelProto, feeds: Feeds) -> list[Array]:
    return [np.asarray(array) for array in open_session(model.SerializeToString(), optimize=False).run(None, feeds)]


def _by_reference(model: onnx.ModelProto, feeds: Feeds) -> list[Array]:
    return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, dict(feeds))]
