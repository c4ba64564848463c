"""How the units of every group are ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Labels


@dataclass(frozen=True)
class Ranking:
    """In which order units go, and what becomes of them.

    Attributes:
        scores: One per column; the lowest of a group go first.
        merged_into: Group -> for each of its units the one that it is merged into when it goes, itself for the last; or
            ``None`` where units are dropped.
        refused: Group -> why its units cannot stand for each other; they are dropped.
    """

    scores: Array
    merged_into: Mapping[str, Labels] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
