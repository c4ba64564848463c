"""Chance that stays inside: libraries keep generators for whole processes, which training must not leave changed."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def undisturbed(device: torch.device | None = None) -> Iterator[None]:
    """Leave the generators of torch (on a device, too), numpy and Python as they were, whatever a block seeds."""
    python, arrays = random.getstate(), np.random.get_state()
    devices = [device] if device is not None and device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
