"""Repair on made-up inputs does no harm on real ones, and what is measured on them is no verdict."""

import json

import numpy as np
import pytest

from benchmarks.quality import made_up
from onnxslim_learn import demo
from onnxslim_learn.analysis import analyze
from onnxslim_learn.data.class_balance import confident
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.report.sections import quality
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim

FEW = 128  # samples: enough for nets this small


@pytest.mark.parametrize(("name", "worth"), [(made_up.DEMO, 0.9), ("digits convolutions", 0.9)])
def test_repair_without_data_is_never_worse_than_none_by_more_than_a_point(tmp_path, name, worth):
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    torch.set_num_threads(1)
    net = made_up.net(name, tmp_path)
    analysis = analyze(net.path)
    source = confident(analysis.coupling, DataSettings(samples=FEW))
    plain, repaired = (made_up.cut(net, analysis, 0.5, samples) for samples in (None, source))
    assert repaired >= plain - made_up.ALLOWED
    assert repaired > worth


def judged(source, tmp_path, share=0.5):
    analysis = analyze(demo.model_path())
    calibration = Calibration(analysis.coupling, source(analysis), work=0)
    slimmed, _ = slim.slim_to(analysis, {"macs": share}, tmp_path / "slim.onnx", calibration=calibration, repair=False)
    return json.loads(json.dumps(slimmed.judgement.to_dict()))


def images(analysis):
    return open_source({"image": demo.calibration()["image"][:64]}, analysis.graph)


def noise(analysis):
    return synthetic(analysis.coupling, DataSettings(samples=64))


def test_a_destroyed_net_is_called_so_on_real_inputs_and_unknown_on_made_up_ones(tmp_path):
    real, unreal = judged(images, tmp_path), judged(noise, tmp_path)
    assert (real["inputs"], unreal["inputs"]) == ("given", "made-up")
    assert real["destroyed"]
    assert "DESTROYED" in quality.verdict(real)
    assert not unreal["destroyed"]
    said = quality.verdict(unreal)
    assert "unknown" in said.splitlines()[0]
    assert f"Give {quality.ENOUGH} or more" in said.splitlines()[0]
    assert "says little about yours" in said
    assert "Even on these, only " in said.splitlines()[0]  # what is lost on noise, too, is told
    assert "; even on these, only " in quality.told(unreal)
    assert not {"good", "lower", "DESTROYED"} & set(said.replace(".", "").split())


def test_a_light_cut_is_good(tmp_path):
    told = judged(images, tmp_path, 0.98)
    assert "good" in quality.verdict(told)
    assert told["worst"]["explained"] > quality.GOOD
    unreal = judged(noise, tmp_path, 0.98)
    assert quality.told(unreal) == "unknown on real inputs, since inputs were made up"


def test_samples_are_of_several_kinds():
    """Light and dark grounds, and of each of them some that are plain over most of the picture."""
    analysis = analyze(demo.model_path())
    drawn = np.concatenate(
        [b.inputs["image"] for b in synthetic(analysis.coupling, DataSettings(samples=200)).batches()]
    )
    means = drawn.mean(axis=(1, 2, 3))
    assert means.min() < 0.25
    assert means.max() > 0.75
