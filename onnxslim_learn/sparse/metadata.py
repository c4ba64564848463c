"""What a file says of its zeros: the pattern among its metadata, which must be true of whatever is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.errors import InputError
from onnxslim_learn.sparse import patterns
from onnxslim_learn.sparse.maskable import maskable

if TYPE_CHECKING:
    import onnx_ir as ir

KEY = "onnxslim_learn.sparsity"


def promised(model: ir.Model) -> bool:
    """Whether a model says that it is sparse."""
    return KEY in model.metadata_props


def broken(before: ir.Model, model: ir.Model) -> bool:
    """Whether a weight that had the pattern a model says it has does not have it any more.

    Args:
        before: The model as it was.
        model: What was made of it.
    """
    try:
        pattern = patterns.parse(before.metadata_props[KEY])
    except InputError:  # somebody else's
        return True
    return bool(_sparse(before, pattern) & set(model.graph.initializers) - _sparse(model, pattern))


def _sparse(model: ir.Model, pattern: patterns.Pattern) -> set[str]:
    """Weights with zeros in a pattern."""
    names = set()
    for layer in maskable(model):
        array = np.asarray(model.graph.initializers[layer.name].const_value.numpy())  # type: ignore[union-attr]
        whole = pattern.kind != "n:m" or patterns.groups_of(pattern, layer).size
        if whole and not array.all() and patterns.holds(array, pattern, layer):
            names.add(layer.name)
    return names


def correct(before: ir.Model, model: ir.Model) -> None:
    """Let a model no longer say that it is sparse if what was made of it is not."""
    if promised(before) and promised(model) and broken(before, model):
        del model.metadata_props[KEY]
