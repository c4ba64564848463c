"""Samples to work on: those that the user gives, or made-up ones, and what they serve for."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Progress, Stage
from onnxslim_learn.costs.polynomial import work
from onnxslim_learn.coupling import roles
from onnxslim_learn.data.class_balance import confident
from onnxslim_learn.data.open import check as openable
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.errors import InputError, with_flags
from onnxslim_learn.quality.metric import metric as metric_of
from onnxslim_learn.registry import SAMPLERS, STATISTICS
from onnxslim_learn.rows import require
from onnxslim_learn.runtime.session import open_session
from onnxslim_learn.select.calibration import Calibration

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.data.options import DataSettings, SampleSettings
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.graph.load import Graph
    from onnxslim_learn.quality.metric import Metric
    from onnxslim_learn.workflow.options import QualitySettings, RepairSettings

logger = logging.getLogger(__name__)

WORK = 200_000_000_000  # multiply-accumulates of made-up samples: some ten seconds on two cores


FEWEST, MOST = 32, 512
UNMATCHED = "Made-up inputs are not fitted to the batch statistics that the model keeps: ⟨match_statistics⟩ does that."
VERIFIED = 8  # samples: verification runs both models without optimisations


def check(asked: SampleSettings, *, repair: RepairSettings | None = None) -> None:
    """Refuse samples that surely cannot be had as was asked for, before any work.

    Raises:
        InputError: With the parameter at fault.
    """
    asked.reading.check(asked.data, matching=repair is not None and repair.match_statistics)
    openable(asked.data, asked.reading)


def given(analysis: Analysis, asked: SampleSettings) -> Source | None:
    """The samples that were given, if there are some; see :func:`gathered`."""
    return None if asked.data is None else open_source(asked.data, analysis.graph, asked.reading)


def gathered(
    analysis: Analysis, asked: SampleSettings, stage: Stage, *, repair: RepairSettings | None = None
) -> Source | None:
    """Where samples come from: what was given, else made up to repair on, or in the range that was given.

    Args:
        analysis: The model.
        asked: What was given, and how it is read.
        stage: Called with the name of each stage.
        repair: What samples are made up for; ``None`` where nothing is repaired.

    Raises:
        InputError: If what was given is no source of samples, or does not fit the model.
    """
    if (source := given(analysis, asked)) is not None:
        return source
    repairs, matching = repair is not None and not repair.no_repair, repair is not None and repair.match_statistics
    if repairs:  # as many as take little time
        reading = replace(asked.reading, samples=asked.reading.samples or affordable(analysis.coupling))
        if matching:
            return matched(analysis.coupling, reading, stage("matching statistics"))
        source = confident(analysis.coupling, reading, stage("making samples up"))
        return replace(source, doubts=(with_flags(UNMATCHED),)) if keeps_statistics(analysis.graph) else source
    return synthetic(analysis.coupling, asked.reading) if asked.reading.input_range else None


def keeps_statistics(graph: Graph) -> bool:
    """Whether some batch normalisation inside a model has stored what its layers saw."""
    reads = {str(node.inputs[0].name) for node in graph.nodes if _stored(node) and node.inputs[0] is not None}
    return any(str(value.name) in reads for node in graph.nodes for value in node.outputs)


def _stored(node: ir.Node) -> bool:
    norm = roles.normalisation(node)
    return norm is not None and norm.mean is not None


def run_away(analysis: Analysis, source: Source | None) -> str:
    """Why nothing can be learnt from made-up samples, or an empty string: the model's numbers are none on them."""
    if source is None or not source.synthetic:
        return ""
    session = open_session(analysis.graph.source or analysis.graph.data, optimize=False)
    batch = next(iter(source.batches(1)))
    try:
        outputs = [np.asarray(array) for array in session.run(None, batch.inputs)]
    except Exception as error:  # of onnxruntime's: what needs these samples says what is wrong
        logger.debug("made-up samples cannot be run: %s", error)
        return ""
    if all(array.dtype.kind != "f" or np.isfinite(array).all() for array in outputs):
        return ""
    return with_flags(
        "Nothing was repaired: on made-up inputs the model's numbers grow beyond what it can hold. Give real ones with"
        " ⟨data⟩."
    )


def calibration(
    analysis: Analysis,
    source: Source | None,
    asked: SampleSettings,
    *,
    repair: bool,
    work: float | None = None,
    seconds: float | None = None,
    metric: Metric | None = None,
    workers: int | str | None = None,
) -> Calibration | None:
    """Samples to choose and repair by; what a width is worth is measured on real ones, or where that is asked for."""
    if source is None or (not repair and asked.data is None):
        return None
    if asked.data is None and work is None and seconds is None:
        work = 0.0
    place = reachable(workers)
    known = Calibration(analysis.coupling, source, work=work, seconds=seconds, metric=metric, workers=place)
    return topped_up(known, asked.reading) if repair else known


def reachable(workers: int | str | None) -> int | str | None:
    """Where trials run.

    Raises:
        InputError: If that is a cluster, and the extra for one is not installed.
    """
    if isinstance(workers, str):
        require("cluster", "⟨workers⟩")
    return workers


def topped_up(known: Calibration, reading: DataSettings) -> Calibration:
    """Few real samples with made-up ones beside them; see :class:`~onnxslim_learn.select.calibration.Calibration`."""

    def make(count: int, bounds: tuple[float, float]) -> Source:
        samples = min(count, affordable(known.coupling))
        return confident(known.coupling, replace(reading, samples=samples, input_range=(bounds,)))

    return known.topped_up(make)


def judged_by(quality: QualitySettings, asked: SampleSettings) -> Metric | None:
    """The metric that was asked for.

    Raises:
        InputError: If there is none of its name, or quality is asked for where there are no real samples.
    """
    for name in ("metric", "min_quality"):
        if asked.data is None and getattr(quality, name) is not None:
            raise InputError(f"⟨{name}⟩: needs real samples. Give some with ⟨data⟩.")
    return None if quality.metric is None else metric_of(quality.metric)


def real_inputs(source: Source | None, asked: SampleSettings) -> list[dict[str, Any]]:
    """Samples to verify on, beside random inputs: those of which the user said something."""
    if source is None or (asked.data is None and not asked.reading.input_range):
        return []
    return [batch.inputs for batch in source.batches(VERIFIED)]


def affordable(coupling: Coupling) -> int:
    """How many made-up samples to use for a model."""
    return min(max(WORK // max(work(coupling), 1), FEWEST), MOST)


def matched(coupling: Coupling, options: DataSettings, progress: Progress = lambda share: None) -> Source:
    """Made-up samples that fit the statistics stored in a model's batch normalisations.

    Raises:
        InputError: If the extra ``train`` is not installed, or the model keeps no statistics.
    """
    require("train", "⟨match_statistics⟩")
    source: Source = SAMPLERS.load(STATISTICS)(coupling, options, progress=progress)
    return source
