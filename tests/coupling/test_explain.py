"""Explanations are true: views show the graph as it is, and every step of a path happens at the node it names."""

import itertools

import networkx as nx
import numpy as np
import onnx
import pytest

from onnxslim_learn.coupling import explain
from onnxslim_learn.coupling.graph import coupling_graph
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph import dataflow
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import NETS, analysed

PAIRS = 12
"""Pairs of axes asked about in one group: shortest paths over a whole net take long, and pairs repeat each other."""


def by_name(analysis):
    return {str(node.name): node for node in analysis.graph.nodes}


def touched(node):
    """Return the names of the tensors that a node reads or makes, in its bodies too."""
    names = {value.name for value in (*node.inputs, *node.outputs) if value is not None}
    for attribute in node.attributes.values():
        bodies = [attribute.value] if attribute.type.name == "GRAPH" else []
        names.update(name for body in bodies for inner in body for name in touched(inner))
    return names


def parts(axis):
    tensor, _, position = axis.rpartition(":")
    return tensor, int(position)


def assert_happens(analysis, step):
    """Assert that a step goes from one axis of its node's tensors to another."""
    node = by_name(analysis)[step.node]
    assert step.op_type == node.op_type
    for axis in (step.source, step.target):
        tensor, position = parts(axis)
        assert tensor in touched(node), (step, "does not touch", tensor)
        assert position < len(analysis.coupling.values[tensor].axes), step


def assert_connected(steps):
    for one, following in itertools.pairwise(steps):
        assert one.target == following.source, (one, following)


# --- the dataflow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_the_dataflow_has_every_operand_once_and_nothing_else(name):
    graph = analysed(name).graph
    flow = dataflow.dataflow(graph)
    wanted = []
    for node in graph.nodes:
        me = ("op", node.name)
        assert flow.nodes[me]["op_type"] == node.op_type
        wanted += [(("value", v.name), me, k) for k, v in enumerate(node.inputs) if v is not None]
        wanted += [(me, ("value", v.name), k) for k, v in enumerate(node.outputs) if v.name]
    assert sorted(flow.edges(data="slot")) == sorted(wanted)
    assert nx.is_directed_acyclic_graph(flow)


CUT_POINTS = {
    "chain": ["a", "n", "r", "y"],
    "residual": ["h0", "h1", "g1", "h2", "y"],  # the blocks lie between h0 and h1, and between g1 and h2
    "unet": ["a", "r", "c", "d", "e", "y"],  # the way down and up lies between r and c
    "attention": ["mixed", "rows", "joined", "out", "y"],  # queries, keys and values all read the input
    "multi_io": [],  # neither input reaches both outputs
}


def test_a_block_is_held_by_what_its_pin_says_or_by_nothing():
    analysis = analysed("residual")
    assert [explain.why(analysis.coupling, analysis.groups, name) for name in ("w1:block", "w3:block")] == [[], []]
    held = [(name, b) for name in NETS for b in analysed(name).coupling.blocks if b.pin]
    assert held
    for name, block in held:
        (step,) = explain.why(analysed(name).coupling, analysed(name).groups, block.name)
        assert step.target == f"cannot go: {block.pin}"
        assert by_name(analysed(name))[step.node].op_type == step.op_type


@pytest.mark.parametrize("name", CUT_POINTS)
def test_blocks_lie_between_cut_points(name):
    assert dataflow.cut_points(analysed(name).graph) == CUT_POINTS[name]


@pytest.mark.parametrize("name", NETS)
def test_a_cut_point_is_an_operator_without_which_nothing_arrives(name):
    graph = analysed(name).graph
    flow = nx.DiGraph(dataflow.dataflow(graph))
    flow.add_edges_from(("start", ("value", value.name)) for value in graph.model.graph.inputs)
    flow.add_edges_from((("value", value.name), "end") for value in graph.model.graph.outputs)
    needed = []
    for node in graph.nodes:  # in topological order
        without = flow.subgraph(set(flow) - {("op", node.name)})
        if not nx.has_path(without, "start", "end"):
            needed.append(node.name)
    assert dataflow.cut_points(graph) == needed


# --- the coupling graph -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_the_coupling_graph_shows_groups_with_their_axes_and_pins(name):
    analysis = analysed(name)
    shown = coupling_graph(analysis.coupling, analysis.groups)
    assert {key for kind, key in shown if kind == "group"} == {group.name for group in analysis.groups}
    for group in analysis.groups:
        me = ("group", group.name)
        assert {shown.nodes[key]["axis"] for key in shown[me] if key[0] == "parameter"} == set(group.members)
        assert {key for kind, key in shown[me] if kind == "pin"} == ({group.pin.reason} if group.pin else set())
        assert shown.nodes[me] == {"width": group.width, "rows": group.rows, "prunable": group.pin is None}


def test_queries_and_values_hang_on_the_heads():
    analysis = analysed("attention")
    shown = coupling_graph(analysis.coupling, analysis.groups)
    rows = {frozenset(key for _, key in edge[:2]) for edge in shown.edges(data="row") if edge[2]}
    assert rows == {frozenset({"wq:1", "wq:1/4"}), frozenset({"wv:1", "wq:1/4"})}


TIES = ("reads", "strong", "weak")


@pytest.mark.parametrize("name", NETS)
def test_parameters_are_tied_by_operators_if_and_only_if_they_carry_one_group(name):
    analysis = analysed(name)
    shown = coupling_graph(analysis.coupling, analysis.groups)
    ties = nx.Graph()
    ties.add_nodes_from(key for key in shown if key[0] in ("parameter", "fresh"))
    ties.add_edges_from((a, b) for a, b, relation in shown.edges(data="relation") if relation in TIES)
    components = [{shown.nodes[key]["group"] for key in part} for part in nx.connected_components(ties)]
    assert all(len(groups) == 1 for groups in components)
    assert len(set().union(*components)) == len(components)


@pytest.mark.parametrize("name", NETS)
def test_a_shortest_path_between_two_parameters_tells_the_operators_that_tie_them(name):
    """Reading is checked by the operator's inputs; what is tied goes together, whatever is cut of the group."""
    analysis = analysed(name)
    nodes, shown = by_name(analysis), coupling_graph(analysis.coupling, analysis.groups)
    for group in analysis.groups:
        carried = [key for key in shown[("group", group.name)] if key[0] == "parameter"]
        for one, other in list(itertools.combinations(carried, 2))[:PAIRS]:
            path = nx.shortest_path(shown, one, other)
            assert {key[0] for key in path} <= {"parameter", "fresh"}
            for a, b in itertools.pairwise(path):
                tie = shown.edges[a, b]
                node = nodes[tie["node"]]
                assert node.op_type == tie["op_type"]
                if tie["relation"] == "reads":
                    assert {key[1].partition(":")[0] for key in (a, b)} & {v.name for v in node.inputs if v is not None}


def test_the_addition_of_a_residual_net_ties_what_it_adds():
    analysis = analysed("residual")
    shown = coupling_graph(analysis.coupling, analysis.groups)
    added = [data["node"] for *_, data in shown.edges(data=True) if data["relation"] == "strong"]
    sums = {str(node.name) for node in analysis.graph.nodes if node.op_type == "Add"}
    assert added
    assert set(added) <= sums


@pytest.mark.parametrize("name", NETS)
def test_a_path_to_a_pin_tells_what_stays_and_why(name):
    analysis = analysed(name)
    shown = coupling_graph(analysis.coupling, analysis.groups)
    for pin in analysis.coupling.relations.pins:
        held = {analysis.groups[k].name for k in owners(analysis, pin.atoms) if k >= 0}
        for key, data in shown.nodes(data=True):
            if key[0] == "parameter" and data["group"] in held:
                *_, last = nx.shortest_path(shown, key, ("pin", pin.reason))
                assert last == ("pin", pin.reason)


def owners(analysis, atoms):
    """Number of the group of each atom's column, or -1."""
    owner = np.full(analysis.coupling.columns, -1)
    for number, group in enumerate(analysis.groups):
        owner[group.units] = number
    return set(owner[analysis.coupling.column[analysis.coupling.strong[atoms[atoms > 0]]]].tolist())


@pytest.mark.parametrize("name", NETS)
def test_components_without_pins_decide_independently(name):
    analysis = analysed(name)
    shown = coupling_graph(analysis.coupling, analysis.groups)
    free = shown.subgraph([node for node in shown if node[0] != "pin"]).to_undirected()
    owner = np.full(analysis.coupling.columns, -1)
    for number, group in enumerate(analysis.groups):
        owner[group.units] = number
    for group in laws.free(analysis):
        gone = laws.close(analysis, group.units).gone
        reached = {analysis.groups[k].name for k in owner[analysis.coupling.column[gone]] if k >= 0}
        component = {key for kind, key in nx.node_connected_component(free, ("group", group.name)) if kind == "group"}
        assert reached <= component, (group.name, reached - component)


# --- why two axes are coupled -----------------------------------------------------------------------------------------

WHY_COUPLED = [
    # net, one axis, another, the nodes that tie them
    ("chain", "w1:0", "w2:1", ["a", "n", "r", "y"]),
    ("chain", "w2:1", "w1:0", ["y", "r", "n", "a"]),
    ("chain", "w1:0", "b1:0", ["a"]),
    ("chain", "w1:0", "a:1", ["a"]),  # an activation's axis
    ("residual", "w0:0", "w2:0", ["h0", "h1", "c1"]),  # through the addition
    ("residual", "w0:0", "w4:0", ["h0", "h1", "g1", "h2", "c2"]),
    ("residual", "w1:0", "w3:0", []),  # one inside each block
    ("residual", "w1:0", "w1:1", []),  # what a layer makes and what it reads
    ("residual", "w0:0", "w0:1", ["h0"]),  # where the other meets the graph input
    ("depthwise", "w1:0", "w3:1", ["a", "r", "d", "n", "q", "p"]),
    ("attention", "wq:1", "wk:1", ["qx", "qb", "q0", "q", "raw", "k", "k0", "kx"]),  # the product of queries and keys
]


@pytest.mark.parametrize(("net", "first", "second", "nodes"), WHY_COUPLED)
def test_the_shortest_chain_of_operators_is_told(net, first, second, nodes):
    assert [step.node for step in slim.why(analysed(net), f"{first},{second}")] == nodes


@pytest.mark.parametrize("name", NETS)
def test_every_step_between_two_axes_of_a_group_happens(name):
    analysis = analysed(name)
    for group in analysis.groups:
        for first, second in itertools.islice(itertools.combinations(group.members, 2), PAIRS):
            steps = explain.why_coupled(analysis.coupling, first, second)
            assert steps, (first, second, "are in one group, but nothing is told")
            assert (steps[0].source, steps[-1].target) == (first, second)
            assert_connected(steps)
            for step in steps:
                assert_happens(analysis, step)


@pytest.mark.parametrize("name", NETS)
def test_every_axis_on_the_way_loses_what_both_ends_lose(name):
    analysis = analysed(name)
    for group in analysis.groups:
        for first, second in itertools.islice(itertools.combinations(group.members, 2), PAIRS):
            shared = [other for other in analysis.groups if {first, second} <= set(other.members)]
            removals = [laws.close(analysis, other.units) for other in shared]
            steps = explain.why_coupled(analysis.coupling, first, second)
            for axis in {axis for step in steps for axis in (step.source, step.target)}:
                assert any(loses(removal, *parts(axis)) for removal in removals), (first, second, axis)


@pytest.mark.parametrize("name", NETS)
def test_axes_are_joined_only_by_a_node_that_touches_both_and_a_unit_that_both_carry(name):
    coupling = analysed(name).coupling
    nodes = by_name(analysed(name))
    for (one, i), (other, k), tie in explain.axes_of(coupling, np.arange(coupling.columns)).edges(data=True):
        assert {one, other} <= touched(nodes[tie["node"]])
        assert columns_of(coupling, one, i) & columns_of(coupling, other, k), (one, i, other, k)


def columns_of(coupling, tensor, position):
    labelled = [digit.labels for digit in coupling.values[tensor].axes[position] if digit.labels is not None]
    return {int(coupling.column[coupling.strong[atom]]) for atoms in labelled for atom in atoms.reshape(-1) if atom > 0}


def loses(removal, tensor, position):
    labelled = [digit for digit in removal.coupling.values[tensor].axes[position] if digit.labels is not None]
    return any(not removal.kept(digit).all() for digit in labelled)


# --- why a group cannot go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_every_step_to_what_pins_a_group_happens(name):
    analysis = analysed(name)
    outputs = {value.name for value in analysis.graph.model.graph.outputs}
    for group in analysis.groups:
        steps = slim.why(analysis, group.name)
        if group.pin is None:
            assert steps == [], (group.name, "can go")
            continue
        *way, last = steps
        assert last.target.startswith("cannot go") and group.pin.reason in last.target
        assert steps[0].source in (*group.members, group.name)
        assert_connected(steps)
        for step in way:
            assert_happens(analysis, step)
        if last.op_type and last.node in by_name(analysis):
            assert parts(last.source)[0] in touched(by_name(analysis)[last.node]), last
        elif last.op_type:
            assert parts(last.source)[0] in outputs, (last, "ends at no output")


WHY_PINNED = [
    # net, group or axis, tensors on the way, node that pins
    ("chain", "w2:0", ["w2", "y"], "graph output"),
    ("pinned_by_output", "w1:0", ["w1", "tap"], "graph output"),
    ("pinned_by_output", "w2:1", ["w1", "tap"], "graph output"),  # the way starts where the group has its name
    ("pinned_by_input", "w2:0", ["w2", "b"], "Add"),
    ("branch", "w2:0", ["w2", "b"], "If"),  # its bodies read b
    ("detection_head", "w1:0", ["w1", "fine", "f1", "f2", "f3", "c", "y"], "graph output"),
]


@pytest.mark.parametrize(("net", "question", "tensors", "op_type"), WHY_PINNED)
def test_the_way_to_the_pin_is_told(net, question, tensors, op_type):
    steps = slim.why(analysed(net), question)
    assert [parts(step.source)[0] for step in steps] == tensors
    assert steps[-1].op_type == op_type


def test_protection_is_told_as_the_reason():
    analysis = analysed("chain")
    (group, _) = analysis.free_groups(["w1"])
    (step,) = explain.why_pinned(analysis.coupling, group)
    assert "is protected by w1" in step.target


BAD_QUESTIONS = [
    # question, words in the sentence
    ("nothing:0", ["nothing:0"]),
    ("w1", ["w1:0"]),  # an axis is missing: names one
    ("w1:7", ["w1:7"]),
    ("w1:0,w2", ["w2:0"]),
    ("w1:0,w1:0", ["twice"]),
    ("w1:0,", ["axis"]),
    ("", ["''"]),
]


@pytest.mark.parametrize(("question", "words"), BAD_QUESTIONS)
def test_a_question_about_nothing_is_refused(question, words):
    with pytest.raises(InputError) as caught:
        slim.why(analysed("chain"), question)
    for word in ("why", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", NETS)
def test_every_axis_has_an_answer(name):
    analysis = analysed(name)
    coupling, groups = analysis.coupling, analysis.groups
    inputs = {str(value.name) for value in analysis.graph.model.graph.inputs}
    for tensor, value in coupling.values.items():
        for axis, size in enumerate(value.shape):
            labels = [d.labels[d.labels > 0] for d in value.axes[axis] if d.labels is not None]
            columns = {int(c) for own in labels for c in coupling.column[coupling.strong[own]]}
            carried = [g for g in groups if columns & set(g.units.tolist())]
            carried = [g for g in carried if g.name == f"{tensor}:{axis}"] or carried
            steps = explain.why(coupling, groups, f"{tensor}:{axis}")
            if not steps:
                assert carried and all(group.pin is None for group in carried)
                continue
            assert steps[-1].target.startswith("cannot go: ")
            if columns:
                assert any(group.pin is not None for group in carried)
            elif "graph input" in steps[-1].target:
                source = next(word for word in inputs if f"graph input {word}," in steps[-1].target)
                assert size in coupling.values[source].shape


def test_axes_without_units_say_what_they_meet():
    analysis = analysed("residual")

    def told(question):
        (step,) = explain.why(analysis.coupling, analysis.groups, question)
        return step.source, step.node, step.target

    assert told("w0:1") == ("w0:1", "h0", "cannot go: it meets graph input x, whose axes stay")
    assert told("x:1") == ("x:1", "h0", "cannot go: it is graph input x, whose axes stay")
    assert told("x:1,w0:1") == told("x:1")
    assert told("w1:2") == (
        "w1:2",
        "the model",
        "cannot go: no units lie on it (a kernel, position, token or batch axis)",
    )
    assert told("w1:0,w1:3")[0] == "w1:3"


MIXED = """<ir_version: 8, opset_import: ["" : 17]>
n (float[b,6] x) => (float[b,3] y, float[b,3,PUT] z)
<int64[3] rows = {0, 3, WIDE}, int64[2] flat = {0, ALL}, int64[1] start = {0}, int64[1] end = {PUT},
 int64[1] along = {2}>
{
    h = MatMul(x, w1)
    k = Reshape(h, rows)
    z = Slice(k, start, end, along)
    q = Reshape(k, flat)
    y = MatMul(q, w2)
}"""


@pytest.mark.parametrize(
    ("wide", "put", "word"),
    [(2, 1, "beside others"), (4, 3, "beside others"), (4, 1, None)],
)
def test_rows_that_mix_free_and_pinned_positions_are_said_to_do_so(wide, put, word):
    """Three rows of so many positions, the first of which are put out: those that are not go with all rows or none."""
    text = MIXED.replace("WIDE", str(wide)).replace("PUT", str(put)).replace("ALL", str(3 * wide))
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in (("w1", (6, 3 * wide)), ("w2", (3 * wide, 3))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    analysis = slim.analyze(model)
    last = next(group for group in analysis.groups if group.units.size and group.name.startswith("w1:1@"))
    assert last.pin is None if word is None else word in last.pin.reason


@pytest.mark.parametrize("name", NETS)
def test_rows_that_would_lose_their_last_unit_would_go(name):
    analysis = analysed(name)
    coupling = analysis.coupling
    for group in analysis.groups:
        if group.pin is not None and "last unit" in group.pin.reason:
            removed = np.zeros(coupling.columns, bool)
            removed[group.units] = True
            assert coupling.is_row[coupling.close(removed)].any()
            assert {len(part) for part in group.strata} == {1}
