"""The worth of a unit is the curvature of the divergence by its gate."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from onnxslim_learn.analysis import analyze
from onnxslim_learn.bridge import gates
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.train import losses, unit_sensitivity
from onnxslim_learn.train import samples as pool
from tests.train.test_loop import NET


def divergence(wanted, found, kind, variance):
    if kind == "numbers":
        return (found - wanted).square().mean(1).mean() / variance / 2
    return F.kl_div(F.log_softmax(found, 1), F.log_softmax(wanted, 1), log_target=True, reduction="batchmean")


@pytest.mark.parametrize("kind", ["logits", "numbers"])
def test_worth_is_the_curvature(kind):
    found = analyze(NET.build())
    groups = [group for group in found.groups if group.pin is None]
    x = np.random.default_rng(0).normal(size=(2048, 3, 6, 6)).astype(np.float32)
    samples, _ = pool.gather(open_source({"x": x}, found.graph, DataSettings(samples=2048)), 0)
    module = bridge(found).double()
    opened = gates.attach(module, found, groups)
    with torch.no_grad():
        inputs = torch.from_numpy(np.concatenate([shelf.inputs["x"] for shelf in samples.shelves])).double()
        wanted = module(inputs)["y"]
        variance = float(wanted.var(correction=0))
        curvatures = []
        for gate in opened.values():
            for unit in range(len(gate)):
                gate[unit] = 1 + 1e-3
                curvatures.append(2e6 * float(divergence(wanted, module(inputs)["y"], kind, variance)))
                gate[unit] = 1
    known = {"y": losses.Taught(kind, variance)}
    drawn = [unit_sensitivity.unit_sensitivity(found, groups, samples, known, seed=seed) for seed in range(8)]
    measured = torch.stack(drawn).mean(0).numpy()
    np.testing.assert_allclose(measured / measured.mean(), curvatures / np.mean(curvatures), rtol=0.25, atol=0.05)
