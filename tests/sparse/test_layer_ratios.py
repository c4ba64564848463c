"""Schedules, shares and bounds: the constants of the method, and what holds of them for any layers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.sparse import layer_ratios
from onnxslim_learn.sparse.schedule import Schedule

SIZES = [432, 2304, 2304, 9216, 36864, 640]  # of a small residual net

layer_sizes = st.lists(st.integers(1, 10**6), min_size=1, max_size=8)
targets = st.floats(0, 0.999)


def mean(sizes, shares):
    return sum(n * r for n, r in zip(sizes, shares, strict=True)) / sum(sizes)


@pytest.mark.parametrize(
    ("step", "sparsity"),
    [(10000, 0.013455), (20000, 0.448555), (30000, 0.666020), (40000, 0.741343), (48828, 0.75)],
)
def test_the_schedule_goes_through_its_constants(step, sparsity):
    assert round(0.75 * Schedule(97656).share(step), 6) == sparsity


def test_the_schedule_is_flat_outside_its_window():
    schedule = Schedule(1000, 0.1, 0.5)
    assert schedule.share(100) == 0
    assert schedule.share(99) == 0
    assert schedule.share(500) == schedule.share(999) == 1
    assert [t for t in range(1000) if Schedule(1000, every=150).refreshes(t)] == [150, 300, 450, 500]


@given(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 5), st.integers(1, 600))
def test_the_final_refresh_always_happens_and_reaches_the_target(steps, begin, end, exponent, every):
    schedule = Schedule(steps, min(begin, end), max(begin, end), exponent, every)
    refreshed = [t for t in range(steps) if schedule.refreshes(t)]
    assert schedule.share(refreshed[-1]) == 1
    shares = [schedule.share(t) for t in range(steps)]
    assert shares == sorted(shares)
    assert all(schedule.share(t) == 1 for t in range(refreshed[-1], steps))


def test_logarithmic_shares_can_exceed_one():
    assert round(max(layer_ratios.logarithmic(SIZES, 0.95)), 4) == 1.0056


def test_clipped_shares_are_redistributed():
    shares = layer_ratios.heurist(SIZES, 0.95)
    assert max(shares) == pytest.approx(1 - 0.05 / 3)
    assert mean(SIZES, shares) == pytest.approx(0.95)
    raw = layer_ratios.logarithmic(SIZES, 0.95)
    others = [k for k in range(len(SIZES)) if SIZES[k] != 36864]
    scale = {round(shares[k] / raw[k], 12) for k in others}
    assert len(scale) == 1, "the others keep their proportions"


@given(layer_sizes, targets)
def test_every_protocol_meets_the_target(sizes, target):
    for protocol in (layer_ratios.uniform, layer_ratios.heurist):
        shares = protocol(sizes, target)
        assert all(0 <= r < 1 for r in shares)
        able = target * sum(sizes) <= layer_ratios.bounds(target)[1] * sum(n for n in sizes if n > 1)
        if protocol is layer_ratios.uniform or able:
            assert mean(sizes, shares) == pytest.approx(target, abs=1e-9)


@pytest.mark.parametrize(
    ("target", "low", "high"), [(0.75, 0.25, 0.75 + 1 / 6), (0.5, 0.0, 5 / 6), (0.9, 0.7, 0.9 + 1 / 15)]
)
def test_actions_are_shares_in_linear_pieces(target, low, high):
    assert layer_ratios.bounds(target) == pytest.approx((low, high))
    expected = [low, (low + target) / 2, target, (target + high) / 2, high]
    assert [layer_ratios.from_action(a, target, (low, high)) for a in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(
        expected
    )


@given(layer_sizes, st.floats(0.05, 0.95), st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_shares_are_brought_to_the_target_within_bounds_in_their_order(sizes, target, actions):
    low, high = limits = layer_ratios.bounds(target)
    shares = [layer_ratios.from_action(a, target, limits) for a in actions[: len(sizes)]]
    found = layer_ratios.met(sizes, shares, target, limits)
    assert mean(sizes, found) == pytest.approx(target, abs=1e-6)
    assert all(low - 1e-9 <= r <= high + 1e-9 for r in found)
    order = sorted(range(len(sizes)), key=lambda k: shares[k])
    assert all(found[a] <= found[b] + 1e-9 for a, b in itertools.pairwise(order))
