"""The formula in a page gives what the model costs, whole and with any widths that are cut evenly."""

from dataclasses import replace

import numpy as np
import pytest

from onnxslim_learn.costs import devices
from onnxslim_learn.costs.roofline import roofline
from onnxslim_learn.latency.fitted import fitted
from onnxslim_learn.latency.fragments import fragments
from onnxslim_learn.report.formula import formula, value
from tests.laws import NETS, analysed, close, free, units, valid


@pytest.mark.parametrize("name", NETS)
def test_the_formula_gives_the_costs_of_the_model_and_of_what_is_left_of_it(name):
    analysis = analysed(name)
    told = formula(analysis)
    if told is None:
        assert not free(analysis)
        return
    groups = free(analysis)
    assert told["groups"] == [group.name for group in groups]
    whole = [1.0] * len(groups)
    for cost in ("macs", "params"):
        assert value(told[cost], whole) == pytest.approx(analysis.price(analysis.whole)[cost])
    rng = np.random.default_rng(0)
    for place, group in enumerate(groups):
        if not group.spare:
            continue
        removal = close(analysis, units(group, 1, rng))
        if valid(removal):
            shares = [*whole]
            shares[place] = 1 - len(units(group, 1, rng)) / group.width
            for cost in ("macs", "params"):
                assert value(told[cost], shares) == pytest.approx(analysis.price(removal)[cost], rel=0.02), group.name


ROUGH = {"reorder": 0.2}
"""Nets of which latency follows a cut less closely: parts end up elsewhere among those that stay."""


@pytest.mark.parametrize("name", NETS)
def test_the_formula_gives_latency_as_it_is_estimated_and_as_it_is_fitted(name):
    analysis = analysed(name)
    groups, rng = free(analysis), np.random.default_rng(0)
    estimated = roofline(analysis.coupling, devices.load("T4"))
    parts = fragments(analysis.coupling)
    narrow = (~close(analysis, [u for g in groups for u in units(g, 1, rng)]).gone).astype(float)
    points = {k: [(np.ones(len(narrow)), 9.0 + k), (narrow, 2.0)] for k in range(0, len(parts), 2)}
    for latency in (estimated, fitted(estimated, parts, points, 1000.0)):
        told = formula(replace(analysis, latency=latency))
        if told is None:
            assert not groups
            return
        assert value(told["latency"], [1.0] * len(groups)) == pytest.approx(latency.value(np.ones(len(narrow))))
        for place, group in enumerate(groups):
            gone = units(group, 1, rng) if group.spare else []
            removal = close(analysis, gone)
            if len(gone) and valid(removal):
                shares = [1.0 - (k == place) * len(gone) / group.width for k in range(len(groups))]
                alive = (~removal.gone).astype(float)
                got, allowed = value(told["latency"], shares), ROUGH.get(name.split("-")[0], 0.02)
                assert got == pytest.approx(latency.value(alive), rel=allowed), group.name
