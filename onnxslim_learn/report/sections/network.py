"""The network in pages: its picture, and where its costs are by block, operator and layer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.readers import AUTO
from onnxslim_learn.report.blocks import Bar, Bars, Block, Chain, Chooser, Picture, Section, Table, Text
from onnxslim_learn.report.format import count, ms
from onnxslim_learn.report.sections.pinned import ONE, because

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

STEP = 4  # of widths to try, where those of this machine's kernels decide
EVERY_RUN = "(every run)"  # what is no node's time
FOLLOWING = "By block and by layer, what has no weights (activations, views) counts for the layer that it follows."
PARTS = 24  # blocks in a chart, at most
TOLD = ("name", "title", "width", "kept", "after")  # of a group, on a click, and
SHARES = ("macs_share", "params_share")
DIGITS = 5  # of shares
MEMBERS = 12  # that are named
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "macs": ("MACs", count),
    "params": ("parameters", count),
    "ms": ("time", ms),
}
"""What nodes may cost -> what that is called, and how it is written."""

Node = "Mapping[str, Any]"


def blocks(report: Mapping[str, Any]) -> list[Block]:
    """The picture of a report that has one, and what its layers cost."""
    nodes, drawn = report.get("network"), picture(report)
    if not nodes:
        return []
    chooser = tuple(_chooser(report))
    return [
        *drawn,
        Section("network", chooser if "view" in report else ()),
        Section("where", (*_charts("block", nodes, _by_block(nodes)), *_by_operator(report))),
        Section("where", (Text(f"{FOLLOWING}{_clock(report)}"),)),
        Section("where", (_table(nodes),)),
        Section("choose", () if "view" in report else chooser),
        Section("pinned", tuple(_ways(report.get("pinned", ())))),
    ]


def picture(report: Mapping[str, Any]) -> list[Section]:
    """The picture alone, of a report that has one."""
    groups = [*report.get("groups", ()), *report.get("pinned", ())]
    told = tuple(_group(group, report.get("choice") or {}) for group in groups)
    nodes = report.get("network")
    return [Section("network", (Picture(tuple(nodes), told),))] if nodes else []


def _chooser(report: Mapping[str, Any]) -> Iterator[Chooser]:
    """Widths to try, where costs have a formula."""
    told, named = report.get("formula"), {group["name"]: group for group in report.get("groups", ())}
    if told is None or not named.keys() >= set(told["groups"]):
        return
    curves = (report.get("choice") or {}).get("curves") or {}
    keys = ("name", "title", "width", "rows", "kept")
    groups = (named[name] for name in told["groups"])
    rows = ({key: group[key] for key in keys if key in group} | _curve(curves, group) for group in groups)
    multiple = report.get("multiple", AUTO)
    model, step = str(report["model"]) or "MODEL.onnx", STEP if multiple == AUTO else multiple
    more = report.get("view") or {}
    about = {"losses": more["losses"], "options": tuple(more["options"])} if more else {}
    yield Chooser(told, tuple(rows), model, step, **about)


def _curve(curves: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    """What a group loses by itself at several widths, where that was measured."""
    return {"curve": curves[group["name"]]} if curves.get(group["name"]) else {}


def _ways(pinned: Iterable[Mapping[str, Any]]) -> Iterator[Chain]:
    """The ways from groups that cannot go to what holds them."""
    for row in pinned:
        if row.get("path") and row["reason"] != ONE:
            yield Chain(row["title"], f"{row['name']}: {because(row)}.", tuple(row["path"]))


def _group(group: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a group on a click."""
    told = {key: group[key] for key in TOLD if key in group}
    told |= {key: round(group[key], DIGITS) for key in SHARES if key in group}
    members = group.get("members") or ()
    told |= {"members": list(members[:MEMBERS])} | ({"more": len(members) - MEMBERS} if members[MEMBERS:] else {})
    if not group.get("prunable", True):
        return {**told, "prunable": False, "because": because(group)}
    loss = _loss((choice.get("curves") or {}).get(group["name"]) or {}, group)
    return told if loss is None else {**told, "lost": f"about {loss:.3g} by itself, after repair"}


def _loss(curve: Mapping[Any, float], group: Mapping[str, Any]) -> float | None:
    """What a group loses by itself at its width, on the line between the widths that were measured."""
    if not curve or "kept" not in group:
        return None
    points = sorted([*((int(kept), max(loss, 0.0)) for kept, loss in curve.items()), (group["width"], 0.0)])
    return float(np.interp(group["kept"], [kept for kept, _ in points], [loss for _, loss in points]))


def _operator(node: Mapping[str, Any]) -> str:
    return str(node["op_type"] or EVERY_RUN)


def _by_operator(report: Mapping[str, Any]) -> list[Block]:
    """Costs of operators; times of all nodes, those among them that are not drawn."""
    drawn = [{key: value for key, value in node.items() if key != "ms"} for node in report["network"]]
    timed = [
        {"op_type": node["op_type"], "ms": (node["before_ms"] or 0.0, node["after_ms"] or 0.0)}
        for node in report.get("node_times") or ()
    ]
    estimated = [{**node, "ms": (node["ms"],) * 2} for node in report.get("estimated") or ()]
    times = timed or estimated
    return [*_charts("operator", drawn, _operator), *(_charts("operator", times, _operator) if times else [])]


def _by_block(nodes: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], str]:
    """The block of a node: so many words of its module, beside those all share, that there are not too many blocks."""
    modules = [str(node["module"]).split(".") for node in nodes if node["module"]]
    alike = sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, zip(*modules, strict=False)))

    def of(node: Mapping[str, Any], depth: int) -> str:
        return ".".join(str(node["module"]).split(".")[: alike + depth]) or "(no block)"

    counts = {depth: len({of(node, depth) for node in nodes}) for depth in range(1, 9)}
    depth = max((depth for depth, parts in counts.items() if parts <= PARTS), default=1)
    return lambda node: of(node, depth)


def _charts(what: str, nodes: Sequence[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], str]) -> list[Block]:
    """Costs of nodes that have something alike, before and after."""
    charts = list[Block]()
    for cost, (title, written) in _costs(nodes).items():
        sums: dict[str, list[float]] = {}
        for node in nodes:
            pair = sums.setdefault(key(node), [0, 0])
            pair[:] = [pair[0] + node[cost][0], pair[1] + node[cost][1]]
        largest = sorted(sums.items(), key=lambda item: -item[1][0])[:PARTS]
        pairs = {name: pair for name, pair in largest if pair[0]}
        changed = any(before != after for before, after in pairs.values())
        series = ("before", "after")[: 1 + changed]
        bars = [
            Bar("" if k else name, pair[k], written(pair[k]), k)
            for name, pair in pairs.items()
            for k in range(len(series))
        ]
        if len(pairs) > 1:
            charts.append(Bars(f"{title[:1].upper()}{title[1:]} by {what}", series, tuple(bars)))
    return charts


def _clock(report: Mapping[str, Any]) -> str:
    """How the time of nodes is known."""
    if "ms" not in report["network"][0]:
        return ""
    measured = (
        " Times of nodes were measured in runs of their own, which are slower for it. A fused node's time counts for"
        " the node that it is built around."
    )
    return measured if report.get("node_times") else " Times of nodes are estimated."


def _costs(nodes: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, Callable[[float], str]]]:
    """What is known of the nodes."""
    return {cost: about for cost, about in COSTS.items() if cost in nodes[0]}


def _table(nodes: Sequence[Mapping[str, Any]]) -> Table:
    """Every node that is drawn and costs something."""
    rows = []
    for node in nodes:
        if any(node[cost][0] for cost in _costs(nodes)):
            units = "" if node["width"] is None else _pair(*map(str, node["width"]))
            costs = (_pair(*map(written, node[cost])) for cost, (_, written) in _costs(nodes).items())
            rows.append((f"{node['name']}\n{node['module']}", node["op_type"], units, *costs))
    heads = ("layer, and its module", "operator", "units", *(title for title, _ in _costs(nodes).values()))
    return Table("Costs by layer", heads, tuple(rows), (0, 1), page_only=True)


def _pair(before: str, after: str) -> str:
    return before if before == after else f"{before} to {after}"
