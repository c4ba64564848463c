"""Every command and learner as a line over one small folder, and processes that carry lines out.

A process is forked from one that has imported everything, so that a trial takes the time of the work alone.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from nets.zoo import NETS
from onnxslim_learn.cli import commands
from onnxslim_learn.runtime import cache
from scripts.reliability.trial import LIMIT, Ended, digests

LEARN = "learn m.onnx -o out.onnx --data d.npz --batch-size 8 --no-latency --json out.json --checkpoint-dir run"
SHAPED = f"{LEARN} --checkpoint-every 3 --steps 8 --finetune-steps 6"
SPARSE = f"{LEARN} --learner weight-sparse --ws-prune-ratio 0.6"
SEARCH = "--ws-nb-rlouts 4 --ws-nb-rlouts-min 2 --ws-nb-iters-rg 2 --ws-nb-iters-ft 2 --ws-nb-iters-feval 1"
QUICK = "--no-latency --json out.json"

LINES = {
    "analyze": "analyze m.onnx --json out.json --html out.html",
    "slim": f"slim m.onnx -o out.onnx --target macs=0.5 --data d.npz --plan-out out.plan.json --html out.html {QUICK}",
    "slim, several": f"slim m.onnx -o out.onnx --target macs=0.7,0.5 --plan-out out.plan.json {QUICK}",
    "slim, lossless": f"slim m.onnx -o out.onnx --lossless {QUICK}",
    "slim, weights beside": f"slim beside.onnx -o out.onnx --target macs=0.5 --no-repair {QUICK}",
    "sparsify": f"sparsify m.onnx -o out.onnx --ratio 0.5 --data d.npz {QUICK}",
    "apply": f"apply m.onnx plan.json -o out.onnx {QUICK}",
    "verify": "verify m.onnx thin.onnx --plan plan.json --json out.json",
    "expand": f"expand thin.onnx -o out.onnx --target macs=1.0 --like m.onnx {QUICK}",
    "learn": f"{SHAPED} --target macs=0.6 --plan-out out.plan.json",
    "learn, cycles": f"{LEARN} --checkpoint-every 3 --steps 5 --finetune-steps 3 --target macs=0.6 --cycles 2",
    "learn, sweep": f"{LEARN} --checkpoint-every 3 --steps 5 --finetune-steps 3 --strength 1e-7 --sweep 2",
    "learn, finetune": f"{LEARN} --checkpoint-every 3 --learner finetune --finetune-steps 8",
    "learn, weight-sparse": f"{SPARSE} --checkpoint-every 3 --steps 10 --ws-prune-ratio-prtl uniform",
    "learn, weight-sparse by search": f"{SPARSE} --checkpoint-every 3 --steps 6 {SEARCH}",
}
"""By name; results are called ``out``, and ``run`` is the folder of checkpoints."""

WORK = 120  # seconds of processor time that a line may take: it takes three
RESULTS = ("out", "run")
REPORTS = ("out.json", "out.html")


@functools.cache
def prepared() -> Path:
    """A folder with what lines read; it stays as long as this process."""
    folder = Path(_place().name)
    model = NETS["residual"].build()
    onnx.save(model, folder / "m.onnx")
    onnx.save(model, folder / "beside.onnx", save_as_external_data=True, location="beside.bin", size_threshold=0)
    value = model.graph.input[0]
    shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
    x = np.random.default_rng(0).normal(size=(40, *shape[1:])).astype(np.float32)
    np.savez(folder / "d.npz", **{value.name: x})
    line = "slim m.onnx -o thin.onnx --target macs=0.5 --no-repair --no-latency --plan-out plan.json --work 1M"
    if (code := run(line, folder).code) != 0:
        raise RuntimeError(f"{line}: exit code {code}")
    for module in ("onnxslim_learn.learners.run", "onnxslim_learn.learners.weight_sparse.learner", "torch"):
        import_module(module)
    return folder


@functools.cache
def _place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="reliability-lines-")


def copied(folder: Path) -> Path:
    """What lines read, in the folder ``place`` of an empty one."""
    return Path(shutil.copytree(prepared(), folder / "place", dirs_exist_ok=True))


def start(line: str, folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """Carry out a line in a fork; what it says goes to files beside the folder. Returns the process.

    Args:
        line: Its words.
        folder: Where.
        before: Called first, in the process.
    """
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        for descriptor, name in ((1, "out"), (2, "err")):
            file = os.open(folder.with_name(f"{folder.name}.{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, descriptor)
        os.environ[cache.PLACE] = str(folder.with_name(f"{folder.name}.cache"))
        before()
        code = commands.main(line.split())
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def wait(process: int, folder: Path, until: float = math.inf, then: int = signal.SIGKILL) -> Ended:
    """How a fork ended.

    Args:
        process: The fork.
        folder: Where it works.
        until: Seconds of processor time after which it gets a signal: moments are the same on a busy machine.
        then: That signal.
    """
    begun, sent = time.monotonic(), False
    while (came := os.wait4(process, os.WNOHANG))[0] == 0:
        if not sent and _used(process) >= until:
            os.kill(process, then)
            sent = True
        if _used(process) > WORK or time.monotonic() - begun > LIMIT:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    said = [folder.with_name(f"{folder.name}.{name}").read_text(errors="replace") for name in ("out", "err")]
    return Ended(os.waitstatus_to_exitcode(came[1]), said[0], said[1], came[2].ru_utime + came[2].ru_stime)


def _used(process: int) -> float:
    """Processor time of a process so far, seconds (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(line: str, folder: Path, until: float = math.inf, then: int = signal.SIGKILL) -> Ended:
    """Carry out a line in a fork, to its end or to a signal (:func:`wait`)."""
    return wait(start(line, folder), folder, until, then)


def results(folder: Path) -> dict[str, str]:
    """Checksums of what was written, but for reports, which tell times, and checkpoints."""
    written = {name: one for name, one in digests(folder).items() if name not in REPORTS}
    return {
        n: one for n, one in written.items() if n.startswith("out") or (n.startswith("run") and n.endswith(".onnx"))
    }


def given(folder: Path) -> dict[str, str]:
    """Checksums of what was there before."""
    return digests(folder, (*RESULTS, ".onnxslim-"))


class Reference(NamedTuple):
    """How a line ends without a fault: what it wrote (:func:`results`), and the bytes that it left, reports counted."""

    ended: Ended
    results: dict[str, str]
    size: int


@functools.cache
def reference(name: str) -> Reference:
    """A line carried out without a fault.

    Raises:
        RuntimeError: If it failed.
    """
    with tempfile.TemporaryDirectory(prefix="reliability-") as outer:
        folder = copied(Path(outer))
        before = _size(folder)
        ended = run(LINES[name], folder)
        if ended.code:
            raise RuntimeError(f"{LINES[name]}: {ended.err}")
        return Reference(ended, results(folder), _size(folder) - before)


def _size(folder: Path) -> int:
    """Bytes of the files under a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
