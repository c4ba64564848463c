"""Laws on random graphs with random plans: slim is mask, a plan costs what its file costs and reads as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from scripts.reliability.trial import ROOT, Trial, environment

GRAPHS = 400


def trial(number: int, folder: Path) -> Trial:
    """The graphs of a seed."""
    test = ["tests/test_random_pairs.py", "-n", "0", "-m", "slow", "-s", "-p", "no:cacheprovider"]
    words = [sys.executable, "-m", "pytest", *test, f"--graphs={GRAPHS}", f"--graph-seed={number}"]
    ended = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    pairs = re.search(r"seed \d+: (\d+) graphs, (\d+) pairs", ended.stdout)
    count = int(pairs.group(2)) if pairs else 0
    finding = "" if ended.returncode == 0 and count else "\n".join(ended.stdout.splitlines()[-40:])
    return Trial(f"seed {number}, {GRAPHS} graphs", finding, count)
