"""Measured times on disk: found again by what was timed and on what, written whole, and under a lock."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import filelock
import platformdirs

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime import atomic

PLACE = "ONNXSLIM_LEARN_CACHE"  # environment variable with the folder to use
PATIENCE = 10.0  # seconds to wait for another run that writes


def folder() -> Path:
    """The folder of this user that measured times are kept in."""
    given = os.environ.get(PLACE)
    return Path(given) if given else platformdirs.user_cache_path("onnxslim-learn", appauthor=False)


def runtime(threads: int, provider: str) -> dict[str, str | int]:
    """What times depend on beside what is timed."""
    import onnxruntime

    return {
        "provider": provider,
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "machine": f"{platform.node()} {platform.machine()} {processor()}",
    }


def processor() -> str:
    """The processor as it calls itself, where that is known."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def path(kind: str, about: Mapping[str, str | int]) -> Path:
    """The file of a kind of measurement on a runtime."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    return folder() / f"{kind}-{digest}.json"


def read(kind: str, about: Mapping[str, str | int]) -> dict[str, float]:
    """What was measured: key -> number; a file that is missing, cut off or another's counts as empty."""
    try:
        numbers = json.loads(path(kind, about).read_text(encoding="utf-8"))
        return {
            str(key): float(number) for key, number in numbers["measured"].items() if numbers["about"] == dict(about)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def add(kind: str, about: Mapping[str, str | int], measured: Mapping[str, float]) -> None:
    """Add to what was measured; runs that measure at the same time lose nothing of each other's.

    A folder that cannot be written, or that another run holds too long, is left alone: all can be measured again.
    """
    target = path(kind, about)
    with contextlib.suppress(OSError, InputError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_suffix(".lock"), timeout=PATIENCE):
            merged = {"about": dict(about), "measured": {**read(kind, about), **measured}}
            atomic.write_text(target, json.dumps(merged, indent=1), durable=False)
