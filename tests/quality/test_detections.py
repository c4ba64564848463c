"""Detections are matched with the original's, whatever the family of the detector."""

import numpy as np
import onnx
import pytest

from onnxslim_learn.quality.detections import SURE, detections
from onnxslim_learn.quality.judgement import Samples, judge
from onnxslim_learn.report.sections import quality

SAMPLES, PLACES, CLASSES = 6, 200, 3


def scene(seed=0):
    """Boxes as centre and size ``(samples, places, 4)``, scores ``(samples, places, classes)``: two objects each."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate((rng.uniform(50, 590, (SAMPLES, PLACES, 2)), rng.uniform(20, 80, (SAMPLES, PLACES, 2))), 2)
    scores = rng.uniform(0, 0.02, (SAMPLES, PLACES, CLASSES))
    for k in range(SAMPLES):
        for place, centre in zip(rng.permutation(PLACES)[:2], (100, 400), strict=True):
            boxes[k, place, :2] = centre
            scores[k, place, rng.integers(CLASSES)] = rng.uniform(0.5, 0.9)
    return boxes, scores


def corners(boxes):
    return np.concatenate((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), -1)


def logit(p):
    return np.log(np.clip(p, 1e-6, 1) / np.clip(1 - p, 1e-6, 1))


def rest(scores):
    """What is left for no class at all."""
    return 1 - scores.sum(-1, keepdims=True)


def listed(boxes, scores):
    best = [scores.max(-1)[..., None], scores.argmax(-1)[..., None]]
    return np.concatenate((corners(boxes), *best), -1)


FAMILIES = {
    "YOLOv8": lambda b, s: {"y": np.concatenate((b, s), -1).transpose(0, 2, 1)},
    "YOLOv8 with masks": lambda b, s: {"y": np.concatenate((b, s, b - 300, b - 300), -1).transpose(0, 2, 1)},
    "YOLOv5": lambda b, s: {"y": np.concatenate((b, s.max(-1, keepdims=True), (s > 0.4).astype(float)), -1)},
    "YOLOv10": lambda b, s: {"y": listed(b, s)},
    "SSD": lambda b, s: {"boxes": corners(b) / 640, "scores": np.concatenate((rest(s), s), -1)},
    "DETR": lambda b, s: {"pred": b / 640, "logits": logit(np.concatenate((s, rest(s)), -1))},
    "DETR with sigmoids": lambda b, s: {"pred": b / 640, "logits": logit(s)},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_detector_matches_itself_and_no_dead_one(family):
    boxes, scores = scene()
    wanted = FAMILIES[family](boxes, scores)
    same = detections(wanted, wanted)
    assert same.layout == family.split(" ")[0]
    assert (same.original, same.matched, same.precision) == (2 * SAMPLES, 2 * SAMPLES, 1.0)
    dead = detections(wanted, FAMILIES[family](boxes, 0.03 * scores))
    assert (dead.matched, dead.precision) == (0, 0.0)
    assert dead.destroyed
    assert not same.destroyed


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_elsewhere_and_other_classes_are_no_matches(family):
    boxes, scores = scene()
    wanted = FAMILIES[family](boxes, scores)
    aside = boxes + np.array([100, 0, 0, 0])
    for found in (FAMILIES[family](aside, scores), FAMILIES[family](boxes, scores[..., [1, 2, 0]])):
        assert detections(wanted, found).matched == 0
    near = FAMILIES[family](boxes + np.array([1, -1, 2, 2]), scores)
    assert detections(wanted, near).precision == pytest.approx(1)


def test_what_is_found_on_top_lowers_the_precision():
    """One object for each sample, found in half of them, behind as many surer false ones: precision 1/2 up to there."""
    boxes, scores = np.full((4, 50, 4), 30.0), np.zeros((4, 50, 1))
    boxes[..., 0] = 50 + 100 * np.arange(50)
    scores[:, 0] = 0.8
    found = scores.copy()
    found[2:, 0] = 0
    found[:2, 0], found[2:, 7] = 0.5, 0.9
    layout = FAMILIES["YOLOv8"]
    told = detections(layout(boxes, scores), layout(boxes, found))
    assert (told.original, told.matched) == (4, 2)
    assert told.precision == pytest.approx(2 / 4 * 1 / 2)


def test_duplicates_are_one_detection():
    boxes, scores = scene()
    double = [np.concatenate((x, x), 1) for x in (boxes, scores)]
    told = detections(FAMILIES["YOLOv8"](*double), FAMILIES["YOLOv8"](*double))
    assert told.original == 2 * SAMPLES


def test_other_outputs_are_no_detections():
    rng = np.random.default_rng(0)
    for array in (rng.normal(0, 1, (4, 10)), rng.normal(0, 1, (4, 7, 64)), rng.normal(0, 1, (4, 3, 8, 8))):
        assert detections({"y": array}, {"y": array}) is None
    boxes, scores = scene()
    nothing = FAMILIES["YOLOv8"](boxes, 0.03 * scores)
    assert detections(nothing, nothing).precision is None


def test_steps_told_apart_in_four_classes_are_no_boxes():
    """Logits beside their probabilities, step by step, have the shapes of an SSD's outputs."""
    logits = np.random.default_rng(0).normal(size=(40, 12, 4))
    raised = np.exp(logits)
    likely = raised / raised.sum(-1, keepdims=True)
    outputs = {"logits": logits, "probs": likely}
    assert detections(outputs, outputs) is None


ONE_BY_ONE = [family for family in FAMILIES if family not in ("YOLOv5", "DETR")]  # scores of these are not products


@pytest.mark.parametrize("family", ONE_BY_ONE)
def test_what_is_left_of_scores_is_told_though_all_is_found(family):
    boxes, scores = scene()
    damped, raised = (detections(*(FAMILIES[family](boxes, s) for s in (scores, k * scores))) for k in (0.6, 1.1))
    assert damped.matched == damped.original
    assert damped.kept == pytest.approx(0.6)
    assert set(np.round(list(damped.classes.values()), 6)) == {0.6}
    assert (raised.kept, raised.true) == (pytest.approx(1), pytest.approx(1 / 1.1))


def rare():
    """Thirty sure objects of one class, five of another: boxes and scores of six samples."""
    boxes, scores = np.full((6, 60, 4), 30.0), np.full((6, 60, 2), 0.01)
    boxes[..., 0] = 50 + 100 * np.arange(60)
    for k in range(6):
        scores[k, 8 * k : 8 * k + 5, 0] = 0.95
        scores[k, 8 * k + 6, 1] = 0.4 if k else 0.01
    return boxes, scores


def test_a_class_that_is_lost_destroys_and_so_do_false_alarms():
    boxes, scores = rare()
    one_lost, alarmed = scores.copy(), scores.copy()
    one_lost[:, :, 1] = 0.01
    alarmed[:, 50:60, 0] = 0.9
    layout = FAMILIES["YOLOv8"]
    lost = detections(layout(boxes, scores), layout(boxes, one_lost))
    assert lost.classes == {0: pytest.approx(1), 1: 0.0}
    assert lost.kept > 0.9
    false = detections(layout(boxes, scores), layout(boxes, alarmed))
    assert (false.kept, false.true < 0.5) == (pytest.approx(1), True)
    assert lost.destroyed
    assert false.destroyed


def head(factor):
    """A detector that is given boxes and scores, the latter of each class times a factor."""
    text = """<ir_version: 8, opset_import: ["" : 17]> n
    (float[n,4,60] boxes, float[n,2,60] scores) => (float[n,6,60] y) {
        damped = Mul(scores, factor)
        y = Concat<axis = 1>(boxes, damped)
    }"""
    model = onnx.parser.parse_model(text)
    weights = np.array(factor, np.float32).reshape(1, 2, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "factor"))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("factor", "word"),
    [
        ((1, 1), "looks good"),
        ((0.95, 0.95), "looks good"),
        ((0.8, 0.8), "lower"),
        ((1, 0.7), "lower"),
        ((1, 0.3), "DESTROYED"),
    ],
)
def test_a_detector_whose_scores_are_damped_is_not_called_good(factor, word):
    """Every score stays over what counts as found, or most of the variance is left: neither tells."""
    boxes, scores = (x.transpose(0, 2, 1).astype(np.float32) for x in rare())
    told = judge(head((1, 1)), head(factor), Samples("some", [{"boxes": boxes, "scores": scores}]), {})
    assert told.worst[1].explained > 0.9
    assert told.detections.matched == told.detections.original or min(factor) * 0.4 < SURE
    assert quality.verdict(told.to_dict()).startswith(f"Quality: {word}")
    many = [np.tile(x, (6, 1, 1)) for x in (boxes, scores)]
    sure = judge(head((1, 1)), head(factor), Samples("some", [dict(zip(("boxes", "scores"), many, strict=True))]), {})
    assert quality.verdict(sure.to_dict()).startswith(f"Quality: {word.removeprefix('looks ')}")


def test_what_reads_as_classes_or_maps_is_no_detector():
    """A line of text read as classes of 40 steps, and shares that lie anywhere, have the shape of a YOLOv8."""
    rng = np.random.default_rng(0)
    steps = np.exp(rng.normal(0, 3, (4, 40, 600)))
    for array in (steps / steps.sum(-1, keepdims=True), rng.uniform(0, 1, (4, 20, 90)), rng.uniform(0, 1, (4, 90, 20))):
        assert detections({"y": array}, {"y": array}) is None
    boxes, scores = scene()
    shares = FAMILIES["YOLOv8"](boxes / 800, scores)
    assert detections(shares, shares).original == 2 * SAMPLES
