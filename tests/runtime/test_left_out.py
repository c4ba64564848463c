"""What stands where a mask leaves places out changes nothing: not what is found, not what a model becomes."""

import numpy as np
import pytest

from nets.notation import Net
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.repair.sequential import repair
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.rewrite.unfuse import unfuse
from onnxslim_learn.runtime.left_out import left_out
from onnxslim_learn.select import activation_statistics
from onnxslim_learn.workflow import slim as api

NEAR = 1e-5  # what is summed up in another order differs by rounding

BODY = """
    h = MatMul(x, w0) a = Relu(h) c = MatMul(a, w1)
    long = Unsqueeze(mask, [2]) m = Cast<to=1>(long) known = Mul(c, m)
"""
POOLED = BODY + "sum = ReduceSum<keepdims=0>(known, [1]) y = MatMul(sum, w2)"
BY_TOKEN = BODY + "some = ReduceSum<keepdims=1>(known, [1]) b = Add(c, some) y = MatMul(b, w2)"
IGNORED = BODY + "sum = ReduceSum<keepdims=0>(c, [1]) y = MatMul(sum, w2)"
ENDS = {POOLED: "[n,5]", BY_TOKEN: "[n,t,5]", IGNORED: "[n,5]"}
WEIGHTS = "w0 4x12, w1 12x6, w2 6x5"


def build(body):
    """A layer for every place, and what is made of places together."""
    return Net(f"(float[n,t,4] x, int64[n,t] mask) => (float{ENDS[body]} y) {{ {body} }}", WEIGHTS)


def samples(fill, count=8):
    """Batches of sequences of several lengths, with other numbers where they have ended."""
    rng, other = np.random.default_rng(0), np.random.default_rng(fill)
    batches = []
    for _ in range(count):
        x, lengths = rng.standard_normal((8, 9, 4)), rng.integers(2, 9, 8)
        mask = np.arange(9) < lengths[:, None]
        x = np.where(mask[..., None], x, 5 * other.standard_normal(x.shape))
        batches.append({"x": x.astype(np.float32), "mask": mask.astype(np.int64)})
    return batches


@pytest.fixture(params=[POOLED, BY_TOKEN], ids=["pooled", "by token"])
def analysis(request):
    return api.analyze(build(request.param).build())


def test_places_are_found_by_what_moves(analysis):
    feeds = samples(0)
    model = unfuse(analysis.coupling.graph.model)
    found = left_out(model, feeds, ["h", "c", "known", "m"])
    assert {name: found.axes.get(name) for name in ("h", "c", "known", "m")} == {
        "h": 1,
        "c": 1,
        "known": None,
        "m": None,
    }
    rows = found.rows("h", 3, (8, 9, 12))
    assert np.array_equal(rows[..., 0], feeds[3]["mask"] == 1)


def test_a_mask_that_leaves_nothing_out_is_none():
    analysis = api.analyze(build(IGNORED).build())
    assert not left_out(unfuse(analysis.coupling.graph.model), samples(0), ["h"]).axes


def test_what_ends_are_filled_up_with_changes_no_weight_and_no_moment(analysis):
    written, moments = [], []
    cut = api.realize(analysis, Plan({"w0:1": [0, 2, 3, 7, 8]}, {"w0:1": 12}))
    for fill in (1, 2):
        model = slim(cut)
        told = repair(cut, model, samples(fill))
        assert told.kept and told.nodes
        written.append({name: value.const_value.numpy() for name, value in model.graph.initializers.items()})
        moments.append([one.mean for one in activation_statistics.collect(analysis.coupling, samples(fill))])
    for name, one in written[0].items():
        assert np.allclose(one, written[1][name], atol=NEAR)
    assert all(np.allclose(one, other, atol=NEAR) for one, other in zip(*moments, strict=True))
