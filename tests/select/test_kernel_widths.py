"""Widths between steps go, those on steps and the whole stay, and only where kernels have steps."""

import numpy as np
import pytest

from onnxslim_learn.select import budget
from onnxslim_learn.select.kernel_widths import undominated
from tests.laws import analysed


def choices(name):
    analysis = analysed(name)
    found = budget.choices(analysis.coupling, analysis.groups, np.zeros(analysis.coupling.columns), budget.Freedom())
    return analysis, found


@pytest.mark.parametrize("step", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("name", ["residual", "concat", "bottleneck"])
def test_widths_of_convolutions_are_on_steps(name, step):
    analysis, before = choices(name)
    for old, new in zip(before, undominated(analysis.coupling, before, {"Conv": step}), strict=True):
        assert new.group is old.group
        assert new.kept == tuple(k for k in old.kept if k % step == 0 or k == old.group.width)
    for old, new in zip(before, undominated(analysis.coupling, before, {"Conv": step}, below=True), strict=True):
        assert new.kept == tuple(k for k in old.kept if k % step == 0 or 2 * k <= step or k == old.group.width)


def test_units_of_several_channels_count_as_many():
    analysis, before = choices("attention")
    spans = [budget.span(analysis.coupling, choice.group) for choice in before]
    assert max(spans) > 1, "a head has several channels"
    for old, new, span in zip(before, undominated(analysis.coupling, before, {"MatMul": 4}), spans, strict=True):
        assert new.kept == tuple(k for k in old.kept if k * span % 4 == 0 or k == old.group.width)


def test_other_kernels_have_no_say():
    analysis, before = choices("residual")
    assert [c.kept for c in undominated(analysis.coupling, before, {"MatMul": 8})] == [c.kept for c in before]


def test_depthwise_kernels_have_steps_of_their_own():
    analysis, before = choices("depthwise")
    after = undominated(analysis.coupling, before, {"depthwise": 4})
    narrowed = [len(new.kept) < len(old.kept) for old, new in zip(before, after, strict=True)]
    assert any(narrowed)
    assert not all(narrowed)
