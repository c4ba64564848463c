"""Run a proof: ``python -m scripts.reliability kill --trials 200``; ``--first 17 --trials 1`` sees one trial again.

Every trial is a line of ``PROOF.jsonl`` in the folder that ``--keep`` names; a run that is started again goes on
after the last. The exit code is 1 if something was found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from scripts.reliability.trial import Proof, Trial

PROOFS = {
    "graphs": "laws on random graphs with random plans; 400 graphs a trial",
    "kill": "kill -9 at a random moment of a command or learner, then the same line again",
    "signals": "SIGINT, SIGTERM or SIGHUP at a random moment of a command or learner",
    "faults": "files that cannot grow, little memory, few open files",
    "disk": "a disk that is full, one that is read-only; mounts them, which needs root",
    "ranks": "one of two training processes is killed at a random moment, then both again",
    "same_bytes": "the same command over hash seeds, load and versions of Python, with one thread and two",
    "fuzz": "coverage-guided inputs to what reads files; needs atheris",
    "mutate": "mutants of what couples, prices, cuts and repairs, given their tests; needs cosmic-ray, coverage",
}


def main() -> int:
    """Run trials until enough are made, or the time is over."""
    parser = argparse.ArgumentParser(prog="python -m scripts.reliability", description=__doc__)
    parser.add_argument("proof", choices=PROOFS, help="; ".join(f"{name}: {said}" for name, said in PROOFS.items()))
    parser.add_argument("--trials", type=int, default=100, help="how many, at most (default: 100)")
    parser.add_argument("--seconds", type=float, default=3600, help="no trial begins after so many (default: 3600)")
    parser.add_argument(
        "--first", type=int, help="number of the first trial (default: after the last one that is kept)"
    )
    parser.add_argument("--keep", type=Path, default=Path("build/reliability"), help="where trials are noted")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # with more, OpenBLAS asks without end where it gets no memory
    asked.keep.mkdir(parents=True, exist_ok=True)
    noted, proof = asked.keep / f"{asked.proof}.jsonl", import_module(f"scripts.reliability.{asked.proof}").trial
    first, begun, findings = _after(noted) if asked.first is None else asked.first, time.monotonic(), 0
    for number in range(first, first + asked.trials):
        if time.monotonic() - begun > asked.seconds:
            break
        findings += bool(_noted(proof, number, noted).finding)
    print(_told(noted))
    return int(findings > 0)


def _noted(proof: Proof, number: int, noted: Path) -> Trial:
    """Carry out a trial and write down what came of it."""
    begun, used = time.monotonic(), _used()
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        trial = proof(number, Path(folder))
    line = {"number": number, **vars(trial), "seconds": round(time.monotonic() - begun, 1)}
    line["processor"] = round(_used() - used, 1)
    with noted.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    if trial.finding:
        print(f"{number}: {trial.what}: {trial.finding}", file=sys.stderr)
    return trial


def _used() -> float:
    """Processor time of this process and of those that it has waited for, seconds."""
    return sum(os.times()[:4])


def _lines(noted: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in noted.read_text(encoding="utf-8").splitlines()] if noted.is_file() else []


def _after(noted: Path) -> int:
    """The number after the last trial that was noted."""
    return max((int(str(line["number"])) for line in _lines(noted)), default=-1) + 1


def _told(noted: Path) -> str:
    """What all trials that were noted come to."""
    lines = _lines(noted)
    cases, *times = (sum(float(str(line[key])) for line in lines) for key in ("count", "seconds", "processor"))
    wrong = [str(line["number"]) for line in lines if line["finding"]]
    said = f"{noted.stem}: {len(lines)} trials, {cases:.0f} cases in {times[0]:.0f} s, {times[1]:.0f} s of processors; "
    return said + (f"findings in {len(wrong)}: {', '.join(wrong)}" if wrong else "no findings")


if __name__ == "__main__":
    raise SystemExit(main())
