"""Narrowing in stages: the target holds, and one plan tells of the original what all stages took."""

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.narrow import run
from onnxslim_learn.learners.settings import NarrowSettings
from onnxslim_learn.plans.realize import composed
from onnxslim_learn.workflow import slim
from tests.laws import PLANS, ZOO_CUT, analysed, draw_removal, free, written
from tests.learners.test_morphnet_pipeline import prepare, share  # noqa: F401


def test_the_target_is_met_and_the_plan_is_of_the_original(prepare, tmp_path):  # noqa: F811
    task = prepare(NarrowSettings({"macs": 0.4}, stages=2), steps=10, finetune_steps=5)
    made, check = run(task)
    assert check.passed
    assert 0.25 < share(task, made, "macs") <= 0.4
    assert slim.verify(task.analysis, task.output, made.plan).passed
    written = slim.analyze(task.output)
    assert written.price(written.whole) == task.analysis.price(made.removal)
    stages = [onnx.load(tmp_path / "run" / f"{name}.onnx") for name in ("stage_1", "stage_1_trained")]
    first, after = ({x.name: x.raw_data for x in model.graph.initializer} for model in stages)
    assert first.keys() == after.keys()
    assert first != after, "what is left is trained between stages"
    again = prepare(task.wanted, name="run", steps=10, finetune_steps=5, resume=True)
    assert run(again)[0].plan.groups == made.plan.groups
    stage = tmp_path / "run" / "stage_1.onnx"
    stage.write_bytes(stage.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"stage_1.onnx is not what the run wrote there. Start again without resume"):
        run(again)


def test_a_target_that_is_met_already_is_refused(prepare):  # noqa: F811
    with pytest.raises(InputError, match="the model meets it as it is"):
        run(prepare(NarrowSettings({"macs": 1.0})))


@pytest.mark.parametrize("name", ZOO_CUT)
@PLANS
@given(data=st.data())
def test_two_plans_one_after_the_other_are_one(name, data):
    original = analysed(name)
    first = draw_removal(data.draw, original)
    left = slim.analyze(written(original, first))
    assume(free(left))
    second = draw_removal(data.draw, left)
    one = written(original, composed(first, second))
    both = written(left, second)
    wanted = {x.name: numpy_helper.to_array(x) for x in both.graph.initializer}
    weights = [x for x in one.graph.initializer if x.data_type == onnx.TensorProto.FLOAT]  # sizes get other names
    for tensor in weights:
        np.testing.assert_allclose(numpy_helper.to_array(tensor), wanted[tensor.name], rtol=1e-6)
