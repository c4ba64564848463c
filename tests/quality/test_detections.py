"""Detections are matched with the original's, whatever the family of the detector."""

import numpy as np
import pytest

from onnxslim_learn.quality.detections import detections

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
