"""Widen a model to a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.array_types import Watcher, staged
from onnxslim_learn.commands import models
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.results import ModelResult, claim, place
from onnxslim_learn.errors import InputError
from onnxslim_learn.latency.profile import RuntimeSetting
from onnxslim_learn.registry import LATENCY
from onnxslim_learn.report import records
from onnxslim_learn.report.sections import training
from onnxslim_learn.workflow import expand as work
from onnxslim_learn.workflow import latency_target, timed
from onnxslim_learn.workflow.settings import ExpandSettings

if TYPE_CHECKING:
    from onnxslim_learn.commands.models import Model


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
        widened = work.expand(analysis, asked, path)
        report = records.widened(analysis, settings.target, str(path) if folder is None else None, widened)
        if not settings.no_latency:
            stage("timing")
            report["speed"] = timed.against_like(analysis, like, path, runtime)
        title = " ".join(["expand", models.named(model), *([str(path)] if folder is None else [])])
        return ModelResult(
            title,
            report,
            training.widened,
            lambda told: told["groups"],
            file=path,
            analysis=analysis,
            verification=widened.verification,
            place=folder,
        )
