"""The commands that train, from the command line."""

import importlib.util
import json
import shlex
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxslim_learn.cli import commands, parser
from onnxslim_learn.costs.devices import load
from onnxslim_learn.learners import table
from onnxslim_learn.train import checkpoints, loop
from onnxslim_learn.workflow import slim

QUICK = "--steps 12 --finetune-steps 4 --batch-size 8 --no-latency"


@pytest.fixture
def trainable(run):
    """The folder, with samples for residual.onnx."""
    inputs = slim.analyze("residual.onnx").graph.shapes.nominal.inputs
    ((name, shape),) = inputs.items()
    rng = np.random.default_rng(0)
    np.savez("samples.npz", **{name: rng.normal(size=(100, *shape[1:])).astype(np.float32)})
    return run


def test_learn_meets_its_target(trainable):
    code, out, err = trainable(
        "learn residual.onnx -o small.onnx --target macs=0.6 --data samples.npz --json out.json --plan-out p.json "
        + QUICK
    )
    assert (code, err) == (0, "")
    assert "of structure learning on samples.npz" in out
    data = json.loads(Path("out.json").read_text())
    assert data["after"]["macs"] <= 0.6 * data["before"]["macs"]
    assert data["verify"]["passed"]
    assert data["training"]["structure"]["history"][-1]["step"] == 11
    assert data["training"]["result"]["samples"] == 10
    code, out, err = trainable("verify residual.onnx small.onnx --plan p.json")
    assert code == 0
    assert "computes what residual.onnx computes" in out


@pytest.mark.parametrize(
    "how",
    [
        "--target macs=0.6 --finetune-steps 4 --finetune-rate 3",
        "--learner weight-sparse --ws-prune-ratio 0.5 --ws-prune-ratio-prtl uniform --one-shot --learning-rate 3",
    ],
)
def test_training_in_vain_is_told_in_the_end(trainable, how):
    line = f"learn residual.onnx -o new.onnx {how} --norms frozen --steps 12 --batch-size 8 --no-latency"
    code, told, err = trainable(f"{line} --data samples.npz --json -")
    assert (code, err) == (0, "")
    assert any("and was undone" in one for one in json.loads(told)["verdict"]["limited_by"])


def test_options_come_from_a_file_and_the_line_wins(trainable):
    given = ['target = ["macs=0.3"]', "steps = 6", "finetune_steps = 2", "batch-size = 8", "no_latency = true"]
    Path("run.toml").write_text("\n".join(given))
    line = "learn residual.onnx -o small.onnx --config run.toml --steps 4 --data samples.npz --json -"
    code, out, _ = trainable(line)
    assert code == 0
    data = json.loads(out)
    assert data["training"]["structure"]["recipe"]["steps"] == 4
    assert data["training"]["finetune"]["recipe"]["steps"] == 2
    assert data["after"]["macs"] <= 0.3 * data["before"]["macs"]


def test_latency_may_be_what_units_are_charged_for(trainable):
    line = "learn residual.onnx -o small.onnx --target latency=0.7 --device P100 --data samples.npz --json -"
    code, out, err = trainable(f"{line} {QUICK}")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert data["after"]["macs"] < data["before"]["macs"]
    device = load("P100")
    before, after = (slim.analyze(name, device=device).latency for name in ("residual.onnx", "small.onnx"))
    ends = [one.value(np.ones(one.macs.counts.shape[1])) for one in (before, after)]
    assert ends[1] <= 0.7 * ends[0] * (1 + 1e-6)


def test_made_up_inputs_are_called_so(trainable):
    code, out, _ = trainable(f"learn residual.onnx -o small.onnx --target macs=0.6 {QUICK} --samples 24 --json -")
    assert code == 0
    assert "noise" in json.loads(out)["training"]["data"]


BAD = {
    "learn residual.onnx -o x.onnx": "neither --target nor --strength",
    "learn residual.onnx -o x.onnx --target macs=0.5 --strength 1": "--strength two ways",
    "learn residual.onnx -o x.onnx --target macs=0.5 --sweep 3": "--sweep two ways",
    "learn residual.onnx -o x.onnx --strength 1 --cycles 2": "--cycles --target",
    "learn residual.onnx -o x.onnx --target macs=0.5 --resume": "--checkpoint-dir",
    "learn residual.onnx -o x.onnx --target macs=0.5 --loss cross-entropy": "needs labels",
    "learn residual.onnx -o x.onnx --target macs=0.5 --loss mine": "expected distill",
    "learn residual.onnx -o x.onnx --target macs=0.5 --config none.toml": "none.toml: no such file",
    "learn residual.onnx -o x.onnx --target macs=0.5 --force-group nothing": "finds 0 groups",
    "learn residual.onnx -o x.onnx --target macs=0.5 --train-on cuda": "--train-on cpu",
    "learn residual.onnx -o x.onnx --target macs=0.5 --steps 0": "positive whole number",
    "learn residual.onnx -o x.onnx --learner finetune --target macs=0.5": "--target structure learning",
    "learn residual.onnx -o x.onnx --learner finetune --steps 9": "--steps structure learning",
    "learn residual.onnx -o x.onnx --learner finetune --teacher misspelt.onnx": "misspelt.onnx",
    "learn residual.onnx -o x.onnx --learner finetune --teacher none.onnx": "none.onnx",
    "learn residual.onnx -o x.onnx --teacher residual.onnx --strength 1 --loss features": "--teacher another model",
    "learn nothing.onnx -o x.onnx --target macs=0.5": "nothing.onnx",
}


@pytest.mark.parametrize("line", BAD)
def test_what_cannot_be_is_refused_in_one_sentence(refused, line):
    refused(line, 2, BAD[line])


def test_without_torch_it_says_what_to_install(run, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code = commands.main(shlex.split("learn residual.onnx -o x.onnx --target macs=0.5"))
    assert code == 2
    assert capsys.readouterr().err == "onnxslim-learn: learn: needs torch. Install onnxslim-learn[train].\n"


def test_expand_fills_the_budget_of_the_original(run):
    assert run("slim residual.onnx -o small.onnx --target macs=0.5 --no-repair --no-latency")[0] == 0
    code, out, err = run(
        "expand small.onnx -o wide.onnx --target macs=1.0 --like residual.onnx --no-latency --json out.json"
    )
    assert (code, err) == (0, "")
    assert "It computes what it did" in out
    data = json.loads(Path("out.json").read_text())
    assert data["verify"]["passed"]
    assert data["before"]["macs"] < data["after"]["macs"]
    assert data["factor"] > 1
    assert run("expand small.onnx -o fresh.onnx --target macs=1.0 --like residual.onnx --no-latency --fresh")[0] == 0


@pytest.mark.parametrize("budget", ["flops=150%", "macs=1.5"])
def test_expand_to_more_than_the_original(run, budget):
    code, out, err = run(f"expand slim.onnx -o wide.onnx --target {budget} --like residual.onnx --no-latency --json -")
    assert code == 0, err
    data, whole = json.loads(out), slim.analyze("residual.onnx")
    assert code == 0
    assert 1.3 < data["after"]["macs"] / whole.price(whole.whole)["macs"] <= 1.5


def test_expand_without_room_says_so(refused):
    refused("expand residual.onnx -o wide.onnx --target macs=1.0", 1, "no room to grow")


def test_what_was_widened_is_trained_to_do_as_the_original_does(trainable):
    steps = [
        "slim residual.onnx -o small.onnx --target macs=0.5 --no-repair --no-latency",
        "expand small.onnx -o wide.onnx --target macs=1.0 --like residual.onnx --no-latency",
        "learn wide.onnx -o better.onnx --learner finetune --teacher residual.onnx --data samples.npz --batch-size 8 "
        "--finetune-steps 60 --no-latency --json out.json",
    ]
    for line in steps:
        code, out, err = trainable(line)
        assert (code, err) == (0, "")
    assert "of fine-tuning on samples.npz" in out
    assert "computes what" not in out
    data = json.loads(Path("out.json").read_text())
    assert data["after"]["macs"] == data["before"]["macs"]
    assert data["verify"]["passed"]
    told = data["training"]
    assert told["learner"] == "finetune"
    before, after = ([d["relative"] for d in told[side]["outputs"].values()] for side in ("cut", "result"))
    assert all(b < 0.9 * a for a, b in zip(before, after, strict=True))


def test_a_teacher_of_other_classes_is_refused(trainable, refused):
    model = onnx.load("residual.onnx")
    model.graph.initializer.extend([onnx.helper.make_tensor("all but one", 7, [1], [4])])
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["whole" if name == output.name else name for name in node.output]
    for name, value in (("from", 0), ("axis", 1)):
        model.graph.initializer.extend([onnx.helper.make_tensor(name, 7, [1], [value])])
    model.graph.node.append(onnx.helper.make_node("Slice", ["whole", "from", "all but one", "axis"], [output.name]))
    output.type.tensor_type.ClearField("shape")
    onnx.save(model, "other.onnx")
    line = "learn residual.onnx -o x.onnx --learner finetune --teacher other.onnx --data samples.npz"
    refused(line, 2, "--teacher other.onnx shape")


def test_a_sweep_leaves_a_file_for_every_strength(trainable):
    line = "learn residual.onnx -o small.onnx --sweep 3 --strength 3 --optimizer sgd --data samples.npz --html s.html"
    code, out, err = trainable(f"{line} {QUICK} --steps 60 --lr 0.03 --json out.json")
    assert (code, err) == (0, "")
    assert "Strengths" in out
    page = Path("s.html").read_text()
    assert page.count('"kind":"worth keeping"') + page.count('"kind":"beaten"') == 3
    report = json.loads(Path("out.json").read_text())
    rows = report["strengths"]
    timed = " ".join(["profile residual.onnx", *(row["output"] for row in rows if row["output"])])
    assert report["verdict"]["next"]["command"].endswith(timed)
    for row in rows:
        assert ("report" in row) == (row["output"] is not None)
        alone = row.get("report") or row
        assert {cost: alone["after"][cost] for cost in ("macs", "params")} == {
            cost: row["after"][cost] for cost in ("macs", "params")
        }
        assert row["output"] is None or f"<summary>{row['output']}</summary>" in page
    assert page.count("<figcaption>Structure learning, step by step") == sum(row["output"] is not None for row in rows)
    assert [row["strength"] for row in rows] == pytest.approx([0.3, 3, 30])
    macs = [row["after"]["macs"] for row in rows]
    assert macs == sorted(macs, reverse=True)
    assert macs[-1] < macs[0]
    assert any(row["pareto"] for row in rows)
    assert [row["deviation"] is None for row in rows] == [row["output"] is None for row in rows]
    least = min(
        one["explained"] for row in rows if row["output"] for out in row["deviation"].values() for one in out["blocks"]
    )
    assert least == min(row["quality"]["worst"]["explained"] for row in rows if row["output"])
    assert all(row["output"] is None or Path(row["output"]).is_file() for row in rows)


def test_a_sweep_that_leaves_everything_proposes_higher_strengths(trainable):
    line = "learn residual.onnx -o small.onnx --sweep 2 --strength 1e-6 --data samples.npz --steps 2 --no-latency"
    code, out, err = trainable(f"{line} --json -")
    verdict = json.loads(out)["verdict"]
    assert (code, err, verdict["written"]) == (0, "", [])
    assert "--strength 0.0001" in verdict["next"]["command"]


def test_cycles_widen_in_between(trainable):
    line = f"learn residual.onnx -o small.onnx --target macs=0.6 --cycles 2 --data samples.npz {QUICK}"
    code, _, err = trainable(f"{line} --json out.json")
    assert (code, err) == (0, "")
    original, thin, wide, small = (
        slim.analyze(name) for name in ("residual.onnx", "small.thin1.onnx", "small.wide1.onnx", "small.onnx")
    )
    total, *macs = (one.price(one.whole)["macs"] for one in (original, thin, wide, small))
    assert macs[0] <= 0.6 * total
    assert 0.8 * total < macs[1] <= total
    assert macs[2] <= 0.6 * total
    report = json.loads(Path("out.json").read_text())
    assert report["verify"]["passed"]
    (met,) = report["verdict"]["met"]
    assert (met["asked"], met["relative"], met["share"]) == (0.6, True, pytest.approx(macs[2] / total))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = [4, 5]", "steps = [4, 5]: expected one value"),
        ("steps = true", "steps = True: expected a number"),
        ("resume = 1", "resume = 1: expected true or false"),
        ("stepps = 4", "stepps is no option"),
    ],
)
def test_what_the_file_of_options_says_must_fit(trainable, text, words):
    Path("run.toml").write_text(f'target = ["macs=0.5"]\n{text}\n')
    code, _, err = trainable("learn residual.onnx -o small.onnx --config run.toml --data samples.npz")
    assert code == 2
    assert words in err


def test_lists_are_the_parts_of_an_option_that_has_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"--mean": [0.1, 0.2, 0.3], "--input-range": [[0, 1], [0, 2]]}
    Path("run.toml").write_text("mean = [0.1, 0.2, 0.3]\ninput-range = [[0, 1], [0, 2]]\n")
    asked = parser.parse(["learn", "x.onnx", "-o", "y.onnx", "--config", "run.toml"])
    found = table.build(asked.options)[0].samples.reading
    assert [*found.mean] == known["--mean"]
    assert [[*pair] for pair in found.input_range] == known["--input-range"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--target macs=0.5 --pattern 2:4", "--pattern: is for weight-sparse"),
        ("--target macs=1", "--target macs=1: the model meets it as it is"),
        ("--sweep 2 --plan-out p.json", "--plan-out: names one plan"),
        ("--learner finetune --regularizer gates", "--regularizer: is for structure learning"),
        ("--learner weight-sparse --finetune-steps 5", "--finetune-steps: is for training after structure"),
        ("--learner weight-sparse --pattern 2:4 --ws-prune-ratio 0.9", "--ws-prune-ratio: the pattern 2:4 zeroes 0.5"),
        ("--target macs=0.5 --loss tests.cli.test_learn:wrong", "expected one number as a tensor, but got shape (2,"),
        ("--target macs=0.5 --loss tests.cli.test_learn:failing", "it raised KeyError"),
    ],
)
def test_what_would_not_be_looked_at_or_work_is_refused(trainable, line, words):
    steps = "" if "finetune" in line else "--steps 3"
    code, _, err = trainable(f"learn residual.onnx -o s.onnx {line} --data samples.npz --batch-size 8 {steps}")
    assert code == 2, err
    assert words in err
    assert not Path("s.onnx").exists()


def wrong(outputs, portion):
    return next(iter(outputs.values()))


def failing(outputs, portion):
    return outputs["nowhere"]


def test_a_folder_goes_on_with_its_own_run_only(trainable):
    line = f"learn residual.onnx -o s.onnx --target macs=0.6 {QUICK} --checkpoint-dir run"
    assert trainable(f"{line} --data samples.npz")[0] == 0
    first = Path("s.onnx").read_bytes()
    assert trainable(f"{line} --data samples.npz --resume --checkpoint-every 7")[0] == 0
    assert Path("s.onnx").read_bytes() == first
    for other, words in (
        ("--data samples.npz --temperature 1", "--temperature 4.0, not 1.0"),
        ("--data samples.npz --samples 20", "--samples not given, not 20"),
        ("", "data of"),
    ):
        code, _, err = trainable(f"{line} --resume {other}")
        assert code == 2
        assert words in err


def test_an_interrupt_is_heeded_after_a_step_and_a_checkpoint_from_which_the_run_goes_on(trainable, monkeypatch):
    line = f"learn residual.onnx -o s.onnx --target macs=0.6 {QUICK} --data samples.npz --checkpoint-dir"
    assert trainable(f"{line} whole")[0] == 0
    wanted = Path("s.onnx").read_bytes()
    Path("s.onnx").unlink()
    step = loop._Run.step

    def stopped(run, number, *batch):
        if number == 4:
            signal.raise_signal(signal.SIGTERM)
        return step(run, number, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "step", stopped)
        code, _, err = trainable(f"{line} run")
    assert code == 128 + signal.SIGTERM
    said = "interrupted. Given again with --resume, the command goes on from the last checkpoint in run."
    assert err == f"onnxslim-learn: {said}\n"
    assert not Path("s.onnx").exists()
    assert checkpoints.load(Path("run/structure")).facts["step"] == 5
    assert trainable(f"{line} run --resume")[0] == 0
    assert Path("s.onnx").read_bytes() == wanted


def test_cycles_say_what_they_began_with(trainable):
    line = f"learn residual.onnx -o small.onnx --target macs=0.6 --cycles 2 --data samples.npz --json out.json {QUICK}"
    code, out, err = trainable(line)
    assert (code, err) == (0, "")
    told = json.loads(Path("out.json").read_text())["training"]["cycles"]
    found = slim.analyze("residual.onnx")
    assert told["original"]["params"] == found.price(found.whole)["params"]
    assert "small.wide1.onnx, which cycle 2 cut" in out


SHARED = """
<ir_version: 8, opset_import: ["" : {opset}]>
net (float[n,3,6,6] x) => (float[n,5,6,6] y)
<float[8,3,3,3] w1, float[8,8,3,3] w2, float[5,8,1,1] w3, float[8] one, float[8] zero>
{{
    a = Conv<pads: ints = [1,1,1,1]>(x, w1)
    b = BatchNormalization(a, one, zero, zero, one)
    c = Relu(b)
    d = Conv<pads: ints = [1,1,1,1]>(c, w2)
    e = BatchNormalization(d, one, zero, zero, one)
    f = Add(e, b)
    g = Relu(f)
    y = Conv(g, w3)
}}
"""


@pytest.mark.parametrize("opset", [7, 8, 17])
def test_vectors_that_a_fresh_net_shares_may_part_while_it_trains(run, opset):
    """One vector is the scale of two normalisations in the file; trained, they differ, and the result verifies."""
    model, rng = onnx.parser.parse_model(SHARED.format(opset=opset)), np.random.default_rng(0)
    del model.graph.value_info[:]
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (5, 8, 1, 1)}
    arrays = {name: rng.normal(size=shape, scale=0.3).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {"one": np.ones(8, np.float32), "zero": np.zeros(8, np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.save(model, "fresh.onnx")
    x = rng.normal(size=(40, 3, 6, 6)).astype(np.float32)
    np.savez("fresh.npz", x=x, labels=rng.integers(0, 5, (40, 6, 6)))
    for target in ("--learner finetune --finetune-steps 8", f"--target macs=0.6 {QUICK}"):
        line = f"learn fresh.onnx -o s.onnx {target} --data fresh.npz --loss cross-entropy --no-latency --batch-size 8"
        code, _, err = run(line)
        assert (code, err) == (0, "")
        names = [tensor.name for tensor in onnx.load("s.onnx").graph.initializer]
        assert any("~" in name for name in names), "vectors parted"


def test_samples_held_back_are_whole_batches_of_a_model_that_fixes_them(run):
    model = onnx.load("residual.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 8
    del model.graph.value_info[:]
    onnx.save(model, "fixed.onnx")
    ((name, shape),) = slim.analyze("fixed.onnx").graph.shapes.nominal.inputs.items()
    x = np.random.default_rng(0).normal(size=(120, *shape[1:])).astype(np.float32)
    for count, judged in ((40, 0), (120, 8)):
        np.savez("some.npz", **{name: x[:count]})
        line = f"learn fixed.onnx -o s.onnx --target macs=0.6 --data some.npz --json out.json {QUICK}"
        code, _, err = run(line)
        assert (code, err) == (0, "")
        assert json.loads(Path("out.json").read_text())["training"]["result"]["samples"] == judged
