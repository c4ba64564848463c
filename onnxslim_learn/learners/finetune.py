"""Training the weights of a cut net, and what every learner ends with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from onnxslim_learn.bridge import export
from onnxslim_learn.bridge.initializers import parameters
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.errors import VerifyError
from onnxslim_learn.learners.settings import FinetuneSettings
from onnxslim_learn.learners.weight_sparse import learner as weight_sparse
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.plans.realize import describe, realize
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.runtime import atomic
from onnxslim_learn.select.calibration import Evidence
from onnxslim_learn.sparse import metadata
from onnxslim_learn.sparse.maskable import maskable
from onnxslim_learn.train import feature_distillation, losses
from onnxslim_learn.workflow import slim as api
from onnxslim_learn.workflow import slimmed

if TYPE_CHECKING:
    from torch import fx

    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.trainer import Job
    from onnxslim_learn.workflow.slimmed import Slimmed


REPAIRED_ON = 512  # samples


CHECKED_ON = 8


def run(job: Job[FinetuneSettings]) -> tuple[Slimmed, Verification] | None:
    """Train the weights alone."""
    return finetune(job)


def finetune(job: Job[Any]) -> tuple[Slimmed, Verification] | None:
    """Train a model at the widths it has, and with its zeros if it was made sparse; see :func:`shrink`."""
    plan = describe(job.analysis, job.analysis.whole, {})
    return fit(job, job.school.module(job.analysis), plan, {"history": []})


def fit(job: Job[Any], module: fx.GraphModule, plan: Plan, told: dict[str, Any]) -> tuple[Slimmed, Verification] | None:
    """Cut a trained net to a plan, repair, fine-tune, verify and write it; see :func:`shrink`.

    Args:
        job: What it is for.
        module: The whole net.
        plan: What stays.
        told: What there is to report of how it was learnt.
    """
    school = job.school.comparing(feature_distillation.kept(realize(job.analysis, plan), job.school.features))
    job = replace(job, school=school)
    school.world.led(lambda: _cut(job, module, plan))
    student = load(job.folder / "slimmed.onnx")
    net = school.module(student, fresh=job.wanted.from_scratch)
    if job.wanted.from_scratch:
        redraw(net, school.training.seed)
    before, recipe = school.judge(net), school.recipe(student, "finetune_steps")
    zeros = metadata.promised(student.model) and not plan.groups and not job.wanted.from_scratch
    keeping = weight_sparse.zeros_of(net, maskable(student.model)) if zeros else None
    finetuned = school.improve("finetune", net, recipe, keeping) if recipe.steps else {"history": []}
    learner = "morphnet" if plan.groups else "finetune"
    stages: dict[str, Any] = {"learner": learner, "data": job.source.name, "loss": losses.told(school.training.loss)}
    stages |= json.loads((job.folder / "start.json").read_text(encoding="utf-8"))
    stages |= {"structure": told, "finetune": finetuned, "cut": before, "result": school.judge(net)}
    return school.world.led(lambda: _finish(job, plan, net, stages))


def _cut(job: Job[Any], module: fx.GraphModule, plan: Plan) -> None:
    """Cut and repair, with the weights as they were or as they were learnt, whichever comes nearer to the original.

    What an interrupted run has done already is not done again.
    """
    training, done, text = job.school.training, job.folder / "plan.json", plan.to_json()
    if training.resume and done.is_file() and done.read_text(encoding="utf-8") == text:
        return
    job.stage("cutting")
    job.folder.mkdir(parents=True, exist_ok=True)
    export.export(module.to("cpu"), job.analysis.graph, job.folder / "learned.onnx")
    shapes, values = job.analysis.graph.shapes.nominal.inputs, job.analysis.graph.values
    sensitive = job.analysis.sensitive
    learned = api.analyze(job.folder / "learned.onnx", inputs=shapes, values=values, allow_sensitive=sensitive)
    far = {}
    for name, analysis in (("learned", learned), ("original", job.analysis)):
        slimmed = api.slim(analysis, plan)
        if job.wanted.repair and not job.wanted.from_scratch and slimmed.removal.gone.any():
            evidence = Evidence(analysis.coupling, job.source, REPAIRED_ON, seconds=0.0)
            slimmed.repair(evidence, seed=training.seed, progress=job.stage("repairing"))
        slimmed.save(job.folder / f"{name}.slim.onnx")
        far[name] = job.school.distance(_net(job, name))
    nearest = min(far, key=lambda name: far[name])
    export.export(_net(job, nearest), load(job.folder / f"{nearest}.slim.onnx"), job.folder / "slimmed.onnx")
    atomic.write_text(job.folder / "start.json", json.dumps({"distances": far, "weights": nearest}) + "\n")
    atomic.write_text(done, text)


def _net(job: Job[Any], name: str) -> fx.GraphModule:
    return job.school.module(load(job.folder / f"{name}.slim.onnx"))


def _finish(job: Job[Any], plan: Plan, net: fx.GraphModule, stages: dict[str, Any]) -> tuple[Slimmed, Verification]:
    """Compare all but the trained weights with the masked original, and write the result."""
    job.stage("verifying")
    written, graph = job.folder / "result.onnx", load(job.folder / "slimmed.onnx")
    export.export(net.to("cpu"), graph, written)
    removal = realize(job.analysis, plan)
    data = {"data": job.source.name, "samples": stages["result"]["samples"]}
    data["weights"] = _changed(written, slim(removal))
    plan = replace(plan, provenance={**plan.provenance, "repair": data, "training": stages})
    real = [batch.inputs for batch in job.source.batches(CHECKED_ON)]
    check = api.verify(job.analysis, written, plan, real)
    if not check.passed:
        raise VerifyError(f"{job.output}: {check.complaint}. Nothing was written.")
    export.export(net, graph, job.output)
    return slimmed.Slimmed(job.analysis, plan, removal, slim(removal)), check


def _changed(path: Path, plain: ir.Model) -> list[str]:
    """Initializers of a file that are not those of a model."""
    changed, known = [], plain.graph.initializers
    for name, value in ir.load(path).graph.initializers.items():
        before = save.origin(name, known)
        a, b = value.const_value, None if before is None else before.const_value
        if a is not None and b is not None and a.tobytes() != b.tobytes():
            changed.append(name)
    return changed


def redraw(module: fx.GraphModule, seed: int) -> None:
    """Draw weights anew: those of every tensor are shuffled, which keeps their distribution and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters(module).values():
            flat = parameter.reshape(-1)
            parameter.copy_(flat[torch.randperm(len(flat), generator=generator)].reshape(parameter.shape))
