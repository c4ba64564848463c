"""kill -9 at a random moment: nothing that was there is hurt, and the same line again writes what it would have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.reliability import lines
from scripts.reliability.trial import Trial


def trial(number: int, folder: Path) -> Trial:
    """One line, killed once, and given again; learners go on."""
    rng, name = np.random.default_rng(number), list(lines.LINES)[number % len(lines.LINES)]
    ended, wanted, _ = lines.reference(name)
    share, line, place = rng.uniform(0, 1), lines.LINES[name], lines.copied(folder)
    before = lines.given(place)
    what = f"{name}, killed at {share:.3f} of its work"
    killed = lines.run(line, place, until=share * ended.seconds)
    if lines.given(place) != before:
        return Trial(what, "files that were read, or others, have changed")
    if damaged := {n: one for n, one in lines.results(place).items() if wanted.get(n) != one}:
        return Trial(what, f"{', '.join(damaged)} is neither as before nor whole")
    again = lines.run(f"{line} --resume" if line.startswith("learn") else line, place)
    if again.code:
        return Trial(what, f"given again, it ends with {again.code}: {again.err}")
    if lines.results(place) != wanted:
        return Trial(what, "given again, it writes something else")
    return Trial(f"{what}, exit code {killed.code}")
