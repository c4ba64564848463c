"""Fitting: exact where a solution exists, cautious where data is scarce, never worse on held-back rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.repair.activations import LINEAR, Saturation, behind
from onnxslim_learn.repair.least_squares import ENOUGH, FitSetting, Rows, Sample, Weights, fit, regrouped
from tests.laws import examples
from tests.repair.test_activations import FUNCTIONS, build, layer

RELU, SWISH = Saturation(0.0), behind(layer(build(FUNCTIONS["swish, spelled out"])))


def make(seed, *, groups=1, rows=400, noise=0.0, activation=LINEAR, offset=False):
    """Rows that some weights explain, rows held back, those weights, and others to start from."""
    rng = np.random.default_rng(seed)
    true = Weights(rng.standard_normal((groups, 6, 4)), rng.standard_normal((groups, 4)))
    plain = Weights(true.matrix + rng.standard_normal(true.matrix.shape), true.bias - 1)

    def draw(count):
        x = rng.standard_normal((groups, count, 6)) + 2
        s = rng.standard_normal((groups, count, 4)) if offset else None
        y = x @ true.matrix + true.bias[:, None] + noise * rng.standard_normal((groups, count, 4))
        return Rows(x, y if s is None else y + s, s)

    return draw(rows), draw(rows), true, plain


def error(rows, weights, activation):
    """The mean squared error of weights, row by row."""
    reached = rows.inputs @ weights.matrix + weights.bias[:, None, :] + (0 if rows.offsets is None else rows.offsets)
    return ((activation(reached) - activation(rows.targets)) ** 2).mean()


@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("offset", [False, True])
def test_weights_that_explain_the_targets_are_found(groups, offset):
    rows, held, true, plain = make(0, groups=groups, offset=offset)
    found = fit([rows], [held], plain, FitSetting(ENOUGH))
    assert found.method == "least squares"
    assert found.after < 1e-6 < found.before
    assert np.abs(found.weights.matrix - true.matrix).max() < 1e-2


def test_without_a_place_for_a_bias_it_stays():
    rows, held, _, plain = make(1)
    found = fit([rows], [held], plain, FitSetting(ENOUGH, biased=False))
    assert np.array_equal(found.weights.bias, plain.bias)
    assert found.after < found.before


def test_few_samples_match_means_and_deviations_only():
    rows, held, _, plain = make(2)
    found = fit([rows], [held], plain, FitSetting(ENOUGH - 1))
    assert found.method in ("shift", "rescale")
    ratio = found.weights.matrix / plain.matrix
    assert np.ptp(ratio, axis=1).max() < 1e-6


def test_a_lost_constant_is_a_shift():
    rows, held, true, _ = make(3, noise=0.1)
    plain = Weights(true.matrix, true.bias - 3)
    found = fit([rows], [held], plain, FitSetting(4))
    assert found.method in ("shift", "rescale")
    assert error(held, found.weights, LINEAR) < 0.1**2 * 1.2 < error(held, plain, LINEAR)


def test_weights_that_fit_are_left_alone():
    rows, held, true, _ = make(4, noise=0.1)
    found = fit([rows], [held], true, FitSetting(ENOUGH - 1, biased=False))
    assert found.method == "plain"
    assert found.weights is true


@examples(40)
@given(st.integers(0, 2**32 - 1), st.integers(8, 60), st.floats(0, 20), st.sampled_from([LINEAR, RELU, SWISH]))
def test_held_back_rows_never_get_worse(seed, rows, noise, activation):
    fitted, held, _, plain = make(seed, rows=rows, noise=noise)
    found = fit([fitted], [held], plain, FitSetting(rows, activation=activation))
    assert found.after <= found.before
    wanted = error(held, found.weights, activation) / np.var(activation(held.targets))
    assert np.isclose(found.after, wanted, atol=1e-6)  # it is a difference of moments, of the size of the variance


@pytest.mark.parametrize("activation", [RELU, SWISH])
def test_errors_that_the_activation_hides_are_not_fitted(activation):
    """Outputs that must only be negative leave the weights free to fit the others."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, 3000, 3))
    y = x @ rng.standard_normal((1, 3, 2))
    bent = np.where(y > 0, y, 5 * y)
    rows, held = Rows(x[:, :2000], bent[:, :2000]), Rows(x[:, 2000:], bent[:, 2000:])
    plain = Weights(np.zeros((1, 3, 2)), np.zeros((1, 2)))
    straight, aware = (fit([rows], [held], plain, FitSetting(2000, activation=a)).weights for a in (LINEAR, activation))
    assert error(held, aware, activation) < 0.5 * error(held, straight, activation)


def test_inputs_without_variance_do_no_harm():
    rows, held, _, plain = make(6)
    rows.inputs[:, :, 1], held.inputs[:, :, 1] = 0, 0
    found = fit([rows], [held], plain, FitSetting(ENOUGH))
    assert np.isfinite(found.weights.matrix).all()
    assert found.after <= found.before


def test_targets_without_variance_leave_errors_finite():
    rows, held, _, plain = make(6)
    rows.targets[:], held.targets[:] = 0, 0
    found = fit([rows], [held], plain, FitSetting(ENOUGH))
    assert np.isfinite([found.before, found.after]).all()


@examples(30)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.sampled_from([LINEAR, RELU]),
    st.booleans(),
)
def test_a_sample_in_portions_says_what_its_rows_say(seed, sizes, activation, offset):
    """Errors of any weights, and the fit, whatever the portions and however far the inputs lie from zero."""
    whole, held, true, plain = make(seed, groups=2, rows=sum(sizes), noise=0.5, offset=offset)
    moved = Rows(whole.inputs + 100, whole.targets, whole.offsets)
    ends = np.cumsum(sizes)[:-1]
    cuts = [None if part is None else np.split(part, ends, axis=1) for part in (moved.inputs, moved.targets)]
    offsets = [None] * len(sizes) if offset is False else np.split(moved.offsets, ends, axis=1)
    portions = [Rows(*one) for one in zip(*cuts, offsets, strict=True)]
    for weights in (plain, true, Weights(0 * plain.matrix, plain.bias)):
        for divided in (portions, list(regrouped(portions, 300)), [moved]):
            seen = Sample(divided, plain, activation).error(weights)
            assert np.isclose(seen, error(moved, weights, activation), rtol=1e-6)
    setting = FitSetting(ENOUGH, activation=activation)
    one, other = fit([moved], [held], plain, setting), fit(portions, [held], plain, setting)
    assert one.method == other.method
    assert np.isclose(one.after, other.after, rtol=1e-3)
