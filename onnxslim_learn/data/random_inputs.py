"""Random inputs that a model accepts: for checks and timings where no data is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.graph import constant_folding
from onnxslim_learn.graph.dataflow import dataflow
from onnxslim_learn.runtime import timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.graph.shape_info import Sample


PATCH = 16  # pixels
BINARY = 2  # integers that index nothing: token types, masks


def random_inputs(coupling: Coupling, sample: Sample, seed: int = 0) -> dict[str, Array]:
    """Draw inputs of the shapes of a sample.

    Floats have unit variance; integers that a lookup uses stay inside its table, others are 0 or 1.
    """
    limits = index_limits(coupling)
    told = coupling.graph.values
    feeds = _draw(sample, limits, told, seed)
    indices = _computed(coupling)
    places = _reader(coupling, list(indices)) if indices else None
    while places:
        found = dict(zip(indices, places(feeds), strict=True))
        sizes = coupling.records.indices
        beyond = {source for name, i in found.items() if _outside(i, sizes[name]) for source in indices[name]}
        wide = {source for source in beyond if limits.get(source, BINARY) > 1}
        if not wide:
            break
        limits |= {source: limits.get(source, BINARY) // 2 for source in wide}
        feeds = _draw(sample, limits, told, seed)
    return feeds


def _draw(sample: Sample, limits: dict[str, int], told: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Inputs with integers below their limits; those that have a value have that."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name, shape in sample.inputs.items():
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(sample.dtype[name]))
        if name in told:
            feeds[name] = np.broadcast_to(told[name], shape).copy()
        elif dtype.kind in "iu":
            feeds[name] = rng.integers(0, limits.get(name, BINARY), shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[name] = rng.integers(0, 2, shape).astype(dtype)
        elif dtype.kind in "OSU":
            feeds[name] = np.full(shape, "a", object)
        else:
            feeds[name] = _patchy(rng, shape).astype(dtype)
    return feeds


def _outside(index: Array, size: int) -> bool:
    return bool(index.size and (index.min() < -size or index.max() >= size))


def _patchy(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Noise of unit variance; over images most of it in patches, since white noise saturates trained nets."""
    white = rng.standard_normal(shape)
    if len(shape) < 4 or min(shape[2:]) < PATCH:
        return white
    coarse = rng.standard_normal((*shape[:2], *(-(-n // PATCH) for n in shape[2:])))
    for axis in range(2, len(shape)):
        coarse = np.repeat(coarse, PATCH, axis=axis).take(np.arange(shape[axis]), axis=axis)
    return 0.9 * coarse + 0.436 * white


def index_limits(coupling: Coupling) -> dict[str, int]:
    """Graph input -> exclusive upper bound, for inputs that reach a lookup."""
    limits: dict[str, int] = {}
    sources = _sources(coupling)
    for name, size in coupling.records.indices.items():
        for source in sources[name]:
            limits[source] = min(size, limits.get(source, size))
    return limits


def _computed(coupling: Coupling) -> dict[str, list[str]]:
    """Index that a lookup uses -> the whole-numbered graph inputs it is computed, not only moved, from."""
    kinds = {str(v.name): v.dtype for v in coupling.graph.model.graph.inputs}
    computed = {}
    for name, sources in _sources(coupling).items():
        whole = [source for source in sources if (kind := kinds[source]) and kind.is_integer()]
        if whole and len(whole) == len(sources) and not all(sources.values()):
            computed[name] = whole
    return computed


def _reader(coupling: Coupling, names: list[str]) -> Callable[[dict[str, Array]], list[Array]]:
    """How to find out what the values of these names are for given inputs."""
    model = coupling.graph.model.clone()
    values = {str(v.name): v for node in model.graph for v in node.outputs}
    model.graph.outputs[:] = [values[name] for name in names]
    constant_folding.drop_unused(model)
    session = timing.open_session(ir.to_proto(model).SerializeToString(), optimize=False)
    return lambda feeds: [np.asarray(found) for found in session.run(None, feeds)]


def _sources(coupling: Coupling) -> dict[str, dict[str, bool]]:
    """Index of a lookup -> the graph inputs it comes from, and whether they are only moved (Reshape, Cast, ...)."""
    if not coupling.records.indices:
        return {}
    graph, flow = coupling.graph, dataflow(coupling.graph)
    movers = {("op", str(node.name)) for node in graph.nodes if roles.has(node, roles.Trait.MOVES)}
    moving = flow.subgraph([key for key in flow if key[0] == "value" or key in movers])
    inputs = [str(value.name) for value in graph.model.graph.inputs]
    sources = {}
    for name in coupling.records.indices:
        end = ("value", name)
        before, moved = ({end, *nx.ancestors(view, end)} for view in (flow, moving))
        sources[name] = {source: ("value", source) in moved for source in inputs if ("value", source) in before}
    return sources
