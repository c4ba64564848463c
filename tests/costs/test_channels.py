"""Channels and elements as costs are those of the file that a cut leaves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.costs.channels import channels, elements
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.workflow import slim
from tests.laws import PLANS, ZOO_CUT, analysed, draw_removal, written


def counted(analysis):
    shapes = analysis.graph.shapes
    nodes = [n for n in analysis.graph.nodes if not shapes.is_arithmetic(n)]
    names = [v.name for n in nodes for v in n.outputs if v.name in analysis.coupling.values]
    return sum(int(np.prod(shapes.nominal.shape[name])) for name in names)


@pytest.mark.parametrize("name", ZOO_CUT)
def test_elements_of_the_whole_are_counted(name):
    analysis = analysed(name)
    alive = np.ones(analysis.coupling.size)
    assert round(elements(analysis.coupling).value(alive)) == counted(analysis)
    assert 0 < channels(analysis.coupling).value(alive) <= counted(analysis)


@pytest.mark.parametrize("name", ["residual", "concat", "depthwise", "attention", "lstm_computed"])
@PLANS
@given(data=st.data())
def test_elements_of_a_cut_are_those_of_its_file(name, data):
    analysis = analysed(name)
    removal: Removal = draw_removal(data.draw, analysis)
    after = slim.analyze(written(analysis, removal), inputs=analysis.graph.shapes.nominal.inputs)
    alive = (~removal.gone).astype(float)
    assert round(elements(analysis.coupling).value(alive)) == counted(after)
