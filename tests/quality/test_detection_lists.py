"""Detections that a model lists itself are matched by class and overlap, whatever their order and number."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxslim_learn import detection_lists, metrics
from onnxslim_learn.data.open import open_source
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.quality.detections import detections
from onnxslim_learn.quality.judgement import Samples, judge
from onnxslim_learn.report.sections import quality
from onnxslim_learn.rewrite.verify import verify
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim as work
from onnxslim_learn.workflow.slim import analyze

SAMPLES, ROWS, SIZE = 6, 40, 24.0


def rows(seed=0, count=ROWS):
    """Rows of corners, score, class ``(samples, rows, 6)`` that do not overlap, best first; many scores are alike."""
    rng = np.random.default_rng(seed)
    found = np.zeros((SAMPLES, count, 6))
    for sample in found:
        places = rng.permutation(100)[:count]
        sample[:, :2] = 40.0 * np.stack((places % 10, places // 10), 1) + rng.uniform(0, 8, (count, 2))
        sample[:, 2:4] = sample[:, :2] + SIZE
        sample[:, 4] = np.sort(np.round(rng.uniform(0.3, 0.9, count), 1))[::-1]
        sample[:, 5] = rng.integers(0, 3, count)
    return found


def sized(boxes):
    return np.concatenate(((boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]), -1)


FORMS = {
    "one output": lambda r: {"y": r},
    "torchvision": lambda r: {"boxes": r[..., :4], "labels": r[..., 5].astype(np.int64), "scores": r[..., 4]},
    "DETR": lambda r: {"s": r[..., 4], "c": r[..., 5].astype(np.int64), "b": sized(r[..., :4]) / 440},
    "TensorFlow": lambda r: {
        "detection_anchor_indices": np.broadcast_to(np.arange(r.shape[1]) * 7.0, r.shape[:2]),
        "detection_boxes": r[..., [1, 0, 3, 2]] / 440,
        "detection_classes": r[..., 5] + 1,
        "detection_scores": r[..., 4],
        "num_detections": np.full(len(r), float(r.shape[1])),
        "masks": np.random.default_rng(1).random((*r.shape[:2], 3, 3)),
    },
}


def compared(wanted, actual):
    """What is matched of the list, and the detections."""
    told = metrics.deviation(wanted, actual)
    (one,) = told.values()
    assert one.kind == "detections"
    return one.worst, detections(wanted, actual)


@pytest.mark.parametrize("form", FORMS)
def test_order_does_not_count_nor_do_ties(form):
    rng, found = np.random.default_rng(3), rows()
    mixed = np.stack([sample[rng.permutation(ROWS)] for sample in found])
    assert not np.array_equal(mixed, found)
    shown = [FORMS[form](side) for side in (found, mixed)]
    for wanted, actual in ((shown[0], shown[1]), (shown[1], shown[0])):
        share, same = compared(wanted, actual)
        assert share == pytest.approx(1)
        assert (same.original, same.matched) == (SAMPLES * ROWS, SAMPLES * ROWS)
        assert (same.kept, same.true) == (pytest.approx(1), pytest.approx(1))
        assert same.precision == pytest.approx(1)
    assert detections(shown[0], shown[1]) == detections(shown[0], shown[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("left", [0, 1, 10, 39])
def test_rows_that_are_dropped_lower_what_is_kept_by_their_scores(form, left):
    found = rows()
    share, told = compared(FORMS[form](found), FORMS[form](found[:, :left]))
    scores = found[..., 4]
    assert told.kept == pytest.approx(scores[:, :left].sum() / scores.sum())
    assert share == pytest.approx(np.square(scores[:, :left]).sum() / np.square(scores).sum())
    assert told.true == (pytest.approx(1) if left else None)
    back_share, back = compared(FORMS[form](found[:, :left]), FORMS[form](found)) if left else (share, told)
    assert back_share == pytest.approx(share)
    if left:
        assert (back.kept, back.true) == (pytest.approx(1), pytest.approx(told.kept))


@pytest.mark.parametrize("form", FORMS)
def test_boxes_aside_and_other_classes_are_no_matches_and_near_ones_are(form):
    found = rows()
    aside, near, other, damped = (found.copy() for _ in range(4))
    aside[:, ::2, :4] += SIZE / 3 + 0.1
    near[..., :4] += 1.0
    other[..., 5] = (other[..., 5] + 1) % 3
    damped[..., 4] *= 0.8
    even = found[:, 1::2, 4]
    share, told = compared(FORMS[form](found), FORMS[form](aside))
    assert share == pytest.approx(np.square(even).sum() / np.square(found[..., 4]).sum())
    assert told.kept == pytest.approx(even.sum() / found[..., 4].sum())
    assert [compared(FORMS[form](found), FORMS[form](side))[0] for side in (near, other)] == [pytest.approx(1), 0]
    assert compared(FORMS[form](found), FORMS[form](damped))[0] == pytest.approx(0.8)


def test_objects_that_are_listed_several_times_count_once():
    """As a TopK without a suppression does: how often says nothing, nor which of two equals comes first."""
    found = rows(count=10)
    again = np.repeat(found, 3, axis=1)
    again[:, ::3, :2] += 2.0
    again[:, ::3, 4] -= 0.05
    for wanted, actual in ((found, again), (again, found), (again, again[:, ::-1])):
        share, told = compared(*(FORMS["torchvision"](side) for side in (wanted, actual)))
        assert share == pytest.approx(1)
        assert (told.original, told.kept) == (10 * SAMPLES, pytest.approx(1))


def test_scores_that_fall_are_told_as_a_list_without_classes():
    found = rows()
    wanted, other = ({"boxes": r[..., :4], "conf": r[..., 4]} for r in (found, found[:, ::-1]))
    assert compared(wanted, other)[0] == pytest.approx(1)
    assert detection_lists.listing(other) is None  # as of places that stay where they are


IMPLAUSIBLE = {
    "scores over 1": lambda r: {"b": r[..., :4], "s": 2 * r[..., 4], "c": r[..., 5]},
    "scores below 0": lambda r: {"b": r[..., :4], "s": r[..., 4] - 0.5, "c": r[..., 5]},
    "boxes without order": lambda r: {"b": np.random.default_rng(2).normal(size=(*r.shape[:2], 4)), "s": r[..., 4]},
    "shares of all": lambda r: {"b": np.random.default_rng(2).random((*r.shape[:2], 4)), "s": r[..., 4]},
    "four classes": lambda r: {"b": np.eye(4)[r[..., 5].astype(int)], "s": r[..., 4], "c": r[..., 5].astype(int)},
    "one output with fractions": lambda r: {"y": r + np.array([0, 0, 0, 0, 0, 0.5])},
    "one output without order": lambda r: {"y": r[..., [2, 3, 0, 1, 4, 5]]},
    "no scores": lambda r: {"b": r[..., :4], "c": r[..., 5]},
}


@pytest.mark.parametrize("what", IMPLAUSIBLE)
def test_what_is_no_list_is_judged_number_by_number(what):
    wanted = IMPLAUSIBLE[what](rows())
    actual = {name: array[:, ::-1] for name, array in wanted.items()}
    numbers = {name for name, array in wanted.items() if array.dtype.kind == "f"}
    told = metrics.deviation(wanted, actual)
    assert set(told) == numbers
    for name in numbers:
        assert told[name] == metrics.deviation({name: wanted[name]}, {name: actual[name]})[name]
        assert told[name].kind != "detections"


def test_lists_of_several_lengths_without_an_axis_of_samples_are_filled_up():
    found, counts = rows(), [3, 0, 40, 12, 7, 1]
    parts = {"boxes": [], "labels": [], "scores": []}
    for sample, count in zip(found, counts, strict=True):
        for name, array in FORMS["torchvision"](sample[None, :count]).items():
            parts[name].append(array[0])
    joined = metrics.comparable(parts, [1] * SAMPLES)
    assert {name: array.shape for name, array in joined.items()} == {
        "boxes": (SAMPLES, 40, 4),
        "labels": (SAMPLES, 40),
        "scores": (SAMPLES, 40),
    }
    assert (joined["scores"] > 0).sum(axis=1).tolist() == counts
    share, told = compared(joined, FORMS["torchvision"](found))
    assert told.kept == pytest.approx(1)
    assert share == pytest.approx(told.true, abs=0.1)
    assert share < 0.5


def test_one_detection_in_every_image_is_a_list_where_images_come_one_by_one():
    sure = FORMS["torchvision"](rows(count=1))
    parts = {name: list(array) for name, array in sure.items()}
    assert metrics.comparable(parts, [1] * SAMPLES)["boxes"].shape == (SAMPLES, 1, 4)
    share, _ = compared(metrics.comparable(parts, [1] * SAMPLES), FORMS["torchvision"](rows(count=1)))
    assert share == pytest.approx(1)
    del parts["labels"]  # then it may be a box and a number of every image
    assert metrics.comparable(parts, [1] * SAMPLES)["boxes"].shape == (SAMPLES, 4)


def test_one_box_for_each_sample_is_no_list():
    rng = np.random.default_rng(0)
    parts = {"box": [rng.random((4, 4))] * 2, "score": [rng.random(4)] * 2, "label": [np.arange(4)] * 2}
    assert {name: array.shape for name, array in metrics.comparable(parts, [4, 4]).items()} == {
        "box": (8, 4),
        "score": (8,),
    }


def detector(ranked):
    """A small net of random weights whose boxes lie about a grid, with a TopK, or a NonMaxSuppression of one image."""
    nodes = [
        ("Conv", "x w1 b1", "h", {"pads": [1] * 4, "strides": [2, 2]}),
        ("Relu", "h", "r", {}),
        ("Conv", "r w2 b2", "m", {"pads": [1] * 4, "strides": [2, 2]}),
        ("Reshape", "m seven", "f", {}),
        ("Transpose", "f", "t", {"perm": [0, 2, 1]}),
        ("Split", "t parts", "d s", {"axis": 2}),
        ("Tanh", "d", "u", {}),
        ("Mul", "u tenth", "o", {}),
        ("Add", "o anchors", "corners", {}),
        ("Sigmoid", "s", "p", {}),
    ]
    top = [
        ("ReduceMax", "p", "best", {"axes": [2], "keepdims": 0}),
        ("ArgMax", "p", "number", {"axis": 2, "keepdims": 0}),
        ("TopK", "best count", "scores i", {"axis": 1}),
        ("GatherElements", "number i", "labels", {"axis": 1}),
        ("Unsqueeze", "i two", "k", {}),
        ("Expand", "k four", "e", {}),
        ("GatherElements", "corners e", "boxes", {"axis": 1}),
    ]
    suppressed = [
        ("Transpose", "p", "v", {"perm": [0, 2, 1]}),
        ("NonMaxSuppression", "corners v most half least", "chosen", {}),
        ("Gather", "chosen one", "labels", {"axis": 1}),
        ("Gather", "chosen second", "i", {"axis": 1}),
        ("Squeeze", "corners zero", "flat", {}),
        ("Gather", "flat i", "boxes", {"axis": 0}),
        ("GatherND", "v chosen", "scores", {}),
    ]
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(64, 2) / 8
    constants = {
        "w1": rng.normal(0, 0.4, (24, 3, 3, 3)), "b1": rng.normal(0, 0.1, 24),
        "w2": rng.normal(0, 0.3, (7, 24, 3, 3)), "b2": np.full(7, -0.5),
        "anchors": np.concatenate((grid, grid + 0.125), 1)[None], "tenth": np.float32(0.02), "half": np.float32(0.5),
        "least": np.float32(0.55),
    }  # fmt: skip
    counts = {"seven": [0, 7, -1], "parts": [4, 3], "count": [20], "two": [2], "four": [1, 1, 4], "most": [50]}
    counts |= {"one": 1, "second": 2, "zero": [0]}
    used = [*nodes, *(top if ranked else suppressed)]
    needed = {name for _, inputs, *_ in used for name in inputs.split()}
    held = {name: np.asarray(a, np.float32) for name, a in constants.items()}
    held |= {name: np.asarray(a, np.int64) for name, a in counts.items()}
    floats, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    many = ["n", 20] if ranked else ["k"]
    kinds = [("boxes", floats, [*many, 4]), ("scores", floats, many), ("labels", whole, many)]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ins.split(), outs.split(), **more) for op, ins, outs, more in used],
        "detector",
        [onnx.helper.make_tensor_value_info("x", floats, ["n" if ranked else 1, 3, 32, 32])],
        [onnx.helper.make_tensor_value_info(*one) for one in kinds],
        [onnx.numpy_helper.from_array(a, name) for name, a in held.items() if name in needed],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def _listed(model, feeds):
    """All that a model lists, as tuples of sample, class, corners and score."""
    data = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    found, sample = [], 0
    for feed in feeds:
        boxes, scores, labels = session.run(["boxes", "scores", "labels"], feed)
        batch = zip(boxes, scores, labels, strict=True) if boxes.ndim == 3 else [(boxes, scores, labels)]
        for one in batch:
            found += [(sample, int(c), *map(float, box), float(s)) for box, s, c in zip(*one, strict=True)]
            sample += 1
    return sorted(found, key=lambda row: -row[-1])


def _same(one, other):
    """Whether two boxes are of one sample and class, and share more than half of what both cover."""
    if one[:2] != other[:2]:
        return False
    wide, high = (max(min(one[k + 2], other[k + 2]) - max(one[k], other[k]), 0) for k in (2, 3))
    covered = sum((row[4] - row[2]) * (row[5] - row[3]) for row in (one, other)) - wide * high
    return wide * high > 0.5 * covered


def _scores_matched(wanted, actual):
    """The share of squared scores that is left, the first match counting: of either side, the lesser."""
    left, both = list(wanted), []
    for row in actual:
        match = next((other for other in left if _same(row, other)), None)
        if match is not None:
            left.remove(match)
            both.append((match[-1], row[-1]))
    sides = [sum(row[-1] ** 2 for row in side) for side in (wanted, actual)]
    return min(sum(pair[k] * min(pair) for pair in both) / sides[k] for k in range(2))


@pytest.mark.parametrize("ranked", [True, False])
def test_a_real_cut_is_judged_by_what_is_matched(ranked, tmp_path):
    """The more channels go, the less is matched; how much, is counted once more with what onnxruntime lists."""
    analysis = analyze(detector(ranked))
    source = np.random.default_rng(0).normal(0, 1, (32, 3, 32, 32)).astype(np.float32)
    known = Calibration(analysis.coupling, open_source({"x": source}, analysis.graph))
    shares = []
    for gone in (range(2), range(12), range(23)):
        slimmed = work.slim(analysis, Plan({"w1:0": [k for k in range(24) if k not in gone]}, {"w1:0": 24}))
        slimmed.save(tmp_path / "m.onnx")
        assert verify(slimmed.removal, tmp_path / "m.onnx").passed
        repaired = slimmed.repair(known)
        assert set(repaired.after) == {"scores"}
        assert metrics.total(repaired.after) <= metrics.total(repaired.before) or not repaired.kept
        slimmed.save(tmp_path / "m.onnx")
        told = slimmed.judge(known, tmp_path / "m.onnx")
        assert told.outputs["scores"].kind == "detections"
        assert told.detections.layout == "list"
        shares.append(told.outputs["scores"].worst)
        by_hand = _scores_matched(
            *(_listed(side, known.held.feeds) for side in (detector(ranked), tmp_path / "m.onnx"))
        )
        assert shares[-1] == pytest.approx(by_hand, abs=0.05)
        assert told.destroyed == (told.detections.destroyed or shares[-1] < 0.5)
        assert quality.figures(told.to_dict()["outputs"]["scores"])[0].startswith("detections matched")
    assert shares[0] > 0.75 > shares[1] > 0.5 > shares[2]


def test_counts_that_differ_are_compared_whatever_the_batch():
    """The detector with a suppression lists another number of rows for every image, and others after a change."""
    whole, changed = (detector(ranked=False) for _ in range(2))
    (bias,) = [one for one in changed.graph.initializer if one.name == "b2"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(7, -0.4, np.float32), "b2"))
    feeds = [{"x": x[None]} for x in np.random.default_rng(0).normal(0, 1, (8, 3, 32, 32)).astype(np.float32)]
    told = judge(whole.SerializeToString(), changed.SerializeToString(), Samples("some", feeds), {})
    assert set(told.outputs) == {"scores"}
    assert 0.5 < told.outputs["scores"].worst < 1
    same = judge(whole.SerializeToString(), whole.SerializeToString(), Samples("some", feeds), {})
    assert same.outputs["scores"].worst == pytest.approx(1)
    assert (same.detections.original, same.samples) == (same.detections.matched, 8)
    nothing = detector(ranked=False)
    (bias,) = [one for one in nothing.graph.initializer if one.name == "b2"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(7, -99, np.float32), "b2"))
    lost = judge(whole.SerializeToString(), nothing.SerializeToString(), Samples("some", feeds), {})
    assert lost.destroyed
    none = judge(nothing.SerializeToString(), whole.SerializeToString(), Samples("some", feeds), {})
    assert not none.destroyed
    assert quality.verdict(none.to_dict())
