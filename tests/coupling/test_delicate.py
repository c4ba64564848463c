"""It is told that ⟨allow_sensitive⟩ would lift a pin exactly where it does."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxslim_learn.report import records
from onnxslim_learn.workflow import slim

FLOAT = TensorProto.FLOAT
N = helper.make_node


def weight(name, *shape):
    return numpy_helper.from_array(np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32), name)


def model(between, *weights, last=True):
    """A layer, nodes that make ``n`` of its output ``h``, and a layer behind them unless ``n`` is put out."""
    nodes = [N("MatMul", ["x", "w1"], ["h"]), *between, *([N("MatMul", ["n", "w2"], ["y"])] if last else [])]
    ends = [weight("w1", 6, 8), *([weight("w2", 8, 3)] if last else [])]
    inputs = [helper.make_tensor_value_info("x", FLOAT, [2, 5, 6])]
    outputs = [helper.make_tensor_value_info("y" if last else "n", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [*ends, *weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


SPELLED = [
    N("ReduceMean", ["h"], ["m"], axes=[-1]),
    N("Sub", ["h", "m"], ["d"]),
    N("Pow", ["d", "two"], ["s"]),
    N("ReduceMean", ["s"], ["v"], axes=[-1]),
    N("Sqrt", ["v"], ["q"]),
    N("Div", ["d", "q"], ["n"]),
]
TWO = numpy_helper.from_array(np.float32(2), "two")
MODELS = {
    "norm": (model([N("LayerNormalization", ["h", "g"], ["n"])], weight("g", 8)), True),
    "norm spelled out": (model(SPELLED, TWO), True),
    "softmax": (model([N("Softmax", ["h"], ["n"])]), True),
    "softmax put out": (model([N("Softmax", ["h"], ["n"])], last=False), False),
    "largest": (model([N("ReduceMax", ["h"], ["m"], axes=[-1]), N("Sub", ["h", "m"], ["n"])]), True),
    "sum along": (model([N("CumSum", ["h", "two"], ["n"])], numpy_helper.from_array(np.int64(2), "two")), False),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_hint_is_there_where_it_helps(name):
    proto, helps = MODELS[name]
    plain = records.overview(slim.analyze(proto))
    (held,) = [row for row in plain["pinned"] if "w1:1" in row["members"]]
    freed = records.overview(slim.analyze(proto, allow_sensitive=True))
    assert held["delicate"] == helps
    assert any("w1:1" in row["members"] for row in freed["groups"]) == helps
