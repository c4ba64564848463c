"""A command as it was given, and others of its kind, as lines to copy."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from onnxslim_learn.rows import DISTRIBUTION

Change: TypeAlias = str | bool | Iterable[str] | None
"""An option: its value, several of them, whether it is given, or nothing to leave it out."""


OUT = "OUT.onnx"  # a file that may be called anything


@dataclass(frozen=True)
class Asked:
    """A command as it was given, to be written down again.

    Attributes:
        command: Its name.
        files: What was given by its place; what lies in memory is called ``MODEL`` or ``PLAN``.
        options: Keyword -> the words that it is on the command line: a flag with its value, several of them, or none.
        writes: Keywords of those that name files which are written.
        needs: Keywords of those that the command line must have, where Python need not.
    """

    command: str
    files: tuple[str, ...]
    options: Mapping[str, list[str]]
    writes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def line(self, **changes: Change) -> str:
        """The same command with other options: ``None`` leaves one out, several texts repeat it."""
        options = {name: words(name, OUT if name in self.writes else name.upper()) for name in self.needs}
        options |= {**self.options, **{name: words(name, change) for name, change in changes.items()}}
        return _joined(self.command, self.files, options.values())

    def value(self, name: str) -> str | None:
        """The value of an option, the last one if there are several; ``None`` without."""
        given = self.options.get(name)
        return given[-1] if given else None

    def written(self) -> list[str]:
        """The files that were asked for."""
        return [str(self.value(name)) for name in self.writes if self.options.get(name)]


def line(command: str, *files: str, **options: Change) -> str:
    """A command line to copy."""
    return _joined(command, files, [words(name, change) for name, change in options.items()])


def _joined(command: str, files: Iterable[str], words: Iterable[list[str]]) -> str:
    return shlex.join([DISTRIBUTION, command, *files, *(word for several in words for word in several)])


def words(name: str, change: Change) -> list[str]:
    """What an option is on the command line."""
    flag = "-o" if name == "output" else f"--{name.replace('_', '-')}"
    if change is None or isinstance(change, bool):
        return [flag] if change else []
    texts = [change] if isinstance(change, str) else change
    return [word for text in texts for word in (flag, text)]
