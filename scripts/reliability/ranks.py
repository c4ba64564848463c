"""Two processes train, one is killed at a random moment: the other ends, nothing is half-written, both again go on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from scripts.reliability import lines
from scripts.reliability.trial import CODES, Ended, Trial, command, ended, environment, started

NAMES = ("learn", "learn, finetune", "learn, weight-sparse")


def trial(number: int, folder: Path) -> Trial:
    """A learner on two processes."""
    rng, name = np.random.default_rng(number), NAMES[number % len(NAMES)]
    seconds, wanted = _whole(name)
    place, share, victim = lines.copied(folder), rng.uniform(0.1, 1), int(rng.integers(2))
    what, before = f"{name}, rank {victim} killed at {share:.3f}", lines.given(place)
    pair = _pair(lines.LINES[name], place)
    time.sleep(share * seconds)
    if pair[victim].poll() is None:
        os.killpg(pair[victim].pid, signal.SIGKILL)
    other = [ended(process) for process in pair][1 - victim]
    wrong = [] if other.code in CODES else [f"the other rank ends with {other.code}: {other.err[-300:]}"]
    wrong += ["what was there has changed"] if lines.given(place) != before else []
    wrong += [f"half-written: {n}" for n, one in lines.results(place).items() if wanted.get(n) != one]
    again = [ended(process) for process in _pair(f"{lines.LINES[name]} --resume", place)]
    wrong += [f"again, it ends with {one.code}: {one.err[-300:]}" for one in again if one.code]
    if not wrong and lines.results(place) != wanted:
        wrong.append("again, it writes something else")
    return Trial(f"{what}, the other ended with {other.code}", "; ".join(wrong))


@cache
def _whole(name: str) -> tuple[float, dict[str, str]]:
    """How long both take that nobody kills, and what they write."""
    with TemporaryDirectory(prefix="reliability-") as outer:
        place, begun = lines.copied(Path(outer)), time.monotonic()
        came: list[Ended] = [ended(process) for process in _pair(lines.LINES[name], place)]
        if any(one.code for one in came):
            raise RuntimeError(f"{lines.LINES[name]}: {[one.err for one in came]}")
        return time.monotonic() - begun, lines.results(place)


def _pair(line: str, place: Path) -> list[subprocess.Popen[str]]:
    """Both processes, as torchrun would start them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [started(command(line), place, environment(**world, **rank)) for rank in ranks]
