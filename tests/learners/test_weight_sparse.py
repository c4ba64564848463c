"""Weight sparsification: masks exact to the entry at every step, weights that come back, and runs that go on."""

import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from onnxslim_learn.analysis import analyze
from onnxslim_learn.bridge import export, initializers
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.weight_sparse.learner import WeightSparse
from onnxslim_learn.learners.weight_sparse.settings import MethodSettings, settings
from onnxslim_learn.sparse import patterns
from onnxslim_learn.sparse.maskable import layers
from onnxslim_learn.sparse.schedule import Schedule
from onnxslim_learn.train.loop import Keeping, train
from tests.train.test_loop import NET, Killed, task

DEFAULTS = {
    "ws_prune_ratio": 0.75,
    "ws_prune_ratio_prtl": "search",  # of the original "optimal"
    "ws_nb_rlouts": 200,
    "ws_nb_rlouts_min": 50,
    "ws_reward_type": "single-obj",
    "ws_lrn_rate_rg": 3e-2,
    "ws_nb_iters_rg": 20,
    "ws_lrn_rate_ft": 3e-4,
    "ws_nb_iters_ft": 400,
    "ws_nb_iters_feval": 25,
    "ws_prune_ratio_exp": 3.0,
    "ws_iter_ratio_beg": 0.1,
    "ws_iter_ratio_end": 0.5,
    "ws_mask_update_step": 500,
    "ws_save_path": None,
    "enbl_dst": False,
    "loss_w_dst": 4.0,
    "tempr_dst": 4.0,
}
RATIO = 0.7
STEPS = 30


@pytest.fixture(scope="module")
def found():
    return analyze(NET.build())


class Watched(WeightSparse):
    """Checks after every step what must hold of masked weights."""

    steps = 0

    def refresh(self, share):
        backups = {
            name: torch.where(self.masks[name], p, self.backups[name]).detach().clone()
            for name, p in self.parameters.items()
        }
        super().refresh(share)
        for name, mask in self.masks.items():
            assert torch.equal(self.backups[name], backups[name])
            count = round(share * self.ratios[name] * mask.numel())
            assert int((~mask).sum()) == count, "exactly so many"
            if self.pattern.kind == "free" and 0 < count < mask.numel():
                assert backups[name].abs()[~mask].max() <= backups[name].abs()[mask].min()
            assert torch.equal(self.parameters[name][mask], backups[name][mask]), "as they were"

    def gradients(self, step):
        super().gradients(step)
        for name, p in self.parameters.items():
            assert not p.grad[~self.masks[name]].any()

    def updated(self, step, rate):
        super().updated(step, rate)
        self.steps += 1
        for name, p in self.parameters.items():
            assert not p[~self.masks[name]].any()
            for value in self.optimizer.state[p].values():
                if value.shape == p.shape:
                    assert not value[~self.masks[name]].any()


def learner(found, one, steps=STEPS, pattern="unstructured", kind=Watched, every=3):
    listed = layers(found.graph.model)
    parsed = patterns.parse(pattern)
    shares = dict.fromkeys([layer.name for layer in listed], parsed.ratio or RATIO)
    return kind(one.module, listed, shares, Schedule(steps, every=every), parsed)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("norms", ["frozen", "batch"])
def test_masks_are_exact_at_every_step(found, optimizer, norms):
    one = task(found, optimizer=optimizer, norms=norms, decay=0.05, steps=STEPS)
    watched = learner(found, one)
    train(one, watched)
    assert watched.steps == STEPS
    written = export.weights(one.module)
    for name, mask in watched.masks.items():
        assert int((~mask).sum()) == round(RATIO * mask.numel())
        assert torch.equal(written[name] != 0, mask)


def test_weights_come_back_as_they_were(found):
    one = task(found)
    watched = learner(found, one)
    name, parameter = "w2", watched.parameters["w2"]
    before = parameter.detach().clone()
    watched.refresh(1.0)
    masked = ~watched.masks[name]
    with torch.no_grad():
        parameter.mul_(1e-3)  # what is alive falls below what was masked
    watched.refresh(1.0)
    back = masked & watched.masks[name]
    assert back.any()
    assert torch.equal(parameter[back], before[back])
    assert not parameter[~watched.masks[name]].any()


def test_the_final_refresh_comes_without_a_multiple_of_the_step(found):
    one = task(found, steps=10)
    watched = learner(found, one, steps=10, every=500)
    train(one, watched)
    for mask in watched.masks.values():
        assert int((~mask).sum()) == round(RATIO * mask.numel())


def test_patterns_are_learnt_exactly(found):
    one = task(found, steps=STEPS)
    watched = learner(found, one, pattern="2:4", kind=WeightSparse)
    train(one, watched)
    for name, parameter in initializers.parameters(one.module).items():
        if name in watched.layers:
            assert patterns.holds(parameter.detach().numpy(), watched.pattern, watched.layers[name])


@pytest.mark.parametrize("stop", [8, 16, 24])
def test_a_killed_run_goes_on_with_the_same_masks(found, tmp_path, stop):
    whole = task(found, steps=STEPS)
    watched = learner(found, whole)
    history = train(whole, watched, Keeping(tmp_path / "whole", every=4))

    def kill(step, numbers):
        if step == stop:
            raise Killed

    keeping = Keeping(tmp_path / "killed", every=4, show=kill)
    stopped = task(found, steps=STEPS)
    with pytest.raises(Killed):
        train(stopped, learner(found, stopped), keeping)
    resumed = task(found, steps=STEPS)
    again = learner(found, resumed)
    assert train(resumed, again, replace(keeping, resume=True, show=lambda step, numbers: None)) == history
    for name in watched.masks:
        assert torch.equal(watched.masks[name], again.masks[name])
        assert torch.equal(watched.backups[name], again.backups[name])
        assert torch.equal(watched.parameters[name], again.parameters[name])


WORKER = """
import sys, torch
from onnxslim_learn.workflow.slim import analyze
from onnxslim_learn.train import distributed
from onnxslim_learn.train.loop import train
from tests.train.test_loop import NET, task
from tests.learners.test_weight_sparse import STEPS, learner
from dataclasses import replace
found = analyze(NET.build())
world = distributed.join("cpu")
one = replace(task(found, steps=STEPS), world=world)
watched = learner(found, one)
train(one, watched)
torch.save({"masks": watched.masks, "weights": one.module.state_dict()}, f"{sys.argv[1]}/rank{world.rank}.pt")
distributed.leave()
"""


@pytest.mark.slow
def test_two_processes_have_the_masks_of_one(found, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    root = Path(__file__).parents[2]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*start, str(tmp_path / "worker.py"), str(tmp_path)],
        check=False,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    first, second = (torch.load(tmp_path / f"rank{k}.pt") for k in (0, 1))
    alone = task(found, steps=STEPS)
    watched = learner(found, alone)
    train(alone, watched)
    for name, mask in watched.masks.items():
        assert torch.equal(first["masks"][name], second["masks"][name])
        assert torch.equal(first["masks"][name], mask)
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name])


def test_parameters_have_their_defaults():
    assert {one.name: one.default for one in fields(MethodSettings)} == DEFAULTS


def test_both_spellings_are_understood():
    asked = settings({"ws-prune-ratio": 0.9, "ws_prune_ratio_prtl": "heurist", "enbl_dst": True})
    assert (asked.ws_prune_ratio, asked.ws_prune_ratio_prtl) == (0.9, "heurist")
    assert asked.taught == {"loss": "cross-entropy=1,distill=0.25", "temperature": 4.0}, "the loop has a factor T²"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ws_prune_ratio": 1.5}, "ws_prune_ratio 1.5"),
        ({"ws_prune_ratio": float("nan")}, "ws_prune_ratio nan"),
        ({"ws_iter_ratio_beg": 0.6}, "ws_iter_ratio_beg"),
        ({"ws_prune_ratio_prtl": "best"}, "ws_prune_ratio_prtl best"),
        ({"ws_mask_update_step": 0}, "ws_mask_update_step 0"),
        ({"ws_prune": 0.5}, "ws_prune: "),
    ],
)
def test_what_cannot_be_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        settings(given)
