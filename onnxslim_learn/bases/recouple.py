"""The analysis of a model of which some nodes were written otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import onnx_ir as ir

from onnxslim_learn.coupling import groups as grouping
from onnxslim_learn.coupling.solver import couple

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.graph.load import Graph
    from onnxslim_learn.graph.shape_info import Sample, Shapes

Likes: TypeAlias = "dict[str, tuple[str, bool]]"


def recoupled(analysis: Analysis, model: ir.Model, likes: Likes) -> Analysis:
    """The analysis of what was made of a model; it stands for the same file, and times of nodes are none.

    Args:
        analysis: The model before.
        model: The model now; initializers that nothing reads any more are taken out.
        likes: New value -> one of the same type, and of the same shape but for the last axis if that is summed over.
    """
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    clones = still_equal(analysis.graph.clones, model)
    graph = replace(analysis.graph, model=model, shapes=_shapes(analysis.graph, model, likes), clones=clones)
    coupling = couple(graph, sensitive=analysis.sensitive)
    groups = tuple(grouping.decidable(coupling, grouping.find(coupling)))
    other = replace(analysis, graph=graph, coupling=coupling, groups=groups, latency=None, asked={})
    return other.asked_like(analysis)


def still_equal(clones: Mapping[str, str], model: ir.Model) -> dict[str, str]:
    """Copies of initializers that are what they were copied from still, or what another copy of it is.

    Args:
        clones: Copy -> what it was copied from.
        model: The model, in which some may have been changed.

    Returns:
        Copy -> the first that is equal.
    """
    first: dict[tuple[str, bytes], str] = {}
    left: dict[str, str] = {}
    for name, origin in [*((one, one) for one in dict.fromkeys(clones.values())), *clones.items()]:
        value = model.graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            equal = first.setdefault((origin, hashlib.sha256(value.const_value.tobytes()).digest()), name)
            left |= {name: equal} if equal != name else {}
    return left


def _shapes(graph: Graph, model: ir.Model, likes: dict[str, tuple[str, bool]]) -> Shapes:
    """What is known of shapes, with those of new values."""
    seen: dict[int, Sample] = {}
    fresh = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if n not in graph.initializers}  # type: ignore[union-attr]

    def grown(sample: Sample) -> Sample:
        if id(sample) not in seen:
            shape, dtype = dict(sample.shape), dict(sample.dtype)
            for name, (like, summed) in likes.items():
                shape[name] = (*shape[like][:-1], 1) if summed else shape[like]
                dtype[name] = dtype[like]
            shape |= {name: array.shape for name, array in fresh.items()}
            dtype |= {name: int(ir.DataType.from_numpy(array.dtype)) for name, array in fresh.items()}
            value = sample.value | {name: array for name, array in fresh.items() if array.dtype.kind == "i"}
            constant = sample.constant | set(fresh)
            seen[id(sample)] = replace(sample, shape=shape, dtype=dtype, value=value, constant=constant)
        return seen[id(sample)]

    shapes = graph.shapes
    return replace(
        shapes,
        nominal=grown(shapes.nominal),
        analysis=grown(shapes.analysis),
        third=grown(shapes.third),
        more=tuple(map(grown, shapes.more)),
    )
