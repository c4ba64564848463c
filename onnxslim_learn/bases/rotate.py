"""Write a model in other bases: what writes an axis is multiplied by a rotation, what reads it by the inverse.

All initializers that carry the units of a space are multiplied along that axis by its orthogonal matrix. The operators
between them do not tell the units apart, so that what they compute follows, and outputs stay the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.bases import norms
from onnxslim_learn.bases.find import Space, owners, spaces
from onnxslim_learn.bases.fold import folded
from onnxslim_learn.errors import PlanError
from onnxslim_learn.graph.load import release
from onnxslim_learn.plans.plan import BASES, digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.relations import Value
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.plans.plan import Plan

Bases = Mapping[str, Array]  # space -> orthogonal matrix, whose rows are the new directions


def in_bases(analysis: Analysis, bases: Bases) -> Analysis:
    """The analysis of a model whose axes are in other bases; it stands for the same file.

    Args:
        analysis: The model.
        bases: Space -> orthogonal ``(n, n)``.

    Raises:
        PlanError: If the model has no such space.
    """
    known = _known(analysis)
    if not bases.keys() <= known.keys():
        analysis = norms.without(folded(analysis, bases.__contains__), bases.__contains__)
        known = _known(analysis)
    for name, matrix in bases.items():
        if name not in known or matrix.shape != (known[name].size,) * 2:
            raise PlanError(f"bases {name}: the model has no such space of {len(matrix)} units. Use its model.")
    graph = analysis.graph
    turned = [(known[name], matrix) for name, matrix in bases.items()]
    rotated = replace(graph, model=_rotated(analysis.coupling, turned), bases=digest(bases))
    return replace(analysis, graph=rotated, coupling=replace(analysis.coupling, graph=rotated), bases=dict(bases))


def _known(analysis: Analysis) -> dict[str, Space]:
    return {space.name: space for space in spaces(analysis.coupling, analysis.groups)}


def as_planned(analysis: Analysis, chosen: Plan) -> Analysis:
    """The analysis of a model in the bases that a plan is for.

    Raises:
        PlanError: If the plan lacks its rotations, or the model is in other bases.
    """
    wanted = chosen.provenance.get(BASES)
    if not wanted and not analysis.bases:
        return analysis
    if wanted and not chosen.bases:
        raise PlanError("the plan is for rotated bases, but its rotations are missing. Load it from its file.")
    if analysis.bases and digest(analysis.bases) != (wanted or {}).get("sha256"):
        raise PlanError("the model is in other bases than the plan is for. Analyze its file.")
    return analysis if analysis.bases else in_bases(analysis, chosen.bases)


def _rotated(coupling: Coupling, turned: Sequence[tuple[Space, Array]]) -> ir.Model:
    """The model with the initializers that carry some spaces multiplied; they are when they are read."""
    model = coupling.graph.model.clone()
    owner = owners(coupling, [space for space, _ in turned])
    for name, value in model.graph.initializers.items():
        layout, old = coupling.values.get(name), value.const_value
        if layout is None or old is None or not _carries(coupling, layout, owner):
            continue

        def make(old: ir.TensorProtocol, layout: Value) -> ir.TensorProtocol:
            array = mixed(np.asarray(old.numpy()), layout, coupling, turned)
            release(old)
            return ir.tensor(array, dtype=old.dtype, name=old.name)

        value.const_value = ir.LazyTensor(
            partial(make, old, layout),
            dtype=old.dtype,
            shape=value.shape or ir.Shape(old.numpy().shape),
            name=old.name,
            doc_string=old.doc_string,
            metadata_props=dict(old.metadata_props),
            cache=True,
        )
    return model


def _carries(coupling: Coupling, layout: Value, owner: Array) -> bool:
    labels = [d.labels for d in layout.digits.values() if d.labels is not None]
    return any((owner[coupling.column[coupling.strong[array[array > 0]]]] >= 0).any() for array in labels)


def mix(lines: Array, columns: Labels, owner: Labels, turned: Sequence[tuple[Space, Array]]) -> None:
    """Mix what lies at some columns, along the first axis, in place."""
    ids = owner[columns]
    for space, matrix in (turned[k] for k in np.unique(ids[ids >= 0])):
        for at in copies if (copies := space.copies(columns)) is not None else ():
            lines[at] = np.tensordot(matrix, lines[at], 1)


def mixed(array: Array, layout: Value, coupling: Coupling, turned: Sequence[tuple[Space, Array]]) -> Array:
    """An initializer with the units of spaces mixed along every axis that has them."""
    owner = owners(coupling, [space for space, _ in turned])
    digits = list(layout.digits.values())
    keys = [digit.key for digit in digits]
    split = array.reshape([digit.size for digit in digits]).astype(np.float64)
    for axis, digit in enumerate(digits):
        for row in np.ndindex(digit.labels.shape[:-1]) if digit.labels is not None else ():
            index = dict(zip((keys.index(key) for key in digit.deps), row, strict=True))
            inside = split[tuple(index.get(k, slice(None)) for k in range(len(digits)))]
            lines = np.moveaxis(inside, axis - sum(k < axis for k in index), 0)
            labels: Labels = digit.labels[row]  # type: ignore[index]
            mix(lines, np.where(labels > 0, coupling.column[coupling.strong[labels]], -1), owner, turned)
    return split.reshape(array.shape).astype(array.dtype)
