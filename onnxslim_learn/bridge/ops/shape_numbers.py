"""Shape arithmetic on Python numbers, so that torch.compile sees sizes and no device waits for a host.

A value here is an ``int`` for an ONNX scalar, a list of them for a vector.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Numbers: TypeAlias = Any


def shape(x: torch.Tensor, *, start: int = 0, end: int | None = None) -> list[int]:
    """Shape."""
    return list(x.shape)[start:end]


def size(x: torch.Tensor) -> int:
    """Size."""
    return x.numel()


def _pairwise(name: str, function: Callable[[int, int], int]) -> Callable[[Numbers, Numbers], Numbers]:
    """A function of two numbers over scalars and vectors, with broadcasting."""

    def broadcast(a: Numbers, b: Numbers) -> Numbers:
        if not isinstance(a, list) and not isinstance(b, list):
            return function(a, b)
        a, b = (v if isinstance(v, list) else [v] for v in (a, b))
        count = max(len(a), len(b)) if a and b else 0
        return [function(a[k % len(a)], b[k % len(b)]) for k in range(count)]

    broadcast.__name__ = broadcast.__qualname__ = name
    return broadcast


def _towards_zero(a: int, b: int) -> int:
    quotient = a // b
    return quotient + 1 if quotient < 0 and quotient * b != a else quotient


add = _pairwise("add", operator.add)
subtract = _pairwise("subtract", operator.sub)
multiply = _pairwise("multiply", operator.mul)
divide = _pairwise("divide", _towards_zero)
floored = _pairwise("floored", operator.mod)
truncated = _pairwise("truncated", lambda a, b: a - b * _towards_zero(a, b))
larger = _pairwise("larger", max)
smaller = _pairwise("smaller", min)


def modulo(a: Numbers, b: Numbers, *, fmod: int = 0) -> Numbers:
    """Mod; what is left has the sign of ``b``, or with ``fmod`` that of ``a``."""
    return (truncated if fmod else floored)(a, b)


def same(x: Numbers, *, to: int = 7, saturate: int = 1, round_mode: str = "up") -> Numbers:
    """Identity, and Cast to int64."""
    return x


def gather(x: Sequence[int], index: Numbers, *, axis: int = 0) -> Numbers:
    """Gather."""
    return [x[k] for k in index] if isinstance(index, list) else x[index]


def unsqueeze(x: Numbers, at: Numbers = None, *, axes: Any = None) -> list[int]:
    """Unsqueeze of a scalar."""
    return [x]


def squeeze(x: Sequence[int], at: Numbers = None, *, axes: Any = None) -> int:
    """Squeeze of a vector of one."""
    (only,) = x
    return only


def concat(*xs: Sequence[int], axis: int = 0) -> list[int]:
    """Concat."""
    return [v for x in xs for v in x]


def cut(
    x: Sequence[int],
    start: Numbers = None,
    end: Numbers = None,
    at: Numbers = None,
    steps: Numbers = None,
    *,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
) -> list[int]:
    """Slice of a vector."""
    (first,), (last,) = (starts, ends) if start is None else (start, end)
    step = steps[0] if steps else 1
    return list(x[first : None if step < 0 and last <= -(2**31) else last : step])


def product(
    x: Numbers, at: Numbers = None, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Numbers:
    """ReduceProd of a vector."""
    if noop_with_empty_axes and not at:
        return x
    number = math.prod(x) if isinstance(x, list) else x
    return [number] if keepdims and isinstance(x, list) else number


def tensor(numbers: Numbers, like: torch.Tensor) -> torch.Tensor:
    """Numbers as a tensor, where an operator computes with them."""
    return torch.tensor(numbers, dtype=torch.int64, device=like.device)


TABLE: dict[str, Callable[..., Numbers]] = {
    "Add": add,
    "Cast": same,
    "Concat": concat,
    "Div": divide,
    "Gather": gather,
    "Identity": same,
    "Max": larger,
    "Min": smaller,
    "Mod": modulo,
    "Mul": multiply,
    "ReduceProd": product,
    "Slice": cut,
    "Squeeze": squeeze,
    "Sub": subtract,
    "Unsqueeze": unsqueeze,
}
"""Operators that stay numbers when all their inputs are."""

SOURCES: dict[str, Callable[..., Numbers]] = {"Shape": shape, "Size": size}
"""Operators that numbers come from."""


def is_source(node: ir.Node) -> bool:
    """Whether numbers come from a node."""
    return node.op_type in SOURCES


def is_known(node: ir.Node) -> bool:
    """Whether a node makes numbers of numbers."""
    return node.op_type in TABLE


def function_for(node: ir.Node) -> Callable[..., Numbers]:
    """The function of a node that makes numbers."""
    return SOURCES.get(node.op_type) or TABLE[node.op_type]


def rank(node: ir.Node, ranks: Sequence[int]) -> int | None:
    """Rank of what an operator of the table makes of numbers of given ranks, or ``None`` where it makes no numbers."""
    known = RANKS.get(node.op_type, _pair)
    return known(node, ranks)


def _pair(node: ir.Node, ranks: Sequence[int]) -> int | None:
    return max(ranks) if len(ranks) == 2 else None


def _cast(node: ir.Node, ranks: Sequence[int]) -> int | None:
    return ranks[0] if node.attributes["to"].as_int() == ir.DataType.INT64 else None


def _reduced(node: ir.Node, ranks: Sequence[int]) -> int | None:
    idle = len(node.inputs) < 2 and node.attributes.get_int("noop_with_empty_axes", 0) == 1
    return ranks[0] if idle or node.attributes.get_int("keepdims", 1) == 1 else 0


RANKS: dict[str, Callable[[ir.Node, Sequence[int]], int | None]] = {
    "Cast": _cast,
    "Concat": lambda node, ranks: 1 if ranks[0] == 1 else None,
    "Gather": lambda node, ranks: ranks[1] if ranks[0] == 1 else None,
    "Identity": lambda node, ranks: ranks[0],
    "Shape": lambda node, ranks: 1,
    "Size": lambda node, ranks: 0,
    "ReduceProd": _reduced,
    "Slice": lambda node, ranks: 1 if ranks[0] == 1 else None,
    "Squeeze": lambda node, ranks: 0 if ranks[0] == 1 else None,
    "Unsqueeze": lambda node, ranks: 1 if ranks[0] == 0 else None,
}
"""Operator -> rank of its result; all others take two numbers and broadcast them."""
