"""What follows a layer number by number is told apart from all else, and computes what onnxruntime computes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxslim_learn.metrics import deviation
from onnxslim_learn.repair.activations import LINEAR, Curve, Saturation, Shares, behind, moved, shared
from onnxslim_learn.runtime.timing import open_session

# what is made of h, the output of the layer, as text of ONNX; the function ends in y
FUNCTIONS = {
    "hard swish": "y = HardSwish(h)",
    "hard sigmoid": "y = HardSigmoid(h)",
    "gelu, spelled out": "a = Div(h, root) b = Erf(a) c = Add(b, one) d = Mul(h, c) y = Mul(d, half)",
    "swish, spelled out": "a = Sigmoid(h) y = Mul(a, h)",
    "hard swish, spelled out": "a = Add(h, three) b = Clip(a, zero, six) c = Mul(h, b) y = Div(c, six)",
    "one after the other": "a = LeakyRelu(h) y = Tanh(a)",
}
NONE = {
    "nothing": "y = Identity(h)",
    "sums and products": "a = Mul(h, three) y = Add(a, one)",
    "read otherwise as well": "a = Sigmoid(h) b = ReduceMean(h) y = Add(a, b)",
    "not defined everywhere": "y = Log(h)",
    "one number a channel": "y = PRelu(h, vector)",
}
NUMBERS = {"zero": 0, "half": 0.5, "one": 1, "three": 3, "six": 6, "root": 2**0.5}


def build(body):
    """A layer ``x · w = h``, and what is made of it."""
    constants = ", ".join(f"float {name} = {{{value}}}" for name, value in NUMBERS.items())
    nodes = body.replace(") ", ")\n")
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 4] x) => (float[n, 4] y) <float[4, 4] w, float[4] vector = {{1, 2, 3, 4}}, {constants}>
        {{ h = MatMul(x, w)\n{nodes} }}"""
    model = onnx.parser.parse_model(text)
    weights = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return model


def layer(model):
    """The output of the layer."""
    return next(node for node in ir.serde.deserialize_model(model).graph if node.op_type == "MatMul").outputs[0]


@pytest.mark.parametrize("case", FUNCTIONS)
def test_a_function_computes_what_onnxruntime_computes(case):
    model = build(FUNCTIONS[case])
    curve = behind(layer(model))
    assert isinstance(curve, Curve)
    x = 3 * np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in "hy")
    h, y = open_session(model.SerializeToString()).run(None, {"x": x})
    assert np.allclose(curve(h), y, atol=1e-6)
    assert 0 < curve.steepest <= 1


@pytest.mark.parametrize("case", NONE)
def test_what_is_no_function_of_one_number_that_bends_is_none(case):
    assert behind(layer(build(NONE[case]))) == LINEAR


def test_targets_move_where_the_activation_is_flat():
    relu = Saturation(0.0)
    targets, reached = np.array([-2.0, -2.0, 1.0, 1.0, 1.0]), np.array([-1.0, -9.0, 4.0, -1.0, 1.0])
    assert np.allclose(moved(relu, targets, relu(targets), reached), [1, -7, 0, -1.5, 0])
    assert not moved(LINEAR, targets, targets, reached).any()


def test_roots_of_shares_are_as_far_apart_as_half_the_divergence():
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((200, 7))
    near = logits + 0.01 * rng.standard_normal(logits.shape)
    apart = np.square(Shares()(logits) - Shares()(near)).sum(axis=-1).mean()
    divergence = deviation({"logits": logits}, {"logits": near})["logits"].kl
    assert apart == pytest.approx(divergence / 2, rel=0.02)
    assert np.allclose(Shares()(logits + 5), Shares()(logits))  # what classes have in common counts nothing


def test_no_slope_of_a_root_of_a_share_is_steeper():
    logits = np.linspace(-8, 8, 4001)[:, None] * np.array([1, 0])
    slopes = np.diff(Shares()(logits)[:, 0]) / np.diff(logits[:, 0])
    assert slopes.max() == pytest.approx(Shares.steepest, rel=1e-4)


@pytest.mark.parametrize(
    ("body", "axis"),
    [
        ("y = Softmax<axis=1>(h)", 1),
        ("y = Softmax(h)", -1),
        ("y = Relu(h)", None),
        ("a = Softmax(h) b = Relu(h) y = Add(a, b)", None),
    ],
)
def test_classes_are_what_all_readers_make_probabilities_of(body, axis):
    assert shared(layer(build(body))) == axis
