"""The README's lines of Python do what they say: the net keeps its accuracy."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxslim_learn import demo
from onnxslim_learn.demo.story import accuracy

README = Path(__file__).parents[1] / "README.md"


def lines():
    """The lines of Python under their heading."""
    section = README.read_text(encoding="utf-8").partition("### Python\n")[2].partition("\n## ")[0]
    return "\n".join(line.removeprefix("    ") for line in section.splitlines() if line.startswith("    "))


@pytest.mark.slow
def test_a_net_keeps_its_accuracy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo.model_path(), "model.onnx")
    np.savez("train.npz", image=demo.calibration()["image"])
    exec(
        compile(lines().replace(', data="train.npz"', ', data="train.npz", sensitivity_seconds=2'), "README", "exec"),
        {},
    )
    held = demo.held_out()
    assert accuracy(Path("model.onnx"), held["image"], held["labels"]) > 0.98
    for name, least in (("slim.onnx", 0.96), ("three.onnx", 0.94)):
        assert accuracy(Path(name), held["image"], held["labels"]) > least, name
