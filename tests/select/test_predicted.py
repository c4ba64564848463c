"""Predicted losses, held against least squares, against what follows a disturbance, and against measured losses."""

import numpy as np
import onnx
import pytest

from onnxslim_learn.data.open import open_source
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.select import budget, criteria, predicted, sensitivity
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim
from tests.laws import analysed

HIDDEN = 12
RIDGED = 0.02  # the ridge that keeps inverses tame moves losses by less


def two_readers(second=1.0):
    """A layer of hidden units that two others read; both are outputs, the second is multiplied by a number."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    n (float[batch,16] x) => (float[batch,3] boxes, float[batch,4] offsets) {
        a = MatMul(x, w1)
        h = Relu(a)
        boxes = MatMul(h, w2)
        b = MatMul(h, w3)
        offsets = Mul(b, s)
    }"""
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    sizes = {"w1": (16, HIDDEN), "w2": (HIDDEN, 3), "w3": (HIDDEN, 4)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}
    arrays["s"] = np.array(second, np.float32)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model, arrays


@pytest.fixture(scope="module")
def case():
    """The net, its weights, its hidden units on samples, and what samples say."""
    model, arrays = two_readers()
    analysis = slim.analyze(model)
    x = np.random.default_rng(1).standard_normal((512, 16)).astype(np.float32)
    known = Calibration(analysis.coupling, open_source({"x": x}, analysis.graph))
    return analysis, arrays, np.maximum(x @ arrays["w1"], 0), known


def choices_of(analysis, scores):
    return budget.choices(analysis.coupling, [g for g in analysis.groups if g.pin is None], scores, budget.Freedom())


def unexplained(hidden, weights, kept):
    """The share of the variance of ``hidden @ weights`` that the best linear map of some units leaves."""
    wanted = hidden @ weights
    inputs = np.column_stack([hidden[:, kept], np.ones(len(hidden))])
    left = wanted - inputs @ np.linalg.lstsq(inputs, wanted, rcond=None)[0]
    return (left**2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum()


def test_losses_at_every_width_are_what_the_best_refit_leaves(case):
    analysis, arrays, hidden, known = case
    scores = np.random.default_rng(2).random(analysis.coupling.columns)
    (choice,) = choices_of(analysis, scores)
    influence = {"boxes": 3.0, "b": 0.5}
    (losses,) = predicted.predict(analysis.coupling, [choice], known.pairs, influence, scores)
    for kept, lost in zip(choice.kept, losses, strict=True):
        stays = choice.order[0][:kept]
        shares = [unexplained(hidden, arrays[name], stays) for name in ("w2", "w3")]
        assert np.isclose(lost, 3.0 * shares[0] + 0.5 * shares[1], rtol=RIDGED, atol=1e-6)


def test_what_is_put_out_as_it_is_loses_the_share_that_is_disturbed(case):
    analysis, _, _, known = case
    found = predicted.influences(analysis.coupling, ["boxes", "b"], known.feeds)
    assert found == pytest.approx({"boxes": 0.5, "b": 0.5}, rel=0.1)  # the mean over two outputs, one of them disturbed


def test_what_does_not_reach_an_output_has_no_influence():
    model, _ = two_readers(second=0.0)
    analysis = slim.analyze(model)
    x = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)
    known = Calibration(analysis.coupling, open_source({"x": x}, analysis.graph))
    assert predicted.influences(analysis.coupling, ["b"], known.feeds) == {"b": 0.0}


def test_errors_are_alike_in_near_places_as_those_of_a_cut_are():
    """The mean over places of a layer loses what the layer does, where its inputs are alike in all places."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    n (float[batch,6,4,4] x) => (float[batch,5,1,1] pooled) {
        y = Conv(x, w)
        pooled = GlobalAveragePool(y)
    }"""
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    kernel = rng.standard_normal((5, 6, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "w"))
    analysis, x = slim.analyze(model), rng.standard_normal((64, 6, 1, 1)).repeat(4, 2).repeat(4, 3).astype(np.float32)
    known = Calibration(analysis.coupling, open_source({"x": x}, analysis.graph))
    assert predicted.influences(analysis.coupling, ["y"], known.feeds) == pytest.approx({"y": 1.0}, rel=0.02)


def known_of(name, count):
    """What so many random samples say of a zoo net, with its choices in the order of their scores."""
    analysis = analysed(name)
    rng = np.random.default_rng(0)
    shapes = analysis.graph.shapes.analysis.inputs
    data = {value: rng.standard_normal((count, *shape[1:])).astype(np.float32) for value, shape in shapes.items()}
    known = Calibration(analysis.coupling, open_source(data, analysis.graph))
    scores = criteria.scores(analysis, analysis.groups, "obs", known)
    choices = choices_of(analysis, scores)
    losses = predicted.predict(analysis.coupling, choices, known.pairs, known.influence(known.feeds), scores)
    return analysis, known, choices, losses


@pytest.mark.parametrize("name", ["residual", "depthwise", "squeeze_excite", "concat", "attention", "grouped"])
def test_losses_fall_with_width_and_end_at_nothing(name):
    _, _, choices, found = known_of(name, 64)
    for choice, losses in zip(choices, found, strict=True):
        assert len(losses) == len(choice.kept)
        assert (np.diff(losses) <= 1e-9).all()
        assert losses[-1] == 0
        assert losses[0] > 0


@pytest.mark.slow
def test_groups_are_ranked_as_measured_losses_rank_them():
    analysis, known, choices, found = known_of("residual", 256)
    task = budget.Search(analysis.coupling, choices, {}, {})
    record = Record(analysis.graph.model, known.feeds, 1024, whole=True)
    points = [(choice, choice.kept[len(choice.kept) * k // 4]) for choice in choices for k in range(3)]
    measured = {}

    def alone(choice, kept):
        return task.removal([kept if one is choice else one.group.width for one in choices])

    bench = sensitivity.Bench(analysis.coupling, record)
    sensitivity.measure(bench, points, alone, keep=lambda c, k, lost: measured.update({(c.group.name, k): lost}))
    pairs = [
        (losses[choice.kept.index(kept)], measured[choice.group.name, kept])
        for choice, losses in zip(choices, found, strict=True)
        for one, kept in points
        if one is choice
    ]
    assert np.corrcoef(np.log(np.array(pairs).T))[0, 1] > 0.7
