"""Read an ``.onnx`` file into the normal form every later stage works on.

Normal form: no Constant nodes, no local functions, no sparse initializers, every node and value named, no
initializer listed as a graph input, no small initializer shared between uses, shape arithmetic that is the same for
every input size folded to constants. Weights stay on disk or in the parsed file until something slices them.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from onnxslim_learn.errors import InputError, SlimError, first, reason
from onnxslim_learn.graph import (
    constant_folding,
    external_files,
    inlining,
    input_sizes,
    shape_info,
    size_search,
    stored_types,
    well_formed,
)
from onnxslim_learn.readers import no_file
from onnxslim_learn.registry import operator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxslim_learn.array_types import Array

    Resolve = Callable[[Mapping[str, Array]], shape_info.Shapes]  # shapes at values that are told for inputs

logger = logging.getLogger(__name__)

OLDEST = 7  # operator set; https://onnxruntime.ai/docs/reference/compatibility.html
SHARED_RANK = 1  # initializers up to this rank are un-shared: exporters merge equal constants, which couples falsely


@dataclass
class Graph:
    """A model in normal form with the shapes of all its values.

    Attributes:
        model: The normal form; its main graph's values are named uniquely.
        source: The file it was read from, or ``None`` for a model given in memory.
        data: The serialized source model (without external data), kept for an empty plan and for hashing.
        shapes: Shapes and small integer values at several input sizes.
        clones: Name of an un-shared initializer -> name of the initializer it was copied from.
        external: Whether the source keeps weights in external data files.
        assumed: Graph inputs that the file leaves open and nobody gave a shape for, or a value where one is needed.
        values: Values of graph inputs: those that were given, and those that were assumed because they choose a branch.
        nonnegative: Float inputs that made-up numbers may not be negative for, or what is computed is undefined.
        bases: Digest of the rotations that its weights were multiplied by, if they were.
    """

    model: ir.Model
    source: Path | None
    data: bytes = field(repr=False)
    shapes: shape_info.Shapes
    clones: dict[str, str]
    external: bool
    assumed: tuple[str, ...] = ()
    values: dict[str, Array] = field(default_factory=dict)
    nonnegative: frozenset[str] = frozenset()
    bases: str = ""

    def __repr__(self) -> str:
        return f"<Graph of {self.source or 'a model in memory'}: {len(self.nodes)} nodes>"

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes of the main graph in topological order."""
        return list(self.model.graph)

    @property
    def initializers(self) -> Mapping[str, ir.Value]:
        """The initializers of the main graph by name."""
        return self.model.graph.initializers

    def release(self) -> None:
        """Let go of external files that were mapped to read weights; they are mapped again when they are read again."""
        for value in self.initializers.values():
            release(value.const_value)

    @property
    def digest(self) -> str:
        """SHA-256 of the serialized source model, as hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


def _never(node: ir.Node) -> bool:
    return False


@dataclass(frozen=True)
class Asked:
    """What normal form asks of nodes.

    Attributes:
        whole: Which read whole axes or places; where they read parameters alone, they are computed ahead.
        stacks: Which want parts stacked in their parameters; where they are put together, it is done ahead.
        copies: Which put out what they take in; small parameters behind them are parameters of their own.
        converts: Which put out what they take in in another type; parameters behind them have that, if it is wider.
        rewritten: Puts nodes that can be cut in place of others that compute the same; whether there were any.
    """

    whole: Callable[[ir.Node], bool] = _never
    stacks: Callable[[ir.Node], bool] = _never
    copies: Callable[[ir.Node], bool] = _never
    converts: Callable[[ir.Node], bool] = _never
    rewritten: Callable[[ir.Model, shape_info.Shapes], bool] = lambda module, resolved: False


def release(tensor: ir.TensorProtocol | None) -> None:
    """Let go of the external file that a tensor was read from, unless somebody still reads it."""
    if isinstance(tensor, ir.ExternalTensor):
        with contextlib.suppress(BufferError):
            tensor.release()


def load(
    model: str | Path | onnx.ModelProto,
    inputs: Mapping[str, Sequence[int]] | None = None,
    settled: Mapping[str, int] | None = None,
    values: Mapping[str, Any] | None = None,
    *,
    ask: Asked = Asked(),
    longest: Mapping[str, int] | None = None,
) -> Graph:
    """Read a model and bring it into normal form.

    Args:
        model: Path of an ``.onnx`` file, or a model in memory.
        inputs: Graph input name -> shape to use for costs and latency where the file leaves dimensions open.
        settled: Open dimension -> the only size that it can have, though the file does not say so.
        values: Graph input name -> its value, one number or one for each element; of an If that it decides on, the
            branch it chooses is analysed and cut, the other stays as it is.
        ask: What to ask of nodes.
        longest: Open dimension -> the largest size that fits.

    Raises:
        InputError: If the file is missing or no valid model, or an input's name, shape or value does not fit.
    """
    proto, source, data = read(model)
    folder = external_files.settle(proto, source)
    _densify(proto)
    try:
        module = ir.from_proto(proto)
        if source is not None:
            ir.external_data.set_base_dir(module.graph, folder or source.parent)
        _clean(module)
        stored_types.widen(module, ask.converts)
    except SlimError:
        raise
    except Exception as error:  # whatever keeps a file from becoming a graph is wrong with the file
        raise InputError(
            f"{source or 'model'}: not a valid ONNX graph ({reason(first(error))}). Run onnx.checker on it."
        ) from error
    clones = _unshare(module, _read_directly(module, ask.copies))
    try:
        _check_defined(module)
        resolve = partial(size_search.resolve, module, inputs or {}, settled, longest=longest)
        resolved, told = _resolved(module, resolve, _told(module, values or {}))
        resolved = resolve(told) if ask.rewritten(module, resolved) else resolved
    except InputError as error:
        raise InputError(f"{source or 'model'}: {error.message}") from error
    _drop_stale(module, resolved)
    constant_folding.settle(module, resolved)
    constant_folding.settle_parameters(module, resolved, ask.whole, ask.stacks)
    constant_folding.drop_unused(module)
    assumed = [str(v.name) for v in module.graph.inputs if input_sizes.open_axes(v) and v.name not in (inputs or {})]
    assumed += [name for name in told if name not in (values or {})]
    return Graph(module, source, data, resolved, clones, folder is not None, tuple(assumed), told)


def _drop_stale(module: ir.Model, resolved: shape_info.Shapes) -> None:
    """Forget shapes that a file declares for values inside and that do not hold: onnxruntime believes them."""
    for value in (value for node in module.graph for value in node.outputs):
        if value.shape is None or value.is_graph_output():
            continue
        declared = [size if isinstance(size, int) else None for size in value.shape]
        shapes = [sample.shape[str(value.name)] for sample in resolved.samples if value.name in sample.shape]
        if not all(len(shape) == len(declared) and _holds(declared, shape) for shape in shapes):
            value.shape = None


def _holds(declared: Sequence[int | None], shape: Sequence[int]) -> bool:
    return all(size in (None, actual) for size, actual in zip(declared, shape, strict=True))


def _told(module: ir.Model, values: Mapping[str, Any]) -> dict[str, Array]:
    """Values that were given for graph inputs, in the inputs' types."""
    inputs = {str(value.name): value for value in module.graph.inputs}
    told: dict[str, Array] = {}
    for name, given in values.items():
        if name not in inputs:
            raise InputError(f"⟨value⟩ {name}: the model has no such input. Its inputs are {', '.join(inputs)}.")
        kind, array = inputs[name].dtype, np.asarray(given)
        dtype = np.dtype(np.float32) if kind is None else kind.numpy()
        slack = 0.0 if dtype.kind in "iub" else 1e-3  # a fraction may be no float
        same = array.dtype.kind in "iufb" and np.allclose(array.astype(dtype), array, rtol=slack, atol=0)
        if dtype.kind not in "iufb" or not same:
            raise InputError(f"⟨value⟩ {name}: the model takes {dtype.name}, but {given} was given.")
        told[name] = array.astype(dtype)
    return told


def _resolved(
    module: ir.Model, resolve: Resolve, told: Mapping[str, Array]
) -> tuple[shape_info.Shapes, dict[str, Array]]:
    """Shapes with branches put in place; and the values, with those that choose a branch where none was given."""
    undecided = {name: tried for name, tried in inlining.deciding(module.graph).items() if name not in told and tried}
    for chosen in itertools.product(*undecided.values()) if undecided else ():
        try:
            values = {**told, **_told(module, dict(zip(undecided, chosen, strict=True)))}
            resolved = resolve(values)
        except InputError as error:
            logger.debug("%s: %s", chosen, error)
            continue
        return _inlined(module, partial(resolve, values), resolved), values
    return _inlined(module, partial(resolve, told), resolve(told)), dict(told)


def _inlined(
    module: ir.Model, resolve: Callable[[], shape_info.Shapes], resolved: shape_info.Shapes
) -> shape_info.Shapes:
    """Shapes after branches that are known were put into the main graph."""
    while inlining.inline_branches(module, resolved):
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(module)
        resolved = resolve()
    return resolved


def check_file(path: Path, what: str) -> None:
    """Refuse what is no file.

    Raises:
        InputError: If the path is missing, a folder, a pipe or a device, or not readable.
    """
    if problem := no_file(path):
        raise InputError(f"{path}: {problem}. Give the path of {what}.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read. Check its permissions.")


def read(model: str | Path | onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None, bytes]:
    """Parse a model file without loading external data; returns the model, its path and its bytes.

    Raises:
        InputError: If the file is missing or cannot be parsed.
    """
    if isinstance(model, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(model)  # tensors are shared with what is parsed from it, and normal form renames some
        well_formed.check(proto, "model")
        return proto, None, proto.SerializeToString()
    path = Path(model)
    check_file(path, "an .onnx model")
    try:
        data = path.read_bytes()
        proto = onnx.ModelProto.FromString(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    except Exception as error:
        raise InputError(f"{path}: not an ONNX model, or cut off. Give a whole .onnx file.") from error
    if not proto.graph.output:
        raise InputError(f"{path}: not an ONNX model that computes something (it has no outputs). Give another file.")
    if not proto.opset_import:
        raise InputError(f"{path}: it names no operator set (opset_import). Export it again.")
    _check_versions(proto, path)
    well_formed.check(proto, path)
    return proto, path, data


def _check_versions(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that is newer than the installed onnx, or older than onnxruntime reads."""
    standard = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if 0 < standard < OLDEST:
        raise InputError(
            f"{path}: its operator set {standard} is older than {OLDEST}, the oldest that onnxruntime promises to "
            "read. Convert it with onnx.version_converter.convert_version."
        )
    newest = {"operator set": onnx.defs.onnx_opset_version(), "format": int(onnx.IR_VERSION)}
    for what, version in (("operator set", standard), ("format", proto.ir_version)):
        if version > newest[what]:
            raise InputError(
                f"{path}: its {what} {version} is newer than {newest[what]}, the newest that the installed onnx knows."
                f" Export it with {what} {newest[what]}, or update onnx and onnxruntime."
            )


def _check_defined(module: ir.Model) -> None:
    """Refuse a graph in which nothing makes an input of a node."""
    for node in module.graph:
        for value in node.inputs:
            if value is None or value.producer() is not None or value.is_graph_input() or value.is_initializer():
                continue
            raise InputError(
                f"node {node.name} ({node.op_type}): nothing makes its input {value.name}. Export it again."
            )


def _densify(proto: onnx.ModelProto) -> None:
    """Turn sparse initializers into dense ones: onnx-ir would drop them."""
    for sparse in proto.graph.sparse_initializer:
        values = onnx.numpy_helper.to_array(sparse.values)
        where = onnx.numpy_helper.to_array(sparse.indices)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        if where.ndim == 1:
            dense.reshape(-1)[where] = values
        else:
            dense[tuple(where.T)] = values
        proto.graph.initializer.append(onnx.numpy_helper.from_array(dense, sparse.values.name))
    del proto.graph.sparse_initializer[:]


def _clean(module: ir.Model) -> None:
    """Inline functions, lift constants, name everything, drop what is unused and what is listed twice."""
    if module.functions:
        passes.InlinePass(lambda function: operator(function.domain, function.name) is None)(module)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(module)
    module.ir_version = max(module.ir_version, 4)  # earlier versions require initializers to be graph inputs
    passes.RemoveInitializersFromInputsPass()(module)
    passes.TopologicalSortPass()(module)
    constant_folding.drop_unused(module)
    absent = [value for node in module.graph for value in node.outputs if not value.name]
    passes.NameFixPass()(module)
    for value in absent:
        value.name = ""  # an output nobody asked for


def _read_directly(module: ir.Model, copies: Callable[[ir.Node], bool]) -> dict[str, str]:
    """Put small initializers in place of nodes that copy them, as exporters merge equal ones; copy -> original."""
    graph = module.graph
    clones: dict[str, str] = {}
    for node in list(graph):
        value = node.inputs[0] if copies(node) else None
        tensor = None if value is None or value.is_graph_input() else value.const_value
        output = node.outputs[0]
        if value is None or tensor is None or len(tensor.shape) > SHARED_RANK or output.is_graph_output():
            continue
        if any(use.node.graph is not graph for use in output.uses()):
            continue  # a body captures it by name
        name, original = str(output.name), str(value.name)
        output.name = f"{name}.copied"
        contents = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
        copy = ir.Value(name=name, shape=value.shape, type=value.type, const_value=contents)
        graph.register_initializer(copy)
        for use in list(output.uses()):
            use.node.replace_input_with(use.idx, copy)
        graph.remove(node, safe=True)
        clones[name] = clones.get(original, original)
    return clones


def _unshare(module: ir.Model, clones: dict[str, str]) -> dict[str, str]:
    """Give every use of a small initializer its own copy; adds to copy -> original."""
    graph = module.graph
    outputs = set(graph.outputs)
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or len(tensor.shape) > SHARED_RANK or tensor.size <= 1 or value in outputs:
            continue
        uses = [use for use in value.uses() if use.node.graph is graph]
        for number, (node, index) in enumerate(uses[1:], 1):
            free = next(n for k in itertools.count(number) if (n := f"{name}~{k}") not in graph.initializers)
            copied = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=free)
            copy = ir.Value(name=free, shape=value.shape, type=value.type, const_value=copied)
            copy.metadata_props.update(value.metadata_props)
            graph.register_initializer(copy)
            node.replace_input_with(index, copy)
            clones[free] = clones.get(name, name)
    return clones
