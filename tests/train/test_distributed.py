"""Two processes that train together come out where one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import distributed

from onnxslim_learn.bridge.ops.norm import joint_batch_norm
from onnxslim_learn.errors import TrainError
from onnxslim_learn.train import checkpoints
from onnxslim_learn.train import distributed as train
from tests.learners.test_morphnet_pipeline import NET

LINE = "learn net.onnx --target macs=0.6 --data samples.npz --batch-size 16 --steps 10 --finetune-steps 5 --no-latency"


@pytest.fixture
def folder(tmp_path):
    onnx.save(NET.build(), tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", x=rng.normal(size=(64, 3, 6, 6)).astype(np.float32))
    return tmp_path


def start(folder, name, more="", **world):
    root = str(Path(__file__).parents[2])
    known = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **world}
    line = f"{LINE} -o {name}.onnx --checkpoint-dir {name} --json {name}.json {more}"
    command = [sys.executable, "-m", "onnxslim_learn.cli.commands", *line.split()]
    return subprocess.Popen(command, cwd=folder, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "stages"),
    [
        ("--norms frozen", ("structure", "finetune")),
        ("--norms batch --accumulate 2", ("structure", "finetune")),
        ("--norms batch --learner narrow --stages 2", ("stage_1", "finetune")),
    ],
)
def test_two_processes_equal_one_on_the_same_batch(folder, more, stages):
    ended(start(folder, "one", more))
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    pair = [start(folder, "two", more, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]
    outs = [ended(process) for process in pair]
    assert "MACs" in outs[0]
    assert outs[1] == ""
    for stage in stages:
        tensors = []
        for name in ("one", "two"):
            tensors.append(checkpoints.load(folder / name / stage).tensors)
        assert tensors[0].keys() == tensors[1].keys()
        for key, value in tensors[0].items():
            torch.testing.assert_close(tensors[1][key], value, rtol=1e-4, atol=1e-4)
    groups = [json.loads((folder / f"{name}.json").read_text())["groups"] for name in ("one", "two")]
    assert groups[0] == groups[1]


PEER = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:12"


@pytest.mark.parametrize(
    ("size", "said", "kind"), [(2, PEER, TrainError), (2, "a shape is wrong", RuntimeError), (1, PEER, RuntimeError)]
)
def test_a_process_that_others_leave_alone_says_so(monkeypatch, size, said, kind):
    monkeypatch.setenv("WORLD_SIZE", str(size))
    monkeypatch.setattr(train, "join", lambda device: train.World(0, size))
    with pytest.raises(kind) as error, train.joined():
        raise RuntimeError(said)
    assert type(error.value) is kind
    assert "Connection closed by peer" in str(error.value) or kind is RuntimeError


@pytest.fixture
def alone(tmp_path):
    """A world of one process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5), (3, 4, 5, 2)])
def test_joint_normalisation_is_batch_normalisation(alone, shape):
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.rand(size, generator=generator, dtype=torch.float64) for size in (shape, 4, 4, 4, 4, shape)]
    weights, sides = drawn.pop(), []
    for joint in (True, False):
        x, scale, bias, mean, var = (one.clone() for one in drawn)
        trained = [one.requires_grad_() for one in (x, scale, bias)]
        if joint:
            y = joint_batch_norm(x, (scale, bias), (mean, var), epsilon=1e-5, momentum=0.9)
        else:
            y = F.batch_norm(x, mean, var, scale, bias, True, 0.1, 1e-5)
        sides.append([y, mean, var, *torch.autograd.grad((y * weights).sum(), trained)])
    for found, wanted in zip(*sides, strict=True):
        torch.testing.assert_close(found, wanted)
