"""What a report is made of, whatever shows it: a terminal or a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


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
class Line:
    """One line of a chart.

    Attributes:
        label: Whose it is.
        points: ``(x, y)``, from left to right.
        chosen: The x that was chosen, where one was.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    chosen: float | None = None


@dataclass(frozen=True)
class Lines:
    """Small charts side by side, one line each. Terminals leave them out.

    Attributes:
        title: What they show.
        said: How to read them.
        axes: What runs to the right, and what runs up.
        lines: One for every chart.
        logarithmic: Whether what runs up does so by powers of ten, alike in all charts.
    """

    title: str
    said: str
    axes: tuple[str, str]
    lines: tuple[Line, ...]
    logarithmic: bool = False


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
        forms: How numbers along them are written, as ``d3-format`` takes it.
        points: In any order.
    """

    title: str
    said: str
    axes: tuple[str, str]
    forms: tuple[str, str]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chain:
    """A way from one axis to another through operators. Terminals leave it out: they have the reason.

    Attributes:
        title: Whose way it is.
        said: What it leads to, in a sentence.
        steps: Of each ``source``, ``node``, ``op_type`` and ``target``.
    """

    title: str
    said: str
    steps: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Picture:
    """The network, to be folded and clicked at. Terminals leave it out: tables hold the same numbers.

    Attributes:
        nodes: What is drawn, as :func:`onnxslim_learn.report.network.network` gives it.
        groups: What is tied together: ``name``, ``title``, ``width`` and what else is told of it on a click.
    """

    nodes: tuple[Mapping[str, Any], ...]
    groups: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Chooser:
    """Widths to try: what they cost and lose follows at once. Terminals leave it out.

    Attributes:
        formula: What costs are, as :func:`onnxslim_learn.report.formula.formula` gives it.
        groups: In its order: ``name``, ``title``, ``width``, and what else is known of each.
        model: The file.
        multiple: Of which widths are multiples.
        losses: What losses rest on, in a sentence.
        options: Words that the command which cuts to these widths has, too.
    """

    formula: Mapping[str, Any]
    groups: tuple[Mapping[str, Any], ...]
    model: str
    multiple: int
    losses: str = "the sum of what each group loses by itself, after repair"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """Blocks that belong together: terminals show them as they come, pages under a heading.

    Attributes:
        name: A key of :data:`SECTIONS`.
        blocks: What it shows.
        title: In place of the title of that name.
    """

    name: str
    blocks: tuple[Block, ...]
    title: str = ""


SECTIONS = {
    "why": "Why",
    "compared": "Side by side",
    "network": "The network",
    "quality": "Quality",
    "change": "Before and after",
    "costs": "Costs",
    "time": "Time",
    "where": "Where the work is",
    "groups": "What can be cut",
    "widths": "Widths",
    "losses": "What each group loses",
    "choose": "Try other widths",
    "blocks": "Residual blocks",
    "training": "Training",
    "repair": "Repair",
    "each": "One by one",
    "check": "Verification",
    "layers": "Layers",
    "pinned": "What cannot be cut",
    "more": "More",
}
"""Parts of pages, in their order; what is in none is in the last."""

Block: TypeAlias = Text | Table | Bars | Lines | Scatter | Picture | Chain | Chooser | Section


def flat(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks without sections, in their order."""
    for block in blocks:
        if isinstance(block, Section):
            yield from flat(block.blocks)
        else:
            yield block


def in_sections(blocks: Iterable[Block]) -> list[Section]:
    """What belongs under one heading together, in the order of the headings."""
    parts: dict[str, list[Block]] = {}
    titles: dict[str, str] = {}
    for block in blocks:
        section = block if isinstance(block, Section) else Section("more", (block,))
        parts.setdefault(section.name, []).extend(section.blocks)
        titles.setdefault(section.name, section.title)
    return [Section(name, tuple(parts[name]), titles[name]) for name in SECTIONS if parts.get(name)]
