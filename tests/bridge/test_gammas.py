"""Virtual gammas change nothing when they start, scale units before the bias, and fold back exactly."""

import numpy as np
import onnx
import pytest
import torch

from nets.notation import Net
from nets.zoo import feeds
from onnxslim_learn.bridge import gammas, gates
from onnxslim_learn.bridge.export import updated
from onnxslim_learn.bridge.initializers import parameters
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.errors import InputError
from onnxslim_learn.workflow import slim
from tests.bridge.test_export import weights_of
from tests.bridge.test_module import NORMED, assert_alike, call
from tests.laws import NETS, ZOO_CUT, analysed, analysis_inputs, free, normal, run


@pytest.mark.parametrize("carry_norm", [False, True])
@pytest.mark.parametrize("name", ZOO_CUT)
def test_fresh_gammas_change_nothing_and_trained_ones_fold(name, carry_norm):
    analysis = analysed(name)
    module = bridge(analysis)
    found = gammas.attach(module, analysis, carry_norm=carry_norm)
    inputs = analysis_inputs(analysis)
    assert_alike(call(module, inputs), run(normal(analysis), inputs))
    if not carry_norm:
        assert weights_of(updated(module, analysis.graph)) == weights_of(NETS[name].build())
    torch.manual_seed(0)
    with torch.no_grad():
        for scale in found:
            scale.parameter.mul_(torch.rand_like(scale.parameter) + 0.5)
    assert_alike(call(module, inputs), run(updated(module, analysis.graph), feeds_of(analysis, inputs)))


def feeds_of(analysis, inputs):
    """Return inputs by name, as onnxruntime takes them."""
    return {str(value.name): inputs[str(value.name)] for value in analysis.graph.model.graph.inputs}


PLAIN = Net(
    """(float[4,3,6,6] x) => (float[4,5,6,6] y) {
        a = Conv<kernel_shape=[1,1]>(x, w1, b1)
        r = Relu(a)
        y = Conv<kernel_shape=[1,1]>(r, w2)
    }""",
    "w1 8x3x1x1, b1 8, w2 5x8x1x1",
)


def test_a_gamma_acts_before_the_bias():
    analysis = slim.analyze(PLAIN.build())
    module = bridge(analysis)
    (scale,) = gammas.attach(module, analysis)
    assert (scale.initializer, scale.virtual) == ("w1", True)
    assert scale.places.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    with torch.no_grad():
        scale.parameter.zero_()
    model = PLAIN.build()
    (weight,) = (t for t in model.graph.initializer if t.name == "w1")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros((8, 3, 1, 1), np.float32), "w1"))
    inputs = feeds(model)
    assert_alike(call(module, inputs), run(model, inputs))


def test_a_gamma_can_carry_the_norm_of_its_filter():
    analysis = slim.analyze(PLAIN.build())
    module = bridge(analysis)
    before = parameters(module)["w1"].detach().clone()
    (scale,) = gammas.attach(module, analysis, carry_norm=True)
    assert torch.allclose(scale.parameter, before.flatten(1).norm(dim=1))
    assert torch.allclose(parameters(module)["w1"].flatten(1).norm(dim=1), torch.ones(8))


def test_normalised_layers_use_the_scale_they_have():
    analysis = slim.analyze(NORMED.build())
    module = bridge(analysis)
    (scale,) = gammas.attach(module, analysis)
    assert (scale.initializer, scale.virtual) == ("s", False)
    assert scale.parameter is parameters(module)["s"]


def test_every_layer_that_makes_units_has_a_scale():
    analysis = analysed("residual")
    module = bridge(analysis)
    found = gammas.attach(module, analysis)
    for group in free(analysis):
        assert any(scale.group == group.name for scale in found), group.name
    for scale in found:
        assert scale.places.max() > 0


def test_closed_gates_are_not_written():
    analysis = slim.analyze(PLAIN.build())
    module = bridge(analysis)
    (gate,) = gates.attach(module, analysis).values()
    assert weights_of(updated(module, analysis.graph)) == weights_of(PLAIN.build())
    with torch.no_grad():
        gate[0] = 0
    with pytest.raises(InputError, match="gates are not all open"):
        updated(module, analysis.graph)


@pytest.mark.parametrize(
    ("name", "without"), [("residual", 0), ("attention", 0), ("lstm", 2), ("weight_norm", 1), ("lstm_dynamic", 1)]
)
def test_units_of_recurrent_and_computed_weights_alone_have_no_scale(name, without):
    analysis = slim.analyze(NETS[name].build())
    module, groups = bridge(analysis), [group for group in analysis.groups if group.pin is None]
    names = gammas.without(module, analysis, groups)
    assert len(names) == without
    assert set(names).isdisjoint(scale.group for scale in gammas.attach(module, analysis, groups))
