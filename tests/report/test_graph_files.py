"""Graphs in files are the graphs: read again, they have the same nodes and edges."""

import json
import re

import networkx as nx
import pytest

import onnxslim_learn as osl
from onnxslim_learn.errors import InputError
from onnxslim_learn.report import graph_files
from tests.laws import ALL, analysed

NAMES = ["residual", "attention", "unet"]
ODD = 'a "quoted"\\name\nof two lines & <more>'


def views(name):
    return {"coupling": osl.coupling_graph(analysed(name)), "dataflow": osl.dataflow(analysed(name))}


def told(view):
    """Nodes and edges with their data, by the names that files give them."""
    nodes = {" ".join(key): {"kind": key[0], "name": key[1], **data} for key, data in view.nodes(data=True)}
    edges = sorted((" ".join(a), " ".join(b), sorted(data.items())) for a, b, data in view.edges(data=True))
    return nodes, edges


@pytest.mark.parametrize("kind", ["coupling", "dataflow"])
@pytest.mark.parametrize("name", NAMES)
def test_graphml_and_json_hold_all_of_a_graph(name, kind, tmp_path):
    view = views(name)[kind]
    graph_files.save(view, tmp_path / "g.graphml")
    graph_files.save(view, tmp_path / "g.json")
    nodes, edges = told(view)
    read = nx.read_graphml(tmp_path / "g.graphml")
    assert dict(read.nodes(data=True)) == nodes
    assert (
        sorted((a, b, sorted((k, v) for k, v in d.items() if k != "id")) for a, b, d in read.edges(data=True)) == edges
    )
    data = json.loads((tmp_path / "g.json").read_text())
    assert data["directed"] is True
    assert {one.pop("id"): one for one in data["nodes"]} == nodes
    assert sorted((one.pop("source"), one.pop("target"), sorted(one.items())) for one in data["edges"]) == edges


def strings(text):
    """The quoted strings of a DOT file, unescaped."""
    return [
        re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), one) for one in re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    ]


@pytest.mark.parametrize("kind", ["coupling", "dataflow"])
def test_dot_names_every_node_and_edge(kind):
    view = views("attention")[kind]
    text = graph_files.to_dot(view)
    assert text.startswith("digraph {\n")
    assert text.count(" -> ") == view.number_of_edges()
    assert {" ".join(key) for key in view} <= set(strings(text))


def test_dot_escapes_what_names_may_hold():
    view = nx.DiGraph()
    view.add_edge(("op", ODD), ("value", "plain"), relation=ODD)
    text = graph_files.to_dot(view)
    assert len(text.splitlines()) == 5
    assert f"op {ODD}" in strings(text)
    assert strings(text).count(ODD) == 4  # label and name of the node, label and relation of the edge


def test_public_functions_take_a_model_as_well(tmp_path):
    for function in (osl.coupling_graph, osl.dataflow):
        assert told(function(ALL["residual"].build())) == told(function(analysed("residual")))


@pytest.mark.parametrize("name", ["graph", "graph.txt", "graph.JSON"])
def test_another_ending_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"--graph .*expected an ending of .graphml, .dot, .json"):
        graph_files.save(nx.DiGraph(), tmp_path / name, "--graph")
    assert list(tmp_path.iterdir()) == []
