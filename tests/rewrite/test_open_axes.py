"""What is open in a file stays open in the result: batches of any size go through as their samples alone do."""

import numpy as np
import onnxruntime as ort
import pytest

from nets.notation import Net
from onnxslim_learn.workflow import slim

FAR = 1000000000  # what exporters write for "up to the end"
BATCHES = (1, 2, 3, 7)  # the analysis sees 1, 2 and 3

NETS = {
    "a slice of every axis": Net(
        f"""(float[batch, 3, 10, 10] x) => (float[batch, 5, 6, 6] y) {{
            a = Conv(x, w1)
            b = Slice(a, [0, 0, 1, 1], [{FAR}, {FAR}, {FAR}, {FAR}], [0, 1, 2, 3])
            y = Conv(b, w2)
        }}""",
        "w1 8x3x3x3, w2 5x8x2x2",
    ),
    "axes in another order, one backwards": Net(
        f"""(float[batch, 3, 10, 10] x) => (float[batch, 5, 8, 8] y) {{
            a = Conv(x, w1)
            b = Slice(a, [0, -1, 0], [{FAR}, -{FAR}000, {FAR}], [0, 2, 1], [1, -1, 1])
            y = Conv(b, w2)
        }}""",
        "w1 8x3x3x3, w2 5x8x1x1",
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_batches_go_through_as_their_samples_do(name, tmp_path):
    found = slim.analyze(NETS[name].build())
    slimmed = slim.slim(found, slim.plan(found, {"macs": 0.6}))
    assert slimmed.plan.groups
    slimmed.save(tmp_path / "slim.onnx")
    session = ort.InferenceSession(tmp_path / "slim.onnx")
    images = np.random.default_rng(0).standard_normal((max(BATCHES), 3, 10, 10)).astype(np.float32)
    alone = np.concatenate([session.run(None, {"x": images[k : k + 1]})[0] for k in range(len(images))])
    for size in BATCHES:
        (together,) = session.run(None, {"x": images[:size]})
        np.testing.assert_allclose(together, alone[:size], rtol=1e-4, atol=1e-5)
