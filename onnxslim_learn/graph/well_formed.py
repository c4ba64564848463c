"""What a file must hold before anything is made of it: checked once, where it is read; after that it is trusted.

Little is checked here: what would otherwise be computed wrongly, or without end. Of what fails later all the same,
onnx's own checker is asked whether the file is at fault (:func:`blame`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx.external_data_helper import uses_external_data

from onnxslim_learn.errors import InputError, SlimError, reason

LARGEST = 2**40  # elements of a tensor
DENSE = 2**31  # elements of a sparse tensor that is written out
UNFOLDED = 1_000_000  # nodes of a model whose functions are put in place

Complaints = Iterator[str]


def check(proto: onnx.ModelProto, where: str | Path) -> None:
    """Refuse a model that is not what its format says.

    Args:
        proto: The model.
        where: What errors call it.

    Raises:
        InputError: With what is wrong first.
    """
    for rule in RULES:
        for complaint in rule(proto):
            raise InputError(f"{where}: {complaint}. Export it again.")


@contextmanager
def blame(model: str | Path | onnx.ModelProto) -> Iterator[None]:
    """Where a block fails for a reason that nothing names, ask onnx's checker about the model.

    Raises:
        InputError: If the checker refuses the model.
    """
    memory = isinstance(model, onnx.ModelProto)
    try:
        yield
    except (SlimError, MemoryError):
        raise
    except Exception as error:
        try:
            onnx.checker.check_model(model if memory else str(model))
        except Exception as complaint:
            where = "model" if memory else model
            raise InputError(f"{where}: is no valid model ({reason(complaint)}). Export it again.") from error
        raise


def graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The main graph, functions, and the bodies of their nodes."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _versions(proto: onnx.ModelProto) -> Complaints:
    for entry in proto.opset_import:
        if entry.version < 1:
            yield f"operator set {entry.domain or 'ai.onnx'}: its version must be positive, but is {entry.version}"


def _texts(proto: onnx.ModelProto) -> Complaints:
    """Texts of standard operators are texts; what others keep in theirs is their business."""
    for graph in graphs(proto):
        for node in (one for one in graph.node if one.domain in ("", "ai.onnx")):
            for attribute in node.attribute:
                for text in (attribute.s, *attribute.strings):
                    try:
                        text.decode()
                    except UnicodeDecodeError:
                        yield f"node {node.name} ({node.op_type}): its attribute {attribute.name} is no text in UTF-8"


def _names(proto: onnx.ModelProto) -> Complaints:
    """Every output of the main graph is made, and no value twice."""
    graph = proto.graph
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in known:
                yield f"node {node.name} ({node.op_type}): its output {name} has the name of another value"
            known.add(name)
    for value in graph.output:
        if value.name not in known:
            yield f"output {value.name!r}: nothing makes it"


def _tensors(proto: onnx.ModelProto) -> Complaints:
    """Every tensor holds as many numbers as its dimensions say."""
    for tensor in all_tensors(proto):
        what = f"initializer {tensor.name}"
        if tensor.data_type not in KINDS:
            yield f"{what}: there is no element type {tensor.data_type}"
            continue
        if min(tensor.dims, default=0) < 0 or (count := math.prod(tensor.dims)) > LARGEST:
            yield f"{what}: no tensor is of shape {list(tensor.dims)}"
            continue
        if uses_external_data(tensor):
            yield from (f"{what}: {said}" for said in _outside(tensor, count))
        elif (size := _size(tensor)) != (wanted := _wanted(tensor, count)):
            yield f"{what}: {wanted} bytes or numbers make up the shape {list(tensor.dims)}, but it has {size}"


KINDS = {kind.value for kind in ir.DataType} - {ir.DataType.UNDEFINED.value}


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers, sparse ones, and those of attributes, in bodies and functions, too."""
    for graph in graphs(proto):
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for attribute in (a for node in graph.node for a in node.attribute):
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors


def _outside(tensor: onnx.TensorProto, count: int) -> Complaints:
    """What an entry for a file beside the model must be."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not entries.get("location") or "\0" in entries["location"]:
        yield "it names no file that its data is in"
    for key in ("offset", "length"):
        if key in entries and not (entries[key].isascii() and entries[key].isdecimal()):
            yield f"{key} of its data is {entries[key]!r}, which is no number from zero"
            return
    if "length" in entries and int(entries["length"]) != (wanted := _bytes(tensor, count)):
        yield f"{wanted} bytes make up its shape {list(tensor.dims)}, but its data is {entries['length']} long"


def _bytes(tensor: onnx.TensorProto, count: int) -> int:
    return -(-ir.DataType(tensor.data_type).bitwidth * count // 8)


def _size(tensor: onnx.TensorProto) -> int:
    """How many bytes a tensor holds, or numbers where they are listed."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    return len(getattr(tensor, FIELDS.get(tensor.data_type, "int32_data")))


def _wanted(tensor: onnx.TensorProto, count: int) -> int:
    if tensor.HasField("raw_data"):
        return _bytes(tensor, count)
    bits = ir.DataType(tensor.data_type).bitwidth if tensor.data_type != ir.DataType.STRING else 8
    listed = -(-count * bits // 8) if bits < 8 else count
    return 2 * listed if tensor.data_type in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128) else listed


FIELDS = {
    int(kind): field
    for field, kinds in {
        "float_data": (ir.DataType.FLOAT, ir.DataType.COMPLEX64),
        "double_data": (ir.DataType.DOUBLE, ir.DataType.COMPLEX128),
        "int64_data": (ir.DataType.INT64,),
        "uint64_data": (ir.DataType.UINT64, ir.DataType.UINT32),
        "string_data": (ir.DataType.STRING,),
    }.items()
    for kind in kinds
}
"""Where numbers of a type are listed; those of all others are in ``int32_data``."""


def _sparse(proto: onnx.ModelProto) -> Complaints:
    """Places of sparse tensors lie within them."""
    for graph in (graph for graph in graphs(proto) if isinstance(graph, onnx.GraphProto)):
        for sparse in graph.sparse_initializer:
            what, dims = f"sparse initializer {sparse.values.name}", list(sparse.dims)
            if min(dims, default=0) <= 0 or math.prod(dims) > DENSE:
                yield f"{what}: cannot be of shape {dims}"
                continue
            try:
                onnx.checker.check_sparse_tensor(sparse)
            except Exception as error:
                yield f"{what}: {reason(error)}"


def _grouped(proto: onnx.ModelProto) -> Complaints:
    """A number of groups divides the channels of the weight."""
    for graph in graphs(proto):
        shapes = {t.name: list(t.dims) for t in getattr(graph, "initializer", ())}
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name != "group" or attribute.type != onnx.AttributeProto.INT:
                    continue
                weight = shapes.get(node.input[1], []) if len(node.input) > 1 else []
                if attribute.i < 1 or (weight and weight[0] % attribute.i):
                    channels = f" of its weight's {weight[0]} channels" if weight else ""
                    yield f"node {node.name} ({node.op_type}): cannot have {attribute.i} groups{channels}"


def _bodies(proto: onnx.ModelProto) -> Complaints:
    """A node has the results that its bodies have: branches as they are, loops but for the condition, in front."""
    for graph in graphs(proto):
        for node in graph.node:
            for attribute in (one for one in node.attribute if one.HasField("g")):
                loop = attribute.name == "body" and not any(one.name == "num_scan_inputs" for one in node.attribute)
                results = len(attribute.g.output) - loop
                if results < (wanted := len(node.output)):
                    what = f"node {node.name} ({node.op_type})"
                    yield f"{what}: its {attribute.name} has {results} results, not {wanted}"


def _functions(proto: onnx.ModelProto) -> Complaints:
    """Functions do not call themselves, and are no more nodes in place than a model has."""
    bodies = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    waiting: list[tuple[str, str]] = list(bodies)
    within: set[tuple[str, str]] = set()
    while waiting:
        name = waiting[-1]
        called = _called(bodies[name])
        unknown = [one for one in called if one in bodies and one not in sizes]
        if name in sizes or not unknown:
            sizes[name] = min(sum(sizes.get(one, 1) for one in called), 2 * UNFOLDED)
            within.discard(waiting.pop())
        elif name in within and any(one in within for one in unknown):
            yield f"function {name[1]}: calls itself"
            return
        else:
            within.add(name)
            waiting += unknown
    if sum(sizes.get(one, 1) for one in _called(proto.graph)) > UNFOLDED:
        yield f"functions: in their places they are more than {UNFOLDED} nodes"


def _called(graph: onnx.GraphProto | onnx.FunctionProto) -> list[tuple[str, str]]:
    """Domains and names of operators and functions in a graph and in the bodies in it."""
    return [(node.domain, node.op_type) for node in _inside(graph)]


def _inside(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the bodies in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _inside(body)


def _containers(proto: onnx.ModelProto) -> Complaints:
    """Inputs and outputs are no maps, and inputs no sequences, of which nothing here can be made."""
    for value in proto.graph.input:
        if value.type.HasField("sequence_type"):
            yield f"input {value.name}: it is a sequence, and only tensors are fed; export an input for each tensor"
    for value in (*proto.graph.input, *proto.graph.output):
        kind = value.type
        while kind.HasField("sequence_type") or kind.HasField("optional_type"):
            kind = (kind.sequence_type if kind.HasField("sequence_type") else kind.optional_type).elem_type
        if kind.HasField("map_type"):
            yield (
                f"{value.name}: it holds maps, as ZipMap makes them, not tensors, and only tensors are read; skl2onnx "
                "leaves them out with options={'zipmap': False}"
            )


RULES: tuple[Callable[[onnx.ModelProto], Complaints], ...] = (
    _versions,
    _texts,
    _tensors,
    _sparse,
    _names,
    _grouped,
    _bodies,
    _functions,
    _containers,
)
