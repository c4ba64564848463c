"""The command analyze: models it refuses, its tables, its explanations."""

import json
from pathlib import Path

import networkx as nx
import onnx
import pytest

REFUSALS = [
    # arguments, exit code, words in the sentence
    # models
    ("analyze nowhere.onnx", 2, "nowhere.onnx: no such file"),
    ("analyze folder", 2, "folder: is a folder"),
    ("analyze empty.onnx", 2, "empty.onnx: not an ONNX model"),
    ("analyze text.onnx", 2, "text.onnx: not an ONNX model cut off"),
    ("analyze cut.onnx", 2, "cut.onnx: not an ONNX model cut off"),
    ("analyze slim.json", 2, "slim.json: not an ONNX model"),
    ("analyze lost.onnx", 2, "lost.onnx: lost.bin does not exist"),
    ("analyze short.onnx", 2, "short.bin: too short"),
    ("analyze no-opset.onnx", 2, "no-opset.onnx: opset_import"),
    ("analyze no-output.onnx", 2, "no-output.onnx: no outputs"),
    ("analyze unknown.onnx", 2, "unknown.onnx: node h (my.ops:Guess): no such operator Declare value_info"),
    ("analyze misspelt.onnx", 2, "misspelt.onnx: node h (MatMull): no such operator correct"),
    ("analyze undefined.onnx", 2, "undefined.onnx: node y (Add): nothing makes nobody. Export it again."),
    ("analyze misfit.onnx", 2, "misfit.onnx: node y (MatMul): 4x7 8x5 Export again"),
    ("analyze opset.onnx", 2, "opset.onnx: operator set 999 newer Export update"),
    ("analyze format.onnx", 2, "format.onnx: format 99 newer Export update"),
    ("analyze cycle.onnx", 2, "cycle.onnx: cycle"),
    # results
    ("analyze residual.onnx --json nowhere/new.json", 2, "--json nowhere/new.json: folder"),
    ("analyze residual.onnx --graph new.txt", 2, "--graph new.txt: .graphml, .dot, .json '.txt'"),
    ("analyze residual.onnx --dataflow new", 2, "--dataflow new: .graphml, .dot, .json"),
    ("analyze residual.onnx --graph nowhere/new.dot", 2, "--graph nowhere/new.dot: folder"),
    # input shapes
    ("analyze global_pool.onnx --input x:4x3x1x1", 2, "global_pool.onnx: 4x3x1x1 other sizes --input"),
    ("analyze global_pool.onnx --input x:4x3x2x2", 2, "global_pool.onnx: node a (Conv): empty 4x3x2x2 other sizes"),
    ("profile global_pool.onnx --input x:4x3x2x2", 2, "global_pool.onnx: node a (Conv): empty 4x3x2x2"),
    # explanations
    ("analyze residual.onnx --why nothing:0", 2, "--why 'nothing:0'"),
    ("analyze residual.onnx --why w1", 2, "--why 'w1' w1:0"),
    ("analyze residual.onnx --why w1:0,w1:0", 2, "--why 'w1:0,w1:0': twice"),
    ("analyze residual.onnx --why w1:0,w9:0", 2, "--why 'w9:0'"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_refusals(refused, arguments, code, words):
    refused(arguments, code, words)


TABLES = [
    # arguments, exit code, phrases on standard output
    ("analyze residual.onnx", 0, ["438 k MACs", "3.54 k parameters", "w1:0", "it is the graph output y (axis 1)"]),
    ("analyze external.onnx", 0, ["438 k MACs", "w1:0"]),
    ("analyze global_pool.onnx", 0, ["x 1x3x", "assumed", "--input"]),
    ("analyze global_pool.onnx --input x:4x3x9x7", 0, ["x 4x3x9x7"]),
    ("analyze no-input.onnx", 0, ["no-input.onnx: 1 node\n", "160 MACs"]),
    ("analyze residual.onnx --why w5:0", 0, ["Why w5:0", "through y (Conv)", "cannot go: it is the graph output y"]),
    ("analyze residual.onnx --why w1:0", 0, ["w1:0: it can be cut"]),
    ("analyze residual.onnx --why w1:0,w2:1", 0, ["through n1 (BatchNormalization)", "through c1 (Conv)\n  w2:1"]),
    ("analyze residual.onnx --why w0:1", 0, ["Why w0:1", "it meets graph input x, whose axes stay"]),
    ("analyze residual.onnx --why h0:1", 0, ["h0:1: it can be cut"]),
    ("analyze residual.onnx --why w1:0,w3:0", 0, ["w1:0,w3:0: no operator ties these"]),
]


@pytest.mark.parametrize(("arguments", "code", "phrases"), TABLES)
def test_results_go_to_standard_output_alone(shown, arguments, code, phrases):
    shown(arguments, code, phrases)


def test_names_with_brackets_and_long_names_stay_whole(run):
    model, stem = onnx.load("chain.onnx"), f"{'layer/' * 50}[/b][red]"
    for tensor in model.graph.initializer:
        tensor.name = stem + tensor.name
    for node in model.graph.node:
        node.input[1:] = [stem + name for name in node.input[1:]]
    onnx.save(model, "[red]new.onnx")
    assert f"Why {stem}w2:0" in run(f"analyze [red]new.onnx --why {stem}w2:0")[1].splitlines()
    lines = run("analyze [red]new.onnx")[1].splitlines()
    assert lines[0].startswith("[red]new.onnx: 4 nodes")
    assert any(f" {stem}w1:0 " in line for line in lines), "names are whole in one line"
    lines = run("analyze [red]new.onnx --verbose")[1].splitlines()
    assert any(f" {stem}b1:0 " in line for line in lines)


def test_graphs_are_written_beside_the_tables(run):
    code, out, _ = run("analyze residual.onnx --graph new.graphml --dataflow new.json")
    assert (code, "w1:0" in out) == (0, True)
    coupled = nx.read_graphml("new.graphml")
    assert nx.shortest_path(coupled, "parameter w1:0", "parameter w2:1")[0] == "parameter w1:0"
    assert {one["name"] for one in json.loads(Path("new.json").read_text())["nodes"]} >= {"x", "y", "c1"}
    assert run("analyze residual.onnx --graph new.dot")[0] == 0
    assert Path("new.dot").read_text().startswith("digraph {")


JSON = [
    # arguments without --json, exit code, keys
    ("analyze residual.onnx", 0, "model inputs nodes costs groups pinned unknown_operators"),
    ("analyze residual.onnx --why w1:0,w2:1", 0, "model inputs nodes costs groups pinned unknown_operators why"),
]


@pytest.mark.parametrize(("arguments", "code", "keys"), JSON)
def test_json_is_all_of_standard_output_or_a_file_beside_the_tables(machine_read, arguments, code, keys):
    machine_read(arguments, code, keys)
