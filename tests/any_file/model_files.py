"""Damaged model files by rules: every field of every kind of message in a small model that has all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from onnx import helper, numpy_helper

from tests.any_file.case import Case

LINE = "analyze bad.onnx"
Place = tuple[tuple[str, int], ...]  # fields from the model down, with positions in repeated ones


def rich() -> onnx.ModelProto:
    """A valid model with a branch, a function, a sparse weight, listed numbers, metadata, annotations."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 3, 3, 3)),
        "b": rng.normal(size=8),
        "w2": rng.normal(size=(8, 8, 1, 1)),
        "fc": rng.normal(size=(8, 4)),
    }
    tensors = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()]
    tensors.append(helper.make_tensor("listed", onnx.TensorProto.FLOAT, [8], rng.normal(size=8).tolist()))
    tensors.append(numpy_helper.from_array(np.array([0, 8]), "target"))
    yes, no = (_body(name, op) for name, op in (("yes", "Relu"), ("no", "Neg")))
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1] * 4, strides=[1, 1], auto_pad="NOTSET"),
        helper.make_node("Act", ["c"], ["r"], "act", domain="my", slope=0.1),
        helper.make_node("Constant", [], ["flag"], "flag", value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["flag"], ["i"], "if", then_branch=yes, else_branch=no),
        helper.make_node("Conv", ["i", "w2"], ["d"], "conv2", group=1),
        helper.make_node("ReduceMean", ["d"], ["m"], "mean", axes=[2, 3], keepdims=0),
        helper.make_node("Reshape", ["m", "target"], ["f"], "reshape"),
        helper.make_node("Mul", ["f", "listed"], ["g"], "mul"),
        helper.make_node("Add", ["g", "s"], ["a"], "add"),
        helper.make_node("MatMul", ["a", "fc"], ["y"], "fc"),
    ]
    inner = helper.make_node("LeakyRelu", ["a"], ["b"], "leaky")
    inner.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    act = helper.make_function("my", "Act", ["a"], ["b"], [inner], [helper.make_opsetid("", 17)], ["slope"])
    graph = helper.make_graph(
        nodes,
        "rich",
        [helper.make_tensor_value_info("x", 1, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["batch", 4])],
        tensors,
        "documented",
        [helper.make_tensor_value_info("c", 1, ["batch", 8, 8, 8])],
    )
    sparse = graph.sparse_initializer.add(dims=[8])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1, 5]), "s_at"))
    graph.quantization_annotation.add(tensor_name="c").quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[act], ir_version=9, producer_name="tests")
    helper.set_model_props(model, {"author": "somebody"})
    return model


def _body(name: str, op: str) -> onnx.GraphProto:
    node = helper.make_node(op, ["r"], [f"{name}_out"], f"{name}_node")
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_out", 1, None)])


# --- every field of every message -------------------------------------------------------------------------------------

WRONG = {
    Field.TYPE_INT32: (-1, 0, 999, 2**31 - 1),
    Field.TYPE_INT64: (-1, 0, 7, 2**31, 2**62),
    Field.TYPE_UINT64: (0, 2**64 - 1),
    Field.TYPE_FLOAT: (float("nan"), float("inf"), -1e38),
    Field.TYPE_DOUBLE: (float("nan"), 1e300),
    Field.TYPE_ENUM: (0, 1),
    Field.TYPE_STRING: ("", "no\x1b[31mthing\n", "x" * 70_000),
    Field.TYPE_BYTES: (b"", b"\xff\x00\n", b"x" * 70_000),
}
"""By the type of a field, what it may not be or rarely is."""


def repeated(field: Field) -> bool:
    """Whether a field is a list."""
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def messages(message: Message, place: Place = (), role: str = "model") -> Iterator[tuple[str, Place, Message]]:
    """Messages from the model down, with what tells their role from others'."""
    yield role, place, message
    for field, value in message.ListFields():
        if field.type != Field.TYPE_MESSAGE:
            continue
        for index, inner in enumerate(value if repeated(field) else [value]):
            known = getattr(inner, "op_type", "") or (getattr(inner, "name", "") if field.name == "attribute" else "")
            yield from messages(inner, (*place, (field.name, index)), f"{role}/{field.name}{known and ':' + known}")


def changes(field: Field) -> Iterator[tuple[str, Callable[[Message], object]]]:
    """Ways to damage a field of a message."""
    name = field.name
    if repeated(field):
        yield "none", lambda m: m.ClearField(name)
        yield "twice", lambda m: getattr(m, name).extend(list(getattr(m, name)))
        yield "a thousandfold", lambda m: getattr(m, name).extend(list(getattr(m, name))[:1] * 1000)
        if field.type != Field.TYPE_MESSAGE:
            for value in WRONG[field.type]:
                yield f"with {_short(value)}", lambda m, value=value: getattr(m, name).append(value)
                yield f"first {_short(value)}", lambda m, value=value: _first(getattr(m, name), value)
        return
    yield "unset", lambda m: m.ClearField(name)
    if field.type == Field.TYPE_MESSAGE:
        yield "empty", lambda m: (m.ClearField(name), getattr(m, name).SetInParent())
        return
    for value in WRONG[field.type]:
        yield f"{_short(value)}", lambda m, value=value: setattr(m, name, value)


def _first(values: object, value: object) -> None:
    if len(values):  # type: ignore[arg-type]
        values[0] = value  # type: ignore[index]


def _short(value: object) -> str:
    return ascii(value)[:24]


FEW = frozenset(("model/graph/node:Conv/attribute:pads", "model/functions/node:LeakyRelu/attribute:alpha"))
"""Attributes whose fields are all tried; of others, those that are set."""


def field_cases() -> Iterator[Case]:
    """A case for every change of a field of a role."""
    model, met = rich(), set[tuple[str, str]]()
    for role, place, message in messages(model):
        given = {field.name for field, _ in message.ListFields()}
        for field in message.DESCRIPTOR.fields:
            if (role, field.name) in met or ("/attribute:" in role and role not in FEW and field.name not in given):
                continue
            met.add((role, field.name))
            for said, change in changes(field):
                yield Case(f"{role}.{field.name}: {said}", LINE, _written(place, change))


def _written(place: Place, change: Callable[[Message], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        model: Message = rich()
        message = model
        for name, index in place:
            inner = getattr(message, name)
            message = inner[index] if hasattr(inner, "append") else inner
        change(message)
        (folder / "bad.onnx").write_bytes(model.SerializeToString(deterministic=True))

    return write


# --- bytes ------------------------------------------------------------------------------------------------------------


def byte_cases() -> Iterator[Case]:
    """Files that are cut off, flipped, or something else."""
    content = rich().SerializeToString(deterministic=True)
    rng = np.random.default_rng(0)
    for cut in np.linspace(0, len(content) - 1, 12).astype(int):
        yield Case(f"cut after {cut} bytes", LINE, _bytes(content[:cut]))
    for where in rng.integers(0, len(content), 24):
        flipped = content[:where] + bytes([content[where] ^ (1 << int(rng.integers(8)))]) + content[where + 1 :]
        yield Case(f"a bit of byte {where} flipped", LINE, _bytes(flipped))
    for name, other in {
        "noise": rng.bytes(4096),
        "zeros": bytes(4096),
        "text": b"{}" * 2000,
        "twice": content * 2,
        "a length beyond its end": b"\x3a\xff\xff\xff\xff\x07" + content,
        "groups that never end": b"\x0b" * 5000,
        "messages in messages": b"\x3a\x7f" * 5000,
    }.items():
        yield Case(name, LINE, _bytes(other))


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "bad.onnx").write_bytes(content)  # type: ignore[func-returns-value,return-value]


# --- data beside ------------------------------------------------------------------------------------------------------

NUMBERS = ("", "-1", "0", "1", "4", "863", "865", "1000000", str(2**63), "9" * 30, "1e3", " 0", "٣", "0x10", "\x1b[31m")
PLACES = (
    "",
    ".",
    "..",
    "../bad.bin",
    "/etc/hostname",
    "nowhere.bin",
    "bad.onnx",
    "folder",
    "pipe",
    "bad.bin/x",
    "x" * 300,
    "a\x00b",
    "a\nb\x1b[31m",
)


def external_cases() -> Iterator[Case]:
    """Entries for a file of weights."""
    right = {"location": "bad.bin", "offset": "0", "length": "864"}
    for key, values in {"offset": NUMBERS, "length": NUMBERS, "location": PLACES}.items():
        for value in values:
            yield Case(f"external {key} {_short(value)}", LINE, _outside({**right, key: value}, 864))
    for size in (0, 1, 863):
        yield Case(f"external file of {size} bytes", LINE, _outside(right, size))
    yield Case("external, all entries unknown", LINE, _outside({"nowhere": "bad.bin"}, 864))
    yield Case("external, in an input of a branch", LINE, _outside(right, 864, inside=True))


def _outside(entries: dict[str, str], size: int, *, inside: bool = False) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import os

        model = rich()
        tensor = model.graph.initializer[0]
        if inside:
            body = model.graph.node[3].attribute[0].g
            tensor = body.initializer.add(name="w9", dims=[8, 3, 3, 3], data_type=1)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        (folder / "bad.onnx").write_bytes(model.SerializeToString(deterministic=True))
        (folder / "bad.bin").write_bytes(bytes(size))
        (folder / "folder").mkdir()
        os.mkfifo(folder / "pipe")

    return write


# --- sparse weights ---------------------------------------------------------------------------------------------------


def sparse_cases() -> Iterator[Case]:
    """Weights of which a few numbers are listed."""
    shapes = ([], [0], [-1], [8], [7], [2, 4], [2**31, 2**31], [2**62], [8, 1, 1, 1, 1, 1])
    places = ([], [1], [1, 5], [5, 1], [1, 1], [1, 99], [1, -1], [[0, 1], [1, 5]], [[0], [1]], [1.0, 5.0], [2**40, 1])
    for dims in shapes:
        yield Case(f"sparse of shape {dims}", LINE, _sparse(dims, [1, 5]))
    for where in places:
        yield Case(f"sparse at {where}", LINE, _sparse([8], where))


def _sparse(dims: list[int], where: list[object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        model = rich()
        sparse = model.graph.sparse_initializer[0]
        del sparse.dims[:]
        sparse.dims.extend(dims)
        array = np.array(where) if where else np.zeros(0, np.int64)
        sparse.indices.CopyFrom(numpy_helper.from_array(array, "s_at"))
        (folder / "bad.onnx").write_bytes(model.SerializeToString(deterministic=True))

    return write


def cases() -> Iterator[Case]:
    """All cases of model files."""
    for make in (field_cases, byte_cases, external_cases, sparse_cases):
        yield from make()
