"""The table of torch functions: every operator once, by its name in ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.train.ops import contract, elementwise, look_up, moves, norm, pool, reduce

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE: dict[str, Callable[..., Any]] = {
    **elementwise.TABLE,
    **moves.TABLE,
    **contract.TABLE,
    **pool.TABLE,
    **norm.TABLE,
    **reduce.TABLE,
    **look_up.TABLE,
}

CONTRIB: dict[str, Callable[..., Any]] = {}

DOMAINS: dict[str, dict[str, Callable[..., Any]]] = {"": TABLE, "ai.onnx": TABLE, "com.microsoft": CONTRIB}


def function_for(domain: str, op_type: str) -> Callable[..., Any] | None:
    """The torch function of an operator, or ``None`` for one that has none."""
    return DOMAINS.get(domain, {}).get(op_type)
