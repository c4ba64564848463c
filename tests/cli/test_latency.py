"""Devices and latency on the command line: calibrate, analyze with a device, bounds on latency and memory."""

import json
import tomllib
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from onnxslim_learn.runtime import cache, timing
from onnxslim_learn.workflow.latency_target import CALIBRATION, STEP
from tests.cli.folder import BRIEF, strict

QUICK = f"--seconds {BRIEF} --measure-seconds {BRIEF} --no-repair"
LATENCY = f"slim residual.onnx -o new.onnx {QUICK} --target"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """A cache in which this machine is known already."""
    monkeypatch.setenv(cache.PLACE, str(tmp_path_factory.mktemp("cache")))
    about = cache.runtime(1, "CPUExecutionProvider")
    cache.add(CALIBRATION, about, {"gflops": 50.0, "gbytes": 10.0, "node_us": 1.0, "run_us": 20.0, f"{STEP}Conv": 2.0})


REFUSALS = [
    # arguments, exit code, words in the sentence
    ("analyze residual.onnx --device nowhere.toml", 2, "--device nowhere.toml: no P100 calibrate"),
    ("analyze residual.onnx --device text.onnx", 2, "text.onnx: TOML calibrate"),
    ("calibrate -o folder", 2, "-o folder: is a folder"),
    ("calibrate --name ''", 2, "--name ''"),
    (f"{LATENCY} latency=0.001", 1, "cannot be reached narrowest predicted nodes faster"),
    (f"{LATENCY} latency=2us", 1, "latency=0.002ms cannot be reached"),
    (f"{LATENCY} latency=0.01 --device V100", 1, "latency=0.01 cannot be reached"),
    ("slim residual.onnx -o new.onnx --no-repair --target memory=0.01", 1, "memory=0.01 cannot be reached"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_refusals(refused, arguments, code, words):
    refused(arguments, code, words)


TABLES = [
    # arguments, exit code, phrases on standard output
    (
        "analyze residual.onnx --device P100",
        0,
        ["on P100 (9.3 TFLOP/s, 732 GB/s)", "Nodes that take longest"],
    ),
    (
        f"{LATENCY} latency=10s --target macs=0.5",
        0,
        ["Latency of at most 10 s was asked for", "predicted", "measured", "taken"],
    ),
    (f"{LATENCY} latency=0.8 --device V100", 0, ["Verified on 2 inputs"]),
    (f"{LATENCY} memory=0.7", 0, ["Verified on 2 inputs"]),
]


@pytest.mark.parametrize(("arguments", "code", "phrases"), TABLES)
def test_results_go_to_standard_output_alone(shown, arguments, code, phrases):
    shown(arguments, code, phrases)


def test_a_machine_is_measured_and_used(run):
    code, out, _ = run("calibrate -o new.toml --seconds 0.05")
    assert code == 0
    assert "GB/s" in out
    assert "--device" in out
    device = tomllib.loads(Path("new.toml").read_text())
    code, out, err = run("analyze residual.onnx --device new.toml --json -")
    assert code == 0, err
    told = strict(out)
    assert code == 0
    assert told["device"] == device
    assert told["costs"]["latency_ms"] == pytest.approx(sum(row["ms"] for row in told["estimated"]))
    assert all(0 < row["latency_share"] < 1 for row in told["groups"])


def test_json_tells_how_a_bound_on_latency_was_met(run):
    code, out, err = run(f"{LATENCY} latency=10s --target macs=0.5 --plan-out new.json --html new.html --json -")
    assert code == 0, err
    told = strict(out)["latency_target"]
    assert code == 0
    assert told["target_ms"] == 10000
    assert {**told, "rounds": None}.items() >= told["rounds"][-1].items()
    assert json.loads(Path("new.json").read_text())["provenance"]["target"] == {"latency": "10000ms", "macs": 0.5}
    assert "Latency of every choice of widths" in Path("new.html").read_text()


@pytest.fixture
def clocked(monkeypatch):
    """Sets what every slimmed model takes: its ratios to the original in processor and in wall-clock time."""

    def take(processor, wall):
        def measure(models, feeds, *, clock=perf_counter, threads=1, provider="CPU", **rest):
            ms, wall_ms = (np.array([[10.0, 10.0 * ratio]] * 20)[:, : len(models)] for ratio in (processor, wall))
            other = None if clock is perf_counter else wall_ms
            return timing.Timings(wall_ms if other is None else ms, (1.0,) * len(models), threads, provider, other)

        monkeypatch.setattr(timing, "measure", measure)

    return take


def test_the_figures_of_a_target_that_is_met_are_those_it_was_met_by(run, clocked):
    clocked(0.8997, 0.95)
    code, out, _ = run(f"{LATENCY} latency=0.9 --json new.json")
    assert code == 0
    told = json.loads(Path("new.json").read_text())
    assert (told["before"]["latency_ms"], told["after"]["latency_ms"]) == pytest.approx((10.0, 8.997))
    assert told["latency"]["ratio"] == pytest.approx(told["latency_target"]["measured_ms"] / 10.0)
    assert told["latency"]["ratio"] <= 0.9
    assert (told["latency"]["processor_time"], told["latency"]["wall_ratio"]) == (True, pytest.approx(0.95))
    assert "processor time, as the target was met" in " ".join(out.split())
    assert "In wall-clock time, which other work on the machine disturbs, the ratio is 0.950." in " ".join(out.split())


def test_a_target_that_is_missed_by_a_hair_is_missed(refused, clocked):
    clocked(0.901, 0.4)
    refused(f"{LATENCY} latency=0.9", 1, "latency=9ms missed choices timed fastest 9.01 processor 0.901")


@pytest.mark.parametrize(("ratio", "code"), [(0.85, 0), (0.95, 1)])
def test_what_was_learnt_meets_its_target_as_it_is_timed_in_the_end(run, clocked, ratio, code):
    np.savez("samples.npz", x=np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32))
    clocked(ratio, 0.95)
    line = "learn residual.onnx -o small.onnx --target latency=0.85 --data samples.npz --steps 6 --finetune-steps 2"
    ended, out, err = run(f"{line} --no-latency --batch-size 8 --json -")
    assert out, err
    told, (row,) = strict(out), strict(out)["verdict"]["met"]
    assert ended == code, err
    assert (row["met"], row["share"]) == (not code, pytest.approx(ratio))
    assert row["share"] == pytest.approx(told["latency"]["ratio"])
    assert Path("small.onnx").exists()
    assert ("the result's latency: expected at most 8.5 ms, but got 9.5 ms" in err) == bool(code)
    assert ("--target latency=0.76" in told["verdict"]["next"]["command"]) == bool(code)


def test_expand_to_a_latency_is_timed_here(run):
    code, out, err = run(f"expand residual.onnx -o wide.onnx --target latency=5ms --seconds {BRIEF} --json out.json")
    assert (code, err) == (0, "")
    assert "latency, processor time" in out
    found = json.loads(Path("out.json").read_text())["latency"]
    assert found["measured"]
    assert found["before_ms"] < found["after_ms"] <= found["bound_ms"] == 5
    (row,) = json.loads(Path("out.json").read_text())["verdict"]["met"]
    assert (row["cost"], row["got"]) == ("latency", pytest.approx(1e3 * found["after_ms"]))


def test_expand_to_a_latency_is_estimated_for_a_device(run):
    line = "expand small.onnx -o wide.onnx --target latency=1.0 --like residual.onnx --device K80"
    assert run("slim residual.onnx -o small.onnx --target macs=0.5 --no-repair --no-latency")[0] == 0
    code, out, err = run(line)
    assert (code, err) == (0, "")
    assert "latency, estimated" in out


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("slim residual.onnx -o new.onnx --target latency=1.5", 2, "above 1 a time unit latency=4ms"),
        ("expand residual.onnx -o new.onnx --target latency=0.5 --device T4", 1, "latency no room --like"),
        ("learn residual.onnx -o new.onnx --target latency=0.5 --cycles 2", 2, "--cycles --device calibrate"),
    ],
)
def test_latencies_that_cannot_be_are_refused(refused, line, code, words):
    refused(line, code, words)
