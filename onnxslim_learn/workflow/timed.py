"""What was written, timed against the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.data import random_inputs
from onnxslim_learn.runtime import timing

if TYPE_CHECKING:
    from pathlib import Path

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Stage
    from onnxslim_learn.runtime.settings import RuntimeSettings
    from onnxslim_learn.runtime.timing import Timings


def against_original(
    analysis: Analysis, written: Path, asked: RuntimeSettings, stage: Stage, *, kept: bool
) -> tuple[Timings, dict[str, Any]]:
    """Time the original against what was written, and the inputs that were used.

    Args:
        analysis: The original.
        written: What was made of it.
        asked: How.
        stage: Called with the name of the stage.
        kept: Whether what was written stays if timing is broken off.
    """
    feeds = random_inputs.random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    try:
        timings = timing.measure(
            [analysis.graph.source or analysis.graph.data, written],
            [feeds, feeds],
            threads=asked.threads,
            provider=asked.provider,
            seconds=asked.seconds,
            progress=stage("timing"),
        )
    except BaseException as error:
        if kept:
            error.add_note(f"{written} is written and verified; only its latency is missing.")
        raise
    return timings, feeds
