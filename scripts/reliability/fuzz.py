"""Coverage-guided inputs (atheris) to what reads files: any outcome but a value or an error of ours is a finding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.reliability.trial import ROOT, Trial, environment

TARGETS = ("load", "plan", "config", "arrays", "checkpoint")
RUNS = 2000


def trial(number: int, folder: Path) -> Trial:
    """So many inputs to one target, from a seed; the corpus stays beside the notes."""
    target = TARGETS[number % len(TARGETS)]
    corpus = ROOT / "build" / "reliability" / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    told = [f"-seed={number + 1}", f"-runs={RUNS}", "-max_len=20000", "-rss_limit_mb=4096", "-timeout=60"]
    words = [sys.executable, "-m", "scripts.reliability.fuzz_target", target, str(corpus), *told]
    came = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    finding = "" if came.returncode == 0 else came.stdout[-1500:] + came.stderr[-1500:]
    for crash in folder.glob("crash-*"):
        finding = f"{crash.read_bytes()!r:.3000}\n{finding}"
    return Trial(f"{target}, seed {number + 1}", finding, RUNS)
