"""Scores from labels against losses of models in which a unit is turned down by hand."""

import numpy as np
import onnx
import pytest

from onnxslim_learn.data.open import open_source
from onnxslim_learn.errors import InputError
from onnxslim_learn.select import criteria
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim
from tests import laws

STEP = 1e-2
TEXT = """<ir_version: 8, opset_import: ["" : 17]> n (float[batch,2,6,6] x) => (float[batch,3] y) {
    a = Conv(x, w1)
    b = BatchNormalization(a, g, s, m, v)
    c = Sigmoid(b)
    d = GlobalAveragePool(c)
    e = Flatten(d)
    y = MatMul(e, w2)
}"""
SHAPES = {"w1": (5, 2, 3, 3), "g": (5,), "s": (5,), "m": (5,), "v": (5,), "w2": (5, 3)}


@pytest.fixture(scope="module")
def net():
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}
    weights["v"] = np.abs(weights["v"]) + 0.5
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in weights.items())
    x = rng.normal(size=(20, 2, 6, 6)).astype(np.float32)
    return model, weights, x, rng.integers(0, 3, 20)


def losses(model, weights, x, labels, unit, gate):
    """Cross-entropy of every sample with a unit's output multiplied by a gate, in onnxruntime."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    w2 = weights["w2"].copy()
    w2[unit] *= gate
    for tensor in changed.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(onnx.numpy_helper.from_array(w2, "w2"))
    y = laws.run(changed, {"x": x})["y"].astype(np.float64)
    return np.log(np.exp(y).sum(axis=1)) - y[np.arange(len(y)), labels]


@pytest.mark.parametrize(("criterion", "of"), [("taylor", np.abs), ("fisher", lambda g: g**2 / 2)])
def test_scores_are_those_of_finite_differences(net, criterion, of):
    model, weights, x, labels = net
    analysis = slim.analyze(model)
    calibration = Calibration(analysis.coupling, open_source({"x": x, "labels": labels}, analysis.graph))
    found = criteria.scores(analysis, analysis.groups, criterion, calibration)
    group = analysis.group("w1:0")
    for unit in range(group.width):
        up, down = (losses(model, weights, x, labels, unit, 1 + s) for s in (STEP, -STEP))
        wanted = of((up - down) / (2 * STEP)).mean()
        assert found[group.units[unit]] == pytest.approx(wanted, rel=2e-2, abs=1e-5)


def test_the_units_with_the_lowest_scores_go(net):
    model, _, x, labels = net
    analysis = slim.analyze(model)
    calibration = Calibration(analysis.coupling, open_source({"x": x, "labels": labels}, analysis.graph), work=0)
    plan = slim.plan(analysis, {"macs": 0.65}, criterion="fisher", calibration=calibration)
    group = analysis.group("w1:0")
    found = criteria.scores(analysis, analysis.groups, "fisher", calibration)[group.units]
    assert plan.groups["w1:0"] == sorted(np.argsort(-found)[: len(plan.groups["w1:0"])].tolist())


def test_labels_are_asked_for(net):
    model, _, x, _ = net
    analysis = slim.analyze(model)
    calibration = Calibration(analysis.coupling, open_source({"x": x}, analysis.graph))
    with pytest.raises(InputError, match="labels"):
        slim.plan(analysis, {"macs": 0.5}, criterion="taylor", calibration=calibration)
    with pytest.raises(InputError, match="Give data"):
        slim.plan(analysis, {"macs": 0.5}, criterion="taylor")
