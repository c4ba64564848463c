"""Learn what can go while training, cut it, fine-tune, write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn import settings as declared
from onnxslim_learn.array_types import Stage, Watcher, staged
from onnxslim_learn.commands import models, slim, sparsify
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import Result, place
from onnxslim_learn.data.open import check as openable
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners import table
from onnxslim_learn.learners.settings import LearnSettings, compares_features
from onnxslim_learn.registry import LATENCY, LEARNERS
from onnxslim_learn.report.sections import slim as pages
from onnxslim_learn.rows import imported, require
from onnxslim_learn.workflow import samples as sampling

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.costs.devices import Device
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.distributed import World
    from onnxslim_learn.train.trainer import Tell
    from onnxslim_learn.workflow.slimmed import Slimmed
    from onnxslim_learn.workflow.sparsify import Sparsified, Stored

    Place = tuple[Path, TemporaryDirectory[str] | None]


@command("learn", table.KEYWORDS)
def learn(model: Model, *, progress: Watcher | None = None, settings: tuple[LearnSettings, Any]) -> Result | None:
    """Learn a structure, or which weights are zero, and write the trained model.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        progress: Called with the name of a stage, the share of it that is done, and numbers of steps.
        settings: Its keywords, below; every cost is one, too: ``macs=0.5``. Others belong to single learners.

    Returns:
        The model; where several strengths are tried, what was written for each; ``None`` in a process that does not
        lead.

    Raises:
        SlimError: In one sentence; nothing is written then.
    """
    shared, wanted = settings
    require("train", "learn")
    claim([shared, wanted], models.present(model), models.present(shared.training.teacher))
    machine = _checked(shared, wanted)
    from onnxslim_learn.learners.run import run

    stage, row = staged(progress), LEARNERS.row(shared.learner)
    require(row.extra, f"{LEARNERS.parameter} {row.name}")

    def analysis(world: World) -> Analysis:
        stage("analyzing")
        sensitive = bool(declared.given(wanted).get("allow_sensitive"))
        samples = replace(shared.samples, data=None) if isinstance(shared.samples.data, Iterator) else shared.samples
        analysed, _ = models.sampled(model, shared.inputs, samples, sensitive=sensitive, machine=machine)
        if not _on_time(wanted) or machine is not None:
            return analysed
        if world.size > 1:
            raise InputError(
                "⟨target.latency⟩: several processes would measure differently. Give ⟨device⟩, see calibrate."
            )
        return slim.measured(analysed, shared.runtime, shared.clock.measure_seconds, stage)[0]

    with place(shared.result.output, "model.onnx") as (path, folder):
        outcome = run(row, analysis, (shared, wanted), path, stage, tell=_alone(shared, wanted))
        if outcome is None:
            return None
        if isinstance(outcome, list):
            return _swept(f"learn {models.named(model)} {path}", models.named(model), outcome, shared)
        result: Result = imported(row.report)(outcome, (path, folder), (shared, wanted), stage)
        return result


def _swept(title: str, model: str, rows: Sequence[dict[str, Any]], shared: LearnSettings) -> Result:
    """Report of several strengths: side by side, then each by itself."""
    report = {"model": model, **_learner(shared), "strengths": rows}
    return Result(title, report, lambda told: pages.strengths(told["strengths"]), _rows)


def _rows(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A row for each strength, without what is reported of each by itself."""
    return [slim.short(row) for row in report["strengths"]]


def _alone(shared: LearnSettings, wanted: Any) -> Tell:
    """What tells of one of several models as if it had been asked for alone; not timed where others run beside it."""
    samples = replace(shared.samples, data=None)  # they may be too many, or of a kind, to go elsewhere
    result = replace(
        shared.result, no_latency=shared.result.no_latency or declared.given(wanted).get("workers") is not None
    )
    return partial(_told, replace(shared, samples=samples, result=result))


def _told(shared: LearnSettings, outcome: tuple[Slimmed, Verification], path: Path, stage: Stage) -> Mapping[str, Any]:
    """Report of one of several models."""
    return slim.finished("learn", outcome, (path, None), shared, stage, told=_learner(shared)).report


def _checked(shared: LearnSettings, wanted: Any) -> Device | None:
    """Refuse what cannot be asked for, before any work; returns the machine that was given.

    Raises:
        InputError: With the parameter at fault.
    """
    asked = declared.given(wanted)
    for steps, epochs in (("steps", "epochs"), ("finetune_steps", "finetune_epochs")):
        if asked.get(steps) is not None and asked.get(epochs) is not None:
            raise InputError(
                f"⟨{epochs}⟩ {asked[epochs]:g}: ⟨{steps}⟩ {asked[steps]} says it, too. Leave one of them out."
            )
    if hasattr(wanted, "check"):
        wanted.check(shared)
    if shared.training.teacher is not None and compares_features(shared.training.loss):
        raise InputError("⟨teacher⟩: what is inside another model is not compared. Use ⟨loss⟩ distill.")
    sampling.check(shared.samples)
    openable(shared.training.val_data, shared.samples.reading)
    machine = models.device(shared.clock.device)
    if machine is None and _on_time(wanted) and declared.given(wanted).get("cycles", 1) > 1:
        raise InputError("⟨cycles⟩: with ⟨target.latency⟩, the machine must be given. Use ⟨device⟩, see calibrate.")
    return machine


def _on_time(wanted: Any) -> bool:
    """Whether latency decides about what is learnt."""
    given = declared.given(wanted)
    return given.get("cost") == LATENCY or LATENCY in (given.get("target") or {})


def cut(
    outcome: tuple[Slimmed, Verification], written: Place, asked: tuple[LearnSettings, Any], stage: Stage
) -> Result:
    """Report of a model that was cut and trained."""
    if plan_out := declared.given(asked[1]).get("plan_out"):
        outcome[0].plan.save(plan_out)
    return slim.finished("learn", outcome, written, asked[0], stage, told=_learner(asked[0]))


def zeroed(
    outcome: tuple[Sparsified, Stored], written: Place, asked: tuple[LearnSettings, Any], stage: Stage
) -> Result:
    """Report of a model with zeros that were learnt."""
    return sparsify.finished("learn", outcome, written, asked[0], stage, told=_learner(asked[0]))


def _learner(shared: LearnSettings) -> dict[str, str]:
    """What reports say of the learner."""
    return {"learner": LEARNERS.told(shared.learner)}
