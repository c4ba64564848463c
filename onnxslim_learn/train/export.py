"""Trained weights back into the file, by name: everything else stays as it was, byte for byte.

The *home* of an initializer is the tensor of that name in the file: an initializer of the main graph (a sparse one is
written dense once it has changed), the tensor of a Constant node, or one of either kind in a branch, where no other has
its name. An initializer without a home (it was computed at load, or comes from a function's body) does not train.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from onnxslim_learn.errors import InputError
from onnxslim_learn.rewrite import save
from onnxslim_learn.train import gates, scales, tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from onnxslim_learn.graph.load import Graph

DATA_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data", "data_location")


def homes(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The tensors of a model that initializers come from, by name; a sparse one is represented by its values."""
    nested: dict[str, list[onnx.TensorProto]] = {}
    for name, tensor in _inner(proto.graph):
        nested.setdefault(name, []).append(tensor)
    found = {name: tensors[0] for name, tensors in nested.items() if len(tensors) == 1}
    found |= dict(_own(proto.graph))
    return found | {sparse.values.name: sparse.values for sparse in proto.graph.sparse_initializer}


def _own(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            yield from ((node.output[0], a.t) for a in node.attribute if a.name == "value")


def _inner(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.name != "value" else ():
                yield from _own(body)
                yield from _inner(body)


def at_home(graph: Graph) -> set[str]:
    """Initializers of a graph whose home in the file has the same shape and type."""
    proto = onnx.ModelProto.FromString(graph.data)
    found = homes(proto)
    dims = {name: tuple(tensor.dims) for name, tensor in found.items()}
    dims |= {sparse.values.name: tuple(sparse.dims) for sparse in proto.graph.sparse_initializer}
    return {
        name
        for name, value in graph.initializers.items()
        if name in found
        and value.const_value is not None
        and dims[name] == tuple(value.const_value.shape)
        and found[name].data_type == int(value.const_value.dtype)
    }


def weights(module: fx.GraphModule) -> dict[str, torch.Tensor]:
    """What a module would write: parameters with their virtual gammas, running statistics; by initializer.

    Raises:
        InputError: If a gate is not open: a file has no gates.
    """
    for name, gate in gates.gates(module).items():
        if not bool((gate == 1).all()):
            raise InputError(f"group {name}: its gates are not all open. Make a plan of them, or open them.")
    return {name: scales.fold(module, name) for name in module.meta["written"]}


def updated(module: fx.GraphModule, graph: Graph) -> onnx.ModelProto:
    """A copy of the file that a graph was loaded from, with the weights of a module.

    A float32 weight of a half-precision file is rounded; what has not changed is not touched. External data of the
    copy is in memory.

    Args:
        module: What :func:`onnxslim_learn.train.module.bridge` made of the graph.
        graph: The graph.

    Raises:
        InputError: If a weight is no longer finite.
    """
    proto: onnx.ModelProto = onnx.ModelProto.FromString(graph.data)
    if graph.source is not None and graph.external:
        onnx.external_data_helper.load_external_data_for_model(proto, str(graph.source.parent))
    places = homes(proto)
    for name, value in weights(module).items():
        before = graph.initializers[name].const_value
        assert before is not None
        if not bool(torch.isfinite(value).all()) and np.isfinite(np.asarray(before.numpy(), np.float64)).all():
            raise InputError(f"initializer {name}: training made it infinite or NaN. Use a lower learning rate.")
        array = tensors.to_numpy(value, ir.DataType(before.dtype))
        if array.tobytes() != before.tobytes():
            _write(proto, places, name, array)
    return proto


def _write(proto: onnx.ModelProto, places: dict[str, onnx.TensorProto], name: str, array: np.ndarray[Any, Any]) -> None:
    tensor = places[name]
    for sparse in proto.graph.sparse_initializer:
        if sparse.values.name == name:
            tensor = proto.graph.initializer.add(name=name, data_type=tensor.data_type, dims=sparse.dims)
            proto.graph.sparse_initializer.remove(sparse)
            break
    for field in DATA_FIELDS:
        tensor.ClearField(field)
    tensor.raw_data = array.tobytes()


def export(module: fx.GraphModule, graph: Graph, path: str | Path) -> None:
    """Write the file that a graph was loaded from, with the weights of a module, in one step.

    Args:
        module: What :func:`onnxslim_learn.train.module.bridge` made of the graph.
        graph: The graph.
        path: Where; weights that the source keeps in external files go to ``<path>.data``.

    Raises:
        InputError: If the place cannot be written, or a weight is no longer finite.
        VerifyError: If onnx.checker refuses the result.
    """
    target = Path(path)
    if graph.source is not None:
        save.spare(graph.source, target)
    proto = updated(module, graph)
    folder = save.workplace(target)
    try:
        staged = folder / target.name
        _stage(proto, onnx.ModelProto.FromString(graph.data), staged)
        save.publish(staged, target, graph.source or graph.data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stage(proto: onnx.ModelProto, source: onnx.ModelProto, path: Path) -> None:
    """Write a model; tensors that were external in the source are again."""
    outside = onnx.external_data_helper.uses_external_data
    aside = {name for name, tensor in homes(source).items() if outside(tensor)}
    for name, tensor in homes(proto).items():
        if name in aside:
            onnx.external_data_helper.set_external_data(tensor, f"{path.name}.data")
    onnx.save_model(proto, path)
