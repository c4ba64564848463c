"""Groups in reports: what repeated blocks have alike is one row, and widths stand before and after."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.blocks import Bar, Bars, Block, Section, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPEATED = 4  # groups alike in so many blocks are one row
NUMBERED = re.compile(r"(?<=[a-z] )\d+(?=[,:])")  # of a block: "layer 3, attention: 12 heads"


def repeats(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Groups that repeated blocks have alike, together; the others each by itself."""
    alike: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault((row["role"], row["width"], NUMBERED.sub("#", row["title"])), []).append(row)
    several = [group for group in alike.values() if len(group) >= REPEATED]
    known = {row["name"] for group in several for row in group}
    return several + [[row] for row in rows if row["name"] not in known]


def called(alike: Sequence[Mapping[str, Any]]) -> str:
    """What groups are called that are alike: the first one's title, and how many there are."""
    title = str(alike[0]["title"])
    if len(alike) == 1:
        return title
    numbers = [int(NUMBERED.findall(row["title"])[0]) for row in alike if NUMBERED.search(row["title"])]
    span = f"{min(numbers)} to {max(numbers)}" if numbers else ""
    return f"{NUMBERED.sub(span, title, count=1)} (x {len(alike)})"


def titled(alike: Sequence[Mapping[str, Any]]) -> str:
    """What groups are called that are alike, and the name of the first."""
    return f"{called(alike)}\n  {alike[0]['name']}"


def widths(report: Mapping[str, Any]) -> list[Block]:
    """Units of every group before and after; repeated blocks are one row."""
    after = "kept" if "kept" in (report.get("groups") or [{}])[0] else "after"
    rows = [row for row in report.get("groups") or () if after in row]
    if all(row["width"] == row[after] for row in rows):
        return []
    folded = [(told, _span(alike, "width"), _span(alike, after)) for alike, told in _told_apart(repeats(rows))]
    opened = [(told, str(row["width"]), str(row[after])) for (row,), told in _told_apart([[row] for row in rows])]
    heads = ("group", "units before", "after")
    table = Table("Widths", heads, tuple(folded), (0,), opened=tuple(opened))
    return [Section("widths", (table,))]


def _told_apart(
    several: Sequence[Sequence[Mapping[str, Any]]],
) -> list[tuple[Sequence[Mapping[str, Any]], str]]:
    """Groups that are alike, and what they are called: with the name of the first where others are called so, too."""
    often = Counter(map(called, several))
    return [(alike, titled(alike) if often[called(alike)] > 1 else called(alike)) for alike in several]


def _span(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """A number of groups that are alike."""
    least, most = min(row[key] for row in rows), max(row[key] for row in rows)
    return str(least) if least == most else f"{least} to {most}"


def bars(data: Mapping[str, Any]) -> list[Block]:
    """Every group's width before and after."""
    pairs = [
        one
        for group in data["groups"]
        for one in (
            Bar(group["title"], group["width"], str(group["width"]), 0),
            Bar("", group["kept"], str(group["kept"]), 1),
        )
    ]
    return [Bars("Units of each group", ("before", "after"), tuple(pairs))]
