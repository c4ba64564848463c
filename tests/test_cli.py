"""The command line: what it prints where, its exit codes, and that a refusal is one sentence and changes nothing."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxslim_learn import api, cli
from onnxslim_learn.costs import measure
from onnxslim_learn.report import data
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite import verify as checking
from tests.zoo import NETS

ROOT = Path(__file__).parents[1]
BRIEF = 0.01  # seconds: at least ten rounds are timed, and how precisely is no matter here
HALF = "--target macs=0.5 --no-latency"

# --- a folder of models and plans -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with good and bad models and plans."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "folder").mkdir()
    for name in ("residual", "chain", "global_pool", "multi_io", "flatten_gemm"):
        onnx.save(NETS[name].build(), folder / f"{name}.onnx")
    write_bad_models(folder)
    found = api.analyze(folder / "residual.onnx")
    for name, share in (("slim", 0.6), ("thin", 0.3)):
        plan = api.plan(found, {"macs": share})
        api.slim(found, plan).save(folder / f"{name}.onnx", check=False)
        (folder / f"{name}.json").write_text(plan.to_json())
    write_bad_plans(folder, json.loads((folder / "slim.json").read_text()))
    other = api.analyze(folder / "chain.onnx")
    (folder / "chain.json").write_text(api.plan(other, {"macs": 0.5}).to_json())
    return folder


def write_bad_models(folder):
    residual = onnx.load(folder / "residual.onnx")
    (folder / "text.onnx").write_text("This is no model.\n")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "cut.onnx").write_bytes(residual.SerializeToString()[:9000])
    for name in ("external", "lost", "short"):  # even the smallest weights lie in another file
        settings = {"save_as_external_data": True, "location": f"{name}.bin", "size_threshold": 0}
        onnx.save(onnx.load(folder / "residual.onnx"), folder / f"{name}.onnx", **settings)
    (folder / "lost.bin").unlink()
    os.truncate(folder / "short.bin", 100)
    residual.ClearField("opset_import")
    onnx.save(residual, folder / "no-opset.onnx")
    write(folder / "no-input.onnx", [["MatMul", "a b", "y"]], inputs={})
    write(folder / "no-output.onnx", [["Relu", "x", "y"]], outputs={})
    write(folder / "unknown.onnx", [["Guess", "x", "h", "my.ops"], ["Relu", "h", "y"]])
    write(folder / "misfit.onnx", [["MatMul", "x b", "y"]])
    write(folder / "cycle.onnx", [["Add", "x q", "p"], ["Relu", "p", "q"], ["Relu", "p", "y"]])
    write(folder / "random.onnx", [["RandomNormalLike", "x", "r"], ["MatMul", "x r", "p"], ["MatMul", "p c", "q"]])


def write(path, nodes, inputs=None, outputs=None):
    """Write a graph of [operator, inputs, output, domain]; a, b and c are weights."""
    rng = np.random.default_rng(0)
    made = [helper.make_node(op, i.split(), [o], o, domain=d[0] if d else "") for op, i, o, *d in nodes]
    used = {name for node in made for name in node.input}
    weights = {"a": (4, 8), "b": (8, 5), "c": (7, 5)}
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype("f"), n) for n, s in weights.items() if n in used]
    values = [{"x": (4, 7)} if inputs is None else inputs, {nodes[-1][2]: None} if outputs is None else outputs]
    infos = [[helper.make_tensor_value_info(n, 1, s) for n, s in given.items()] for given in values]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    graph = helper.make_graph(made, "net", *infos, tensors)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def write_bad_plans(folder, plan):
    def edited(**changes):
        return json.dumps({**plan, **changes})

    swapped = {**plan["groups"], "w1:0": [11 - k for k in plan["groups"]["w1:0"]]}
    for name, text in {
        "cut": edited()[:500],
        "list": "[]",
        "old": edited(format="onnxslim-learn plan 0"),
        "no-widths": edited(widths={}),
        "odd-tensors": edited(tensors=3),
        "odd-provenance": edited(provenance=None),
        "wide": edited(widths={**plan["widths"], "w1:0": 13}),
        "far": edited(groups={**plan["groups"], "w1:0": [0, 99]}),
        "swapped": edited(groups=swapped),
        "output": edited(groups={"w5:0": [0]}, widths={"w5:0": 5}, tensors={}),
        "none": edited(groups={}, widths={}, tensors={}),
        "bom": f"\ufeff{edited()}",
    }.items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


@pytest.fixture
def run(prepared, tmp_path, monkeypatch, capsys):
    """Run a line in a fresh copy of the folder; returns the exit code, standard output and standard error."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.DEBUG, raising=False)

    def run(line):
        code = cli.main(shlex.split(line))
        return code, *capsys.readouterr()

    return run


def contents():
    """What lies in the current folder: path -> bytes."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path.cwd().rglob("*"))}


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSALS = [
    # arguments, exit code, words in the sentence
    ("", 0, None),
]

USAGE = [
    ("nothing", ["nothing", "analyze", "--help"]),
    ("--nothing", ["--nothing"]),
    ("analyze", ["MODEL", "analyze --help"]),
    ("slim residual.onnx", ["--output", "--target"]),
    (f"slim residual.onnx -o o.onnx {HALF} --prot w1", ["--prot"]),  # abbreviations would change their meaning
    ("verify residual.onnx slim.onnx", ["--plan"]),
    ("profile", ["MODEL"]),
    *((f"slim residual.onnx -o o.onnx --target {text}", [text, *words]) for text, words in {
        "macs": ["macs="], "=0.5": ["macs="], "flops=0.5": ["macs="], "MACS=0.5": ["macs="], "macs:0.5": ["macs="],
        "macs=": ["number"], "macs=half": ["number"], "macs=0.5x": ["number"], "macs=k": ["number"],
        "macs=0": ["positive"], "macs=-1": ["positive"], "macs=nan": ["positive"], "macs=inf": ["positive"],
        "macs=1e999": ["positive"], "macs=150%": ["100 %"], "macs=0.5,params=0.5": ["Repeat --target"],
    }.items()),
]
