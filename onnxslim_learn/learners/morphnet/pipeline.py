"""MorphNet from one file to a smaller one: learn the widths, slim, repair, fine-tune, verify, write."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxslim_learn.bridge import gammas
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.finetune import REPAIRED_ON, fit, untouched
from onnxslim_learn.learners.morphnet import strengths
from onnxslim_learn.learners.morphnet.learner import Control, MorphNet, bonds, ties
from onnxslim_learn.learners.morphnet.logistic_gates import Gates
from onnxslim_learn.learners.morphnet.settings import GAMMA, GATES, LEAST, MorphNetSettings
from onnxslim_learn.learners.morphnet.structure import Structure, structure
from onnxslim_learn.learners.morphnet.unit_losses import unit_losses
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.registry import LATENCY, MACS
from onnxslim_learn.runtime import atomic
from onnxslim_learn.select.bounds import bounds, missed
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.train import feature_distillation
from onnxslim_learn.train.unit_sensitivity import unit_sensitivity
from onnxslim_learn.workflow import timed
from onnxslim_learn.workflow.slim import slim

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, fx

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.runtime.timing import Ratio
    from onnxslim_learn.train.trainer import Task, Trainer
    from onnxslim_learn.workflow.slimmed import Slimmed


def shrink(task: Task[MorphNetSettings]) -> tuple[Slimmed, Verification] | None:
    """Learn a structure and write the smaller, trained model.

    Returns:
        What was made, or ``None`` in a process that does not lead.

    Raises:
        InputError, TargetError, PlanError, TrainError, VerifyError: In one sentence each; nothing is written then.
    """
    module, plan, told = learn(task, timer(task))
    if not plan.groups:
        task.stage("nothing goes: the model stays as it is")
        return task.trainer.world.led(lambda: untouched(task, plan))
    return fit(task, module, plan, told)


def learn(
    task: Task[MorphNetSettings], time: Callable[[Removal], Ratio] | None = None
) -> tuple[fx.GraphModule, Plan, dict[str, Any]]:
    """Learn a structure: the trained net, all of it, and the plan of what stays.

    Args:
        task: What to learn of which model, and how to train.
        time: How to time a removal against the original; ``None`` if it must not be.
    """
    analysis, trainer = task.analysis, task.trainer
    wanted = replace(task.wanted, target=missed(analysis, task.wanted.target) if task.wanted.target else {})
    module, recipe = trainer.module(analysis), trainer.recipe(analysis.graph, "steps")
    space = _space(analysis, wanted)
    unscaled = [] if wanted.regularizer else gammas.without(module, analysis, space.groups)
    kind = wanted.regularizer or (GATES if unscaled else GAMMA)
    wanted = replace(wanted, regularizer=kind)
    strengths_of_units = _strengths(module, space, wanted)
    space, worth = _charged(task, space, wanted)
    control = Control(wanted.dies, wanted.strength, wanted.exactly)
    trainer = trainer.comparing(feature_distillation.untouched(analysis, space.groups, trainer.features))
    learner = MorphNet(space, strengths_of_units, control, recipe, _made(wanted, trainer))
    if worth is not None:
        learner.calibrate(worth)
    told = trainer.run("structure", module, recipe, learner)
    plan = _decided(learner, wanted.multiple, trainer, time)
    if isinstance(strengths_of_units, Gates):
        strengths_of_units.open()
    trainer.settle(module)
    told |= {"regularizer": kind, "unscaled": unscaled}
    told |= {"cost": told["history"][-1]["cost"], "term": told["history"][-1]["term"]}
    return module, plan, told


def _strengths(module: fx.GraphModule, space: Structure, wanted: MorphNetSettings) -> strengths.Strengths | Gates:
    """What tells how much of every unit there is."""
    tied = ties(space.groups, space.bonds)
    if wanted.regularizer != GATES:
        how = {"how": wanted.combine, "l1": wanted.l1_fraction, "ties": tied}
        return strengths.read(module, space.analysis, space.groups, wanted.regularizer or GAMMA, **how)  # type: ignore[arg-type]
    if wanted.exactly:
        raise InputError("⟨proximal⟩: gates go by gradients alone. Leave it out, or use ⟨regularizer⟩ gamma.")
    return Gates(module, space.analysis, space.groups, ties=tied, tau=wanted.tau)


def _charged(
    task: Task[MorphNetSettings], space: Structure, wanted: MorphNetSettings
) -> tuple[Structure, Tensor | None]:
    """With a target: groups bounded from below, and what units are worth where strengths are lowered by that."""
    if not wanted.target:
        return space, None
    lowered, trainer = wanted.exactly and not wanted.no_calibration, task.trainer
    worth = _losses(task, space) if lowered else None
    least = 0.0 if worth is not None or wanted.allow_empty or LATENCY in wanted.target else LEAST
    space = space.above(least if wanted.least_width is None else wanted.least_width)
    if lowered and worth is None:
        kinds, seed = trainer.teacher.kinds(trainer.samples), trainer.training.seed
        worth = unit_sensitivity(task.analysis, space.groups, trainer.samples, kinds, seed=seed)
    return space, worth


def _losses(task: Task[MorphNetSettings], space: Structure) -> Tensor | None:
    """What units are worth by losses that are computed and measured, as the leading process finds it."""
    place = task.folder / "unit_losses.npy"

    def measure() -> None:
        calibration = Calibration(task.analysis.coupling, task.source, REPAIRED_ON)
        losses = unit_losses(space, calibration, task.stage("measuring what units are worth"))
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(place) as draft:
            np.save(draft, np.empty(0) if losses is None else losses)

    task.trainer.world.led(measure)
    losses = torch.from_numpy(np.load(place)).float()
    return losses if len(losses) else None


def timer(task: Task[Any]) -> Callable[[Removal], Ratio] | None:
    """How to time what is left of a task's model, if that is to be timed."""
    if task.runtime is None or timed.too_large(task.analysis):
        return None
    time = timed.briefly(task.analysis, task.runtime)

    def tell(removal: Removal) -> Ratio:
        done = task.stage("timing widths")
        ratio = time(removal)
        done(1.0, {"time": ratio.median})
        return ratio

    return tell


def _decided(learner: MorphNet, multiple: int | str, trainer: Trainer, time: Callable[[Removal], Ratio] | None) -> Plan:
    """What was learnt, at coarser widths where it is surely slower than the original; what was timed once stands."""
    analysis, known = learner.space.analysis, trainer.training.folder / "plan.json"
    if time is not None and trainer.training.resume and known.is_file():
        return Plan.load(known)
    if time is None:
        return learner.decided()
    return timed.not_slower(lambda step: slim(analysis, learner.decided(step)), multiple, time).plan


def _made(wanted: MorphNetSettings, trainer: Trainer) -> dict[str, Any]:
    """What a plan says of where it comes from."""
    return {
        "target": dict(wanted.target),
        "multiple": wanted.multiple,
        "allow_empty": wanted.allow_empty,
        "protect": list(wanted.protect),
        "regularizer": wanted.regularizer,
        "strength": wanted.strength,
    }


def _space(analysis: Analysis, wanted: MorphNetSettings) -> Structure:
    """What can be learnt of a model."""
    space = structure(
        analysis,
        wanted.cost or next(iter(wanted.target), MACS),
        bounds(analysis, wanted.target),
        wanted.target,
        freedom=wanted.freedom,
        protect=wanted.protect,
        double=wanted.count_depthwise_twice,
    )
    return replace(space, bonds=bonds(space.groups, wanted.force_group))
