"""Zero weights in one go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxslim_learn.array_types import Stage, Watcher, staged
from onnxslim_learn.commands import models
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import ModelResult, place
from onnxslim_learn.report.sections import sparsity
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import samples as sampling
from onnxslim_learn.workflow import sparsify as work
from onnxslim_learn.workflow.options import RepairSettings
from onnxslim_learn.workflow.settings import SparsifySettings
from onnxslim_learn.workflow.timed import against_original, by_node, cheaply

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.workflow.sparsify import Sparsified, Stored


@command("sparsify", SparsifySettings)
def sparsify(model: Model, *, progress: Watcher | None = None, settings: SparsifySettings) -> ModelResult:
    """Zero weights in one go, refit the others where the method does, and say what that buys.

    Args:
        model: Path of an ``.onnx`` file, a model in memory, or its analysis.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Raises:
        InputError, VerifyError: In one sentence; nothing is written then.
    """
    claim(settings, models.present(model))
    sampling.check(settings.samples)
    settings.zeros.target()
    stage = staged(progress)
    stage("analyzing")
    analysis, given = models.sampled(model, settings.inputs, settings.samples)
    source = given or sampling.gathered(analysis, settings.samples, stage, repair=RepairSettings())
    assert source is not None
    known = Calibration(analysis.coupling, source, workers=sampling.reachable(settings.workers))
    sparsified = work.sparsify(analysis, settings.zeros, known, stage=stage)
    stage("verifying")
    name = analysis.graph.source.name if analysis.graph.source is not None else "model.onnx"
    with place(settings.result.output, name) as (path, folder):
        stored = sparsified.save(path, sparse=settings.sparse_initializers, lossless=settings.lossless)
        return finished("sparsify", (sparsified, stored), (path, folder), settings, stage)


def finished(
    command: str,
    outcome: tuple[Sparsified, Stored],
    written: tuple[Path, TemporaryDirectory[str] | None],
    settings: Any,
    stage: Stage,
    *,
    told: Mapping[str, str] = MappingProxyType({}),
) -> ModelResult:
    """Time both models, and report what zeros buy; see :func:`onnxslim_learn.commands.slim.finished`."""
    (sparsified, stored), (path, folder) = outcome, written
    analysis, timings, feeds = sparsified.analysis, None, dict[str, Any]()
    if not settings.result.no_latency:
        timings, feeds = against_original(analysis, path, settings.runtime, stage, kept=folder is None)
    cheap = timings is not None and cheaply(analysis, settings.runtime)
    nodes = by_node(analysis, path, feeds, settings.runtime) if cheap else []
    report = sparsity.outcome(sparsified, path, stored, timings, feeds, nodes=nodes)
    report |= {"output": str(path) if folder is None else None, **told}
    title = " ".join([command, models.named(analysis), *([str(path)] if folder is None else [])])
    notes = sparsified.doubts if sparsified.data["inputs"] == "given" else ()
    about: dict[str, Any] = {"file": path, "analysis": analysis, "place": folder, "notes": notes}
    return ModelResult(title, report, sparsity.blocks, lambda told: told["layers"], **about)
