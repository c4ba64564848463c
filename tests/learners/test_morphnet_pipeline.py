"""From a file to a smaller trained one: targets hold, the plan replays, and a killed run ends as a whole one."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from nets.notation import Net
from onnxslim_learn.costs.devices import Device
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.learners.morphnet.pipeline import learn, shrink
from onnxslim_learn.learners.morphnet.settings import MorphNetSettings
from onnxslim_learn.learners.settings import LearnSettings
from onnxslim_learn.report.sections import training as trained
from onnxslim_learn.runtime.settings import RuntimeSettings
from onnxslim_learn.runtime.timing import Ratio
from onnxslim_learn.train import trainer as training_of
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.tensorboard import CELL, LINE, heat_map
from onnxslim_learn.train.trainer import Task, Training, trainer
from onnxslim_learn.workflow import slim, timed

NET = Net(
    """(float[batch, 3, 6, 6] x) => (float[batch, 5] y) {
      a = Conv<pads=[1, 1, 1, 1]>(x, w1)
      n = BatchNormalization(a, s1, t1, m1, v1)
      r = Relu(n)
      b = Conv<pads=[1, 1, 1, 1]>(r, w2, b2)
      q = Relu(b)
      c = Conv<pads=[1, 1, 1, 1], group=8>(r, w3, b3)
      d = Concat<axis=1>(q, c)
      p = GlobalAveragePool(d)
      f = Flatten(p)
      y = Gemm<transB=1>(f, w4, b4)
    }""",
    "w1 8x3x3x3, s1 t1 m1 v1 8, w2 12x8x3x3, b2 12, w3 8x1x3x3, b3 8, w4 5x20, b4 5",
)
"""A normalised convolution into a plain and a depthwise one, joined."""

SAMPLES = 96
COSTS = ("macs", "params", "bytes", "channels", "elements")
KINDS = ("gamma", "group-lasso", "gates")


def quiet(name, *rest):
    return lambda *numbers, **more: None


@pytest.fixture
def prepare(tmp_path):
    """Return a job on the net in a folder."""
    model = tmp_path / "net.onnx"
    onnx.save(NET.build(), model)
    found = slim.analyze(model)
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(SAMPLES, 3, 6, 6)).astype(np.float32), "labels": rng.integers(0, 5, SAMPLES)}
    source = open_source(arrays, found.graph, DataSettings(samples=SAMPLES, batch_size=16))

    def prepare(wanted, stage=quiet, name="run", **training):
        asked = {"steps": 40, "finetune_steps": 10, "batch_size": 16, "every": 6, "folder": tmp_path / name, **training}
        taught = trainer(found, source, Training(**asked), World(), stage=stage)
        return Task(found, source, wanted, taught, tmp_path / f"{name}.onnx", quiet)

    return prepare


def share(task, made, cost):
    price = {"macs", "params", "bytes"} & {cost}
    assert price
    after, before = (task.analysis.price(cut)[cost] for cut in (made.removal, task.analysis.whole))
    return after / before


def test_widths_that_are_slower_are_chosen_again_before_they_are_trained(prepare, monkeypatch, tmp_path):
    """Whether they are is measured, here by one who says so; what a run has chosen stands when it goes on."""
    monkeypatch.setattr(timed, "COARSER", (4,))
    ratios, stages = [Ratio(1.3, 1.2, 1.4), Ratio(0.8, 0.7, 0.9)], []
    monkeypatch.setattr(timed, "briefly", lambda analysis, asked: lambda removal: ratios.pop(0))

    def staged(name, *rest):
        stages.append(name)
        return lambda *numbers, **more: None

    wanted = MorphNetSettings({"macs": 0.7}, least_width=0.0)
    task = replace(prepare(wanted, steps=10, finetune_steps=2), runtime=RuntimeSettings(), stage=staged)
    made, check = shrink(task)
    assert check.passed
    assert made.plan.groups
    assert all(len(kept) % 4 == 0 for kept in made.plan.groups.values())
    assert share(task, made, "macs") <= 0.7
    assert [(one["multiple"], one["ratio"]) for one in made.plan.provenance["timed"]] == [("auto", 1.3), (4, 0.8)]
    assert stages.index("timing widths") < stages.index("cutting")
    assert not ratios
    again = prepare(wanted, steps=10, finetune_steps=2, resume=True)
    assert shrink(replace(again, runtime=RuntimeSettings()))[0].plan.groups == made.plan.groups


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_of_strength_and_cost_meets_its_target(prepare, kind, cost):
    task = prepare(MorphNetSettings({"macs": 0.5}, cost=cost, regularizer=kind, tau=0.1), steps=10, finetune_steps=2)
    made, check = shrink(task)
    assert check.passed
    assert 0.3 < share(task, made, "macs") <= 0.5
    written = slim.analyze(task.output)
    assert written.price(written.whole) == task.analysis.price(made.removal)
    assert slim.verify(task.analysis, task.output, made.plan).passed
    assert slim.verify(task.analysis, task.output, type(made.plan).from_json(made.plan.to_json())).passed


@pytest.mark.parametrize("proximal", [True, False])
def test_the_structure_is_reached_while_learning(prepare, proximal):
    """The cost if the structure were adopted falls to the target before the end, not at one stroke after it."""
    task = prepare(
        MorphNetSettings({"macs": 0.5}, proximal=proximal, threshold=1e-2, multiple=1),
        steps=200,
        optimizer="sgd",
        rate=1e-2,
    )
    told = shrink(task)[0].plan.provenance["training"]["structure"]["history"]
    costs = [one["cost"] for one in told]
    assert costs[0] == 1
    assert costs[-1] < 0.6
    assert len({round(cost, 3) for cost in costs}) > 4


def test_a_strength_that_cuts_nothing_leaves_the_model_as_it_is(prepare, tmp_path):
    task = prepare(MorphNetSettings(strength=1e-9), steps=2)
    made, check = shrink(task)
    assert check.passed
    assert not made.plan.groups
    assert task.output.read_bytes() == (tmp_path / "net.onnx").read_bytes()


def largest(outputs, labels):
    """Mean of the largest number of each row; a metric that needs no labels."""
    assert len(outputs) == len(labels)
    return float(outputs.max(axis=1).mean())


def test_a_metric_is_told_while_training_and_of_the_result(prepare):
    task = prepare(MorphNetSettings({"macs": 0.6}), metric=largest)
    made, _ = shrink(task)
    training = made.plan.provenance["training"]
    assert sum("metric" in h for h in training["structure"]["history"]) == 10
    assert training["result"]["metric"]["name"].endswith("largest")
    assert "largest on samples held back" in str(trained.blocks(training))
    with pytest.raises(InputError, match="top5: no output has classes"):
        prepare(MorphNetSettings({"macs": 0.6}), name="other", metric=failing)


def failing(outputs, labels):
    raise InputError("metric top5: no output has classes for these labels. Give module:function.")


def test_what_a_run_shows_now_and_then(prepare):
    task = prepare(MorphNetSettings(strength=1.0))
    _, _, told = learn(task)
    looks = [h for h in told["history"] if "held" in h]
    assert len(looks) == 10
    assert all(h["alive/w2:0"] <= 12 and 0 <= h["right"] <= 1 for h in looks)


def test_more_strength_leaves_less(prepare):
    found = []
    for strength in (0.1, 1.0):
        task = prepare(
            MorphNetSettings(strength=strength),
            name=f"run{strength}",
            steps=60,
            finetune_steps=2,
            optimizer="sgd",
            rate=0.03,
        )
        try:
            found.append(share(task, shrink(task)[0], "macs"))
        except InputError:
            found.append(1.0)  # nothing died
    assert found[0] > found[1]


def test_a_batch_that_the_file_fixes_is_made_of_portions(tmp_path):
    onnx.save(replace(NET, text=NET.text.replace("batch", "2")).build(), tmp_path / "net.onnx")
    found = slim.analyze(tmp_path / "net.onnx")
    arrays = {"x": np.random.default_rng(0).normal(size=(40, 3, 6, 6)).astype(np.float32)}
    source = open_source(arrays, found.graph, DataSettings(samples=40))
    training = Training(4, 2, 16, folder=tmp_path / "run")
    taught = trainer(found, source, training, World(), stage=quiet)
    made, check = shrink(Task(found, source, MorphNetSettings({"macs": 0.6}), taught, tmp_path / "out.onnx", quiet))
    recipe = made.plan.provenance["training"]["structure"]["recipe"]
    assert (recipe["batch_size"], recipe["accumulate"]) == (16, 8)
    assert check.passed


def test_learning_stops_when_nothing_changes_any_more(prepare):
    task = prepare(MorphNetSettings(strength=1e-6), steps=400, rate=1e-7, optimizer="sgd")
    _, plan, told = learn(task)
    assert told["history"][-1]["step"] == 99  # two windows of fifty steps
    assert not plan.groups


def test_a_run_can_be_watched(prepare):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task = prepare(MorphNetSettings({"macs": 0.5}), steps=10)
    learn(task)
    events = EventAccumulator(str(task.folder / "structure" / "events"), {"images": 0})
    events.Reload()
    assert {"loss", "distill", "term", "cost", "alive"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("loss")) == 10
    assert "strengths/w1:0" in events.Tags()["histograms"]
    assert len(events.Images("alive")) == 10


def test_a_picture_is_the_darker_the_more_there_is():
    columns = [{"alive/a": 8.0, "alive/b": 0.5}, {"alive/a": 2.0, "alive/b": 0.0}]
    picture = heat_map(columns).astype(int)
    left = picture.shape[1] - CELL * 4
    cells = [[picture[LINE * line + 2, left + CELL * time + 2, 0] for time in (0, 1)] for line in (0, 1)]
    assert cells == [[0, 191], [128, 255]]


def test_a_killed_run_ends_as_a_whole_one(prepare):
    wanted = MorphNetSettings({"macs": 0.6})
    whole = prepare(wanted, name="whole")
    made, _ = shrink(whole)

    class Killed(Exception):
        pass

    def killing(stage, at):
        def begun(name):
            def show(share, numbers):
                if round(share * {"structure": 40, "finetune": 10}[name]) == at + 1:
                    raise Killed

            return show if name == stage else quiet(name)

        return begun

    for stage, at in (("structure", 27), ("finetune", 7)):
        with pytest.raises(Killed):
            shrink(prepare(wanted, killing(stage, at), "killed", resume=stage == "finetune"))
    again = prepare(wanted, name="killed", resume=True)
    goes_on, _ = shrink(again)
    assert again.output.read_bytes() == whole.output.read_bytes()
    histories = [one.plan.provenance["training"]["structure"]["history"] for one in (goes_on, made)]
    assert histories[0] == histories[1], "what is steered by is kept, too"


def test_structures_are_kept_while_learning(prepare):
    task = prepare(MorphNetSettings({"macs": 0.5}))
    shrink(task)
    folder = task.folder / "learned_structure"
    steps = sorted(int(file.name.removeprefix("alive_")) for file in folder.glob("alive_[0-9]*"))
    assert steps == [6, 12, 18, 24, 30, 36, 40]
    alive = json.loads((folder / "alive_40").read_text())
    assert set(alive) == {"a", "b", "c"}
    assert alive["a"] == alive["c"] <= 8
    plan = json.loads((folder / "plan_40.json").read_text())
    assert plan["provenance"]["step"] == 40


def test_from_scratch_forgets_the_weights(prepare):
    task = prepare(MorphNetSettings({"macs": 0.5}, from_scratch=True), finetune_steps=0)
    made, check = shrink(task)
    assert check.passed
    told = made.plan.provenance["training"]
    assert told["result"]["outputs"]["y"]["relative"] > 0.5


def test_what_cannot_be_is_refused(prepare):
    with pytest.raises(InputError, match="neither target nor strength"):
        MorphNetSettings().check(LearnSettings())
    with pytest.raises(InputError, match="gates go by gradients"):
        shrink(prepare(MorphNetSettings({"macs": 0.5}, regularizer="gates", proximal=True)))
    with pytest.raises(InputError, match="no group matches"):
        shrink(prepare(MorphNetSettings({"macs": 0.5}, protect=["nothing"])))
    with pytest.raises(TargetError, match="cannot be reached"):
        shrink(prepare(replace(MorphNetSettings(), target={"macs": 1e-5}), steps=2))


RECURRENT = Net(
    """(float[6, batch, 5] x) => (float[6, batch, 3] y) {
      w = Concat<axis=1>(w1, w2)
      s, h, c = LSTM<hidden_size=8>(x, w, r)
      q = Squeeze(s, [1])
      y = MatMul(q, w3)
    }""",
    "w1 1x16x5, w2 1x16x5, r 1x32x8, w3 8x3",
)
"""A cell whose weights are put together while it runs."""


@pytest.mark.parametrize("net", [NET, RECURRENT], ids=["scaled", "recurrent"])
def test_gates_are_the_default_where_units_have_no_scales(tmp_path, net):
    onnx.save(net.build(), tmp_path / "net.onnx")
    analysis = slim.analyze(tmp_path / "net.onnx")
    source, training = synthetic(analysis.coupling, DataSettings(samples=40)), Training(4, 2, 16, folder=tmp_path)
    wanted = MorphNetSettings({"params": 0.7}, multiple=1)
    taught = trainer(analysis, source, training, World(), stage=quiet)
    job = Task(analysis, source, wanted, taught, tmp_path / "out.onnx", quiet)
    cut, check = shrink(job)
    assert check.passed
    provenance, gates = cut.plan.provenance, net is RECURRENT
    assert provenance["regularizer"] == ("gates" if gates else "gamma")
    lines = trained.gated(provenance["training"]["structure"])
    assert len(lines) == gates
    assert all("have no scales" in line for line in lines)
    if gates:
        with pytest.raises(InputError, match=r"no weight makes the units alone. Use regularizer gates"):
            learn(replace(job, wanted=replace(wanted, regularizer="gamma")))
        with pytest.raises(InputError, match=r"gates go by gradients"):
            learn(replace(job, wanted=replace(wanted, proximal=True)))


def test_widths_for_a_latency_are_on_the_steps_of_kernels(tmp_path, prepare):
    task = prepare(MorphNetSettings({"latency": 0.7}), steps=10, finetune_steps=2)
    machine = Device("made up", 1, 1, node_us=0.1, run_us=0.1, steps={"Conv": 4, "depthwise": 4})
    task = replace(task, analysis=slim.analyze(tmp_path / "net.onnx", device=machine))
    made, check = shrink(task)
    assert check.passed
    assert made.plan.groups
    assert all(len(kept) % 4 == 0 for kept in made.plan.groups.values())
    assert made.analysis.latency.value((~made.removal.gone).astype(float)) <= 0.7 * task.analysis.latency.value(
        np.ones(task.analysis.coupling.size)
    )


def test_widths_that_steps_do_not_leave_are_not_learnt(tmp_path, prepare):
    task = prepare(MorphNetSettings({"latency": 0.7}), steps=10, finetune_steps=2)
    machine = Device("made up", 1, 1, node_us=0.1, run_us=0.1, steps={"Conv": 64, "depthwise": 64})
    found = slim.analyze(tmp_path / "net.onnx", device=machine)
    made, _ = shrink(replace(task, analysis=found))
    widths = {len(kept) for kept in made.plan.groups.values()}
    assert widths
    assert max(widths) < 12


@pytest.mark.parametrize("few", [False, True])
def test_fine_tuning_that_makes_it_worse_is_taken_back(few, prepare, monkeypatch):
    """Of few samples held back nothing is said; but there are those that it was trained on."""
    monkeypatch.setattr(training_of, "ENOUGH", 10**6 if few else 1)
    task = prepare(MorphNetSettings({"macs": 0.6}), finetune_steps=20, finetune_rate=3.0, norms="frozen")
    made, _ = shrink(task)
    training = made.plan.provenance["training"]
    held = training["finetune"]["held"]
    assert held["after"] > held["before"] and held["kept"] == "before"
    assert held["trained_on"] == few
    assert training["result"] == training["cut"]
    assert any("and was undone" in line for line in trained._said(training))
    better, _ = shrink(prepare(MorphNetSettings({"macs": 0.6}), name="better", finetune_steps=20, finetune_rate=1e-4))
    told = better.plan.provenance["training"]["finetune"]["held"]
    assert told["after"] < 1.1 * told["before"] and told["before"] == held["before"] and told["kept"] == "after"
