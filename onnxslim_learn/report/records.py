"""What a report says, as plain data: the JSON of the command line and the source of its tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.analysis import analyze
from onnxslim_learn.costs import polynomial
from onnxslim_learn.coupling import explain
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.graph import inlining
from onnxslim_learn.graph.bodies import parameters
from onnxslim_learn.quality.judgement import of_outputs
from onnxslim_learn.registry import COSTS, FILE, MACS
from onnxslim_learn.report.bounds_met import bounded, met
from onnxslim_learn.report.formula import formula
from onnxslim_learn.report.network import grown, network, times_of
from onnxslim_learn.report.sections import repair
from onnxslim_learn.rewrite import save
from onnxslim_learn.runtime import node as running
from onnxslim_learn.runtime.timing import Ratio, compare
from onnxslim_learn.select.bounds import named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.polynomial import Cost
    from onnxslim_learn.costs.roofline import Timed
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.titles import Title
    from onnxslim_learn.registry import CostRow
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.runtime.timing import Timings
    from onnxslim_learn.workflow.expand import Widened
    from onnxslim_learn.workflow.slimmed import Slimmed


PATHS = 12  # groups whose way to what holds them is told: each looks through the whole model


@dataclass(frozen=True)
class Row:
    """One group in a report.

    Attributes:
        name: The group.
        title: What it is called: its role, its module and both in words.
        width: Number of units.
        rows: Whether units are whole rows (attention heads, convolution groups).
        members: Parameter axes it ties.
        prunable: Whether it can lose units.
        where: Node that pins it.
        reason: Why it cannot go.
        saved: Cost -> what would go with all its units: what it carries, or what unlocking it would save at most.
        latency: Estimated milliseconds likewise, where there is a device.
        delicate: Whether only that its axis is normalised over keeps it: it can be cut where that need not be exact.
    """

    name: str
    title: Title
    width: int
    rows: bool
    members: tuple[str, ...]
    prunable: bool
    where: str
    reason: str
    saved: Mapping[str, float]
    latency: float | None = None
    delicate: bool = False

    def to_dict(self, total: Mapping[str, float]) -> dict[str, Any]:
        """As plain data, with shares of the model's totals."""
        data: dict[str, Any] = {
            "name": self.name,
            "title": self.title.text,
            "role": self.title.role,
            "module": self.title.path,
            "width": self.width,
            "rows": self.rows,
            "members": list(self.members),
            "prunable": self.prunable,
        }
        for cost, saved in self.saved.items():
            data |= {cost: saved, f"{cost}_share": saved / max(total[cost], 1)}
        if self.latency is not None:
            data |= {"latency_ms": self.latency, "latency_share": self.latency / total["latency_ms"]}
        return (
            data if self.prunable else {**data, "where": self.where, "reason": self.reason, "delicate": self.delicate}
        )


def rows(analysis: Analysis) -> list[Row]:
    """One row per group, in model order."""
    return [row(analysis, group) for group in analysis.groups]


def pinned(analysis: Analysis, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The groups that cannot go; of those with most of the MACs the path from their first axis to what holds them."""
    total, named = totals(analysis), {group.name: group for group in analysis.groups}
    largest = sorted((r for r in rows if r.saved[MACS]), key=lambda r: -r.saved[MACS])[:PATHS]
    paths = {r.name: [asdict(one) for one in explain.why_pinned(analysis.coupling, named[r.name])] for r in largest}
    return [r.to_dict(total) | ({"path": paths[r.name]} if r.name in paths else {}) for r in rows]


def row(analysis: Analysis, group: Group) -> Row:
    """What a group ties and carries."""
    coupling = analysis.coupling
    columns = np.zeros(coupling.columns, bool)
    columns[group.units] = True
    gone = coupling.close(columns)
    told = {row.name: (row.whole, analysis.cost(row.name)) for row in analysis.counted if not row.file}
    amounts = {name: (whole, polynomial.saved(cost, gone)) for name, (whole, cost) in told.items()}
    pin = group.pin
    ms = None if analysis.latency is None else polynomial.saved(analysis.latency, gone) / 1e3
    return Row(
        group.name,
        analysis.titles[group.name],
        group.width,
        group.rows,
        group.members,
        pin is None,
        "" if pin is None or pin.node < 0 else coupling.where(pin.node),
        "" if pin is None else pin.reason + (f" (axis {pin.axis})" if pin.axis else ""),
        {name: round(amount) if whole else amount for name, (whole, amount) in amounts.items()},
        ms,
        delicate=pin is not None and bool(coupling.delicate[group.units].all()),
    )


def blocks(analysis: Analysis, cut: Removal | None = None) -> list[dict[str, Any]]:
    """The residual blocks, or those that a removal drops, with what would go with each."""
    coupling, total, told = analysis.coupling, totals(analysis), []
    for block in coupling.blocks if cut is None else cut.dropped:
        title = analysis.block_titles[block.name]
        about: dict[str, Any] = {"name": block.name, "title": title.text, "module": title.path}
        about |= {"nodes": len(block.nodes)} | ({"prunable": not block.pin, "reason": block.pin} if cut is None else {})
        saved = np.zeros(coupling.size, bool)
        saved[coupling.strong[block.atom]] = bool(block.atom)
        for row in [one for one in analysis.counted if block.atom and not one.file]:
            amount = polynomial.saved(analysis.cost(row.name), saved)
            about |= {row.name: round(amount), f"{row.name}_share": amount / max(total[row.name], 1)}
        if analysis.latency is not None and block.atom:
            about["latency_ms"] = polynomial.saved(analysis.latency, saved) / 1e3
        told.append(about)
    return told


def overview(analysis: Analysis) -> dict[str, Any]:
    """The analysis as plain data."""
    timed = analysis.latency
    total = totals(analysis)
    every_row = rows(analysis)
    source = analysis.graph.source
    return {
        "model": str(source) if source else "",
        "inputs": {name: list(shape) for name, shape in analysis.graph.shapes.nominal.inputs.items()},
        "inputs_assumed": list(analysis.graph.assumed),
        "values": {name: value.tolist() for name, value in analysis.graph.values.items()},
        "nodes": len(analysis.graph.nodes),
        "costs": {**total, "file_bytes": save.size_on_disk(source) if source else len(analysis.graph.data)},
        "groups": [r.to_dict(total) for r in every_row if r.prunable],
        "pinned": pinned(analysis, [r for r in every_row if not r.prunable]),
        "network": network(analysis),
        "formula": formula(analysis),
        "blocks": blocks(analysis),
        "counted": counted(analysis.counted),
        "unknown_operators": analysis.opaque,
        "bodies": bodies(analysis),
        "device": None if timed is None else asdict(timed.device),
        "estimated": None if timed is None else estimated(analysis, timed),
    }


def bodies(analysis: Analysis) -> list[dict[str, Any]]:
    """Nodes that hold graphs with work or weights in them, which no plan cuts."""
    total, nodes, told = totals(analysis), analysis.graph.nodes, []
    for inside in analysis.coupling.records.inside:
        node = nodes[inside.node]
        elements = sum(int(np.prod(v.const_value.shape)) for v in _weights(analysis, node))
        if inside.macs or elements:
            told.append(
                {
                    "name": str(node.name),
                    "op_type": node.op_type,
                    "macs": inside.macs,
                    "macs_share": inside.macs / max(total["macs"], 1),
                    "params": elements,
                    "params_share": elements / max(total["params"], 1),
                    "counted": inside.counted,
                    "rounds": inside.rounds,
                    "decided_by": inlining.decided_by(node),
                    "chosen": inlining.CHOSEN in node.metadata_props,
                }
            )
    return told


def _weights(analysis: Analysis, node: ir.Node) -> list[Any]:
    """Parameters that bodies hold, and those outside that only they read."""
    held = [value for _, value in parameters(node)]
    captured = dict.fromkeys(name for body in running.bodies(node) for name in running.captured(body))
    outside = (analysis.graph.initializers.get(name) for name in captured)
    held += [
        value
        for value in outside
        if value is not None and all(use.node.graph is not node.graph for use in value.uses())
    ]
    return [value for value in held if polynomial.is_parameter(value)]


CHOICE = ("criterion", "allocation", "trials", "work", "curves", "measured")  # of a plan's provenance


def totals(analysis: Analysis) -> dict[str, float]:
    """What the whole model costs."""
    everything = np.ones(analysis.coupling.size)
    sums: dict[str, float] = {**analysis.price(analysis.whole)}
    sums["peak_activation_bytes"] = round(analysis.memory.value(everything))
    if analysis.latency is not None:
        sums["latency_ms"] = analysis.latency.value(everything) / 1e3
    return sums


def estimated(analysis: Analysis, timed: Timed) -> list[dict[str, Any]]:
    """Every node's part of an estimated latency, slowest first; what every run takes has no name."""
    operators = {str(node.name): node.op_type for node in analysis.graph.nodes}
    slowest_first = sorted(timed.by_node(np.ones(analysis.coupling.size)).items(), key=lambda item: -item[1])
    return [{"name": name, "op_type": operators.get(name, ""), "ms": us / 1e3} for name, us in slowest_first]


def side(analysis: Analysis, cut: Removal, path: Path | None, latency_ms: float | None) -> dict[str, Any]:
    """Costs of one model: as counted, on disk (in memory without a path), as timed."""
    price = analysis.price(cut)
    return {
        **price,
        FILE: len(analysis.graph.data) if path is None else save.size_on_disk(path),
        "weight_bytes": price[FILE],
        "latency_ms": latency_ms,
    }


def counted(rows: Iterable[CostRow]) -> list[dict[str, str]]:
    """How the costs of models are called and what they are counted in, for tables."""
    return [{"name": row.name, "title": row.heading, "unit": row.unit} for row in rows if not row.file]


def layers(cut: Removal, macs: Cost) -> list[dict[str, Any]]:
    """Every node that carries MACs, in the order of the file: its weight's shape and its MACs before and after."""
    coupling = cut.coupling
    before, after = macs.by_node(np.ones(coupling.size)), macs.by_node((~cut.gone).astype(float))
    rows_of_layers = []
    for node in coupling.nodes:
        name = str(node.name)
        if round(before.get(name, 0)) == 0:
            continue
        read = [str(v.name) for v in node.inputs if v is not None and v.name in coupling.graph.initializers]
        weight = next((w for w in read if w in coupling.values and len(coupling.values[w].axes) > 1), None)
        shapes: tuple[list[int] | None, list[int] | None] = (None, None)
        if weight is not None:
            value = coupling.values[weight]
            shapes = list(value.shape), [cut.size(value, axis) for axis in range(len(value.axes))]
        work = (round(before[name]), round(after.get(name, 0)))
        rows_of_layers.append({"name": name, "op_type": node.op_type, "weight": weight, "shapes": shapes, "macs": work})
    return rows_of_layers


def _widths(analysis: Analysis, kept: Mapping[str, Sequence[int]], cut: Removal) -> list[dict[str, Any]]:
    """Every group that can be cut, with its width before and after, but those in residual blocks that went."""
    total = totals(analysis)
    return [
        {**row(analysis, g).to_dict(total), "kept": len(kept.get(g.name, range(g.width)))}
        for g in analysis.groups
        if g.pin is None and not g.lies_in(cut.without)
    ]


def files(analysis: Analysis, output: Path) -> dict[str, Any]:
    """What was read, what was written, and the input sizes that costs are of."""
    return {
        "model": str(analysis.graph.source or ""),
        "output": str(output),
        "inputs": {name: list(shape) for name, shape in analysis.graph.shapes.nominal.inputs.items()},
    }


def _measured(
    slimmed: Slimmed, timings: Timings | None, timed: Mapping[str, Any]
) -> tuple[list[float | None], dict[str, Any] | None]:
    """Milliseconds before and after, and how they were measured; a bound on latency has its own."""
    targeted = slimmed.plan.provenance.get("latency")
    if targeted is not None:
        return [targeted["original_ms"], targeted["measured_ms"]], _on_target(slimmed.analysis, targeted)
    if timings is None:
        return [None, None], None
    return [one.median_ms for one in timings.latencies()], latency(timings, timed)


def _quality(slimmed: Slimmed) -> dict[str, Any] | None:
    """How good a result is, as it was judged, or else by what training says of samples that were held back."""
    if slimmed.judgement is not None:
        return slimmed.judgement.to_dict()
    if slimmed.trained is None:
        return None
    result = slimmed.plan.provenance["training"]["result"]
    return of_outputs(result["outputs"], result["detections"], slimmed.trained)


def outcome(
    slimmed: Slimmed,
    output: Path,
    verification: Verification,
    timings: Timings | None,
    timed: Mapping[str, Any],
    *,
    nodes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A finished slimming as plain data.

    Args:
        slimmed: What was cut.
        output: Where it was written.
        verification: How it was checked.
        timings: How long it takes, if it was timed.
        timed: The inputs at which it was, by name.
        nodes: How long nodes take, as :func:`onnxslim_learn.workflow.timed.by_node` tells.
    """
    analysis, told = slimmed.analysis, slimmed.plan.provenance
    times, measured = _measured(slimmed, timings, timed)
    return {
        **files(analysis, output),
        "multiple": told.get("multiple", 1),
        "counted": counted(analysis.counted),
        "before": side(analysis, analysis.whole, analysis.graph.source, times[0]),
        "after": side(analysis, slimmed.removal, output, times[1]),
        "latency": measured,
        "latency_target": told.get("latency"),
        "verify": verification.to_dict(),
        "repair": repair.as_data(slimmed.repaired, told.get("repair", {}).get("data", ""), slimmed.finetuned),
        "quality": _quality(slimmed),
        "lossless": None if slimmed.folded is None else slimmed.folded.to_dict(),
        "merged": _merged(slimmed),
        "training": told.get("training"),
        "timed": told.get("timed", []),
        "choice": {k: told.get(k) for k in CHOICE},
        "bases": sorted({name.rpartition("|")[0] for name in analysis.bases}),
        "groups": _widths(analysis, slimmed.plan.groups, slimmed.removal),
        "node_times": list(nodes),
        "network": network(analysis, slimmed.removal, times_of(nodes)),
        "formula": formula(analysis),
        "blocks": _dropped(slimmed),
        "layers": layers(slimmed.removal, analysis.costs[MACS]),
        "pinned": pinned(analysis, [row(analysis, g) for g in analysis.groups if g.pin is not None]),
        "unknown_operators": analysis.opaque,
        "bodies": bodies(analysis),
        "verdict": {"met": met(slimmed, output, times)},
    }


def _dropped(slimmed: Slimmed) -> list[dict[str, Any]]:
    """The residual blocks that went, with what was lost when each and those chosen before it were gone."""
    losses = slimmed.plan.provenance.get("blocks", {}).get("losses", {})
    rows_of_blocks = blocks(slimmed.analysis, slimmed.removal)
    return [{**about, "lost": losses.get(about["name"])} for about in rows_of_blocks]


def _merged(slimmed: Slimmed) -> dict[str, Any] | None:
    """Which units were merged, and why those of other groups were dropped; ``None`` where all were dropped."""
    plan = slimmed.plan
    if not plan.merged and "dropped" not in plan.provenance:
        return None
    cut = {name: why for name, why in plan.provenance.get("dropped", {}).items() if name in plan.groups}
    units = {name: sum(len(members) - 1 for members in clusters) for name, clusters in plan.merged.items()}
    return {"units": units, "dropped": cut}


def widened(
    analysis: Analysis, target: Mapping[str, Bound], places: tuple[Path, str | None], result: Widened
) -> dict[str, Any]:
    """A widened model as plain data.

    Args:
        analysis: The model.
        target: What was asked for.
        places: Where the wider model lies, and what is told of that.
        result: What was done.
    """
    nominal, (file, output) = analysis.graph.shapes.nominal.inputs, places
    wider = analyze(file, inputs=nominal, values=analysis.graph.values)
    titles = analysis.titles
    wishes = named(analysis, target)
    met_by = [bounded(COSTS.row(name), wishes[name], *amounts) for name, amounts in result.met.items()]
    return {
        "model": str(analysis.graph.source or "model"),
        "output": output,
        "factor": result.factor,
        "counted": counted(result.costs),
        "before": result.before,
        "after": result.after,
        "latency": None if result.latency is None else asdict(result.latency),
        "speed": None,
        "timed": [],
        "groups": [
            {"name": name, "title": titles[name].text, "role": titles[name].role, "width": old, "after": new}
            for name, (old, new) in result.widths.items()
        ],
        "network": grown(network(analysis), network(wider)),
        "verify": None if result.verification is None else result.verification.to_dict(),
        "verdict": {"met": met_by or None},
    }


def latency(timings: Timings, timed: Mapping[str, Any]) -> dict[str, Any]:
    """The second model's time against the first's."""
    comparison = compare(timings, 1)
    return {
        "ratio": comparison.median,
        "low": comparison.low,
        "high": comparison.high,
        "faster": comparison.faster,
        "rounds": len(timings.ms),
        "stopped": timings.stopped,
        "processor_time": timings.wall_ms is not None,
        "wall_ratio": comparison.wall,
        "threads": timings.threads,
        "provider": timings.provider,
        "optimizations": timings.optimizations,
        "unchanged": {},
        "inputs": {name: list(np.shape(array)) for name, array in timed.items()},
    }


def _on_target(analysis: Analysis, told: Mapping[str, Any]) -> dict[str, Any]:
    """The slimmed model's time against the original's, as it was measured when it met its target."""
    low, ratio, high = (told[name] / told["original_ms"] for name in ("low_ms", "measured_ms", "high_ms"))
    return {
        "ratio": ratio,
        "low": low,
        "high": high,
        "faster": Ratio(ratio, low, high).faster,
        "rounds": None,
        "stopped": told["stopped"],
        "processor_time": told["processor_time"],
        "wall_ratio": told["wall_ratio"],
        "threads": told["threads"],
        "provider": told["provider"],
        "optimizations": None,
        "unchanged": {},
        "inputs": {name: list(shape) for name, shape in analysis.graph.shapes.nominal.inputs.items()},
    }
