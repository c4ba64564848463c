"""Widths from curves: bounds are met, nothing is left over, and brute force finds little that is better."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.errors import TargetError
from onnxslim_learn.select import budget, criteria
from onnxslim_learn.select.knapsack import allocate
from onnxslim_learn.select.search import solve
from onnxslim_learn.select.sensitivity import Curves
from tests.laws import PLANS, analysed

NETS = ["bottleneck", "residual", "concat", "depthwise", "attention", "grouped"]
CLOSE = 1.5  # steps as coarse as here, a half of a group at once, leave little to weigh


def task(name, target, *, few=False, curve=None):
    """A search with curves on a zoo net."""
    analysis = analysed(name)
    scores = criteria.scores(analysis, analysis.groups, "l2")
    choices = budget.choices(analysis.coupling, analysis.groups, scores, budget.Freedom())
    if few:
        choices = [replace(c, kept=tuple(sorted({c.kept[0], c.kept[len(c.kept) // 2], c.kept[-1]}))) for c in choices]
    choices = [replace(c, curve=(curve or falling)(c, k)) for k, c in enumerate(choices)]
    bounds = {n: (analysis.costs[n], t * analysis.price(analysis.whole)[n]) for n, t in target.items()}
    return budget.Search(analysis.coupling, choices, bounds, target)


def falling(choice, number):
    rng = np.random.default_rng(number)
    gone = 1 - np.array(choice.kept) / choice.group.width
    return rng.uniform(0.2, 5) * gone ** rng.uniform(1, 3)


def loss(search, widths):
    return sum(c.curve[c.kept.index(w)] for c, w in zip(search.choices, widths, strict=True))


@pytest.mark.parametrize("name", NETS)
@PLANS
@given(st.floats(0.35, 0.95), st.floats(0.35, 0.95))
def test_bounds_are_met_and_no_single_step_more_fits(name, macs, params):
    search = task(name, {"macs": macs, "params": params})
    if not search.fits(search.at(0.0)):
        with pytest.raises(TargetError):
            solve(search)
        return
    widths = solve(search)
    assert search.fits(widths)
    for k, choice in enumerate(search.choices):
        at = choice.kept.index(widths[k])
        if at + 1 < len(choice.kept):
            assert not search.fits([*widths[:k], choice.kept[at + 1], *widths[k + 1 :]])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", [0.8, 0.6, 0.4])
def test_brute_force_finds_little_better(name, target):
    search = task(name, {"macs": target}, few=True)
    every = itertools.product(*(c.kept for c in search.choices))
    fitting = [widths for widths in itertools.islice(every, 3000) if search.fits(widths)]
    if not fitting:
        pytest.skip("the narrowest widths of few do not reach the target")
    best = min(loss(search, widths) for widths in fitting)
    assert loss(search, solve(search)) <= CLOSE * best + 1e-9


def test_what_loses_nothing_goes_first():
    def curve(choice, number):
        return (
            np.zeros(len(choice.kept))
            if number == 0
            else falling(choice, number) + 1e-3 * (choice.group.width - np.array(choice.kept))
        )

    search = task("bottleneck", {"macs": 0.9}, curve=curve)
    widths = solve(search)
    assert widths[0] < search.choices[0].group.width
    assert loss(search, widths) <= loss(search, replace(search, choices=[*search.choices]).at(0.9)) + 1e-9


def test_a_noisy_curve_counts_as_its_upper_envelope():
    search = task("residual", {"macs": 0.7})
    noisy = [c.curve.copy() for c in search.choices]
    for curve in noisy:
        curve[len(curve) // 2] = 0
    smooth = [np.maximum.accumulate(c[::-1])[::-1] for c in noisy]
    assert allocate(search, noisy) == allocate(search, smooth)


def test_curves_pass_through_their_points_and_grow_below():
    search = task("residual", {"macs": 0.7})
    choice = max(search.choices, key=lambda c: len(c.kept))
    width, middle = choice.group.width, choice.kept[len(choice.kept) // 2]
    curve = Curves({choice.group.name: {middle: 0.04}}).curve(choice)
    assert np.isclose(curve[choice.kept.index(middle)], 0.04)
    assert curve[choice.kept.index(width)] == 0
    assert (np.diff(curve) <= 1e-12).all()
    assert curve[0] > 0.04
