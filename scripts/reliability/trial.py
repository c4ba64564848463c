"""One trial of a proof: its number is its seed, so that the number is all that must be kept to see it again."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODES = (0, 1, 2, 3)  # exit codes that the design knows
LIMIT = 7200  # seconds after which a process that does nothing hangs, on a machine as busy as may be


@dataclass(frozen=True)
class Trial:
    """What was tried, and what came of it.

    Attributes:
        what: In words.
        finding: What does not hold; empty where all does.
        count: Of how many cases it is.
    """

    what: str
    finding: str = ""
    count: int = 1


Proof = Callable[[int, Path], Trial]
"""Carries out the trial of a number in an empty folder."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal; what it said; how long it took, seconds."""

    code: int
    out: str
    err: str
    seconds: float


def command(line: str) -> list[str]:
    """The command line as a process."""
    return [sys.executable, "-m", "onnxslim_learn.cli.commands", *line.split()]


def environment(**more: str) -> dict[str, str]:
    """Variables of a process: this checkout, and one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def started(words: list[str], folder: Path, known: Mapping[str, str]) -> subprocess.Popen[str]:
    """A process in a group of its own."""
    piped = subprocess.PIPE
    return subprocess.Popen(words, cwd=folder, env=known, stdout=piped, stderr=piped, text=True, start_new_session=True)


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a process; what hangs is killed, and its code is that of the signal."""
    begun = time.monotonic()
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return Ended(process.returncode, out, err, time.monotonic() - begun)


def digests(folder: Path, skip: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of every file under a folder, but those under some names."""
    files = (file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in files}
    skipped = tuple(skip)
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in sorted(names.items())
        if not name.startswith(skipped)
    }
