"""Reports as files for a paper or a spreadsheet: charts as SVG and PNG, tables as CSV."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import InputError
from onnxslim_learn.report import drawing, vega
from onnxslim_learn.report.blocks import Bars, Lines, Picture, Scatter, Section, Table
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from onnxslim_learn.report.blocks import Block

WIDE = 640  # pixels of a chart
FINE = 2  # times as many of a picture
VERSION = "6.4"  # of Vega-Lite, as pages have it
LETTERS = 48  # of a name
BESIDE = {"background": "white", "config": {"font": "sans-serif", "view": {"stroke": None}, "legend": {"columns": 3}}}


def save(folder: Path, blocks: Iterable[Block]) -> list[Path]:
    """Write every chart and every table of a report to a file of its own.

    Args:
        folder: Where; files of the same names are replaced. What a section within another shows, as that of one of
            several models, lies in a folder named by its title.
        blocks: What a page shows.

    Returns:
        The files, in the order of the report.

    Raises:
        InputError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"⟨report_dir⟩ {folder}: {error.strerror}. Give another folder.") from error
    parts = [part for block in blocks for part in (block.blocks if isinstance(block, Section) else (block,))]
    drawn = (one for one in parts if isinstance(one, Table | Bars | Lines | Scatter | Picture))
    written = []
    for number, block in enumerate(drawn):
        for name, content in _files(block):
            path = folder / f"{number + 1:02}-{name}"
            with atomic.replacing(path) as draft:
                draft.write_bytes(content)
            written.append(path)
    inner = [one for one in parts if isinstance(one, Section)]
    return written + [file for one in inner for file in save(folder / _name(one.title or one.name), one.blocks)]


def _files(block: Block) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a block."""
    if isinstance(block, Table):
        yield f"{_name(block.title or 'costs')}.csv", _csv(block.heads, block.opened or block.rows)
    elif isinstance(block, Picture):
        keys = list(block.nodes[0])
        yield "network.csv", _csv(keys, ([str(node[key]) for key in keys] for node in block.nodes))
        text = drawing.svg(block.nodes, block.groups)
        yield "network.svg", text.encode()
        yield "network.png", _png(text)
    elif isinstance(block, Bars | Lines | Scatter):
        specs = vega.specs(block)
        for place, spec in enumerate(specs):
            name = _name(block.title) + (f"-{place + 1}-{_name(str(spec['title']))}" if len(specs) > 1 else "")
            yield f"{name}.svg", _drawn("svg", spec)
            yield f"{name}.png", _drawn("png", spec)


def _name(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:LETTERS].rstrip("-") or "untitled"


def _csv(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A table; lines of one cell stand after each other."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([" | ".join(line.strip() for line in cell.splitlines()) for cell in row] for row in rows)
    return text.getvalue().encode()


def _png(svg: str) -> bytes:
    """A drawing as a picture of points."""
    import vl_convert

    return bytes(vl_convert.svg_to_png(svg, scale=FINE))


def _drawn(form: str, spec: dict[str, Any]) -> bytes:
    """A chart as a picture."""
    import vl_convert

    whole = {**spec, **BESIDE, "width": WIDE}
    if form == "svg":
        return str(vl_convert.vegalite_to_svg(whole, vl_version=VERSION)).encode()
    return bytes(vl_convert.vegalite_to_png(whole, vl_version=VERSION, scale=FINE))
