"""Which initializers train.

A float initializer trains if it has a *home* in the file (see :mod:`onnxslim_learn.bridge.write_back`) and an operator
reads it as a weight, directly or through operators that read initializers alone:

* a factor of a contraction, an embedding table, the scale or shift of a normalisation, a bias, a slope of PRelu;
* a factor of Mul or Div that varies along one axis (a scale per channel); one of several axes is a table (a rotation);
* a term of Add, Sub or Concat with more than one element, unless it is a mask: not finite, or of two values only.

Everything else stays what it is: scalars, running statistics, quantization parameters, bounds, sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    import onnx_ir as ir


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


Role: TypeAlias = "Callable[[Array], bool]"


def _slots(role: Role, *slots: int) -> dict[int, Role]:
    return dict.fromkeys(slots, role)


def _several(names: str, slots: dict[int, Role]) -> dict[str, dict[int, Role]]:
    return dict.fromkeys(names.split(), slots)


ROLES: dict[str, dict[int, Role]] = {
    **_several("MatMul Gemm FusedMatMul TransposeMatMul FusedGemm", _slots(_weight, 0, 1, 2)),
    **_several("Conv ConvTranspose CausalConvWithState", _slots(_weight, 1, 2)),
    **_several("BatchNormalization InstanceNormalization GroupNormalization", _slots(_weight, 1, 2)),
    **_several("LayerNormalization RMSNormalization SimplifiedLayerNormalization", _slots(_weight, 1, 2)),
    **_several("RNN GRU LSTM", _slots(_weight, 1, 2, 3, 7)),
    **_several("BiasGelu FastGelu BiasAdd BiasDropout BiasSplitGelu PRelu", _slots(_weight, 1)),
    **_several("Mul Div", _slots(_scale, 0, 1)),
    **_several("Add Sub", _slots(_term, 0, 1)),
    "Attention": _slots(_weight, 1, 2),
    "Concat": _slots(_joined, *range(16)),
    "DeformConv": _slots(_weight, 1, 3),
    "Einsum": _slots(_weight, *range(8)),
    "EmbedLayerNormalization": _slots(_weight, 2, 3, 4, 5, 6),
    "FusedConv": _slots(_weight, 1, 2),
    "Gather": _slots(_term, 0),
    "MultiHeadAttention": _slots(_weight, 3),
    "QuantizeLinear": _slots(_weight, 0),
    "SkipLayerNormalization": _slots(_weight, 2, 3, 4),
    "SkipSimplifiedLayerNormalization": _slots(_weight, 2, 3),
    "Sum": _slots(_term, *range(8)),
}
"""Operator -> input -> what an initializer there must be to train."""

FLOATS = (1, 10, 11, 16)
"""Element types that train."""


def trainable(graph: ir.Graph) -> set[str]:
    """Names of the initializers of a graph that train, by the rule above."""
    constants = set(graph.initializers.values())
    for node in graph:
        if all(value is None or value in constants for value in node.inputs):
            constants |= set(node.outputs)
    return {name for name, value in graph.initializers.items() if _is_weight(value, constants)}


def _is_weight(value: ir.Value, constants: Container[ir.Value]) -> bool:
    tensor = value.const_value
    if tensor is None or int(tensor.dtype) not in FLOATS or tensor.size <= 1:
        return False
    roles = _roles(value, constants, set())
    if _weight in roles:
        return True
    if not roles:
        return False
    array = np.asarray(tensor.numpy(), np.float32)
    return any(role(array) for role in roles)


def _roles(value: ir.Value, constants: Container[ir.Value], seen: set[ir.Value]) -> list[Callable[[Array], bool]]:
    """What reads a value as a weight, through nodes that read constants alone."""
    if value in seen:
        return []
    seen.add(value)
    found = []
    for node, slot in value.uses():
        others = [v for k, v in enumerate(node.inputs) if v is not None and k != slot]
        if node.op_type in ARITHMETIC and all(v in constants for v in others):
            for output in node.outputs:
                found += _roles(output, constants, seen)
        elif slot in ROLES.get(node.op_type, {}):
            found.append(ROLES[node.op_type][slot])
        elif node.op_type in MOVES and slot == 0:
            for output in node.outputs:
                found += _roles(output, constants, seen)
    return found


MOVES = frozenset(
    ("Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")
)
"""Operators whose first input is still a weight after them, whatever the sizes come from."""


ARITHMETIC = MOVES | frozenset(
    [
        "Abs",
        "Add",
        "BatchNormalization",
        "Clip",
        "Concat",
        "Div",
        "Exp",
        "InstanceNormalization",
        "LayerNormalization",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
        "Sub",
        "Tanh",
    ]
)
"""Operators through which a weight is computed from initializers (weight norm, weight standardisation)."""
