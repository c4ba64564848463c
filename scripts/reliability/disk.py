"""A disk that gets full at a random byte, and one that is read-only: a file system of its own, which needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from scripts.reliability import lines
from scripts.reliability.faults import judged
from scripts.reliability.trial import CODES, Trial

ROOM = 1.5  # times what a line writes, at most: temporary files lie beside results


def trial(number: int, folder: Path) -> Trial:
    """A line on such a disk."""
    rng, names = np.random.default_rng(number), list(lines.LINES)
    full, name = number % 2 == 0, names[number // 2 % len(names)]
    room = int(rng.uniform(0, ROOM) * lines.reference(name).size)
    with _disk(folder / "place") as place:
        lines.copied(folder)
        before = lines.given(place)
        _mount("-o", f"remount,size={_used(place) + room}" if full else "remount,ro", place)
        came = lines.run(lines.LINES[name], place)
        what = f"{name}, {f'{room} bytes of room' if full else 'read-only'}, exit code {came.code}"
        return Trial(what, judged(came, CODES if full else {2}, name, place, before))


@contextmanager
def _disk(place: Path) -> Iterator[Path]:
    """A file system in memory."""
    place.mkdir()
    _mount("-t", "tmpfs", "tmpfs", place)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def _used(place: Path) -> int:
    """Bytes that lie there."""
    disk = os.statvfs(place)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize
