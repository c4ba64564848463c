"""The types that all of the package shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
"""An array of any shape and element type."""

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
"""An array of truth values."""

Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""An array of whole numbers that name things: atoms, classes, columns, positions."""

Feeds: TypeAlias = Mapping[str, Array]
"""Arrays by the name of the graph input that they feed."""


def sample_count(feeds: Iterable[Feeds]) -> int:
    """How many samples some batches hold; a run of a model without inputs is one."""
    first = [next(iter(feed.values()), [None]) for feed in feeds]
    return sum(1 if isinstance(one, np.ndarray) and not one.ndim else len(one) for one in first)


Progress: TypeAlias = Callable[[float], None]
"""Called with the share of a stage that is done, from 0 to 1."""


class Done(Protocol):
    """Called with the share of a stage that is done, from 0 to 1, and with numbers that go with it."""

    def __call__(self, share: float, numbers: Mapping[str, float] = ..., /) -> None:
        """Take note."""


Stage: TypeAlias = Callable[[str], Done]
"""Called with the name of a stage when it begins; returns what to call with the share of it that is done."""

Watcher: TypeAlias = Callable[[str, float, Mapping[str, float]], None]
"""The one protocol of progress, which users give: the name of a stage, the share of it that is done, and numbers.

A stage begins with a share of 0. Numbers are those of a step of training (``loss``, ``cost``, ...), else none.
"""


def staged(watcher: Watcher | None) -> Stage:
    """Tell a watcher of stages; nobody is told without one."""

    def stage(name: str) -> Done:
        def done(share: float, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
            if watcher is not None:
                watcher(name, share, numbers)

        done(0.0)
        return done

    return stage


unannounced: Stage = staged(None)
"""Say nothing of stages."""


def silent(share: float, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
    """Say nothing of the share that is done."""
