"""Verification decides: wrong files fail, and inputs on which rounding alone moves the outputs decide nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nets.notation import Net
from onnxslim_learn.coupling.removal import removal
from onnxslim_learn.rewrite import comparison
from onnxslim_learn.rewrite import verify as verification
from onnxslim_learn.rewrite.verify import MORE, verify
from onnxslim_learn.workflow import slim
from tests import laws

NET = "(float[2,6] x) => (float[2,5] y) {{ h = MatMul(x, w1) r = Relu(h) z = MatMul(r, w2) {} }}"
WEIGHTS = "w1 6x700, w2 700x5"
"""Wide: a cut changes the order of summation, and so the rounding."""


def check(end, path, spoil=lambda tensor: tensor):
    """Cut a third of the hidden units, spoil the file's first weight, and verify."""
    return spoiled(Net(NET.format(end), WEIGHTS), "w1", spoil, path)


def spoiled(net, name, spoil, path):
    """Cut a third of the units of a net's only group, spoil one weight of the file, and verify."""
    analysis = slim.analyze(net.build())
    (group,) = laws.free(analysis)
    found = removal(analysis.coupling, group.units[::3])
    small = laws.written(analysis, found)
    (weight,) = (tensor for tensor in small.graph.initializer if tensor.name == name)
    weight.CopyFrom(spoil(weight))
    onnx.save(small, path)
    return verify(found, path)


def times(factor):
    """Return what multiplies a weight, in its type."""
    return lambda tensor: numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype("f4"), tensor.name)


def test_a_true_cut_passes(tmp_path):
    found = check("y = Tanh(z)", tmp_path / "m.onnx")
    assert found.passed
    assert (found.undecided, found.noise) == (0, None)


def test_a_wrong_weight_fails(tmp_path):
    found = check("y = Tanh(z)", tmp_path / "m.onnx", times(1.01))
    assert not found.passed
    assert found.undecided == 0
    assert "from the masked original" in found.complaint


CHAOTIC = "k = Mul(z, {1000000000.0}) y = Sin(k)"
"""Its output turns many times within one rounding of its input."""


def test_a_chaotic_net_is_not_called_verified(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "SHORTER", ())
    found = check(CHAOTIC, tmp_path / "m.onnx")
    assert not found.passed
    assert (found.runs, found.undecided) == (2 + MORE, 2 + MORE)
    assert "chaotic" in found.complaint


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_chaotic_net_is_verified_in_stretches(factor, tmp_path):
    """Each computes on the same numbers what it should, so that nothing is decided by what is rounded before."""

    found = check(CHAOTIC, tmp_path / "m.onnx", times(factor))
    assert found.stretches > 1
    assert found.passed == (factor == 1.0)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_detector_whose_order_of_boxes_is_rounding_is_verified(factor, tmp_path):
    """Scores of hundreds of boxes that hold nothing differ by less than that, so that none of its outputs decides."""
    text = """(float[1,3,8,8] x) => (float[1,20,4] y) {
        h = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(h) m = Conv(r, w2, b2) f = Reshape(m, [1, 5, 64])
        t = Transpose<perm=[0,2,1]>(f) b, s = Split<axis=2>(t, [4, 1]) e = Mul(s, {100000000.0}) p = Sin(e)
        q = Squeeze(p, [2]) v, i = TopK<axis=1>(q, [20]) u = Unsqueeze(i, [2]) g = Expand(u, [1, 20, 4])
        y = GatherElements<axis=1>(b, g)
    }"""
    net = Net(text, "w1 700x3x3x3, b1 700, w2 5x700x1x1, b2 5")
    verdict = spoiled(net, "w2", times(factor), tmp_path / "m.onnx")
    assert verdict.stretches > 1
    assert verdict.passed == (factor == 1.0), verdict


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


@dataclass(frozen=True)
class Shifted:
    """A model without weights."""

    shift: np.float32

    def __call__(self, feed):
        return [feed["x"] + self.shift]

    def rounded(self, feed, _):
        return self(feed)


def test_one_rounding_that_moves_nothing_does_not_speak_for_all(monkeypatch):
    moved = []

    def shaken(feed, seed):
        moved.append(seed)
        return {name: x + np.float32(seed > 1) for name, x in feed.items()}

    monkeypatch.setattr(comparison, "_shaken", shaken)
    models = comparison.Models(None, None, None, None, ["y"], True, Path())
    runs = [Shifted(np.float32(shift)) for shift in (0, 1e-2)]
    feed = {"x": np.ones(3, np.float32)}
    outputs = tuple(run(feed) for run in runs)
    found = models._check(feed, runs, outputs, outputs[0])
    assert moved == [0, 0, 1, 1, 2, 2]  # of both models
    assert found.noise > 0.1
    assert found.allowed == comparison.WORST


IDS = (
    "({}[4] ids) => (float[4,3] y) {{ i = Cast<to=7>(ids) x = Gather(e, i) b = Mul(x, {{300.0}}) z = MatMul(b, w) {} }}"
)


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_inputs_that_are_whole_numbers_are_judged_by_rounding_of_weights(kind, tmp_path):
    """Ids may be given as floats that are cast: a rounding error on those moves nothing."""
    name = {np.int64: "int64", np.float32: "float"}[kind]
    net = Net(IDS.format(name, "y = Identity(z)"), "e 20x700, w 700x3").build()
    path = tmp_path / "m.onnx"
    onnx.save(net, path)
    arrays = {tensor.name: numpy_helper.to_array(tensor).astype(float) for tensor in net.graph.initializer}
    model, feed = comparison.ready(path), {"ids": np.array([3, 1, 4, 1], kind)}
    (plain,) = model(feed)
    (moved,), (other,) = (comparison._moved(model, feed, [plain], seed) for seed in (0, 1))
    rows = arrays["e"][[3, 1, 4, 1]] * 300
    exact, scale = rows @ arrays["w"], np.abs(rows) @ np.abs(arrays["w"])
    for one in (moved, other):
        shift = np.abs(one - plain) / scale
        assert 0 < shift.max() < 4 * np.finfo(np.float32).eps, (
            "each product moves by two roundings at most: 300 is exact"
        )
    np.testing.assert_allclose(moved, exact, atol=1e-5 * scale.max())
    assert (moved != other).any()


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_true_cut_passes_where_ids_are_floats_and_rounding_moves_outputs(factor, tmp_path):
    net = Net(IDS.format("float", "y = Sin(z)"), "e 20x700, w 700x3")
    verdict = spoiled(net, "w", times(factor), tmp_path / "m.onnx")
    assert verdict.passed == (factor == 1.0), verdict
    assert verdict.noise


def test_one_rounding_leaves_single_numbers_arrays_the_largest_finite_and_whole_ones_whole():
    largest = np.finfo(np.float32).min
    feed = {
        "one": np.array(0.1, np.float32),
        "mask": np.array([largest, -np.inf], np.float32),
        "n": np.array([3]),
        "whole": np.array([1.0, 255.0, -3.0]),
    }
    for seed in range(4):
        moved = comparison._shaken(feed, seed)
        assert all(isinstance(array, np.ndarray) for array in moved.values())
        assert moved["one"] != feed["one"]
        np.testing.assert_allclose(moved["mask"], feed["mask"], rtol=1e-6)
        np.testing.assert_array_equal(moved["n"], feed["n"])
        np.testing.assert_array_equal(moved["whole"], feed["whole"])  # an index, a pixel, a factor of sizes
