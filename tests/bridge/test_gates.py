"""Gates at zero for a plan compute what the masked file computes; open gates change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.bridge import gates
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.coupling import groups as grouping
from tests.bridge.test_module import assert_alike, call
from tests.laws import PLANS, ZOO_CUT, analysed, analysis_inputs, draw_removal, masked, normal, run


def close(module, removal, groups):
    """Set the gates of the units that a removal takes to zero."""
    coupling = removal.coupling
    whole = np.ones(coupling.columns, bool)
    whole[coupling.column[~removal.gone]] = False
    found = gates.gates(module)
    with torch.no_grad():
        for group in groups:
            found[group.name].copy_(torch.from_numpy((~whole[group.units]).astype(np.float32)))


@pytest.mark.parametrize("name", ZOO_CUT)
@PLANS
@given(data=st.data())
def test_closed_gates_are_the_mask(name, data):
    analysis = analysed(name)
    groups = [group for group in grouping.find(analysis.coupling) if group.pin is None]
    module = bridge(analysis)
    gates.attach(module, analysis, groups)
    feeds = analysis_inputs(analysis)
    assert_alike(call(module, feeds), run(normal(analysis), feeds))
    removal = draw_removal(data.draw, analysis)
    close(module, removal, groups)
    assert_alike(call(module, feeds), run(masked(removal), feeds))
