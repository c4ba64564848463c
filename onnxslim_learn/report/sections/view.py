"""What the command view shows: one model, or two side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.blocks import Block, Section, Table, Text
from onnxslim_learn.report.format import before_and_after, ms, plural
from onnxslim_learn.report.sections import groups, repair, slim

if TYPE_CHECKING:
    from collections.abc import Mapping

FIXED = "No widths to try: no group can be cut, or there are more groups or terms of costs than a page can follow."
NAMED = 6  # layers without a counterpart


def blocks(report: Mapping[str, Any]) -> list[Block]:
    """All that a page shows beside the network."""
    losses = Section("losses", tuple(repair.curves(report["choice"], report["groups"])))
    fixed = Section("network", (Text(FIXED),) if report["formula"] is None else ())
    if "other" not in report:
        return [*slim.analysis(report), losses, fixed]
    return [*_compared(report), losses, fixed, Section("widths", tuple(groups.bars(report)))]


def rows(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The groups that can be cut."""
    return list(report["groups"])


def summary(report: Mapping[str, Any]) -> list[Block]:
    """What a terminal shows: costs, and what losses rest on."""
    told = _compared(report) if "other" in report else slim.analysis(report)[:1]
    fixed = [Text(FIXED)] if report["formula"] is None else []
    return [*told, *fixed, Text(f"Loss: {report['view']['losses']}.")]


def _compared(report: Mapping[str, Any]) -> list[Block]:
    """Costs of both models, and what only one of them has."""
    rows = before_and_after(report, "bytes on disk")
    old, new = report["before"]["latency_ms"], report["after"]["latency_ms"]
    if old and new:
        rows.append(("latency, estimated", ms(old), ms(new), f"{new / old:.3f}"))
    table = Table("", ("", report["model"], report["other"], "ratio"), tuple(rows))
    notes = [
        f"{plural(len(names), 'layer')} of {model} without a counterpart: {_named(names)}."
        for model, names in zip((report["model"], report["other"]), report["unmatched"], strict=True)
        if names
    ]
    return [Section("change", (table, *([Text("\n".join(notes))] if notes else [])))]


def _named(names: list[str]) -> str:
    """The first few of some names."""
    return ", ".join([*names[:NAMED], *["..."] * (len(names) > NAMED)])
