"""A value for an input chooses a branch: it is cut and put back, the other branch computes what it did."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.workflow import slim
from tests import laws

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RATES = (16000, 8000)


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name, shape):
    return numpy_helper.from_array(np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32), name)


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def branch(name, width, *, inside):
    """A two-layer perceptron that reads ``x``; its weights are constants inside, or initializers outside."""
    weights = [weight(f"{name}1", (6, width)), weight(f"{name}2", (width, 4))]
    nodes = [
        *([constant(w.name, numpy_helper.to_array(w)) for w in weights] if inside else []),
        helper.make_node("MatMul", ["x", f"{name}1"], [f"{name}h"]),
        helper.make_node("Relu", [f"{name}h"], [f"{name}r"]),
        helper.make_node("MatMul", [f"{name}r", f"{name}2"], [f"{name}y"]),
    ]
    return helper.make_graph(nodes, name, [], [value(f"{name}y", ["N", 4])]), [] if inside else weights


def choosing(condition, kind, *, inside=True, constants=()):
    """A model of two branches between which the nodes of ``condition`` choose, then a layer that both feed."""
    (then, one), (other, two) = branch("t", 16, inside=inside), branch("e", 12, inside=inside)
    nodes = [
        *condition,
        helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other),
        helper.make_node("MatMul", ["z", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    weights = [*one, *two, weight("w", (4, 10)), weight("v", (10, 3)), *constants]
    inputs = [value("x", ["N", 6]), value("sr", [], kind)]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", ["N", 3])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def by_rate(*, inside=True):
    return choosing(
        [helper.make_node("Equal", ["sr", "k"], ["c"])],
        INT64,
        inside=inside,
        constants=[numpy_helper.from_array(np.array(RATES[0], np.int64), "k")],
    )


def by_switch():
    return choosing([helper.make_node("Not", ["sr"], ["n"]), helper.make_node("Not", ["n"], ["c"])], BOOL)


MODELS = {
    "weights inside": (by_rate, (np.array(RATES[0]), np.array(RATES[1]))),
    "weights outside": (lambda: by_rate(inside=False), (np.array(RATES[0]), np.array(RATES[1]))),
    "switch": (by_switch, (np.array(True), np.array(False))),
}


def feeds(sr, rows):
    return {"x": np.random.default_rng(rows).standard_normal((rows, 6)).astype(np.float32), "sr": sr}


@pytest.mark.parametrize("taken", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_the_chosen_branch_is_cut_and_the_other_is_as_before(name, taken, tmp_path):
    build, values = MODELS[name]
    onnx.save(build(), tmp_path / "m.onnx")
    analysis = slim.analyze(tmp_path / "m.onnx", values={"sr": values[taken].item()})
    inside = [group for group in analysis.groups if group.pin is None and group.width in (16, 12)]
    assert [group.width for group in inside] == [(16, 12)[taken]]
    slimmed, check = slim.slim_to(analysis, {"macs": 0.6}, tmp_path / "s.onnx")
    assert check.passed
    assert slimmed.plan.groups.keys() >= {inside[0].name}
    before, after = onnx.load(tmp_path / "m.onnx"), onnx.load(tmp_path / "s.onnx")
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]
    again = slim.analyze(tmp_path / "s.onnx", values={"sr": values[taken].item()})
    assert again.price(again.whole) == analysis.price(slimmed.removal)
    changed = [abs(laws.run(before, feeds(v, 5))["y"] - laws.run(after, feeds(v, 5))["y"]).max() for v in values]
    assert changed[taken] > 1e-3, "a cut of this size shows"


@pytest.mark.parametrize("name", MODELS)
def test_only_what_all_branches_feed_is_cut_with_the_other_value(name, tmp_path):
    """With everything outside the branch protected, the other value gives the same numbers, at any batch."""
    build, values = MODELS[name]
    onnx.save(build(), tmp_path / "m.onnx")
    analysis = slim.analyze(tmp_path / "m.onnx", values={"sr": values[0].item()})
    slim.slim_to(analysis, {"macs": 0.7}, tmp_path / "s.onnx", protect=["^w:1$"])
    before, after = onnx.load(tmp_path / "m.onnx"), onnx.load(tmp_path / "s.onnx")
    for rows in (1, 4):
        one, other = (laws.run(model, feeds(values[1], rows))["y"] for model in (before, after))
        np.testing.assert_array_equal(one, other)


def test_a_value_is_assumed_where_none_is_given():
    analysis = slim.analyze(by_rate())
    assert {name: int(array) for name, array in analysis.graph.values.items()} == {"sr": RATES[0]}
    assert "sr" in analysis.graph.assumed
    assert slim.analyze(by_rate(), values={"sr": 1}).graph.assumed == ("x",)


def test_data_choose_no_branch_and_the_refusal_says_where_the_work_is(tmp_path):
    condition = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "k"], ["c"]),
    ]
    model = choosing(condition, INT64, constants=[numpy_helper.from_array(np.float32(0), "k")])
    analysis = slim.analyze(model)
    assert not analysis.graph.values
    with pytest.raises(TargetError):
        slim.plan(analysis, {"macs": 0.3})


@pytest.mark.parametrize("values", [{"rate": 1}, {"sr": 0.5}, {"sr": "a"}])
def test_a_value_that_does_not_fit_is_refused(values):
    with pytest.raises(InputError, match="value"):
        slim.analyze(by_rate(), values=values)
