"""Work that no plan cuts counts all the same: in operators without a rule, and in the bodies of nodes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxslim_learn.workflow import slim

FLOAT, UINT8, INT64, BOOL = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64, TensorProto.BOOL


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name, shape, kind=np.float32):
    return numpy_helper.from_array((np.random.default_rng(len(name)).standard_normal(shape) * 9).astype(kind), name)


def model(nodes, inputs, outputs, weights=(), between=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights, value_info=between)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=9)


def price(proto, **known):
    analysis = slim.analyze(proto, **known)
    return analysis.price(analysis.whole)


# Operator, attributes, shape of the data, shapes of further inputs (bytes where they begin with "u"), shape of the
# output, and its multiply-accumulates as its documentation has them.
FORMS = {
    "NhwcConv": ({"kernel_shape": [3, 3]}, (2, 6, 6, 4), ["8x3x3x4"], (2, 4, 4, 8), 2 * 4 * 4 * 8 * 9 * 4),
    "MatMulBnb4": (
        {"K": 16, "N": 8, "block_size": 16, "quant_type": 1},
        (2, 3, 16),
        ["u64", "8"],
        (2, 3, 8),
        2 * 3 * 16 * 8,
    ),
    "LongformerAttention": (
        {"num_heads": 2, "window": 2},
        (1, 8, 4),
        ["4x12", "12", "1x8", "4x12"],
        (1, 8, 4),
        2 * 8 * 4 * 12 + 2 * 8 * 5 * 4,
    ),
    "GemmFastGelu": ({}, (2, 3, 4), ["4x6"], (2, 3, 6), 2 * 3 * 4 * 6),
    "DecoderAttention": (
        {"num_heads": 2},
        (3, 2, 8),
        ["5x2x8", "8x8", "8x16", "24"],
        (3, 2, 8),
        3 * 2 * 8 * 8 + 5 * 2 * 8 * 16 + 2 * 2 * 3 * 5 * 8,
    ),
    "DecoderMaskedSelfAttention": ({"num_heads": 2}, (2, 1, 8), ["8x24", "24"], (2, 1, 8), 2 * 8 * 24 + 2 * 2 * 8),
    "PackedAttention": ({"num_heads": 2}, (9, 8), ["8x24", "24", "2x5"], (9, 8), 9 * 8 * 24 + 2 * 9 * 5 * 8),
    "PackedMultiHeadAttention": (
        {"num_heads": 2},
        (9, 8),
        ["9x8", "9x8", "24", "2x5"],
        (9, 8),
        2 * 9 * 5 * 8,
    ),
    "ConvTransposeWithDynamicPads": ({}, (2, 4, 3, 3), ["4x6x2x2"], (2, 6, 4, 4), 2 * 4 * 9 * 6 * 4),
    "SparseAttention": ({"num_heads": 2}, (2, 7, 8), ["2x7x8", "2x7x8"], (2, 7, 8), 2 * 2 * 7 * 7 * 8),
}


@pytest.mark.parametrize("name", FORMS)
def test_work_of_an_operator_that_is_not_cut(name):
    attributes, shape, given, output, macs = FORMS[name]
    weights = [
        weight(f"w{k}", [int(n) for n in text.lstrip("u").split("x")], np.uint8 if text[0] == "u" else np.float32)
        for k, text in enumerate(given)
    ]
    node = helper.make_node(name, ["x", *(w.name for w in weights)], ["z"], domain="com.microsoft", **attributes)
    after = helper.make_node("Relu", ["z"], ["y"])
    proto = model([node, after], [value("x", shape)], [value("y", output)], weights, [value("z", output)])
    analysis = slim.analyze(proto)
    costs = analysis.price(analysis.whole)
    assert costs["macs"] == macs
    assert costs["params"] == sum(np.prod(w.dims) for w in weights)
    assert analysis.opaque == {name: 1}


def test_work_of_a_diagonal():
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="bii,io->bo")
    proto = model([node], [value("x", (2, 3, 3))], [value("y", (2, 5))], [weight("w", (3, 5))])
    assert price(proto)["macs"] == 2 * 3 * 5


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_integer_products_count_like_others(kind):
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "p"]),
        helper.make_node("MatMulInteger", ["q", "w", "p", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    weights = [weight("w", (12, 5), kind), weight("z", (5,), kind)]
    proto = model(nodes, [value("x", (2, 7, 12))], [value("y", (2, 7, 5))], weights)
    assert price(proto) == {"macs": 2 * 7 * 12 * 5, "params": 12 * 5 + 5, "bytes": 12 * 5 + 5}


# --- bodies -----------------------------------------------------------------------------------------------------------


def branch(name, width, rank=2):
    """A two-layer perceptron of a width, its weights inside, that reads ``x`` from outside."""
    nodes = [
        helper.make_node("MatMul", ["x", f"{name}1"], [f"{name}h"]),
        helper.make_node("Relu", [f"{name}h"], [f"{name}r"]),
        helper.make_node("MatMul", [f"{name}r", f"{name}2"], [f"{name}y"]),
    ]
    weights = [weight(f"{name}1", (6, width)), weight(f"{name}2", (width, 4))]
    return helper.make_graph(nodes, name, [], [value(f"{name}y", [2, 4])], weights)


def choosing(condition):
    """A model with a narrow and a wide branch; the rest of its nodes makes ``c``, the condition."""
    pick = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", 8), else_branch=branch("e", 16))
    return [*condition, pick]


ROWS, PARAMS = 2, (6 + 4) * (8 + 16)


def test_the_largest_branch_counts_where_data_choose():
    condition = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "k"], ["c"]),
    ]
    proto = model(
        choosing(condition), [value("x", (2, 6))], [value("y", (2, 4))], [numpy_helper.from_array(np.float32(0), "k")]
    )
    analysis = slim.analyze(proto)
    assert analysis.price(analysis.whole)["macs"] == ROWS * (6 + 4) * 16
    assert analysis.price(analysis.whole)["params"] == PARAMS
    (inside,) = analysis.coupling.records.inside
    assert (inside.macs, inside.counted, inside.rounds) == (ROWS * (6 + 4) * 16, True, 1)


@pytest.mark.parametrize(("count", "rounds"), [(3, 3), (None, None)])
def test_a_loop_counts_its_rounds_where_they_are_known(count, rounds):
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["s", "w"], ["t"]),
            helper.make_node("Tanh", ["t"], ["u"]),
            helper.make_node("Identity", ["go"], ["more"]),
        ],
        "body",
        [value("i", [], INT64), value("go", [], BOOL), value("s", [2, 6])],
        [value("more", [], BOOL), value("u", [2, 6])],
        [weight("w", (6, 6))],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
    given = [] if count is None else [numpy_helper.from_array(np.array(count, np.int64), "n")]
    inputs = [value("x", (2, 6)), *([value("n", [], INT64)] if count is None else [])]
    analysis = slim.analyze(model([loop], inputs, [value("y", (2, 6))], given))
    assert analysis.price(analysis.whole) == {"macs": (rounds or 1) * 2 * 6 * 6, "params": 36, "bytes": 144}
    assert analysis.coupling.records.inside[0].rounds == rounds


def test_a_scan_counts_every_step():
    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "w"], ["t"]), helper.make_node("Add", ["t", "x"], ["u"]),
         helper.make_node("Identity", ["u"], ["o"])],
        "body",
        [value("s", [2, 6]), value("x", [2, 6])],
        [value("u", [2, 6]), value("o", [2, 6])],
    )  # fmt: skip
    scan = helper.make_node("Scan", ["s0", "xs"], ["", "y"], body=body, num_scan_inputs=1)
    proto = model([scan], [value("s0", (2, 6)), value("xs", (5, 2, 6))], [value("y", (5, 2, 6))], [weight("w", (6, 6))])
    assert price(proto)["macs"] == 5 * 2 * 6 * 6


def test_shapes_that_onnxruntime_cannot_find_are_taken_as_declared():
    node = helper.make_node("NhwcConv", ["x", "w"], ["y"], domain="com.microsoft", kernel_shape=[1, 1])
    proto = model([node], [value("x", (1, 2, 2, 4))], [value("y", (1, 2, 2, 8))], [weight("w", (8, 1, 1, 4))])
    onnx.checker.check_model(proto)
    assert price(proto)["macs"] == 2 * 2 * 8 * 4
