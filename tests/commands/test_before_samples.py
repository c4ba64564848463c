"""What is known before samples are made: whether a target is in reach, and at which shapes costs are counted."""

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.errors import TargetError
from onnxslim_learn.latency import fragment_times
from onnxslim_learn.select import planner, sensitivity
from onnxslim_learn.workflow import samples
from tests.laws import analysed

OUT_OF_REACH = {"macs": 1e-6}


def never(*_, **__):
    raise AssertionError("that is not needed to say that a target is out of reach")


@pytest.fixture
def idle(monkeypatch):
    """Nothing makes samples, reads more than a few, or measures."""
    monkeypatch.setattr(samples, "confident", never)
    monkeypatch.setattr(samples, "calibration", never)
    monkeypatch.setattr(sensitivity, "measure", never)
    monkeypatch.setattr(fragment_times.Measurements, "gather", never)


@pytest.mark.parametrize("command", [osl.slim, osl.plan])
@pytest.mark.parametrize("target", [OUT_OF_REACH, {**OUT_OF_REACH, "params": 0.5}])
def test_a_target_out_of_reach_is_refused_before_there_are_samples(idle, command, target, tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    with pytest.raises(TargetError) as refused:
        command(str(tmp_path / "net.onnx"), target=target)
    assert refused.value.missed


def test_a_target_out_of_reach_is_refused_before_latency_is_measured(idle, tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    with pytest.raises(TargetError, match="macs"):
        osl.slim(str(tmp_path / "net.onnx"), target={**OUT_OF_REACH, "latency": 0.5})


@pytest.mark.parametrize("length", [11200, 1500], ids=["one usual size fits", "no usual size fits"])
def test_sizes_of_which_few_fit_are_those_of_the_samples(length, tmp_path):
    """The height must divide the length of a table: of the usual ones 224 does, or none; that of the samples does."""
    net = """<ir_version: 9, opset_import: ["" : 17]>
        net (float[n,3,height,4] x) => (float[q,r,s,t] y) <
            int64[1] two = {2}, int64[1] rest = {-1}> {
            shape = Shape(x)
            height = Gather(shape, two)
            sizes = Concat<axis = 0>(height, rest)
            rows = Reshape(table, sizes)
            shift = ReduceMean<axes = [1], keepdims = 1>(rows)
            moved = Add(x, shift)
            a = Conv(moved, w1)
            b = Relu(a)
            y = Conv(b, w2)
        }"""
    model = onnx.parser.parse_model(net)
    rng = np.random.default_rng(0)
    for name, shape in (("table", [length]), ("w1", [8, 3, 1, 1]), ("w2", [2, 8, 1, 1])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype("float32"), name))
    onnx.save(model, tmp_path / "net.onnx")
    data = {"x": rng.normal(size=(40, 3, 100, 4)).astype("float32")}
    result = osl.slim(str(tmp_path / "net.onnx"), macs=0.5, data=data, latency=False)
    assert result.report["inputs"] == {"x": [1, 3, 100, 4]}
    assert result.report["after"]["macs"] <= 0.5 * 100 * 4 * 8 * 5


@pytest.mark.parametrize("name", ["residual", "attention", "grouped", "concat"])
@pytest.mark.parametrize("cost", ["macs", "params"])
def test_what_is_refused_is_what_no_plan_reaches(name, cost):
    analysis = analysed(name)
    with pytest.raises(TargetError) as refused:
        planner.check(analysis, {cost: 1e-9})
    least, _ = refused.value.missed[cost]
    planner.check(analysis, {cost: max(least, 2.0)})
    plan = planner.plan(analysis, {cost: max(least, 2.0)}, criterion="l2")
    assert plan.provenance["after"][cost] <= max(least, 2.0)


def net(tmp_path):
    """A fully convolutional net of any height and width."""
    model, rng = (
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["": 17]>
        net (float[batch, 3, height, width] x) => (float[batch, 4, h, w] y)
        { c = Conv(x, a)  d = Relu(c)  y = Conv(d, b) }"""
        ),
        np.random.default_rng(0),
    )
    for name, shape in (("a", (8, 3, 3, 3)), ("b", (4, 8, 3, 3))):
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "net.onnx")
    return str(tmp_path / "net.onnx")


def test_costs_are_counted_at_the_shapes_of_the_samples_unless_others_are_given(tmp_path):
    path, quiet = net(tmp_path), {"no_latency": True, "macs": 0.6, "work": 0}
    data = {"x": np.random.default_rng(1).standard_normal((32, 3, 20, 31)).astype(np.float32)}
    told = osl.slim(path, data=data, **quiet).report
    assert told["inputs"]["x"][1:] == [3, 20, 31]
    at = osl.analyze(path, input={"x": (told["inputs"]["x"][0], 3, 20, 31)})
    assert told["before"]["macs"] == at.report["costs"]["macs"]
    other = osl.slim(path, data=data, input={"x": (1, 3, 40, 40)}, **quiet).report
    assert other["inputs"]["x"] == [1, 3, 40, 40]
    assert other["before"]["macs"] > told["before"]["macs"]
