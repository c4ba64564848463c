"""What a report is made of, whatever shows it: a terminal or a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: Its lines.
        title: Whether it heads what follows.
        copied: Whether it is there to be copied, so that no line is folded.
    """

    text: str
    title: bool = False
    copied: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under heads.

    Attributes:
        title: What it shows.
        heads: One per column.
        rows: Texts, as many as there are heads.
        words: Columns of words, aligned to the left; the others hold numbers.
        page_only: Whether only pages have room for it.
        opened: The rows with nothing folded, where some are; terminals show them when asked to.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)
    page_only: bool = False
    opened: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: Whose it is; empty if the one before says it.
        value: Its length, at least 0.
        text: The number in words.
        series: Index into the chart's series.
        span: Ends of its whisker, in units of the value.
    """

    label: str
    value: float
    text: str
    series: int = 0
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bars:
    """A bar chart. Terminals leave it out: tables hold the same numbers.

    Attributes:
        title: What it shows.
        series: Names of the colours.
        bars: From top to bottom.
    """

    title: str
    series: tuple[str, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Lines:
    """Small charts side by side, one line each. Terminals leave them out.

    Attributes:
        title: What they show.
        axes: What runs to the right, and what runs up.
        lines: Label and points, with x and y in [0, 1] of what is shown.
    """

    title: str
    axes: tuple[str, str]
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


@dataclass(frozen=True)
class Point:
    """One point of a chart.

    Attributes:
        name: What it is called.
        x, y: Where it lies, from 0.
        text: What there is to say of it, shown on hover.
        best: Whether no other beats it.
    """

    name: str
    x: float
    y: float
    text: str
    best: bool


@dataclass(frozen=True)
class Scatter:
    """A chart of points, both of whose axes begin at 0. Terminals leave it out: tables hold the same numbers.

    Attributes:
        title: What it shows.
        said: How to read it.
        axes: What runs to the right, and what runs up.
        forms: How numbers along them are written, as ``str.format`` takes it.
        points: In any order.
    """

    title: str
    said: str
    axes: tuple[str, str]
    forms: tuple[str, str]
    points: tuple[Point, ...]


Block: TypeAlias = Text | Table | Bars | Lines | Scatter
