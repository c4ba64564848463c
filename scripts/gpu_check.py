"""Look whether learning and timing work on a GPU, in under five minutes; where there is none, say so and stop.

    python -m scripts.gpu_check [--on cpu]

Each check is a command line, and what its output must say:

* a step of learning takes at most 1.05 of the same step by hand in torch;
* computing in bfloat16 and in half precision leaves as much of the outputs as single precision, within a point;
* two processes, by nccl on two GPUs, leave as much, too;
* a bound on the latency in onnxruntime's CUDA provider is met.

What a machine lacks (a GPU, a second one, that provider) is named, and passed over. ``--on cpu`` takes the same steps
without a GPU, which shows that the lines are right, and nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "onnxslim_learn" / "demo"
LEARN = (
    f"-m onnxslim_learn learn {DEMO / 'digits.onnx'} -o {{out}}.onnx --data {DEMO / 'digits.npz'} --target macs=0.5"
    " --steps 60 --finetune-steps 60 --no-latency --train-on {on} --json {out}.json"
)
SLIM = (
    f"-m onnxslim_learn slim {DEMO / 'digits.onnx'} -o {{out}}.onnx --data {DEMO / 'digits.npz'} --target latency=0.8"
    " --provider {provider} --json {out}.json"
)
SLOWER, WORSE = 1.05, 0.01


@dataclass(frozen=True)
class Check:
    """A command line and what must hold.

    Attributes:
        name: What is looked at.
        line: Arguments of Python.
        holds: What is wrong with its output and its report, in words; empty if nothing is.
        needs: Whether it takes ``gpus`` or a ``provider``.
    """

    name: str
    line: str
    holds: Callable[[str, dict[str, Any]], str]
    needs: str = ""


def _steps(output: str, _: dict[str, Any]) -> str:
    ratios = {row["net"]: row["ratio"] for row in map(json.loads, output.splitlines()[1:])}
    print("   ", ", ".join(f"{net}: {ratio} of a step by hand" for net, ratio in ratios.items()))
    slow = [net for net, ratio in ratios.items() if ratio > SLOWER]
    return f"more than {SLOWER}: {', '.join(slow)}" if slow else ""


_plain: list[float] = []  # what single precision leaves, to compare with


def _agrees(_: str, report: dict[str, Any]) -> str:
    kept = report["verdict"]["kept"]
    _plain.append(float(kept["share"]))
    print(f"    {kept['said']}")
    lost = _plain[0] - _plain[-1]
    return f"{lost:.1%} less than in single precision" if lost > WORSE else ""


def _met(_: str, report: dict[str, Any]) -> str:
    missed = [one["cost"] for one in report["verdict"]["met"] if not one["met"]]
    return f"not met: {', '.join(missed)}" if missed else ""


CHECKS = (
    Check("a step against torch by hand", "-m benchmarks.learn.steps vgg resnet20 --steps 60 --on {on}", _steps),
    Check("single precision", f"{LEARN} --precision fp32", _agrees),
    Check("bfloat16", f"{LEARN} --precision bf16", _agrees),
    Check("half precision", f"{LEARN} --precision fp16", _agrees),
    Check(
        "two processes",
        f"-m torch.distributed.run --standalone --nproc-per-node 2 {LEARN} --checkpoint-dir {{out}}.run",
        _agrees,
        "gpus",
    ),
    Check("a bound on latency", SLIM, _met, "provider"),
)


def lacking(check: Check, on: str) -> str:
    """What this machine lacks for a check, in words."""
    import onnxruntime
    import torch

    if on == "cuda" and check.needs == "gpus" and torch.cuda.device_count() < 2:
        return "it has one GPU"
    if (
        on == "cuda"
        and check.needs == "provider"
        and "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    ):
        return "its onnxruntime has no CUDA provider: install onnxruntime-gpu"
    return ""


def carried_out(check: Check, on: str, folder: Path) -> str:
    """What is wrong, in words."""
    out = folder / "out"
    words = check.line.format(out=out, on=on, provider=on).split()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
    report = out.with_suffix(".json")
    return check.holds(done.stdout, json.loads(report.read_text()) if report.is_file() else {})


def main() -> None:
    """Run all checks; the exit code is 1 if one fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--on", default="cuda", choices=("cuda", "cpu"), help="where (default cuda)")
    options = parser.parse_args()
    import torch

    if options.on == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here: nothing was checked.")
        return
    failed = 0
    for check in CHECKS:
        if lack := lacking(check, options.on):
            print(f"passed over: {check.name}, for this machine lacks it ({lack})", flush=True)
            continue
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            wrong = carried_out(check, options.on, Path(folder))
        failed += bool(wrong)
        print(
            f"{'FAILED' if wrong else 'holds'}: {check.name}, {time.perf_counter() - begun:.0f} s {wrong}", flush=True
        )
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
