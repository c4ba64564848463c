"""Experts are worth what samples make of them: how often a router chooses them."""

import numpy as np
import pytest

from nets.notation import Net
from nets.variants import VARIANTS
from onnxslim_learn.data.open import open_source
from onnxslim_learn.select import criteria, routing
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim
from tests import laws

FUSED = Net(
    """(float[2,4,6] x) => (float[2,4,5] y) {
        a = MatMul(x, w1) f = Reshape(a, [-1, 8]) raw = MatMul(f, router) logits = Add(raw, favour)
        z = com.microsoft.MoE<k=2, activation_type="silu">(a, logits, u, , d) y = MatMul(z, w2)
    }""",
    "w1 6x8, w2 8x5, router 8x5, favour 5, u 5x6x8, d 5x8x6",
    domains=', "com.microsoft" : 1',
)
NETS = {"fused": FUSED, "exported": VARIANTS["routed_experts"]}


def case(name):
    analysis = slim.analyze(NETS[name].build())
    x = np.random.default_rng(0).standard_normal((64, 4, 6)).astype(np.float32)
    (experts,) = (group for group in analysis.groups if group.competes)
    return analysis, experts, Calibration(analysis.coupling, open_source({"x": x}, analysis.graph))


@pytest.mark.parametrize("name", NETS)
def test_use_is_how_often_an_expert_is_chosen(name):
    analysis, experts, samples = case(name)
    counts = np.zeros(experts.width)
    for feed in samples.feeds:
        logits = laws.run(laws.exposed(laws.normal(analysis)), dict(feed))["logits"]
        counts += np.bincount(np.argsort(-logits, axis=1)[:, :2].reshape(-1), minlength=experts.width)
    use = routing.chosen(analysis.coupling, samples.feeds)
    np.testing.assert_allclose(use[experts.units], counts / counts.mean())
    assert np.delete(use, experts.units).tolist() == [1.0] * (len(use) - experts.width)


@pytest.mark.parametrize("criterion", ["obs", "wanda"])
@pytest.mark.parametrize("name", NETS)
def test_hidden_units_that_no_input_tells_of_are_worth_their_weights(name, criterion):
    analysis, experts, samples = case(name)
    scores = criteria.scores(analysis, analysis.groups, criterion, samples)
    for group in laws.free(analysis):
        assert len(np.unique(scores[group.units])) == group.width, group
    use = routing.chosen(analysis.coupling, samples.feeds)[experts.units]
    plain = scores[experts.units] / use
    assert plain.max() < 3 * plain[plain > 0].min()  # what is left is by weights, which are alike
