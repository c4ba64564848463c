"""Shapes that no inference tells: of a model that is run as a whole, and of one whose nodes are run by themselves."""

import pytest

from nets.operators import EXAMPLES
from onnxslim_learn.graph import shapes
from onnxslim_learn.workflow import slim

RUN = [
    name
    for name in EXAMPLES
    if name.startswith("com.microsoft.") or name in ("SimplifiedLayerNormalization", "MeanVarianceNormalization")
]


@pytest.mark.parametrize("name", RUN)
def test_what_runs_node_by_node_has_the_shapes_of_the_whole(monkeypatch, name):
    def never(*_):
        raise AssertionError("run as a whole")

    model = EXAMPLES[name].build()
    whole = slim.analyze(model).graph.shapes
    monkeypatch.setattr(shapes, "HEAVY", -1)
    if name != "com.microsoft.EmbedLayerNormalization":  # which wants whole numbers that a table has rows for
        monkeypatch.setattr(shapes, "_run_for_shapes", never)
    alone = slim.analyze(model).graph.shapes
    for one, other in ((whole.nominal, alone.nominal), (whole.analysis, alone.analysis), (whole.third, alone.third)):
        assert other.shape == one.shape
        assert other.dtype == one.dtype
