"""Activations that files spell out by several nodes, as the one function of torch that computes them.

Each of those nodes reads and writes a whole tensor, on the way forth and back, and keeps one in between.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx

from onnxslim_learn.bridge.ops.elementwise import clip, divide, hard_sigmoid

X = "x"
"""What an activation is applied to."""

COMMUTES = (operator.add, operator.mul)
NEAR = 1e-6  # single precision, of constants

_SHIFTED = (clip, (operator.add, X, 3.0), 0.0, 6.0)
_NORMAL = (operator.add, (torch.erf, (divide, X, math.sqrt(2))), 1.0)

PATTERNS: tuple[tuple[Callable[..., Any], Any], ...] = (
    (F.hardswish, (divide, (operator.mul, X, _SHIFTED), 6.0)),
    (F.hardswish, (operator.mul, X, (divide, _SHIFTED, 6.0))),
    (F.hardswish, (operator.mul, X, (hard_sigmoid, X, ("alpha", 1 / 6), ("beta", 0.5)))),
    (F.hardswish, (operator.mul, X, (hard_sigmoid, X, ("alpha", 1 / 6)))),
    (F.silu, (operator.mul, X, (torch.sigmoid, X))),
    (F.gelu, (operator.mul, (operator.mul, X, _NORMAL), 0.5)),
    (F.gelu, (operator.mul, X, (operator.mul, _NORMAL, 0.5))),
    (F.gelu, (operator.mul, (operator.mul, X, 0.5), _NORMAL)),
)
"""Functions, and how they are spelled: a function with its operands, and with keywords as pairs of name and number."""


def fuse(graph: fx.Graph) -> int:
    """Replace what is spelled out, where nothing else reads what lies in between; returns how often."""
    before = {node for node in graph.nodes if not node.users}
    count = 0
    for node in list(graph.nodes):
        bounds = ((function, _match(node, pattern, {}, last=True)) for function, pattern in PATTERNS)
        function, bound = next((pair for pair in bounds if pair[1] is not None), (None, None))
        if bound is not None:
            node.target, node.args, node.kwargs = function, (bound[X],), {}
            count += 1
    for node in reversed(list(graph.nodes) if count else []):
        if not node.users and node not in before:
            graph.erase_node(node)
    return count


def _match(given: Any, pattern: Any, bound: dict[str, fx.Node], *, last: bool = False) -> dict[str, fx.Node] | None:
    """What a pattern's variable stands for, or ``None`` where it does not fit."""
    if isinstance(pattern, float):
        near = isinstance(given, int | float) and math.isclose(given, pattern, rel_tol=NEAR)
        return bound if near else None
    if not isinstance(given, fx.Node):
        return None
    if pattern == X:
        return {X: given} if bound.get(X, given) is given else None
    return _call(given, pattern, bound) if last or len(given.users) == 1 else None


def _call(given: fx.Node, pattern: Any, bound: dict[str, fx.Node]) -> dict[str, fx.Node] | None:
    """The same for a function with its operands."""
    function, *operands = pattern
    keywords = {o[0]: o[1] for o in operands if isinstance(o, tuple) and isinstance(o[0], str)}
    places = [o for o in operands if not (isinstance(o, tuple) and isinstance(o[0], str))]
    alike = given.target is function and len(given.args) == len(places) and given.kwargs.keys() == keywords.keys()
    if not alike or any(_match(given.kwargs[name], number, {}) is None for name, number in keywords.items()):
        return None
    orders = (places, places[::-1]) if function in COMMUTES else (places,)
    return next(filter(None, (_all(given.args, order, bound) for order in orders)), None)


def _all(args: Any, patterns: list[Any], bound: dict[str, fx.Node]) -> dict[str, fx.Node] | None:
    """Match operands one after the other."""
    known: dict[str, fx.Node] | None = bound
    for one, pattern in zip(args, patterns, strict=True):
        known = None if known is None else _match(one, pattern, known)
    return known
