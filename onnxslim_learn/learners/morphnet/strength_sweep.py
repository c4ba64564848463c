"""Several strengths, a model for each: what every one leaves, and which are worth keeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxslim_learn.array_types import unannounced
from onnxslim_learn.learners.finetune import fit
from onnxslim_learn.learners.morphnet.pipeline import learn, timer
from onnxslim_learn.learners.morphnet.settings import tried_mark
from onnxslim_learn.quality.judgement import of_outputs
from onnxslim_learn.runtime import atomic
from onnxslim_learn.runtime.workers import trials
from onnxslim_learn.workflow.pareto import mark

if TYPE_CHECKING:
    from onnxslim_learn.learners.morphnet.settings import MorphNetSettings
    from onnxslim_learn.train.trainer import Task

WIDE = 10.0  # the strengths of a sweep lie between a tenth and ten times the middle one


def strengths(count: int, middle: float = 1.0) -> list[float]:
    """So many strengths, evenly on a log scale around a middle one."""
    if count == 1:
        return [middle]
    return [float(x) for x in middle * np.geomspace(1 / WIDE, WIDE, count)]


def sweep(task: Task[MorphNetSettings], tried: Sequence[float]) -> list[dict[str, Any]]:
    """Learn, cut and fine-tune at every strength; a file each, numbered like the strengths.

    Returns:
        For every strength what is left and how far outputs are from the original's, and in ``report`` what the task
        tells of it by itself; ``output`` is ``None`` where nothing died, and there is no report then. ``pareto`` says
        whether no other is both smaller and nearer.
    """
    place = task.wanted.workers
    if place is None or task.trainer.world.size > 1:
        return mark([_row(_at(task, number, strength)) for number, strength in enumerate(tried)])
    task.analysis.graph.release()
    quiet = replace(task, stage=unannounced, trainer=replace(task.trainer, stage=unannounced))
    jobs = [(number, (number, strength)) for number, strength in enumerate(tried)]
    done = task.stage(f"trying strengths on workers {place}")
    rows = []
    for number, row in trials(_elsewhere, quiet, jobs, place):
        rows.append(row)
        done((number + 1) / len(tried))
    return mark(rows)


def _elsewhere(task: Task[MorphNetSettings], number: int, strength: float) -> dict[str, Any]:
    """One strength in a process of its own, with one thread, since others run beside it."""
    torch.set_num_threads(1)
    return _row(_at(task, number, strength))


def _at(task: Task[MorphNetSettings], number: int, strength: float) -> Task[MorphNetSettings]:
    """What is asked at one strength."""
    training = replace(task.trainer.training, folder=task.folder / f"strength_{number}")
    output = atomic.beside(task.output, tried_mark(number))
    wanted = replace(task.wanted, strength=strength, target={})
    return replace(task, wanted=wanted, trainer=replace(task.trainer, training=training), output=output)


def _row(task: Task[MorphNetSettings]) -> dict[str, Any]:
    """One strength."""
    whole = task.analysis.price(task.analysis.whole)
    row: dict[str, Any] = {"strength": task.wanted.strength, "output": None, "before": whole, "after": whole}
    row |= dict.fromkeys(("accuracy", "deviation", "detections", "quality")) | {"relative": 0.0}
    module, plan, told = learn(task, timer(task))
    fitted = fit(task, module, plan, told) if plan.groups else None
    if fitted is not None:
        result = fitted[0].plan.provenance["training"]["result"]
        relative = [one["relative"] for one in result["outputs"].values()]
        row |= {"output": str(task.output), "after": task.analysis.price(fitted[0].removal)}
        row |= {"deviation": result["outputs"], "detections": result["detections"], "samples": result["samples"]}
        samples = task.source.used(result["samples"], result["fitted"])
        row |= {"quality": of_outputs(result["outputs"], result["detections"], samples)}
        row |= {"relative": float(np.mean(relative)) if relative else 0.0, "accuracy": result["accuracy"]}
        row |= {} if task.tell is None else {"report": task.tell(fitted, task.output, task.stage)}
    return row
