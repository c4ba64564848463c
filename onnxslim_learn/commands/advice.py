"""Which of the options given would have to be relaxed for a target to be reached."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import onnx

from onnxslim_learn.costs.targets import PER_MILLISECOND, shown
from onnxslim_learn.errors import TargetError
from onnxslim_learn.readers import AUTO
from onnxslim_learn.registry import COSTS, LATENCY, MICROSECONDS
from onnxslim_learn.report import records
from onnxslim_learn.report.sections import pinned
from onnxslim_learn.select.bounds import bounds
from onnxslim_learn.workflow import slim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.commands.asked import Change
    from onnxslim_learn.costs.targets import Bound

# What helps -> the setting of ``api.plan`` that it changes, its freest value, and how the command line says that.
RELAXED: dict[str, tuple[str, Any, Change]] = {
    "without ⟨multiple⟩": ("multiple", AUTO, None),
    "without ⟨protect⟩": ("protect", (), None),
    "without ⟨only⟩": ("only", (), None),
    "without ⟨keep⟩": ("keep", {}, None),
    "with ⟨allow_empty⟩": ("allow_empty", True, True),
}
SENSITIVE = "with ⟨allow_sensitive⟩ (not exact)"
LESS = 1.02  # times the least that was reached: as far as a target can go
ANY = "l2"  # criterion: how narrow a model gets does not depend on it, and this one needs no samples
MUCH = 0.1  # of a model is worth a sentence
NOTHING = 1e-9  # a target that nothing reaches: the refusal says the best there is


def advise(analysis: Analysis, settings: Mapping[str, Any], missed: TargetError) -> tuple[str, dict[str, Change]]:
    """Say in a sentence which options, as few as possible, would make a missed target reachable.

    Args:
        analysis: The model.
        settings: What ``api.plan`` was given beside the target.
        missed: What it raised.

    Returns:
        The sentence with a space before it, and one about work that no plan reaches; empty if nothing helps. And the
        first of these changes of options, else a target that can be reached.
    """
    said, changes = _options(analysis, settings, missed)
    heavy = "".join(f" {pinned.inside(row)}" for row in _heavy(analysis))
    return said + heavy, changes or {"target": _reachable(analysis, settings["target"], missed)}


def _reachable(analysis: Analysis, target: Mapping[str, Bound], missed: TargetError) -> list[str]:
    """A target in whose place the missed one may be asked for."""
    texts = []
    for name, wish in target.items():
        row = COSTS.get(name)
        if name in missed.missed:
            whole = bounds(analysis, {name: 1.0})[name][1]
            least = (
                LESS
                * missed.missed[name][0]
                * (PER_MILLISECOND if row is not None and row.unit == MICROSECONDS else 1.0)
            )
            texts.append(f"{name}={min(math.ceil(100 * least / whole) / 100, 1.0):g}")
        else:
            texts.append(f"{name}={shown(wish, row)}")
    return texts


def _heavy(analysis: Analysis) -> list[dict[str, Any]]:
    """Nodes whose bodies hold much of the model."""
    held = records.bodies(analysis) if analysis.coupling.records.inside else []
    return [row for row in held if max(row["macs_share"], row["params_share"]) > MUCH]


def _options(analysis: Analysis, settings: Mapping[str, Any], missed: TargetError) -> tuple[str, dict[str, Change]]:
    """Which options would make a missed target reachable, in a sentence, and the first of these changes."""
    settings = {name: value for name, value in settings.items() if name != "target"}
    given = {option: {name: free} for option, (name, free, _) in RELAXED.items() if settings.get(name, free) != free}
    freed = analysis
    measured = LATENCY in missed.missed  # known for this analysis alone
    if not measured and analysis.coupling.delicate.any():
        given[SENSITIVE], freed = {}, _sensitive(analysis)
    for size in range(1, len(given) + 1):
        helping: list[tuple[str, ...]] = []
        for options in itertools.combinations(given, size):
            changes = {name: free for option in options for name, free in given[option].items()}
            if _reached(freed if SENSITIVE in options else analysis, {**settings, **changes}, missed):
                helping.append(options)
        if helping:
            return f" It can be reached {', or '.join(map(' and '.join, helping))}.", _changes(helping[0])
    return "", {}


def _changes(options: Sequence[str]) -> dict[str, Change]:
    """What the command line says for options that are relaxed."""
    return {RELAXED[one][0]: RELAXED[one][2] for one in options if one in RELAXED} | (
        {"allow_sensitive": True} if SENSITIVE in options else {}
    )


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
