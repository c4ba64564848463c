"""Widths by what they are worth on samples, narrowed in stages with repairs and training between them.

What ``slim`` does, several times: losses of single groups are computed and measured, the bounds of a stage are met by
the allocation that turns out best on samples, weights are refitted by least squares. Between stages what is left is
trained for a while, so that the next stage judges weights that have made up for the last one. Bounds lie on a geometric
way down, so that every stage takes the same share of what is there. The last stage is followed by fine-tuning.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.analysis import analyze_alike
from onnxslim_learn.bridge import export
from onnxslim_learn.costs.targets import stated
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.finetune import REPAIRED_ON, trained
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.plans.realize import composed, describe, realize
from onnxslim_learn.registry import COSTS
from onnxslim_learn.rewrite import save
from onnxslim_learn.runtime import atomic
from onnxslim_learn.select.bounds import bounds, missed
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.train import checkpoints
from onnxslim_learn.workflow import slim as api

if TYPE_CHECKING:
    from pathlib import Path

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.learners.settings import NarrowSettings
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.train.trainer import Task
    from onnxslim_learn.workflow.slimmed import Slimmed


def run(task: Task[NarrowSettings]) -> tuple[Slimmed, Verification] | None:
    """Narrow, train, narrow again, fine-tune and write.

    Returns:
        What was made, or ``None`` in a process that does not lead.

    Raises:
        InputError, TargetError, PlanError, TrainError, VerifyError: In one sentence each; nothing is written then.
    """
    trainer, stages = task.trainer, task.wanted.stages
    task = replace(task, wanted=replace(task.wanted, target=missed(task.analysis, task.wanted.target)))
    between = trainer.recipe(task.analysis.graph, "steps")
    between = replace(between, steps=max(between.steps // max(stages - 1, 1), 1), schedule="cosine")
    here, plan, history = task.analysis, describe(task.analysis, task.analysis.whole, {}), []
    for stage in range(1, stages + 1):
        place = task.folder / (f"stage_{stage}.onnx" if stage < stages else "slimmed.onnx")
        trainer.world.led(lambda now=here, so_far=plan, to=place, at=stage: _cut(task, now, so_far, at, to))  # type: ignore[misc]
        plan = Plan.load(_plan_of(place))
        if stage == stages:
            break
        graph = load(place)
        net = trainer.module(graph)
        history += trainer.run(f"stage_{stage}", net, between)["history"]
        trainer.settle(net)
        there = place.with_stem(f"{place.stem}_trained")
        trainer.world.led(lambda net=net, graph=graph, to=there: export.export(net.to("cpu"), graph, to))  # type: ignore[misc]
        here = analyze_alike(there, task.analysis)
    return trained(task, plan, {"history": history})


def _amounts(analysis: Analysis, target: dict[str, Any], share: float) -> dict[str, Bound]:
    """The bounds that lie so far, from 0 to 1, on the geometric way from the whole model to a target."""
    amounts = {}
    for name, (cost, bound) in bounds(analysis, target).items():
        row, start, beside = COSTS.find(name), cost.value(np.ones(analysis.coupling.size)), 0.0
        if row is not None and row.file and analysis.graph.source is not None:
            beside = max(save.size_on_disk(analysis.graph.source) - start, 0.0)
        amounts[name] = stated(row, beside + (start * (bound / start) ** share if bound < start else bound))
    return amounts


def _cut(task: Task[NarrowSettings], here: Analysis, so_far: Plan, stage: int, place: Path) -> None:
    """Choose, cut and repair, and write what is left with the plan of all that went from the original."""
    if task.trainer.training.resume and _done(place):
        return
    wanted = task.wanted
    calibration = Calibration(here.coupling, task.source, REPAIRED_ON)
    chosen = api.plan(
        here,
        _amounts(task.analysis, dict(wanted.target), stage / wanted.stages),
        multiple=wanted.multiple,
        protect=wanted.protect,
        allow_empty=wanted.allow_empty,
        calibration=calibration,
        progress=task.stage("choosing"),
    )
    slimmed = api.slim(here, chosen)
    if not wanted.no_repair:
        slimmed.repair(calibration, seed=task.trainer.training.seed, progress=task.stage("repairing"))
    task.folder.mkdir(parents=True, exist_ok=True)
    slimmed.save(place)
    provenance = {**chosen.provenance, "target": dict(wanted.target), "stages": wanted.stages}
    atomic.write_text(task.folder / "start.json", json.dumps({"weights": "learned"}) + "\n")
    taken = composed(realize(task.analysis, so_far), slimmed.removal)
    atomic.write_text(_plan_of(place), describe(task.analysis, taken, provenance).to_json())
    atomic.write_text(_sums_of(place), "".join(f"{sha256}  {name}\n" for name, sha256 in _sums(place).items()))


def _done(place: Path) -> bool:
    """Whether a stage was cut before it was interrupted: what it wrote has the checksums that it noted last.

    Raises:
        InputError: If it was, and a file is not what was written.
    """
    if not _sums_of(place).is_file():
        return False
    noted = (line.split("  ", 1) for line in _sums_of(place).read_text(encoding="utf-8").splitlines())
    known = {name: sha256 for sha256, name in noted}
    now = _sums(place)
    if changed := sorted(name for name in {*known, *now} if known.get(name) != now.get(name)):
        file = place.parent / changed[0]
        raise InputError(f"⟨resume⟩: {file} is not what the run wrote there. Start again without ⟨resume⟩.")
    return True


def _sums(place: Path) -> dict[str, str]:
    """Checksums of a stage's model and plan, by the files' names."""
    files = [*save.files(place), _plan_of(place)]
    return {file.name: checkpoints.checksum(file) for file in files if file.is_file()}


def _sums_of(place: Path) -> Path:
    return place.with_suffix(".sha256")


def _plan_of(place: Path) -> Path:
    return place.with_suffix(".plan.json")
