"""SIGINT, SIGTERM or SIGHUP at a random moment of a line: it ends with a sentence, and nothing is half-written."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np

from scripts.reliability import lines
from scripts.reliability.faults import judged
from scripts.reliability.trial import Trial

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def trial(number: int, folder: Path) -> Trial:
    """A line that gets a signal."""
    rng, name = np.random.default_rng(number), list(lines.LINES)[number % len(lines.LINES)]
    sent, share, place = SIGNALS[int(rng.integers(len(SIGNALS)))], rng.uniform(0, 1), lines.copied(folder)
    until, before = share * lines.reference(name).ended.seconds, lines.given(place)
    came = lines.wait(lines.start(lines.LINES[name], place, _hear), place, until, sent)
    what = f"{name}, {sent.name} at {share:.3f} of its work, exit code {came.code}"
    return Trial(what, judged(came, {0, 128 + sent}, name, place, before))


def _hear() -> None:
    """Heed signals as a program in front of a terminal does, whatever this one ignores as it runs behind."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
