"""What is said of a run beside what it found: the command, the day, the machine, the versions, the files."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.rows import DISTRIBUTION
from onnxslim_learn.runtime import cache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.commands.asked import Asked

DECIDE = (DISTRIBUTION, "onnx", "onnxruntime", "numpy", "torch")
"""Packages whose versions decide about results."""

LARGE = 1 << 30  # bytes of a file whose hash would take seconds
MODELS = (".onnx", ".json", ".toml")  # files that are told apart by their hashes


def run(asked: Asked, written: Iterable[str]) -> dict[str, Any]:
    """What to say of a run that has ended, as plain data.

    Args:
        asked: What it was told to do.
        written: The files it wrote; those that are there are told apart by their hashes.
    """
    return {
        "command": asked.line(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(terse=True),
            "processor": cache.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "sha256": {name: digest for name in dict.fromkeys([*asked.files, *written]) if (digest := _digest(Path(name)))},
    }


def _versions() -> dict[str, str]:
    """Versions of what decides, as far as it is installed."""
    versions = dict[str, str]()
    for name in DECIDE:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty where there is none, or a large one."""
    try:
        if path.suffix not in MODELS or path.stat().st_size > LARGE:
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
