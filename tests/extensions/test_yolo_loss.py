"""A detector is trained with boxes by a loss of one's own, on labels of which images have differently many."""

import numpy as np
import pytest
import torch

from examples.yolo_loss import loss, overlaps
from nets.notation import Net
from onnxslim_learn.analysis import analyze
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.data.open import open_source
from onnxslim_learn.errors import InputError
from onnxslim_learn.train import losses
from onnxslim_learn.train import samples as pool
from onnxslim_learn.train.loop import LoopTask, train
from onnxslim_learn.train.optimizer import Recipe

NET = Net(
    """(float[batch, 3, 8, 8] x) => (float[batch, 6, 16] y)
    <int64[3] rows = {0, 6, -1}, int64[2] parts = {4, 2}> {
      a = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(x, w1, b1)
      r = Relu(a)
      h = Conv(r, w2, b2)
      f = Reshape(h, rows)
      bs, ss = Split<axis=1>(f, parts)
      z = Softplus(bs)
      s = Sigmoid(ss)
      y = Concat<axis=1>(z, s)
    }""",
    "w1 8x3x3x3, b1 8, w2 6x8x1x1, b2 6",
)


def samples():
    """Images with none to two objects each."""
    rng = np.random.default_rng(0)
    count = rng.integers(0, 3, 12)
    low = [rng.uniform(0, 4, (n, 2)) for n in count]
    boxes = [np.concatenate([one, one + 3], 1).astype(np.float32) for one in low]
    labels = {"boxes": boxes, "classes": [rng.integers(0, 2, n) for n in count]}
    return {"x": rng.normal(size=(12, 3, 8, 8)).astype(np.float32), "labels": labels}


def task(spec, steps=4):
    analysis = analyze(NET.build())
    store, _ = pool.gather(open_source(samples(), analysis.graph), 0)
    objective = losses.objective(spec, {}, labelled=store.labelled)
    return LoopTask(bridge(analysis), objective, store, None, Recipe(steps, 4, rate=0.06))


def test_a_detector_learns_boxes():
    history = train(task("examples.yolo_loss:loss", steps=24))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_boxes_go_where_they_should():
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(1, 6, 30, generator=generator).requires_grad_()
    truth = torch.tensor([[2.0, 3.0, 8.0, 9.0], [20.0, 20.0, 28.0, 24.0]])
    labels = {"boxes": [truth], "classes": [torch.tensor([1, 0])]}
    optimizer = torch.optim.Adam([free], lr=0.1)
    for _ in range(100):
        boxes = torch.cat([free[:, :2] * 5 + 12, 8 * free[:, 2:4].exp(), free[:, 4:].sigmoid()], 1)
        optimizer.zero_grad()
        loss({"y": boxes}, labels).backward()
        optimizer.step()
    centres, sizes, scores = boxes[0, :2].T, boxes[0, 2:4].T, boxes[0, 4:].T
    corners = torch.cat([centres - sizes / 2, centres + sizes / 2], 1)
    for thing, name in zip(truth, (1, 0), strict=True):
        assert overlaps(corners[scores[:, name].argmax()], thing)[0] > 0.8


def test_losses_that_want_rows_say_so():
    with pytest.raises(InputError, match="cross-entropy: labels of samples have several parts"):
        train(task("cross-entropy"))
