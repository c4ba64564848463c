"""Rotated models compute what they did, and every law of a cut holds for them; what must not be mixed is not."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nets.fused import plain
from nets.notation import Net
from onnxslim_learn.bases.find import spaces
from onnxslim_learn.bases.rotate import in_bases
from onnxslim_learn.workflow import slim as api
from tests import laws
from tests.laws import ALL, PLANS, analysed, draw_removal
from tests.random_graphs import graphs
from tests.test_laws import assert_slim_is_mask

SPACES = {
    "depthwise": 1,
    "grouped": 2,
    "conv3d": 1,
    "conv_transpose": 1,
    "channel_shuffle": 2,
    "shufflenet_v2": 1,
    "pad_pool": 1,
    "windows": 1,
    "swiglu": 1,
    "tied_embedding": 1,
    "attention": 8,
    "attention_gemm": 8,
    "attention_dynamic": 8,
    "relative_bias": 8,
    "rotary": 4,
    "class_token": 1,
    "lstm": 1,
    "branch": 1,
    "lstm_computed": 1,
    "positions_from_mask": 1,
    "size_computed_with": 2,
    "bias_without_key": 8,
    "shuffle_of_three": 3,
    "multi_query": 2,
    "joined_and_cut_elsewhere": 2,
    "SimplifiedLayerNormalization": 1,
}
"""Nets -> how many spaces they have: of attention, one for the queries of every head and one for its values."""

ROTATED = [name for name in ALL if plain(name) in SPACES]


def turned(analysis: api.Analysis, seed: int = 0) -> api.Analysis:
    """Return a model of which all free bases are rotated by chance."""
    rng = np.random.default_rng(seed)
    known = spaces(analysis.coupling, analysis.groups)
    return in_bases(analysis, {s.name: np.linalg.qr(rng.normal(size=(s.size, s.size)))[0] for s in known})


@functools.cache
def rotated(name: str) -> api.Analysis:
    return turned(analysed(name))


def assert_same(analysis: api.Analysis, other: api.Analysis) -> None:
    before, after = laws.normal(analysis), laws.normal(other)
    for feed in laws.input_sets(before):
        wanted, found = laws.run(before, feed), laws.run(after, feed)
        for output in wanted:
            laws.assert_close(found[output], wanted[output], output)


@pytest.mark.parametrize("name", SPACES)
def test_spaces_are_found(name):
    found = analysed(name)
    assert len(spaces(found.coupling, found.groups)) == SPACES[name]


@pytest.mark.parametrize("name", ROTATED)
def test_a_rotated_model_computes_the_same(name):
    assert_same(analysed(name), rotated(name))


@pytest.mark.parametrize("name", ROTATED)
@PLANS
@given(st.data())
def test_slim_is_mask_after_a_rotation(name, data):
    assert_slim_is_mask(draw_removal(data.draw, rotated(name)))


@laws.examples(15)
@given(st.data())
def test_random_graphs_are_rotated_and_cut(data):
    analysis = api.analyze(data.draw(graphs()))
    other = turned(analysis)
    assert_same(analysis, other)
    if laws.free(other):
        assert_slim_is_mask(draw_removal(data.draw, other))


# --- what tells units apart -------------------------------------------------------------------------------------------

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
