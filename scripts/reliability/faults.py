"""Faults of the system: files that cannot grow, little memory, few open files.

Whatever happens: one sentence, an exit code of the design, nothing half-written, and what was there is as it was.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Container
from pathlib import Path

import numpy as np

from onnxslim_learn.cli import guard
from scripts.reliability import lines
from scripts.reliability.trial import CODES, Ended, Trial


def trial(number: int, folder: Path) -> Trial:
    """A line under a fault, as the command line runs it: a library that crashes is told of, too."""
    rng, names = np.random.default_rng(number), list(lines.LINES)
    kind, name = list(FAULTS)[number % len(FAULTS)], names[number // len(FAULTS) % len(names)]
    place, limit, amount = lines.copied(folder), FAULTS[kind], float(rng.uniform(0.02, 1))
    before = lines.given(place)

    def begin() -> None:
        limit(amount)
        guard.split()

    came = lines.wait(lines.start(lines.LINES[name], place, begin), place)
    what = f"{name}, {kind}, {amount:.3f}, exit code {came.code}"
    return Trial(what, judged(came, CODES, name, place, before))


def judged(came: Ended, codes: Container[int], name: str, place: Path, before: dict[str, str]) -> str:
    """What is wrong with how a line ended under a fault; empty if nothing is.

    Args:
        came: How it ended.
        codes: Exit codes that it may have.
        name: Of the line.
        place: Where it worked.
        before: What was there (:func:`scripts.reliability.lines.given`).
    """
    wanted = lines.reference(name).results
    wrong = [f"exit code {came.code}"] if came.code not in codes else []
    wrong += ["what was there has changed"] if lines.given(place) != before else []
    written = {n: one for n, one in lines.results(place).items() if not n.startswith("run")}
    wrong += [f"half-written: {n}" for n, one in written.items() if wanted.get(n) != one]
    wrong += ["a temporary folder stays"] if came.code >= 0 and any(place.glob(".onnxslim-*")) else []
    if came.code not in (0, 3) and not any(line.startswith("onnxslim-learn: ") for line in came.err.splitlines()):
        wrong.append("no sentence")
    return f"{'; '.join(wrong)}: {came.err[-500:]}" if wrong else ""


def _files(share: float) -> None:
    """No file may be longer than so many bytes, which is how a full disk looks to what writes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = int(share * 20_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _memory(share: float) -> None:
    """So much address space beyond what there is."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    size = used + int(share * 512e6)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _descriptors(share: float) -> None:
    """So few open files."""
    count = len(os.listdir("/proc/self/fd")) + int(share * 12)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


FAULTS: dict[str, Callable[[float], None]] = {
    "files cannot grow": _files,
    "little memory": _memory,
    "few open files": _descriptors,
}
