"""Good and bad models and plans for the tests of the command line, and the lines that most of them type."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nets.zoo import NETS

BRIEF = 0.01  # seconds: at least ten rounds are timed, and how precisely is no matter here
HALF = "--target macs=0.5 --no-latency"
SLIM = f"slim residual.onnx -o new.onnx {HALF}"
TO = "slim residual.onnx -o new.onnx --no-latency --target"
APPLY = "apply residual.onnx -o new.onnx --no-latency"


def write_models(folder):
    for name in ("residual", "chain", "global_pool", "multi_io", "flatten_gemm"):
        onnx.save(NETS[name].build(), folder / f"{name}.onnx")


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
    residual.opset_import[0].version = 999
    onnx.save(residual, folder / "opset.onnx")
    residual.opset_import[0].version, residual.ir_version = 17, 99
    onnx.save(residual, folder / "format.onnx")
    residual.ClearField("opset_import")
    onnx.save(residual, folder / "no-opset.onnx")
    write(folder / "no-input.onnx", [["MatMul", "a b", "y"]], inputs={})
    write(folder / "no-output.onnx", [["Relu", "x", "y"]], outputs={})
    write(folder / "unknown.onnx", [["Guess", "x", "h", "my.ops"], ["Relu", "h", "y"]])
    write(folder / "misspelt.onnx", [["MatMull", "x c", "h"], ["Relu", "h", "y"]])
    write(folder / "undefined.onnx", [["MatMul", "x c", "h"], ["Add", "h nobody", "y"]])
    write(folder / "misfit.onnx", [["MatMul", "x b", "y"]])
    write(folder / "cycle.onnx", [["Add", "x q", "p"], ["Relu", "p", "q"], ["Relu", "p", "y"]])
    noise = [["Sigmoid", "g", "p"], ["Bernoulli", "p", "r"]]  # no noise is made alike for it
    noisy = [["MatMul", "x c", "h"], ["MatMul", "h b", "g"], *noise, ["Add", "g r", "y"]]
    write(folder / "random.onnx", noisy)


def write(path, nodes, inputs=None, outputs=None):
    """Write a graph of [operator, inputs, output, domain]; a, b and c are weights."""
    rng = np.random.default_rng(0)
    made = [helper.make_node(op, i.split(), [o], o, domain=d[0] if d else "") for op, i, o, *d in nodes]
    used = {name for node in made for name in node.input}
    weights = {"a": (4, 8), "b": (8, 5), "c": (7, 8)}
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


def contents():
    """What lies in the current folder: path -> bytes."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


def strict(text):
    """Read JSON as its standard has it, without NaN and Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def answered(answer):
    """Read the JSON on standard output of a command that ended well."""
    code, out, err = answer
    assert code == 0, err
    return strict(out)
