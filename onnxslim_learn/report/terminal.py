"""Reports on a terminal, or as plain text where there is none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text as Plain

from onnxslim_learn.report.blocks import Bars, Lines, Scatter, Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.report.blocks import Block

WIDE = 2000  # columns: names stay whole for grep and copy


class _Console(Console):
    """A console that lets a closed pipe end the program quietly."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Standard output, without colour and without folding lines when it is no terminal."""
    plain = _Console(highlight=False, markup=False)
    return plain if plain.is_terminal else _Console(highlight=False, markup=False, width=WIDE)


def plain(blocks: Iterable[Block]) -> str:
    """A report as text, as it is printed where there is no terminal."""
    file = io.StringIO()
    show(blocks, _Console(highlight=False, markup=False, width=WIDE, file=file), opened=True)
    return file.getvalue()


def show(blocks: Iterable[Block], out: Console | None = None, *, opened: bool = False) -> None:
    """Print a report; names are shown as they are, brackets and all.

    Args:
        blocks: The report.
        out: Where; by default standard output.
        opened: Whether what is folded in tables is shown row by row.
    """
    out = out or console()
    for block in blocks:
        if isinstance(block, Table):
            if not block.page_only:
                out.print(_grid(block, opened=opened))
        elif not isinstance(block, Bars | Lines | Scatter):
            out.print(block.text, style="bold" if block.title else None, soft_wrap=block.copied)


def _grid(table: Table, *, opened: bool = False) -> Grid:
    grid = Grid(title=Plain(table.title) if table.title else None, title_justify="left")
    for number, head in enumerate(table.heads):
        justify = "left" if number in table.words else "right"
        grid.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in table.opened if opened and table.opened else table.rows:
        grid.add_row(*map(Plain, row))
    return grid
