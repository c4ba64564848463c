"""networkx views of a graph: derived, disposable, never the store of truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx

if TYPE_CHECKING:
    from onnxslim_learn.graph.load import Graph


def dataflow(graph: Graph) -> Any:
    """The dataflow as a bipartite ``networkx.MultiDiGraph``.

    Nodes are ``("op", name)`` with attribute ``op_type`` and ``("value", name)``; an edge from a value to an operator
    carries ``slot``, the input's index, and one from an operator to a value the output's.
    """
    view = nx.MultiDiGraph()
    for node in graph.nodes:
        me = ("op", str(node.name))
        view.add_node(me, op_type=node.op_type)
        for slot, value in enumerate(node.inputs):
            if value is not None:
                view.add_edge(("value", str(value.name)), me, slot=slot)
        for slot, value in enumerate(node.outputs):
            if value.name:
                view.add_edge(me, ("value", str(value.name)), slot=slot)
    return view


def cut_points(graph: Graph) -> list[str]:
    """Names of the operators that every path from the inputs to the outputs passes, in order.

    These are the dominators of a virtual sink: a network falls apart at them, so a residual block lies between two.
    """
    view = nx.DiGraph(dataflow(graph))
    source, sink = ("op", ""), ("op", "\n")
    for value in graph.model.graph.inputs:
        view.add_edge(source, ("value", str(value.name)))
    for value in graph.model.graph.outputs:
        view.add_edge(("value", str(value.name)), sink)
    reachable = nx.descendants(view, source) | {source}
    dominators = nx.immediate_dominators(view.subgraph(reachable), source)
    chain = []
    at = dominators.get(sink)
    while at is not None and at != source:
        if at[0] == "op":
            chain.append(at[1])
        at = dominators[at] if dominators.get(at) != at else None
    return chain[::-1]
