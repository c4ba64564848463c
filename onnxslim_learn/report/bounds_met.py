"""What was asked of costs, and what came out, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.costs.targets import PER_MILLISECOND, amount, is_share
from onnxslim_learn.latency.fitted import FittedLatency
from onnxslim_learn.registry import COSTS, LATENCY
from onnxslim_learn.rewrite import save

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.registry import CostRow
    from onnxslim_learn.workflow.slimmed import Slimmed


NEAR = 0.01  # of a latency that was asked for


def met(slimmed: Slimmed, output: Path, times: Sequence[float | None]) -> list[dict[str, Any]] | None:
    """What was asked of every cost that a plan bounds, and what came out; ``None`` where nothing was.

    Args:
        slimmed: The model.
        output: Its file.
        times: The latency of the original and of the file, milliseconds, where they were timed. A target on this
            machine's is held against them, however it was predicted.
    """
    told, rows = slimmed.plan.provenance, []
    asked = ((told.get("training") or {}).get("cycles") or {}).get("target", {})  # of the first of several models
    for name, wish in (told.get("target") or {}).items():
        if name == LATENCY and told.get("latency"):
            bound, got = (PER_MILLISECOND * told["latency"][key] for key in ("target_ms", "measured_ms"))
            rows.append(bounded(COSTS[LATENCY], wish, bound, got, slack=NEAR))
        elif name == LATENCY and on_this_machine(slimmed.analysis) and None not in times:
            whole, got = (PER_MILLISECOND * float(one or 0.0) for one in times)
            rows.append(bounded(COSTS[LATENCY], wish, amount(COSTS[LATENCY], wish, whole), got))
        elif name != LATENCY or slimmed.analysis.latency is not None:
            row, whole, got = _before_and_after(slimmed, name, output)
            rows.append(bounded(row, asked.get(name, wish), amount(row, wish, whole), got))
    return rows or None


def on_this_machine(analysis: Analysis) -> bool:
    """Whether a model's latency was measured here, not estimated for a device."""
    return isinstance(analysis.latency, FittedLatency)


def bounded(row: CostRow, wish: Bound, bound: float, got: float, *, slack: float = 1e-9) -> dict[str, Any]:
    """What was asked of a cost, and what came out.

    Args:
        row: The cost.
        wish: What was asked for: a share, an amount, or a time as text.
        bound: The same as an amount.
        got: What came out.
        slack: By which share of the bound it may be missed.
    """
    relative = not isinstance(wish, str) and is_share(wish)
    return {
        "cost": row.name,
        "title": row.heading,
        "unit": row.unit,
        "asked": wish,
        "relative": relative,
        "bound": bound,
        "got": got,
        "share": got * float(wish) / bound if relative else None,
        "met": bool(got <= bound * (1 + slack)),
    }


def _before_and_after(slimmed: Slimmed, name: str, output: Path) -> tuple[CostRow, float, float]:
    """A cost, and how much of it there was and is; of bytes, those of the files."""
    row, cost = slimmed.analysis.priced(name)
    if row.file:
        graph = slimmed.analysis.graph
        whole = len(graph.data) if graph.source is None else save.size_on_disk(graph.source)
        return row, whole, save.size_on_disk(output)
    alive = (~slimmed.removal.gone).astype(float)
    return row, cost.value(np.ones(slimmed.removal.coupling.size)), cost.value(alive)
