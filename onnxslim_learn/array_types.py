"""The types that all of the package shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
"""An array of any shape and element type."""

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
"""An array of truth values."""

Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""An array of whole numbers that name things: atoms, classes, columns, positions."""

Feeds: TypeAlias = Mapping[str, Array]
"""Arrays by the name of the graph input that they feed."""

Progress: TypeAlias = Callable[[float], None]
"""Called with the share of a stage that is done, from 0 to 1."""

Stage: TypeAlias = Callable[[str], Progress]
"""Called with the name of a stage when it begins; returns what to call with the share of it that is done."""


def silent(share: float) -> None:
    """Say nothing of the share that is done."""


def unannounced(name: str) -> Progress:
    """Say nothing of a stage."""
    return silent
