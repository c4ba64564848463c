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
from onnxslim_learn.coupling import roles

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


Test: TypeAlias = "Callable[[Array], bool]"

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
    tests = _tests(value, constants, set())
    if _weight in tests:
        return True
    if not tests:
        return False
    array = np.asarray(tensor.numpy(), np.float32)
    return any(test(array) for test in tests)


def _tests(value: ir.Value, constants: Container[ir.Value], seen: set[ir.Value]) -> list[Test]:
    """What a value must be to train, by what reads it as a weight, through nodes that read constants alone."""
    if value in seen:
        return []
    seen.add(value)
    tests = []
    for node, slot in value.uses():
        others = [v for k, v in enumerate(node.inputs) if v is not None and k != slot]
        test = _test(roles.of(node), slot)
        computed = roles.has(node, roles.Trait.SMOOTH) and all(v in constants for v in others)
        if computed or (test is None and slot == 0 and roles.has(node, roles.Trait.MOVES)):
            for output in node.outputs:
                tests += _tests(output, constants, seen)
        elif test is not None:
            tests.append(test)
    return tests


def _test(row: roles.Operator, slot: int) -> Test | None:
    """What an initializer must be to train where an operator reads it; ``None`` where it is no weight."""
    if slot in row.weights:
        return _weight
    if row.arithmetic:
        return _scale if row.arithmetic in ("multiply", "divide") else _term
    if roles.Trait.JOINS in row.traits:
        return _joined
    looked_up = roles.Trait.PICKS in row.traits and roles.Trait.MOVES not in row.traits
    return _term if looked_up and slot == 0 else None
