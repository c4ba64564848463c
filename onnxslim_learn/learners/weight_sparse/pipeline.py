"""Weight sparsification from one file to another: shares per layer, masks learnt while training, and the result."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from onnxslim_learn.bridge import export
from onnxslim_learn.bridge.initializers import parameters, to_torch
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.finetune import redraw
from onnxslim_learn.learners.weight_sparse.learner import Fixed, WeightSparse
from onnxslim_learn.learners.weight_sparse.settings import WeightSparseSettings
from onnxslim_learn.metrics import Deviation
from onnxslim_learn.quality.detections import Detections
from onnxslim_learn.registry import PROTOCOLS, UNIFORM
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.runtime import atomic
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.sparse import patterns
from onnxslim_learn.sparse.one_shot import OneShot, OneShotSettings, Pruned
from onnxslim_learn.sparse.ratio_search import Dense, Found, search
from onnxslim_learn.sparse.schedule import Schedule
from onnxslim_learn.train import losses
from onnxslim_learn.train.randomness import undisturbed
from onnxslim_learn.workflow.settings import ZeroSettings
from onnxslim_learn.workflow.sparsify import Sparsified, chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import fx

    from onnxslim_learn.sparse.maskable import Layer
    from onnxslim_learn.train.trainer import Task
    from onnxslim_learn.workflow.sparsify import Stored

SEARCHED_ON, PLACES = 512, 16384  # samples to sparsify in one go and to measure curves on; rows of a regression
FINAL = 8  # times the held-back batches of a roll-out decide between the best ones
EPOCHS = 3  # as many times the steps that structure learning takes where nobody says


def run(task: Task[WeightSparseSettings]) -> tuple[Sparsified, Stored] | None:
    """Learn which weights are zero."""
    return sparsen(task, sparse=task.wanted.sparse_initializers, lossless=task.wanted.lossless)


def sparsen(task: Task[WeightSparseSettings], **how: bool) -> tuple[Sparsified, Stored] | None:
    """Learn zeros, and write the sparse, trained model.

    Args:
        task: What to do.
        **how: How to write it, see :meth:`onnxslim_learn.workflow.sparsify.Sparsified.save`.

    Returns:
        What was made, or ``None`` in a process that does not lead.

    Raises:
        InputError, TrainError, VerifyError: In one sentence each; nothing is written then.
    """
    trainer, wanted = task.trainer, task.wanted
    if wanted.one_shot and wanted.from_scratch:
        raise InputError("⟨one_shot⟩: keeps weights, but ⟨from_scratch⟩ draws them anew. Leave one of them out.")
    listed = chosen(task.analysis, patterns.parse(wanted.pattern), wanted.protect)
    shares = _shares(task, listed)
    module = trainer.module(task.analysis, fresh=wanted.from_scratch)
    if wanted.from_scratch:
        redraw(module, trainer.training.seed)
    recipe = replace(trainer.recipe(task.analysis.graph, "steps"), schedule="cosine")
    if trainer.training.steps is None:
        recipe = replace(recipe, steps=EPOCHS * recipe.steps)
    asked = wanted.method
    window = (asked.ws_iter_ratio_beg, asked.ws_iter_ratio_end, asked.ws_prune_ratio_exp, asked.ws_mask_update_step)
    learner = WeightSparse(
        module, listed, shares["ratios"], Schedule(recipe.steps, *window), patterns.parse(wanted.pattern)
    )
    if wanted.one_shot:
        learner = _begun(task, module, learner)
    run = trainer.improve if wanted.one_shot else trainer.run  # without, weights before it have no zeros
    told = run("weight-sparse", module, recipe, learner)
    trainer.settle(module)
    told |= {"search": shares["search"], "result": trainer.judge(module), "learner": task.learner}
    told |= {"settings": asdict(asked), "loss": losses.told(trainer.training.loss), "data": task.source.name}

    def finish() -> tuple[Sparsified, Stored]:
        task.stage("verifying")
        export.export(module.to("cpu"), task.analysis.graph, task.folder / "trained.onnx")
        result = _result(task, learner, shares, told)
        return result, result.save(task.output, **how)

    return trainer.world.led(finish)


def _begun(task: Task[WeightSparseSettings], module: fx.GraphModule, learner: WeightSparse) -> WeightSparse:
    """Give a module the weights of :mod:`onnxslim_learn.sparse.one_shot`, and mask their zeros for good."""
    place = task.folder / "one-shot.onnx"

    def cut() -> None:
        listed = list(learner.layers.values())
        model = _sparsified(task, listed, learner.ratios, _record(task), task.stage("sparsifying"))
        save.staged(model, place.name, task.folder, external=False)

    if not (task.trainer.training.resume and place.is_file()):
        task.trainer.world.led(cut)
    _take_weights(module, ir.load(place))
    learner.keep_zeros()
    return Fixed(learner)


def _sparsified(
    task: Task[WeightSparseSettings],
    listed: Sequence[Layer],
    shares: Mapping[str, float],
    record: Record,
    progress: Callable[[float], None] = lambda share: None,
) -> ir.Model:
    """The original, sparsified in one go."""
    model = slim(task.analysis.whole)
    OneShot(model, listed, record, OneShotSettings(shares, patterns.parse(task.wanted.pattern))).go(progress)
    return model


def _take_weights(module: fx.GraphModule, model: ir.Model) -> None:
    """Give a module the weights of a model."""
    initializers_of_model = model.graph.initializers
    with torch.no_grad():
        for name, parameter in parameters(module).items():
            if name in initializers_of_model and initializers_of_model[name].const_value is not None:
                parameter.copy_(to_torch(initializers_of_model[name].const_value, master=True))  # type: ignore[arg-type]


def _record(task: Task[WeightSparseSettings]) -> Record:
    """What the original does on some samples."""
    analysis = task.analysis
    fitted = min(SEARCHED_ON, task.trainer.samples.count)  # the first: the others judge
    feeds = Calibration(analysis.coupling, task.source, fitted).feeds
    return Record(analysis.graph.model, feeds, -(-PLACES // len(feeds)), 4 if len(feeds) >= 4 else 2)


def _result(
    task: Task[WeightSparseSettings], learner: WeightSparse, shares: dict[str, Any], told: dict[str, Any]
) -> Sparsified:
    """What was made of the file ``trained.onnx`` in the folder."""
    listed = list(learner.layers.values())
    fixed = patterns.parse(task.wanted.pattern).ratio
    ratio = None if fixed is not None else task.wanted.target
    asked = ZeroSettings(ratio, task.wanted.pattern, "training", shares["protocol"], task.wanted.protect)
    result = told["result"]
    apart = {name: Deviation(**one) for name, one in result["outputs"].items()}
    sparsified = Sparsified(
        task.analysis,
        asked,
        listed,
        {layer.name: shares["ratios"][layer.name] for layer in listed},
        shares["protocol"],
        shares["trials"],
        {layer.name: Pruned("training") for layer in listed},
        task.source.used(result["samples"], result["fitted"]),
        apart,
        load(task.folder / "trained.onnx").model,
        told,
        task.source.doubts,
        None if result["detections"] is None else Detections(**result["detections"]),
    )
    for layer in listed:
        mask = learner.masks[layer.name].cpu().numpy()
        assert not sparsified.array(layer)[~mask].any(), "masked weights are zero"
    return sparsified


# --- shares per layer -------------------------------------------------------------------------------------------------


def _shares(task: Task[WeightSparseSettings], listed: list[Layer]) -> dict[str, Any]:
    """Shares per layer, found by the leading process and kept in the folder: ``ratios``, ``protocol``, ``trials``."""
    place = task.folder / "ratios.json"
    task.trainer.world.led(lambda: _choose(task, listed, place))
    shares: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return shares


def _choose(task: Task[WeightSparseSettings], listed: list[Layer], place: Path) -> None:
    choice = {
        "source": task.analysis.graph.digest,
        "wanted": json.loads(json.dumps(asdict(task.wanted))),
        "layers": [layer.name for layer in listed],
    }
    if task.trainer.training.resume and place.is_file():
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["made"] == choice:
            return
        raise InputError(f"⟨resume⟩: {place} is of a run with other settings. Give the same ones.")
    protocol = task.wanted.method.ws_prune_ratio_prtl
    if patterns.parse(task.wanted.pattern).ratio is not None or not 0 < task.wanted.target < 1:
        protocol = UNIFORM  # nothing is left to spread
    chosen = _spread(protocol, task, listed)
    task.folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(
        place, json.dumps({"protocol": protocol, "trials": {}, "search": None, **chosen, "made": choice}) + "\n"
    )


def _spread(protocol: str, task: Task[WeightSparseSettings], listed: list[Layer]) -> dict[str, Any]:
    """Shares of layers by a protocol, and what there is to tell of how they were found."""
    function = PROTOCOLS.load(protocol, "⟨ws_prune_ratio_prtl⟩")
    if not PROTOCOLS.row(protocol).sized:
        spread: dict[str, Any] = function(task, listed)
        return spread
    shares = function([layer.size for layer in listed], task.wanted.target)
    return {"ratios": {layer.name: share for layer, share in zip(listed, shares, strict=True)}}


def by_search(task: Task[WeightSparseSettings], listed: list[Layer]) -> dict[str, Any]:
    """By curves measured on samples, without training."""
    searched = _searched(task, listed, _record(task))
    return {"ratios": searched.ratios, "protocol": searched.protocol, "trials": searched.trials}


def _searched(task: Task[WeightSparseSettings], listed: list[Layer], record: Record) -> Found:
    recipe = OneShotSettings({}, patterns.parse(task.wanted.pattern))
    dense = Dense(task.analysis.whole, listed, record, recipe)
    return search(dense, task.wanted.target, progress=task.stage("measuring"))


def by_agent(task: Task[WeightSparseSettings], listed: list[Layer]) -> dict[str, Any]:
    """By reinforcement learning, from what :func:`by_search` finds."""
    from onnxslim_learn.learners.weight_sparse import ddpg
    from onnxslim_learn.learners.weight_sparse.rollouts import Rollouts

    trainer, wanted = task.trainer, task.wanted
    if trainer.world.size > 1:
        raise InputError(
            "⟨ws_prune_ratio_prtl⟩ optimal: its roll-outs run in one process. Search alone first, then go on with "
            "⟨resume⟩ in several."
        )
    module, record = trainer.module(task.analysis).to(trainer.world.device), _record(task)
    measured = _searched(task, listed, record)
    sizes = [layer.size for layer in listed]
    sized = [row.load()(sizes, wanted.target) for row in PROTOCOLS.values() if row.sized]
    rollouts = Rollouts.of(trainer, module, listed, wanted.method, patterns.parse(wanted.pattern))
    if wanted.one_shot:
        rollouts = replace(
            rollouts, begun=lambda shares: _take_weights(module, _sparsified(task, listed, shares, record))
        )
    known = [[measured.ratios[layer.name] for layer in listed], *sized]
    with undisturbed(trainer.world.device):
        searched = ddpg.optimal(
            ddpg.PruningEnvironment(listed, wanted.method, rollouts.run, known),
            task.folder / "agent",
            again=partial(rollouts.run, times=FINAL) if rollouts.more else None,
            resume=trainer.training.resume,
            seed=trainer.training.seed,
            progress=task.stage("roll-outs"),
        )
    return {"ratios": searched.best["ratios"], "search": asdict(searched), "trials": measured.trials}
