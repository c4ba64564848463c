"""Masks: an exact number of zeros, the smallest first, where the pattern allows them."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nets.zoo import NETS
from onnxslim_learn.errors import InputError
from onnxslim_learn.sparse import patterns
from onnxslim_learn.sparse.maskable import Layer, layers
from onnxslim_learn.workflow import slim

CONV = Layer("w", (6, 8, 3, 3), (1,), (0,), ("conv",))
GEMM = Layer("w", (8, 12), (0,), (1,), ("fc",))
EXPERTS = Layer("w", (2, 8, 6), (1,), (0, 2), ("experts",))
NAMES = ["unstructured", "2:4", "1:4", "3x2", "4x1", "units"]


def scores(layer, seed=0):
    return np.random.default_rng(seed).random(layer.shape)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.floats(0, 1))
def test_exactly_k_smallest_go_and_ties_are_decided_by_place(values, ratio):
    layer = Layer("w", (1, len(values)), (1,), (0,), ())
    kept = patterns.keep(np.array([values], float), ratio, patterns.parse("unstructured"), layer).reshape(-1)
    order = sorted(range(len(values)), key=lambda k: (values[k], k))
    assert set(np.flatnonzero(~kept)) == set(order[: round(ratio * len(values))])


@pytest.mark.parametrize("layer", [CONV, GEMM, EXPERTS], ids=["conv", "gemm", "experts"])
@pytest.mark.parametrize("name", NAMES)
def test_masks_hold_their_pattern(layer, name):
    pattern = patterns.parse(name)
    ratio = pattern.ratio or 0.5
    mask = patterns.keep(scores(layer), ratio, pattern, layer)
    assert patterns.holds(mask * 1.0, pattern, layer)
    assert abs((~mask).mean() - ratio) < 0.15  # the last blocks may be smaller
    spoilt = mask * 1.0
    spoilt.reshape(-1)[np.flatnonzero(~mask)[0]] = 1
    if name != "unstructured":
        assert not patterns.holds(spoilt, pattern, layer)


def test_two_of_four_run_along_input_channels_at_one_place_of_the_kernel():
    values = scores(CONV)
    mask = patterns.keep(values, 0.5, patterns.parse("2:4"), CONV)
    for o, y, x in np.ndindex(6, 3, 3):
        for start in (0, 4):
            four = values[o, start : start + 4, y, x]
            assert set(np.flatnonzero(~mask[o, start : start + 4, y, x])) == set(np.argsort(four)[:2])


def test_channels_that_fill_no_group_stay_dense():
    layer = Layer("w", (4, 6), (1,), (0,), ())
    mask = patterns.keep(scores(layer), 0.5, patterns.parse("2:4"), layer)
    assert mask[:, 4:].all()
    assert (mask[:, :4].sum(axis=1) == 2).all()
    narrow = Layer("w", (4, 3), (1,), (0,), ())
    assert patterns.keep(scores(narrow), 0.5, patterns.parse("2:4"), narrow).all()


def test_a_share_below_the_patterns_masks_the_worst_of_what_it_would():
    full = patterns.keep(scores(CONV), 0.5, patterns.parse("2:4"), CONV)
    half = patterns.keep(scores(CONV), 0.25, patterns.parse("2:4"), CONV)
    assert (~half).sum() == CONV.size // 4
    assert (half | ~full).all() or not (~half & full).any()
    assert scores(CONV)[~half].max() <= scores(CONV)[~full & half].min()


def test_blocks_and_units_go_by_their_sums():
    values = scores(GEMM)
    mask = patterns.keep(values, 0.5, patterns.parse("3x2"), GEMM)  # outputs lie along axis 1
    tiles = values.reshape(4, 2, 4, 3).sum(axis=(1, 3))
    gone = ~mask.reshape(4, 2, 4, 3).any(axis=(1, 3))
    assert set(np.flatnonzero(gone)) == set(np.argsort(tiles.reshape(-1))[:8])
    units = patterns.keep(values, 0.25, patterns.parse("units"), GEMM)
    assert set(np.flatnonzero(~units.any(axis=0))) == set(np.argsort(values.sum(axis=0))[:3])


@pytest.mark.parametrize("text", ["", "4:2", "4:4", "0:4", "2:", "2x", "dense", "-1:4"])
def test_other_patterns_are_refused(text):
    with pytest.raises(InputError, match="pattern"):
        patterns.parse(text)


# net -> its maskable weights, with the axes of input and output channels
ROLES = {
    "chain": {"w1": ((1,), (0,)), "w2": ((1,), (0,))},
    "conv_transpose": {"w1": ((1,), (0,)), "w2": ((0,), (1,)), "w3": ((0,), (1,)), "w4": ((1,), (0,))},
    "depthwise": {"w1": ((1,), (0,)), "w3": ((1,), (0,)), "w4": ((1,), (0,))},  # w2 is depthwise
    "einsum": {"w1": ((0,), (1,)), "w2": ((1,), (0,))},
    "flatten_gemm": {"w1": ((1,), (0,)), "w2": ((1,), (0,))},
    "tied_embedding": {"w1": ((0,), (1,)), "w2": ((0,), (1,))},  # the table is looked up as well
}


@pytest.mark.parametrize("net", ROLES)
def test_weights_are_found_by_their_role(net):
    found = layers(slim.analyze(NETS[net].build()).graph.model)
    assert {layer.name: (layer.inputs, layer.outputs) for layer in found} == ROLES[net]


def test_a_weight_behind_a_transposition_has_the_axes_it_has_in_the_file():
    w = onnx.numpy_helper.from_array(np.ones((5, 3), np.float32), "w")
    nodes = [
        onnx.helper.make_node("Transpose", ["w"], ["t"], "t", perm=[1, 0]),
        onnx.helper.make_node("MatMul", ["x", "t"], ["y"], "m"),
    ]
    x, y = (onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [2, 3]), ("y", [2, 5])))
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y], [w]))
    (layer,) = layers(ir.from_proto(model))
    assert (layer.inputs, layer.outputs, layer.nodes) == ((1,), (0,), ("m",))


def test_protected_weights_stay_dense():
    model = slim.analyze(NETS["residual"].build()).graph.model
    names = [layer.name for layer in layers(model, ["^w0$", "w5"])]
    assert names == ["w1", "w2", "w3", "w4"]
    for wrong in ("nothing", "["):
        with pytest.raises(InputError, match="protect"):
            layers(model, [wrong])
    with pytest.raises(InputError, match="all weights"):
        layers(model, ["."])


def roles(text, **shapes):
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return {layer.name: layer for layer in layers(ir.from_proto(model))}


HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def test_an_equation_may_leave_its_output_unsaid():
    found = roles(
        f'{HEAD} net (float[3,8] x) => (float[3,6] y) {{ y = Einsum<equation: string = "bi,io">(x, w) }}', w=(8, 6)
    )
    assert (found["w"].inputs, found["w"].outputs) == ((0,), (1,))


def test_groups_of_a_transposed_convolution_are_apart():
    net = "net (float[1,12,4,4] x) => (float[1,10,5,5] y) { y = ConvTranspose<group: int = 2>(x, w) }"
    found = roles(f"{HEAD} {net}", w=(12, 5, 2, 2))["w"]
    channels = np.unravel_index(patterns.groups_of(patterns.parse("2:4"), found), found.shape)[0]
    assert channels.shape == (2 * 5 * 4, 4)
    assert (channels // 6 == channels[:, :1] // 6).all(), "a group of four lies in one group of the node"


def test_a_weight_read_along_two_axes_has_no_channels_to_group():
    net = "net (float[3,8] x) => (float[3,8] y) { h = MatMul(x, w) y = Gemm<transB: int = 1>(h, w) }"
    found = roles(f"{HEAD} {net}", w=(8, 8))["w"]
    assert not found.alike
    assert patterns.groups_of(patterns.parse("2:4"), found).size == 0
    assert patterns.keep(scores(found), 0.5, patterns.parse("2:4"), found).all()


def test_weights_that_are_not_finite_are_refused_by_name():
    net = f"{HEAD} net (float[3,2] x) => (float[3,2] y) <float[2,2] w = {{1, 2, 3, 4}}> {{ y = MatMul(x, w) }}"
    model = ir.from_proto(onnx.parser.parse_model(net))
    model.graph.initializers["w"].const_value = ir.tensor(np.array([[1, np.nan], [2, 3]], np.float32), name="w")
    with pytest.raises(InputError, match="initializer w: has values that are not finite"):
        layers(model)
