"""What a folder of checkpoints belongs to: the run whose options, model and samples it was begun with."""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.errors import InputError
from onnxslim_learn.labels import collated
from onnxslim_learn.rows import DISTRIBUTION
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxslim_learn.train.samples import SampleStore

NAME = "run.json"
MARK = {"made by": DISTRIBUTION}  # of folders that may be written over
ENDS = 4  # samples from either end of a shelf that tell it from others


def begin(folder: Path, facts: Mapping[str, Any], *, resume: bool) -> None:
    """Note what a run is, or see that it is the one that is resumed.

    Args:
        folder: Where its checkpoints go.
        facts: What decides about its result, by option; plain data.
        resume: Whether to go on.

    Raises:
        InputError: If the folder is of another run, or holds other files.
    """
    place, text = folder / NAME, json.dumps({**facts, **MARK}, sort_keys=True, default=str)
    known = _noted(folder)
    if resume and known is not None:
        asked = json.loads(text)
        for name in sorted({*known, *asked}, key=lambda name: (not name.startswith("⟨"), name)):  # options first
            was, now = known.get(name), asked.get(name)
            if was != now:
                difference = f"{name} {_said(was)}, not {_said(now)}"
                raise InputError(f"⟨resume⟩: {folder} is of a run with {difference}. Give the same options.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(place, text + "\n")


def _noted(folder: Path) -> dict[str, Any] | None:
    """What a folder says it is of; ``None`` if it is empty, or not there."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        noted = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if isinstance(noted, dict) and noted.items() >= MARK.items():
            return noted
    raise InputError(f"⟨checkpoint_dir⟩ {folder}: holds files that are no checkpoints. Give an empty or new folder.")


def _said(value: Any) -> str:
    """A value of an option in words."""
    return "not given" if value in (None, [], False) else str(value)


def fingerprint(samples: SampleStore) -> str:
    """What tells samples from others: how many there are, and some of them."""
    checksum = 0
    for shelf, held in enumerate(samples.shelves):
        rows = np.unique(np.r_[:ENDS, -ENDS:0] % held.count)
        batch = samples.take(shelf, rows)
        arrays = [batch.inputs[name] for name in sorted(batch.inputs)]
        if batch.labels is not None:
            collated(batch.labels, arrays.append)
        for array in arrays:
            checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    return f"{samples.count} samples ({checksum:08x})"
