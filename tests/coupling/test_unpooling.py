"""Values that the newer exporter puts back by places in the whole tensor are put back by rows: channels are cut."""

import pytest

from nets.notation import Net, feeds
from onnxslim_learn.coupling import normal_form
from onnxslim_learn.workflow import slim
from tests import laws

BEFORE = """{
    a = Conv<pads=[1,1,1,1]>(x, w1, b1)
    m, flat = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)
    same, each = MaxPool<kernel_shape=[1,1]>(a)
    first = Slice(each, [START, 0], [END, 1], [2, 3])
    inside = Sub(flat, first)
"""
AFTER = """
    p = Add(inside, starts)
    pf = Reshape(p, [-1])
    i = Unsqueeze(pf, [-1])
    like = Shape(a)
    z = ConstantOfShape(like)
    zf = Reshape(z, [-1])
    mf = Reshape(m, [-1])
    s = ScatterND(zf, i, mf)
    u = Reshape(s, [-1, 6, 4, 4])
    y = Conv(u, w2, b2)
}"""
COUNTED = """
    n = Shape<start=0, end=1>(x)
    k = Squeeze(n)
    rows = Mul(k, {6})
    r = Range({0}, rows, {1})
    rv = Reshape(r, [-1, 6, 1, 1])
    starts = Mul(rv, {LENGTH})
"""
WEIGHTS = "w1 6x3x3x3, b1 6, w2 5x6x1x1, b2 5"


def net(batch="batch", start=0, length=16):
    """Return a net that pools, and puts values back."""
    head = f"(float[{batch},3,4,4] x) => (float[{batch},5,4,4] y) "
    text = (
        (head + BEFORE + COUNTED + AFTER)
        .replace("START", str(start))
        .replace("END", str(start + 1))
        .replace("LENGTH", str(length))
    )
    return Net(text, WEIGHTS).build()


def volumes():
    """Return a net that does so along three axes."""
    text = (
        f"(float[2,3,4,4,4] x) => (float[2,5,4,4,4] y) {BEFORE}{COUNTED}{AFTER}".replace("START", "0")
        .replace("END", "1")
        .replace("LENGTH", "64")
    )
    for plane, volume in {
        "1,1,1,1": "1,1,1,1,1,1",
        "=[2,2]": "=[2,2,2]",
        "=[1,1]": "=[1,1,1]",
        "[0, 0], [1, 1], [2, 3]": "[0, 0, 0], [1, 1, 1], [2, 3, 4]",
        "[-1, 6, 1, 1]": "[-1, 6, 1, 1, 1]",
        "[-1, 6, 4, 4]": "[-1, 6, 4, 4, 4]",
    }.items():
        text = text.replace(plane, volume)
    return Net(text, "w1 6x3x3x3x3, b1 6, w2 5x6x1x1x1, b2 5").build()


@pytest.mark.parametrize("batch", [2, "batch"])
def test_channels_that_are_pooled_and_put_back_are_cut(batch):
    model = net(batch)
    laws.assert_cut_is_masked(model, [feeds(model, batch=size) for size in ((2,) if batch == 2 else (1, 5))])


def test_channels_of_volumes_are_cut_alike():
    model = volumes()
    laws.assert_cut_is_masked(model, [feeds(model)])
    assert "ScatterND" not in [node.op_type for node in normal_form.load(model).nodes]


@pytest.mark.parametrize("other", [{"start": 1}, {"length": 15}], ids=["another first place", "other lengths"])
def test_places_that_count_otherwise_stay(other):
    model = net(**other)
    assert "ScatterND" in [node.op_type for node in normal_form.load(model).nodes]
    reasons = {group.pin.reason for group in slim.analyze(model).groups if group.pin is not None}
    assert any("ScatterND" in reason for reason in reasons)
