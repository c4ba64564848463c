"""The action for workflows: its steps are run as the runner would, with the defaults of its inputs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs.world import FILES

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def carried_out(folder, **inputs):
    """Run the step that slims; returns its exit code and the file of its outputs."""
    values = {name: told.get("default", "") for name, told in ACTION["inputs"].items()} | inputs
    step = next(step for step in ACTION["runs"]["steps"] if step.get("id") == "slim")
    filled = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: values[m[1]], t) for name, t in step["env"].items()
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, **filled, "PATH": path, "PYTHONPATH": str(ROOT), "GITHUB_OUTPUT": str(folder / "outputs")}
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=folder, env=env, check=False)
    return done.returncode, folder / "outputs"


@pytest.mark.slow
def test_a_model_is_slimmed_and_its_verdict_is_an_output(tmp_path):
    for file in ("model.onnx", "train.npz"):
        FILES[file](tmp_path / file)
    common = {"model": "model.onnx", "data": "train.npz", "options": "--work 5G --no-latency"}
    code, outputs = carried_out(tmp_path, **common)
    assert code == 0
    assert (tmp_path / "slim.onnx").is_file()
    verdict = json.loads(outputs.read_text().removeprefix("verdict="))
    assert verdict["met"][0]["met"]
    harsh = {**common, "target": "macs=0.1 params=0.1", "min-quality": "0.999"}
    assert carried_out(tmp_path, **harsh)[0] == 3


def test_every_input_is_used_and_told():
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for name, told in ACTION["inputs"].items():
        assert told["description"].endswith(".")
        assert f"inputs.{name} }}}}" in text
