"""Charts as Vega-Lite specifications: what they show is in the blocks, how they look is here and in the script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import printable
from onnxslim_learn.report.blocks import Bars, Lines, Scatter

if TYPE_CHECKING:
    from onnxslim_learn.report.blocks import Bar, Line, Point

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
COLOURS = ("#4477bb", "#e08a2e", "#4c9a52", "#c05569", "#8a75b8", "#8a8a8a")  # told apart by the colour-blind, too
ROW, THIN = 24, 14  # pixels of a bar alone, and of one of several
PANEL = 120  # pixels of the height of a small chart
HIGH = 320  # of a chart of points
LETTER = 6.4  # pixels of a letter, about
ROOM = 2.5  # of a chart's width has the longest bar at least one part, whatever room the number after it needs
LEAST = 1e-5  # of the largest loss is drawn on the floor
KINDS = "worth keeping", "beaten"  # of the points of a chart, whose second are rings
MARK = "\u2063"  # between the number of a bar and its label: labels repeat

Chart = Bars | Lines | Scatter
Spec = dict[str, Any]


def specs(chart: Chart) -> list[Spec]:
    """The specifications of a chart; small charts have one each."""
    if isinstance(chart, Bars):
        return [_bars(chart)] if chart.bars else []
    if isinstance(chart, Lines):
        top = max((y for line in chart.lines for _, y in line.points), default=0.0)
        return [_line(chart, line, top) for line in chart.lines]
    return [_scatter(chart)]


def numbers(chart: Chart) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What a chart shows, in words: heads, and a row for each mark."""
    if isinstance(chart, Bars):
        several, label, rows = len(chart.series) > 1, "", list[tuple[str, ...]]()
        for bar in chart.bars:
            label = bar.label or label
            rows.append((label, *([chart.series[bar.series]] if several else []), bar.text or f"{bar.value:.4g}"))
        return ("", *([""] if several else []), ""), rows
    if isinstance(chart, Lines):
        points: list[tuple[str, ...]] = [
            (line.label, f"{x:.6g}", f"{y:.4g}") for line in chart.lines for x, y in line.points
        ]
        return ("", *chart.axes), points
    return ("", ""), [(point.name, point.text) for point in chart.points]


def _bars(chart: Bars) -> Spec:
    rows = _rows(chart.bars, chart.series)
    several = len(chart.series) > 1
    paired = several and any(not bar.label for bar in chart.bars)
    y: Spec = {"field": "key", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {
        "labelExpr": f"slice(datum.label, indexof(datum.label, '{MARK}') + 1)",
        "ticks": False,
        "domain": False,
    }
    longest = max(max(row["value"], row.get("high", 0.0)) for row in rows) or 1.0
    room = LETTER * (max(len(row["text"]) for row in rows) + 1)  # pixels of the number after the longest bar
    wide = {"expr": f"{longest} * max(width, 1) / max(width - {room}, width / {ROOM}, 1)"}  # a chart not seen yet has 0
    scale = {"domainMin": 0, "domainMax": wide}
    x: Spec = {"field": "value", "type": "quantitative", "axis": None, "scale": scale}
    encoding: Spec = {"y": y, "x": x, "tooltip": [{"field": "label"}, {"field": "text"}]}
    offset = {"yOffset": {"field": "series", "sort": list(chart.series)}} if paired else {}
    colour = _colour(chart.series) if several else {"value": COLOURS[0]}
    layers: list[Spec] = [{"mark": {"type": "bar", "cornerRadiusEnd": 2}, "encoding": {"color": colour}}]
    if any("low" in row for row in rows):
        ends = {"x": {**x, "field": "low"}, "x2": {"field": "high"}}
        layers.append({"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": ends})
    text = {"type": "text", "align": "left", "dx": 5, "baseline": "middle"}
    layers.append({"mark": text, "encoding": {"text": {"field": "text"}, "x": {**x, "field": "end"}}})
    count, thick = len({row["key"] for row in rows}), (THIN * len(chart.series) + 8 if paired else ROW)
    return {
        "$schema": SCHEMA,
        "data": {"values": rows},
        "height": count * thick,
        "encoding": {**encoding, **offset},
        "layer": layers,
        "usermeta": {"label": LETTER * max(len(row["label"]) for row in rows)},
    }


def _rows(bars: tuple[Bar, ...], series: tuple[str, ...]) -> list[Spec]:
    """Data of bars; what has no label belongs to the label before."""
    rows, label, place = list[Spec](), "", -1
    for bar in bars:
        if bar.label or place < 0:
            label, place = printable(bar.label), place + 1
        ends = {} if bar.span is None else {"low": bar.span[0], "high": bar.span[1]}
        row = {"key": f"{place}{MARK}{label}", "label": label, "value": bar.value, "text": printable(bar.text), **ends}
        rows.append({**row, "end": max(bar.value, ends.get("high", 0.0)), "series": series[bar.series]})
    return rows


def _colour(series: tuple[str, ...]) -> Spec:
    """Colours of series, and their legend."""
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(series))]
    legend = {"orient": "top", "title": None}
    return {"field": "series", "sort": None, "scale": {"domain": list(series), "range": colours}, "legend": legend}


def _line(chart: Lines, line: Line, top: float) -> Spec:
    floor = LEAST * (top or 1.0)
    values = [{"x": x, "y": max(y, floor) if chart.logarithmic else y} for x, y in line.points]
    scale: Spec = {"type": "log", "domain": [floor, top or 1.0]} if chart.logarithmic else {"zero": False, "nice": True}
    fewer: Spec = {"tickCount": 3, "format": ".0e"} if chart.logarithmic else {"tickCount": 4, "format": ".4~g"}
    y = {"field": "y", "type": "quantitative", "title": None, "scale": scale, "axis": fewer}
    x: Spec = {"field": "x", "type": "quantitative", "title": None, "scale": {"zero": chart.logarithmic, "nice": False}}
    x["axis"] = {"tickCount": 4, "grid": False, "format": "~s"}
    about = [{"field": "x", "title": chart.axes[0]}, {"field": "y", "title": chart.axes[1], "format": ".3g"}]
    points = {"point": {"size": 24, "filled": True}} if len(values) <= 20 else {}
    layers: list[Spec] = [
        {
            "mark": {"type": "line", "color": COLOURS[0], "strokeWidth": 2, **points},
            "encoding": {"x": x, "y": y, "tooltip": about},
        }
    ]
    if line.chosen is not None:
        at = {"x": {"datum": line.chosen, "type": "quantitative"}}
        layers.append({"mark": {"type": "rule", "color": COLOURS[1], "strokeDash": [4, 3]}, "encoding": at})
    return {
        "$schema": SCHEMA,
        "title": printable(line.label),
        "data": {"values": values},
        "height": PANEL,
        "layer": layers,
    }


def _scatter(chart: Scatter) -> Spec:
    values = [_point(point) for point in chart.points]
    x, y = (
        {"field": field, "type": "quantitative", "title": title, "scale": {"zero": True}, "axis": {"format": form}}
        for field, title, form in zip("xy", chart.axes, chart.forms, strict=True)
    )
    about = [{"field": "name"}, {"field": "text"}]
    kinds = {"field": "kind", "scale": {"domain": list(KINDS), "range": list(COLOURS[:2])}}
    colour = {**kinds, "legend": {"orient": "top", "title": None}}
    best, beaten = ({"transform": [{"filter": f"datum.kind == '{kind}'"}]} for kind in KINDS)
    layers: list[Spec] = [
        {**best, "mark": {"type": "line", "color": COLOURS[0], "opacity": 0.6}},
        *(
            {
                **those,
                "mark": {"type": "point", "filled": full, "size": 90},
                "encoding": {"color": colour, "tooltip": about},
            }
            for those, full in ((best, True), (beaten, False))
        ),
        {"mark": {"type": "text", "dy": -12}, "encoding": {"text": {"field": "name"}}},
    ]
    return {
        "$schema": SCHEMA,
        "data": {"values": values},
        "height": HIGH,
        "encoding": {"x": x, "y": y},
        "layer": layers,
    }


def _point(point: Point) -> Spec:
    kind = KINDS[not point.best]
    return {"name": printable(point.name), "x": point.x, "y": point.y, "text": printable(point.text), "kind": kind}
