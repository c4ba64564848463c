"""What the command profile reports, from its plain data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.blocks import Bar, Bars, Block, Section, Table, Text
from onnxslim_learn.report.format import ms, plural, provider, rate, shapes, share, size, times
from onnxslim_learn.report.sections.latency import unoptimized

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NODES = 30  # rows of a table of nodes; the rest are summed


TOLD = (
    "A round runs every model once, in changing order; the interval of a ratio covers 95 % when rounds are drawn again."
    " Load: reading the file and building the session. Peak memory: what loading and running take at most, with"
    " onnxruntime's own."
)
NODES_TOLD = (
    "A fused node's time counts for the node it is built around. layout: rearrangements that onnxruntime inserts."
    " (other): what belongs to no node of the file. Single nodes are timed in a run that is slower for it."
)


def profile(data: Mapping[str, Any]) -> list[Block]:
    """Latency of models under every setting, whether they differ, and the time of their nodes."""
    names = distinct(data["models"])
    blocks: list[Block] = []
    for setting in data["settings"]:
        notes = "\n".join([_at(setting, names), *_verdicts(setting, names)])
        blocks.append(Section("time", (_latencies(setting, names), Text(notes), _latency_bars(setting, names))))
        if "nodes" in setting["timings"][0]:
            blocks.append(Section("where", tuple(_nodes(setting, names))))
    by_node = any("nodes" in one for setting in data["settings"] for one in setting["timings"])
    return [*blocks, Section("time", (Text("\n" + "\n".join([TOLD, NODES_TOLD] if by_node else [TOLD])),))]


def distinct(paths: Iterable[str]) -> dict[str, str]:
    """The shortest ends of paths that tell them apart: path -> name."""
    whole = [Path(path) for path in paths]
    for parts in range(1, max(len(path.parts) for path in whole) + 1):
        ends = ["/".join(path.parts[-parts:]) for path in whole]
        if len(set(ends)) == len(set(whole)):
            return {str(path): end for path, end in zip(whole, ends, strict=True)}
    return {str(path): str(path) for path in whole}


def _at(setting: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The input shapes of a setting."""
    sizes = {names[one["model"]]: shapes(one["inputs"]) for one in setting["timings"]}
    alike = len(set(sizes.values())) == 1
    told = next(iter(sizes.values())) if alike else ", ".join(f"{size} ({name})" for name, size in sizes.items())
    assumed = dict.fromkeys(name for one in setting["timings"] for name in one["inputs_assumed"])
    guess = f" (sizes that the files leave open in {', '.join(assumed)} are assumed; set them with --input)"
    return f"At {told}{guess if assumed else ''}.{unoptimized(setting)}"


def _title(setting: Mapping[str, Any]) -> str:
    batch = f", batch {setting['batch']}" if setting["batch"] is not None else ""
    bound = ", inputs and outputs on the device" if setting["bind"] else ""
    return f"{provider(setting['provider'])}, {plural(setting['threads'], 'thread')}{batch}{bound}"


def _latencies(setting: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    ratios = [times(c["ratio"], c["low"], c["high"]) for c in setting["comparisons"]]
    rows = []
    for one, ratio in zip(setting["timings"], ["", *ratios], strict=True):
        often = one["runs_per_second"] if setting["batch"] is None else one["samples_per_second"]
        memory = "unknown" if one["peak_bytes"] is None else size(one["peak_bytes"])
        spread = f"{one['low_ms']:.3g} to {ms(one['high_ms'])}"
        row = (names[one["model"]], ms(one["median_ms"]), spread, rate(often), ms(one["load_ms"]), memory)
        rows.append((*row, ratio) if ratios else row)
    per = "runs/s" if setting["batch"] is None else "samples/s"
    heads = ("model", "median", "10 % to 90 %", per, "load", "peak memory")
    title = f"onnxruntime: {_title(setting)}; {setting['rounds']} rounds"
    return Table(title, (*heads, "against the first") if ratios else heads, tuple(rows))


def _verdicts(setting: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    lines = []
    for one in setting["comparisons"]:
        model, base, ratio, low, high = names[one["model"]], names[one["base"]], one["ratio"], one["low"], one["high"]
        if one["faster"] is None:
            lines.append(f"{model} is not measurably faster or slower than {base}.")
        elif one["faster"]:
            lines.append(
                f"{model} is faster than {base}: {1 / ratio:.2f} times as fast ({1 / high:.2f} to {1 / low:.2f})."
            )
        else:
            lines.append(
                f"{model} is slower than {base}: it takes {ratio:.2f} times as long ({low:.2f} to {high:.2f})."
            )
    return lines


def _latency_bars(setting: Mapping[str, Any], names: Mapping[str, str]) -> Bars:
    bars = [
        Bar(names[one["model"]], one["median_ms"], ms(one["median_ms"]), 0, (one["low_ms"], one["high_ms"]))
        for one in setting["timings"]
    ]
    return Bars(f"Time of a run, median and 10 % to 90 %: {_title(setting)}", ("median",), tuple(bars))


def _nodes(setting: Mapping[str, Any], names: Mapping[str, str]) -> list[Block]:
    """Time by node of all models side by side, those slowest in any of them on top."""
    columns = [{(n["name"], n["op_type"]): n["ms"] for n in one["nodes"]} for one in setting["timings"]]
    slowest = {key: max(column.get(key, 0.0) for column in columns) for column in columns for key in column}
    keys = sorted(slowest, key=lambda key: -slowest[key])
    total = sum(columns[0].values()) or 1.0
    rows = [(f"{key[0]} ({key[1]})", *_cells([column.get(key) for column in columns], total)) for key in keys[:NODES]]
    if rest := keys[NODES:]:
        left = [sum(column.get(key, 0.0) for key in rest) for column in columns]
        rows.append((f"{len(rest)} more", *_cells(left, total)))
    series = tuple(names[one["model"]] for one in setting["timings"])
    heads = [f"{name} ms" for name in series] if len(series) > 1 else ["ms"]
    bars = [
        Bar("" if k else key[0], column.get(key, 0.0), f"{column.get(key, 0.0):.3f} ms", k)
        for key in keys[:NODES]
        for k, column in enumerate(columns)
    ]
    title, last = f"Time by node: {_title(setting)}", "ratio" if len(series) > 1 else "share"
    table = Table(title, ("node (operator)", *heads, last), tuple(rows))
    return [table, Bars(title, series, tuple(bars)), _operators(setting, columns, (*heads, last))]


def _operators(
    setting: Mapping[str, Any], columns: Sequence[Mapping[tuple[str, str], float]], heads: tuple[str, ...]
) -> Table:
    """Time by operator of all models side by side, those slowest in any of them on top."""
    sums = [dict[str, float]() for _ in columns]
    for column, by_operator in zip(columns, sums, strict=True):
        for (_, operator), spent in column.items():
            by_operator[operator] = by_operator.get(operator, 0.0) + spent
    total = sum(sums[0].values()) or 1.0
    names = sorted({name for one in sums for name in one}, key=lambda name: -max(one.get(name, 0.0) for one in sums))
    rows = tuple((name, *_cells([one.get(name) for one in sums], total)) for name in names)
    return Table(f"Time by operator: {_title(setting)}", ("operator", *heads), rows)


def _cells(values: Sequence[float | None], total: float) -> list[str]:
    """Times of one node in every model, and its share, or the last model's time over the first's."""
    shown = ["" if value is None else f"{value:.3f}" for value in values]
    first, last = values[0], values[-1]
    if len(values) == 1:
        return [*shown, share((first or 0.0) / total)]
    return [*shown, f"{last / first:.3f}" if first and last is not None else "-"]
