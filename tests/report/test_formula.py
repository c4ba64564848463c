"""The formula in a page gives what the model costs, whole and with any widths that are cut evenly."""

import numpy as np
import pytest

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
