"""What reports say of devices and of latency that was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.blocks import Bar, Bars, Block, Section, Table, Text
from onnxslim_learn.report.format import count, ms, plural, provider, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPERATORS = 3  # named where time goes that was not saved
NODES = 12  # in the table of estimated times; the rest are summed
STEPS_TOLD = "Channels in a step: widths between two multiples of it take the time of the larger."


def machine(device: Mapping[str, Any]) -> str:
    """A device in words."""
    return f"{device['name']} ({count(device['gflops'] * 1e9)}FLOP/s, {count(device['gbytes'] * 1e9)}B/s)"


def estimated(data: Mapping[str, Any]) -> list[Block]:
    """The nodes that take longest on the device that analyze was given, if there was one."""
    if not data["device"]:
        return []
    rows, total = data["estimated"], data["costs"]["latency_ms"] or 1.0
    cells = [(r["name"] or "(every run)", r["op_type"], ms(r["ms"]), share(r["ms"] / total)) for r in rows[:NODES]]
    if rest := sum(r["ms"] for r in rows[NODES:]):
        cells.append((f"{len(rows) - NODES} more", "", ms(rest), share(rest / total)))
    title = "Nodes that take longest, estimated from what they compute and move"
    return [Table(title, ("node", "operator", "time", "share"), tuple(cells), (0, 1))]


def nodes(timed: Sequence[Mapping[str, Any]]) -> list[Block]:
    """How long every node takes before and after, where nodes were timed."""
    if not timed:
        return []
    rows = [(f"{one['name']}", one["op_type"], *_both(one["before_ms"], one["after_ms"])) for one in timed]
    heads = ("node", "operator", "ms before", "ms after", "ratio")
    return [Table("Time by node", heads, tuple(rows), (0, 1), page_only=True)]


def _both(before: float | None, after: float | None) -> tuple[str, str, str]:
    """The times of a node, and their ratio."""
    told = ["" if one is None else f"{one:.4f}" for one in (before, after)]
    return told[0], told[1], f"{after / before:.3f}" if before and after is not None else "-"


def device(data: Mapping[str, Any], output: str | None) -> list[Block]:
    """What calibrate measured."""
    about = data["about"]
    rows = [
        ("peak", f"{count(data['gflops'] * 1e9)}FLOP/s"),
        ("bandwidth", f"{count(data['gbytes'] * 1e9)}B/s"),
        ("each node", f"{data['node_us']:.3g} us"),
        ("each run", f"{data['run_us']:.3g} us"),
        *((f"step of {operator}", plural(step, "channel")) for operator, step in data["steps"].items()),
    ]
    where = f"{provider(about['provider'])}, {plural(about['threads'], 'thread')}, onnxruntime {about['onnxruntime']}"
    next_ = f"Written to {output}: give it to --device." if output else "Write it with -o FILE, for --device."
    table = Table(f"{data['name']}: {where}", ("", "measured"), tuple(rows))
    return [Section("costs", (table, Text(f"{STEPS_TOLD}\n{next_}")))]


def targeted(data: Mapping[str, Any] | None) -> list[Block]:
    """How a bound on latency was met: every choice of widths, as predicted and as measured."""
    if data is None:
        return []
    rows = []
    for number, one in enumerate(data["rounds"], 1):
        off = one["predicted_ms"] / one["measured_ms"] - 1
        span = f"{one['low_ms']:.3g} to {ms(one['high_ms'])}"
        taken = "taken" if one["measured_ms"] == data["measured_ms"] else ""
        rows.append((str(number), ms(one["predicted_ms"]), ms(one["measured_ms"]), span, f"{100 * off:+.1f} %", taken))
    heads = ("choice", "predicted", "measured", "95 % interval", "off by", "")
    title = f"Latency of at most {ms(data['target_ms'])} was asked for"
    return [Table(title, heads, tuple(rows), (5,)), Text(_how(data)), _rounds(data)]


def _how(data: Mapping[str, Any]) -> str:
    """How choices were timed."""
    where = f"on {plural(data['threads'], 'thread')} of {provider(data['provider'])}"
    return (
        f"Measured: {clock(data)} of the least disturbed runs against the original's, {where}. Each prediction was"
        f" corrected by the measurements before it.{stopped(data)}"
    )


def as_before(unchanged: Mapping[str, float]) -> str:
    """Why a model is not faster: which part of its time is in nodes that are no faster; empty where nobody knows."""
    if not unchanged:
        return ""
    parts = ", ".join(f"{operator} {share(part)}" for operator, part in list(unchanged.items())[:OPERATORS])
    return f"{share(sum(unchanged.values()))} of its time is in nodes that take as long as before ({parts})"


def clock(data: Mapping[str, Any]) -> str:
    """What a latency was measured in."""
    return "processor time" if data["processor_time"] else "wall-clock time"


def unoptimized(data: Mapping[str, Any]) -> str:
    """That onnxruntime ran models with fewer optimisations than it has, in a sentence; empty where it did not."""
    level = data["optimizations"]
    if level in (None, "all"):
        return ""
    fewer = "without optimisations" if level == "none" else f"with {level} optimisations alone"
    return f" onnxruntime fails at optimising one of them, so all ran {fewer}."


def stopped(data: Mapping[str, Any]) -> str:
    """That fewer rounds were timed than was meant, in a sentence; empty where all were."""
    return " Fewer rounds than was meant, since they took ten times --seconds." if data["stopped"] else ""


def other_clock(data: Mapping[str, Any]) -> str:
    """The ratio by the clock that a latency was not measured in, in a sentence; empty where there is none."""
    if data["wall_ratio"] is None:
        return ""
    return f" In wall-clock time, which other work on the machine disturbs, the ratio is {data['wall_ratio']:.3f}."


def _rounds(data: Mapping[str, Any]) -> Bars:
    """The same as a chart."""
    bars = []
    for number, one in enumerate(data["rounds"], 1):
        bars.append(Bar(f"choice {number}", one["predicted_ms"], ms(one["predicted_ms"]), 0))
        span = (one["low_ms"], one["high_ms"])
        bars.append(Bar("", one["measured_ms"], ms(one["measured_ms"]), 1, span))
    return Bars("Latency of every choice of widths", ("predicted", "measured"), tuple(bars))
