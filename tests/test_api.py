"""The Python interface: its names, what importing it costs, and the work flow of the README."""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.workflow import slim
from tests import laws

HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "scipy", "networkx", "rich")
"""What takes long to import and is not needed to say what the package offers."""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "residual.onnx"
    onnx.save(NETS["residual"].build(), path)
    return path


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", osl.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    thing = getattr(osl, name)
    assert thing.__module__.startswith("onnxslim_learn.")
    assert len(inspect.getdoc(thing)) > 20


def test_public_names_are_sorted_and_are_all_that_is_found():
    assert list(osl.__all__) == sorted(set(osl.__all__))
    assert set(osl.__all__) == set(osl._WHERE)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = osl.nothing


def test_every_error_is_caught_as_one_and_has_its_exit_code():
    codes = {"InputError": 2, "PlanError": 2, "TargetError": 1, "VerifyError": 1}
    assert {name: getattr(osl, name).exit_code for name in codes} == codes
    assert all(issubclass(getattr(osl, name), osl.SlimError) for name in codes)


# --- imports ----------------------------------------------------------------------------------------------------------

IMPORTS = [
    # what a fresh interpreter does, what it must not have imported then
    ("import onnxslim_learn", HEAVY),
    ("main(['--help'])", HEAVY),
    ("main(['slim', '--help'])", HEAVY),
    ("main(['--version'])", HEAVY),
    ("assert main(['slim', MODEL]) == 2", HEAVY),
    ("import onnxslim_learn; onnxslim_learn.analyze", ("torch", "onnxruntime")),
    ("main(['analyze', MODEL])", ("torch", "onnxruntime")),
    ("main(['slim', MODEL, '-o', MODEL + '.slim', '--target', 'macs=0.5', '--no-latency'])", ("torch",)),
]


@pytest.mark.parametrize(("code", "unwanted"), IMPORTS)
def test_nothing_heavy_is_imported_before_it_is_needed(model, code, unwanted):
    script = f"""if True:
        import sys
        MODEL = {str(model)!r}
        {"from onnxslim_learn.cli.commands import main" if "main(" in code else ""}
        try:
            {code}
        except SystemExit as stop:
            assert not stop.code, stop
        print("imported", *sorted(set({unwanted!r}) & set(sys.modules)), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].split() == ["imported"]


# --- the work flow ----------------------------------------------------------------------------------------------------


def test_the_work_flow_from_a_file_to_a_verified_smaller_file(model, tmp_path):
    found = osl.analyze(model)
    plan = osl.plan(found, {"macs": 0.5})
    slimmed, result = osl.slim(found, plan, latency=False), tmp_path / "slim.onnx"
    slimmed.save(result)
    assert slimmed.verification.passed and osl.verify(found, result, slimmed.plan).passed
    before, after = plan.provenance["before"], plan.provenance["after"]
    again = osl.analyze(result)
    assert again.price(again.whole) == after
    assert after["macs"] <= 0.5 * before["macs"]
    assert result.stat().st_size < model.stat().st_size


def test_a_model_in_memory_gives_the_same_plan_as_its_file(model):
    from_file, in_memory = (osl.plan(osl.analyze(m), {"params": 0.5}) for m in (model, NETS["residual"].build()))
    assert from_file.groups == in_memory.groups
    assert from_file.tensors == in_memory.tensors


def test_a_model_in_memory_can_be_slimmed_to_a_file(tmp_path):
    found = osl.analyze(NETS["residual"].build())
    _, checked = osl.slim_to(found, {"macs": 0.5}, tmp_path / "slim.onnx")
    assert checked.passed
    assert len(onnx.load(tmp_path / "slim.onnx").graph.node) == len(found.graph.nodes), "the topology stays"


def test_a_plan_survives_its_file(model, tmp_path):
    found = osl.analyze(model)
    plan, path = osl.plan(found, {"macs": 0.5}), tmp_path / "plan.json"
    path.write_text(plan.to_json())
    assert osl.Plan.load(path) == plan
    for name, read in (("one", plan), ("two", osl.Plan.load(path))):
        osl.slim(found, read, latency=False).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_empty_plan_copies_the_file(model, tmp_path):
    osl.slim(osl.analyze(model), osl.Plan({}, {}), latency=False).save(tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == model.read_bytes()


def test_verification_fails_for_another_model(model, tmp_path):
    found = osl.analyze(model)
    narrow, wide = (osl.plan(found, {"macs": share}) for share in (0.3, 0.7))
    osl.slim(found, wide, latency=False).save(tmp_path / "wide.onnx")
    assert not osl.verify(found, tmp_path / "wide.onnx", narrow).passed


def test_nothing_is_written_when_verification_fails(model, tmp_path):
    found = osl.analyze(model)
    narrow, wide = (osl.plan(found, {"macs": share}) for share in (0.3, 0.7))
    other = slim.slim(found, wide)
    mixed = osl.Slimmed(found, narrow, slim.slim(found, narrow).removal, other.model)
    with pytest.raises(osl.VerifyError, match="Nothing was written"):
        mixed.save(tmp_path / "slim.onnx")
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


@pytest.mark.parametrize("name", ["residual", "global_pool", "tied_embedding", "multi_io", "half", "attention_dynamic"])
def test_example_inputs_are_accepted_by_onnxruntime(name, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(NETS[name].build(), path)
    results = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, osl.example_inputs(path))
    assert all(np.isfinite(result).all() for result in results)
    analysis = osl.analyze(path)
    for again in (osl.example_inputs(onnx.load(path)), osl.example_inputs(analysis)):
        np.testing.assert_equal(again, osl.example_inputs(path))
    with pytest.raises(osl.InputError, match="analysed already"):
        osl.example_inputs(analysis, {"x": (1,)})


def test_inputs_set_what_the_file_leaves_open(tmp_path):
    model = NETS["global_pool"].build()
    costs = [osl.analyze(model, inputs={"x": shape}) for shape in ((1, 3, 8, 8), (4, 3, 8, 8))]
    one, four = (found.price(found.whole)["macs"] for found in costs)
    assert four == 4 * one
    assert osl.example_inputs(_saved(model, tmp_path), {"x": (4, 3, 9, 7)})["x"].shape == (4, 3, 9, 7)


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_profile_times_models_side_by_side(model):
    feeds = osl.example_inputs(model)
    timings = osl.measure([model, model], [feeds, feeds], seconds=0.01)
    assert timings.ms.shape[1] == 2
    assert all(one.low_ms <= one.median_ms <= one.high_ms for one in timings.latencies())


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSALS = [
    # call on an analysis of the residual net, error, words in its message
    (lambda found: osl.plan(found, {"speed": 0.5}), osl.InputError, ["speed", "macs, params, bytes"]),
    (lambda found: osl.plan(found, {"macs": 0}), osl.InputError, ["macs", "positive"]),
    (lambda found: osl.plan(found, {"macs": float("nan")}), osl.InputError, ["macs", "positive"]),
    (lambda found: osl.plan(found, {"macs": 1e-6}), osl.TargetError, ["macs", "best", "8704"]),
    (lambda found: osl.plan(found, {"macs": 0.5}, criterion="taste"), osl.InputError, ["taste", "energy"]),
    (lambda found: osl.plan(found, {"macs": 0.5}, multiple=0), osl.InputError, ["multiple", "positive"]),
    (lambda found: osl.plan(found, {"macs": 0.5}, protect=["nothing"]), osl.InputError, ["nothing", "no group"]),
    (lambda found: osl.plan(found, {"macs": 0.5}, protect=["["]), osl.InputError, ["[", "regular expression"]),
    (lambda found: osl.slim(found, osl.Plan({"zz:0": [0]}, {"zz:0": 4})), osl.PlanError, ["zz:0", "no such group"]),
    (lambda found: osl.slim(found, osl.Plan({"w1:0": [0]}, {"w1:0": 4})), osl.PlanError, ["w1:0", "12", "4"]),
    (lambda found: osl.slim(found, osl.Plan({"w1:0": [12]}, {"w1:0": 12})), osl.PlanError, ["w1:0", "below 12"]),
    (lambda found: osl.slim(found, osl.Plan({"w1:0": []}, {"w1:0": 12})), osl.PlanError, ["w1", "nothing"]),
    (lambda found: osl.slim(found, osl.Plan({"w5:0": [0]}, {"w5:0": 5})), osl.PlanError, ["graph output y"]),
    (lambda found: osl.why(found, "zz:0"), osl.InputError, ["zz:0"]),
    (lambda found: osl.analyze("nowhere.onnx"), osl.InputError, ["nowhere.onnx", "no such file"]),
    (lambda found: osl.Plan.from_json("{}"), osl.PlanError, ["plan", "format"]),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSALS)
def test_a_wrong_argument_is_refused_by_name(call, error, words):
    with pytest.raises(error) as caught:
        call(laws.analysed("residual"))
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("name", ["to_torch", "from_torch"])
def test_what_torch_is_needed_for_names_the_extra_that_brings_it(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == "torch" else find(module))
    with pytest.raises(osl.InputError, match=rf"{name}: needs torch\. Install onnxslim-learn\[train\]\."):
        getattr(osl, name)
