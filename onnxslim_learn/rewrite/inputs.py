"""Random inputs that a model accepts: for checks and timings where no data is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from onnxslim_learn.graph.coupling import Coupling
    from onnxslim_learn.graph.shapes import Sample

Array = np.ndarray[Any, Any]

PATCH = 16  # pixels
BINARY = 2  # integers that index nothing: token types, masks


def random_inputs(coupling: Coupling, sample: Sample, seed: int = 0) -> dict[str, Array]:
    """Draw inputs of the shapes of a sample.

    Floats have unit variance; integers that a lookup uses stay inside its table, others are 0 or 1.
    """
    rng = np.random.default_rng(seed)
    limits = index_limits(coupling)
    feeds = {}
    for name, shape in sample.inputs.items():
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(sample.dtype[name]))
        if dtype.kind in "iu":
            feeds[name] = rng.integers(0, limits.get(name, BINARY), shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[name] = rng.integers(0, 2, shape).astype(dtype)
        elif dtype.kind in "OSU":
            feeds[name] = np.full(shape, "a", object)
        else:
            feeds[name] = _patchy(rng, shape).astype(dtype)
    return feeds


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
    """Graph input -> exclusive upper bound, for inputs that reach a lookup; halved where arithmetic lies between."""
    values = {str(v.name): v for node in coupling.graph.nodes for v in node.inputs if v is not None}
    limits: dict[str, int] = {}
    for name, size in coupling.records.indices.items():
        for source, direct in _sources(values[name]):
            bound = size if direct else max(1, size // 2)
            limits[source] = min(bound, limits.get(source, bound))
    return limits


def _sources(value: ir.Value) -> list[tuple[str, bool]]:
    """Graph inputs that a value is computed from, and whether only moved (one-input operators) on the way."""
    found, seen = [], set()
    stack = [(value, True)]
    while stack:
        current, direct = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        node = current.producer()
        if node is None:
            if current.is_graph_input():
                found.append((str(current.name), direct))
            continue
        moving = [v for v in node.inputs if v is not None and not v.is_initializer()]
        stack += [(v, direct and len(moving) == 1) for v in moving]
    return found
