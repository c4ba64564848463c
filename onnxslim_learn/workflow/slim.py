"""The work flow in Python: analyze, plan, slim, apply, verify."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.analysis import Analysis, analyze
from onnxslim_learn.array_types import Stage, unannounced
from onnxslim_learn.bases.principal import PRINCIPAL, idle, in_principal_bases
from onnxslim_learn.bases.rotate import as_planned
from onnxslim_learn.costs.targets import amount, shown
from onnxslim_learn.coupling import explain
from onnxslim_learn.coupling.groups import Group
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.graph.load import check_file
from onnxslim_learn.lossless_cuts import find
from onnxslim_learn.plans.realize import describe, realize
from onnxslim_learn.registry import COSTS, FILE, LATENCY
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite import verify as checking
from onnxslim_learn.rewrite.slim import slim as rewrite
from onnxslim_learn.select.bounds import bounds, named
from onnxslim_learn.select.planner import plan
from onnxslim_learn.workflow import latency_target
from onnxslim_learn.workflow.slimmed import Slimmed
from onnxslim_learn.workflow.timed import not_slower

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

    from onnxslim_learn.lossless_cuts.bias_absorption import Constant
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.runtime.timing import Ratio
    from onnxslim_learn.select.bounds import Target
    from onnxslim_learn.select.calibration import Calibration

__all__ = [
    "Analysis",
    "Group",
    "Removal",
    "Slimmed",
    "analyze",
    "describe",
    "example_inputs",
    "plan",
    "realize",
    "slim",
    "slim_lossless",
    "slim_to",
    "verify",
    "why",
]

TRIES = 12  # a file's overhead changes by a few bytes with its sizes, and one unit may be more than that


def slim(analysis: Analysis, chosen: Plan) -> Slimmed:
    """Carry out a plan.

    Raises:
        PlanError: If the plan does not fit the model.
    """
    analysis = as_planned(analysis, chosen)
    cut = realize(analysis, chosen)
    if "lossless" in chosen.provenance:
        return _unchanged(analysis, chosen, cut, find.contributed(analysis, cut))
    return Slimmed(analysis, chosen, cut, rewrite(cut))


def slim_lossless(
    analysis: Analysis,
    *,
    protect: Sequence[str] = (),
    allow_empty: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Slimmed:
    """Cut exactly what changes no output (:mod:`onnxslim_learn.lossless_cuts.find`).

    Raises:
        InputError: See :func:`onnxslim_learn.lossless_cuts.find.find`.
    """
    cut, fed, left = find.find(analysis, protect=protect, allow_empty=allow_empty, progress=progress)
    chosen = describe(analysis, cut, {"protect": list(protect), "allow_empty": allow_empty, "lossless": {"left": left}})
    return _unchanged(analysis, chosen, cut, fed)


def _unchanged(analysis: Analysis, chosen: Plan, cut: Removal, fed: Sequence[Constant]) -> Slimmed:
    model, folded = find.carry_out(cut, fed, chosen.provenance["lossless"].get("left"))
    return Slimmed(analysis, chosen, cut, model, folded=folded)


def verify(
    original: Analysis, slimmed: str | Path, chosen: Plan, real: Sequence[Mapping[str, Any]] = ()
) -> checking.Verification:
    """Check that a slimmed file computes what the original computes under the plan's mask.

    Weights that the plan says were repaired are compared as they were cut; everything else must be as in the file.

    Raises:
        PlanError: If the plan does not fit the original.
        InputError: If the slimmed file cannot be run on the original's inputs.
    """
    check_file(Path(slimmed), "the slimmed model")
    original = as_planned(original, chosen)
    cut = realize(original, chosen)
    if "lossless" in chosen.provenance:
        return checking.verify(original.whole, Path(slimmed), real)
    repair = chosen.provenance.get("repair") or {}
    with save.with_initializers(Path(slimmed), repair.get("weights", ()), rewrite(cut)) as plain:
        return checking.verify(cut, plain, real)


def slim_to(  # noqa: PLR0913  everything a user may say about a cut
    analysis: Analysis,
    target: Target,
    path: str | Path,
    *,
    stage: Stage = unannounced,
    real: Sequence[Mapping[str, Any]] = (),
    calibration: Calibration | None = None,
    repair: bool = True,
    finetune: Callable[[Slimmed, Calibration], object] | None = None,
    bases: str = PRINCIPAL,
    meter: latency_target.LatencyMeter | None = None,
    time: Callable[[Removal], Ratio] | None = None,
    **settings: Any,
) -> tuple[Slimmed, checking.Verification]:
    """Plan, slim, repair, verify and write in one go; a bound on file bytes is met by the file itself.

    Args:
        analysis: The model.
        target: See :func:`plan`.
        path: Where to write.
        stage: Called with the name of each stage; returns what to call with the share done.
        real: Real inputs to verify on, beside random ones.
        calibration: Samples to choose by and to repair on.
        repair: Whether to repair, where there are samples.
        finetune: Trains what was repaired: see :meth:`Slimmed.finetune`.
        bases: Whether axes that meet linear maps alone are rotated to principal directions first, where there are
            samples: ``principal`` or ``none``.
        meter: How to time what comes out, where there is a bound on latency: see
            :func:`onnxslim_learn.workflow.latency_target.prepare`. Without it, that bound holds for the estimate.
        time: How to time a removal where there is none: what is slower than the original is chosen again
            (:func:`onnxslim_learn.workflow.timed.not_slower`).
        **settings: See :func:`plan`.

    Raises:
        InputError, TargetError, PlanError, VerifyError: See :func:`plan` and :meth:`Slimmed.save`; nothing is written.
    """
    bounds(analysis, target)  # refuses what is no bound
    limit = _file_limit(analysis, target := named(analysis, target))

    def choose(analysis: Analysis, calibration: Calibration | None) -> Slimmed:
        def make(analysis_now: Analysis, bounds: Mapping[str, float | str], **changed: Any) -> Slimmed:
            return _fitting(analysis_now, bounds, limit, stage, calibration=calibration, **{**settings, **changed})

        if meter is not None and LATENCY in target:
            return latency_target.meet(analysis, target, meter, make)
        timer = None if LATENCY in target else time
        return not_slower(lambda step: make(analysis, target, multiple=step), settings.get("multiple", 1), timer)

    if calibration is not None and bases == PRINCIPAL:
        stage("rotating")
    plain, criterion = (analysis, calibration), settings.get("criterion")
    analysis, calibration = in_principal_bases(*plain, bases, criterion)
    slimmed = choose(analysis, calibration)
    if idle(plain[0], analysis, slimmed.plan.groups):
        analysis, calibration = in_principal_bases(*plain, bases, criterion, streams=False)
        slimmed = choose(analysis, calibration)
    if plain[1] is not None:
        plain[1].let_go()
    _repair(slimmed, calibration if repair else None, finetune, stage)
    return slimmed, _carried_out(slimmed, path, calibration, real, stage)


def _repair(
    slimmed: Slimmed,
    calibration: Calibration | None,
    finetune: Callable[[Slimmed, Calibration], object] | None,
    stage: Stage,
) -> None:
    """Refit the weights that stay where there are samples, and train them after that, if it was asked for."""
    if calibration is None or not slimmed.removal.gone.any():
        return
    slimmed.repair(calibration, progress=stage("repairing"))
    if finetune is not None:
        finetune(slimmed, calibration)


def _carried_out(
    slimmed: Slimmed,
    path: str | Path,
    calibration: Calibration | None,
    real: Sequence[Mapping[str, Any]],
    stage: Stage,
) -> checking.Verification:
    """Verify what was chosen, write it and, where there are samples, judge it."""
    stage("cutting and verifying")
    check = slimmed.save(path, real=real)
    assert check is not None
    if calibration is not None:
        stage("judging")
        slimmed.judge(calibration, path)
    return check


def _fitting(
    analysis: Analysis,
    target: Mapping[str, float | str],
    limit: float | None,
    stage: Stage,
    **settings: Any,
) -> Slimmed:
    """Plan until the file, too, is small enough."""
    slack, tight = 0.0, dict(target)
    for _ in range(TRIES):
        slimmed = slim(analysis, plan(analysis, tight, progress=stage("choosing"), **settings))
        excess = 0.0 if limit is None else slimmed.file_bytes() - limit
        if excess <= 0:
            provenance = {**slimmed.plan.provenance, "target": dict(target)}
            slimmed.plan = replace(slimmed.plan, provenance=provenance)
            return slimmed
        slack = 2 * slack + excess
        assert limit is not None
        tight[FILE] = max(limit - slack, 2.0)
    raise TargetError(f"⟨target.{FILE}⟩={shown(target[FILE])}: cannot be reached by the whole file. Raise it.")


def _file_limit(analysis: Analysis, target: Mapping[str, float | str]) -> float | None:
    """Largest file allowed, in bytes."""
    if FILE not in target or analysis.graph.source is None:
        return None
    return amount(COSTS[FILE], target[FILE], save.size_on_disk(analysis.graph.source))


def why(analysis: Analysis, question: str) -> list[explain.Step]:
    """Explain by a path why a group (or tensor axis) cannot go, or why ``axis,axis`` are coupled.

    Raises:
        InputError: If the question names nothing.
    """
    return explain.why(analysis.coupling, analysis.groups, question)


def example_inputs(
    model: str | Path | onnx.ModelProto | Analysis, inputs: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Any]:
    """Random inputs that a model accepts, at its nominal sizes; of one that is analysed already, at those it was.

    Raises:
        InputError: If the model cannot be used, or was analysed at other sizes than these.
    """
    if isinstance(model, Analysis) and inputs:
        raise InputError("⟨input⟩: the model is analysed already. Give it to analyze.")
    analysis = model if isinstance(model, Analysis) else analyze(model, inputs=inputs)
    return random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
