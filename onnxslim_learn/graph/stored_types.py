"""Weights that a file stores in a narrower type than it computes with, as half-precision ones that are cast to float32.

In normal form they have the wider type, and no node widens them; what is written has them as the file had them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Callable

STORED = "onnxslim_learn.stored"  # metadata of an initializer: its type in the file, and the name of what is widened


def widen(module: ir.Model, converts: Callable[[ir.Node], bool]) -> None:
    """Give weights that are only read in a wider floating-point type that type, in the main graph of a model."""
    graph = module.graph
    for name, value in list(graph.initializers.items()):
        tensor, readers = value.const_value, [use.node for use in value.uses()]
        if tensor is None or not readers or value.is_graph_input() or value.is_graph_output():
            continue
        if not all(node.graph is graph and converts(node) for node in readers):
            continue
        outputs = [node.outputs[0] for node in readers]
        kinds = {ir.DataType(node.attributes["to"].value) for node in readers}
        if len(kinds) > 1 or not _wider(tensor.dtype, min(kinds)) or any(v.is_graph_output() for v in outputs):
            continue
        fresh = _initializer(tensor, min(kinds), name)
        fresh.metadata_props[STORED] = f"{tensor.dtype.name} {outputs[0].name}"
        for output in outputs:
            ir.convenience.replace_all_uses_with(output, fresh)
        graph.remove(readers, safe=True)
        del graph.initializers[name]
        graph.register_initializer(fresh)


def as_stored(model: ir.Model) -> ir.Model:
    """A model with all weights in the types that the file had them in: itself, or a copy with nodes that widen them."""
    if not any(STORED in value.metadata_props for value in model.graph.initializers.values()):
        return model
    twin = model.clone()
    graph, taken = twin.graph, set[str]()
    for name, value in list(graph.initializers.items()):
        if STORED in value.metadata_props and value.const_value is not None:
            output = value.metadata_props[STORED].split(" ", 1)[1]
            output = f"{name}.wide" if output in taken else output  # of a copy that has become another
            taken.add(output)
            narrow = ir.Value(name=name, shape=value.shape, type=value.type, const_value=stored(value))
            wider = ir.Node("", "Cast", [narrow], [ir.AttrInt64("to", int(value.const_value.dtype))], name=output)
            ir.convenience.replace_all_uses_with(value, wider.outputs[0])
            del graph.initializers[name]
            graph.register_initializer(narrow)
            wider.outputs[0].name = output
            graph.insert_before(graph[0], wider)
    return twin


def stored_type(value: ir.Value) -> ir.DataType:
    """The type that the file has an initializer in."""
    if STORED in value.metadata_props:
        return ir.DataType[value.metadata_props[STORED].split(" ", 1)[0]]
    assert value.const_value is not None
    return value.const_value.dtype


def stored(value: ir.Value) -> ir.TensorProtocol:
    """An initializer's numbers in the type that the file has them in."""
    tensor = value.const_value
    assert tensor is not None
    kind = stored_type(value)
    return tensor if kind == tensor.dtype else _converted(tensor, kind, str(value.name))


def _wider(narrow: ir.DataType, wide: ir.DataType) -> bool:
    """Whether every number of a floating-point type is one of another, which is larger."""
    return narrow.is_floating_point() and wide.is_floating_point() and narrow.bitwidth < wide.bitwidth


def _initializer(tensor: ir.TensorProtocol, kind: ir.DataType, name: str) -> ir.Value:
    converted = _converted(tensor, kind, name)
    return ir.Value(name=name, shape=converted.shape, type=ir.TensorType(kind), const_value=converted)


def _converted(tensor: ir.TensorProtocol, kind: ir.DataType, name: str) -> ir.LazyTensor:
    """A tensor in another type, converted when it is read."""

    def read(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(kind.numpy()), dtype=kind, name=name)

    return ir.LazyTensor(partial(read, tensor), dtype=kind, shape=ir.Shape(tensor.shape.numpy()), name=name)
