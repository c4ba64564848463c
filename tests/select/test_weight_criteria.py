"""Criteria: scores worked out by hand, by closed forms, and laws every criterion keeps."""

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nets.fused import plain
from nets.notation import Net
from onnxslim_learn.cli import parser
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import CRITERIA
from onnxslim_learn.select import criteria, weight_criteria
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import ZOO_CUT, analysed

BY_WEIGHTS = [name for name, row in CRITERIA.items() if not row.samples and name != "folding"]

MAGNITUDES = ["energy", "l1", "l2", "lamp"]
"""Criteria that find what is small; the others find what is alike, or nothing."""

EXACT = 1e-6
"""Relative rounding of single precision weights."""

QUADRATURE = 0.05
"""Relative error of 24 quadrature points at a kink: a smooth activation would leave none."""


def built(net, **weights):
    """Build a net with some weights set to given values."""
    model = net.build()
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            values = np.asarray(weights[tensor.name], numpy_helper.to_array(tensor).dtype)
            assert values.shape == tuple(tensor.dims)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def scores_of(model, criterion, group=0):
    """Return the scores of the units of one group that can go."""
    analysis = slim.analyze(model)
    return criteria.scores(analysis, analysis.groups, criterion)[laws.free(analysis)[group].units]


# --- by hand ----------------------------------------------------------------------------------------------------------

LAYERS = Net("(float[4,2] x) => (float[4,2] y) { h = MatMul(x, w1) r = Relu(h) y = MatMul(r, w2) }", "w1 2x3, w2 3x2")
W1 = [[3.0, 0.0, 1.0], [-4.0, 1.0, 1.0]]  # columns make units: (3, -4), (0, 1), (1, 1)
W2 = [[1.0, -1.0], [6.0, 0.0], [2.0, 2.0]]  # rows consume them


@pytest.mark.parametrize(
    ("criterion", "wanted"),
    [
        ("l1", [(3.5 + 1) / 2, (0.5 + 3) / 2, (1 + 2) / 2]),
        ("l2", [math.sqrt((12.5 + 1) / 2), math.sqrt((0.5 + 18) / 2), math.sqrt((1 + 4) / 2)]),
        ("lamp", [6.75 / (6.75 + 9.25), 9.25 / 9.25, 2.5 / (2.5 + 6.75 + 9.25)]),
    ],
)
def test_two_layers_by_hand(criterion, wanted):
    assert np.allclose(scores_of(built(LAYERS, w1=W1, w2=W2), criterion), wanted, rtol=EXACT)


def test_distances_between_filters_by_hand():
    """The filters (3, -4), (0, 1), (1, 1) lie sqrt(34), sqrt(29) and 1 apart."""
    sums = np.array([math.sqrt(34) + math.sqrt(29), math.sqrt(34) + 1, math.sqrt(29) + 1])
    found = scores_of(built(LAYERS, w1=W1, w2=W2), "fpgm")
    assert np.allclose(found / found.mean(), sums / sums.mean(), rtol=1e-4)


def test_equal_filters_are_the_first_to_go_by_distance():
    w1 = [[3.0, 1.0, 1.0], [-4.0, 1.0, 1.0]]
    assert np.argmax(scores_of(built(LAYERS, w1=w1, w2=W2), "fpgm")) == 0


def test_random_scores_are_the_same_for_the_same_seed():
    analysis = analysed("residual")
    one, same, other = (weight_criteria.random(analysis, (), seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.isclose(one, other).any()


# --- energy -----------------------------------------------------------------------------------------------------------

NORMED = Net(
    """(float[2,3,4,4] x) => (float[2,5,4,4] y) {
        a = Conv(x, w1)
        n = BatchNormalization(a, gamma, beta, mean, variance)
        r = Relu(n)
        y = Conv(r, w2)
    }""",
    "w1 6x3x1x1, gamma beta mean variance 6, w2 5x6x1x1",
)
GAMMA = [0.5, 1.0, 2.0, -1.0, 0.1, 0.7]
BETA = [0.0, 1.0, -1.0, 0.5, 0.5, -2.0]


def moments_of_relu(beta, gamma):
    """Return mean and mean square of relu(x) for normal x."""
    g, z = abs(gamma), beta / abs(gamma)
    density, below = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), (1 + math.erf(z / math.sqrt(2))) / 2
    return beta * below + g * density, (beta * beta + g * g) * below + beta * g * density


def test_energy_is_the_variance_behind_a_relu_times_what_consumes_it():
    model = built(NORMED, gamma=GAMMA, beta=BETA)
    (w2,) = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "w2"]
    norms = (w2**2).sum(axis=(0, 2, 3))
    moments = [moments_of_relu(beta, gamma) for beta, gamma in zip(BETA, GAMMA, strict=True)]
    wanted = [(square - mean**2) * norm for (mean, square), norm in zip(moments, norms, strict=True)]
    found = scores_of(model, "energy")
    scale = np.array(GAMMA) ** 2 * norms  # of the variance before the relu: what is cut off to almost nothing is small
    assert np.abs(found - wanted).max() <= QUADRATURE * scale.max()
    assert np.allclose(found[:5], wanted[:5], rtol=2 * QUADRATURE)


def test_energy_without_activation_is_exact():
    net = Net(NORMED.text.replace("r = Relu(n)", "r = Mul(n, {2.0})"), NORMED.weights)
    model = built(net, gamma=GAMMA, beta=BETA)
    (w2,) = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "w2"]
    wanted = 4 * np.array(GAMMA) ** 2 * (w2**2).sum(axis=(0, 2, 3))
    assert np.allclose(scores_of(model, "energy"), wanted, rtol=1e-4)


def test_energy_of_a_folded_normalisation_comes_from_the_weights():
    """Inputs of unit variance: the variance of a unit is its squared norm."""
    text = "(float[4,2] x) => (float[4,2] y) { h = MatMul(x, w1) b = Add(h, b1) r = Identity(b) y = MatMul(r, w2) }"
    model = built(Net(text, "w1 2x3, b1 3, w2 3x2"), w1=W1, w2=W2, b1=[1.0, -5.0, 7.0])
    assert np.allclose(scores_of(model, "energy"), [25 * 2, 1 * 36, 2 * 8], rtol=1e-4)


def test_energy_does_not_count_a_unit_that_is_constant():
    """A unit with gamma 0 is its beta: moved into the bias of what consumes it, it leaves nothing behind."""
    scores = scores_of(built(NORMED, gamma=[0.0, *GAMMA[1:]], beta=[9.0, *BETA[1:]]), "energy")
    assert scores[0] == scores.min() < EXACT


# --- laws -------------------------------------------------------------------------------------------------------------


# How often a key head is repeated: its units are the repeats, each of which crosses all key heads. And heads whose
# cells are the same columns in all of them: scores are by column.
ALIKE = {"grouped_query": {"wq:1/2", "wk:1/2"}, "pooled_heads": {"w1:1/3"}, "interleaved_rotary": {"w1:1/3"}}


@pytest.mark.parametrize("criterion", BY_WEIGHTS)
@pytest.mark.parametrize("name", ZOO_CUT)
def test_units_are_told_apart(name, criterion):
    """The zoo has no two channels or heads alike, so no score may treat the units of a group alike."""
    analysis = analysed(name)
    scores = criteria.scores(analysis, analysis.groups, criterion)
    assert np.isfinite(scores).all()
    assert scores.shape == (analysis.coupling.columns,)
    for group in laws.free(analysis):
        if group.name in ALIKE.get(plain(name), ()):
            continue
        two_alike = criterion == "fpgm" and group.width == 2  # as far from each other
        assert two_alike or np.ptp(scores[group.units]) > EXACT * np.abs(scores[group.units]).max(), group.name


@pytest.mark.parametrize("criterion", MAGNITUDES)
@pytest.mark.parametrize("name", ZOO_CUT)
def test_a_dead_unit_scores_least(name, criterion):
    """With all weights at a unit's positions zero, no unit of its group is worth less."""
    analysis = analysed(name)
    for group in laws.free(analysis):
        unit = group.width // 2
        alone = laws.close(analysis, group.units[[unit]])
        model = onnx.ModelProto()
        model.CopyFrom(laws.normal(analysis))
        for tensor in model.graph.initializer:
            if tensor.name in analysis.coupling.values:
                values = numpy_helper.to_array(tensor)
                silent = np.where(laws.kept(alone, tensor.name), values, 0).astype(values.dtype)
                tensor.CopyFrom(numpy_helper.from_array(silent, tensor.name))
        again = slim.analyze(model)
        scores = criteria.scores(again, again.groups, criterion)[again.group(group.name).units]
        assert scores[unit] == scores.min(), group.name


def test_scores_do_not_change_with_the_order_of_units():
    model = built(LAYERS, w1=W1, w2=W2)
    turned = built(LAYERS, w1=np.array(W1)[:, ::-1], w2=np.array(W2)[::-1])
    for criterion in BY_WEIGHTS:
        if criterion != "random":
            assert np.allclose(scores_of(turned, criterion), scores_of(model, criterion)[::-1], rtol=EXACT)


def test_an_unknown_criterion_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="l1, l2"):
        criteria.scores(analysed("chain"), (), "hope")


def test_the_command_line_offers_every_criterion(capsys):
    with pytest.raises(SystemExit):
        parser.parse(["slim", "--help"])
    told = capsys.readouterr().out
    assert [name for name in CRITERIA if name not in told] == []


def test_a_constant_that_stands_for_minus_infinity_is_no_weight_of_a_unit():
    text = "(float[2, 6] x) => (float[2, 4] y) { h = MatMul(x, w1) g = Max(h, least) r = Relu(g) y = MatMul(r, w2) }"
    model = Net(text, "w1 6x8, w2 8x4, least 2x8").build()
    (least,) = (tensor for tensor in model.graph.initializer if tensor.name == "least")
    least.CopyFrom(numpy_helper.from_array(np.full((2, 8), -1e30, np.float32), "least"))
    analysis = slim.analyze(model)
    assert np.isfinite(weight_criteria.energy(analysis, analysis.groups)).all()
