"""A net that onnxruntime has fused learns what the plain one learns: the same widths, zeros and losses.

With plain gradient steps: the first loss of a net that is its own teacher is zero, and AdamW makes whole steps of the
rounding errors that are its gradient. A net with batch normalisations has parameters that a fused one lacks, and learns
otherwise; it is compared as onnxruntime has put them into the layers before.
"""

import functools

import numpy as np
import onnx
import pytest

from onnxslim_learn.coupling import roles
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.learners.morphnet.pipeline import learn, shrink
from onnxslim_learn.learners.morphnet.settings import REGULARIZERS, MorphNetSettings
from onnxslim_learn.learners.weight_sparse.learner import WeightSparse
from onnxslim_learn.sparse import patterns
from onnxslim_learn.sparse.maskable import layers
from onnxslim_learn.sparse.schedule import Schedule
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.trainer import Task, Training, trainer
from onnxslim_learn.workflow import slim
from onnxslim_learn.workflow.widen import growable, widen
from tests.test_fused import HALVES, analysed, free

SAMPLES, STEPS, TARGET = 64, 20, {"macs": 0.6}
CLOSE = 2e-2  # of a loss: the first ones are differences of outputs that are nearly equal

FEW = {"attention"}
NAMES = [
    pytest.param(name, marks=() if name in FEW else pytest.mark.slow)
    for name in ("attention", "residual", "depthwise", "squeeze_excite_gemm", "transformer", "inverted_residual")
]
LEVELS = ["basic", "extended"]


def base(name):
    """Return the form that others are compared with."""
    nodes = analysed(name, "plain").graph.nodes
    stored = [norm for node in nodes if (norm := roles.normalisation(node)) is not None and norm.stored]
    return "basic" if stored else "plain"


def quiet(*args, **told):
    return lambda *numbers, **more: None


def taught(name, level, folder):
    analysis = analysed(name, level)
    sample = analysis.graph.shapes.analysis
    batches = [random_inputs(analysis.coupling, sample, seed) for seed in range(SAMPLES)]
    data = {value: np.concatenate([batch[value] for batch in batches])[:SAMPLES] for value in batches[0]}
    source = open_source(data, analysis.graph, DataSettings(samples=SAMPLES))
    asked = Training(
        optimizer="sgd", batch_size=16, steps=STEPS, finetune_steps=2, every=5, folder=folder, finetune_rate=1e-3
    )
    return trainer(analysis, source, asked, World(), stage=quiet), source


def history(told):
    return [entry["loss"] for entry in told["history"]]


@functools.cache
def learnt(name, level, regularizer, folder):
    """Return widths of all groups before and after, and the losses on the way."""
    analysis = analysed(name, level)
    wanted = MorphNetSettings(TARGET, regularizer=regularizer, multiple=1)
    task, source = taught(name, level, folder / f"{name}-{level}-{regularizer}")
    plan, told = learn(Task(analysis, source, wanted, task, folder / "out.onnx", quiet))[1:]
    widths = [(g.width, len(plan.groups.get(g.name, range(g.width)))) for g in free(analysis)]
    return sorted(widths), history(told)


@functools.cache
def zeroed(name, level, folder):
    """Return the masks of all weights by size, and the losses on the way."""
    analysis, (task, _) = analysed(name, level), taught(name, level, folder / f"{name}-{level}-zeros")
    module = task.module(analysis)
    listed = layers(analysis.graph.model)
    ratios = dict.fromkeys([layer.name for layer in listed], 0.5)
    sparse = WeightSparse(module, listed, ratios, Schedule(STEPS, every=5), patterns.Pattern())
    told = task.run("zeros", module, task.recipe(analysis.graph, "steps"), sparse)
    return sorted((mask.numel(), int(mask.sum())) for mask in sparse.masks.values()), history(told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("learnt")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_fused_net_learns_the_widths_of_the_plain_one(name, regularizer, level, folder):
    widths, losses = learnt(name, level, regularizer, folder)
    wanted, plain = learnt(name, base(name), regularizer, folder)
    assert any(after < before for before, after in widths)
    assert widths == wanted
    assert losses == pytest.approx(plain, rel=CLOSE, abs=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_a_fused_net_learns_the_zeros_of_the_plain_one(name, level, folder):
    masks, losses = zeroed(name, level, folder)
    wanted, plain = zeroed(name, base(name), folder)
    assert masks == wanted
    assert losses == pytest.approx(plain, rel=CLOSE, abs=1e-6)
    assert losses[-1] > 0


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_a_fused_net_grows_as_the_plain_one(name, level):
    def grown(analysis):
        growth = widen(analysis, growable(analysis, analysis.groups), 1.5)
        return [analysis.costs[cost].value(growth.copies.astype(float)) for cost in ("macs", "params")]

    assert grown(analysed(name, level)) == grown(analysed(name, base(name)))


@pytest.mark.parametrize("name", [*NAMES, "half", pytest.param(f"transformer{HALVES}", marks=pytest.mark.slow)])
def test_what_a_fused_net_learnt_is_written(name, tmp_path):
    task, source = taught(name, "extended", tmp_path / "run")
    analysis = analysed(name, "extended")
    written = tmp_path / "learnt.onnx"
    made, check = shrink(Task(analysis, source, MorphNetSettings(TARGET, multiple=1), task, written, quiet))
    assert check.passed
    again = slim.analyze(written)
    assert again.price(again.whole) == analysis.price(made.removal)
    assert slim.verify(analysis, written, made.plan).passed
    before, after = (
        {tensor.name: tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
        for model in (onnx.ModelProto.FromString(analysis.graph.data), onnx.load(written))
    )
    assert after == before
