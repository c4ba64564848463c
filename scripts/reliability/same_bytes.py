"""The same command writes the same bytes: over hash seeds, load, and versions of Python, with one thread and with two.

With another number of threads BLAS and torch add up in another order, so that what is trained or refitted may differ
in its last bits: a line is compared with the same line in a calm process with as many threads.

Other Pythons, which need this package and its dependencies in the same versions, are named by ``RELIABILITY_PYTHONS``,
with colons between them.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from scripts.reliability import lines
from scripts.reliability.trial import Ended, Trial, ended, environment, started

SPIN = "import numpy as np\nwhile True: np.linalg.inv(np.random.default_rng(0).standard_normal((200, 200)))"


def trial(number: int, folder: Path) -> Trial:
    """A line in another environment than the reference's, from its start."""
    rng, name = np.random.default_rng(number), list(lines.LINES)[number % len(lines.LINES)]
    pythons = [sys.executable, *filter(None, os.environ.get("RELIABILITY_PYTHONS", "").split(":"))]
    python, threads, seed = str(rng.choice(pythons)), str(rng.integers(1, 3)), str(rng.integers(2**32))
    wanted = _calm(name, threads)
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(int(rng.integers(0, 3)))]
    what = f"{name}: {python}, {threads} threads, hash seed {seed}, {len(busy)} busy processes beside"
    try:
        came, written = _carried_out(name, python, folder, OMP_NUM_THREADS=threads, PYTHONHASHSEED=seed)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    if came.code:
        return Trial(what, f"exit code {came.code}: {came.err[-500:]}")
    differing = sorted(n for n in {*wanted, *written} if wanted.get(n) != written.get(n))
    return Trial(what, f"other bytes: {', '.join(differing)}" if differing else "")


@functools.cache
def _calm(name: str, threads: str) -> dict[str, str]:
    """Checksums of what a line writes in a process with so many threads, with nothing of ours beside it.

    Raises:
        RuntimeError: If it failed.
    """
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        came, written = _carried_out(name, sys.executable, Path(folder), OMP_NUM_THREADS=threads, PYTHONHASHSEED="0")
    if came.code:
        raise RuntimeError(f"{lines.LINES[name]}: {came.err}")
    return written


def _carried_out(name: str, python: str, folder: Path, **known: str) -> tuple[Ended, dict[str, str]]:
    """How a line ended in an empty folder, and checksums of what it wrote."""
    place = lines.copied(folder)
    words = [python, "-m", "onnxslim_learn.cli.commands", *lines.LINES[name].split()]
    came = ended(started(words, place, environment(ONNXSLIM_LEARN_CACHE=str(folder / "cache"), **known)))
    return came, lines.results(place)
