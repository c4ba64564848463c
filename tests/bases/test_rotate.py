"""What may be mixed is found and rotated, what must not be is not; laws of cuts stand in ``test_rotated_laws.py``."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from nets.notation import Net
from onnxslim_learn.bases.find import spaces
from onnxslim_learn.workflow import slim as api
from tests.bases.rotated import assert_same, turned

WIDTH = 6
BETWEEN = {
    "Identity": (True, lambda node: node("Identity", "x")),
    "Neg": (True, lambda node: node("Neg", "x")),
    "one number": (True, lambda node: node("Mul", "x", np.float32(2.0))),
    "a number added": (False, lambda node: node("Add", "x", np.float32(2.0))),
    "a number for each": (False, lambda node: node("Mul", "x", np.arange(WIDTH).reshape(1, WIDTH, 1, 1))),
    "a shift for each": (True, lambda node: node("Add", "x", np.arange(WIDTH).reshape(1, WIDTH, 1, 1))),
    "a picture": (True, lambda node: node("Mul", "x", np.arange(16).reshape(1, 1, 4, 4))),
    "a picture added": (False, lambda node: node("Add", "x", np.arange(16).reshape(1, 1, 4, 4))),
    "itself": (False, lambda node: node("Mul", "x", "x")),
    "a division": (True, lambda node: node("Div", "x", np.float32(2.0))),
    "what divides": (False, lambda node: node("Div", np.float32(2.0), "x")),
    "Relu": (False, lambda node: node("Relu", "x")),
    "average pooling": (True, lambda node: node("AveragePool", "x", kernel_shape=[2, 2])),
    "maximum pooling": (False, lambda node: node("MaxPool", "x", kernel_shape=[2, 2])),
    "zeros around": (True, lambda node: node("Pad", "x", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))),
    "ones around": (False, lambda node: node("Pad", "x", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), np.float32(1))),
    "a mirror": (True, lambda node: node("Pad", "x", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="reflect")),
    "depthwise": (False, lambda node: node("Conv", "x", np.ones((WIDTH, 1, 1, 1)), group=WIDTH)),
    "groups": (True, lambda node: node("Conv", "x", np.ones((WIDTH, 3, 1, 1)), group=2)),
    "a channel for all": (False, lambda node: node("Add", "x", node("ReduceMean", "x", axes=[1]))),
    "the mean of places": (True, lambda node: node("Sub", "x", node("GlobalAveragePool", "x"))),
    "other places": (True, lambda node: node("Slice", "x", *(np.array([k], np.int64) for k in (1, 3, 2)))),
    "all channels turned round": (True, lambda node: node("Gather", "x", np.arange(WIDTH)[::-1].copy(), axis=1)),
    "all channels twice": (True, lambda node: node("Concat", "x", "x", axis=1)),
    "other channels": (
        True,
        lambda node: node("Concat", "x", node("Conv", "image", np.ones((WIDTH, 3, 1, 1))), axis=1),
    ),
    "sums of squares of places": (False, lambda node: node("ReduceL2", "x", axes=[2, 3])),
    "a sum of squares for all": (
        True,
        lambda node: node("Mul", "x", node("ReduceL2", node("Conv", "image", np.ones((WIDTH, 3, 1, 1))), axes=[1])),
    ),
    "softmax": (False, lambda node: node("Softmax", "x", axis=1)),
    "clipped": (False, lambda node: node("Clip", "x", np.float32(0))),
    "rounded": (False, lambda node: node("Cast", node("Cast", "x", to=TensorProto.INT32), to=TensorProto.FLOAT)),
}


def between(build) -> api.Analysis:
    """Return the analysis of two convolutions with something in between."""
    rng, nodes, weights = np.random.default_rng(0), [], {}

    def given(kind, place, one):
        if isinstance(one, str):
            return one
        name, whole = f"c{len(weights)}", place and kind in ("Pad", "Slice", "Gather")
        weights[name] = one if whole else np.asarray(one, np.float32)
        return name

    def node(kind, *inputs, **attributes):
        names = [given(kind, place, one) for place, one in enumerate(inputs)]
        nodes.append(helper.make_node(kind, names, [f"v{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    weights["a"] = rng.normal(size=(WIDTH, 3, 1, 1)).astype(np.float32)
    nodes.append(helper.make_node("Conv", ["image", "a"], ["x"]))
    last = build(node)
    channels = 2 * WIDTH if nodes[-1].op_type == "Concat" else WIDTH
    weights["b"] = rng.normal(size=(5, channels, 1, 1)).astype(np.float32)
    nodes.append(helper.make_node("Conv", [last, "b"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "between",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [2, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return api.analyze(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("what", BETWEEN)
def test_units_are_mixed_where_nothing_tells_them_apart(what):
    free, build = BETWEEN[what]
    analysis = between(build)
    found = [space for space in spaces(analysis.coupling, analysis.groups) if space.name.startswith("a:0")]
    assert bool(found) == free
    if found:
        assert_same(analysis, turned(analysis))


@pytest.mark.parametrize(("shape", "free"), {"1": False, "3x1": False, "6": True, "3x6": True}.items())
def test_products_are_mixed_if_their_summand_has_a_number_for_each(shape, free):
    text = "(float[3, 4] x) => (float[3, 5] y) { h = Gemm(x, a, c) y = MatMul(h, b) }"
    analysis = api.analyze(Net(text, f"a 4x6, c {shape}, b 6x5").build())
    assert bool(spaces(analysis.coupling, analysis.groups)) == free
    assert_same(analysis, turned(analysis))
