"""Which of the options given would have to be relaxed for a target to be reached."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import onnx

from onnxslim_learn.errors import TargetError
from onnxslim_learn.registry import LATENCY
from onnxslim_learn.report import records
from onnxslim_learn.report.sections import slim as slim_pages
from onnxslim_learn.settings import AUTO
from onnxslim_learn.workflow import slim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxslim_learn.analysis import Analysis

# Option of the command line -> the setting of ``api.plan`` that it gives, and the freest value.
RELAXED: dict[str, tuple[str, Any]] = {
    "without ⟨multiple⟩": ("multiple", AUTO),
    "without ⟨protect⟩": ("protect", ()),
    "without ⟨only⟩": ("only", ()),
    "without ⟨keep⟩": ("keep", {}),
    "with ⟨allow_empty⟩": ("allow_empty", True),
}
SENSITIVE = "with ⟨allow_sensitive⟩ (not exact)"
ANY = "l2"  # criterion: how narrow a model gets does not depend on it, and this one needs no samples
MUCH = 0.1  # of a model is worth a sentence
NOTHING = 1e-9  # a target that nothing reaches: the refusal says the best there is


def advise(analysis: Analysis, settings: Mapping[str, Any], missed: TargetError) -> str:
    """Say in a sentence which options, as few as possible, would make a missed target reachable.

    Args:
        analysis: The model.
        settings: What ``api.plan`` was given beside the target.
        missed: What it raised.

    Returns:
        The sentence with a space before it, and one about work that no plan reaches; empty if nothing helps.
    """
    return _options(analysis, settings, missed) + "".join(f" {slim_pages.inside(row)}" for row in _heavy(analysis))


def _heavy(analysis: Analysis) -> list[dict[str, Any]]:
    """Nodes whose bodies hold much of the model."""
    held = records.bodies(analysis) if analysis.coupling.records.inside else []
    return [row for row in held if max(row["macs_share"], row["params_share"]) > MUCH]


def _options(analysis: Analysis, settings: Mapping[str, Any], missed: TargetError) -> str:
    """Which options would make a missed target reachable, in a sentence."""
    given = {option: {name: free} for option, (name, free) in RELAXED.items() if settings.get(name, free) != free}
    freed = analysis
    measured = LATENCY in missed.missed  # known for this analysis alone
    if not measured and analysis.coupling.delicate.any():
        given[SENSITIVE], freed = {}, _sensitive(analysis)
    for size in range(1, len(given) + 1):
        helping = []
        for options in itertools.combinations(given, size):
            changes = {name: free for option in options for name, free in given[option].items()}
            if _reached(freed if SENSITIVE in options else analysis, {**settings, **changes}, missed):
                helping.append(" and ".join(options))
        if helping:
            return f" It can be reached {', or '.join(helping)}."
    return ""


def _sensitive(analysis: Analysis) -> Analysis:
    """The same model with its normalised axes free."""
    graph = analysis.graph
    model = graph.source or onnx.load_model_from_string(graph.data)
    return slim.analyze(model, inputs=graph.shapes.nominal.inputs, values=graph.values, allow_sensitive=True)


def _reached(analysis: Analysis, settings: Mapping[str, Any], missed: TargetError) -> bool:
    """Whether all bounds that were missed hold at the narrowest widths under other settings."""
    try:
        slim.plan(analysis, dict.fromkeys(missed.missed, NOTHING), **{**settings, "criterion": ANY})
    except TargetError as error:
        return all(error.missed[cost][0] <= bound for cost, (_, bound) in missed.missed.items())
    return True
