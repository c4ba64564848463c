"""Every command is a public function: the call and the command line give the same files and the same reports."""

import html
import inspect
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.cli import commands, parser
from onnxslim_learn.cli.table import COMMANDS, ShellSettings
from onnxslim_learn.costs import devices
from onnxslim_learn.learners import table
from onnxslim_learn.learners.settings import FinetuneSettings
from onnxslim_learn.rows import imported
from onnxslim_learn.settings import options
from onnxslim_learn.workflow import slim

QUICK = {"steps": 6, "finetune_steps": 2, "batch_size": 8, "data": "samples.npz"}
CALLS = [
    # command line, the same call
    ("slim residual.onnx --target macs=0.5 --no-latency", lambda out: osl.slim("residual.onnx", macs=0.5, **out)),
    (
        "slim residual.onnx --target macs=60% --target bytes=0.9 --multiple 2 --criterion l2 --no-repair --no-latency",
        lambda out: osl.slim(
            Path("residual.onnx"), macs="60%", bytes=0.9, multiple=2, criterion="l2", repair=False, **out
        ),
    ),
    (
        "slim residual.onnx --target macs=0.5 --data samples.npz --samples 24 --sensitivity-seconds 0 --no-latency",
        lambda out: osl.slim(
            "residual.onnx", target={"macs": 0.5}, data="samples.npz", samples=24, sensitivity_seconds=0, **out
        ),
    ),
    (
        "slim residual.onnx --target latency=0.9 --device T4 --protect w1 --no-latency",
        lambda out: osl.slim("residual.onnx", target={"latency": 0.9}, device="T4", protect=["w1"], **out),
    ),
    ("slim residual.onnx --lossless --no-latency", lambda out: osl.lossless("residual.onnx", **out)),
    ("apply residual.onnx plan.json --no-latency", lambda out: osl.apply("residual.onnx", "plan.json", **out)),
    (
        "apply residual.onnx plan.json --no-latency",
        lambda out: osl.slim(osl.analyze("residual.onnx"), osl.Plan.load("plan.json"), **out),
    ),
    (
        "sparsify residual.onnx --ratio 0.5 --samples 32 --no-latency",
        lambda out: osl.sparsify("residual.onnx", ratio=0.5, samples=32, **out),
    ),
    (
        "expand small.onnx --target macs=1.0 --like residual.onnx --seed 3 --no-latency",
        lambda out: osl.expand("small.onnx", macs=1.0, like="residual.onnx", seed=3, **out),
    ),
]
TRAINED = [
    (
        "learn residual.onnx --target macs=0.6 --steps 6 --finetune-steps 2 --batch-size 8 --data samples.npz "
        "--no-latency",
        lambda out: osl.learn("residual.onnx", macs=0.6, **QUICK, **out),
    ),
    (
        "learn residual.onnx --learner weight-sparse --ws-prune-ratio-prtl uniform --ws-mask-update-step 2 --steps 6 "
        "--batch-size 8 --data samples.npz --no-latency",
        lambda out: osl.learn(
            "residual.onnx",
            learner="weight-sparse",
            ws_prune_ratio_prtl="uniform",
            ws_mask_update_step=2,
            steps=6,
            batch_size=8,
            data="samples.npz",
            **out,
        ),
    ),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a net, samples of it, a plan and a smaller net."""
    monkeypatch.chdir(tmp_path)
    onnx.save(NETS["residual"].build(), "residual.onnx")
    x = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)
    np.savez("samples.npz", x=x)
    small = osl.slim("residual.onnx", macs=0.5, latency=False, repair=False, output="small.onnx", plan_out="plan.json")
    assert small.passed
    return tmp_path


REPORTED = {"--json", "one.json", "--html", "one.html"}


def both(line, call, capsys):
    """Run a line and its call; returns their files and reports, without the name of the file."""
    assert commands.main(shlex.split(f"{line} -o one.onnx --json one.json --html one.html")) == 0, (
        capsys.readouterr().err
    )
    found = call({"output": "two.onnx", "latency": False})
    reports = [json.loads(Path("one.json").read_text()), json.loads(found.to_json())]
    assert [report.pop("output") for report in reports] == ["one.onnx", "two.onnx"]
    for report in reports:
        assert set(report.pop("run")) == {"command", "date", "machine", "versions", "sha256"}
    assert set(reports[0]["verdict"].pop("written")) == {"one.onnx", "one.json", "one.html"}
    assert reports[1]["verdict"].pop("written") == ["two.onnx"]
    lines = [shlex.split(report["verdict"]["next"].pop("command")) for report in reports]
    words = [word.replace("two", "one").replace("PLAN", "plan.json") for word in lines[1]]
    assert sorted([*words, *(set(lines[0]) & REPORTED)]) == sorted(lines[0])
    return [Path(name).read_bytes() for name in ("one.onnx", "two.onnx")], reports, found


@pytest.mark.parametrize(("line", "call"), CALLS)
def test_a_call_gives_what_the_command_line_gives(folder, capsys, line, call):
    files, reports, found = both(line, call, capsys)
    assert files[0] == files[1]
    assert without_times(reports[0]) == without_times(reports[1])
    assert len(repr(found)) < 500
    assert onnx.load("two.onnx") == found.model


@pytest.mark.slow
@pytest.mark.parametrize(("line", "call"), TRAINED)
def test_training_by_a_call_gives_what_the_command_line_gives(folder, capsys, line, call):
    files, reports, found = both(line, call, capsys)
    assert files[0] == files[1]
    assert without_times(reports[0]) == without_times(reports[1])
    assert len(repr(found)) < 500


def without_times(told):
    """Reports without when something was done, and how long it took."""
    if isinstance(told, dict):
        timeless = (key for key in told if "seconds" not in key and key != "run")
        return {key: without_times(told[key]) for key in timeless}
    return [without_times(value) for value in told] if isinstance(told, list) else told


def test_a_result_in_memory_is_that_of_the_file(folder):
    kept = osl.slim("residual.onnx", macs=0.5, latency=False)
    assert kept.report["output"] is None
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", "residual.onnx", "samples.npz", "small.onnx"]
    kept.save("kept.onnx")
    osl.slim("residual.onnx", macs=0.5, latency=False, output="written.onnx")
    assert Path("kept.onnx").read_bytes() == Path("written.onnx").read_bytes()


def test_a_model_in_memory_is_slimmed_and_timed_like_its_file(folder):
    held = osl.slim(onnx.load("residual.onnx"), macs=0.5, seconds=0.01)
    filed = osl.slim("residual.onnx", macs=0.5, latency=False)
    assert held.report["latency"]["ratio"] > 0
    assert held.report["after"]["macs"] == filed.report["after"]["macs"]
    assert held.plan.groups == filed.plan.groups


@pytest.mark.parametrize(
    "data",
    [
        lambda x: x,
        lambda x: {"x": x},
        lambda x: [x[k : k + 10] for k in range(0, len(x), 10)],
        lambda x: iter([{"x": x}]),
        lambda x: lambda: [x],
        lambda x: osl.load_data("residual.onnx", x),
    ],
)
def test_samples_are_given_in_many_ways(folder, data):
    x = np.load("samples.npz")["x"]
    source = osl.load_data("residual.onnx", data(x))
    assert sum(batch.count for batch in source.batches()) == len(x)
    assert osl.verify("residual.onnx", "small.onnx", "plan.json", data=data(x)).passed


def test_several_targets_are_written_and_told(folder):
    found = osl.slim("residual.onnx", macs=[0.7, 0.5], output="s.onnx", latency=False, repair=False)
    assert [row["output"] for row in found.report["targets"]] == ["s-0.7.onnx", "s-0.5.onnx"]
    assert all(Path(row["output"]).is_file() for row in found.report["targets"])
    with pytest.raises(osl.InputError, match="output: is needed"):
        osl.slim("residual.onnx", macs=[0.7, 0.5])


def test_analyze_explains_and_is_short(folder, capsys):
    found = osl.analyze("residual.onnx", why=["w5:0"])
    assert isinstance(found, osl.Analysis)
    assert commands.main(["analyze", "residual.onnx", "--why", "w5:0", "--json", "-"]) == 0
    assert without_times(json.loads(capsys.readouterr().out)) == without_times(json.loads(found.to_json()))
    assert found.why("w5:0")
    for thing in (found, found.graph, found.coupling, osl.Plan.load("plan.json")):
        assert len(repr(thing)) < 500


def test_timing_takes_and_tells_milliseconds(folder):
    told = osl.profile("residual.onnx", "small.onnx", seconds=0.01, threads=[1])
    assert [row["model"] for row in told.rows(told.report)] == ["residual.onnx", "small.onnx"]
    assert told.passed
    again = osl.profile(["residual.onnx", "residual.onnx"], seconds=0.01, compare=True)
    assert not again.passed or again.report["settings"][0]["comparisons"][0]["faster"]


def test_this_machine_is_measured_and_given_as_a_device(folder, monkeypatch):
    machine = osl.calibrate(name="mine", seconds=0.5, output="mine.toml")
    assert machine.device.name == "mine"
    assert machine.report["verdict"]["next"]["command"].endswith("analyze MODEL.onnx --device mine.toml")
    times = [
        osl.analyze("residual.onnx", device=one).report["costs"]["latency_ms"] for one in (machine.device, "mine.toml")
    ]
    assert times[0] == pytest.approx(times[1])
    assert osl.plan("residual.onnx", latency=0.9, device="mine.toml").groups
    with pytest.raises(osl.TargetError, match=r"latency=1e-06 cannot be reached, the best is .*ms") as refused:
        osl.plan("residual.onnx", latency=1e-6, device="mine.toml")
    least, bound = refused.value.missed["latency"]
    whole = osl.analyze("residual.onnx", device="mine.toml").report["costs"]["latency_ms"]
    assert bound == pytest.approx(1e-6 * whole)
    assert bound < least < whole


def test_a_time_is_in_milliseconds_wherever_it_is_given_or_told(folder):
    device = devices.load("K80")
    analysis = slim.analyze("residual.onnx", device=device)
    whole = analysis.latency.value(np.ones(analysis.coupling.size)) / 1e3
    for target in ({"latency": f"{0.8 * whole}ms"}, {"latency": f"{800 * whole}us"}):
        plan = osl.slim_to(analysis, target, "thin.onnx")[0].plan
        told = plan.provenance["target"]["latency"]
        assert float(told.removesuffix("ms")) == pytest.approx(0.8 * whole)
    slow = slim.analyze("residual.onnx", device=replace(device, run_us=9000))
    plan = osl.slim_to(slow, {"latency": 9.01}, "thin.onnx")[0].plan
    assert plan.provenance["target"] == {"latency": "9.01ms"}
    assert osl.Plan.from_json(plan.to_json()) == plan
    with pytest.raises(osl.InputError, match="latency=soon"):
        osl.slim_to(slow, {"latency": "soon"}, "thin.onnx")


def test_progress_is_told_in_stages(folder):
    told = []
    osl.slim("residual.onnx", macs=0.5, seconds=0.01, progress=lambda *given: told.append(given))
    stages = [stage for stage, share, _ in told if share == 0]
    assert stages[0] == "analyzing"
    assert {"choosing", "repairing", "cutting and verifying", "timing"} <= set(stages)
    assert all(0 <= share <= 1 for _, share, _ in told)


REFUSALS = [
    # call, the parameter at fault, words
    (lambda: osl.slim("residual.onnx", macs=0), "macs", "macs=0: expected a positive number"),
    (lambda: osl.slim("residual.onnx", macs=0.5, multipel=8), "multipel", "Did you mean multiple?"),
    (lambda: osl.slim("residual.onnx", macs=0.5, multiple=0), "multiple", "positive whole number"),
    (lambda: osl.slim("residual.onnx", macs=0.5, data="nowhere"), "data", "data nowhere: is not"),
    (lambda: osl.slim("residual.onnx", macs=0.5, output="."), "output", "is a folder"),
    (lambda: osl.slim("residual.onnx", macs=0.5, layout="odd"), "layout", "expected one of nchw, nhwc"),
    (lambda: osl.slim("residual.onnx", macs=0.5, repair=1), "repair", "is no option"),
    (lambda: osl.slim("residual.onnx", macs=0.5, no_repair="yes"), "no_repair", "expected true or false"),
    (lambda: osl.learn("residual.onnx", learner="finetune", macs=0.5), "target", "structure learning"),
    (lambda: osl.sparsify("residual.onnx"), "ratio", "needs one"),
    (lambda: osl.expand("residual.onnx"), "", "target is needed"),
    (lambda: osl.analyze("residual.onnx", input={"y": (1, 2)}), "", "input y: the model has no such input"),
]


@pytest.mark.parametrize(("call", "parameter", "words"), REFUSALS)
def test_errors_name_the_keyword(folder, call, parameter, words):
    with pytest.raises(osl.InputError) as caught:
        call()
    assert caught.value.parameter == parameter
    assert words in str(caught.value)
    assert "--" not in str(caught.value)
    assert "⟨" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_keywords_are_the_flags(name):
    """Every flag of a command is a keyword of its function, and the other way round."""
    signature = inspect.signature(imported(COMMANDS[name].act))
    shown = parser.parser()._subparsers._group_actions[0].choices[name]
    flags = {action.dest for action in shown._actions if action.option_strings and action.dest != "help"}
    flags -= set(options(ShellSettings))
    assert flags <= set(signature.parameters)
    assert set(COMMANDS[name].keywords.options) == flags
    assert all(one.option.help for one in COMMANDS[name].keywords.options.values())


def test_a_file_of_options_names_the_learner_too(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('learner = "finetune"\nfinetune-steps = 3\nbatch_size = 8\n')
    shared, wanted = table.build({"config": str(path), "batch_size": 4})
    assert isinstance(wanted, FinetuneSettings)
    assert (wanted.length.finetune_steps, shared.samples.reading.batch_size) == (3, 4), "what is given here wins"
    path.write_text('learner = "finetune"\nregularizer = "gates"\n')
    with pytest.raises(osl.InputError, match="regularizer: is for structure learning"):
        table.build({"config": str(path)})


@pytest.mark.parametrize("name", ["analyze", "learn", "slim"])
def test_documentation_lists_keywords_in_the_words_of_python(name):
    text = inspect.getdoc(getattr(osl, name))
    assert all(f"{keyword}: " in text for keyword in COMMANDS[name].keywords.options)
    assert "--" not in text.partition("Keywords:")[2]
    assert "settings: " not in text


def test_a_torch_module_goes_back_into_the_file(folder):
    torch = pytest.importorskip("torch")
    module = osl.to_torch("residual.onnx")
    osl.from_torch(module, "same.onnx")
    assert Path("same.onnx").read_bytes() == Path("residual.onnx").read_bytes()
    with torch.no_grad():
        next(iter(module.parameters())).mul_(2)
    osl.from_torch(module, "other.onnx")
    assert Path("other.onnx").read_bytes() != Path("residual.onnx").read_bytes()
    with pytest.raises(osl.InputError, match="to_torch"):
        osl.from_torch(torch.nn.Linear(1, 1), "no.onnx")


def test_a_notebook_shows_the_page(folder):
    found = osl.analyze("residual.onnx")
    frame = found._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert html.unescape(frame.partition('srcdoc="')[2].partition('" style')[0]) == found.to_html()


def test_rows_of_reports_are_tables_of_pandas(folder, monkeypatch):
    pandas = pytest.importorskip("pandas")
    found = osl.analyze("residual.onnx")
    table = found.to_frame()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["name"]) == [group["name"] for group in [*found.report["groups"], *found.report["pinned"]]]
    kept = osl.slim("residual.onnx", macs=0.5, latency=False, repair=False).to_frame()
    assert (kept["kept"] <= kept["width"]).all()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(osl.InputError, match=r"needs pandas. Install onnxslim-learn\[frames\]"):
        found.to_frame()
