"""Inner tensors of a cut net stand where the original's do, and a student comes nearer to them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.bridge import gates
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.coupling import groups as grouping
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.errors import InputError
from onnxslim_learn.train import feature_distillation, losses
from onnxslim_learn.train.samples import Portion
from onnxslim_learn.workflow import slim
from tests.bridge.test_gates import close
from tests.bridge.test_module import call
from tests.cli.conftest import prepared, run  # noqa: F401
from tests.laws import ZOO_CUT, analysed, analysis_inputs, draw_removal, examples, written

QUICK = "--steps 12 --finetune-steps 30 --batch-size 8 --no-latency --data samples.npz --json out.json"


def everything(analysis):
    return feature_distillation.find(analysis, ["."])


@pytest.mark.parametrize("name", ZOO_CUT)
@examples(2)
@given(data=st.data())
def test_what_is_kept_of_the_masked_net_is_in_the_cut_one(name, data):
    analysis = analysed(name)
    names, feeds = everything(analysis), analysis_inputs(analysis)
    removal = draw_removal(data.draw, analysis)
    groups = [group for group in grouping.find(analysis.coupling) if group.pin is None]
    module = bridge(analysis, features=names)
    gates.attach(module, analysis, groups)
    close(module, removal, groups)
    masked = call(module, feeds)
    cut = call(bridge(load(written(analysis, removal)), features=names), feeds)
    kept = feature_distillation.kept(removal, names)
    shared = [n for n in kept if n in cut]
    assert shared or not names
    assert all(kept.get(n) == {} for n in feature_distillation.untouched(analysis, groups, names))
    for n in shared:
        wanted = masked[n]
        for axis, places in kept[n].items():
            wanted = wanted.take(places, axis)
        assert cut[n].shape == wanted.shape, n
        np.testing.assert_allclose(cut[n], wanted, rtol=0, atol=1e-3 * max(np.abs(wanted).max(initial=0), 1e-6))


def test_by_default_they_are_sums_of_branches_or_what_layers_read():
    residual = analysed("residual")
    adds = [node for node in residual.graph.nodes if node.op_type == "Add"]
    assert feature_distillation.find(residual) == tuple(str(node.outputs[0].name) for node in adds)
    chain = analysed("chain")
    read = {str(node.inputs[0].name) for node in chain.graph.nodes if node.op_type in ("Conv", "Gemm", "MatMul")}
    assert set(feature_distillation.find(chain)) == read - set(chain.graph.shapes.nominal.inputs)
    with pytest.raises(InputError, match="finds no tensor of floats"):
        feature_distillation.find(chain, ["nowhere"])


def test_the_loss_is_the_squared_error_over_the_variance():
    a, b, c = torch.randn(6, 4), torch.randn(6, 4), torch.randn(6, 4)
    known = {"h": 2.0, "gone": 1.0}
    ((weight, loss),) = losses.objective("features=3", {}, features=known).terms.values()
    found = loss({"y": c, "h": a}, Portion({}, None, {"y": c, "h": b}))
    assert weight == 3
    torch.testing.assert_close(found, ((a - b) ** 2).mean() / 2.0 / 2)


@pytest.fixture
def trainable(run):  # noqa: F811
    """The folder, with samples for residual.onnx."""
    ((name, shape),) = slim.analyze("residual.onnx").graph.shapes.nominal.inputs.items()
    rng = np.random.default_rng(0)
    np.savez("samples.npz", **{name: rng.normal(size=(40, *shape[1:])).astype(np.float32)})
    return run


def terms(stage):
    return [row["features"] for row in json.loads(Path("out.json").read_text())["training"][stage]["history"]]


@pytest.mark.parametrize("regularizer", ["gamma", "group-lasso", "gates"])
def test_a_cut_net_comes_nearer_to_them(trainable, regularizer):
    line = f"learn residual.onnx -o small.onnx --target macs=0.4 --loss distill=1,features=2 --lr 0.01 {QUICK}"
    code, _, err = trainable(f"{line} --regularizer {regularizer} --finetune-steps 200")
    assert (code, err) == (0, ""), err
    found = terms("finetune")
    assert np.mean(found[-10:]) < 0.9 * np.mean(found[:10])
    outputs = json.loads(Path("out.json").read_text())["training"]["result"]["outputs"]
    assert list(outputs) == [value.name for value in onnx.load("residual.onnx").graph.output]


def test_a_sparse_net_comes_nearer_to_them_too(trainable):
    Path("run.toml").write_text('loss = "distill=1,features=1"\nfeatures = ["."]\nlr = 0.01\n')
    line = "learn residual.onnx -o small.onnx --learner weight-sparse --ws-prune-ratio-prtl uniform --config run.toml"
    quick = QUICK.replace("--finetune-steps 30 ", "")
    code, _, err = trainable(f"{line} {quick} --steps 60 --ws-mask-update-step 5")
    assert (code, err) == (0, "")
    found = json.loads(Path("out.json").read_text())["training"]["history"]
    worst = max(row["features"] for row in found)
    assert 0 < found[-1]["features"] < 0.9 * worst


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("--features conv", "--loss distill=1,features=1"),
        ("--loss features=1 --features nowhere", "finds no tensor"),
        ("--loss features=1 --cycles 2", "--cycles"),
        ("--loss features=1 --learner weight-sparse --enbl-dst", "--enbl-dst --loss"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(trainable, asked, words):
    target = "" if "sparse" in asked else "--target macs=0.6"
    code, out, err = trainable(f"learn residual.onnx -o small.onnx {target} {asked} --data samples.npz")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words.split()), err
    assert not Path("small.onnx").exists()
