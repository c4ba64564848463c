"""Outputs are split where their meaning changes, so that large numbers hide no small ones."""

import numpy as np
import onnx
import pytest

from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.coupling.solver import couple
from onnxslim_learn.metrics import Channels, by_scale, deviation, worst
from onnxslim_learn.quality.channels import channels

ANCHORS, CLASSES, SAMPLES = 100, 3, 16


def model(text, **arrays):
    """A model from its text, with these initializers."""
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for name, array in arrays.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return parsed


def detector():
    """A head as that of YOLOv8: boxes in pixels beside scores, over the anchors of two strides."""
    rng = np.random.default_rng(0)
    arrays = {"stride": np.float32([[[8] * 64 + [16] * 16]])}
    for level in "ab":
        arrays |= {f"box{level}": rng.standard_normal((4, 6, 1, 1)).astype(np.float32)}
        arrays |= {f"cls{level}": rng.standard_normal((CLASSES, 6, 1, 1)).astype(np.float32)}
    arrays |= {"stem": rng.standard_normal((6, 3, 3, 3)).astype(np.float32), "two": np.float32([2])}
    arrays |= {"flat": np.int64([0, 0, -1]), "half": np.int64([0]), "mid": np.int64([2]), "end": np.int64([4])}
    arrays |= {"one": np.int64([1])}
    head = "".join(
        f"""
        b{k} = Conv(f{k}, box{k})
        c{k} = Conv(f{k}, cls{k})
        j{k} = Concat<axis=1>(b{k}, c{k})
        r{k} = Reshape(j{k}, flat)"""
        for k in "ab"
    )
    text = f"""n (float[batch,3,8,8] x) => (float[batch,{4 + CLASSES},80] y) {{
        fa = Conv<pads=[1,1,1,1]>(x, stem)
        fb = AveragePool<kernel_shape=[2,2], strides=[2,2]>(fa)
        {head}
        joined = Concat<axis=2>(ra, rb)
        box, cls = Split<axis=1>(joined, sizes)
        lt = Slice(box, half, mid, one)
        rb_ = Slice(box, mid, end, one)
        sum = Add(lt, rb_)
        middle = Div(sum, two)
        size = Sub(rb_, lt)
        decoded = Concat<axis=1>(middle, size)
        pixels = Mul(decoded, stride)
        scores = Sigmoid(cls)
        y = Concat<axis=1>(pixels, scores)
    }}"""
    return model(text, sizes=np.int64([4, CLASSES]), **arrays)


def outputs(rng):
    """What a detector puts out ``(samples, 4 + classes, anchors)``: boxes in pixels, few scores that are not near 0."""
    boxes = rng.uniform(0, 640, (1, 4, ANCHORS)) + rng.normal(0, 8, (SAMPLES, 4, ANCHORS))
    scores = rng.uniform(0, 1e-3, (SAMPLES, CLASSES, ANCHORS))
    at = rng.integers(0, ANCHORS, SAMPLES)
    scores[np.arange(SAMPLES), rng.integers(0, CLASSES, SAMPLES), at] = rng.uniform(0.7, 0.9, SAMPLES)
    return np.concatenate((boxes, scores), axis=1)


@pytest.mark.parametrize("known", [None, {"y": Channels(1, (2, 4))}], ids=["by scale", "by the graph"])
def test_pixels_do_not_hide_a_dead_score(known):
    rng = np.random.default_rng(1)
    wanted = outputs(rng)
    dead = wanted.copy()
    dead[:, :4] += rng.normal(0, 2, dead[:, :4].shape)
    dead[:, 4:] *= 0.03
    found = deviation({"y": wanted}, {"y": dead}, known)["y"]
    assert found.cosine > 0.9992
    assert found.destroyed
    name, block = worst({"y": found})
    assert (name, block.channels) == ("y", "4:7")
    assert block.explained < 0.1
    assert min(b.explained for b in found.blocks if b is not block) > 0.8
    alive = wanted + np.concatenate((rng.normal(0, 2, dead[:, :4].shape), rng.normal(0, 0.01, dead[:, 4:].shape)), 1)
    assert not deviation({"y": wanted}, {"y": alive}, known)["y"].destroyed


def test_boxes_around_nothing_do_not_count():
    """Where no score says that there is something, boxes are noise; where one does, they must be right."""
    rng = np.random.default_rng(2)
    wanted = outputs(rng)
    something = wanted[:, 4:].max(axis=1, keepdims=True) > 0.5
    for where, destroyed in ((~something, False), (something, True)):
        moved = wanted.copy()
        moved[:, :4] += np.where(where, rng.normal(0, 40, moved[:, :4].shape), 0)
        assert deviation({"y": wanted}, {"y": moved}, {"y": Channels(1, (4,))})["y"].destroyed == destroyed


def test_cuts_are_those_of_the_concatenations_along_the_channels():
    assert channels(couple(load(detector()), sensitive=False)) == {"y": Channels(1, (2, 4))}


def test_cuts_survive_transposing_and_flattening():
    text = """n (float[batch,3,4,4] x) => (float[batch,16,5] y) {
        a = Conv(x, wa)
        b = Conv(x, wb)
        s = Sigmoid(b)
        c = Concat<axis=1>(a, s)
        t = Transpose<perm=[0,2,3,1]>(c)
        y = Reshape(t, to)
    }"""
    wide = {f"w{k}": np.ones((n, 3, 1, 1), np.float32) for k, n in (("a", 4), ("b", 1))}
    net = model(text, to=np.int64([0, -1, 5]), **wide)
    assert channels(couple(load(net), sensitive=False)) == {"y": Channels(2, (4,))}


def test_a_layer_ends_the_walk():
    text = """n (float[batch,4] x) => (float[batch,6] y) {
        a = MatMul(x, w)
        b = MatMul(x, w)
        c = Concat<axis=1>(a, b)
        y = MatMul(c, v)
    }"""
    net = model(text, w=np.ones((4, 3), np.float32), v=np.ones((6, 6), np.float32))
    assert channels(couple(load(net), sensitive=False)) == {"y": Channels(1)}


def test_channels_of_one_scale_are_one_block_and_rare_scores_too():
    rng = np.random.default_rng(0)
    alike = rng.normal(0, np.linspace(1, 5, 12), (64, 12))
    assert [part.tolist() for part in by_scale(alike, 1)] == [list(range(12))]
    apart = np.concatenate((100 * alike[:, :3], alike[:, 3:]), axis=1)
    assert [part.tolist() for part in by_scale(apart, 1)] == [[0, 1, 2], list(range(3, 12))]
    rare = np.concatenate((rng.uniform(0, 1, (64, 2)), rng.uniform(0, 1e-4, (64, 2))), axis=1)
    assert len(by_scale(rare, 1)) == 1


def test_a_constant_channel_is_judged_by_its_magnitude_alone():
    grid = np.tile(np.arange(1.0, 9.0), (5, 1))
    assert deviation({"y": grid}, {"y": grid})["y"].worst == 1
    assert deviation({"y": grid}, {"y": 1.1 * grid})["y"].worst == pytest.approx(0.99)
    assert deviation({"y": 0 * grid}, {"y": grid})["y"].destroyed
