"""Nodes of a model as a model of their own, without a copy of their large weights."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from onnxslim_learn.runtime.node import model_of, reads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnxslim_learn.array_types import Array, Feeds

FED = 1 << 24  # bytes of a weight that is given as an input, so that it is not copied: kernels like constants better
READING = RLock()  # tensors in files, and what is cut from them on demand, are read by one thread at a time
KINDS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)  # that are given so


def part(
    model: ir.Model, nodes: Sequence[ir.Node], given: Feeds, wanted: Sequence[str]
) -> tuple[onnx.ModelProto, list[str]]:
    """Nodes as a model of their own.

    Args:
        model: The model that they are of.
        nodes: The nodes, in topological order.
        given: What comes from outside, by name; of these arrays, only the element types count.
        wanted: Names of the values it puts out.

    Returns:
        The model, and the names of its weights that are inputs, too: see :func:`weights`.
    """
    stored = model.graph.initializers
    read = {name for node in nodes for name in reads(node)} | set(wanted)
    needed = [name for name in sorted(read) if name in stored and name not in given]
    large = [name for name in needed if _is_fed(stored[name])]
    small = [_tensor(name, stored[name]) for name in needed if name not in large]
    protos = [ir.serde.serialize_node(node) for node in nodes]
    inputs = {name: given[name] for name in sorted(read) if name in given}
    alone = model_of(protos, inputs, wanted, model.opset_imports, small)
    alone.graph.input.extend(_declared(name, stored[name]) for name in large)
    alone.functions.extend(ir.to_proto(function) for function in model.functions.values())
    return alone, large


def say_lengths(alone: onnx.ModelProto, given: Feeds) -> None:
    """State how long vectors of whole numbers from outside are.

    onnxruntime refuses sizes that are put together from a shape and from vectors of unknown length, as if there were
    none; where it does not, lengths may as well differ from batch to batch.
    """
    for one in alone.graph.input:
        dims, array = one.type.tensor_type.shape.dim, given.get(one.name)
        if array is not None and array.ndim == 1 and array.dtype.kind in "iu":
            dims[0].dim_value = len(array)


def _is_fed(value: ir.Value) -> bool:
    """Whether a weight is so large that it had better not be copied, and of a kind that onnxruntime takes."""
    tensor = value.const_value
    return tensor is not None and tensor.nbytes >= FED and tensor.dtype in KINDS


def weights(model: ir.Model, names: Iterable[str]) -> dict[str, Array]:
    """Some weights by name, where they lie."""
    tensors = {name: model.graph.initializers[name].const_value for name in names}
    with READING:
        return {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}


def bytes_read(model: ir.Model, node: ir.Node) -> int:
    """Bytes of the weights that a node reads."""
    stored = [model.graph.initializers[name].const_value for name in reads(node) if name in model.graph.initializers]
    return sum(tensor.nbytes for tensor in stored if tensor is not None)


def _declared(name: str, value: ir.Value) -> onnx.ValueInfoProto:
    kind, dims, _ = _header(value)
    return onnx.helper.make_tensor_value_info(name, kind, dims)


def _tensor(name: str, value: ir.Value) -> onnx.TensorProto:
    kind, dims, tensor = _header(value)
    if tensor.dtype == ir.DataType.STRING:
        return onnx.helper.make_tensor(name, kind, dims, tensor.numpy().reshape(-1).tolist())
    with READING:
        return onnx.TensorProto(name=name, data_type=kind, dims=dims, raw_data=tensor.tobytes())


def _header(value: ir.Value) -> tuple[int, list[int], ir.TensorProtocol]:
    tensor = value.const_value
    assert tensor is not None
    return int(tensor.dtype), [int(n) for n in tensor.shape], tensor  # type: ignore[arg-type]
