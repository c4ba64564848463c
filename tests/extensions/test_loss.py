"""A loss of one's own: a function of outputs and labels, or of outputs and all that is known of a batch."""

import numpy as np
import onnx
import pytest
import torch

from nets.zoo import NETS
from onnxslim_learn.cli import commands
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import LOSSES
from onnxslim_learn.train import losses
from onnxslim_learn.train.samples import Portion
from onnxslim_learn.workflow import slim

OUTPUTS = {"y": torch.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)}
LABELS = torch.tensor([0, 1])
ABSOLUTE = '''
import onnxslim_learn.registry


@onnxslim_learn.registry.LOSSES.register("absolute", teacher=True)
def absolute(outputs, portion):
    """Absolute distance to what the teacher puts out."""
    return sum((outputs[name] - target).abs().mean() for name, target in portion.targets.items())
'''


def margin(outputs, labels):
    """How far the labelled class is below the largest."""
    rows = next(iter(outputs.values()))
    return (rows.max(1).values - rows[torch.arange(len(rows)), labels]).mean()


def softened(outputs, portion, *, temperature):
    """A mean, divided by the temperature."""
    return outputs["y"].mean() / temperature


@pytest.mark.parametrize("spec", [margin, f"{__name__}:margin", {margin: 1.0}])
def test_it_is_given_labels(spec):
    ((weight, loss),) = losses.objective(spec, {}, labelled=True).terms.values()
    assert float(weight * loss(OUTPUTS, Portion({}, LABELS, {}))) == pytest.approx(0.5)
    assert losses.told(spec) == f"{__name__}:margin"


def test_it_is_given_the_keywords_that_it_takes():
    ((_, loss),) = losses.objective(softened, {}, temperature=2.0).terms.values()
    assert float(loss(OUTPUTS, Portion({}, None, {}))) == pytest.approx(2.75 / 2)


def test_several_are_weighed():
    with LOSSES.having("margin", margin, labels=True):
        found = losses.objective({"margin": 2.0, softened: 0.5}, {}, labelled=True)
        assert found(OUTPUTS, Portion({}, LABELS, {}))["margin"].item() == pytest.approx(1.0)
        assert losses.told({"margin": 2.0, softened: 0.5}) == f"margin=2,{__name__}:softened=0.5"
        with pytest.raises(InputError, match="margin: needs labels"):
            losses.objective("margin", {})
    with pytest.raises(InputError, match="Did you mean distill"):
        losses.objective("distil", {})


@pytest.mark.slow
def test_a_net_is_trained_by_it(tmp_path, monkeypatch):
    (tmp_path / "mine_loss.py").write_text(ABSOLUTE)
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    shapes = slim.analyze(tmp_path / "net.onnx").graph.shapes.nominal.inputs
    np.savez(tmp_path / "data.npz", **{n: rng.normal(size=(48, *s[1:])).astype("f4") for n, s in shapes.items()})
    monkeypatch.chdir(tmp_path)
    line = "learn net.onnx -o thin.onnx --target macs=0.6 --data data.npz --steps 20 --finetune-steps 20 --batch-size 8"
    try:
        assert commands.main([*line.split(), "--no-latency", "--loss", "mine_loss:absolute"]) == 0
    finally:
        LOSSES.remove("absolute")
    assert (tmp_path / "thin.onnx").is_file()
