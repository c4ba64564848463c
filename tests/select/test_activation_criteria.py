"""Scores from samples, held against what a unit's removal really costs its consumer."""

import itertools

import numpy as np
import onnx
import pytest

from onnxslim_learn.data.open import open_source
from onnxslim_learn.errors import InputError
from onnxslim_learn.select import criteria
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim
from tests.laws import analysed

CHANNELS = 6
RIDGED = 0.02  # the ridge that keeps inverses tame moves scores by less


def chain():
    """Build x @ w1 -> relu -> @ w2: one group of hidden units with one consumer."""
    rng = np.random.default_rng(0)
    text = """<ir_version: 8, opset_import: ["" : 17]> n (float[batch,4] x) => (float[batch,5] y) {
        a = MatMul(x, w1)
        h = Relu(a)
        y = MatMul(h, w2)
    }"""
    model = onnx.parser.parse_model(text)
    arrays = {"w1": rng.standard_normal((4, CHANNELS)), "w2": rng.standard_normal((CHANNELS, 5))}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items())
    return model, arrays


@pytest.fixture(scope="module")
def case():
    """The net, its analysis, samples of its hidden units, and the evidence."""
    model, arrays = chain()
    analysis = slim.analyze(model)
    x = np.random.default_rng(1).standard_normal((512, 4)).astype(np.float32)
    hidden = np.maximum(x @ arrays["w1"], 0)
    return analysis, arrays, hidden, Calibration(analysis.coupling, open_source({"x": x}, analysis.graph))


@pytest.fixture(scope="module")
def convolved():
    """The same of a net of convolutions over smooth images: hidden windows, the second kernel as a matrix."""
    rng = np.random.default_rng(0)
    text = """<ir_version: 8, opset_import: ["" : 17]> n (float[batch,2,9,9] x) => (float[batch,3,4,4] y) {
        a = Conv(x, w1)
        h = Relu(a)
        y = Conv<strides = [2, 2], pads = [0, 0, 1, 1]>(h, w2)
    }"""
    model = onnx.parser.parse_model(text)
    arrays = {"w1": rng.standard_normal((CHANNELS, 2, 1, 1)), "w2": rng.standard_normal((3, CHANNELS, 3, 3))}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items())
    analysis = slim.analyze(model)
    x = rng.standard_normal((256, 2, 9, 9)).cumsum(axis=2).cumsum(axis=3).astype(np.float32) / 4
    hidden = np.pad(np.maximum(np.einsum("oc,nchw->nohw", arrays["w1"][:, :, 0, 0], x), 0), [(0, 0)] * 2 + [(0, 1)] * 2)
    windows = np.lib.stride_tricks.sliding_window_view(hidden, (3, 3), (2, 3))[:, :, ::2, ::2]
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, CHANNELS, 9)
    calibration = Calibration(analysis.coupling, open_source({"x": x}, analysis.graph))
    return analysis, arrays["w2"].reshape(3, CHANNELS, 9), rows, calibration


def scores(case, name):
    analysis, _, _, calibration = case
    (group,) = [g for g in analysis.groups if g.pin is None]
    return criteria.scores(analysis, analysis.groups, name, calibration)[group.units]


def residual(hidden, weights, kept):
    """What the best linear map with a bias from the kept units leaves, mean over samples."""
    wanted = hidden @ weights
    inputs = np.concatenate([hidden[:, sorted(kept)], np.ones((len(hidden), 1))], axis=1)
    fitted = inputs @ np.linalg.lstsq(inputs, wanted, rcond=None)[0]
    return ((wanted - fitted) ** 2).sum() / len(hidden)


def test_samples_reach_the_statistics(case):
    _, arrays, hidden, calibration = case
    (found,) = [s for s in calibration.pairs if len(s.mean) == CHANNELS]
    assert np.allclose(found.mean, hidden.mean(axis=0), atol=1e-4)
    assert np.allclose(found.products, hidden.T @ hidden / len(hidden), atol=1e-3)
    assert np.allclose(found.weights, arrays["w2"], atol=1e-6)


def test_wifv_is_variance_times_energy(case):
    _, arrays, hidden, _ = case
    assert np.allclose(scores(case, "wifv"), hidden.var(axis=0) * (arrays["w2"] ** 2).sum(axis=1), rtol=1e-3)


def test_wanda_is_norm_times_norm(case):
    _, arrays, hidden, _ = case
    wanted = np.sqrt((hidden**2).mean(axis=0)) * np.linalg.norm(arrays["w2"], axis=1)
    assert np.allclose(scores(case, "wanda"), wanted, rtol=1e-3)


def test_activation_is_the_mean_square(case):
    assert np.allclose(scores(case, "activation"), (case[2] ** 2).mean(axis=0), rtol=1e-3)


def test_obs_is_the_loss_after_the_best_refit_one_unit_after_the_other(case):
    _, arrays, hidden, _ = case
    found, kept, before = scores(case, "obs"), set(range(CHANNELS)), 0.0
    for unit in np.argsort(found, kind="stable")[: CHANNELS - 1]:
        losses = {u: residual(hidden, arrays["w2"], kept - {u}) for u in kept}
        assert losses[unit] <= min(losses.values()) * (1 + RIDGED), "another unit would have cost less"
        assert np.isclose(found[unit], losses[unit] - before, rtol=RIDGED, atol=RIDGED * found.max())
        before = losses[unit]
        kept.remove(unit)


def test_obs_knows_what_neighbours_of_a_place_can_take_over(convolved):
    _, weights, rows, _ = convolved
    found, kept, before = scores(convolved, "obs"), set(range(CHANNELS)), 0.0
    matrix = weights.transpose(1, 2, 0).reshape(-1, 3)

    def left(units):
        taps = {9 * unit + tap for unit in units for tap in range(9)}
        return residual(rows.reshape(len(rows), -1), matrix, taps)

    for unit in np.argsort(found, kind="stable")[: CHANNELS - 1]:
        losses = {u: left(kept - {u}) for u in kept}
        assert losses[unit] <= min(losses.values()) * (1 + RIDGED), "another unit would have cost less"
        assert np.isclose(found[unit], losses[unit] - before, rtol=RIDGED, atol=RIDGED * found.max())
        before = losses[unit]
        kept.remove(unit)


def test_obs_keeps_one_of_two_that_can_stand_for_each_other():
    model, arrays = chain()
    w1 = arrays["w1"].astype(np.float32)
    w1[:, 5] = w1[:, 4]
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(w1, "w1"))
    analysis = slim.analyze(model)
    x = np.random.default_rng(1).standard_normal((512, 4)).astype(np.float32)
    calibration = Calibration(analysis.coupling, open_source({"x": x}, analysis.graph))
    (group,) = [g for g in analysis.groups if g.pin is None]
    found = criteria.scores(analysis, analysis.groups, "obs", calibration)[group.units]
    first = int(np.argmin(found))
    assert first in (4, 5)
    assert found[9 - first] > 10 * found[first]


@pytest.mark.parametrize("name", ["attention", "squeeze_excite", "grouped", "conv_transpose", "flatten_gemm"])
@pytest.mark.parametrize("criterion", ["obs", "wifv", "wanda", "activation"])
def test_every_unit_with_a_consumer_has_a_finite_score(name, criterion):
    analysis = analysed(name)
    rng = np.random.default_rng(0)
    data = {}
    for value, shape in analysis.graph.shapes.analysis.inputs.items():
        data[value] = rng.standard_normal((shape[0] * 8, *shape[1:])).astype(np.float32)
    calibration = Calibration(analysis.coupling, open_source(data, analysis.graph))
    found = criteria.scores(analysis, analysis.groups, criterion, calibration)
    units = np.concatenate([g.units for g in analysis.groups if g.pin is None])
    assert np.isfinite(found).all()
    assert (found[units] >= 0).all()
    assert (found[units] > 0).mean() > 0.5


def test_scores_from_samples_need_samples(case):
    analysis = case[0]
    with pytest.raises(InputError, match="needs samples"):
        criteria.scores(analysis, analysis.groups, "obs")


def test_brute_force_is_no_better_than_obs_by_much(case):
    """Of all sets of three units, the one that obs keeps is among the best."""
    _, arrays, hidden, _ = case
    kept = set(np.argsort(-scores(case, "obs"))[:3].tolist())
    losses = {s: residual(hidden, arrays["w2"], set(s)) for s in itertools.combinations(range(CHANNELS), 3)}
    assert residual(hidden, arrays["w2"], kept) <= 1.2 * min(losses.values())
