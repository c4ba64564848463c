"""Element types, and the words by which a torch function says what it wants to be given.

A function of the table takes the inputs of its operator in order, then its attributes as keywords. A parameter
annotated :data:`Plain` is given Python numbers or lists, one annotated :data:`Scalar` or :data:`Operand` a Python
number where the file holds a constant. Keywords named in :data:`CONTEXT` are given what the node's place in the model
says.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

Plain: TypeAlias = Any
"""Numbers or lists of them: read from the file where they are constant, else from the tensor when the model runs."""

Scalar: TypeAlias = Any
"""A number where the file holds a constant of rank 0, else a tensor."""

Operand: TypeAlias = Any
"""The same, but a tensor if no other operand is one."""

CONTEXT = frozenset(("opset", "outputs", "kinds", "training", "share", "like"))
"""What a function may ask for: the version of the operator set, the number of outputs asked for, the ONNX element types
of the inputs, whether the module trains, a share to drop instead of the file's, a tensor on the module's device."""

DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.int32,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.int64,
    13: torch.int64,
    14: torch.complex64,
    15: torch.complex128,
    16: torch.bfloat16,
    17: torch.float8_e4m3fn,
    18: torch.float8_e4m3fnuz,
    19: torch.float8_e5m2,
    20: torch.float8_e5m2fnuz,
    21: torch.uint8,
    22: torch.int8,
    23: torch.float32,
    24: getattr(torch, "float8_e8m0fnu", torch.float32),  # torch 2.6 has none
    25: torch.uint8,
    26: torch.int8,
}
"""ONNX element type -> the torch type that carries it; torch computes with few unsigned and no four-bit types."""

BITS: dict[int, tuple[int, bool]] = {
    4: (16, False),
    12: (32, False),
    13: (64, False),
    21: (4, False),
    22: (4, True),
    25: (2, False),
    26: (2, True),
}
"""Integers carried by a wider type -> their bits, and whether they are signed."""

EXACT: dict[int, torch.dtype] = {**DTYPES, 4: torch.uint16, 12: torch.uint32, 13: torch.uint64}
"""ONNX element type -> the torch type of the same bits, where there is one."""

HALF = {10: 1, 16: 1}
"""Element types that are computed as float32 -> float32."""


def wrapped(x: torch.Tensor, kind: int) -> torch.Tensor:
    """Bring carried integers back into the range of their type, as overflow does."""
    bits, signed = BITS[kind]
    if bits == 64:
        return x
    low = x.to(torch.int64) & ((1 << bits) - 1)
    return (low - ((low >> (bits - 1)) << bits) if signed else low).to(DTYPES[kind])


def plain(x: Any) -> Any:
    """A tensor as Python numbers; what is no tensor as it is."""
    return x.tolist() if isinstance(x, torch.Tensor) else x


def listed(x: Plain) -> list[Any]:
    """A number as a list of one."""
    return list(x) if isinstance(x, (list, tuple)) else [x]  # torch.compile of torch 2.6 knows no list | tuple


def single(x: Plain) -> Any:
    """The only number of a list; a number, or nothing, as it is."""
    return x[0] if isinstance(x, (list, tuple)) else x
