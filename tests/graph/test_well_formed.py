"""Files that are not what their format says are refused where they are read, in one sentence; others are not."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nets.operators import EXAMPLES
from nets.variants import VARIANTS
from nets.zoo import NETS
from onnxslim_learn.cli.commands import main
from onnxslim_learn.graph import well_formed


def weight(model):
    return model.graph.initializer[0]


def node(model, kind="Conv"):
    return next(one for one in model.graph.node if one.op_type == kind)


def outside(**entries):
    """Let the first weight be in a file beside the model."""

    def change(model):
        tensor = weight(model)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    return change


def grouped(count):
    def change(model):
        conv = node(model)
        del conv.attribute[:]
        conv.attribute.append(helper.make_attribute("group", count))

    return change


def sparse(values, places, dims):
    def change(model):
        held = model.graph.sparse_initializer.add(dims=dims)
        held.values.CopyFrom(numpy_helper.from_array(np.ones(values, np.float32), "s"))
        held.indices.CopyFrom(numpy_helper.from_array(np.array(places), "at"))

    return change


def functions(levels, *, itself=False):
    """Let a node be a function that calls another twice, and so on."""

    def change(model):
        sets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
        relu = helper.make_node("Relu", ["x"], ["y"])
        again = helper.make_node("F0", ["x"], ["y"], domain="my")
        model.functions.append(helper.make_function("my", "F0", ["x"], ["y"], [again if itself else relu], sets))
        for level in range(1, levels):
            calls = [helper.make_node(f"F{level - 1}", [a], [b], domain="my") for a, b in (("x", "t"), ("t", "y"))]
            model.functions.append(helper.make_function("my", f"F{level}", ["x"], ["y"], calls, sets))
        model.opset_import.add(domain="my", version=1)
        chosen = node(model, "Relu")
        chosen.op_type, chosen.domain = f"F{levels - 1}", "my"

    return change


def fill(tensor, content):
    tensor.raw_data = content


def map_out(model):
    kind = model.graph.output.add(name=node(model).output[0]).type.sequence_type.elem_type.map_type
    kind.key_type = onnx.TensorProto.INT64
    kind.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def sequence_in(model):
    tensor = model.graph.input.add(name="several").type.sequence_type.elem_type.tensor_type
    tensor.elem_type = onnx.TensorProto.FLOAT


WRONG = {
    "a sequence as input": (sequence_in, "input several: it is a sequence"),
    "a map as output": (map_out, "holds maps, as ZipMap makes them"),
    "bytes are missing": (lambda m: fill(weight(m), weight(m).raw_data[:-4]), "make up the shape"),
    "bytes are left over": (lambda m: fill(weight(m), weight(m).raw_data + b"\0" * 4), "make up the shape"),
    "a dimension more": (lambda m: weight(m).dims.append(3), "make up the shape"),
    "a negative dimension": (lambda m: weight(m).dims.__setitem__(0, -2), "no tensor is of shape"),
    "a dimension of 2**62": (lambda m: weight(m).dims.__setitem__(0, 2**62), "no tensor is of shape"),
    "no type": (lambda m: setattr(weight(m), "data_type", 0), "no element type 0"),
    "an unknown type": (lambda m: setattr(weight(m), "data_type", 999), "no element type 999"),
    "no location": (outside(), "names no file"),
    "an offset in words": (outside(location="w.bin", offset="abc"), "'abc'"),
    "a negative length": (outside(location="w.bin", length="-4"), "'-4'"),
    "another length": (outside(location="w.bin", length="4"), "4 long"),
    "no groups": (grouped(0), "0 groups"),
    "groups that do not divide": (grouped(7), "7 groups"),
    "operator set 4": (lambda m: setattr(m.opset_import[0], "version", 4), "older than 7"),
    "operator set 0": (lambda m: setattr(m.opset_import[0], "version", 0), "version must be positive"),
    "an output that nothing makes": (lambda m: setattr(m.graph.output[0], "name", "no"), "nothing makes it"),
    "an output without a name": (lambda m: setattr(m.graph.output[0], "name", ""), "nothing makes it"),
    "a name twice": (lambda m: m.graph.node[1].output.__setitem__(0, m.graph.node[0].output[0]), "of another value"),
    "a place outside": (sparse(3, [0, 1, 999], [4, 4]), "out of range"),
    "a place before": (sparse(3, [0, -1, 2], [4, 4]), "out of range"),
    "places of too many axes": (sparse(3, [[0] * 5] * 3, [4, 4]), "rank"),
    "places that are fractions": (sparse(3, [0.0, 1.0, 2.0], [4, 4]), "INT64"),
    "sparse of any size": (sparse(1, [0], [2**31, 2**31]), "cannot be of shape"),
    "sparse of no shape": (sparse(3, [0, 1, 2], []), "cannot be of shape"),
    "a function that calls itself": (functions(1, itself=True), "calls itself"),
    "functions that unfold to 2**29 nodes": (functions(30), "more than 1000000 nodes"),
    "a node without inputs": (lambda m: node(m).input.__delitem__(slice(None)), "no valid model"),
    "control characters": (lambda m: setattr(node(m), "op_type", "\x1b[31mX\nY"), "\\x1b[31mX\\nY"),
}


@pytest.mark.parametrize("change", WRONG)
def test_what_the_format_does_not_allow_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys, change):
    monkeypatch.chdir(tmp_path)
    model = NETS["residual"].build()
    WRONG[change][0](model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").write_bytes(bytes(64))
    assert main(["analyze", "m.onnx"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("onnxslim-learn: m.onnx: ")
    assert WRONG[change][1] in said
    assert said.count("\n") == 1
    assert "\x1b" not in said


def test_no_net_is_refused():
    for name, net in {**NETS, **VARIANTS, **EXAMPLES}.items():
        well_formed.check(net.build(), name)
