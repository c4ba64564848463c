"""The command line: options, what each command does, and how it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from onnxslim_learn.cli import commands

    return commands.main(arguments)
