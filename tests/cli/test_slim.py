"""The command slim: targets, places for results, options, and what it says of the files."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from nets.zoo import NETS
from onnxslim_learn import demo
from onnxslim_learn.rewrite import save
from onnxslim_learn.runtime import cache, timing
from onnxslim_learn.workflow import slim
from tests.cli.folder import BRIEF, HALF, SLIM, TO, answered, strict

REFUSALS = [
    # arguments, exit code, words in the sentence
    # models
    (f"slim random.onnx -o new.onnx {HALF}", 1, "new.onnx: output y random not verified Nothing was written"),
    # results
    (f"slim residual.onnx {HALF} -o nowhere/new.onnx", 2, "-o nowhere/new.onnx: folder"),
    (f"slim residual.onnx {HALF} -o text.onnx/new.onnx", 2, "-o text.onnx/new.onnx: no folder"),
    (f"slim residual.onnx {HALF} -o folder", 2, "-o folder: is a folder"),
    (f"slim residual.onnx {HALF} -o ''", 2, "-o '' no file name"),
    (f"slim residual.onnx {HALF} -o -", 2, "-o '-' no file name"),
    (f"slim residual.onnx {HALF} -o {'n' * 300}", 2, "-o nnn file name"),
    (f"slim residual.onnx {HALF} -o pipe", 2, "-o pipe: no regular file"),
    (f"slim residual.onnx {HALF} -o residual.onnx", 2, "-o residual.onnx: is read"),
    (f"slim residual.onnx {HALF} -o folder/../residual.onnx", 2, "-o is read"),
    (f"slim external.onnx {HALF} -o external.bin", 2, "external.bin"),
    (f"slim external.onnx {HALF} -o new.onnx --plan-out external.bin", 2, "--plan-out external.bin:"),
    (f"slim external.onnx {HALF} -o new.onnx --json new.onnx.data", 2, "--json new.onnx.data:"),
    (f"{SLIM} --plan-out residual.onnx", 2, "--plan-out residual.onnx: is read"),
    (f"{SLIM} --plan-out new.onnx", 2, "--plan-out new.onnx: is written by -o"),
    (f"{SLIM} --plan-out both.json --json both.json", 2, "--json both.json: is written by --plan-out"),
    (f"{SLIM} --plan-out nowhere/plan.json", 2, "--plan-out nowhere/plan.json: folder"),
    (f"{SLIM} --json folder", 2, "--json folder: is a folder"),
    # targets
    *((f"{TO} {text}", 2, f"--target {text}: macs=0.5") for text in ("macs", "=1", "speed=1", "MACS=1", "macs:1")),
    *((f"{TO} macs={text}", 2, f"macs={text} no number") for text in ("", "half", "0.5x", "k", "%")),
    *((f"{TO} macs={text}", 2, f"macs={text}: positive") for text in ("0", "-1", "nan", "inf", "1e999")),
    (f"{TO} macs=150%", 2, "macs=150%: 100"),
    (f"{TO} macs=0.5,params=0.5", 2, "--target params=0.5 no number"),
    (f"{TO} macs=0.7,0.5 --target params=0.9,0.8", 2, "--target params=0.9,0.8: only one"),
    (f"{TO} macs=0.5 --target macs=0.4", 2, "macs=0.4: twice"),
    (f"{TO} latency=4", 2, "latency=4: unit 4ms"),
    (f"{TO} macs=1e-9", 1, "macs=1e-09 cannot be reached best 8704"),
    (f"{TO} macs=1.5", 1, "macs=1.5 absolute best 8704"),
    (f"{TO} macs=0.5 --target params=1e-4", 1, "params=0.0001 best 84"),
    (f"{TO} bytes=100", 1, "bytes=100 best"),
    # how to choose
    (f"{SLIM} --criterion taste", 2, "--criterion taste: energy lamp"),
    (f"{SLIM} --protect ''", 2, "--protect empty match all"),
    (f"{SLIM} --protect nothing", 2, "--protect nothing: no group"),
    (f"{SLIM} --protect [", 2, "--protect [: regular expression"),
    (f"{SLIM} --protect .", 1, "macs=0.5 cannot be reached best 438272"),
    *((f"{SLIM} --multiple {text}", 2, f"--multiple positive {text}") for text in ("0", "-8", "1.5", "many")),
    (f"{SLIM} --multiple 1000", 1, "macs=0.5 cannot be reached best 438272"),
    # input shapes
    *((f"{SLIM} --input {text}", 2, f"--input {text}: NAME:1x3x224x224") for text in ("2x3x8x8", "x:", "x:axb")),
    *((f"{SLIM} --input x{text}", 2, f"--input x{text}: positive") for text in (":0x3x8x8", ":-1x3", ":²x3", "=2x3")),
    (f"{SLIM} --input y:2x3x8x8", 2, "--input y: no such input x"),
    (f"{SLIM} --input x:1x3x8x8", 2, "--input x: [2,3,8,8] 1x3x8x8"),
    (f"{SLIM} --input x:2x3x8", 2, "--input x: [2,3,8,8] 2x3x8"),
    # the runtime
    (f"{SLIM} --provider Abacus", 2, "--provider Abacus"),  # before the work, not after it
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_refusals(refused, arguments, code, words):
    refused(arguments, code, words)


TABLES = [
    # arguments, exit code, phrases on standard output
    (
        f"slim residual.onnx -o new.onnx --target macs=0.5 --seconds {BRIEF}",
        0,
        ["latency", "ms", "Verified on 2 inputs"],
    ),
    (
        f"{SLIM} --plan-out new.json",
        0,
        [
            "MACs",
            "438 k",
            "Verified on 2 inputs",
            "narrowed, to between",
            "% of their units",
        ],
    ),
    (f"slim external.onnx -o new.onnx {HALF}", 0, ["Verified on 2 inputs"]),
    (f"slim chain.onnx -o new.onnx {HALF}", 0, ["Verified on 2 inputs"]),
]


@pytest.mark.parametrize(("arguments", "code", "phrases"), TABLES)
def test_results_go_to_standard_output_alone(shown, arguments, code, phrases):
    shown(arguments, code, phrases)


JSON = [
    # arguments without --json, exit code, keys
    (SLIM, 0, "model output inputs before after latency layers verify groups pinned unknown_operators"),
]


@pytest.mark.parametrize(("arguments", "code", "keys"), JSON)
def test_json_is_all_of_standard_output_or_a_file_beside_the_tables(machine_read, arguments, code, keys):
    machine_read(arguments, code, keys)


def test_what_slim_reports_is_true_of_the_files(run):
    code, out, err = run(f"{SLIM} --json - --plan-out new.json")
    assert code == 0, err
    told = strict(out)
    for side, file in (("before", "residual.onnx"), ("after", "new.onnx")):
        again = slim.analyze(file)
        price = again.price(again.whole)
        assert {key: told[side][key] for key in ("macs", "params")} == {key: price[key] for key in ("macs", "params")}
        assert told[side]["weight_bytes"] == price["bytes"]
        assert told[side]["bytes"] == Path(file).stat().st_size
    assert told["after"]["macs"] <= 0.5 * told["before"]["macs"]
    assert told["verify"]["passed"] is True
    kept = json.loads(Path("new.json").read_text())["groups"]
    assert {g["name"]: g["kept"] for g in told["groups"]} == {name: len(units) for name, units in kept.items()}


TARGETS = [
    # targets, what holds then of the residual net's 438272 MACs, 3541 parameters and 14986 bytes
    ("macs=0.5", {"macs": 219136}),
    ("macs=50%", {"macs": 219136}),
    ("macs=100k", {"macs": 100_000}),
    ("params=0.1M", {"params": 3541}),
    ("params=1e3", {"params": 1000}),
    ("bytes=0.5", {"bytes": 7493}),
    ("bytes=5K", {"bytes": 5000}),
    ("macs=0.9 --target params=0.4 --target bytes=0.8", {"macs": 394444, "params": 1416, "bytes": 11988}),
]


@pytest.mark.parametrize(("targets", "bounds"), TARGETS)
def test_targets_are_met_from_below(run, targets, bounds):
    code, out, _ = run(f"{TO} {targets} --json -")
    assert code == 0
    after = strict(out)["after"]
    assert all(after[cost] <= bound for cost, bound in bounds.items()), after


ADVICE = [
    # options under which the target is out of reach, what is advised, and options that follow the advice
    ("--multiple 1000", "It can be reached without --multiple, or with --allow-empty.", ""),
    (
        "--multiple 1000",
        "It can be reached without --multiple, or with --allow-empty.",
        "--multiple 1000 --allow-empty",
    ),
    ("--protect .", "It can be reached without --protect.", ""),
    ("--protect . --criterion obs", "It can be reached without --protect.", ""),
    ("--protect . --multiple 1000", "It can be reached without --multiple and without --protect, or", ""),
    ("--target macs=0.01", "It can be reached with --allow-empty.", "--target macs=0.01 --allow-empty"),
]


@pytest.mark.parametrize(("given", "advice", "followed"), ADVICE)
def test_the_options_that_stand_in_the_way_are_named(run, given, advice, followed):
    line = "slim residual.onnx -o new.onnx --no-latency --target params=0.5"
    code, _, err = run(f"{line} {given}")
    assert (code, Path("new.onnx").exists()) == (1, False)
    assert advice in err
    assert run(f"{line} {followed}")[0] == 0


def test_what_would_not_help_is_not_advised(run):
    assert "It can" not in run(f"{TO} macs=1e-9 --multiple 2 --protect w1")[2]
    onnx.save(NETS["layer_norm"].build(), "norm.onnx")
    code, _, err = run("slim norm.onnx -o new.onnx --no-latency --target macs=0.1")
    assert (code, err.count("It can be reached with --allow-sensitive (not exact).")) == (1, 1)
    assert run("slim norm.onnx -o new.onnx --no-latency --target macs=0.1 --allow-sensitive")[0] == 0


@pytest.mark.parametrize("target", ["macs=1", "macs=100%", "params=1G", "bytes=1"])
def test_a_target_already_met_gives_a_copy_and_says_so(run, target):
    code, _, err = run(f"{TO} {target}")
    assert code == 0
    assert "nothing had to be cut" in err
    assert Path("new.onnx").read_bytes() == Path("residual.onnx").read_bytes()


def test_protected_groups_and_multiples_are_kept(run):
    code, out, err = run(f"{TO} macs=0.8 --protect w1 --multiple 4 --json -")
    assert code == 0, err
    kept = {group["name"]: group["kept"] for group in strict(out)["groups"]}
    assert kept["w1:0"] == 12
    assert all(count % 4 == 0 or count == 10 for count in kept.values())  # w3:0 may stay whole


def test_the_latency_told_is_the_quotient_of_the_times_told(run):
    line = f"slim residual.onnx -o new.onnx --target macs=0.5 --seconds {BRIEF} --json new.json"
    _, out, _ = run(line)
    told = strict(Path("new.json").read_text())
    found = told["latency"]
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["ratio"] == pytest.approx(told["after"]["latency_ms"] / told["before"]["latency_ms"])
    assert f"{found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f})" in out
    assert f"medians of {found['rounds']} paired rounds" in out
    assert ("faster." in out or "Slower." in out) == (found["faster"] is not True)


def test_folding_is_told_and_its_plan_replays(run):
    code, out, err = run(f"{SLIM} --criterion folding --no-repair --plan-out p.json --json new.json")
    assert code == 0, err
    told, plan = strict(Path("new.json").read_text()), strict(Path("p.json").read_text())
    gone = {group["name"]: group["width"] - group["kept"] for group in told["groups"] if group["kept"] < group["width"]}
    assert told["merged"] == {"units": gone, "dropped": {}}
    assert f"{sum(gone.values())} units of {len(gone)} groups folded into similar ones that stay." in out
    assert {name: sum(len(own) - 1 for own in found) for name, found in plan["merged"].items()} == gone
    assert run("apply residual.onnx p.json -o again.onnx --no-repair --no-latency")[0] == 0
    assert Path("again.onnx").read_bytes() == Path("new.onnx").read_bytes()
    assert run("verify residual.onnx again.onnx --plan p.json")[0] == 0
    assert answered(run(f"{SLIM} --no-repair --json -"))["merged"] is None


def test_layers_add_up_to_the_model(run):
    code, out, err = run(f"{SLIM} --json -")
    assert code == 0, err
    told = strict(out)
    for side, number in (("before", 0), ("after", 1)):
        assert sum(layer["macs"][number] for layer in told["layers"]) == told[side]["macs"]
    for file, number in (("residual.onnx", 0), ("new.onnx", 1)):
        weights = {tensor.name: list(tensor.dims) for tensor in onnx.load(file).graph.initializer}
        assert {layer["weight"]: layer["shapes"][number] for layer in told["layers"]}.items() <= weights.items()


def test_the_source_may_keep_its_weights_elsewhere(run):
    code, out, _ = run(f"slim external.onnx -o folder/new.onnx {HALF} --json -")
    assert code == 0
    assert Path("folder/new.onnx.data").stat().st_size < Path("external.bin").stat().st_size
    told, files = strict(out)["after"]["bytes"], save.files(Path("folder/new.onnx"))
    assert told == sum(file.stat().st_size for file in files)
    shutil.move("folder", "moved")
    assert run(f"profile external.onnx moved/new.onnx --seconds {BRIEF}")[0] == 0


def test_a_link_to_the_result_is_followed(run):
    Path("link.onnx").symlink_to("folder/new.onnx")
    assert run(f"slim residual.onnx -o link.onnx {HALF}")[0] == 0
    assert Path("link.onnx").is_symlink()
    assert slim.analyze("folder/new.onnx").groups


def test_several_targets_give_a_model_each_as_if_asked_for_alone(run):
    code, out, err = run("slim residual.onnx -o new.onnx --target macs=0.7,0.4 --no-repair --plan-out p.json --json -")
    assert code == 0, err
    rows = json.loads(out)["targets"]
    assert code == 0
    assert [row["output"] for row in rows] == ["new-0.7.onnx", "new-0.4.onnx"]
    assert all(row["pareto"] for row in rows)
    for row, share in zip(rows, ("0.7", "0.4"), strict=True):
        run(f"slim residual.onnx -o alone.onnx --target macs={share} --no-repair --plan-out alone.json")
        assert Path(row["output"]).read_bytes() == Path("alone.onnx").read_bytes()
        assert json.loads(Path(f"p-{share}.json").read_text()) == json.loads(Path("alone.json").read_text())
        assert row["after"]["macs"] <= float(share) * row["before"]["macs"]


def test_of_several_targets_each_is_reported_as_if_asked_for_alone(run):
    samples()
    line = "slim residual.onnx -o new.onnx --data samples.npz --work 20G --no-latency --target macs={}"
    code, out, _ = run(f"{line.format('0.7,0.4')} --json -")
    assert code == 0
    _, shown, _ = run(line.format("0.7,0.4"))
    for row in json.loads(out)["targets"]:
        alone = answered(run(f"{line.format(row['target']['macs'])} --json -"))
        differs = {"output": "", "stages": [], "run": {}, "verdict": alone["verdict"]["met"]}
        assert {**row["report"], **differs, "verdict": row["report"]["verdict"]["met"]} == {**alone, **differs}
        text = run(line.format(row["target"]["macs"]))[1]
        verdict, widths = text.splitlines()[0], next(one for one in text.splitlines() if "Widths: " in one)
        assert verdict in shown
        assert widths in shown


def test_models_of_targets_that_are_met_stay_where_a_later_one_is_not(run):
    code, _, err = run("slim residual.onnx -o new.onnx --target macs=0.7,0.00001 --no-repair")
    assert code == 1
    assert "new-0.7.onnx" in err
    assert Path("new-0.7.onnx").exists()


def test_without_time_to_measure_all_groups_are_narrowed_alike(run):
    code, out, _ = run("slim residual.onnx -o new.onnx --target macs=0.6 --sensitivity-seconds 0 --json - --no-latency")
    assert code == 0
    assert json.loads(out)["choice"]["allocation"] == "uniform"


SHARED_OUT = {
    "--work 1": "not measured, so widths are all alike: the work of 1 ended. --work ",
    "--work 2T": "the best of 5 allocations tried.",
    "--sensitivity-seconds 0.000001": "The same command goes on from there",
}


@pytest.mark.parametrize("allowed", SHARED_OUT)
def test_how_the_cut_was_shared_out_is_said(run, allowed, monkeypatch, tmp_path):
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "curves"))
    samples()
    line = f"slim residual.onnx -o new.onnx --target macs=0.6 --data samples.npz {allowed}"
    code, out, _ = run(f"{line} --no-latency")
    assert code == 0
    assert SHARED_OUT[allowed] in " ".join(out.split())


def test_the_work_that_measures_all_groups_is_said(run):
    samples()
    line = "slim residual.onnx -o new.onnx --target macs=0.6 --data samples.npz --no-latency --work"
    told = " ".join(run(f"{line} 1")[1].split())
    enough = re.search(r"--work (\S+) measures all", told)[1]
    code, out, _ = run(f"{line} {enough} --json -")
    assert code == 0
    measured, groups = json.loads(out)["choice"]["work"]["groups"]
    assert measured == groups


def samples():
    """Samples of the residual net."""
    ((name, shape),) = slim.analyze("residual.onnx").graph.shapes.nominal.inputs.items()
    rng = np.random.default_rng(0)
    np.savez("samples.npz", **{name: rng.normal(size=(32, *shape[1:])).astype(np.float32)})


TIMED = f"slim {demo.model_path()} -o new.onnx --no-repair --target macs=0.5"


@pytest.mark.parametrize("given", ["", "--multiple 2"])
def test_a_result_that_is_slower_says_what_was_tried_and_where_time_goes(run, monkeypatch, given):
    def slower(models, feeds, *, clock=None, threads=1, provider="CPUExecutionProvider", **rest):
        ms = np.array([[10.0, 12.0]] * 20)[:, : len(models)]
        return timing.Timings(ms, (1.0,) * len(models), threads, provider)

    monkeypatch.setattr(timing, "measure", slower)
    code, out, _ = run(f"{TIMED} {given} --json new.json")
    assert code == 0
    told, said = strict(Path("new.json").read_text()), " ".join(out.split())
    assert told["latency"]["faster"] is False
    assert "Slower" in said
    assert ("leave out --multiple" in said) == bool(given)
    assert ("so they were chosen again: in multiples of 8 1.20 (1.20 to 1.20), in multiples of 16" in said) == (
        not given
    )
    assert [one["multiple"] for one in told["timed"]] == ([] if given else ["auto", 8, 16])
    assert told["verdict"]["faster"].get("unchanged", {}) == told["latency"]["unchanged"]
    if told["latency"]["unchanged"]:
        first = r"Speed: SLOWER, 0\.83 times as fast \(1\.200 of the original's time\): [\d.]+ % of its time is"
        assert re.search(first, said)
        assert "of its time is in nodes that take as long as before" in said


@pytest.mark.parametrize("other", [0.3, 1.03])
def test_the_time_of_a_result_that_is_not_surely_slower_decides_nothing(run, monkeypatch, other):
    """The same plan and the same file, whatever is measured."""

    def measured(ratio):
        def measure(models, feeds, *, clock=None, threads=1, provider="CPUExecutionProvider", **rest):
            ms = np.array([[10.0, 10.0 * ratio], [10.0, 10.0]] * 20)[:, : len(models)]
            return timing.Timings(ms, (1.0,) * len(models), threads, provider)

        return measure

    files = []
    for ratio in (0.9, other):
        monkeypatch.setattr(timing, "measure", measured(ratio))
        assert run(f"{TIMED} --plan-out p.json")[0] == 0
        files.append((Path("p.json").read_bytes(), Path("new.onnx").read_bytes()))
    assert files[0] == files[1]
