"""Random inputs that a model accepts: for checks and timings where no data is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.graph import constant_folding, texts
from onnxslim_learn.graph.dataflow import dataflow
from onnxslim_learn.runtime import timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.graph.load import Graph
    from onnxslim_learn.graph.shape_info import Sample

    Reader = Callable[[dict[str, Array]], list[Array]]  # inputs -> some values


PATCH = 16  # pixels
BINARY = 2  # integers that index nothing: token types, masks


def random_inputs(coupling: Coupling, sample: Sample, seed: int = 0) -> dict[str, Array]:
    """Draw inputs of the shapes of a sample.

    Floats have unit variance; integers that a lookup uses stay inside its table, others are 0 or 1, one alone 1.
    """
    return RandomInputs(coupling).draw(sample, seed)


class RandomInputs:
    """Draws inputs of a model, see :func:`random_inputs`; what lookups ask of them is found out once."""

    def __init__(self, coupling: Coupling) -> None:
        """Find out which inputs lookups use."""
        self.coupling = coupling
        self.limits = index_limits(coupling)
        self.indices = computed(coupling)
        self.places = Places(coupling, self.indices) if self.indices else None

    def draw(self, sample: Sample, seed: int = 0) -> dict[str, Array]:
        """Inputs of the shapes of a sample."""
        limits, sizes = dict(self.limits), ends(self.coupling, sample)
        feeds = _draw(self.coupling, sample, limits, seed)
        while self.places:
            positions = self.places.read(feeds)
            outside = {name for name, i in positions.items() if i is None or _outside(i, sizes[name])}
            beyond = {source for name in outside for source in self.indices[name]}
            wide = {source for source in beyond if limits.get(source, BINARY) > 1}
            if not wide:
                break
            limits |= {source: limits.get(source, BINARY) // 2 for source in wide}
            feeds = _draw(self.coupling, sample, limits, seed)
        return feeds


def drawn(coupling: Coupling, sample: Sample, seed: int = 0) -> dict[str, Array]:
    """Draw inputs of the shapes of a sample without a look at lookups whose places are computed."""
    return _draw(coupling, sample, index_limits(coupling), seed)


def _draw(coupling: Coupling, sample: Sample, limits: dict[str, int], seed: int) -> dict[str, Array]:
    """Inputs with integers below their limits; those that have a value have that, boxes lie in their picture."""
    told, boxes = coupling.graph.values, coupling.records.boxes
    rng = np.random.default_rng(seed)
    feeds = {}
    for name, shape in sample.inputs.items():
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(sample.dtype[name]))
        if name in told:
            feeds[name] = np.broadcast_to(told[name], shape).copy()
        elif dtype.kind in "iu":
            least = int(not shape and name not in limits)  # one number alone counts something: not nothing
            feeds[name] = rng.integers(least, limits.get(name, BINARY), shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[name] = rng.integers(0, 2, shape).astype(dtype)
        elif dtype.kind in "OSU":
            feeds[name] = np.full(shape, texts.known(coupling.graph.model.graph, name), object)
        elif name in boxes and shape[-1:] in ((4,), (5,)):
            feeds[name] = _boxes(rng, shape, boxes[name]).astype(dtype)
        else:
            noise = _patchy(rng, shape).astype(dtype)
            feeds[name] = abs(noise) if name in coupling.graph.nonnegative else noise
    return feeds


def _boxes(rng: np.random.Generator, shape: tuple[int, ...], picture: tuple[float, float]) -> Array:
    """Corners of boxes in a picture of a width and height; behind the number of the picture, 0, if there are five."""
    ends = np.sort(rng.random((*shape[:-1], 2, 2)), axis=-2) * picture
    corners = ends.reshape(*shape[:-1], 4)
    return np.concatenate([np.zeros((*shape[:-1], shape[-1] - 4)), corners], axis=-1)


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
    """Graph input -> exclusive upper bound, for inputs whose entries are themselves looked up."""
    limits: dict[str, int] = {}
    sources = _sources(coupling)
    for name, size in coupling.records.indices.items():
        for source in (source for source, moved in sources[name].items() if moved):
            limits[source] = min(size, limits.get(source, size))
    return limits


def ends(coupling: Coupling, sample: Sample) -> dict[str, int]:
    """Index that a lookup uses -> the size of what it points into, at the sizes of a sample."""
    tables = coupling.records.tables.items()
    return coupling.records.indices | {name: sample.shape[table][axis] for name, (table, axis) in tables}


def computed(coupling: Coupling) -> dict[str, list[str]]:
    """Index that a lookup uses -> the whole-numbered graph inputs it is computed, not only moved, from."""
    kinds = {str(v.name): v.dtype for v in coupling.graph.model.graph.inputs}
    computed = {}
    for name, sources in _sources(coupling).items():
        whole = [source for source in sources if (kind := kinds[source]) and kind.is_integer()]
        if whole and len(whole) == len(sources) and not all(sources.values()):
            computed[name] = whole
    return computed


def reader(graph: Graph, names: list[str]) -> Reader:
    """How to find out what the values of these names are for given inputs."""
    model = graph.model.clone()
    values = {str(v.name): v for node in model.graph for v in node.outputs}
    model.graph.outputs[:] = [values[name] for name in names]
    constant_folding.drop_unused(model)
    session = timing.open_session(ir.to_proto(model).SerializeToString(), optimize=False)
    taken = {one.name for one in session.get_inputs()}
    return lambda feeds: [
        np.asarray(output) for output in session.run(None, {k: x for k, x in feeds.items() if k in taken})
    ]


class Places:
    """Reads the places that lookups use, which a model computes from its inputs."""

    def __init__(self, coupling: Coupling, names: Iterable[str]) -> None:
        """Prepare to read the values of these names."""
        self.coupling, self.names = coupling, list(names)
        self.together = reader(coupling.graph, self.names)

    def read(self, feeds: dict[str, Array]) -> dict[str, Array | None]:
        """Places by the name of the value; ``None`` where another lookup on the way to them fails."""
        try:
            return dict(zip(self.names, self.together(feeds), strict=True))
        except Exception:  # of onnxruntime's
            return {name: self._alone(name, feeds) for name in self.names}

    def _alone(self, name: str, feeds: dict[str, Array]) -> Array | None:
        try:
            return reader(self.coupling.graph, [name])(feeds)[0]
        except Exception:  # of onnxruntime's
            return None


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
