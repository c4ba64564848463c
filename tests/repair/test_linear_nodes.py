"""A linear node in matrix form computes what onnxruntime computes for it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from nets.variants import VARIANTS
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.operators.table import CONTRIB, TABLE
from onnxslim_learn.repair.least_squares import Weights
from onnxslim_learn.repair.linear_nodes import layers, linears
from onnxslim_learn.runtime.timing import open_session
from onnxslim_learn.workflow import slim

CLOSE = 1e-4  # float32 sums of up to a hundred products, in another order

# operator (+: its bias is added by a node behind it) and attributes, shape of the data, of the weights, of the bias
CASES = {
    "conv": ("Conv", {}, (2, 4, 7, 6), (6, 4, 3, 3), 6),
    "conv pads": ("Conv", {"pads": [1, 0, 2, 1]}, (2, 4, 7, 6), (6, 4, 3, 2), 6),
    "conv strides": ("Conv", {"strides": [2, 1], "pads": [1, 2, 1, 2]}, (2, 3, 9, 8), (4, 3, 3, 3), 4),
    "conv dilations": ("Conv", {"strides": [2, 1], "dilations": [1, 2]}, (2, 3, 9, 8), (4, 3, 3, 3), 4),
    "conv groups": ("Conv", {"group": 2, "pads": [1, 1, 1, 1]}, (2, 4, 5, 5), (6, 2, 3, 3), 6),
    "conv depthwise": ("Conv", {"group": 4, "pads": [1, 1, 1, 1]}, (2, 4, 5, 5), (4, 1, 3, 3), 4),
    "conv multiplier": ("Conv", {"group": 3}, (1, 3, 5, 5), (6, 1, 3, 3), 6),
    "conv same upper": ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (1, 3, 7, 8), (4, 3, 3, 4), 4),
    "conv same lower": ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (1, 3, 8, 7), (4, 3, 4, 3), 4),
    "conv 1-d": ("Conv", {"pads": [2, 1], "strides": [2]}, (3, 4, 11), (5, 4, 4), 5),
    "conv 3-d": ("Conv", {"pads": [1, 0, 1, 1, 0, 1]}, (2, 2, 4, 5, 4), (3, 2, 3, 2, 3), 3),
    "transposed": ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, (2, 4, 5, 4), (4, 3, 4, 4), 3),
    "transposed groups": ("ConvTranspose", {"group": 2, "strides": [2, 3]}, (2, 4, 5, 4), (4, 3, 3, 3), 6),
    "transposed more": ("ConvTranspose", {"strides": [2, 3], "output_padding": [1, 2]}, (1, 2, 5, 4), (2, 1, 3, 3), 1),
    "transposed dilated": ("ConvTranspose", {"dilations": [2, 1], "pads": [3, 1, 1, 0]}, (1, 2, 5, 6), (2, 3, 3, 2), 3),
    "transposed cropped": ("ConvTranspose", {"pads": [2, 2, 2, 2], "strides": [2, 2]}, (1, 2, 5, 6), (2, 3, 2, 2), 3),
    "gemm": ("Gemm", {}, (5, 4), (4, 3), 3),
    "gemm transposed": ("Gemm", {"transB": 1}, (5, 4), (3, 4), 3),
    "gemm scaled": ("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, (5, 4), (3, 4), 3),
    "gemm of columns": ("Gemm", {"transA": 1}, (4, 5), (4, 3), 3),
    "matmul": ("MatMul", {}, (2, 3, 5, 4), (4, 6), None),
    "fused matmul": ("com.microsoft.FusedMatMul", {"alpha": 0.25, "transB": 1}, (2, 3, 5, 4), (6, 4), None),
    "fused matmul of columns": ("com.microsoft.FusedMatMul", {"transA": 1}, (2, 4, 5), (4, 6), None),
    "transpose matmul": ("com.microsoft.TransposeMatMul", {"transB": 1, "alpha": 2.0}, (2, 5, 4), (6, 4), None),
    "matmul and sum": ("MatMul+", {}, (2, 3, 5, 4), (4, 6), (6,)),
    "conv and sum": ("Conv+", {"group": 2}, (2, 4, 5, 5), (6, 2, 3, 3), (6, 1, 1)),
    "batch norm": ("BatchNormalization", {"epsilon": 1e-3}, (2, 4, 5, 3), (4,), 4),
}  # fmt: skip


def build(case):
    """Build a model of one node, with the data to run it on."""
    operator, attributes, data, weight, width = CASES[case]
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal(weight)}
    if width:
        arrays["b"] = rng.standard_normal(width)
    if operator == "BatchNormalization":
        arrays |= {"m": rng.standard_normal(width), "v": rng.uniform(0.5, 2, width)}
    domain, _, name = operator.removesuffix("+").rpartition(".")
    nodes = [onnx.helper.make_node(name, ["x", *arrays], ["y"], domain=domain, **attributes)]
    if operator.endswith("+"):
        nodes[0].input.remove("b")
        nodes[0].output[0] = "plain"
        nodes.append(onnx.helper.make_node("Add", ["plain", "b"], ["y"]))
    x, y = (onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", data), ("y", [None] * len(data))))
    tensors = [onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], tensors)
    opsets = [onnx.helper.make_opsetid(*one) for one in (("", 17), ("com.microsoft", 1))]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model, rng.standard_normal(data).astype(np.float32)


def run(model, x):
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    (y,) = open_session(proto.SerializeToString(), optimize=False).run(None, {"x": x})
    return y


def refittable(row):
    """Tell whether nodes of an operator have a matrix form by themselves."""
    if row.norm is not None and row.norm.stored:
        return True
    plain = isinstance(row.factors, roles.Convolution | roles.Product) and not row.factors.quantized
    moved = isinstance(row.factors, roles.Convolution) and row.factors.moved
    return plain and row.parts is None and not moved


def test_every_operator_with_a_matrix_form_has_a_case():
    rows = {**TABLE, **{f"com.microsoft.{name}": row for name, row in CONTRIB.items()}}
    assert {operator.removesuffix("+") for operator, *_ in CASES.values()} == {
        name for name, row in rows.items() if refittable(row)
    }


@pytest.mark.parametrize("case", CASES)
def test_matrix_form_computes_the_node(case):
    proto, x = build(case)
    (linear,) = linears(ir.from_proto(proto))
    y = run(proto, x)
    places = [n for axis, n in enumerate(y.shape) if axis != linear.form.channel % y.ndim]
    picks = np.unravel_index(np.random.default_rng(1).permutation(int(np.prod(places))), places)
    weights = linear.read()
    found = linear.form.unfold(x, picks) @ weights.matrix + weights.bias[:, None, :]
    assert np.abs(found - linear.outputs(y, picks)).max() < CLOSE


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("conv")])
def test_extent_is_the_shape_of_the_output_without_channels(case):
    proto, x = build(case)
    (linear,) = linears(ir.from_proto(proto))
    assert linear.form.extent(x.shape) == tuple(np.delete(run(proto, x).shape, linear.form.channel))


@pytest.mark.parametrize("case", CASES)
def test_written_weights_are_the_ones_computed_with(case):
    proto, x = build(case)
    model = ir.from_proto(proto)
    (linear,) = linears(model)
    rng, weights = np.random.default_rng(2), linear.read()
    fresh = Weights(*(rng.standard_normal(a.shape).astype(np.float32) for a in (weights.matrix, weights.bias)))
    if linear.bias is None:
        fresh = Weights(fresh.matrix, weights.bias)
    linear.write(fresh)
    again = linear.read()
    assert np.array_equal(again.matrix, fresh.matrix)
    assert np.array_equal(again.bias, fresh.bias)
    y = run(model, x)
    picks = np.unravel_index(np.arange(y.size // y.shape[linear.form.channel]), np.delete(y.shape, linear.form.channel))
    found = linear.form.unfold(x, picks) @ fresh.matrix + fresh.bias[:, None, :]
    assert np.abs(found - linear.outputs(y, picks)).max() < CLOSE


def test_what_is_compared_follows_from_nodes_and_not_from_values():
    """A bias that a cut model shares again, or a gain that only the original has, changes no target."""
    rng = np.random.default_rng(0)
    text = """<ir_version: 8, opset_import: ["" : 17]> n (float[1,3,8,8] x) => (float[1,5,8,8] y) {
        a = Conv <pads=[1,1,1,1]> (x, w1)
        b = BatchNormalization(a, g1, shift, m, v)
        c = Conv (x, w2)
        d = BatchNormalization(c, g2, shift, m, v)
        e = Add(b, d)
        f = Relu(e)
        p = Conv(f, w3)
        q = Add(p, shift3)
        r = Relu(q)
        s = Conv(r, w4)
        t = Add(s, shift3)
        u = Add(q, t)
        y = Conv(u, w5)
    }"""
    shapes = {"w1": (6, 3, 3, 3), "w2": (6, 3, 1, 1), "w3": (4, 6, 1, 1), "w4": (4, 4, 1, 1), "w5": (5, 4, 1, 1)}
    shapes |= dict.fromkeys(("g1", "g2", "shift", "m", "v"), (6,)) | {"shift3": (1, 4, 1, 1)}
    arrays = {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["g1"][0] = 0
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    analysis = slim.analyze(model)
    slimmed = slim.slim(analysis, slim.plan(analysis, {"macs": 0.6}, criterion="l1"))
    before = {one.node.name: one.target for one in linears(analysis.graph.model)}
    after = {one.node.name: one for one in linears(slimmed.model)}
    assert {name: one.target for name, one in after.items()} == {name: before[name] for name in after}
    assert {one.bias for one in after.values()} == {None}
    for linear in after.values():
        fresh = Weights(rng.standard_normal(linear.read().matrix.shape), linear.read().bias)
        linear.write(fresh)
        gain = 1 if linear.gain is None else linear.gain != 0
        assert np.allclose(linear.read().matrix, fresh.matrix * gain, atol=1e-5)


def test_weights_that_are_picked_for_each_token_are_told():
    model = slim.analyze(VARIANTS["routed_experts"].build()).graph.model
    reasons = {layer.node.name: layer.linear for layer in layers(model)}
    assert (reasons["u"], reasons["o"]) == ("its weight is picked for each token",) * 2
