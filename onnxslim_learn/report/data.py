"""What a report says, as plain data: the JSON of the command line and the source of its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.graph.coupling import Removal
from onnxslim_learn.rewrite import save

if TYPE_CHECKING:
    from pathlib import Path

    from onnxslim_learn.api import Analysis, Slimmed
    from onnxslim_learn.costs.measure import Latency, Ratio
    from onnxslim_learn.graph.coupling import Group
    from onnxslim_learn.rewrite.verify import Verification


@dataclass(frozen=True)
class Row:
    """One group in a report.

    Attributes:
        name: The group.
        width: Number of units.
        rows: Whether units are whole rows (attention heads, convolution groups).
        members: Parameter axes it ties.
        prunable: Whether it can lose units.
        where: Node that pins it.
        reason: Why it cannot go.
        macs: MACs that would go with all its units: what it carries, or what unlocking it would save at most.
        params: Parameters likewise.
    """

    name: str
    width: int
    rows: bool
    members: tuple[str, ...]
    prunable: bool
    where: str
    reason: str
    macs: int
    params: int

    def to_dict(self, total: dict[str, int]) -> dict[str, Any]:
        """As plain data, with shares of the model's totals."""
        found: dict[str, Any] = {
            "name": self.name,
            "width": self.width,
            "rows": self.rows,
            "members": list(self.members),
            "prunable": self.prunable,
            "macs": self.macs,
            "macs_share": self.macs / max(total["macs"], 1),
            "params": self.params,
            "params_share": self.params / max(total["params"], 1),
        }
        return found if self.prunable else {**found, "where": self.where, "reason": self.reason}


def rows(analysis: Analysis) -> list[Row]:
    """One row per group, in model order."""
    return [row(analysis, group) for group in analysis.groups]


def row(analysis: Analysis, group: Group) -> Row:
    """What a group ties and carries."""
    coupling = analysis.coupling
    columns = np.zeros(coupling.columns, bool)
    columns[group.units] = True
    alive = (~Removal(coupling, coupling.close(columns)).gone).astype(float)
    everything = np.ones(coupling.size)
    saved = {n: round(c.value(everything) - c.value(alive)) for n, c in analysis.costs.items()}
    pin = group.pin
    return Row(
        group.name,
        group.width,
        group.rows,
        group.members,
        pin is None,
        "" if pin is None or pin.node < 0 else coupling.where(pin.node),
        "" if pin is None else pin.reason + (f" (axis {pin.axis})" if pin.axis else ""),
        saved["macs"],
        saved["params"],
    )


def overview(analysis: Analysis) -> dict[str, Any]:
    """The analysis as plain data."""
    total = analysis.price(analysis.whole)
    found = rows(analysis)
    source = analysis.graph.source
    return {
        "model": str(source) if source else "",
        "inputs": {name: list(shape) for name, shape in analysis.graph.shapes.nominal.inputs.items()},
        "inputs_assumed": list(analysis.graph.assumed),
        "nodes": len(analysis.graph.nodes),
        "costs": {**total, "file_bytes": save.size_on_disk(source) if source else len(analysis.graph.data)},
        "groups": [r.to_dict(total) for r in found if r.prunable],
        "pinned": [r.to_dict(total) for r in found if not r.prunable],
        "unknown_operators": analysis.opaque,
    }


def side(analysis: Analysis, cut: Removal, path: Path, latency: Latency | None) -> dict[str, Any]:
    """Costs of one model: as counted, on disk, as timed."""
    price = analysis.price(cut)
    return {
        "macs": price["macs"],
        "params": price["params"],
        "bytes": save.size_on_disk(path),
        "weight_bytes": price["bytes"],
        "latency_ms": None if latency is None else latency.median_ms,
    }


def outcome(
    slimmed: Slimmed, output: Path, verification: Verification, latencies: list[Latency] | None, ratio: Ratio | None
) -> dict[str, Any]:
    """A finished slimming as plain data."""
    analysis = slimmed.analysis
    assert analysis.graph.source is not None
    times: list[Any] = list(latencies) if latencies else [None, None]
    kept = slimmed.plan.groups
    total = analysis.price(analysis.whole)
    return {
        "model": str(analysis.graph.source),
        "output": str(output),
        "inputs": {name: list(shape) for name, shape in analysis.graph.shapes.nominal.inputs.items()},
        "before": side(analysis, analysis.whole, analysis.graph.source, times[0]),
        "after": side(analysis, slimmed.removal, output, times[1]),
        "latency_ratio": None if ratio is None else [ratio.median, ratio.low, ratio.high],
        "verify": verification.to_dict(),
        "groups": [
            {"name": g.name, "width": g.width, "kept": len(kept.get(g.name, range(g.width)))}
            for g in analysis.groups
            if g.pin is None
        ],
        "pinned": [row(analysis, g).to_dict(total) for g in analysis.groups if g.pin is not None],
        "unknown_operators": analysis.opaque,
    }
