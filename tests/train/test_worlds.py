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
from safetensors.torch import load_file

from tests.train.test_shrink import NET

LINE = "learn net.onnx --target macs=0.6 --data samples.npz --batch-size 16 --steps 10 --finetune-steps 5 --no-latency"


@pytest.fixture
def folder(tmp_path):
    onnx.save(NET.build(), tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", x=rng.normal(size=(64, 3, 6, 6)).astype(np.float32))
    return tmp_path


def start(folder, name, **world):
    root = str(Path(__file__).parents[2])
    known = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **world}
    line = f"{LINE} -o {name}.onnx --checkpoint-dir {name} --json {name}.json"
    command = [sys.executable, "-m", "onnxslim_learn.cli", *line.split()]
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
def test_two_processes_equal_one_on_the_same_batch(folder):
    ended(start(folder, "one"))
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    pair = [start(folder, "two", RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]
    outs = [ended(process) for process in pair]
    assert "MACs" in outs[0]
    assert outs[1] == ""
    for stage in ("structure", "finetune"):
        tensors = []
        for name in ("one", "two"):
            facts = json.loads((folder / name / stage / "checkpoint.json").read_text())
            tensors.append(load_file(folder / name / stage / facts["tensors"]))
        assert tensors[0].keys() == tensors[1].keys()
        for key, value in tensors[0].items():
            torch.testing.assert_close(tensors[1][key], value, rtol=1e-4, atol=1e-4)
    groups = [json.loads((folder / f"{name}.json").read_text())["groups"] for name in ("one", "two")]
    assert groups[0] == groups[1]
