"""A model is judged on samples that were held back, by its outputs and by the user's metric."""

import numpy as np
import onnx
import pytest

from onnxslim_learn import lower_bounds, metrics
from onnxslim_learn.data.open import open_source
from onnxslim_learn.errors import InputError
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.quality.detections import Detections
from onnxslim_learn.quality.judgement import Judgement, Samples, judge, of_outputs
from onnxslim_learn.quality.metric import Metric, metric
from onnxslim_learn.report.format import at_least
from onnxslim_learn.report.sections import quality
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim as work
from onnxslim_learn.workflow.slim import analyze

RNG = np.random.default_rng(0)
COUNT, WIDTH, HIDDEN, CLASSES = 64, 6, 12, 4


def classifier(scale=1.0):
    """A net of one hidden layer."""
    rng = np.random.default_rng(0)
    arrays = {"w1": rng.standard_normal((WIDTH, HIDDEN)), "w2": scale * rng.standard_normal((HIDDEN, CLASSES))}
    text = f"""<ir_version: 8, opset_import: ["" : 17]> n (float[batch,{WIDTH}] x) => (float[batch,{CLASSES}] y) {{
        h = MatMul(x, w1)
        r = Relu(h)
        y = MatMul(r, w2)
    }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items())
    return model


def samples(made_up=False):
    inputs = RNG.standard_normal((COUNT, WIDTH)).astype(np.float32)
    return Samples("some", [{"x": part} for part in np.split(inputs, 4)], [None] * 4, made_up)


def test_a_model_is_as_good_as_itself_and_half_of_it_keeps_three_quarters_of_its_variance():
    whole, half = (classifier(scale).SerializeToString() for scale in (1.0, 0.5))
    same, less = judge(whole, whole, samples(), {}), judge(whole, half, samples(), {})
    assert (same.samples, same.quality, same.destroyed) == (COUNT, 1.0, False)
    assert less.quality == pytest.approx(0.75, abs=0.05)
    nothing = classifier(0.0).SerializeToString()
    assert judge(whole, nothing, samples(), {}).destroyed
    assert not judge(whole, nothing, samples(made_up=True), {}).destroyed


# What is told of a result: variance kept, share of decisions that are the same, what is left of the scores of
# detections, of one class of them, how much of the model's own are true -> the word.
TOLD = [
    (0.95, {}, None, "good"),
    (0.95, {"agreement": 0.7}, None, "lower"),
    (0.95, {"agreement": 0.95}, None, "good"),
    (0.95, {"retrieval": 0.7, "nearness": 0.95}, None, "good"),
    (0.95, {"retrieval": 0.7, "nearness": 0.8}, None, "lower"),
    (0.95, {"read": 0.7}, None, "lower"),
    (0.8, {"agreement": 1.0}, None, "lower"),
    (0.95, {}, (0.95, 0.92, 0.96), "good"),
    (0.95, {}, (0.75, 0.7, 1.0), "lower"),
    (0.95, {}, (0.95, 0.7, 1.0), "lower"),
    (0.95, {}, (0.95, 0.95, 0.7), "lower"),
    (0.95, {}, (0.95, 0.2, 1.0), "DESTROYED"),
    (0.95, {}, (0.15, 0.15, 1.0), "DESTROYED"),
    (0.95, {}, (1.0, 1.0, 0.4), "DESTROYED"),
    (0.3, {}, (1.0, 1.0, 1.0), "DESTROYED"),
]


@pytest.mark.parametrize(("explained", "decided", "found", "word"), TOLD)
def test_variance_decisions_and_detections_all_have_to_be_good(explained, decided, found, word):
    block = metrics.Block("all", explained, 1.0, sure=explained - 0.05)
    figures = {name: share for name, share in decided.items() if name != "agreement"}
    kl, agreement = (0.1, decided["agreement"]) if "agreement" in decided else (None, None)
    output = metrics.Deviation(
        1.0, 0.1, kl, agreement, "numbers", figures, (block,), explained, explained < metrics.DESTROYED
    )
    detected = None if found is None else Detections("YOLOv8", 20, 20, 1.0, found[0], {3: found[1]}, found[2], COUNT)
    told = Judgement("some", COUNT, False, {"y": output}, detected).to_dict()
    assert quality.verdict(told).startswith(f"Quality: {word}.")
    assert quality.told(told).startswith(f"{word}, ")
    by_outputs = of_outputs(told["outputs"], told["detections"], told)  # of what was trained, or zeroed
    assert quality.told(by_outputs) == quality.told(told)
    assert (quality.weakest(told)[0] < quality.GOOD) == (word != "good")
    assert bool([note for note in quality.notes(told) if "destroyed" in note]) == (word == "DESTROYED")


def error(predictions, labels):
    """Mean largest output, of which less is better."""
    assert labels is None
    return float(predictions.max(axis=1).mean())


error.higher_is_better = False


def test_a_metric_is_told_for_both_and_its_ratio_says_what_is_left():
    whole, double = (classifier(scale).SerializeToString() for scale in (1.0, 2.0))
    told = judge(whole, double, samples(), {}, metric(error))
    assert told.metric.after == pytest.approx(2 * told.metric.before)
    assert told.quality == pytest.approx(0.5)
    assert not told.metric.higher_is_better


@pytest.mark.parametrize(
    ("higher", "before", "after", "ratio"),
    [
        (True, 0.8, 0.4, 0.5),
        (False, 0.4, 0.8, 0.5),
        (True, 0.0, 0.0, 1.0),
        (True, 0.5, 0.0, 0.0),
        (True, 0.5, 0.6, 1.2),
    ],
)
def test_ratio(higher, before, after, ratio):
    assert Metric("m", error, higher).ratio(before, after) == pytest.approx(ratio)


def ended(node):
    """The classifiers whose output one more node reads, of other weights on the second side."""
    sides = [classifier(), classifier()]
    rng = np.random.default_rng(1)
    rows = onnx.numpy_helper.to_array(sides[1].graph.initializer[0])
    sides[1].graph.initializer[0].raw_data = (rows + rng.normal(0, 0.3, rows.shape).astype(np.float32)).tobytes()
    for side in sides:
        side.graph.node.extend(onnx.parser.parse_graph(f"g (float[n] y) => (float[n] z) {{ {node} }}").node)
        kind = onnx.TensorProto.INT64 if "ArgMax" in node else onnx.TensorProto.FLOAT
        side.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("z", kind, None))
    return [side.SerializeToString() for side in sides]


def test_choices_are_judged_by_how_many_are_the_same():
    given = samples()
    told = judge(*ended("z = ArgMax<axis=1, keepdims=0>(y)"), given, {})
    numbers = judge(*ended("z = Identity(y)"), given, {})
    assert told.outputs["z"].kind == "choices"
    assert told.outputs["z"].agreement == numbers.outputs["z"].agreement < 1
    assert "of the decisions of output z" in quality.verdict(told.to_dict())


def test_what_is_the_same_for_all_samples_tells_nothing():
    told = judge(*ended("d = Sub(y, y) z = Identity(d)"), samples(), {}).to_dict()
    assert quality.told(told).startswith("unknown, since no output of the original differs")
    assert quality.fault(told, 0.9)
    assert quality.fault(told, None) is None
    whole = classifier().SerializeToString()
    one = judge(whole, whole, Samples("one", [{"x": RNG.standard_normal((1, WIDTH)).astype(np.float32)}]), {}).to_dict()
    assert quality.told(one).startswith("looks good, ")


# Samples held back, of which so many are decided as the original decides -> whether it is called good.
DECIDED = [
    (1, 1, False),
    (7, 7, False),
    (8, 8, False),
    (12, 12, False),
    (16, 16, True),
    (16, 15, False),
    (32, 30, True),
]


@pytest.mark.parametrize(("count", "same", "sure"), DECIDED)
def test_good_is_what_samples_bear_out(count, same, sure):
    block = metrics.Block("all", 0.95, 1.0, sure=0.95)
    output = metrics.Deviation(1.0, 0.1, 0.1, same / count, "logits", {}, (block,), 0.95)
    told = Judgement("some", count, False, {"y": output}, fitted=3 * count).to_dict()
    least = lower_bounds.of_decisions(same / count, count)
    assert quality.good(told) == sure == (least >= quality.SURE)
    assert quality.told(told).startswith("good, " if sure else "looks good, ")
    if not sure:
        text = quality.verdict(told)
        assert f"at least {at_least(least)} of the decisions" in text
        more = quality.needed(told)
        assert f"Give {more} or more with --data" in text
        assert lower_bounds.of_decisions(max(same / count, quality.GOOD), more // 4) >= quality.SURE
        assert more >= 8 * count


def test_what_was_fitted_to_the_samples_that_judge_it_is_not_called_good():
    analysis = analyze(classifier())
    inputs = np.random.default_rng(1).standard_normal((COUNT, WIDTH)).astype(np.float32)
    plan = Plan({"w1:1": list(range(HIDDEN - 1))}, {"w1:1": HIDDEN})
    for count, apart in ((1, False), (2, True), (COUNT, True)):
        slimmed = work.slim(analysis, plan)
        known = Calibration(analysis.coupling, open_source({"x": inputs[:count]}, analysis.graph))
        assert slimmed.repair(known).held_back == apart
        told = judge(classifier().SerializeToString(), classifier().SerializeToString(), known.held, {}).to_dict()
        assert told["held_back"] == apart
        assert told["samples"] + told["fitted"] * apart == count
        word = quality.told(told).partition(",")[0]
        assert word == ("unknown" if count == 1 else "looks good" if count == 2 else "good")


def test_metrics_by_name_count_what_is_right():
    outputs = {"y": np.eye(8)[[0, 1, 2, 3]] * 3 + np.arange(8) / 10}
    labels = [np.array([0, 1]), np.array([5, 0])]
    assert metric("accuracy")(outputs, labels) == 0.5
    assert metric("top5")(outputs, labels) == 0.75
    every = np.concatenate(labels)
    assert metric("accuracy")(outputs, [every[:, None]]) == metric("accuracy")(outputs, [np.eye(8)[every]]) == 0.5
    assert metric("accuracy")({"z": outputs["y"].argmax(axis=1)}, labels) == 0.5
    with pytest.raises(InputError, match="one choice"):
        metric("top5")({"z": every}, labels)
    with pytest.raises(InputError, match="needs labels"):
        metric("accuracy")(outputs, [None, None])
    with pytest.raises(InputError, match="metric nothing"):
        metric("nothing")


@pytest.mark.parametrize("value", [float("nan"), "many"])
def test_a_metric_that_gives_no_number_is_refused(value):
    with pytest.raises(InputError, match="metric"):
        Metric("m", lambda predictions, labels: value)({"y": np.zeros((3, 2))}, [])


def repaired(judged_by):
    analysis = analyze(classifier())
    slimmed = work.slim(analysis, Plan({"w1:1": [0, 1, 2, 3]}, {"w1:1": HIDDEN}))
    source = open_source({"x": RNG.standard_normal((COUNT, WIDTH)).astype(np.float32)}, analysis.graph)
    return slimmed.repair(Calibration(analysis.coupling, source, metric=judged_by))


def test_a_repair_is_undone_where_the_metric_gets_worse():
    """Repair brings outputs nearer to the original's, which are larger than those of the cut net."""
    assert repaired(None).kept
    found = repaired(Metric("small", lambda predictions, labels: -float(np.abs(predictions).mean())))
    assert metrics.total(found.after) < metrics.total(found.before)
    assert not found.kept
    assert not found.weights


def test_allocations_are_tried_by_the_metric(monkeypatch):
    """With a metric that is indifferent, divergence decides; with one that is not, it does."""
    analysis = analyze(classifier())
    inputs = RNG.standard_normal((COUNT, WIDTH)).astype(np.float32)
    asked = []

    def constant(predictions, labels):
        asked.append(predictions.shape)
        return 0.25

    source = open_source({"x": inputs}, analysis.graph)
    calibration = Calibration(analysis.coupling, source, metric=Metric("constant", constant))
    plan = work.plan(analysis, {"macs": 0.5}, calibration=calibration)
    assert asked
    assert set(plan.provenance["trials"].values()) == {-0.25}


@pytest.mark.parametrize("left", [0.0, 0.0499, 0.28, 0.89999, 0.9, 0.986, 0.99951, 0.999999, 1.0, *RNG.random(50)])
def test_what_is_at_least_left_is_no_more_than_is_left(left):
    """Less than all is no 100 %, and less than is good is not told as if it were good."""
    told = float(at_least(left).removesuffix(" %")) / 100
    assert left - 0.001 < told <= left + 1e-9
    assert (told >= quality.GOOD) == (left >= quality.GOOD)
