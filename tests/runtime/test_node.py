"""A node by itself: what it holds and reads, and what it computes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxslim_learn.runtime.node import bodies, compute, inside, reads, run

NESTED = """
<ir_version: 10, opset_import: ["": 21]>
net (float[4] x, bool c, bool d) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
    a = Relu(x)
    y = If (c) <
        then_branch = outer_then () => (float[4] p) {
            q = Add(a, w)
            p = If (d) <
                then_branch = inner_then () => (float[4] r) { r = Mul(q, x) },
                else_branch = inner_else () => (float[4] s) { s = Neg(q) }
            >
        },
        else_branch = outer_else () => (float[4] t) { t = Identity(a) }
    >
}
"""


@pytest.fixture
def nested():
    return onnx.parser.parse_model(NESTED)


def test_bodies_and_what_is_inside_are_the_same_in_both_forms(nested):
    node = ir.from_proto(nested).graph[1]
    for one in (node, nested.graph.node[1]):
        assert [body.name for body in bodies(one)] == ["outer_then", "outer_else"]
        assert [inner.op_type for inner in inside(one)] == ["Add", "If", "Mul", "Neg", "Identity"]
    assert bodies(nested.graph.node[0]) == []


def test_a_node_reads_what_its_bodies_take_from_outside_and_nothing_of_their_own(nested):
    assert reads(ir.from_proto(nested).graph[1]) == ["c", "a", "w", "d", "x"]


def test_a_body_that_only_hands_on_an_outer_value_reads_it():
    condition, outer = ir.Value(name="c"), ir.Value(name="outer")
    body = ir.Graph([], [outer], nodes=[], name="body")
    node = ir.Node("", "If", [condition], [ir.AttrGraph("then_branch", body)])
    assert reads(node) == ["c", "outer"]


def conv(bias):
    weight = np.random.default_rng(0).standard_normal((3, 2, 1, 1)).astype(np.float32)
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    net (float[1,2,2,2] x) => (float[1,3,2,2] y) {{ y = Conv(x, w{", b" if bias else ""}) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    if bias:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "b"))
    module = ir.from_proto(model)
    return module, module.graph[0], weight[:, :, 0, 0]


def test_constants_are_taken_from_the_node_unless_they_are_given():
    _, node, weight = conv(bias=True)
    x = np.random.default_rng(1).standard_normal((1, 2, 2, 2)).astype(np.float32)
    plain = np.einsum("oi,nihw->nohw", weight, x)
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(compute(node, {"x": x})["y"], plain + 1, **close)
    shortened = ir.to_proto(node)
    del shortened.input[2:]
    np.testing.assert_allclose(run(shortened, {"x": x, "w": weight[..., None, None]}, {"": 21})["y"], plain, **close)
    np.testing.assert_allclose(compute(node, {"x": x, "b": np.zeros(3, np.float32)})["y"], plain, **close)


def test_every_named_output_comes_back():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> net (float[4] x) => (float[2] a, float[2] b)'
        " { a, b = Split <axis = 0, num_outputs = 2> (x) }"
    )
    outputs = compute(ir.from_proto(model).graph[0], {"x": np.arange(4, dtype=np.float32)})
    assert {name: array.tolist() for name, array in outputs.items()} == {"a": [0, 1], "b": [2, 3]}


def test_the_reference_takes_over_where_onnxruntime_has_no_kernel():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> net (int16[2] x) => (int16[2] y) { y = Neg(x) }'
    )
    (y,) = compute(ir.from_proto(model).graph[0], {"x": np.array([1, -2], np.int16)}).values()
    assert y.dtype == np.int16
    assert y.tolist() == [-1, 2]


def test_what_nothing_can_run_gives_nothing():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21, "mine": 1]> net (float[2] x) => (float[2] y) { y = mine.Frob(x) }'
    )
    assert compute(ir.from_proto(model).graph[0], {"x": np.ones(2, np.float32)}) == {}
