"""Made-up inputs are such that a model is defined on them; where none are, samples do, or a sentence says how."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.errors import InputError
from onnxslim_learn.workflow import slim
from tests import laws

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
N = helper.make_node


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name, *shape):
    return numpy_helper.from_array(np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32), name)


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def model(nodes, inputs, outputs, weights):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def layers(source, width=8):
    """Two layers behind a value."""
    return [N("MatMul", [source, "w1"], ["h"]), N("Relu", ["h"], ["r"]), N("MatMul", ["r", "w2"], ["y"])], [
        weight("w1", width, 12),
        weight("w2", 12, 3),
    ]


def normalised(root):
    """Row sums of a matrix, to the power of a half or so, in front of two layers."""
    nodes, weights = layers("n")
    first = [N("ReduceSum", ["x", "last"], ["s"]), *root, N("Mul", ["x", "d"], ["n"])]
    weights += [constant("last", [-1]), constant("half", np.float32(-0.5))]
    return model([*first, *nodes], [value("x", ["B", 5, 8])], [value("y", ["B", 5, 3])], weights)


ROOTS = {
    "power": [N("Pow", ["s", "half"], ["d"])],
    "root": [N("Sqrt", ["s"], ["q"]), N("Reciprocal", ["q"], ["d"])],
    "logarithm": [N("Log", ["s"], ["d"])],
}


def cut(proto, folder, **settings):
    onnx.save(proto, folder / "m.onnx")
    found = slim.analyze(folder / "m.onnx")
    return slim.slim_to(found, {"macs": 0.6}, folder / "s.onnx", **settings)


@pytest.mark.parametrize("name", ROOTS)
def test_what_only_positive_numbers_define_gets_no_others(name, tmp_path):
    proto = normalised(ROOTS[name])
    analysis = slim.analyze(proto)
    assert analysis.graph.nonnegative == {"x"}
    assert random_inputs(analysis.coupling, analysis.graph.shapes.nominal)["x"].min() >= 0
    assert next(synthetic(analysis.coupling).batches(4)).inputs["x"].min() >= 0
    assert cut(proto, tmp_path)[1].passed


def test_a_norm_of_the_input_leaves_its_signs():
    nodes, weights = layers("n")
    first = [N("ReduceL2", ["x"], ["s"], axes=[-1]), N("Div", ["x", "s"], ["n"])]
    proto = model([*first, *nodes], [value("x", ["B", 5, 8])], [value("y", ["B", 5, 3])], weights)
    assert not slim.analyze(proto).graph.nonnegative


def offset(table, offset=2):
    """Positions count from an offset, by a running sum over what is there, into a table of its own."""
    nodes, weights = layers("e")
    first = [
        N("Shape", ["x"], ["size"]),
        N("ConstantOfShape", ["size"], ["ones"], value=constant("one", np.array([1], np.int64))),
        N("CumSum", ["ones", "axis"], ["count"]),
        N("Not", ["same"], ["other"]),
        N("Cast", ["other"], ["there"], to=INT64),
        N("Mul", ["count", "there"], ["kept"]),
        N("Add", ["kept", "offset"], ["place"]),
        N("Gather", ["words", "x"], ["w"]),
        N("Gather", ["places", "place"], ["p"]),
        N("Add", ["w", "p"], ["e"]),
    ]
    first.insert(3, N("Equal", ["x", "pad"], ["same"]))
    weights += [weight("words", 50, 8), weight("places", table, 8), constant("axis", 1), constant("pad", np.int64(1))]
    weights += [constant("offset", np.int64(offset - 1))]
    return model([*first, *nodes], [value("x", ["B", "S"], INT64)], [value("y", ["B", "S", 3])], weights)


@pytest.mark.parametrize("table", [12, 40, 514])
def test_lengths_stay_within_a_table_of_positions(table, tmp_path):
    proto = offset(table)
    slimmed, check = cut(proto, tmp_path)
    sizes = [sample.inputs["x"][1] for sample in slimmed.analysis.graph.shapes.samples]
    assert len(set(sizes)) > 1, "the length stays open"
    assert max(sizes) <= table - 2
    assert check.passed
    feeds = {"x": np.random.default_rng(0).integers(2, 50, (2, 7))}
    laws.run(onnx.load(tmp_path / "s.onnx"), feeds)


def test_a_length_that_is_given_and_too_long_is_refused():
    with pytest.raises(InputError, match="table of 40"):
        slim.analyze(offset(40), inputs={"x": (1, 60)})


@pytest.mark.parametrize("batch", [1, 2])
def test_boxes_lie_in_the_picture_of_an_entry_that_exists(batch, tmp_path):
    nodes, weights = layers("v", 4 * 4)
    first = [
        N("Conv", ["x", "w0"], ["f"]),
        N("RoiAlign", ["f", "rois", "at"], ["p"], output_height=2, output_width=2, spatial_scale=0.5),
        N("Flatten", ["p"], ["v"]),
    ]
    proto = model(
        [*first, *nodes],
        [value("x", [batch, 3, 16, 20]), value("rois", ["R", 4]), value("at", ["R"], INT64)],
        [value("y", ["R", 3])],
        [*weights, weight("w0", 4, 3, 1, 1)],
    )
    analysis = slim.analyze(proto)
    feeds = random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    assert analysis.coupling.records.boxes == {"rois": (40, 32)}
    assert feeds["at"].max() < batch
    assert (feeds["rois"][:, :2] <= feeds["rois"][:, 2:]).all()
    assert (feeds["rois"] <= [40, 32, 40, 32]).all()
    assert feeds["rois"].min() >= 0
    assert cut(proto, tmp_path)[1].passed


def picky():
    """A model that runs on inputs of one sum alone: its rows are gathered at a place that the sum tells."""
    nodes, weights = layers("g")
    first = [
        N("ReduceMax", ["x"], ["m"], keepdims=0),
        N("Mul", ["m", "many"], ["p"]),
        N("Cast", ["p"], ["k"], to=INT64),
        N("Gather", ["x", "k"], ["row"], axis=1),
        N("Add", ["x", "row"], ["g"]),
    ]
    weights += [constant("many", np.float32(1000))]
    first.insert(4, N("Unsqueeze", ["row", "one"], ["wide"]))
    first[5] = N("Add", ["x", "wide"], ["g"])
    weights += [constant("one", [1])]
    return model([*first, *nodes], [value("x", [2, 5, 8])], [value("y", [2, 5, 3])], weights)


def test_samples_are_enough_where_made_up_inputs_do_not_run(tmp_path):
    real = [{"x": -np.random.default_rng(0).random((2, 5, 8)).astype(np.float32) * 1e-3 - 1e-4}]
    assert cut(picky(), tmp_path, real=real)[1].passed


def test_where_neither_runs_a_sentence_says_how_to_give_samples(tmp_path):
    with pytest.raises(InputError, match=r"Gather.*data: an .npz file with arrays named x"):
        cut(picky(), tmp_path)


def test_made_up_numbers_of_steps_are_positive(tmp_path):
    """A loop that runs no step stacks nothing, whose largest number is none."""
    body = onnx.parser.parse_graph("""b (int64 k, bool c, float[n,12] s) => (bool d, float[n,12] t, float[n,12] o) {
        d = Identity(c) u = MatMul(s, w2) t = Tanh(u) o = Identity(t)
    }""")
    loop = N("Loop", ["steps", "", "h"], ["end", "all"], body=body)
    nodes = [N("MatMul", ["x", "w"], ["h"]), loop, N("ReduceMax", ["all"], ["m"], axes=[0], keepdims=0)]
    nodes += [N("MatMul", ["m", "w3"], ["f"]), N("Relu", ["f"], ["r"]), N("MatMul", ["r", "w4"], ["y"])]
    weights = [weight("w", 8, 12), weight("w2", 12, 12), weight("w3", 12, 10), weight("w4", 10, 3)]
    proto = model(nodes, [value("x", ["n", 8]), value("steps", [], INT64)], [value("y", ["n", 3])], weights)
    analysis = slim.analyze(proto)
    slim.slim(analysis, slim.plan(analysis, {"params": 0.8})).save(tmp_path / "s.onnx")


def test_samples_lie_along_the_axis_that_all_inputs_have(tmp_path):
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g
        (float[t, n, 6] x, int32[n] lengths) => (float[n, 4] y) {
            s, last = RNN<hidden_size=10>(x, w, r, , lengths)
            h = Squeeze(last, first)
            y = MatMul(h, w2)
        }""")
    weights = [weight("w", 1, 10, 6), weight("r", 1, 10, 10), weight("w2", 10, 4), constant("first", [0])]
    proto.graph.initializer.extend(weights)
    source = synthetic(slim.analyze(proto).coupling)
    shapes = {name: array.shape for batch in source.batches() for name, array in batch.inputs.items()}
    assert shapes["lengths"] == shapes["x"][1:2]
