"""The same command, the same file: no clock and no load has a say in what is cut, but where latency is the target."""

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn import demo
from onnxslim_learn.runtime import cache

CLOCKS = ("perf_counter", "monotonic", "time", "process_time", "thread_time")
FASTER = 100.0
BUSY = 4  # processes beside


def faster(monkeypatch, factor):
    """Make every clock that the package imports run so many times faster."""
    count = 0
    for name, module in list(sys.modules.items()):
        if name.startswith("onnxslim_learn"):
            for clock in CLOCKS:
                if callable(plain := getattr(module, clock, None)):
                    monkeypatch.setattr(module, clock, lambda plain=plain: factor * plain())
                    count += 1
    assert count


def commands(folder):
    """Ways to make a file of a net and samples."""
    onnx.save(NETS["residual"].build(), folder / "net.onnx")
    ((name, shape),) = osl.analyze(folder / "net.onnx").graph.shapes.nominal.inputs.items()
    data = {name: np.random.default_rng(0).standard_normal((32, *shape[1:])).astype(np.float32)}
    model, quiet = str(folder / "net.onnx"), {"no_latency": True}
    return {
        "slim": lambda out: osl.slim(model, macs=0.5, data=data, output=out, **quiet),
        "made up": lambda out: osl.slim(model, macs=0.5, samples=32, work="1T", output=out, **quiet),
        "lossless": lambda out: osl.slim(model, lossless=True, output=out, **quiet),
        "sparsify": lambda out: osl.sparsify(model, ratio=0.7, protocol="search", data=data, output=out, **quiet),
    }


@pytest.mark.parametrize("command", ["slim", pytest.param("made up", marks=pytest.mark.slow), "lossless", "sparsify"])
def test_a_clock_that_runs_faster_changes_no_byte(command, monkeypatch, tmp_path):
    make, files = commands(tmp_path)[command], []
    for factor in (1.0, FASTER):
        monkeypatch.setenv(cache.PLACE, str(tmp_path / f"cache {factor}"))
        with monkeypatch.context() as patch:
            faster(patch, factor)
            make(str(tmp_path / "out.onnx"))
        files.append((tmp_path / "out.onnx").read_bytes())
    assert files[0] == files[1]


def spin():
    """Keep a core busy until stopped."""
    while True:
        np.linalg.inv(np.random.default_rng(0).standard_normal((200, 200)))


@pytest.mark.slow
def test_other_work_on_the_machine_changes_no_byte(monkeypatch, tmp_path):
    def made(name):
        monkeypatch.setenv(cache.PLACE, str(tmp_path / f"cache {name}"))
        data = {"image": demo.calibration()["image"]}
        out, plan = str(tmp_path / "out.onnx"), str(tmp_path / "plan.json")
        osl.slim(str(demo.model_path()), macs=0.4, multiple=8, data=data, output=out, plan_out=plan, no_latency=True)
        return Path(out).read_bytes(), Path(plan).read_text()

    idle = made("idle")
    context = multiprocessing.get_context("spawn")
    busy = [context.Process(target=spin, daemon=True) for _ in range(BUSY)]
    for process in busy:
        process.start()
    try:
        assert made("busy") == idle
    finally:
        for process in busy:
            process.kill()
            process.join()
