"""What made-up inputs must be like, so that what a model does with them before any weight is defined.

Only that front part of the model is run, which costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from onnxslim_learn.data import random_inputs
from onnxslim_learn.errors import TooLargeError
from onnxslim_learn.graph.dataflow import dataflow
from onnxslim_learn.graph.input_sizes import dim_key, open_axes
from onnxslim_learn.runtime.node import bodies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from onnxslim_learn.array_types import Array
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.graph.shape_info import Sample

FRONT = 200  # nodes; what is longer is no preparation of inputs
VECTOR = 1  # rank of constants that are no weights


def settle(coupling: Coupling) -> None:
    """Find out which inputs must not be negative, and whether places that are looked up exist at all sizes.

    Raises:
        TooLargeError: If open dimensions are so long that a table ends before them.
    """
    coupling.graph.nonnegative = _nonnegative(coupling)
    _check_lookups(coupling)


# --- signs ------------------------------------------------------------------------------------------------------------


def _nonnegative(coupling: Coupling) -> frozenset[str]:
    """Float inputs of which negative numbers lead to no number before any weight is met: roots and logarithms."""
    graph = coupling.graph
    sources = {str(v.name): {str(v.name)} for v in graph.model.graph.inputs}
    front = list(_front(graph.nodes, sources))
    kinds = graph.shapes.analysis.dtype
    floats = [n for n in dict.fromkeys(front) if graph.model.graph.inputs and _is_float(kinds.get(n, 0))]
    if not floats:
        return frozenset()
    run, sample = random_inputs.reader(coupling.graph, floats), graph.shapes.analysis
    feeds = random_inputs.random_inputs(coupling, sample)
    wrong = _undefined(run, floats, feeds)
    inputs = {n for name in wrong for n in sources[name] if _is_float(kinds[n])}
    if not wrong or not inputs:
        return frozenset()
    positive = {name: abs(array) if name in inputs else array for name, array in feeds.items()}
    return frozenset(inputs) if len(_undefined(run, floats, positive)) < len(wrong) else frozenset()


def _front(nodes: list[ir.Node], sources: dict[str, set[str]]) -> Iterator[str]:
    """Values that are computed from graph inputs without weights; notes in ``sources`` from which."""
    for node in nodes[:FRONT]:
        given = [value for value in node.inputs if value is not None]
        moving = [str(value.name) for value in given if value.const_value is None]
        small = all(v.const_value is None or len(v.const_value.shape) <= VECTOR for v in given)
        plain = not node.domain and not bodies(node)
        if moving and small and plain and all(name in sources for name in moving):
            for value in node.outputs:
                if value.name:
                    sources[str(value.name)] = set().union(*(sources[name] for name in moving))
                    yield str(value.name)


def _is_float(kind: int) -> bool:
    import onnx

    return kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


def _undefined(run: random_inputs.Reader, names: list[str], feeds: dict[str, Array]) -> list[str]:
    """Which values hold something that is no number."""
    try:
        return [name for name, array in zip(names, run(feeds), strict=True) if np.isnan(array).any()]
    except Exception:  # of onnxruntime's: what cannot be run is told where the whole model is
        return []


def first_undefined(coupling: Coupling, feeds: Mapping[str, Array]) -> str:
    """Where the first number comes from that is none, in words: the node, and the inputs that it descends from."""
    kinds, nodes = coupling.graph.shapes.analysis.dtype, coupling.nodes
    outputs = [str(v.name) for node in nodes for v in node.outputs if v.name and _is_float(kinds.get(str(v.name), 0))]
    wrong = set(_undefined(random_inputs.reader(coupling.graph, outputs), outputs, dict(feeds)))
    for node in nodes:
        for value in node.outputs:
            if value.name in wrong:
                before = nx.ancestors(dataflow(coupling.graph), ("value", str(value.name)))
                inputs = [name for name in feeds if ("value", name) in before]
                return f"node {node.name} ({node.op_type}), which descends from {', '.join(inputs) or 'no input'}"
    return "a node that only the file as it was has"


# --- lookups ----------------------------------------------------------------------------------------------------------


def _check_lookups(coupling: Coupling) -> None:
    """Refuse sizes at which a place that is computed, not given, lies behind the end of its table."""
    indices = {n: s for n, s in random_inputs.computed(coupling).items() if not _weighs(coupling, n)}
    if not indices:
        return
    lookups, least = random_inputs.Places(coupling, indices), coupling.records.indices
    samples = coupling.graph.shapes.samples
    feeds = [random_inputs.drawn(coupling, sample) for sample in samples]
    shortest = lookups.read(_shortest(coupling, feeds[0]))
    for sample, places in zip(samples, map(lookups.read, feeds), strict=True):
        tables = random_inputs.ends(coupling, sample)
        for name, sources in indices.items():
            # where one entry is too many, entries of the inputs add up to too much, whatever the length
            if _inside(places[name], tables[name]) or not _inside(shortest[name], least[name]):
                continue
            longest = _longest(_opened(coupling, sample, sources), places[name], tables[name])
            if longest:
                place = "a place" if (known := places[name]) is None else f"place {known.max()}"
                raise TooLargeError(
                    f"value {name}: {place} is looked up in a table of {tables[name]} at {sample.sizes}."
                    " Give shorter inputs with ⟨input⟩ NAME:1x128.",
                    longest,
                )


def _inside(places: Array | None, size: int) -> bool:
    """Whether places are known and lie in a table of a size."""
    return places is not None and int(places.max(initial=0)) < size


def _longest(sizes: Mapping[str, int], places: Array | None, table: int) -> dict[str, int]:
    """How long open dimensions may be: shorter by what lies behind the table, or half where nothing is known."""
    excess = None if places is None else int(places.max()) - table + 1
    shorter = {name: size // 2 if excess is None else size - excess for name, size in sizes.items()}
    return {name: size for name, size in shorter.items() if size > 0}


def _shortest(coupling: Coupling, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The same inputs with one entry along every open dimension but the first axis."""
    inputs = {str(v.name): v for v in coupling.graph.model.graph.inputs}
    short = {name: {axis for axis in open_axes(inputs[name]) if axis > 0} for name in feeds}
    return {
        name: array[tuple(slice(1) if axis in short[name] else slice(None) for axis in range(array.ndim))]
        for name, array in feeds.items()
    }


def _weighs(coupling: Coupling, name: str) -> bool:
    """Whether weights are needed to compute a value."""
    values = {str(v.name): v for node in coupling.nodes for v in node.outputs}
    stack, seen = [values[name]] if name in values else [], set()
    while stack:
        value = stack.pop()
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        for given in (v for v in node.inputs if v is not None):
            tensor = given.const_value
            if tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) > VECTOR:
                return True
            stack.append(given)
    return False


def _opened(coupling: Coupling, sample: Sample, sources: list[str]) -> dict[str, int]:
    """Open dimensions of some inputs, but for the first axis, and their sizes in a sample."""
    inputs = {str(v.name): v for v in coupling.graph.model.graph.inputs}
    return {
        dim_key(inputs[name], axis): sample.inputs[name][axis]
        for name in sources
        for axis in open_axes(inputs[name])
        if axis > 0 and coupling.graph.shapes.is_open(name, axis)
    }
