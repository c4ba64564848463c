"""What was cut, timed against the original; what is slower is chosen again, or it is said where its time goes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from onnxslim_learn.data import random_inputs
from onnxslim_learn.errors import InputError, PlanError, TargetError
from onnxslim_learn.latency.node_times import per_node
from onnxslim_learn.latency.profile import RuntimeSetting
from onnxslim_learn.latency.rounds import rounds
from onnxslim_learn.readers import AUTO
from onnxslim_learn.registry import MACS
from onnxslim_learn.rewrite.stretches import weight_bytes
from onnxslim_learn.runtime import timing
from onnxslim_learn.runtime.session import CPU
from onnxslim_learn.workflow import latency_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Feeds, Stage
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.runtime.settings import RuntimeSettings
    from onnxslim_learn.runtime.timing import Ratio, Timings
    from onnxslim_learn.workflow.slimmed import Slimmed

COARSER = (8, 16)  # multiples that are tried where widths on the steps of kernels turn out slower than the original
SLOWER = 1.02  # of the original's time: where all of the interval lies above, what was measured was no accident
LARGEST = 4 << 30  # bytes of weights of a model that is timed unasked: it is held in memory beside what is made of it
RUNS = 20  # in which nodes are timed
BRIEFLY = 0.5  # seconds: enough to tell so


def against_original(
    analysis: Analysis, written: Path, asked: RuntimeSettings, stage: Stage, *, kept: bool, steady: bool = False
) -> tuple[Timings, dict[str, Any]]:
    """Time the original against what was written, and the inputs that were used.

    Args:
        analysis: The original.
        written: What was made of it.
        asked: How.
        stage: Called with the name of the stage.
        kept: Whether what was written stays if timing is broken off.
        steady: Whether to measure what targets on latency are met by, processor time where one thread does all the
            work; else wall-clock time.
    """
    feeds = random_inputs.random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    try:
        timings = timing.measure(
            [analysis.graph.source or analysis.graph.data, written],
            [feeds, feeds],
            threads=asked.threads,
            provider=asked.provider,
            seconds=rounds(analysis.coupling, asked.seconds),
            progress=stage("timing"),
            clock=timing.steady_clock(asked.threads, asked.provider) if steady else perf_counter,
        )
    except BaseException as error:
        if kept:
            error.add_note(f"{written} is written and verified; only its latency is missing.")
        raise
    return timings, feeds


def too_large(analysis: Analysis) -> str:
    """Why a model is not timed unless a target asks for it, or an empty string."""
    size = weight_bytes(analysis.coupling)
    told = f"not timed, since {size / 2**30:.1f} GiB of weights would be in memory beside the result's; see profile."
    return told if size > LARGEST else ""


def briefly(analysis: Analysis, asked: RuntimeSettings) -> Callable[[Removal], Ratio]:
    """What times the model that a removal leaves against the original, for a choice between removals."""
    setting, seconds = RuntimeSetting(asked.threads, asked.provider), min(asked.seconds, BRIEFLY)
    return latency_target.of_removal(analysis, latency_target.beside(analysis, setting, seconds=seconds))


def against_like(analysis: Analysis, like: Analysis | None, written: Path, asked: RuntimeSettings) -> dict[str, Any]:
    """How the time of a wider model compares with that of the model it is to be like, or with that of the narrow one.

    Args:
        analysis: The narrow model.
        like: The other, which is left aside where it takes other inputs.
        written: The wider model.
        asked: How they are timed.
    """
    shapes = None if like is None else like.graph.shapes.nominal.inputs
    base = like if like is not None and shapes == analysis.graph.shapes.nominal.inputs else analysis
    setting, seconds = RuntimeSetting(asked.threads, asked.provider), min(asked.seconds, BRIEFLY)
    ratio = latency_target.beside(base, setting, seconds=seconds)(written)
    told = {"base": str(base.graph.source or "the model"), **_told(ratio), "faster": ratio.faster}
    slow = base is like and ratio.faster is not True
    feeds = random_inputs.random_inputs(base.coupling, base.graph.shapes.nominal)
    macs = base.costs[MACS].value((~base.whole.gone).astype(float))
    nodes = by_node(base, written, feeds, asked) if slow else []
    return {**told, "base_macs": int(macs), "unchanged": unchanged(nodes)}


def not_slower(
    make: Callable[[int | str], Slimmed], multiple: int | str, time: Callable[[Removal], Ratio] | None
) -> Slimmed:
    """A slimmed model that is not slower than the original, if one of a few choices of widths is not.

    Only what is surely slower is chosen again, so that the same inputs give the same result on a busy machine, too.

    Args:
        make: Slims to widths that are multiples of a number.
        multiple: What was asked for; only ``auto`` leaves a choice.
        time: How to time what comes out; ``None`` if it must not be.

    Returns:
        The first that is not slower, else the fastest. Where more than one was tried, its plan tells them all.
    """
    slimmed = make(multiple)
    if multiple != AUTO or time is None or not slimmed.removal.gone.any():
        return slimmed
    tried: list[tuple[Slimmed, int | str, Ratio]] = [(slimmed, multiple, time(slimmed.removal))]
    for coarser in COARSER:
        if tried[-1][2].low <= SLOWER:
            break
        try:
            slimmed = make(coarser)
        except (TargetError, PlanError):
            break
        tried.append((slimmed, coarser, time(slimmed.removal)))
    slimmed = min(tried, key=lambda one: one[2].median)[0]
    if len(tried) > 1:
        told = [{"multiple": step, **_told(ratio)} for _, step, ratio in tried]
        provenance = {**slimmed.plan.provenance, "multiple": multiple, "timed": told}
        slimmed.plan = replace(slimmed.plan, provenance=provenance)
    return slimmed


def _told(ratio: Ratio) -> dict[str, float]:
    """A ratio as plain data."""
    known = asdict(ratio)
    return {"ratio": known["median"], "low": known["low"], "high": known["high"]}


def cheaply(analysis: Analysis, asked: RuntimeSettings) -> bool:
    """Whether nodes are timed unasked: where a model has so little to do that it takes no time worth naming."""
    return rounds(analysis.coupling, asked.seconds).most > RUNS


def by_node(analysis: Analysis, written: Path, feeds: Feeds, asked: RuntimeSettings) -> list[dict[str, Any]]:
    """How long every node takes in the original and in what was written, in runs of their own.

    Returns:
        ``name``, ``op_type``, ``before_ms`` and ``after_ms`` (``None`` where only the other model has the node), the
        slowest first; empty where nodes cannot be timed.
    """
    if asked.provider != CPU:
        return []
    models: list[Any] = [analysis.graph.source or analysis.graph.data, written]
    try:
        sides = per_node(models, [feeds, feeds], threads=asked.threads, provider=asked.provider, runs=RUNS)
    except InputError:
        return []
    before, after = ({(node.name, node.op_type): node.ms for node in side} for side in sides)
    slowest = sorted({**before, **after}, key=lambda key: -max(before.get(key, 0.0), after.get(key, 0.0)))
    return [
        {"name": key[0], "op_type": key[1], "before_ms": before.get(key), "after_ms": after.get(key)} for key in slowest
    ]


def unchanged(nodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Where the time of a model goes that is not faster than the original, by the times of nodes (:func:`by_node`).

    Returns:
        Operator -> share of the time that its nodes take that are no faster than before, the largest first.
    """
    total, shares = sum(node["after_ms"] or 0.0 for node in nodes), defaultdict[str, float](float)
    for node in nodes:
        if node["after_ms"] and node["after_ms"] >= latency_target.UNCHANGED * (node["before_ms"] or 0.0):
            shares[node["op_type"]] += node["after_ms"] / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
