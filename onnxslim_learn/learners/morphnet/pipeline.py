"""MorphNet from one file to a smaller one: learn the widths, slim, repair, fine-tune, verify, write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from onnxslim_learn.bridge import export
from onnxslim_learn.bridge.initializers import parameters
from onnxslim_learn.costs.channels import channels, elements
from onnxslim_learn.errors import InputError, VerifyError
from onnxslim_learn.graph.load import load
from onnxslim_learn.learners.morphnet import strengths
from onnxslim_learn.learners.morphnet.learner import Control, MorphNet, bonds, ties
from onnxslim_learn.learners.morphnet.logistic_gates import Gates
from onnxslim_learn.learners.morphnet.structure import Structure, structure
from onnxslim_learn.learners.weight_sparse import learner as weight_sparse
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.select.budget import Freedom
from onnxslim_learn.select.calibration import Evidence
from onnxslim_learn.select.planner import bounds, describe, realize
from onnxslim_learn.sparse import metadata
from onnxslim_learn.sparse.maskable import maskable
from onnxslim_learn.train import feature_distillation
from onnxslim_learn.train.unit_sensitivity import worth
from onnxslim_learn.workflow import slim as api

if TYPE_CHECKING:
    from torch import fx

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.trainer import Job, School
    from onnxslim_learn.workflow.slim import Slimmed

LEAST = 0.75  # what a unit is worth by itself says little about extremes of several groups together (cf. select.choose)
REPAIRED_ON = 512  # samples
CHECKED_ON = 8


@dataclass(frozen=True)
class Widths:
    """What structure to learn, as asked for.

    Attributes:
        target: Cost -> bound; at most 1 is a fraction. Empty with a strength.
        cost: What units are charged for; by default the first of the target.
        kind: See :mod:`onnxslim_learn.learners.morphnet.strengths`.
        how: How members of a group are combined.
        l1: Of group lasso.
        threshold: Above which units are alive, or ``None`` for the kind's.
        tau: Of gates.
        strength: Weight of the regularization term, or ``None`` to meet the target.
        proximal: Whether strengths are lowered exactly to zero; ``None`` where that is possible.
        calibrated: Whether units are charged by what they are worth, too, where strengths are lowered to meet a target.
        double: Whether depthwise convolutions count twice.
        least: With a target, the share of the width left by narrowing all groups alike that every group keeps;
            ``None`` for :data:`LEAST`, or for none where whole branches may go or widths are steps apart (latency).
        force_group: Regular expressions; the groups that one finds are tied.
        protect: Regular expressions; groups they find stay whole.
        freedom: How far widths may go.
        from_scratch: Whether weights are drawn anew before they are trained at the widths learnt.
        repair: Whether to refit weights before that.
    """

    target: Mapping[str, float] = field(default_factory=dict)
    cost: str | None = None
    kind: strengths.Kind = "gamma"
    how: strengths.How = "max"
    l1: float = 0.0
    threshold: float | None = None
    tau: float = strengths.TAU
    strength: float | None = None
    proximal: bool | None = None
    calibrated: bool = True
    double: bool = False
    least: float | None = None
    force_group: Sequence[str] = ()
    protect: Sequence[str] = ()
    freedom: Freedom = field(default_factory=Freedom)
    from_scratch: bool = False
    repair: bool = True

    @property
    def exactly(self) -> bool:
        """Whether strengths are lowered exactly to zero."""
        return self.kind != "gates" if self.proximal is None else self.proximal

    @property
    def dies(self) -> float:
        """The threshold."""
        usual = strengths.L2_THRESHOLD if self.how == "l2" else strengths.THRESHOLDS[self.kind]
        return usual if self.threshold is None else self.threshold


def shrink(job: Job[Widths]) -> tuple[Slimmed, Verification] | None:
    """Learn a structure and write the smaller, trained model.

    Returns:
        What was made, or ``None`` in a process that does not lead.

    Raises:
        InputError, TargetError, PlanError, TrainError, VerifyError: In one sentence each; nothing is written then.
    """
    module, plan, told = learn(job.analysis, job.wanted, job.school)
    if not plan.groups:
        raise InputError("model: the structure learnt is the whole model. Use a higher --strength, or a --target.")
    return fit(job, module, plan, told)


def finetune(job: Job[Widths]) -> tuple[Slimmed, Verification] | None:
    """Train a model at the widths it has, and with its zeros if it was made sparse; see :func:`shrink`."""
    plan = describe(job.analysis, job.analysis.whole, {})
    return fit(job, job.school.module(job.analysis), plan, {"history": []})


def fit(
    job: Job[Widths], module: fx.GraphModule, plan: Plan, told: dict[str, Any]
) -> tuple[Slimmed, Verification] | None:
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
    stages: dict[str, Any] = {"learner": learner, "data": job.source.name, "loss": school.training.loss}
    stages |= json.loads((job.folder / "start.json").read_text(encoding="utf-8"))
    stages |= {"structure": told, "finetune": finetuned, "cut": before, "result": school.judge(net)}
    return school.world.led(lambda: _finish(job, plan, net, stages))


def learn(analysis: Analysis, wanted: Widths, school: School) -> tuple[fx.GraphModule, Plan, dict[str, Any]]:
    """Learn a structure: the trained net, all of it, and the plan of what stays."""
    module, recipe = school.module(analysis), school.recipe(analysis.graph, "steps")
    space = _space(analysis, wanted)
    tied = ties(space.groups, space.bonds)
    found: strengths.Strengths | Gates
    if wanted.kind == "gates":
        if wanted.exactly:
            raise InputError("--proximal: gates go by gradients alone. Leave it out, or use --regularizer gamma.")
        found = Gates(module, analysis, space.groups, ties=tied, tau=wanted.tau)
    else:
        found = strengths.read(module, analysis, space.groups, wanted.kind, how=wanted.how, l1=wanted.l1, ties=tied)
    control = Control(wanted.dies, wanted.strength, wanted.exactly)
    school = school.comparing(feature_distillation.untouched(analysis, space.groups, school.features))
    learner = MorphNet(space, found, control, recipe, _made(wanted, school))
    if wanted.strength is None and wanted.calibrated and wanted.exactly:
        kinds = school.teacher.kinds(school.samples)
        learner.calibrate(worth(analysis, space.groups, school.samples, kinds, seed=school.training.seed))
    told = school.run("structure", module, recipe, learner)
    plan = learner.decided()
    if isinstance(found, Gates):
        found.open()
    school.settle(module)
    told |= {"cost": told["history"][-1]["cost"], "term": told["history"][-1]["term"]}
    return module, plan, told


def _made(wanted: Widths, school: School) -> dict[str, Any]:
    """What a plan says of where it comes from."""
    return {
        "target": dict(wanted.target),
        "multiple": wanted.freedom.multiple,
        "allow_empty": wanted.freedom.empty,
        "protect": list(wanted.protect),
        "regularizer": wanted.kind,
        "strength": wanted.strength,
    }


def _space(analysis: Analysis, wanted: Widths) -> Structure:
    """What can be learnt of a model."""
    priced: dict[str, Any] = {
        **analysis.bounded,
        "channels": channels(analysis.coupling),
        "elements": elements(analysis.coupling),
    }
    if wanted.strength is None and not wanted.target:
        raise InputError("learn: neither --target nor --strength is given. For example --target macs=0.5.")
    if wanted.cost == "latency" and analysis.latency is None:
        raise InputError("--cost latency: needs a device. Give one with --device, or measure this machine (calibrate).")
    space = structure(
        analysis,
        wanted.cost or next(iter(wanted.target), "macs"),
        bounds(analysis, wanted.target),
        wanted.target,
        freedom=wanted.freedom,
        protect=wanted.protect,
        priced=priced,
        double=wanted.double,
    )
    space = replace(space, bonds=bonds(space.groups, wanted.force_group))
    if not wanted.target:
        return space
    if space.search.fits(space.search.at(1.0)):
        asked = ", ".join(f"{name}={wish:g}" for name, wish in wanted.target.items())
        raise InputError(f"--target {asked}: the model meets it as it is. Ask for less.")
    least = wanted.least
    if least is None:
        least = 0.0 if wanted.freedom.empty or "latency" in wanted.target else LEAST
    return space.above(least)


# --- the leading process ----------------------------------------------------------------------------------------------


def _cut(job: Job[Widths], module: fx.GraphModule, plan: Plan) -> None:
    """Cut and repair, with the weights as they were or as they were learnt, whichever comes nearer to the original.

    What an interrupted run has done already is not done again.
    """
    training, done, text = job.school.training, job.folder / "plan.json", plan.to_json()
    if training.resume and done.is_file() and done.read_text(encoding="utf-8") == text:
        return
    job.stage("cutting")
    job.folder.mkdir(parents=True, exist_ok=True)
    export.export(module.to("cpu"), job.analysis.graph, job.folder / "learned.onnx")
    shapes = job.analysis.graph.shapes.nominal.inputs
    learned = api.analyze(job.folder / "learned.onnx", inputs=shapes, allow_sensitive=job.analysis.sensitive)
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
    save.write_text(job.folder / "start.json", json.dumps({"distances": far, "weights": nearest}) + "\n")
    save.write_text(done, text)


def _net(job: Job[Widths], name: str) -> fx.GraphModule:
    return job.school.module(load(job.folder / f"{name}.slim.onnx"))


def _finish(job: Job[Widths], plan: Plan, net: fx.GraphModule, stages: dict[str, Any]) -> tuple[Slimmed, Verification]:
    """Compare all but the trained weights with the masked original, and write the result."""
    job.stage("verifying")
    written, graph = job.folder / "result.onnx", load(job.folder / "slimmed.onnx")
    export.export(net.to("cpu"), graph, written)
    removal = realize(job.analysis, plan)
    made = {"data": job.source.name, "samples": stages["result"]["samples"]}
    made["weights"] = _changed(written, slim(removal))
    plan = replace(plan, provenance={**plan.provenance, "repair": made, "training": stages})
    real = [batch.inputs for batch in job.source.batches(CHECKED_ON)]
    found = api.verify(job.analysis, written, plan, real)
    if not found.passed:
        raise VerifyError(f"{job.output}: {found.complaint}. Nothing was written.")
    export.export(net, graph, job.output)
    return api.Slimmed(job.analysis, plan, removal, slim(removal)), found


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
