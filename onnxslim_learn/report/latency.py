"""What reports say of devices and of latency that was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.blocks import Block, Table, Text
from onnxslim_learn.report.words import count, ms, plural, provider, share

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    return [table, Text(f"{STEPS_TOLD}\n{next_}")]
