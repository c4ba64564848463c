"""Widen a model to a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from onnxslim_learn.array_types import Stage, Watcher, staged
from onnxslim_learn.commands import models
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import ModelResult, place
from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.latency.profile import RuntimeSetting
from onnxslim_learn.readers import AUTO
from onnxslim_learn.registry import LATENCY, MACS
from onnxslim_learn.report import records
from onnxslim_learn.report.sections import training
from onnxslim_learn.workflow import expand as work
from onnxslim_learn.workflow import latency_target, timed
from onnxslim_learn.workflow.settings import ExpandSettings

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.runtime.settings import RuntimeSettings


@command("expand", ExpandSettings)
def expand(model: Model, *, progress: Watcher | None = None, settings: ExpandSettings) -> ModelResult:
    """Widen a model to a budget without changing what it computes.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below; every cost is one, too: ``macs=1.0``. A latency above 1 is in milliseconds.

    Raises:
        InputError, TargetError, VerifyError: In one sentence; nothing is written then.
    """
    if not settings.target:
        raise InputError("expand: ⟨target⟩ is needed. For example ⟨target.macs⟩=1.0.")
    claim(settings, models.present(model), models.present(settings.like))
    machine = models.device(settings.device)
    stage, runtime = staged(progress), settings.runtime
    stage("analyzing")
    measured = LATENCY in settings.target and machine is None
    if measured:
        stage("measuring this machine")
        machine = latency_target.this_machine(runtime.threads, runtime.provider)
    analysis = models.understood(model, settings.inputs, machine=machine)
    like = None
    if settings.like is not None:
        like = models.understood(settings.like, settings.inputs, machine=machine)
    setting = RuntimeSetting(runtime.threads, runtime.provider)
    watch = latency_target.stopwatch(analysis, setting, seconds=runtime.seconds) if measured else None
    stage("widening and verifying")
    how = (settings.multiple, settings.protect, settings.fresh, settings.seed)
    asked = work.Widening(settings.target, like, *how, watch)
    name = analysis.graph.source.name if analysis.graph.source is not None else "model.onnx"
    with place(settings.output, name) as (path, folder):
        large = "" if settings.no_latency else timed.too_large(analysis)
        how_timed = None if settings.no_latency or large else runtime
        widened, speed, tried = _timed(analysis, asked, path, how_timed, stage)
        told = str(path) if folder is None else None
        report = records.widened(analysis, settings.target, (path, told), widened)
        report |= {"speed": speed, "timed": tried}
        title = " ".join(["expand", models.named(model), *([str(path)] if folder is None else [])])
        return ModelResult(
            title,
            report,
            training.widened,
            lambda told: told["groups"],
            file=path,
            analysis=analysis,
            verification=widened.verification,
            notes=(large,) if large else (),
            place=folder,
        )


def _timed(
    analysis: Analysis, asked: work.Widening, path: Path, runtime: RuntimeSettings | None, stage: Stage
) -> tuple[work.Widened, dict[str, Any] | None, list[dict[str, Any]]]:
    """Widen and time; at coarser widths where it is surely slower than a model that has as much to do.

    Returns:
        What was written, its time, and every multiple that was tried where there were several.
    """
    widened = work.expand(analysis, asked, path)
    if runtime is None:
        return widened, None, []
    stage("timing")
    speed = timed.against_like(analysis, asked.like, path, runtime)
    tried = [(asked.multiple, speed)]
    for coarser in timed.COARSER if asked.multiple == AUTO and speed["base_macs"] >= widened.after[MACS] else ():
        if tried[-1][1]["low"] <= timed.SLOWER:
            break
        with TemporaryDirectory() as folder:
            trial = Path(folder, path.name)
            try:
                work.expand(analysis, replace(asked, multiple=coarser), trial)
            except TargetError:
                break
            tried.append((coarser, timed.against_like(analysis, asked.like, trial, runtime)))
    multiple, speed = min(tried, key=lambda one: one[1]["ratio"])
    if multiple != asked.multiple:
        widened = work.expand(analysis, replace(asked, multiple=multiple), path)
    told = [{"multiple": step, **{key: one[key] for key in ("ratio", "low", "high")}} for step, one in tried]
    return widened, speed, told if len(told) > 1 else []
