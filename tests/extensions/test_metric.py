"""A metric of one's own: a function of outputs and labels, told before and after, and which way is better."""

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.registry import METRICS

SAMPLES = 64


def spread(outputs, labels):
    """How far outputs lie apart; the more the better."""
    return float(np.std(outputs))


def distance(outputs, labels):
    """Mean distance from what is labelled; the less the better."""
    return float(np.abs(outputs.mean(axis=tuple(range(1, outputs.ndim))) - labels).mean())


distance.higher_is_better = False


@pytest.fixture
def net(tmp_path):
    onnx.save(NETS["chain"].build(), tmp_path / "net.onnx")
    (shape,) = osl.analyze(tmp_path / "net.onnx").graph.shapes.nominal.inputs.items()
    name, sizes = shape
    inputs = np.random.default_rng(0).standard_normal((SAMPLES, *sizes[1:])).astype(np.float32)
    np.savez(tmp_path / "data.npz", **{name: inputs}, labels=np.zeros(SAMPLES, np.float32))
    return tmp_path / "net.onnx", tmp_path / "data.npz"


@pytest.mark.parametrize("metric", [spread, f"{__name__}:spread", "spread"])
def test_it_is_told_before_and_after(net, metric):
    model, data = net
    with METRICS.having("spread", spread):
        told = osl.slim(model, macs=0.6, data=data, metric=metric, no_latency=True).report["quality"]["metric"]
    assert told["name"].endswith("spread")
    assert told["higher_is_better"]
    assert told["before"] > 0
    assert told["ratio"] == pytest.approx(told["after"] / told["before"])


def test_one_of_which_less_is_better_says_so(net):
    model, data = net
    told = osl.slim(model, macs=0.6, data=data, metric=distance, no_latency=True).report["quality"]["metric"]
    assert not told["higher_is_better"]
    assert np.isfinite([told["before"], told["after"]]).all()
