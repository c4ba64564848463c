"""Tables fit into 100 columns of a terminal, and names in them stay whole."""

import io

import numpy as np
import onnx
import pytest
from rich.console import Console

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn import demo
from onnxslim_learn.report import terminal

LONG = "/bert/encoder/layer.{}/attention/self/"  # of names as exporters write them
OUT = {"output": "s.onnx", "seconds": 0.01}
CALLS = [
    lambda: osl.analyze("net.onnx"),
    lambda: osl.analyze("net.onnx", device="T4"),
    lambda: osl.analyze("net.onnx", allow_sensitive=True),
    lambda: osl.slim("net.onnx", macs=0.8, samples=32, **OUT),
    lambda: osl.slim("net.onnx", macs=0.8, params=0.9, repair=False, **OUT),
    lambda: osl.slim("net.onnx", macs=[0.9, 0.8], repair=False, latency=False, output="s.onnx"),
    lambda: osl.lossless("net.onnx", **OUT),
    lambda: osl.sparsify("net.onnx", ratio=0.5, samples=16, **OUT),
]


def lengthened(model):
    """The same net with names as long as those of large models."""
    names = {tensor.name: LONG.format(k % 12) + tensor.name for k, tensor in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for number, node in enumerate(model.graph.node):
        node.name = f"{LONG.format(number % 12)}{node.op_type}_{number}"
        node.input[:] = [names.get(name, name) for name in node.input]
    return model


@pytest.fixture(params=["attention", "layer_norm", pytest.param("digits", marks=pytest.mark.slow)])
def net(request, tmp_path, monkeypatch):
    """A net in the working folder."""
    monkeypatch.chdir(tmp_path)
    build = (lambda: onnx.load(demo.model_path())) if request.param == "digits" else NETS[request.param].build
    onnx.save(lengthened(build()), "net.onnx")


def shown(result):
    """What a terminal of 100 columns shows of a result."""
    file = io.StringIO()
    console = Console(width=100, force_terminal=True, color_system=None, markup=False, highlight=False, file=file)
    terminal.show(result.shown(), console)
    return file.getvalue()


def columns(text):
    """The widest line of a table."""
    return max((len(line) for line in text.splitlines() if line[:1] in "┏┃┡│└"), default=0)


@pytest.mark.parametrize("call", CALLS)
def test_every_table_has_at_most_100_columns(net, call):
    assert columns(shown(call())) <= 100


@pytest.mark.parametrize("net", ["digits"], indirect=True)
@pytest.mark.parametrize(
    "call",
    [
        lambda: osl.expand("net.onnx", macs=1.5, output="s.onnx"),
        lambda: osl.profile("net.onnx", "net.onnx", per_node=True, seconds=0.01),
    ],
)
def test_tables_of_what_grows_and_what_is_timed_fit_too(net, call):
    assert columns(shown(call())) <= 100


def test_names_stay_whole(net):
    found = osl.analyze("net.onnx")
    text = terminal.plain(found.shown())
    rows = [row for row in found.report["groups"] if row["macs"] > 0]
    assert rows
    assert [row["name"] for row in rows if f" {row['name']} " not in text] == []


def images():
    """Images of digits."""
    return [np.asarray(demo.held_out()["image"][:64])]


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        lambda: osl.learn("net.onnx", macs=0.8, steps=6, finetune_steps=2, batch_size=4, **OUT),
        lambda: osl.learn("net.onnx", sweep=2, steps=6, finetune_steps=2, batch_size=4, latency=False, output="s.onnx"),
        lambda: osl.slim("net.onnx", latency=0.95, measure_seconds=2, data=images, **OUT),
    ],
)
def test_tables_of_long_work_fit_too(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    onnx.save(lengthened(onnx.load(demo.model_path())), "net.onnx")
    assert columns(shown(call())) <= 100
