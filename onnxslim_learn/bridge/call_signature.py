"""What a function of the table asks for, read from its signature (see :mod:`onnxslim_learn.bridge.ops.kinds`)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Signature:
    """What a function of the table asks for.

    Attributes:
        slots: Annotation of every positional parameter; the last one stands for all that follow.
        keywords: Names of keyword parameters.
        several: Whether it returns a tuple even where one output is asked for.
        settings: Whether it takes further keywords.
    """

    slots: tuple[str, ...]
    keywords: frozenset[str] = frozenset()
    several: bool = False
    settings: bool = False

    def slot(self, number: int) -> str:
        """Annotation of the parameter that an input goes to."""
        return self.slots[min(number, len(self.slots) - 1)] if self.slots else ""


@cache
def signature(function: Callable[..., Any]) -> Signature:
    """Read a function's signature; built-in functions take tensors, those of ``operator`` also numbers."""
    module = getattr(function, "__module__", None) or ""
    if not module.startswith("onnxslim_learn"):
        return Signature(("Operand" if module == "_operator" else "Tensor",))
    parameters = inspect.signature(function)
    words = frozenset(p.name for p in parameters.parameters.values() if p.kind is p.KEYWORD_ONLY)
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    places = tuple(str(p.annotation) for p in parameters.parameters.values() if p.kind not in named)
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters.parameters.values())
    return Signature(places, words, str(parameters.return_annotation).startswith("tuple"), rest)
