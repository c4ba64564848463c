"""Measured times on disk: found again by what was timed and what it was timed on, and never half written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PLACE = "ONNXSLIM_LEARN_CACHE"  # environment variable with the folder to use


def folder() -> Path:
    """The folder of this user that measured times are kept in."""
    if given := os.environ.get(PLACE):
        return Path(given)
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "onnxslim-learn"


def runtime(threads: int, provider: str) -> dict[str, str | int]:
    """What times depend on beside what is timed."""
    import onnxruntime

    return {
        "provider": provider,
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "machine": f"{platform.node()} {platform.machine()} {_processor()}",
    }


def _processor() -> str:
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
        found = json.loads(path(kind, about).read_text(encoding="utf-8"))
        return {str(key): float(number) for key, number in found["measured"].items() if found["about"] == dict(about)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def add(kind: str, about: Mapping[str, str | int], measured: Mapping[str, float]) -> None:
    """Add to what was measured; a folder that cannot be written is left alone, since all can be measured again."""
    target = path(kind, about)
    text = json.dumps({"about": dict(about), "measured": {**read(kind, about), **measured}}, indent=1)
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(draft, target)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
