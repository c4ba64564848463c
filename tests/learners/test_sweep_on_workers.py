"""Strengths that are tried on workers leave what they leave in one process."""

import onnx
import pytest
import torch

import onnxslim_learn as osl
from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime.parallel import one_thread
from tests.laws import ALL


def without_files(row):
    """What is told of a strength, but for where it lies."""
    report = {name: value for name, value in row.get("report", {}).items() if name != "output"}
    return {name: value for name, value in row.items() if name != "output"} | {"report": report}


@pytest.mark.slow
def test_a_sweep_is_the_same_on_workers(tmp_path):
    onnx.save(ALL["residual"].build(), tmp_path / "net.onnx")
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for place in (None, 1):
            folder = tmp_path / str(place)
            folder.mkdir()
            about = {"strength": 3.0, "sweep": 2, "steps": 20, "finetune_steps": 2, "lr": 0.03, "no_latency": True}
            with one_thread():
                result = osl.learn(tmp_path / "net.onnx", output=folder / "o.onnx", workers=place, **about)
            found.append([without_files(row) for row in result.report["strengths"]])
            found.append({path.name: path.read_bytes() for path in folder.glob("*.onnx")})
    finally:
        torch.set_num_threads(threads)
    assert found[1]
    assert any(row["report"] for row in found[0])
    assert found[:2] == found[2:]


def test_workers_without_a_sweep_are_refused(tmp_path):
    onnx.save(ALL["residual"].build(), tmp_path / "net.onnx")
    with pytest.raises(InputError, match="workers: try the strengths of sweep"):
        osl.learn(tmp_path / "net.onnx", output=tmp_path / "o.onnx", macs=0.5, workers=2)
