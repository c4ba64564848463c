"""Reports as text tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.costs.measure import Latency, NodeTime, Ratio
    from onnxslim_learn.graph.explain import Step

WIDE = 2000  # columns: names stay whole for grep and copy
MEMBERS = 2  # parameter axes named in a row; the rest are counted


class _Console(Console):
    """A console that lets a closed pipe end the program quietly."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Standard output, without colour and without folding lines when it is no terminal."""
    found = _Console(highlight=False, markup=False)
    return found if found.is_terminal else _Console(highlight=False, markup=False, width=WIDE)


def count(number: float) -> str:
    """A number in three digits and a unit: 1.81 G."""
    for scale, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= scale:
            return f"{number / scale:.3g}{unit}" if number < 1e12 else f"{number / 1e12:.3g} T"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes in a readable unit."""
    for scale, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return f"{number:.0f} B"


def share(part: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * part:.1f} %"


def analysis(out: Console, data: dict[str, Any]) -> None:
    """Print an overview: totals, then one row per group."""
    costs = data["costs"]
    shapes = ", ".join(f"{name} {'x'.join(map(str, dims))}" for name, dims in data["inputs"].items())
    if data["inputs_assumed"]:
        shapes += f" (assumed: the file leaves {', '.join(data['inputs_assumed'])} open; --input sets it)"
    out.print(f"{data['model']}: {data['nodes']} nodes" + (f"; {shapes}" if shapes else ""))
    out.print(
        f"{count(costs['macs'])} MACs, {count(costs['params'])} parameters, {size(costs['file_bytes'])} on disk",
        end="\n\n",
    )
    if data["groups"]:
        out.print(_free(data["groups"]))
    else:
        out.print("Nothing can be cut.")
    _pinned(out, data)


def _free(rows: Sequence[dict[str, Any]]) -> Table:
    """The groups that can be cut."""
    heads = (("group", "left"), ("ties", "left"), ("units", "right"), ("MACs", "right"), ("parameters", "right"))
    table = Table(title="Groups that can be cut", title_justify="left")
    for name, justify in heads:
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        units = f"{row['width']} rows" if row["rows"] else str(row["width"])
        table.add_row(
            _plain(row["name"]), _plain(_ties(row)), units, share(row["macs_share"]), share(row["params_share"])
        )
    return table


def _plain(text: str) -> Text:
    """Text in which brackets mean nothing."""
    return Text(text)


def _ties(row: dict[str, Any]) -> str:
    others = [m for m in row["members"] if m != row["name"]]
    named = ", ".join(others[:MEMBERS])
    return named + (f" and {len(others) - MEMBERS} more" if len(others) > MEMBERS else "")


def _pinned(out: Console, data: dict[str, Any]) -> None:
    working = [row for row in data["pinned"] if row["macs"] > 0]
    idle = len(data["pinned"]) - len(working)
    if working:
        table = Table(title="Groups that cannot be cut", title_justify="left")
        for name, justify in (("group", "left"), ("units", "right"), ("would save", "right"), ("because", "left")):
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in working:
            because = _because(row)
            saved = f"{share(row['macs_share'])} of MACs"
            table.add_row(_plain(row["name"]), str(row["width"]), saved, _plain(because))
        out.print(table)
    if idle:
        out.print(f"{idle} more parameter axes carry no MACs (kernel, position, vocabulary) and stay.")
    if data["unknown_operators"]:
        named = ", ".join(f"{name} ({number})" for name, number in data["unknown_operators"].items())
        out.print(f"Operators without a rule, which pin what they touch: {named}.")


def _because(row: dict[str, Any]) -> str:
    """Node and reason; a reason that names its node stands alone."""
    if row["where"]:
        return f"{row['where']}: it {row['reason']}"
    return str(row["reason"]) if row["reason"].startswith("node ") else f"it {row['reason']}"


def comparison(out: Console, data: dict[str, Any], names: tuple[str, str] = ("before", "after")) -> None:
    """Print before and after side by side, then what the check found."""
    before, after = data["before"], data["after"]
    table = Table()
    for name in ("", *names, "ratio"):
        table.add_column(name, justify="left" if not name else "right")
    lines = [("MACs", "macs", count), ("parameters", "params", count), ("bytes on disk", "bytes", size)]
    for name, key, text in lines:
        old, new = before[key], after[key]
        table.add_row(name, text(old), text(new), f"{new / old:.3f}" if old else "-")
    paired = data["latency_ratio"]
    if paired:
        milliseconds = [f"{side['latency_ms']:.3g} ms" for side in (before, after)]
        table.add_row("latency", *milliseconds, f"{paired[0]:.3f} ({paired[1]:.3f} to {paired[2]:.3f})")
    out.print(table)
    if paired and paired[2] > 1 and after["macs"] < before["macs"]:
        out.print("Not measurably faster. On CPU, widths that are no multiple of 4 are slow: try --multiple 8.")
    _check(out, data["verify"])


def _check(out: Console, check: dict[str, Any]) -> None:
    """Print what the comparison in onnxruntime found."""
    if not check["exact"]:
        out.print(
            f"Not exact: normalised axes were cut. Outputs deviate from the original by {check['change']:.1e} of their"
            f" magnitude on {check['runs']} inputs."
        )
        return
    out.print(
        f"Verified on {check['runs']} inputs against the masked original: difference at most"
        f" {check['max_abs_diff']:.1e} ({check['max_rel_diff']:.1e} of the output's magnitude)."
    )
    if check["noise"] is not None:
        out.print(
            f"This net amplifies rounding: one rounding error in its inputs alone moves them by {check['noise']:.1e}."
        )


def latencies(out: Console, names: Sequence[str], found: Sequence[Latency], ratios: Sequence[Ratio]) -> None:
    """Print the latency of one or several models."""
    table = Table(title=f"onnxruntime, {found[0].threads} thread(s), {found[0].provider}", title_justify="left")
    for name in ("model", "median", "10 % to 90 %", "runs per second", "load", "against the first"):
        table.add_column(name, justify="left" if name == "model" else "right", overflow="fold")
    for number, (name, one) in enumerate(zip(names, found, strict=True)):
        ratio = (
            ""
            if number == 0
            else f"{ratios[number - 1].median:.3f} ({ratios[number - 1].low:.3f} to {ratios[number - 1].high:.3f})"
        )
        spread = f"{one.low_ms:.3g} to {one.high_ms:.3g} ms"
        table.add_row(
            name, f"{one.median_ms:.3g} ms", spread, f"{one.throughput():.4g}", f"{one.load_ms:.3g} ms", ratio
        )
    out.print(table)


def node_times(out: Console, name: str, times: Sequence[NodeTime], most: int = 30) -> None:
    """Print where the time goes, slowest first."""
    table = Table(title=_plain(f"{name}: time by node"), title_justify="left")
    for head in ("node", "operator", "ms", "share"):
        table.add_column(head, justify="left" if head in ("node", "operator") else "right", overflow="fold")
    for one in times[:most]:
        table.add_row(_plain(one.name), one.op_type, f"{one.ms:.4f}", share(one.share))
    if len(times) > most:
        rest = times[most:]
        table.add_row(f"{len(rest)} more", "", f"{sum(t.ms for t in rest):.4f}", share(sum(t.share for t in rest)))
    out.print(table)


def path(out: Console, title: str, steps: Sequence[Step]) -> None:
    """Print an explanation as a chain."""
    out.print(title, style="bold")
    for step in steps:
        out.print(f"  {step.source}\n    through {step.node}" + (f" ({step.op_type})" if step.op_type else ""))
    if steps:
        out.print(f"  {steps[-1].target}")
