"""Where the file keeps what a module trains.

The *home* of an initializer is the tensor of that name in the file: an initializer of the main graph (a sparse one is
written dense once it has changed), the tensor of a Constant node, or one of either kind in a branch, where no other has
its name. What was computed ahead at load has its home where its node was, which gives way to an initializer once the
value has changed. An initializer without a home (it comes from a function's body, say) does not train.

A tensor that several nodes read is one parameter: what is tied stays tied. The exception is a vector of one value:
exporters merge those of fresh networks (all scales of one, all means of zero), so each of its readers gets a parameter
of its own, and an initializer of its own in the file as soon as they differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from onnxslim_learn.graph.stored_types import stored_type
from onnxslim_learn.runtime.node import bodies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from onnxslim_learn.graph.load import Graph


@dataclass(frozen=True)
class StoredTensors:
    """What a file can hold of a graph's initializers.

    Attributes:
        tied: Un-shared initializer -> the one whose parameter it is.
        kept: Names of initializers that can be written.
    """

    tied: Mapping[str, str]
    kept: frozenset[str]


def survey(graph: Graph) -> StoredTensors:
    """Find out what the file that a graph was loaded from can hold."""
    proto = onnx.ModelProto.FromString(graph.data)
    stored, nodes = stored_tensors(proto), readers(proto)
    dims = {name: tuple(tensor.dims) for name, tensor in stored.items()}
    dims |= {sparse.values.name: tuple(sparse.dims) for sparse in proto.graph.sparse_initializer}
    kept = {
        name
        for name, value in graph.initializers.items()
        if name in stored
        and value.const_value is not None
        and dims[name] == tuple(value.const_value.shape)
        and stored[name].data_type == int(stored_type(value))
    }
    kept |= {name for name in graph.initializers if name in nodes and len(nodes[name].output) == 1}
    loose = {
        name
        for name, origin in graph.clones.items()
        if origin in kept and name in graph.initializers and _one_value(graph.initializers[name])
        if reader(graph, name, nodes) is not None
    }
    return StoredTensors(
        {name: origin for name, origin in graph.clones.items() if name not in loose}, frozenset(kept | loose)
    )


def _one_value(value: ir.Value) -> bool:
    assert value.const_value is not None
    array = value.const_value.numpy().reshape(-1)
    return bool((array == array[0]).all())


def readers(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The nodes of the main graph by what they put out."""
    return {name: node for node in proto.graph.node for name in node.output if name}


def reader(graph: Graph, clone: str, nodes: Mapping[str, onnx.NodeProto]) -> tuple[onnx.NodeProto, int] | None:
    """The node of the file that reads an un-shared initializer, and its input; ``None`` if it is not in the file.

    It may read it by way of a node that copies it.
    """
    for use in graph.initializers[clone].uses():
        for output in use.node.outputs:
            node = nodes.get(str(output.name))
            read = node.input[use.idx] if node is not None and use.idx < len(node.input) else ""
            if node is not None and graph.clones.get(read, read) == graph.clones[clone]:
                return node, use.idx
    return None


def stored_tensors(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The tensors of a model that initializers come from, by name; a sparse one is represented by its values."""
    nested: dict[str, list[onnx.TensorProto]] = {}
    for name, tensor in _inner(proto.graph):
        nested.setdefault(name, []).append(tensor)
    tensors_by_name = {name: tensors[0] for name, tensors in nested.items() if len(tensors) == 1}
    tensors_by_name |= dict(_own(proto.graph))
    return tensors_by_name | {sparse.values.name: sparse.values for sparse in proto.graph.sparse_initializer}


def _own(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if not node.input:  # a constant: nothing else without inputs has a value
            yield from ((node.output[0], a.t) for a in node.attribute if a.name == "value")


def _inner(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in graph.node:
        for body in bodies(node):
            yield from _own(body)
            yield from _inner(body)


def give_way(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """Put an empty initializer in the place of a node of the main graph, and drop what only that node needed."""
    nodes = readers(proto)
    doomed, gone = [nodes[name]], set[str]()
    while doomed:
        node = doomed.pop()
        if not gone.isdisjoint(node.output):
            continue  # another output of it was doomed, too
        gone.update(node.output)
        proto.graph.node.remove(node)
        read = _read(proto)
        doomed += [nodes[x] for x in dict.fromkeys(node.input) if x in nodes and not read & set(nodes[x].output)]
        for tensor in [t for t in proto.graph.initializer if t.name in node.input and t.name not in read]:
            proto.graph.initializer.remove(tensor)
    fresh: onnx.TensorProto = proto.graph.initializer.add(name=name)
    return fresh


def _read(proto: onnx.ModelProto) -> set[str]:
    """Names of all values that something reads, bodies included."""
    names, graphs = {output.name for output in proto.graph.output}, [proto.graph]
    while graphs:
        for node in graphs.pop().node:
            names |= set(node.input)
            graphs += bodies(node)
    return names
