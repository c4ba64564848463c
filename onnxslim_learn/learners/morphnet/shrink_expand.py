"""Shrink and widen in turns: what widening brings back goes where shrinking found it to be needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxslim_learn.analysis import analyze_alike
from onnxslim_learn.costs.targets import stated
from onnxslim_learn.learners.morphnet import pipeline as once
from onnxslim_learn.learners.morphnet.settings import cycle_marks
from onnxslim_learn.registry import COSTS
from onnxslim_learn.runtime import atomic
from onnxslim_learn.select.bounds import bounds
from onnxslim_learn.workflow import expand, slim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxslim_learn.learners.morphnet.settings import MorphNetSettings
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.trainer import Task
    from onnxslim_learn.workflow.slimmed import Slimmed


def shrink(task: Task[MorphNetSettings], cycles: int) -> tuple[Slimmed, Verification] | None:
    """Shrink a model so many times, widening it to the cost of the original in between, and write the last.

    The teacher is the original all along. What comes between is written beside the result, as ``OUT.thin1.onnx`` and
    ``OUT.wide1.onnx`` and so on; what is returned tells the last shrinking, from the last of the wide ones.
    """
    target = {
        name: stated(COSTS.find(name), bound) for name, (_, bound) in bounds(task.analysis, task.wanted.target).items()
    }
    result, here = None, task
    for cycle in range(cycles):
        if cycle:
            here = _next(task, cycle, target)
        last = cycle + 1 == cycles
        output = task.output if last else atomic.beside(task.output, cycle_marks(cycle + 1)[0])
        result = once.shrink(replace(here, output=output))
    if result is not None and cycles > 1:
        source = here.analysis.graph.source
        told = {"count": cycles, "cut": str(source), "original": task.analysis.price(task.analysis.whole)}
        told |= {"target": dict(task.wanted.target)}
        result[0].plan.provenance["training"]["cycles"] = told
    return result


def _next(task: Task[MorphNetSettings], cycle: int, target: Mapping[str, float | str]) -> Task[MorphNetSettings]:
    """The job of a further cycle: the last result, widened."""
    thin, wide = (atomic.beside(task.output, mark) for mark in cycle_marks(cycle))
    shapes, known = task.analysis.graph.shapes.nominal.inputs, task.analysis.latency
    values = task.analysis.graph.values
    device = None if known is None else known.device

    def widen() -> None:
        asked = expand.Widening(
            dict.fromkeys(target, 1.0),
            task.analysis,
            task.wanted.multiple,
            task.wanted.protect,
            seed=task.trainer.training.seed + cycle,
        )
        expand.expand(slim.analyze(thin, inputs=shapes, values=values, device=device), asked, wide)

    task.trainer.world.led(widen)
    widened = analyze_alike(wide, task.analysis)
    training = replace(task.trainer.training, folder=task.folder / f"cycle_{cycle + 1}")
    trainer = replace(task.trainer, training=training)
    return replace(task, analysis=widened, trainer=trainer, wanted=replace(task.wanted, target=target))
