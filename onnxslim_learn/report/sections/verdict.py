"""What was done, at the end of every report: the verdict, what limited it, files, times, and what to try next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.blocks import Block, Text
from onnxslim_learn.report.format import amount, ms
from onnxslim_learn.report.sections import groups, latency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHORT = 0.02  # of the time is not worth naming


def blocks(report: Mapping[str, Any]) -> list[Block]:
    """Widths before and after, then the verdict."""
    verdict = report.get("verdict")
    if verdict is None or "why" in report:
        return []
    lines = [*_met(verdict["met"]), *_labelled("Quality", verdict["quality"]), *_speed(verdict["faster"])]
    lines += [line for sentence in verdict["limited_by"] for line in _labelled("Limited by", sentence)]
    lines += [*_labelled("Written", ", ".join(map(_file, verdict["written"]))), *_took(report["stages"])]
    following = verdict["next"]
    lines += [f"Next: {following['why']}:"] if following else []
    command = [Text(f"  {following['command']}", copied=True)] if following else []
    return [*widths(report), Text("\nWhat was done", title=True), Text("\n".join(lines)), *command]


def widths(report: Mapping[str, Any]) -> list[Block]:
    """Widths before and after, where a report ends with a verdict."""
    return [] if report.get("verdict") is None or "why" in report else groups.widths(report)


def line(report: Mapping[str, Any], title: str) -> str:
    """The verdict in one line."""
    verdict = report["verdict"]
    parts = [*_met(verdict["met"]), *_labelled("Quality", verdict["quality"]), *_speed(verdict["faster"])]
    parts += _labelled("Written", ", ".join(map(_file, verdict["written"])))
    said = " ".join(parts) or _compared(report)
    return f"{title}: {said[:1].lower()}{said[1:]}" if said else f"{title}: done."


def _compared(report: Mapping[str, Any]) -> str:
    """What comparing two files found, where a command does nothing else."""
    check = report.get("verify") if "slimmed" in report else None
    if check is None:
        return ""
    return "passed." if check["passed"] else f"failed, {check['complaint']}."


def _labelled(label: str, text: str | None) -> list[str]:
    return [f"{label}: {text}{'' if text[-1] in '.?!' else '.'}"] if text else []


def _met(rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """What was asked for, and what came out."""
    lines = []
    for row in rows or ():
        got = amount(row["got"], row["unit"])
        got = got if row["share"] is None else f"{row['share']:.3f} of the original's ({got})"
        asked = f"{row['asked']:g}" if row["relative"] else amount(row["bound"], row["unit"])
        file = f"{row['file']}: " if "file" in row else ""
        lines.append(f"Target: {file}{row['title']} at most {asked}, {'met' if row['met'] else 'MISSED'}: {got}.")
    return lines


def _speed(timed: Mapping[str, Any] | None) -> list[str]:
    """Whether it is faster."""
    if timed is None:
        return []
    if "base" in timed:
        return [_wider(timed)]
    often = f"{1 / timed['ratio']:.2f} times as fast"
    word = {True: often, False: f"SLOWER, {often}", None: "not measurably faster"}[timed["faster"]]
    why = latency.as_before(timed.get("unchanged", {}))
    file = f"{timed['file']}, the slowest: " if "file" in timed else ""
    return [f"Speed: {file}{word} ({timed['ratio']:.3f} of the original's time){why and f': {why}'}."]


def _wider(timed: Mapping[str, Any]) -> str:
    """How long a wider model takes for what it has to do."""
    why = latency.as_before(timed.get("unchanged", {}))
    return (
        f"Speed: {timed['ratio']:.3f} of the time of {timed['base']}, for {timed['macs']:.3f} of its MACs"
        f"{why and f': {why}'}."
    )


def _file(name: str) -> str:
    """A file and its size."""
    return f"{name} ({amount(os.path.getsize(name), 'bytes')})" if os.path.isfile(name) else name


def _took(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """How long it took, and what took long."""
    total = sum(stage["seconds"] for stage in stages)
    if not total:
        return []
    named = [f"{one['name']} {ms(1e3 * one['seconds'])}" for one in stages if one["seconds"] >= SHORT * total]
    return [f"Time: {ms(1e3 * total)}" + (f" ({', '.join(named)})" if len(named) > 1 else "") + "."]
