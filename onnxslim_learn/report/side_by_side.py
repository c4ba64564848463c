"""Two models side by side, as plain data: what each costs, and how wide layers and groups of the same names are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.network import grown, network
from onnxslim_learn.report.records import side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.analysis import Analysis

ALONE = ("costs", "device", "estimated")  # of the report of one model, what two have one of each of


def beside(report: Mapping[str, Any], analysis: Analysis, other: Analysis) -> dict[str, Any]:
    """The report of one model with another beside it.

    Args:
        report: That of the first, as :func:`onnxslim_learn.report.records.overview` gives it.
        analysis: The first.
        other: The second; its latency is told where the first has one, for the same machine.
    """
    layers, others = network(analysis), network(other)
    widths = {group.name: group.width for group in other.groups}
    return {
        **{key: value for key, value in report.items() if key not in ALONE},
        "other": str(other.graph.source or "the second model"),
        "before": _side(analysis),
        "after": _side(other),
        "network": grown(layers, others),
        "groups": [_matched(group, widths.get(group["name"])) for group in report["groups"]],
        "unmatched": [_missing(layers, others), _missing(others, layers)],
    }


def _side(analysis: Analysis) -> dict[str, Any]:
    """What one of them costs."""
    ms = None if analysis.latency is None else analysis.latency.value(1.0 - analysis.whole.gone) / 1e3
    return side(analysis, analysis.whole, analysis.graph.source, ms)


def _matched(group: Mapping[str, Any], width: int | None) -> dict[str, Any]:
    """A group with the width that it has in the other model, where it is there and no wider."""
    return {**group, "kept": width if width is not None and width <= group["width"] else group["width"]}


def _missing(layers: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """Layers whose names the other model does not have."""
    names = {node["name"] for node in others}
    return [node["name"] for node in layers if node["name"] not in names]
