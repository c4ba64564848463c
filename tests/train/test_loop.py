"""The training loop: it learns, it goes on where it stopped, and portions of a batch are the batch."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import onnxslim_learn as osl
from nets.notation import Net
from onnxslim_learn.analysis import analyze
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.errors import InputError, TrainError
from onnxslim_learn.train import losses
from onnxslim_learn.train import samples as pool
from onnxslim_learn.train.loop import Keeping, Learner, LoopTask, _Run, train
from onnxslim_learn.train.not_finite import LOSS, origin
from onnxslim_learn.train.optimizer import Recipe
from onnxslim_learn.train.teacher import Teacher

NET = Net(
    """(float[batch, 3, 6, 6] x) => (float[batch, 5] y) {
      a = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)
      n = BatchNormalization(a, s, t, m, v)
      r = Relu(n)
      p = GlobalAveragePool(r)
      f = Flatten(p)
      y = Gemm<transB=1>(f, w2, b2)
    }""",
    "w1 8x3x3x3, b1 8, s t m v 8, w2 5x8, b2 5",
)


@pytest.fixture(scope="module")
def found():
    return analyze(NET.build())


def task(found, *, spec="distill", norms="frozen", count=40, **settings):
    """A net whose weights were shaken, to be taught by what it was."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3, 6, 6)).astype(np.float32)
    module, teacher = bridge(found, norms=norms), Teacher(bridge(found))
    arrays = {"x": x, "labels": teacher({"x": torch.from_numpy(x)})["y"].argmax(1).numpy()}
    samples, _ = pool.gather(open_source(arrays, found.graph, DataSettings(samples=count)), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    recipe = Recipe(**{"steps": 30, "batch_size": 8, "rate": 1e-2, **settings})
    objective = losses.objective(spec, teacher.kinds(samples), labelled=samples.labelled)
    return LoopTask(module, objective, samples, teacher, recipe)


def weights(one):
    return {name: value.clone() for name, value in one.module.state_dict().items()}


def assert_same(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("spec", ["distill", "cross-entropy", "distill=0.5,cross-entropy=2"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_loss_falls(found, spec, optimizer):
    history = train(task(found, spec=spec, optimizer=optimizer, norms="batch", steps=60))
    assert np.mean([h["loss"] for h in history[-8:]]) < 0.8 * np.mean([h["loss"] for h in history[:8]])


class Noisy(Learner):
    """Adds noise by chance, and counts in its state."""

    def __init__(self, module):
        self.module, self.sum = module, torch.zeros(())

    def loss(self, step):
        return sum(p.abs().sum() for p in self.module.parameters()) * torch.rand(()) * 1e-2

    def updated(self, step, rate):
        self.sum = self.sum + torch.rand(())

    def state(self):
        return {"sum": self.sum}

    def load(self, state):
        self.sum = state["sum"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("norms", ["batch", "frozen"])
def test_a_run_that_was_killed_goes_on_with_the_same_numbers(found, tmp_path, optimizer, norms):
    whole = task(found, optimizer=optimizer, norms=norms)
    learner = Noisy(whole.module)
    history = train(whole, learner, Keeping(tmp_path / "whole", every=4))

    def kill(step, numbers):
        if step == 18:
            raise Killed

    keeping = Keeping(tmp_path / "killed", every=4, show=kill)
    stopped = task(found, optimizer=optimizer, norms=norms)
    with pytest.raises(Killed):
        train(stopped, Noisy(stopped.module), keeping)
    resumed = task(found, optimizer=optimizer, norms=norms)
    again = Noisy(resumed.module)
    assert train(resumed, again, replace(keeping, resume=True, show=lambda step, numbers: None)) == history
    assert_same(weights(whole), weights(resumed))
    assert torch.equal(learner.sum, again.sum)
    assert not list(tmp_path.rglob("*.part"))


def test_a_run_is_looked_at_now_and_then_and_says_where_it_goes_on(found, tmp_path):
    class Counting(Learner):
        def parts(self):
            return {"alive/a": 8.0}

    seen, begun = [], []
    keeping = Keeping(tmp_path / "run", every=20, begin=begun.append, look=lambda: {"held": 1.0})
    keeping = replace(keeping, show=lambda step, numbers: seen.append(step) if "held" in numbers else None)
    history = train(task(found, steps=20), Counting(), keeping)
    assert seen == list(range(1, 20, 2))
    assert [h["step"] for h in history if "alive/a" in h] == seen
    train(task(found, steps=20), Counting(), replace(keeping, resume=True))
    assert begun == [0, 20]


def test_a_finished_run_is_not_run_again(found, tmp_path):
    whole = task(found)
    history = train(whole, keeping=Keeping(tmp_path))
    again = task(found)
    seen = []
    keeping = Keeping(tmp_path, resume=True, show=lambda step, numbers: seen.append(step))
    assert train(again, keeping=keeping) == history
    assert not seen
    assert_same(weights(whole), weights(again))


def test_a_checkpoint_of_other_settings_is_refused(found, tmp_path):
    train(task(found, steps=4), keeping=Keeping(tmp_path))
    with pytest.raises(InputError, match="steps 4, not 5"):
        train(task(found, steps=5), keeping=Keeping(tmp_path, resume=True))


def test_portions_of_a_batch_are_the_batch(found):
    one, two = task(found, optimizer="sgd"), task(found, optimizer="sgd", accumulate=4)
    train(one)
    train(two)
    assert_same(weights(one), weights(two), 1e-5)


def test_every_epoch_shows_every_sample_once(found):
    samples = task(found).samples
    epochs = [[samples.rows(epoch * 5 + k, 8, 3)[1] for k in range(5)] for epoch in range(2)]
    for epoch in epochs:
        assert sorted(np.concatenate(epoch)) == list(range(40))
    assert not np.array_equal(epochs[0], epochs[1])


def test_what_the_teacher_knows_ahead_is_what_it_says(found):
    one = task(found)
    inputs, _ = pool.tensors(one.samples.take(0, np.arange(5, 9)), torch.device("cpu"))
    live = one.teacher.outputs(0, np.arange(5, 9), inputs)["y"]
    one.teacher.look_ahead(one.samples, 100)
    assert one.teacher.known
    torch.testing.assert_close(one.teacher.outputs(0, np.arange(5, 9), inputs)["y"], live)


def test_a_loss_that_is_not_finite_is_said(found):
    with pytest.raises(TrainError, match="Use a lower learning_rate"):
        train(task(found, optimizer="sgd", rate=1e12, clip=0.0))


def test_what_is_not_finite_is_told_by_its_node():
    net = Net("(float[batch, 4] x) => (float[batch, 3] y) { s = Mul(x, v) l = Log(s) y = MatMul(l, w) }", "v 4, w 4x3")
    module = bridge(analyze(net.build()))
    names = dict(module.named_parameters())
    portion = pool.Portion({"x": torch.full((2, 4), 0.5)}, None, {})
    squares, roots = (losses.objective(loss, {}) for loss in (squared, rooted))
    with torch.no_grad():
        names["v"].fill_(1.0)
    assert origin(module, squares, portion) == ""
    assert origin(module, roots, portion) == LOSS  # the slope of a root at nothing
    with torch.no_grad():
        names["v"].fill_(-1.0)
    assert "(Log)" in origin(module, squares, portion)
    with torch.no_grad():
        names["w"].fill_(torch.inf)
    assert origin(module, squares, portion) == "weight w"


def squared(outputs, portion):
    return outputs["y"].square().sum()


def rooted(outputs, portion):
    return (outputs["y"] - outputs["y"].detach()).abs().sum().sqrt()


def test_a_gradient_that_is_not_finite_stops_a_run(found):
    with pytest.raises(TrainError, match="gradient became nan at step 0: numbers of the loss function"):
        train(task(found, spec=rooted, optimizer="sgd", rate=1e-3, clip=0.0))


def test_how_tensors_lie_in_memory_changes_nothing(found):
    usual, last = (train(task(found, channels_last=how, norms="batch")) for how in (False, True))
    assert [h["loss"] for h in last] == pytest.approx([h["loss"] for h in usual], rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_what_single_does(found, precision):
    half, usual = (train(task(found, precision=name, steps=60)) for name in (precision, "fp32"))
    assert half[0]["loss"] == pytest.approx(usual[0]["loss"], rel=0.03)
    assert half[-1]["loss"] == pytest.approx(usual[-1]["loss"], rel=0.2)


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_goes_on_with_the_run(found, tmp_path):
    first = task(found, precision="fp16", steps=6)
    run = _Run(first, Learner(), Keeping(tmp_path))
    run.step(0, run.steps[0])
    before = weights(first)
    run.precision.scaler.update(1e30)  # more than any gradient bears
    run.step(1, run.steps[1])
    assert_same(weights(first), before)
    run.done = 2
    run._keep()
    other = _Run(task(found, precision="fp16", steps=6), Learner(), Keeping(tmp_path, resume=True))
    assert other._resume() == 2
    assert other.precision.scaler.get_scale() == run.precision.scaler.get_scale() < 1e30


@pytest.mark.slow
def test_a_compiled_step_is_the_step(found, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # no compiler is needed
    compiled, usual = (train(task(found, compile=how, steps=4)) for how in (True, False))
    assert [h["loss"] for h in compiled] == pytest.approx([h["loss"] for h in usual], rel=1e-4)


def test_distillation_is_the_divergence(found):
    logits, other = torch.randn(6, 5), torch.randn(6, 5)
    portion = pool.Portion({}, None, {"y": logits})
    known = {"y": losses.taught(logits)}
    p, q = (torch.softmax(x.double() / 2, 1) for x in (logits, other))
    wanted = (p * (p / q).log()).sum(1).mean() * 4
    torch.testing.assert_close(
        losses.distillation({"y": other}, portion, known=known, temperature=2.0).double(), wanted, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (torch.randn(9, 4), "logits"),
        (torch.softmax(torch.randn(9, 4), 1), "probabilities"),
        (torch.nn.functional.normalize(torch.randn(9, 4)), "numbers"),
        (torch.randn(9, 1), "numbers"),
        (torch.randn(9, 4, 2), "numbers"),
        (torch.rand(9, 4), "labels"),
        (torch.softmax(torch.randn(9, 4, 2), 2), "probabilities"),
        (torch.randn(9, 4).log_softmax(1), "logits"),
    ],
)
def test_outputs_are_told_apart(target, kind):
    assert losses.taught(target).kind == kind


@pytest.mark.parametrize("kind", ["logits", "probabilities", "labels"])
def test_tokens_are_compared_one_by_one_and_what_is_the_same_is_at_no_distance(kind):
    """The distance of a sequence is that of its tokens as samples."""
    make = {"logits": lambda x: x, "probabilities": lambda x: x.softmax(-1), "labels": torch.sigmoid}[kind]
    target, other = make(torch.randn(5, 3, 4)), make(torch.randn(5, 3, 4))
    known = {"y": losses.Taught(kind, 1.0)}

    def distance(output, target):
        return losses.distillation({"y": output}, pool.Portion({}, None, {"y": target}), known=known)

    torch.testing.assert_close(distance(other, target), distance(other.reshape(15, 4), target.reshape(15, 4)))
    assert float(distance(target, target)) == pytest.approx(0, abs=1e-5)
    assert float(distance(other, target)) > 0.01


def test_labels_that_stand_alone_are_at_the_sum_of_their_divergences():
    p, q = torch.rand(6, 3).double(), torch.rand(6, 3).double()
    wanted = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean()
    portion, known = pool.Portion({}, None, {"y": p}), {"y": losses.Taught("labels", 1.0)}
    torch.testing.assert_close(
        losses.distillation({"y": q}, portion, known=known).double(), wanted, rtol=1e-4, atol=1e-5
    )


def double(outputs, portion):
    return 2 * outputs["y"].square().mean()


def test_the_loss_may_be_the_users(found):
    ((weight, loss),) = losses.objective("tests.train.test_loop:double=3", {}).terms.values()
    assert weight == 3
    assert loss({"y": torch.ones(2, 2, requires_grad=True)}, None) == 2


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("cross-entropy", "needs labels"),
        ("nothing", "expected distill, features, cross-entropy, mse"),
        ("distill=-1", "is no weight"),
        ("distill", "no output of floats"),
        ("tests.none:loss", "cannot be imported"),
        ("nets.notation:Net,nets.notation:Net=2", "twice"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(spec, said):
    with pytest.raises(InputError, match=said):
        losses.objective(spec, {})


@pytest.mark.slow
def test_where_numbers_decide_how_many_rows_there_are_tensors_inside_are_compared(tmp_path):
    text = """(float[n,6] x) => (float[k,3] y) {
        h = MatMul(x, w0) r = Relu(h) z = MatMul(r, w1) s = ReduceSum<keepdims=0>(z, [1]) o = Greater(s, {0.0})
        y = Compress<axis=0>(z, o)
    }"""
    model, told = Net(text, "w0 6x12, w1 12x3").build(), []
    settings = {"macs": 0.6, "steps": 4, "finetune_steps": 4, "samples": 24, "no_latency": True}
    osl.learn(model, output=tmp_path / "m.onnx", progress=lambda stage, *_: told.append(stage), **settings)
    assert any("tensors inside are compared" in stage for stage in told)


def test_samples_that_are_read_ahead_are_those_of_their_steps(found):
    histories = [train(task(found, steps=6, accumulate=2), None, Keeping(workers=workers)) for workers in (0, 2)]
    assert histories[0] == histories[1]
