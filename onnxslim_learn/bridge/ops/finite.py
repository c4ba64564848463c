"""Gradients that stay finite where a value is.

The slope of a square root at zero, of an arc cosine at one, of a quotient by nothing is infinite or no number, and one
such number on its way back takes all weights with it: even where nothing reads the value, as zero times infinity is no
number either. So what is not finite there is zero, a subgradient where there is any.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Finite(torch.autograd.Function):
    """Passes values on, and of their gradient what is finite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.nan_to_num(gradient, 0.0, 0.0, 0.0)


def passed(x: Any) -> Any:
    """A tensor whose gradient is finite; what has none as it is."""
    return _Finite.apply(x) if isinstance(x, Tensor) and x.requires_grad else x  # type: ignore[no-untyped-call]


def finite(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose inputs get of its gradient what is finite."""

    @functools.wraps(function)
    def with_finite_gradient(*inputs: Any, **settings: Any) -> Any:
        return function(*map(passed, inputs), **settings)

    return with_finite_gradient
