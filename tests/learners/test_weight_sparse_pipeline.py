"""From one file to a sparse one: roll-outs, every protocol, from scratch, and the command."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from nets.notation import Net
from onnxslim_learn.analysis import analyze
from onnxslim_learn.cli import commands
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.learners.weight_sparse.rollouts import Rollouts, judged, readers
from onnxslim_learn.learners.weight_sparse.settings import settings
from onnxslim_learn.sparse import layer_ratios, patterns, storage
from onnxslim_learn.sparse.maskable import layers
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.trainer import Training, trainer
from tests.train.test_loop import NET

DEEP = Net(
    """(float[batch, 3, 6, 6] x) => (float[batch, 5] y) {
      a = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)
      r = Relu(a)
      c = Conv<pads=[1, 1, 1, 1]>(r, w2, b2)
      q = Relu(c)
      p = GlobalAveragePool(q)
      f = Flatten(p)
      y = Gemm<transB=1>(f, w3, b3)
    }""",
    "w1 8x3x3x3, b1 b2 8, w2 8x8x3x3, w3 5x8, b3 5",
)


def samples(count=128):
    x = np.random.default_rng(0).normal(size=(count, 3, 6, 6)).astype(np.float32)
    return x


def taught(found, tmp_path, count=128):
    source = open_source({"x": samples(count)}, found.graph, DataSettings(samples=count))
    training = Training(batch_size=16, folder=tmp_path)
    return trainer(found, source, training, World(), stage=lambda name: lambda *a: None)


@pytest.fixture
def rollouts(tmp_path):
    found = analyze(DEEP.build())
    made = taught(found, tmp_path)

    def start(**given):
        asked = settings({"ws_nb_iters_ft": 0, "ws_nb_iters_rg": 0, **given})
        return Rollouts.of(made, made.module(found), layers(found.graph.model), asked, patterns.Pattern())

    return start


SHARES = {"w1": 0.5, "w2": 0.6, "w3": 0.5}


def masked(one):
    return {name: (value != 0) for name, value in one.module.state_dict().items() if name in SHARES}


def test_a_roll_out_masks_exactly_whatever_it_trains(rollouts):
    for given in ({}, {"ws_nb_iters_rg": 5}, {"ws_nb_iters_ft": 5}):
        one = rollouts(**given)
        one.run(SHARES)
        for name, kept in masked(one).items():
            assert int((~kept).sum()) == round(SHARES[name] * kept.numel())
            smallest = one.dense[name].abs()[~kept].max()
            assert smallest <= one.dense[name].abs()[kept].min(), "by the pretrained weights"


def test_a_roll_out_starts_from_the_pretrained_weights(rollouts):
    one = rollouts(ws_nb_iters_rg=5, ws_nb_iters_ft=5)
    first = one.run(SHARES)
    one.run(dict.fromkeys(SHARES, 0.9))
    assert one.run(SHARES) == first
    plain = rollouts()
    assert plain.run(dict.fromkeys(SHARES, 0.0)) == 1.0
    assert all(torch.equal(plain.module.state_dict()[name], value) for name, value in plain.dense.items())


def test_regression_brings_layers_nearer_and_touches_their_weights_alone(rollouts):
    inputs = torch.from_numpy(samples())

    def distance(one):
        with torch.no_grad():
            found = one.module(inputs)["y"]
            one.module.load_state_dict(one.dense)
            return float((found - one.module(inputs)["y"]).norm())

    plain, better = rollouts(), rollouts(ws_nb_iters_rg=40, ws_lrn_rate_rg=1e-2)
    for one in (plain, better):
        one.run(SHARES)
    for name in ("b1", "b2", "b3"):
        assert torch.equal(better.module.state_dict()[name], better.dense[name])
    assert distance(better) < 0.8 * distance(plain)


def test_every_layer_is_found_in_the_module(rollouts):
    from onnxslim_learn.learners.weight_sparse.learner import WeightSparse
    from onnxslim_learn.sparse.schedule import Schedule

    one = rollouts()
    learner = WeightSparse(one.module, one.layers, SHARES, Schedule(1))
    assert sorted(readers(one.module, learner).values()) == ["w1", "w2", "w3"]


def test_a_roll_out_may_begin_with_what_is_sparsified_in_one_go(rollouts):
    one, asked = rollouts(ws_nb_iters_rg=5), []

    def begun(shares):
        asked.append(shares)
        with torch.no_grad():
            for name in shares:
                weight = one.module.get_parameter(one.module.meta["initializers"][name])
                weight.copy_(2 * weight * (torch.arange(weight.numel()).reshape(weight.shape) % 2))

    replace(one, begun=begun).run(SHARES)
    assert asked == [SHARES]
    for name, weight in one.module.state_dict().items():
        even = torch.arange(weight.numel()).reshape(weight.shape) % 2
        assert torch.equal(weight, 2 * one.dense[name] * even if name in SHARES else one.dense[name])


def test_scores_lie_between_zero_and_one():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    assert judged({"y": logits}, {"y": logits}, None) == pytest.approx(1)
    common = torch.minimum(logits.softmax(1), (-logits).softmax(1)).sum(1).mean()  # one less the total variation
    assert judged({"y": logits}, {"y": -logits}, None) == pytest.approx(float(common))
    assert judged({"y": logits}, {"y": -logits}, torch.tensor([0, 0])) == 0.5
    numbers = torch.ones(2, 3, 4)
    assert judged({"y": numbers}, {"y": numbers}, None) == 1
    assert judged({"y": 2 * numbers}, {"y": numbers}, None) == pytest.approx(0.5)


@pytest.fixture
def learn(tmp_path, monkeypatch, capsys):
    """Run the command on a small net and its samples; returns its JSON and the arrays of what it wrote."""
    monkeypatch.chdir(tmp_path)
    onnx.save(NET.build(), "net.onnx")
    x = samples(96)
    np.savez("data.npz", x=x, labels=np.random.default_rng(1).integers(0, 5, len(x)))

    def run(line, code=0):
        start = "learn net.onnx -o new.onnx --learner weight-sparse --data data.npz --no-latency --json -"
        found = commands.main([*start.split(), "--batch-size", "16", *line.split()])
        out, err = capsys.readouterr()
        assert found == code, err
        if code:
            return err
        arrays = {
            t.name: onnx.numpy_helper.to_array(t) for t in storage.inside(tmp_path / "new.onnx").graph.initializer
        }
        return json.loads(out), arrays

    return run


QUICK = "--ws-nb-rlouts 4 --ws-nb-rlouts-min 2 --ws-nb-iters-rg 2 --ws-nb-iters-ft 2 --ws-nb-iters-feval 1"


def test_of_a_net_whose_weights_lie_outside_all_is_told(learn, tmp_path):
    outside = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    onnx.save(NET.build(), tmp_path / "net.onnx", **outside)
    told, arrays = learn("--ws-prune-ratio 0.6 --ws-prune-ratio-prtl uniform --steps 4 --html told.html")
    assert {row["name"] for row in told["layers"]} <= set(arrays)
    assert told["sparsity"] == pytest.approx(0.6, abs=0.02)
    assert "</html>" in (tmp_path / "told.html").read_text()


@pytest.mark.parametrize("protocol", ["uniform", "heurist", "optimal", "search"])
def test_every_protocol_writes_the_zeros_asked_for(learn, protocol):
    told, arrays = learn(f"--ws-prune-ratio 0.6 --ws-prune-ratio-prtl {protocol} --steps 12 {QUICK}")
    asked = {row["name"]: row["asked"] for row in told["layers"]}
    for name, share in asked.items():
        assert (arrays[name] == 0).sum() == round(share * arrays[name].size)
    assert told["sparsity"] == pytest.approx(0.6, abs=0.02)
    if protocol == "heurist":
        assert list(asked.values()) == pytest.approx(layer_ratios.heurist([arrays[n].size for n in asked], 0.6))
    if protocol == "optimal":
        assert told["training"]["search"]["rollouts"] == 4
    assert told["training"]["result"]["accuracy"] is not None


def test_the_file_of_options_takes_the_original_names(learn, tmp_path):
    (tmp_path / "o.toml").write_text(
        'ws_prune_ratio = 0.5\nws_prune_ratio_prtl = "uniform"\nws_mask_update_step = 3\nenbl_dst = true\nsteps = 6\n'
    )
    told, arrays = learn("--config o.toml --from-scratch")
    assert told["training"]["settings"]["ws_mask_update_step"] == 3
    assert told["training"]["loss"] == "cross-entropy=1,distill=0.25"
    assert all((arrays[row["name"]] == 0).mean() == 0.5 for row in told["layers"])


def test_training_goes_on_from_one_shot_and_keeps_its_zeros(learn, tmp_path):
    told, arrays = learn("--one-shot --ws-prune-ratio 0.6 --ws-prune-ratio-prtl uniform --steps 6 --checkpoint-dir run")
    begun = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("run/one-shot.onnx").graph.initializer}
    for row in told["layers"]:
        name = row["name"]
        assert (arrays[name] == 0).sum() == round(0.6 * arrays[name].size)
        assert np.array_equal(arrays[name] == 0, begun[name] == 0)
        assert not np.array_equal(arrays[name], begun[name]), "the others train"


def test_patterns_and_protection(learn):
    told, arrays = learn("--pattern 2:4 --protect w1 --steps 6")
    assert [row["name"] for row in told["layers"]] == ["w2"]
    assert told["layers"][0]["holds"]
    assert (arrays["w1"] != 0).all()


def test_a_run_goes_on_where_its_folder_ends(learn):
    line = f"--ws-prune-ratio-prtl optimal {QUICK} --steps 8 --checkpoint-dir run"
    first, weights = learn(line)
    again, same = learn(f"{line} --resume")
    assert first["layers"] == again["layers"]
    assert all(np.array_equal(weights[name], same[name]) for name in weights)
    assert "a run with --ws-prune-ratio 0.75, not 0.5" in learn(f"{line} --resume --ws-prune-ratio 0.5", 2)
    begun, _ = learn(f"{line} --one-shot")
    assert begun["training"]["search"]["rollouts"] == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--ws-prune-ratio 2", "--ws-prune-ratio 2.0: expected"),
        ("--ws-reward-type both", "--ws-reward-type both: expected"),
        ("--one-shot --from-scratch", "--one-shot: keeps weights"),
        ("--target macs=0.5", "--target: is for structure learning"),
        ("--pattern 4:2", "--pattern 4:2: expected"),
        ("--protect nothing", "--protect nothing: no weight"),
    ],
)
def test_what_does_not_fit_is_refused(learn, line, words):
    assert words in learn(f"{line} --steps 2 {QUICK}", 2)


LEFT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[{batch},8] x) => (float[{batch},8] y)
<float[8,8] w1, float[8,8] w2>
{{
    t = Transpose(x)
    h = MatMul(w1, t)
    r = Relu(h)
    u = MatMul(w2, r)
    y = Transpose(u)
}}
"""


def test_regression_knows_where_samples_lie(tmp_path):
    """Weights on the left: samples are columns, and what is multiplied has as many rows as what comes out."""
    model, rng = onnx.parser.parse_model(LEFT.format(batch=32)), np.random.default_rng(0)
    del model.graph.value_info[:]
    for name in ("w1", "w2"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(8, 8)).astype(np.float32), name))
    found = analyze(model)
    source = open_source({"x": rng.normal(size=(256, 8)).astype(np.float32)}, found.graph, DataSettings(samples=256))
    training = Training(batch_size=32, folder=tmp_path)
    made = trainer(found, source, training, World(), stage=lambda name: lambda *a: None)
    scores = []
    for steps in (0, 60):
        asked = settings({"ws_nb_iters_ft": 0, "ws_nb_iters_rg": steps, "ws_lrn_rate_rg": 1e-2})
        one = Rollouts.of(made, made.module(found), layers(found.graph.model), asked, patterns.Pattern())
        one.run({"w1": 0.5, "w2": 0.5})
        batch = torch.from_numpy(made.samples.take(0, np.arange(32)).inputs["x"])
        with torch.no_grad():
            near = one.module(batch)["y"]
            one.module.load_state_dict(one.dense)
            scores.append(float((near - one.module(batch)["y"]).norm()))
    assert scores[1] < scores[0], "rows of channels are not shuffled as if they were samples"
