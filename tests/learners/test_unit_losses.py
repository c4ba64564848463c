"""What units are worth adds up to what their group loses, and they go in its order."""

import numpy as np
import pytest

from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.learners.morphnet.structure import structure
from onnxslim_learn.learners.morphnet.unit_losses import ORDER, unit_losses
from onnxslim_learn.select import criteria
from onnxslim_learn.select.allocation import losses
from onnxslim_learn.select.budget import Freedom
from onnxslim_learn.select.calibration import Calibration
from tests.laws import analysed


@pytest.mark.parametrize(("name", "multiple"), [("residual", 1), ("residual", 8), ("concat", 1)])
def test_what_units_are_worth_adds_up_to_what_their_group_loses(name, multiple):
    analysis = analysed(name)
    macs = analysis.costs["macs"]
    bound = 0.5 * macs.value(np.ones(analysis.coupling.size))
    space = structure(analysis, "macs", {"macs": (macs, bound)}, {"macs": 0.5}, freedom=Freedom(multiple))
    assert all(len(choice.kept) > 1 for choice in space.search.choices), "groups of one width have nothing to learn"
    calibration = Calibration(analysis.coupling, synthetic(analysis.coupling, DataSettings(samples=32)))
    worth = np.split(unit_losses(space, calibration, lambda share: None), space.ends[1:-1])
    scores = criteria.scores(analysis, space.groups, criteria.usual(calibration), calibration)
    _, curves = losses(space.ordered(np.concatenate([scores[g.units] for g in space.groups])), scores, calibration)
    ratios = []
    for group, choice, units, curve in zip(space.groups, space.search.choices, worth, curves, strict=True):
        for part in group.strata:
            order = part[np.argsort(-scores[group.units[part]], kind="stable")]
            assert (np.diff(units[order]) <= 0).all(), "the first to go is worth least"
        going = np.sort(units)[: group.width - choice.kept[0]]
        ratios.append(going.sum() / curve[0])
    np.testing.assert_allclose(ratios, ratios[0], rtol=2 * ORDER)
