"""Trained weights back into the file, by name: everything else stays as it was, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from onnxslim_learn.bridge import gammas, gates, initializers
from onnxslim_learn.bridge.write_back import give_way, reader, readers, stored_tensors
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph import external_files
from onnxslim_learn.graph.stored_types import stored, stored_type
from onnxslim_learn.rewrite import save
from onnxslim_learn.runtime import atomic
from onnxslim_learn.sparse import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from onnxslim_learn.graph.load import Graph

DATA_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data", "data_location")


def weights(module: fx.GraphModule) -> dict[str, torch.Tensor]:
    """What a module would write: parameters with their virtual gammas, running statistics; by initializer.

    Raises:
        InputError: If a gate is not open: a file has no gates.
    """
    for name, gate in gates.gates(module).items():
        if not bool((gate == 1).all()):
            raise InputError(f"group {name}: its gates are not all open. Make a plan of them, or open them.")
    return {name: gammas.fold(module, name) for name in module.meta["written"]}


def updated(module: fx.GraphModule, graph: Graph) -> onnx.ModelProto:
    """A copy of the file that a graph was loaded from, with the weights of a module.

    A float32 weight of a half-precision file is rounded; what has not changed is not touched. External data of the
    copy is in memory.

    Args:
        module: What :func:`onnxslim_learn.bridge.module.bridge` made of the graph.
        graph: The graph.

    Raises:
        InputError: If a weight is no longer finite.
    """
    proto: onnx.ModelProto = onnx.ModelProto.FromString(graph.data)
    if graph.source is not None and graph.external:
        external_files.read_in(proto, graph.source)
    places, arrays = stored_tensors(proto), {}
    for name, value in weights(module).items():
        before = graph.initializers[name].const_value
        assert before is not None
        if not bool(torch.isfinite(value).all()) and np.isfinite(np.asarray(before.numpy(), np.float64)).all():
            raise InputError(f"initializer {name}: training made it infinite or NaN. Use a lower learning rate.")
        arrays[name] = initializers.to_numpy(value, stored_type(graph.initializers[name]))
    changed = {name: array for name, array in arrays.items() if array.tobytes() != _before(graph, name)}
    _set_apart(proto, graph, module.meta["tied"], changed)
    for name, array in changed.items():
        if name in places:
            _write(proto, places, name, array)
        elif name not in graph.clones:
            tensor = give_way(proto, name)
            tensor.data_type, tensor.raw_data = int(graph.initializers[name].const_value.dtype), array.tobytes()  # type: ignore[union-attr]
            tensor.dims.extend(array.shape)
    if metadata.promised(graph.model) and metadata.broken(graph.model, ir.from_proto(proto)):
        left = [one for one in proto.metadata_props if one.key != metadata.KEY]
        del proto.metadata_props[:]
        proto.metadata_props.extend(left)
    return proto


def _before(graph: Graph, name: str) -> bytes:
    return bytes(stored(graph.initializers[name]).tobytes())


def _set_apart(
    proto: onnx.ModelProto, graph: Graph, tied: Mapping[str, str], changed: Mapping[str, np.ndarray[Any, Any]]
) -> None:
    """Give readers of a merged vector initializers of their own where they no longer agree with it."""
    nodes = readers(proto)
    for name, origin in graph.clones.items():
        if name in tied or name not in graph.initializers:
            continue
        reading = reader(graph, name, nodes)
        if reading is None:
            continue
        node, slot = reading
        copied = name in nodes  # by a node, whose output has this name
        read = origin if node.input[slot] == name else tied.get(node.input[slot], node.input[slot])
        contents, shared = (changed[one].tobytes() if one in changed else _before(graph, name) for one in (name, read))
        if contents != shared:
            before = graph.initializers[name].const_value
            assert before is not None
            tensor = give_way(proto, name) if copied else proto.graph.initializer.add(name=name)
            tensor.data_type, tensor.raw_data = int(before.dtype), contents
            tensor.dims.extend(before.shape.numpy())
            node.input[slot] = name
            if proto.ir_version < 4:  # which wants initializers to be inputs too
                proto.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))


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
        module: What :func:`onnxslim_learn.bridge.module.bridge` made of the graph.
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
    with atomic.workplace(target) as folder:
        staged = folder / target.name
        _stage(proto, onnx.ModelProto.FromString(graph.data), staged)
        save.publish(staged, target, graph.source or graph.data)


def _stage(proto: onnx.ModelProto, source: onnx.ModelProto, path: Path) -> None:
    """Write a model; tensors that were external in the source are again."""
    outside = onnx.external_data_helper.uses_external_data
    aside = {name for name, tensor in stored_tensors(source).items() if outside(tensor)}
    for name, tensor in stored_tensors(proto).items():
        if name in aside:
            onnx.external_data_helper.set_external_data(tensor, f"{path.name}.data")
    onnx.save_model(proto, path)
