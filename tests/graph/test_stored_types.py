"""Weights that a file widens before it computes with them are handled as the wider ones, and written as narrow ones."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from nets.notation import Net
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.data.open import open_source
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim
from tests import laws

BODY = """
            w = Cast<to=1>(narrow)
            wide = Cast<to=1>(narrow2)
            h = MatMul(x, w)
            r = Relu(h)
            y = MatMul(r, wide)
        }"""
STORED = Net("(float[4,6] x) => (float[4,5] y) {" + BODY, "narrow 6x8:float16, narrow2 8x5:float16")


def test_weights_have_the_type_they_are_computed_with():
    graph = load(STORED.build())
    assert [node.op_type for node in graph.nodes] == ["MatMul", "Relu", "MatMul"]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in STORED.build().graph.initializer}
    for name, array in stored.items():
        tensor = graph.initializers[name].const_value
        assert tensor.numpy().dtype == np.float32
        assert (tensor.numpy() == array).all()


@pytest.mark.parametrize(
    ("more", "body"),
    [
        ("float[6,8] w", ""),
        ("float16[6,8] narrow", ""),
        ("float16[6,8] z", "z = Relu(narrow)"),
        ("double[6,8] z", "z = Cast<to=11>(narrow)"),
    ],
    ids=["wide output", "narrow output", "narrow reader", "two types"],
)
def test_weights_that_are_read_as_they_are_stored_stay(more, body):
    net = Net(f"(float[4,6] x) => (float[4,5] y, {more}) {{ {body}" + BODY, STORED.weights)
    graph = load(net.build())
    assert graph.initializers["narrow"].const_value.numpy().dtype == np.float16
    assert graph.initializers["narrow2"].const_value.numpy().dtype == np.float32


def test_what_is_cut_and_repaired_is_written_as_it_was_stored(tmp_path):
    onnx.save(STORED.build(), tmp_path / "net.onnx")
    analysis = slim.analyze(tmp_path / "net.onnx")
    data = {"x": np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)}
    plan = slim.plan(analysis, {"macs": 0.5})
    slimmed = slim.slim(analysis, plan)
    repaired = slimmed.repair(Calibration(analysis.coupling, open_source(data, analysis.graph)))
    assert repaired.weights
    assert slimmed.save(tmp_path / "slim.onnx").passed
    written = onnx.load(tmp_path / "slim.onnx")
    assert {(t.name, t.data_type, tuple(t.dims)) for t in written.graph.initializer} == {
        ("narrow", TensorProto.FLOAT16, (6, 4)),
        ("narrow2", TensorProto.FLOAT16, (4, 5)),
    }
    assert sorted(node.op_type for node in written.graph.node) == ["Cast", "Cast", "MatMul", "MatMul", "Relu"]
    assert slim.verify(analysis, tmp_path / "slim.onnx", slimmed.plan).passed
    again = slim.analyze(tmp_path / "slim.onnx")
    assert again.price(again.whole) == analysis.price(slimmed.removal)
    assert analysis.price(analysis.whole)["bytes"] == 2 * (6 * 8 + 8 * 5)


def test_what_is_no_longer_shared_is_stored_alike(tmp_path):
    """Two layers of the same width, cut apart, have one vector of halves for their biases."""
    net = Net(
        """(float[4,6] x) => (float[4,5] y) {
            bias = Cast<to=1>(narrow)
            a = MatMul(x, w1)
            b = Add(a, bias)
            r = Relu(b)
            c = MatMul(r, w2)
            d = Add(c, bias)
            q = Relu(d)
            y = MatMul(q, w3)
        }""",
        "w1 6x8, w2 8x8, w3 8x5, narrow 8:float16",
    )
    analysis = slim.analyze(net.build())
    first, second = laws.free(analysis)
    removal = laws.close(analysis, np.concatenate([first.units[:3], second.units[2:7]]))
    slim.slim(analysis, slim.describe(analysis, removal, {})).save(tmp_path / "slim.onnx")
    halves = [t for t in onnx.load(tmp_path / "slim.onnx").graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert sorted(tuple(tensor.dims) for tensor in halves) == [(3,), (5,)]
    again = slim.analyze(tmp_path / "slim.onnx")
    assert again.price(again.whole) == analysis.price(removal)


def test_what_is_trained_is_written_as_it_was_stored(tmp_path):
    torch = pytest.importorskip("torch")
    from onnxslim_learn.bridge.export import export
    from onnxslim_learn.bridge.initializers import parameters
    from onnxslim_learn.bridge.module import bridge

    graph = load(STORED.build())
    module = bridge(graph)
    assert parameters(module).keys() == {"narrow", "narrow2"}
    with torch.no_grad():
        parameters(module)["narrow"] *= 2
    export(module, graph, tmp_path / "trained.onnx")
    before, after = STORED.build(), onnx.load(tmp_path / "trained.onnx")
    assert after.graph.node == before.graph.node
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        factor = np.float16(2 if old.name == "narrow" else 1)
        assert (numpy_helper.to_array(new) == factor * numpy_helper.to_array(old)).all()
    assert laws.run(after, laws.analysis_inputs(slim.analyze(before)))["y"].shape == (4, 5)
