"""The same command writes the same bytes: over hash seeds, numbers of threads, load, and versions of Python.

Other Pythons, which need this package and its dependencies in the same versions, are named by ``RELIABILITY_PYTHONS``,
with colons between them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from scripts.reliability import lines
from scripts.reliability.trial import Trial, ended, environment, started

SPIN = "import numpy as np\nwhile True: np.linalg.inv(np.random.default_rng(0).standard_normal((200, 200)))"


def trial(number: int, folder: Path) -> Trial:
    """A line in another environment than the reference's, from its start."""
    rng, name = np.random.default_rng(number), list(lines.LINES)[number % len(lines.LINES)]
    wanted = lines.reference(name).results
    place = lines.copied(folder)
    pythons = [sys.executable, *filter(None, os.environ.get("RELIABILITY_PYTHONS", "").split(":"))]
    python, threads, seed = str(rng.choice(pythons)), str(rng.integers(1, 3)), str(rng.integers(2**32))
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(int(rng.integers(0, 3)))]
    what = f"{name}: {python}, {threads} threads, hash seed {seed}, {len(busy)} busy processes beside"
    try:
        words = [python, "-m", "onnxslim_learn.cli.commands", *lines.LINES[name].split()]
        known = environment(OMP_NUM_THREADS=threads, PYTHONHASHSEED=seed, ONNXSLIM_LEARN_CACHE=str(folder / "cache"))
        came = ended(started(words, place, known))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    if came.code:
        return Trial(what, f"exit code {came.code}: {came.err[-500:]}")
    differing = sorted(n for n in {*wanted, *lines.results(place)} if wanted.get(n) != lines.results(place).get(n))
    return Trial(what, f"other bytes: {', '.join(differing)}" if differing else "")
