"""Shrink and widen in turns: what widening brings back goes where shrinking found it to be needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxslim_learn.learners.morphnet import pipeline as once
from onnxslim_learn.select.bounds import bounds
from onnxslim_learn.workflow import expand, slim

if TYPE_CHECKING:
    from onnxslim_learn.learners.morphnet.settings import MorphNetSettings
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.trainer import Job
    from onnxslim_learn.workflow.slimmed import Slimmed


def shrink(job: Job[MorphNetSettings], cycles: int) -> tuple[Slimmed, Verification] | None:
    """Shrink a model so many times, widening it to the cost of the original in between, and write the last.

    The teacher is the original all along. What comes between is written beside the result, as ``OUT.thin1.onnx`` and
    ``OUT.wide1.onnx`` and so on; what is returned tells the last shrinking, from the last of the wide ones.
    """
    target = {name: bound for name, (_, bound) in bounds(job.analysis, job.wanted.target).items()}
    result, here = None, job
    for cycle in range(cycles):
        if cycle:
            here = _next(job, cycle, target)
        last = cycle + 1 == cycles
        output = job.output if last else job.output.with_name(f"{job.output.stem}.thin{cycle + 1}{job.output.suffix}")
        result = once.shrink(replace(here, output=output))
    if result is not None and cycles > 1:
        source = here.analysis.graph.source
        told = {"count": cycles, "cut": str(source), "original": job.analysis.price(job.analysis.whole)}
        result[0].plan.provenance["training"]["cycles"] = told
    return result


def _next(job: Job[MorphNetSettings], cycle: int, target: dict[str, float]) -> Job[MorphNetSettings]:
    """The job of a further cycle: the last result, widened."""
    thin = job.output.with_name(f"{job.output.stem}.thin{cycle}{job.output.suffix}")
    wide = job.output.with_name(f"{job.output.stem}.wide{cycle}{job.output.suffix}")
    shapes, known = job.analysis.graph.shapes.nominal.inputs, job.analysis.latency
    values = job.analysis.graph.values
    device = None if known is None else known.device

    def widen() -> None:
        asked = expand.Widening(
            dict.fromkeys(target, 1.0),
            job.analysis,
            job.wanted.multiple,
            job.wanted.protect,
            seed=job.school.training.seed + cycle,
        )
        expand.expand(slim.analyze(thin, inputs=shapes, values=values, device=device), asked, wide)

    job.school.world.led(widen)
    sensitive = job.analysis.sensitive
    widened = slim.analyze(wide, inputs=shapes, values=values, allow_sensitive=sensitive, device=device)
    training = replace(job.school.training, folder=job.folder / f"cycle_{cycle + 1}")
    school = replace(job.school, training=training)
    return replace(job, analysis=widened, school=school, wanted=replace(job.wanted, target=target))
