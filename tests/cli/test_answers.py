"""How much a command says, and where: quiet, at length, in a file, while it runs."""

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxslim_learn.cli import parser
from onnxslim_learn.cli.table import COMMANDS
from onnxslim_learn.commands import stages
from onnxslim_learn.rows import imported
from tests.cli.folder import BRIEF, SLIM

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* ?")
TOLD = [
    "analyze residual.onnx",
    f"slim residual.onnx -o new.onnx --target macs=0.5 --seconds {BRIEF}",
    f"slim residual.onnx -o new.onnx --target macs=0.5 --data samples.npz --sensitivity-seconds 0 --seconds {BRIEF}",
    "slim residual.onnx -o new.onnx --target macs=0.5 --no-repair --no-latency",
    "slim residual.onnx -o new.onnx --lossless --no-latency",
    "apply residual.onnx slim.json -o new.onnx --no-latency",
    "sparsify residual.onnx -o new.onnx --ratio 0.5 --samples 16 --no-latency",
    "expand slim.onnx -o new.onnx --target macs=1 --like residual.onnx",
    "verify residual.onnx slim.onnx --plan slim.json",
    f"profile residual.onnx slim.onnx --per-node --threads 1,2 --seconds {BRIEF}",
]


@pytest.fixture
def sampled(run):
    """The folder, with samples for residual.onnx."""
    np.savez("samples.npz", x=np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32))
    return run


@pytest.mark.parametrize("line", TOLD)
def test_stages_run_as_they_were_told(sampled, line):
    call = parser.parse(shlex.split(line))
    came = []

    def watcher(stage, share, numbers):
        name = re.sub(r" \d+ of \d+$", "", stage)
        came.extend([] if name in came else [name])

    imported(COMMANDS[call.command].act)(*call.files, progress=watcher, **call.options)
    assert came == stages.listed(call.command, call.options)


def test_quiet_is_one_line(run):
    code, out, err = run(f"{SLIM} --quiet")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert "met: 0." in line
    assert "Written: new.onnx" in line
    assert run(f"{SLIM} --quiet --json -")[1].startswith("{")
    code, out, err = run("slim residual.onnx -o new.onnx --target macs=1e-9 --quiet")
    assert (code, out) == (1, "")
    assert "cannot be reached" in err
    code, out, _ = run("verify residual.onnx slim.onnx --plan slim.json --quiet")
    assert (code, out) == (0, "verify residual.onnx slim.onnx: passed.\n")
    code, out, _ = run("verify residual.onnx thin.onnx --plan slim.json --quiet")
    assert code == 1
    assert out.startswith("verify residual.onnx thin.onnx: failed, ")
    code, out, err = run(f"{SLIM} --quiet --verbose")
    assert (code, out) == (2, "")


def test_verbose_names_stages(run):
    code, out, err = run(f"{SLIM} --verbose")
    assert code == 0
    assert out
    first, *others = err.splitlines()
    names = first.removeprefix("onnxslim-learn: stages: ").split(", ")
    assert others == [f"onnxslim-learn: {k} of {len(names)}: {name}" for k, name in enumerate(names, 1)]


def test_a_log_holds_progress_and_report_with_times(run):
    code, out, err = run(f"{SLIM} --log-file new.log")
    assert (code, err) == (0, "")
    lines = Path("new.log").read_text().splitlines()
    assert all(STAMP.match(line) for line in lines)
    text = "\n".join(STAMP.sub("", line, count=1) for line in lines)
    assert text.startswith("stages: analyzing, ")
    assert [line for line in out.splitlines() if line.strip() not in text] == []
    assert run("slim residual.onnx -o new.onnx --target macs=1e-9 --log-file new.log")[0] == 1
    assert "cannot be reached" in Path("new.log").read_text()


@pytest.mark.parametrize("log", ["residual.onnx", "new.onnx", "folder", "nowhere/new.log"])
def test_a_log_spares_other_files(refused, log):
    refused(f"{SLIM} --log-file {log}", 2, "--log-file")


def on_terminal(*words, cwd):
    """What a command prints on a terminal of 100 columns, without colours."""
    ours, theirs = pty.openpty()
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm", "PYTHONPATH": root}
    command = [sys.executable, "-m", "onnxslim_learn", *words]
    with subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs, stdin=theirs, cwd=cwd) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(parts).decode())


def test_a_terminal_is_told_stages_before_they_run(run):
    text = on_terminal(*shlex.split(SLIM), cwd=Path.cwd())
    assert text.lstrip("\r").startswith("Stages: analyzing, ")
    assert "1 of " in text
    assert "What was done" in text


def test_a_run_tells_times_and_numbers_however_narrow_the_terminal(run):
    line = "learn residual.onnx -o new.onnx --target macs=0.7 --steps 20 --finetune-steps 10 --no-latency"
    text = on_terminal(*shlex.split(line), cwd=Path.cwd())
    assert re.search(r"structure [^\n]* left\n", text.replace("\r", "\n").replace("\n\n", "\n"))
    assert "cost left" in text
