"""Which initializers train.

A float initializer trains if it has a *home* in the file (see :mod:`onnxslim_learn.train.export`) and an operator reads
it as a weight, directly or through operators that read initializers alone:

* a factor of a contraction, an embedding table, the scale or shift of a normalisation, a bias, a slope of PRelu;
* a factor of Mul or Div that varies along one axis (a scale per channel); one of several axes is a table (a rotation);
* a term of Add, Sub or Concat with more than one element, unless it is a mask: not finite, or of two values only.

Everything else stays what it is: scalars, running statistics, quantization parameters, bounds, sizes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

Array = np.ndarray[Any, Any]


def _weight(array: Array) -> bool:
    return array.size > 1


def _scale(array: Array) -> bool:
    """Varies along one axis at most."""
    return array.size > 1 and max(array.shape) == array.size


def _term(array: Array) -> bool:
    """No mask: finite, and of one value (a fresh bias) or more than two."""
    if array.size <= 1 or not np.isfinite(array).all():
        return False
    return len(np.unique(array.reshape(-1)[:4096])) != 2


def _joined(array: Array) -> bool:
    """A learnt token, no padding with one value."""
    return _term(array) and len(np.unique(array.reshape(-1)[:4096])) > 2


Role = "Callable[[Array], bool]"

ROLES: dict[str, dict[int, Callable[[Array], bool]]] = {
    **dict.fromkeys(["MatMul", "Gemm", "FusedMatMul", "TransposeMatMul", "FusedGemm"], {0: _weight, 1: _weight, 2: _weight}),
    "Einsum": dict.fromkeys(range(8), _weight),
    **dict.fromkeys(["Conv", "ConvTranspose", "FusedConv", "DeformConv"], {1: _weight, 2: _weight, 3: _weight}),
    "DeformConv": {1: _weight, 3: _weight},
    "CausalConvWithState": {1: _weight, 2: _weight},
    **dict.fromkeys(["RNN", "GRU", "LSTM"], {1: _weight, 2: _weight, 3: _weight, 7: _weight}),
    **dict.fromkeys(
        ["BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization"],
        {1: _weight, 2: _weight},
    ),
    "SimplifiedLayerNormalization": {1: _weight},
    "SkipLayerNormalization": {2: _weight, 3: _weight, 4: _weight},
    "SkipSimplifiedLayerNormalization": {2: _weight, 3: _weight},
    "EmbedLayerNormalization": {2: _weight, 3: _weight, 4: _weight, 5: _weight, 6: _weight},
    "Attention": {1: _weight, 2: _weight},
    "MultiHeadAttention": {3: _weight},
    **dict.fromkeys(["BiasGelu", "FastGelu", "BiasAdd", "BiasDropout", "BiasSplitGelu"], {1: _weight}),
    "PRelu": {1: _weight},
    "Gather": {0: _term},
    **dict.fromkeys(["Mul", "Div"], {0: _scale, 1: _scale}),
    **dict.fromkeys(["Add", "Sub"], {0: _term, 1: _term}),
    "Sum": dict.fromkeys(range(8), _term),
    "Concat": dict.fromkeys(range(16), _joined),
    "QuantizeLinear": {0: _weight},
}
"""Operator -> input -> what an initializer there must be to train."""

FLOATS = (1, 10, 11, 16)
"""Element types that train."""


def trainable(initializers: Mapping[str, ir.Value]) -> set[str]:
    """Names of the initializers that train, by the rule above."""
    return {name for name, value in initializers.items() if _is_weight(value)}


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or int(tensor.dtype) not in FLOATS or math.prod(int(d) for d in tensor.shape) <= 1:  # type: ignore[arg-type]
        return False
    roles = list(_roles(value, set()))
    if _weight in roles:
        return True
    if not roles:
        return False
    array = np.asarray(tensor.numpy(), np.float32)
    return any(role(array) for role in roles)


def _roles(value: ir.Value, seen: set[ir.Value]) -> list[Callable[[Array], bool]]:
    """What reads a value as a weight, through nodes that read constants alone."""
    if value in seen:
        return []
    seen.add(value)
    found = []
    for node, slot in value.uses():
        others = [v for k, v in enumerate(node.inputs) if v is not None and k != slot]
        if all(_is_constant(v) for v in others) and node.op_type not in ("Gather",):
            for output in node.outputs:
                found += _roles(output, seen)
        elif slot in ROLES.get(node.op_type, {}):
            found.append(ROLES[node.op_type][slot])
        elif node.op_type in MOVES and slot == 0:
            for output in node.outputs:
                found += _roles(output, seen)
    return found


MOVES = frozenset(("Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"))
"""Operators whose first input is still a weight after them, whatever the sizes come from."""


def _is_constant(value: ir.Value, depth: int = 8) -> bool:
    """Whether a value is computed from initializers alone."""
    if value.is_initializer():
        return True
    node = value.producer()
    if node is None or depth == 0:
        return False
    return all(_is_constant(v, depth - 1) for v in node.inputs if v is not None)
