"""A case: a line, the files that it reads, and what a refusal names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A line over a file that is not what it should be.

    Attributes:
        name: What is wrong.
        line: The words of the command line; or a list where one has blanks.
        write: Writes what it reads into a folder.
        names: What a refusal names, one of these.
        beside: The line may also be right: a default, or a warning.
    """

    name: str
    line: str | tuple[str, ...]
    write: Callable[[Path], object] = lambda folder: None
    names: tuple[str, ...] = ("bad",)
