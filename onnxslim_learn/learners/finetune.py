"""Training the weights of a cut net, and what every learner ends with."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onnxslim_learn.analysis import analyze_alike
from onnxslim_learn.array_types import Stage, unannounced
from onnxslim_learn.bridge import export
from onnxslim_learn.bridge.initializers import parameters
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.errors import VerifyError
from onnxslim_learn.learners.settings import FinetuneSettings
from onnxslim_learn.learners.weight_sparse import learner as weight_sparse
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.plans.realize import describe, realize
from onnxslim_learn.registry import MIX
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.runtime import atomic
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.sparse import metadata
from onnxslim_learn.sparse.maskable import maskable
from onnxslim_learn.train import feature_distillation, losses
from onnxslim_learn.train.augmentation import images_alone
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.trainer import Training, trainer
from onnxslim_learn.workflow import slim as api
from onnxslim_learn.workflow import slimmed

if TYPE_CHECKING:
    from torch import fx

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.trainer import Task
    from onnxslim_learn.workflow.slimmed import Slimmed


REPAIRED_ON = 512  # samples


CHECKED_ON = 8


def run(task: Task[FinetuneSettings]) -> tuple[Slimmed, Verification] | None:
    """Train the weights alone."""
    return finetune(task)


def finetune(task: Task[Any]) -> tuple[Slimmed, Verification] | None:
    """Train a model at the widths it has, and with its zeros if it was made sparse; see :func:`shrink`."""
    plan = describe(task.analysis, task.analysis.whole, {})
    return fit(task, task.trainer.module(task.analysis), plan, {"history": []})


def fit(
    task: Task[Any], module: fx.GraphModule, plan: Plan, told: dict[str, Any]
) -> tuple[Slimmed, Verification] | None:
    """Cut a trained net to a plan, repair, fine-tune, verify and write it; see :func:`shrink`.

    Args:
        task: What it is for; without ``from_scratch`` and ``repair`` among what is wanted, weights are not drawn
            anew, and repaired.
        module: The whole net.
        plan: What stays.
        told: What there is to report of how it was learnt.
    """
    trainer = task.trainer.comparing(feature_distillation.kept(realize(task.analysis, plan), task.trainer.features))
    task = replace(task, trainer=trainer)
    trainer.world.led(lambda: _cut(task, module if told["history"] else None, plan))
    return trained(task, plan, told)


def trained(task: Task[Any], plan: Plan, told: dict[str, Any]) -> tuple[Slimmed, Verification] | None:
    """Fine-tune, verify and write what was cut to a plan and is the folder's ``slimmed.onnx``; see :func:`fit`."""
    trainer = task.trainer
    student, from_scratch = load(task.folder / "slimmed.onnx"), getattr(task.wanted, "from_scratch", False)
    net = trainer.module(student, fresh=from_scratch)
    if from_scratch:
        redraw(net, trainer.training.seed)
    before, recipe = trainer.judge(net), trainer.recipe(student, "finetune_steps")
    zeros = metadata.promised(student.model) and not plan.groups and not from_scratch
    keeping = weight_sparse.zeros_of(net, maskable(student.model)) if zeros else None
    finetuned = trainer.improve("finetune", net, recipe, keeping) if recipe.steps else {"history": []}
    stages: dict[str, Any] = {
        "learner": task.learner,
        "data": task.source.name,
        "loss": losses.told(trainer.training.loss),
    }
    stages |= json.loads((task.folder / "start.json").read_text(encoding="utf-8"))
    stages |= {"structure": told, "finetune": finetuned, "cut": before, "result": trainer.judge(net)}
    return trainer.world.led(lambda: _finish(task, plan, net, stages))


def distilled(
    cut: Slimmed,
    path: Path,
    samples: tuple[Source, Source],
    output: Path,
    steps: int,
    *,
    stage: Stage = unannounced,
) -> None:
    """Train all weights of a cut model towards the outputs of the original, and write it.

    Images are blended with one another on their way, which shows it more of them than there are.

    Args:
        cut: What was cut of which original.
        path: The file of what is left.
        samples: Those to train on, and others to look at meanwhile; labels are not used.
        output: Where to write.
        steps: Of training, by the recipe of ``learn``, on the CPU.
        stage: Called with the name of each stage.

    Raises:
        InputError: If the model or the samples cannot be trained on.
        TrainError: If training fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        augment = (MIX,) if images_alone(samples[0].declared) else ()
        how = Training(steps=0, finetune_steps=steps, folder=Path(folder), augment=augment)
        taught = trainer(cut.analysis, samples[0], how, World(), val=samples[1], stage=stage)
        taught = taught.comparing(feature_distillation.kept(cut.removal, taught.features))
        student = load(path)
        net = taught.module(student)
        taught.run("finetune", net, taught.recipe(student, "finetune_steps"))
        export.export(net, student, output)


def untouched(task: Task[Any], plan: Plan) -> tuple[Slimmed, Verification]:
    """Write the model as it is, where nothing of it goes."""
    result = api.slim(task.analysis, plan)
    result.save(task.output)
    return result, api.verify(task.analysis, task.output, plan)


def _cut(task: Task[Any], module: fx.GraphModule | None, plan: Plan) -> None:
    """Cut and repair, with the weights as they were or as they were learnt, whichever comes nearer to the original.

    What an interrupted run has done already is not done again. Where nothing was learnt there is no module, and
    nothing to compare.
    """
    training, done, text = task.trainer.training, task.folder / "plan.json", plan.to_json()
    if training.resume and done.is_file() and done.read_text(encoding="utf-8") == text:
        return
    task.stage("cutting")
    task.folder.mkdir(parents=True, exist_ok=True)
    starts = {"original": task.analysis}
    if module is not None:
        starts = {"learned": _learned(task, module), **starts}
    repair = getattr(task.wanted, "repair", True) and not getattr(task.wanted, "from_scratch", False)
    for name, analysis in starts.items():
        slimmed = api.slim(analysis, plan)
        if repair and slimmed.removal.gone.any():
            fitted = min(REPAIRED_ON, task.trainer.samples.count)  # the first: the others judge
            calibration = Calibration(analysis.coupling, task.source, fitted, work=0)
            slimmed.repair(calibration, seed=training.seed, progress=task.stage("repairing"))
        slimmed.save(task.folder / f"{name}.slim.onnx")
    far = {name: task.trainer.distance(_net(task, name)) for name in starts} if len(starts) > 1 else {}
    nearest = min(starts, key=lambda name: far.get(name, 0.0))
    export.export(_net(task, nearest), load(task.folder / f"{nearest}.slim.onnx"), task.folder / "slimmed.onnx")
    atomic.write_text(task.folder / "start.json", json.dumps({"distances": far, "weights": nearest}) + "\n")
    atomic.write_text(done, text)


def _learned(task: Task[Any], module: fx.GraphModule) -> Analysis:
    """The whole model with the weights of a module."""
    path = task.folder / "learned.onnx"
    export.export(module.to("cpu"), task.analysis.graph, path)
    return analyze_alike(path, task.analysis)


def _net(task: Task[Any], name: str) -> fx.GraphModule:
    return task.trainer.module(load(task.folder / f"{name}.slim.onnx"))


def _finish(task: Task[Any], plan: Plan, net: fx.GraphModule, stages: dict[str, Any]) -> tuple[Slimmed, Verification]:
    """Compare all but the trained weights with the masked original, and write the result."""
    task.stage("verifying")
    written, graph = task.folder / "result.onnx", load(task.folder / "slimmed.onnx")
    export.export(net.to("cpu"), graph, written)
    removal = realize(task.analysis, plan)
    data = {"data": task.source.name, "samples": stages["result"]["samples"]}
    data["weights"] = save.changed(written, slim(removal))
    plan = replace(plan, provenance={**plan.provenance, "repair": data, "training": stages})
    real = [batch.inputs for batch in task.source.batches(CHECKED_ON)]
    check = api.verify(task.analysis, written, plan, real)
    if not check.passed:
        raise VerifyError(f"{task.output}: {check.complaint}. Nothing was written.")
    export.export(net, graph, task.output)
    used = task.source.used(stages["result"]["samples"], stages["result"]["fitted"])
    return slimmed.Slimmed(task.analysis, plan, removal, slim(removal), doubts=task.source.doubts, trained=used), check


def redraw(module: fx.GraphModule, seed: int) -> None:
    """Draw weights anew: those of every tensor are shuffled, which keeps their distribution and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters(module).values():
            flat = parameter.reshape(-1)
            parameter.copy_(flat[torch.randperm(len(flat), generator=generator)].reshape(parameter.shape))
