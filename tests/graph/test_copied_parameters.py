"""Exporters merge equal parameters and copy them back by nodes: each copy is a parameter of its own."""

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort

from onnxslim_learn.analysis import analyze
from onnxslim_learn.select.planner import plan
from onnxslim_learn.workflow.slim import slim

NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 6] x) => (float[n, 6] y)
<float[6, 8] w1, float[8, 8] w2, float[8, 6] w3, float[8] zeros>
{
    b2 = Identity(zeros)
    a = MatMul(x, w1)
    a1 = Add(a, zeros)
    h = Relu(a1)
    c = MatMul(h, w2)
    c1 = Add(c, b2)
    r = Relu(c1)
    y = MatMul(r, w3)
}"""


def net():
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NET)
    arrays = {"w1": (6, 8), "w2": (8, 8), "w3": (8, 6), "zeros": (8,)}
    for name, shape in arrays.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def test_a_copied_bias_ties_nothing():
    analysis = analyze(net())
    free = [group for group in analysis.groups if group.pin is None]
    assert [group.width for group in free] == [8, 8], "both layers can be cut apart from one another"
    assert "b2" in analysis.graph.initializers


def test_it_is_cut_exactly(tmp_path):
    analysis = analyze(net())
    check = slim(analysis, plan(analysis, {"macs": 0.6})).save(tmp_path / "slim.onnx")
    assert check.passed
    ort.InferenceSession(tmp_path / "slim.onnx").run(None, {"x": np.zeros((2, 6), np.float32)})
