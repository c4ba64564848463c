"""The picture's data: it costs what the model costs, runs forward, and is after a cut what the file is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.report.network import network, packed
from onnxslim_learn.workflow import slim
from tests.laws import NETS, PLANS, analysed, draw_removal, free, written


def totals(nodes, side):
    return {cost: sum(node[cost][side] for node in nodes) for cost in ("macs", "params")}


@pytest.mark.parametrize("name", NETS)
def test_what_is_drawn_costs_what_the_model_costs(name):
    analysis = analysed(name)
    nodes = network(analysis)
    assert totals(nodes, 0) == {cost: analysis.price(analysis.whole)[cost] for cost in ("macs", "params")}
    assert all(node["macs"][0] == node["macs"][1] for node in nodes)


@pytest.mark.parametrize("name", NETS)
def test_lines_run_forward_and_every_name_is_one_of_the_file(name):
    analysis = analysed(name)
    nodes = network(analysis)
    names = {str(node.name) for node in analysis.graph.nodes} | {str(v.name) for v in analysis.graph.model.graph.inputs}
    assert {node["name"] for node in nodes} <= names
    assert all(place < number for number, node in enumerate(nodes) for place in node["inputs"])
    assert {node["group"] for node in nodes} - {None} <= {group.name for group in analysis.groups}


@pytest.mark.parametrize("name", NETS)
@PLANS
@given(data=st.data())
def test_widths_and_costs_after_a_cut_are_those_of_its_file(name, data):
    analysis = analysed(name)
    if not free(analysis):
        return
    removal = draw_removal(data.draw, analysis)
    nodes = {node["name"]: node for node in network(analysis, removal)}
    again = {node["name"]: node for node in network(slim.analyze(written(analysis, removal)))}
    for node_name in nodes.keys() & again.keys():
        told, read = nodes[node_name], again[node_name]
        assert told["macs"][1] == read["macs"][0], node_name
    assert totals(nodes.values(), 1) == totals(again.values(), 0)


def unpacked(told):
    """What the page's script reads from a packed picture."""
    words, groups = told["words"], told["groups"]

    def pair(number):
        return number if isinstance(number, list) else [number, number]

    return [
        {
            "name": name,
            "op_type": words[op],
            "module": words[module],
            "width": pair(width) if width else None,
            "macs": pair(macs),
            "params": pair(params),
            "group": groups[group]["name"] if group >= 0 else None,
            "inputs": inputs,
        }
        for name, op, module, width, macs, params, group, inputs in told["nodes"]
    ]


@pytest.mark.parametrize("name", NETS)
def test_a_packed_picture_holds_all_of_it(name):
    analysis = analysed(name)
    nodes = network(analysis)
    assert unpacked(packed(nodes, [{"name": group.name} for group in analysis.groups])) == nodes
