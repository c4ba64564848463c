"""Shapes that no inference tells: of a model that is run as a whole, and of one whose nodes are run by themselves."""

import resource

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from nets.notation import Net
from nets.operators import EXAMPLES
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph import shapes
from onnxslim_learn.workflow import slim

RUN = [
    name
    for name in EXAMPLES
    if name.startswith("com.microsoft.") or name in ("SimplifiedLayerNormalization", "MeanVarianceNormalization")
]


@pytest.mark.parametrize("name", RUN)
def test_what_runs_node_by_node_has_the_shapes_of_the_whole(monkeypatch, name):
    def never(*_):
        raise AssertionError("run as a whole")

    model = EXAMPLES[name].build()
    whole = slim.analyze(model).graph.shapes
    monkeypatch.setattr(shapes, "HEAVY", -1)
    if name != "com.microsoft.EmbedLayerNormalization":  # which wants whole numbers that a table has rows for
        monkeypatch.setattr(shapes, "_run_for_shapes", never)
    alone = slim.analyze(model).graph.shapes
    for one, other in ((whole.nominal, alone.nominal), (whole.analysis, alone.analysis), (whole.third, alone.third)):
        assert other.shape == one.shape
        assert other.dtype == one.dtype


def test_a_run_that_tells_shapes_takes_no_more_memory_than_it_may(monkeypatch):
    text = """(float[2,3] x) => (float[2,5] y) {
        h = MatMul(x, w1) a = Abs(x) s = ReduceSum<keepdims=0>(a) n = Mul(s, {10000000.0}) c = Cast<to=7>(n)
        r = Reshape(c, [1]) z = ConstantOfShape(r) m = ReduceMax<keepdims=0>(z) g = Add(h, m) y = MatMul(g, w2)
    }"""
    model, before = Net(text, "w1 3x8, w2 8x5").build(), resource.getrlimit(resource.RLIMIT_AS)
    assert slim.analyze(model).graph.shapes.analysis.shape["z"] == (60_000_000,)
    monkeypatch.setattr(shapes, "ROOM", 1 << 26)
    with pytest.raises(InputError, match=r"\(ConstantOfShape\) needs 240000000 bytes at once, more memory than"):
        slim.analyze(model)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_shapes_that_a_file_declares_and_that_do_not_hold_are_forgotten(tmp_path):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> net (float[n,4,6] x) => (float[n,4,3] y)
        <float[6,8] w, float[8,3] v, float[3] b, float[1,4,8] r> {
            m = MatMul(x, w)
            r = Relu(m)
            t = MatMul(r, v)
            y = Add(t, b)
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w": (6, 8), "v": (8, 3), "b": (3,)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    analysis = slim.analyze(model)
    slim.slim(analysis, slim.plan(analysis, {"macs": 0.6})).save(tmp_path / "slim.onnx")
    written = onnx.load(tmp_path / "slim.onnx")
    shapes_left = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in written.graph.value_info
    }
    assert shapes_left.get("m") != [1, 4, 8]
    session = ort.InferenceSession(tmp_path / "slim.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        (y,) = session.run(None, {"x": np.ones((count, 4, 6), np.float32)})
        assert y.shape == (count, 4, 3)


DECIDED = {
    "which axes are padded": (
        "(float[2, 6] x, int64[2] pads, float zero, int64[1] axes) => (float[a, b] y) {"
        " h = MatMul(x, w1) p = Pad(h, pads, zero, axes) y = Relu(p) }",
        "w1 6x8",
    ),
    "how long a window is, by a number": (
        "(int64 n) => (float[m] y) { r = Range({0}, n, {1}) f = Cast<to=1>(r) y = Mul(f, w1) }",
        "w1 1",
    ),
}


@pytest.mark.parametrize("name", DECIDED)
def test_what_inputs_decide_is_analysed(name):
    text, weights = DECIDED[name]
    assert slim.analyze(Net(text, weights, opset=18).build()).groups is not None


GIVEN_SIZES = """(float[2,3,4] x, int64[3] sizes) => (float[2,6,5] y) {
    h = MatMul(x, w1) r = Relu(h) s = Reshape(r, sizes) y = MatMul(s, w2)
}"""


def test_sizes_that_an_input_gives_are_those_that_the_file_declares():
    text, weights = GIVEN_SIZES, "w1 4x8, w2 4x5"
    model = Net(text, weights).build()
    with pytest.raises(InputError, match=r"with ones as sizes, for which value NAME=2,3 gives others"):
        slim.analyze(model)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("s", 1, [2, 6, 4]))
    declared, told = slim.analyze(model), slim.analyze(Net(text, weights).build(), values={"sizes": [2, 6, 4]})
    assert [g.width for g in declared.groups] == [g.width for g in told.groups]
