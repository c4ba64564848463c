"""MorphNet as a learner: one target or strength, several strengths, or shrinking and widening in turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.learners.morphnet import shrink_expand, strength_sweep

if TYPE_CHECKING:
    from onnxslim_learn.learners.morphnet.settings import MorphNetSettings
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.trainer import Task
    from onnxslim_learn.workflow.slimmed import Slimmed


def run(task: Task[MorphNetSettings]) -> tuple[Slimmed, Verification] | list[dict[str, Any]] | None:
    """Learn widths: for one target or strength, for several strengths, or in turns with widening."""
    wanted = task.wanted
    if wanted.sweep:
        return strength_sweep.sweep(task, strength_sweep.strengths(wanted.sweep, wanted.strength or 1.0))
    return shrink_expand.shrink(task, wanted.cycles)
