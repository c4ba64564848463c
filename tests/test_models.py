"""Half the MACs of real models: exported by both exporters, and pretrained ones as they are found."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxslim_learn as osl
from nets.exports import EXPORTERS, export
from nets.pretrained import MODELS, fetch
from onnxslim_learn.workflow import slim as workflow

pytestmark = pytest.mark.slow

EXPORTED = (
    "resnet18",
    "resnet18_bn",
    "resnet18_dyn",
    "resnet50",
    "vgg11_bn",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_large_dyn",
    "efficientnet_b0",
    "efficientnet_b0_dyn",
    "resnext50_32x4d",
    "googlenet",
    "squeezenet1_1",
    "shufflenet_v2_x1_0",
    "convnext_tiny",
    "bert",
    "bert_dyn",
)
MACS = {"resnet18": 1814073344, "resnet50": 4089184256, "mobilenet_v2": 300774272, "vgg11_bn": 7609090048}
STREAM = {"convnext_tiny"}  # a norm over channels pins the residual stream; that of bert is an output, which says more
RELATIVE = 1e-4  # float32 rounding in another order of summation
SAMPLES = 32  # made up: how good the widths are is not what is tested
AMPLIFIED = 20  # times what one rounding error in the inputs does, for nets that blow it up


def halve(path, out):
    found = osl.analyze(path)
    plan = osl.plan(found, {"macs": 0.5}, multiple=1, samples=SAMPLES)  # on steps of kernels a few nets end below
    slimmed = workflow.slim(found, plan)
    check = slimmed.save(out)
    before, after = found.price(found.whole), slimmed.analysis.price(slimmed.removal)
    assert 0.49 < after["macs"] / before["macs"] <= 0.5
    assert check.max_rel_diff <= max(RELATIVE, AMPLIFIED * (check.noise or 0))
    assert check.change > 0
    again = osl.analyze(out, inputs=found.graph.shapes.nominal.inputs)  # a file may fit at several sizes
    assert again.price(again.whole) == after
    onnx.checker.check_model(str(out))
    ort.InferenceSession(str(out))
    return found


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", EXPORTED)
def test_exported_models_at_half(name, exporter, tmp_path):
    found = halve(export(name, exporter, tmp_path / f"{name}.onnx"), tmp_path / "slim.onnx")
    assert not found.opaque or set(found.opaque) == {"GatherND"}
    if name in MACS:
        assert found.price(found.whole)["macs"] == MACS[name]
    reasons = [group.pin.reason for group in found.groups if group.pin is not None]
    assert any("normalised over" in reason for reason in reasons) == (name in STREAM)


@pytest.mark.parametrize("name", MODELS)
def test_pretrained_models_at_half(name, tmp_path):
    found = halve(fetch(name), tmp_path / "slim.onnx")
    assert not found.opaque


def test_dynamic_axes_stay_dynamic(tmp_path):
    found = osl.analyze(export("bert_dyn", "legacy", tmp_path / "bert.onnx"))
    workflow.slim(found, osl.plan(found, {"macs": 0.5})).save(tmp_path / "slim.onnx")
    session = ort.InferenceSession(str(tmp_path / "slim.onnx"))
    for batch, length in ((1, 3), (3, 50)):
        feeds = {i.name: np.ones((batch, length), np.int64) for i in session.get_inputs()}
        assert session.run(None, feeds)[0].shape[:2] == (batch, length)
