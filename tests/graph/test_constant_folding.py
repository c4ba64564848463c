"""What is computed ahead is what onnxruntime computes, also where the onnx reference cannot; what neither can stays."""

import numpy as np
import onnx
import onnxruntime as ort

from onnxslim_learn.workflow import slim

HEADER = '<ir_version: 8, opset_import: ["" : 17]> '
TOKENS, POSITIONS = 100, 12  # the onnx reference gathers from 64 positions at most


def text(nodes, **initializers):
    model = onnx.parser.parse_model(f"{HEADER} net (float[n, 8] x) => (float[n, 4] y) {{ {nodes} }}")
    arrays = {"w1": np.ones((8, 6)), "w2": np.ones((6, 4))} | initializers
    for name, array in arrays.items():
        kept = array if array.dtype.kind == "i" else array.astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(kept, name))
    return model


def test_elements_gathered_from_many_positions_are_computed_ahead():
    rng = np.random.default_rng(0)
    model = text(
        "g = GatherElements <axis = 1> (kinds, places) e = Gather (table, g) "
        "s = ReduceMean <axes = [0, 1], keepdims = 0> (e) h = MatMul (x, w1) t = Add (h, s) r = Relu (t) "
        "y = MatMul (r, w2)",
        kinds=rng.integers(0, 2, (1, TOKENS)),
        places=rng.integers(0, TOKENS, (1, POSITIONS)),
        table=rng.standard_normal((2, 6)),
    )
    assert [group.width for group in slim.analyze(model).groups if group.pin is None] == [6]


def test_what_nothing_can_compute_stays_in_the_graph(tmp_path, monkeypatch):
    from onnxslim_learn.graph import constant_folding

    rng = np.random.default_rng(1)
    model = text(
        "n = ReduceL2 <axes = [0], keepdims = 1> (w1) v = Div (w1, n) h = MatMul (x, v) r = Relu (h) "
        "y = MatMul (r, w2)",
        w1=rng.standard_normal((8, 6)),
    )
    with monkeypatch.context() as patch:
        patch.setattr(constant_folding, "compute", lambda node, known: {})
        analysis = slim.analyze(model)
    x = rng.standard_normal((3, 8)).astype(np.float32)
    path = tmp_path / "slim.onnx"
    slim.slim_to(analysis, {"macs": 0.5}, path)
    assert ort.InferenceSession(str(path)).run(None, {"x": x})[0].shape == (3, 4)


def test_parts_of_which_some_are_computed_ahead_leave_the_others(tmp_path):
    """Of the sizes of an image split one by one, as tf2onnx writes it, the channels are known and the batch is not."""
    model = text(
        "h = MatMul (x, w1) r = Relu (h) s = Shape (x) n, c = Split <axis = 0> (s) f = Cast <to = 1> (n) "
        "k = Cast <to = 1> (c) d = Div (r, f) g = Mul (d, k) y = MatMul (g, w2)"
    )
    analysis = slim.analyze(model)
    assert (analysis.graph.shapes.static("c"), analysis.graph.shapes.static("n")) == (8, None)
    path = tmp_path / "slim.onnx"
    slim.slim_to(analysis, {"macs": 0.5}, path)
    for count in (1, 3):
        x = np.ones((count, 8), np.float32)
        np.testing.assert_allclose(ort.InferenceSession(str(path)).run(None, {"x": x})[0], 8 * 8 * 3 / count)
