"""How good a result is comes first, and by exit code where that was asked for."""

import numpy as np
import pytest

from onnxslim_learn.workflow import slim
from tests.cli.folder import strict

CUT = "slim residual.onnx -o new.onnx --target macs=0.4 --no-latency --sensitivity-seconds 0"
METRICS = """
def largest(outputs, labels):
    return float(outputs.max(axis=-1).mean())
def error(outputs, labels):
    return float(abs(outputs).mean())
error.higher_is_better = False
def broken(outputs, labels):
    raise KeyError("no such thing")
"""


@pytest.fixture
def samples(prepared):
    shape = slim.analyze(prepared / "residual.onnx").graph.shapes.nominal.inputs["x"]
    np.savez(prepared / "real.npz", x=np.random.default_rng(0).random((32, *shape[1:])).astype(np.float32))
    (prepared / "judges.py").write_text(METRICS)


def test_a_destroyed_result_is_called_so_and_written(samples, run, tmp_path):
    code, out, err = run(f"{CUT} --data real.npz --no-repair")
    assert code == 0
    assert out.startswith("Quality: DESTROYED")
    assert "destroyed" in err
    code, out, err = run(f"{CUT} --data real.npz --no-repair --min-quality 0.9 --json -")
    assert code == 3
    assert "0.9 was asked for" in err
    told = strict(out)["quality"]
    assert (told["destroyed"], told["inputs"], told["samples"]) == (True, "given", 8)
    assert (tmp_path / "new.onnx").exists()


def test_made_up_inputs_give_no_verdict(run):
    code, out, err = run(f"{CUT} --samples 32")
    assert (code, err) == (0, "")
    first = out.splitlines()[0]
    assert "unknown" in first
    assert "--data" in first
    code, out, _ = run(f"{CUT} --no-repair")
    assert "not measured" in out.splitlines()[0]


def test_a_metric_is_told_before_and_after(samples, run):
    code, out, err = run(f"{CUT} --data real.npz --metric judges:error --json -")
    assert code == 0, err
    told = strict(out)["quality"]["metric"]
    assert code == 0
    assert told["name"] == "judges:error"
    assert not told["higher_is_better"]
    assert told["before"] > 0


def test_each_of_several_targets_is_judged(samples, run):
    line = CUT.replace("macs=0.4", "macs=0.99,0.3")
    code, out, err = run(f"{line} --data real.npz --no-repair --min-quality 0.5 --json -")
    assert code == 3
    assert "new-0.3.onnx" in err
    assert "new-0.99.onnx" not in err
    assert [row["quality"]["destroyed"] for row in strict(out)["targets"]] == [False, True]
    _, out, _ = run(f"{line} --data real.npz --no-repair")
    assert "destroyed" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--min-quality 0.9", "--min-quality real --data"),
        ("--metric accuracy", "--metric real --data"),
        ("--data real.npz --min-quality 2", "--min-quality 0 1"),
        ("--data real.npz --metric nothing", "--metric nothing accuracy module:function"),
        ("--data real.npz --metric accuracy", "accuracy labels"),
        ("--data real.npz --metric judges:broken", "judges:broken KeyError"),
    ],
)
def test_what_cannot_be_judged_is_refused(samples, refused, flags, words):
    refused(f"{CUT} {flags}", 2, words)
