"""Reports as one self-contained page: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from onnxslim_learn.report import svg
from onnxslim_learn.report.blocks import Bars, Lines, Scatter, Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.report.blocks import Bar, Block

# Pixels of a chart: rows, labels, the longest bar, and the numbers after it.
ROW, LABEL, LENGTH, AFTER = 20, 320, 480, 190
PANELS = 5  # small charts in a row
LETTERS = 46  # of a label that fit; the whole name is shown on hover
COLOURS = ("#2f6fab", "#e08a2e", "#4c9a52", "#b04a5a", "#7a68a6", "#8a8a8a")  # told apart by the colour-blind, too

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1040px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { white-space: pre-wrap; max-width: 80ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #8884; text-align: right; vertical-align: top; }
th, td { white-space: nowrap; }
th { border-bottom: 2px solid #8888; } .w { text-align: left; white-space: pre-line; }
svg { font: 12px system-ui, sans-serif; max-width: 100%; height: auto; } svg text { fill: currentColor; }
"""


def page(title: str, blocks: Iterable[Block]) -> str:
    """Write a report as an HTML document.

    Args:
        title: Of the page.
        blocks: What it shows.
    """
    body = "\n".join(map(_block, blocks))
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>'
    lead = f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<h1>{escape(title)}</h1>'
    return f"{lead}\n{body}\n</body>\n</html>\n"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Bars):
        return _chart(block)
    if isinstance(block, Lines):
        return _lines(block)
    if isinstance(block, Scatter):
        return f"<h2>{escape(block.title)}</h2>\n<p>{escape(block.said)}</p>\n{svg.draw(block)}"
    tag = "h2" if block.title else "p"
    return f"<{tag}>{escape(block.text.strip())}</{tag}>" if block.text.strip() else ""


def _table(table: Table) -> str:
    def row(tag: str, cells: Iterable[str]) -> str:
        marks = [' class="w"' if k in table.words else "" for k in range(len(table.heads))]
        return "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))

    rows = "\n".join(f"<tr>{row('td', cells)}</tr>" for cells in table.opened or table.rows)
    title = f"<h2>{escape(table.title)}</h2>\n" if table.title else ""
    return f'{title}<div class="wide"><table>\n<tr>{row("th", table.heads)}</tr>\n{rows}\n</table></div>'


def _chart(chart: Bars) -> str:
    """A chart as SVG: one row per bar, a legend where there are several series."""
    most = max((end for bar in chart.bars for end in (bar.value, *(bar.span or ()))), default=0.0) or 1.0
    legend = len(chart.series) > 1
    top = ROW if legend else 0
    rows = [_bar(bar, top + ROW * number, LENGTH / most) for number, bar in enumerate(chart.bars)]
    if legend:
        rows.insert(0, _legend(chart.series))
    width, height = LABEL + LENGTH + AFTER, top + ROW * len(chart.bars)
    title = escape(chart.title)
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    drawn = "\n".join(rows)
    about = f'xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{title}"'
    return f"<h2>{title}</h2>\n<svg {about}>\n{drawn}\n</svg>"


def _lines(chart: Lines) -> str:
    """Small multiples as SVG, so many to a row."""
    across, down = (LABEL + LENGTH + AFTER) // PANELS, ROW * 6
    parts = []
    for number, (label, points) in enumerate(chart.lines):
        x, y = number % PANELS * across + 8, number // PANELS * down + ROW
        wide, high = across - 24, down - 2 * ROW
        name = label if len(label) <= LETTERS // 2 else f"…{label[1 - LETTERS // 2 :]}"
        path = "L".join(f"{x + a * wide:.1f} {y + high - b * high:.1f}" for a, b in points)
        parts.append(
            f"<g><title>{escape(label)}</title>"
            f'<text x="{x}" y="{y - 5}">{escape(name)}</text>'
            f'<path d="M{x} {y}v{high}h{wide}" fill="none" stroke="currentColor" opacity=".4"/>'
            f'<path d="M{path}" fill="none" stroke="{_colour(0)}" stroke-width="2"/></g>'
        )
    width, height = LABEL + LENGTH + AFTER, -(-len(chart.lines) // PANELS) * down
    title, drawn = escape(chart.title), "\n".join(parts)
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    about = f'xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{title}"'
    said = f"<p>To the right: {escape(chart.axes[0])}. Up: {escape(chart.axes[1])}.</p>"
    return f"<h2>{title}</h2>\n{said}\n<svg {about}>\n{drawn}\n</svg>"


def _bar(bar: Bar, y: int, scale: float) -> str:
    name = bar.label if len(bar.label) <= LETTERS else f"…{bar.label[1 - LETTERS :]}"
    end, middle = LABEL + bar.value * scale, y + ROW / 2
    parts = [
        f"<g><title>{escape(f'{bar.label} {bar.text}'.strip())}</title>",
        f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
        f'<rect x="{LABEL}" y="{y + 3}" width="{bar.value * scale:.1f}" height="{ROW - 6}"'
        f' fill="{_colour(bar.series)}"/>',
    ]
    if bar.span:
        low, high = (LABEL + edge * scale for edge in bar.span)
        end = max(end, high)
        parts.append(
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 6}v{ROW - 12}M{high:.1f} {y + 6}v{ROW - 12}"'
            ' stroke="currentColor"/>'
        )
    parts.append(f'<text x="{end + 6:.1f}" y="{middle + 4}">{escape(bar.text)}</text></g>')
    return "".join(parts)


def _legend(series: tuple[str, ...]) -> str:
    parts, x = [], LABEL
    for number, name in enumerate(series):
        parts.append(f'<rect x="{x}" y="3" width="12" height="{ROW - 8}" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{x + 17}" y="14">{escape(name)}</text>')
        x += 40 + 7 * len(name)
    return "".join(parts)


def _colour(series: int) -> str:
    return COLOURS[series % len(COLOURS)]
