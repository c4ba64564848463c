"""Stored normalisations folded into the layers before them, where that makes the basis of what they put out free."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.bases.find import owners, spaces
from onnxslim_learn.bases.recouple import recoupled
from onnxslim_learn.coupling import roles
from onnxslim_learn.repair.linear_forms import array_of
from onnxslim_learn.repair.linear_nodes import Linear, linears
from onnxslim_learn.rewrite import edit

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.records import Slot


def folded(analysis: Analysis, wanted: Callable[[str], bool] = lambda name: True) -> Analysis:
    """The analysis with stored normalisations folded where that makes a basis free.

    Args:
        analysis: The model.
        wanted: Whether the space of a name is wanted; normalisations of others stay as they are.
    """
    known = {space.name for space in spaces(analysis.coupling, analysis.groups)}
    every = _folded(analysis, lambda output: True)
    if every is analysis:
        return analysis
    fresh = [s for s in spaces(every.coupling, every.groups) if s.name not in known and wanted(s.name)]
    owner, coupling = owners(every.coupling, fresh), every.coupling

    def serves(output: str) -> bool:
        digits = coupling.values[output].axes[1] if output in coupling.values else ()
        labels = [d.labels[d.labels > 0] for d in digits if d.labels is not None]
        return any((owner[coupling.column[coupling.strong[one]]] >= 0).any() for one in labels)

    return _folded(analysis, serves) if fresh else analysis


def _folded(analysis: Analysis, serves: Callable[[str], bool]) -> Analysis:
    """The analysis with the normalisations folded that put certain values out."""
    model = analysis.graph.model.clone()
    able = [one for one in linears(model) if one.gain is not None and _behind(one) and serves(one.output)]
    for one in able:
        _fold(model, one)
    if not able:
        return analysis
    return recoupled(analysis, model, {})


def _behind(linear: Linear) -> ir.Node | None:
    """The normalisation right behind a convolution that has a place for a bias."""
    use = next(iter(linear.node.outputs[0].uses()), None)
    factors = roles.convolution(linear.node)
    fits = use is not None and factors is not None and factors.bias is not None and roles.normalisation(use.node)
    return use.node if use is not None and fits else None


def _fold(model: ir.Model, linear: Linear) -> None:
    """Multiply a convolution by what the normalisation behind it multiplies by, and give it the whole shift."""
    norm, factors, weights = _behind(linear), roles.convolution(linear.node), linear.read()
    assert norm is not None
    assert factors is not None
    assert factors.bias is not None
    dtype = array_of(linear.weight).dtype
    tensor = linear.form.tensor(weights.matrix).astype(dtype)
    changes: dict[Slot, Any] = {
        factors.weight: np.ascontiguousarray(tensor),
        factors.bias: weights.bias.reshape(-1).astype(dtype),
    }
    edit.apply(model.graph, linear.node, changes)
    value, old = linear.node.outputs[0], norm.outputs[0]
    name = str(old.name)
    for user, index in list(old.uses()):
        user.replace_input_with(index, value)
    model.graph.outputs[:] = [value if v is old else v for v in model.graph.outputs]
    value.type, value.shape = old.type, old.shape
    model.graph.remove(norm, safe=True)
    old.name, value.name = f"{name}.normalised", name
