"""Cut a model: to targets, exactly, or as a plan says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxslim_learn import settings as declared
from onnxslim_learn.array_types import Stage, Watcher, staged
from onnxslim_learn.bases.principal import in_principal_bases
from onnxslim_learn.commands import advice, models
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import WORSE, ModelResult, Result, place
from onnxslim_learn.errors import InputError, TargetError, with_flags
from onnxslim_learn.keywords import takes
from onnxslim_learn.latency.profile import RuntimeSetting
from onnxslim_learn.plans.realize import check_source
from onnxslim_learn.registry import LATENCY
from onnxslim_learn.report import bounds_met, records
from onnxslim_learn.report.sections import quality
from onnxslim_learn.report.sections import slim as pages
from onnxslim_learn.rows import require
from onnxslim_learn.runtime.timing import compare
from onnxslim_learn.select import planner
from onnxslim_learn.settings import build
from onnxslim_learn.workflow import latency_target, pareto, timed
from onnxslim_learn.workflow import samples as sampling
from onnxslim_learn.workflow import slim as work
from onnxslim_learn.workflow.settings import ApplySettings, LosslessSettings, PlanSettings, SlimSettings

TRAINABLE = 30  # samples, a quarter of which can tell whether training helps

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.runtime.settings import RuntimeSettings
    from onnxslim_learn.select.calibration import Calibration
    from onnxslim_learn.workflow.latency_target import LatencyMeter
    from onnxslim_learn.workflow.slimmed import Slimmed


@command("slim", SlimSettings)
def slim(
    model: Model, plan: Plan | str | Path | None = None, *, progress: Watcher | None = None, settings: SlimSettings
) -> Result:
    """Cut a model to its targets, repair it, verify it, time it.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        plan: What to keep, in place of a target: then this is :func:`apply`.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below; every cost is one, too: ``macs=0.5``. A latency above 1 is in milliseconds.

    Returns:
        The model, a ``ModelResult``; where a cost lists several numbers, what was written for each.

    Raises:
        InputError, TargetError, PlanError, VerifyError: In one sentence; nothing is written then.
    """
    if plan is not None:
        return _planned(model, models.planned(plan), settings, progress)
    target = next(iter(settings.target.values()), {})
    some = bool(target) or isinstance(settings.limits.drop_blocks, int)
    if some == settings.lossless:
        raise InputError("slim: expected ⟨target⟩, such as ⟨target.macs⟩=0.5, or ⟨lossless⟩. Give one of them.")
    if settings.lossless:
        _without_target(settings)
    if len(settings.target) > 1 and settings.result.output is None:
        raise InputError("⟨output⟩: is needed where several models are written. Give a file name.")
    claim(settings, models.present(model))
    sampling.judged_by(settings.quality, settings.samples)  # refuses what does not fit
    sampling.check(settings.samples, repair=settings.repair)
    _trainable(settings)
    machine = models.device(settings.clock.device)
    stage, limits = staged(progress), settings.limits
    stage("analyzing")
    sensitive = limits.allow_sensitive
    analysis, source = models.sampled(model, settings.inputs, settings.samples, sensitive=sensitive, machine=machine)
    if settings.lossless:
        return _lossless((analysis, source), settings, stage)
    meter = None
    try:
        _check(analysis, settings.target.values(), settings)
        if LATENCY in target and machine is None:
            analysis, meter = measured(analysis, settings.runtime, settings.clock.measure_seconds, stage)
        return _met(analysis, source, settings, meter, stage)
    except TargetError as error:
        asked = {**_choice(settings), "target": [{}, *settings.target.values()][-1]}
        said, changes = advice.advise(analysis, asked, error)
        raise TargetError(f"{error.message}{said}", error.missed, changes) from error


def _trainable(settings: SlimSettings | ApplySettings) -> None:
    """Refuse training after a repair where there is none, or where samples or torch are missing, before any work.

    Raises:
        InputError: With what is missing.
    """
    if not settings.distillation.finetune_steps:
        return
    if settings.repair.no_repair:
        raise InputError("⟨finetune_steps⟩: training goes on from a repair. Leave ⟨no_repair⟩ out.")
    if settings.samples.data is None:
        raise InputError("⟨finetune_steps⟩: needs real samples. Give some with ⟨data⟩.")
    require("train", "⟨finetune_steps⟩")


def _finetuning(
    settings: SlimSettings | ApplySettings, analysis: Analysis, known: Calibration | None, stage: Stage
) -> Callable[[Slimmed, Calibration], object] | None:
    """What trains after a repair, if that was asked for and there are samples.

    Raises:
        InputError: If there are too few of them, or the model cannot be trained.
    """
    steps = settings.distillation.finetune_steps
    if not steps or known is None:
        return None
    from onnxslim_learn.bridge.module import bridge
    from onnxslim_learn.learners.finetune import distilled

    if known.count < TRAINABLE or len(known.feeds) == 1:
        some = f"{known.count} samples" + (" in one batch" if len(known.feeds) == 1 else "")
        raise InputError(f"⟨finetune_steps⟩: {some} are too few to tell whether it helps. Give more, such as 256.")
    bridge(analysis)  # refuses operators that torch does not have
    train = partial(distilled, stage=stage)
    return lambda slimmed, calibration: slimmed.finetune(calibration, steps, train)


def _check(analysis: Analysis, targets: Iterable[Mapping[str, Bound]], settings: SlimSettings | PlanSettings) -> None:
    """Refuse targets none of which can be reached, before samples are made and anything is measured.

    Raises:
        TargetError: If they are out of reach, as far as that is known without timing anything.
    """
    choice = {name: value for name, value in _choice(settings).items() if name != "criterion"}
    missed = []
    for target in targets:
        known = {cost: bound for cost, bound in target.items() if cost != LATENCY or analysis.latency is not None}
        try:
            planner.check(analysis, known, **choice)
        except TargetError as error:
            missed.append(error)
        else:
            return
    if missed:
        raise missed[0]


def _choice(settings: SlimSettings | PlanSettings) -> dict[str, Any]:
    """What decides which units stay."""
    limits = settings.limits
    return {
        "criterion": settings.criterion,
        "multiple": limits.multiple,
        "protect": limits.protect,
        "only": limits.only,
        "keep": limits.keep,
        "allow_empty": limits.allow_empty,
        "drop_blocks": limits.drop_blocks,
    }


def measured(
    analysis: Analysis, runtime: RuntimeSettings, seconds: float | None, stage: Stage
) -> tuple[Analysis, LatencyMeter]:
    """What widths are worth on this machine, and how to time what is made of them."""
    return latency_target.prepare(
        analysis,
        RuntimeSetting(runtime.threads, runtime.provider),
        seconds=runtime.seconds,
        measure_seconds=seconds,
        stage=stage,
    )


def _met(
    analysis: Analysis, given: Source | None, settings: SlimSettings, meter: LatencyMeter | None, stage: Stage
) -> Result:
    """Slim to one target, or to several, on the samples that were given or on some that are made up."""
    source = given or sampling.gathered(analysis, settings.samples, stage, repair=settings.repair)
    if unfit := sampling.run_away(analysis, source):
        source = None
    repair = not settings.repair.no_repair and not unfit
    asked: dict[str, Any] = {"repair": repair, "meter": meter, "stage": stage, **_choice(settings)}
    asked["bases"] = settings.bases
    asked["calibration"] = sampling.calibration(
        analysis,
        source,
        settings.samples,
        repair=repair,
        work=settings.work,
        seconds=settings.sensitivity_seconds,
        workers=settings.workers,
        metric=sampling.judged_by(settings.quality, settings.samples),
    )
    asked["finetune"] = _finetuning(settings, analysis, asked["calibration"] if repair else None, stage)
    asked["real"] = sampling.real_inputs(source, settings.samples)
    untimed = settings.result.no_latency or timed.too_large(analysis)
    asked["time"] = None if untimed else timed.briefly(analysis, settings.runtime)
    if len(settings.target) > 1:
        return _several(analysis, settings, asked)
    target = next(iter(settings.target.values()), {})
    with place(settings.result.output, _file(analysis)) as (path, folder):
        slimmed, check = work.slim_to(analysis, target, path, **asked)
        slimmed.doubts = (*slimmed.doubts, *([unfit] if unfit else []))
        if settings.plan_out:
            slimmed.plan.save(settings.plan_out)
        return finished("slim", (slimmed, check), (path, folder), settings, stage)


def _several(analysis: Analysis, settings: SlimSettings, asked: Mapping[str, Any]) -> Result:
    """Slim to several targets, a file for each."""
    assert settings.result.output is not None
    notes, passed = list[str](), list[bool]()

    def tell(slimmed: Slimmed, check: Verification, path: Path) -> Mapping[str, Any]:
        result = finished("slim", (slimmed, check), (path, None), settings, asked["stage"])
        notes.extend(f"{path}: {note}" for note in result.notes)
        passed.append(result.passed)
        return result.report

    place_of_all = Path(settings.result.output)
    rows = pareto.slim_each(analysis, settings.target, place_of_all, settings.plan_out, tell=tell, **asked)
    title = f"slim {models.named(analysis)} {settings.result.output}"
    report = {"model": str(analysis.graph.source or ""), "targets": rows}
    about: dict[str, Any] = {"passed": all(passed), "notes": tuple(notes), "failure": WORSE}
    return Result(title, report, lambda r: pages.targets(r["targets"]), _rows, **about)


def _rows(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A row for each target, without what is reported of each by itself."""
    return [short(row) for row in report["targets"]]


def short(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of one of several models, without what is reported of it by itself."""
    return {key: value for key, value in row.items() if key != "report"}


def _file(analysis: Analysis) -> str:
    """What a model in memory is called where it lies."""
    return analysis.graph.source.name if analysis.graph.source is not None else "model.onnx"


@command("slim", LosslessSettings, lossless=True)
def lossless(model: Model, *, progress: Watcher | None = None, settings: LosslessSettings) -> ModelResult:
    """Cut exactly what changes no output.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Raises:
        InputError, VerifyError: In one sentence; nothing is written then.
    """
    claim(settings, models.present(model))
    sampling.check(settings.samples)
    stage = staged(progress)
    stage("analyzing")
    return _lossless(models.sampled(model, settings.inputs, settings.samples), settings, stage)


def _without_target(settings: SlimSettings) -> None:
    """Refuse options that say how to come to a target, where nothing is to change."""
    usual, taken = declared.given(SlimSettings()), declared.options(LosslessSettings)
    for name, value in declared.given(settings).items():
        if name != "lossless" and name not in taken and value != usual[name]:
            raise InputError(f"⟨{name}⟩: is for a target, but ⟨lossless⟩ cuts what changes nothing. Leave it out.")


def _lossless(
    known: tuple[Analysis, Source | None], settings: SlimSettings | LosslessSettings, stage: Stage
) -> ModelResult:
    """Cut exactly what changes no output of an analysed model, of which there may be samples."""
    analysis, given = known
    source = given or sampling.gathered(analysis, settings.samples, stage)
    slimmed = work.slim_lossless(
        analysis,
        protect=settings.limits.protect,
        allow_empty=settings.limits.allow_empty,
        progress=stage("looking for what changes nothing"),
    )
    stage("cutting and verifying")
    with place(settings.result.output, _file(analysis)) as (path, folder):
        check = slimmed.save(path, real=sampling.real_inputs(source, settings.samples))
        assert check is not None
        if settings.plan_out:
            slimmed.plan.save(settings.plan_out)
        return finished("slim", (slimmed, check), (path, folder), settings, stage)


@takes(PlanSettings)
def plan(
    model: Model,
    target: Mapping[str, float] | None = None,
    *,
    progress: Watcher | None = None,
    settings: PlanSettings,
) -> Plan:
    """Choose what to keep so that every target is met from below, as :func:`slim` does.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        target: Cost -> bound; at most 1 is a fraction, more is absolute, a latency is in milliseconds then.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below; every cost is one, too: ``macs=0.5``.

    Raises:
        InputError: If an argument does not fit.
        TargetError: If a target cannot be met.
    """
    sampling.check(settings.samples, repair=settings.repair)
    machine, stage = models.device(settings.device), staged(progress)
    stage("analyzing")
    wishes = {**settings.target, **(build(PlanSettings, {"target": target}).target if target else {})}
    sensitive = settings.limits.allow_sensitive
    analysis, source = models.sampled(model, settings.inputs, settings.samples, sensitive=sensitive, machine=machine)
    _check(analysis, [wishes], settings)
    known = sampling.calibration(
        analysis,
        source or sampling.gathered(analysis, settings.samples, stage, repair=settings.repair),
        settings.samples,
        repair=not settings.repair.no_repair,
        work=settings.work,
        seconds=settings.sensitivity_seconds,
        workers=settings.workers,
    )
    analysis, known = in_principal_bases(analysis, known, settings.bases, settings.criterion)
    return planner.plan(analysis, wishes, calibration=known, progress=stage("choosing"), **_choice(settings))


@command("apply", ApplySettings)
def apply(
    model: Model, plan: Plan | str | Path, *, progress: Watcher | None = None, settings: ApplySettings
) -> ModelResult:
    """Carry out a plan: cut, repair, verify, time.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        plan: What to keep, or the file that says it.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Raises:
        InputError, PlanError, VerifyError: In one sentence; nothing is written then.
    """
    return _applied(model, plan, settings, progress)


def _applied(model: Model, plan: Plan | str | Path, settings: ApplySettings, progress: Watcher | None) -> ModelResult:
    """Carry out a plan, as was asked for."""
    claim(settings, models.present(model), plan)
    metric = sampling.judged_by(settings.quality, settings.samples)
    sampling.check(settings.samples, repair=settings.repair)
    _trainable(settings)
    chosen, stage = models.planned(plan), staged(progress)
    stage("analyzing")
    analysis, given = models.analysed_for(model, chosen, settings.inputs, settings.samples)
    doubts = check_source(analysis, chosen, other=settings.other_model)
    stage("cutting and verifying")
    slimmed = work.slim(analysis, chosen)
    slimmed.doubts = (*slimmed.doubts, *doubts, *_untrained(chosen, settings))
    source = given or sampling.gathered(analysis, settings.samples, stage, repair=settings.repair)
    repair = not settings.repair.no_repair
    known = sampling.calibration(analysis, source, settings.samples, repair=repair, metric=metric)
    if known is not None and repair:
        train = _finetuning(settings, analysis, known, stage)
        slimmed.repair(known, progress=stage("repairing"))
        if train is not None and slimmed.removal.gone.any():
            train(slimmed, known)
    with place(settings.result.output, _file(analysis)) as (path, folder):
        check = slimmed.save(path, real=sampling.real_inputs(source, settings.samples))
        assert check is not None
        if known is not None:
            slimmed.judge(known, path)
        return finished("apply", (slimmed, check), (path, folder), settings, stage)


def _untrained(chosen: Plan, settings: ApplySettings) -> tuple[str, ...]:
    """What is to be told where the weights that a plan came with were trained, and these are not."""
    told = (chosen.provenance.get("repair") or {}).get("finetune") or {}
    if settings.distillation.finetune_steps or not told.get("kept"):
        return ()
    steps = told.get("steps")
    return (
        with_flags(
            f"The weights that came with this plan were trained for {steps} steps after repair, and these are not. For"
            " the same, give ⟨finetune_steps⟩."
        ),
    )


def _planned(model: Model, plan: Plan, settings: SlimSettings, progress: Watcher | None) -> ModelResult:
    """Slim as a plan says."""
    if settings.target or settings.lossless:
        raise InputError("slim: a plan says how far to go, and so does ⟨target⟩ or ⟨lossless⟩. Leave one of them out.")
    same = {"inputs", "result", "repair", "distillation", "quality", "samples", "runtime", "report"}
    asked = replace(ApplySettings(), **{name: getattr(settings, name) for name in same})
    return _applied(model, plan, asked, progress)


# --- the end of every cut ---------------------------------------------------------------------------------------------


def finished(
    command: str,
    outcome: tuple[Slimmed, Verification],
    written: tuple[Path, TemporaryDirectory[str] | None],
    settings: Any,
    stage: Stage,
    *,
    told: Mapping[str, str] = MappingProxyType({}),
) -> ModelResult:
    """Time what was written against the original, and report.

    Args:
        command: What was asked for.
        outcome: What was cut, and how it was verified.
        written: Where it lies, and the folder that holds it if it is in memory.
        settings: The command's; their parts ``result``, ``runtime`` and ``report`` are looked at.
        stage: Called with the name of the stage.
        told: What else is reported.
    """
    (slimmed, check), (path, folder) = outcome, written
    analysis, timings, feeds = slimmed.analysis, None, dict[str, Any]()
    on_time = _on_time(slimmed.plan)
    needed = on_time and bounds_met.on_this_machine(analysis)
    large = "" if needed or settings.result.no_latency else timed.too_large(analysis)
    if (needed or not (settings.result.no_latency or large)) and LATENCY not in slimmed.plan.provenance:
        timings, feeds = timed.against_original(
            analysis, path, settings.runtime, stage, kept=folder is None, steady=on_time
        )
    slow = timings is not None and slimmed.removal.gone.any() and compare(timings, 1).faster is not True
    cheap = timings is not None and timed.cheaply(analysis, settings.runtime)
    nodes = timed.by_node(analysis, path, feeds, settings.runtime) if slow or cheap else []
    report = records.outcome(slimmed, path, check, timings, feeds, nodes=nodes)
    if slow and _less(report):
        report["latency"]["unchanged"] = timed.unchanged(nodes)
    report |= {"output": str(path) if folder is None else None, **told}
    notes = () if slimmed.trained else quality.notes(report["quality"])  # labels may lead far from the original
    if not slimmed.removal.gone.any() and "training" not in slimmed.plan.provenance:
        why = "had to be cut" if slimmed.folded is None else "can go without a change"
        notes = (f"nothing {why}; the result is a copy.",)
    least = settings.quality.min_quality if hasattr(settings, "quality") else None
    if (fault := quality.fault(report["quality"], least)) is not None:
        notes = (*notes, fault)
    missed = pages.missed(report["verdict"]["met"])
    notes = (*slimmed.doubts, *notes, *missed, *([large] if large else []))
    title = " ".join([command, models.named(analysis), *([str(path)] if folder is None else [])])
    about: dict[str, Any] = {"plan": slimmed.plan, "verification": check, "place": folder}
    about |= {"notes": notes, "passed": not missed and fault is None, "failure": 1 if missed else WORSE}
    return ModelResult(title, report, pages.outcome, _groups, file=path, analysis=analysis, **about)


def _on_time(plan: Plan) -> bool:
    """Whether a plan is to meet a target on latency."""
    return LATENCY in plan.provenance.get("target", ())


def _less(report: Mapping[str, Any]) -> bool:
    """Whether a model has less work to do than it had."""
    return bool(report["after"]["macs"] < report["before"]["macs"])


def _groups(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups: list[Mapping[str, Any]] = report["groups"]
    return groups
