"""Verification decides: wrong files fail, and inputs on which rounding alone moves the outputs decide nothing."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nets.notation import Net
from onnxslim_learn.coupling.removal import removal
from onnxslim_learn.rewrite import comparison
from onnxslim_learn.rewrite.verify import MORE, verify
from onnxslim_learn.workflow import slim
from tests import laws

NET = "(float[2,6] x) => (float[2,5] y) {{ h = MatMul(x, w1) r = Relu(h) z = MatMul(r, w2) {} }}"
WEIGHTS = "w1 6x700, w2 700x5"
"""Wide: a cut changes the order of summation, and so the rounding."""


def check(end, path, spoil=lambda tensor: tensor):
    """Cut a third of the hidden units, spoil the file's first weight, and verify."""
    analysis = slim.analyze(Net(NET.format(end), WEIGHTS).build())
    (group,) = laws.free(analysis)
    found = removal(analysis.coupling, group.units[::3])
    small = laws.written(analysis, found)
    small.graph.initializer[0].CopyFrom(spoil(small.graph.initializer[0]))
    onnx.save(small, path)
    return verify(found, path)


def test_a_true_cut_passes(tmp_path):
    found = check("y = Tanh(z)", tmp_path / "m.onnx")
    assert found.passed
    assert (found.undecided, found.noise) == (0, None)


def test_a_wrong_weight_fails(tmp_path):
    def spoil(tensor):
        return numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, tensor.name)

    found = check("y = Tanh(z)", tmp_path / "m.onnx", spoil)
    assert not found.passed
    assert found.undecided == 0
    assert "from the masked original" in found.complaint


def test_a_chaotic_net_is_not_called_verified(tmp_path):
    """Its output turns many times within one rounding of its input."""
    found = check("k = Mul(z, {1000000000.0}) y = Sin(k)", tmp_path / "m.onnx")
    assert not found.passed
    assert (found.runs, found.undecided) == (2 + MORE, 2 + MORE)
    assert "chaotic" in found.complaint


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_inputs_that_decide_nothing_are_replaced(factor, tmp_path, monkeypatch):
    """All sets of inputs but one make the net chaotic; that one tells a true cut from a wrong one."""
    from onnxslim_learn.data import random_inputs

    draw = random_inputs.random_inputs

    def drawn(coupling, sample, seed=0):
        feeds = draw(coupling, sample, seed)
        return feeds if seed == 3 else {name: values + 1e4 for name, values in feeds.items()}

    def spoil(tensor):
        return numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype("float32"), tensor.name)

    monkeypatch.setattr(random_inputs, "random_inputs", drawn)
    found = check("k = Mul(z, z) s = Mul(k, {10.0}) y = Sin(s)", tmp_path / "m.onnx", spoil)
    assert (found.runs, found.undecided) == (4, 3)
    assert found.passed == (factor == 1.0)


def test_one_rounding_that_moves_nothing_does_not_speak_for_all(monkeypatch):
    moved = []

    def shaken(feed, seed):
        moved.append(seed)
        return {name: x + np.float32(seed > 1) for name, x in feed.items()}

    monkeypatch.setattr(comparison, "_shaken", shaken)
    models = comparison.Models(None, None, None, None, ["y"], True, Path())
    runs = (lambda feed: [feed["x"]], lambda feed: [feed["x"] + np.float32(1e-2)])
    feed = {"x": np.ones(3, np.float32)}
    outputs = tuple(run(feed) for run in runs)
    found = models._check(feed, runs, outputs, outputs[0])
    assert moved == [0, 0, 1, 1, 2, 2]  # of both models
    assert found.noise > 0.1
    assert found.allowed == comparison.WORST


def test_inputs_of_whole_numbers_alone_are_judged_by_rounding_of_weights(tmp_path):
    """A sigmoid far below zero makes a share of its output of what rounding does to the sum before it."""
    rng = np.random.default_rng(0)
    arrays = {"e": rng.standard_normal((20, 700)) * 1e4, "w": rng.standard_normal((700, 3))}
    nodes = [onnx.helper.make_node("Gather", ["e", "ids"], ["x"]), onnx.helper.make_node("MatMul", ["x", "w"], ["z"])]
    ends = [onnx.helper.make_tensor_value_info(n, k, s) for n, k, s in (("ids", 7, [4]), ("z", 1, [4, 3]))]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    path = tmp_path / "m.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    model, feed = comparison.ready(path), {"ids": np.array([3, 1, 4, 1])}
    (plain,), (moved,), (other,) = model(feed), comparison._moved(model, feed, 0), comparison._moved(model, feed, 1)
    exact = arrays["e"][feed["ids"]] @ arrays["w"]
    scale = np.abs(arrays["e"][feed["ids"]]) @ np.abs(arrays["w"])
    for one in (moved, other):
        shift = np.abs(one - plain) / scale
        assert 0 < shift.max() < 4 * np.finfo(np.float32).eps, "each product moves by two roundings at most"
    np.testing.assert_allclose(moved, exact, atol=1e-5 * scale.max())
    assert (moved != other).any()


def test_one_rounding_leaves_single_numbers_arrays_and_the_largest_finite():
    largest = np.finfo(np.float32).min
    feed = {"one": np.array(0.1, np.float32), "mask": np.array([largest, -np.inf], np.float32), "n": np.array([3])}
    for seed in range(4):
        moved = comparison._shaken(feed, seed)
        assert all(isinstance(array, np.ndarray) for array in moved.values())
        assert moved["one"] != feed["one"]
        np.testing.assert_allclose(moved["mask"], feed["mask"], rtol=1e-6)
        np.testing.assert_array_equal(moved["n"], feed["n"])
