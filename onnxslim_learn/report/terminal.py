"""Reports on a terminal, or as plain text where there is none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text as Plain

from onnxslim_learn.errors import printable
from onnxslim_learn.report.blocks import Table, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnxslim_learn.report.blocks import Block

WIDE = 2000  # columns: sentences are not folded, for grep
COLUMNS = 100  # that tables have where there is no terminal
FEWEST = 8  # letters of a column of broken words
BORDERS = 3  # columns of a table that each of its own takes beside its text


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
                if block.title:
                    out.print(_shown(block.title), style="italic")
                rows = block.opened if opened and block.opened else block.rows
                out.print(_grid(block, rows, out), soft_wrap=not out.is_terminal)
        elif isinstance(block, Text):
            out.print(_shown(block.text), style="bold" if block.title else None, soft_wrap=block.copied)


def _grid(table: Table, rows: Sequence[Sequence[str]], out: Console) -> Grid:
    """A table as wide as a terminal; where there is none names stay whole, however wide that is."""
    grid = Grid()
    for number, (head, wide) in enumerate(zip(table.heads, _widths(table, rows, out), strict=True)):
        justify = "left" if number in table.words else "right"
        grid.add_column(head, justify=justify, overflow="fold", width=wide)  # type: ignore[arg-type]
    for row in rows:
        grid.add_row(*(Plain(_shown(cell)) for cell in row))
    return grid


def _shown(text: str) -> str:
    """A text whose names do nothing to a terminal."""
    return printable(text, keep="\n")


def _widths(table: Table, rows: Sequence[Sequence[str]], out: Console) -> list[int]:
    """Widths of columns: what they need; if that is too much, words are folded, then numbers; at last they break."""
    width = out.width if out.is_terminal else COLUMNS
    columns = [[cell.splitlines() or [""] for cell in column] for column in zip(table.heads, *rows, strict=True)]
    words = [max(_longest(line) for lines in column for line in lines) for column in columns]
    whole = [max(cell_len(line) for lines in column for line in lines) for column in columns]
    numbers = [max((cell_len(line) for lines in column[1:] for line in lines), default=0) for column in columns]
    pairs = enumerate(zip(words, numbers, strict=True))
    uncut = [word if k in table.words else max(word, number) for k, (word, number) in pairs]
    broken = [min(FEWEST, word) for word in words]
    wide, over = whole, sum(whole) + BORDERS * len(whole) + 1 - width
    for least in (uncut, words, *(([*words[:1], *broken[1:]], broken) if out.is_terminal else ())):
        while over > 0 and any(a > b for a, b in zip(wide, least, strict=True)):
            wide[max((k for k in range(len(wide)) if wide[k] > least[k]), key=wide.__getitem__)] -= 1
            over -= 1
    return wide


def _longest(line: str) -> int:
    """The longest word of a line, with what it is moved in by."""
    return len(line) - len(line.lstrip()) + max(map(cell_len, line.split()), default=0)
