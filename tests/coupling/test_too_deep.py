"""Axes with more rows within rows than are tracked stay whole, and all else is cut as ever."""

import pytest

from onnxslim_learn.coupling import layout
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import NETS

FEW = 10
ROWS = ["concat", "grouped", "attention", "rotary", "grouped_query", "packed_split", "group_norm", "channel_shuffle"]


@pytest.mark.parametrize("name", ROWS)
def test_what_is_too_deep_to_track_stays_whole(name, monkeypatch):
    monkeypatch.setattr(layout, "LARGEST", FEW)
    model = NETS[name].build()
    analysis = slim.analyze(model)
    computed = [analysis.coupling.values.get(str(v.name)) for node in analysis.coupling.nodes for v in node.outputs]
    digits = [digit for layout in computed if layout for digit in layout.digits.values()]
    assert max((d.labels.size for d in digits if d.labels is not None and d.deps), default=0) <= FEW
    if laws.free(analysis):
        laws.assert_cut_is_masked(model, laws.input_sets(model))
