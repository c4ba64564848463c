"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.finite import finite, passed
from onnxslim_learn.bridge.ops.kinds import BITS, DTYPES, EXACT, Operand, Plain, Scalar, wrapped

FLOAT4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""The magnitudes of FLOAT4E2M1."""


def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """Cast: floats to integers are cut off, narrow floats are rounded and, unless told otherwise, saturated."""
    kind = DTYPES[to]
    if to in BITS:
        return wrapped(x.to(torch.int64) if x.is_floating_point() else x, to)
    if to == 23:
        return _float4(x.to(torch.float32))
    if to == 24:
        return _power_of_two(x.to(torch.float32), saturate, round_mode).to(kind)
    if 17 <= to <= 20:
        return _float8(x.to(torch.float32), kind, saturate)
    if x.is_floating_point() and not kind.is_floating_point and x.element_size() == 1:
        x = x.to(torch.float32)
    return x.to(kind)


def _steep(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of torch whose slope is infinite somewhere."""

    @finite
    def steep(x: Tensor) -> Tensor:
        return function(x)

    steep.__name__ = steep.__qualname__ = function.__name__
    return steep


acos, acosh, asin, atanh = map(_steep, (torch.acos, torch.acosh, torch.asin, torch.atanh))
cosh, exp, log, reciprocal = map(_steep, (torch.cosh, torch.exp, torch.log, torch.reciprocal))
sinh, sqrt = map(_steep, (torch.sinh, torch.sqrt))


def _float8(x: Tensor, kind: torch.dtype, saturate: int) -> Tensor:
    """The nearest of an eight-bit type; what is too large is its largest, or else infinite or no number."""
    largest = torch.finfo(kind).max
    if saturate:
        return x.clamp(-largest, largest).to(kind)
    half = 16.0 if kind == torch.float8_e4m3fn else 8.0 if kind == torch.float8_e4m3fnuz else 4096.0
    over = (x.abs() > largest + half) if kind == torch.float8_e4m3fn else (x.abs() >= largest + half)
    beyond = torch.copysign(torch.tensor(torch.inf), x) if kind == torch.float8_e5m2 else torch.tensor(torch.nan)
    return torch.where(over, beyond, x).to(kind)


def _float4(x: Tensor) -> Tensor:
    """The nearest FLOAT4E2M1, ties to even; what is too large is the largest, what is no number is negative zero."""
    grid = torch.tensor(FLOAT4, device=x.device)
    middle = (grid[1:] + grid[:-1]) / 2
    size = x.abs()
    place = torch.bucketize(size, middle)
    tie = (place < len(middle)) & (size == middle[place.clamp(max=len(middle) - 1)]) & (place % 2 == 1)
    return torch.where(torch.isnan(x), -0.0, torch.copysign(grid[(place + tie).clamp(max=len(grid) - 1)], x))


def _power_of_two(x: Tensor, saturate: int, mode: str) -> Tensor:
    """The power of two near a number, as FLOAT8E8M0 holds."""
    mantissa, exponent = torch.frexp(x.abs())
    up = {"up": mantissa > 0.5, "down": torch.zeros_like(mantissa, dtype=torch.bool), "nearest": mantissa >= 0.75}[mode]
    power = exponent - 1 + up.to(exponent.dtype)
    over = torch.isinf(x) | (power > 127)
    value = torch.ldexp(torch.ones_like(x), power.clamp(-127, 127))
    return torch.where(
        torch.isnan(x) | (over & (saturate == 0)),
        torch.nan,
        torch.where(over, 2.0**127, torch.where(x == 0, 2.0**-127, value)),
    )


def cast_like(x: Tensor, target: Tensor, *, kinds: Plain, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """CastLike: cast to the type of another tensor."""
    kind = kinds[1] or next(number for number, dtype in DTYPES.items() if dtype == target.dtype)
    return cast(x, to=kind, saturate=saturate, round_mode=round_mode)


def bit_cast(x: Tensor, *, to: int, kinds: Plain) -> Tensor:
    """BitCast: the same bits read as another type."""
    return x.to(EXACT[kinds[0]]).view(EXACT[to]).to(DTYPES[to])


def same(x: Any) -> Any:
    """Identity."""
    return x


def divide(a: Operand, b: Operand) -> Any:
    """Div: integers are cut off towards zero."""
    tensor = a if isinstance(a, Tensor) else b
    a, b = (passed(a), passed(b)) if isinstance(b, Tensor) else (a, b)
    return a / b if tensor.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def modulo(a: Operand, b: Operand, *, fmod: int = 0) -> Tensor:
    """Mod: the sign of the divisor, or with ``fmod`` of the dividend."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def power(x: Tensor, exponent: Scalar) -> Tensor:
    """Pow: the result has the type of the base."""
    steep = isinstance(exponent, Tensor) or exponent < 1
    result = torch.pow(passed(x), passed(exponent)) if steep else torch.pow(x, exponent)
    return result if result.dtype == x.dtype else result.to(x.dtype)


def clip(x: Tensor, low: Scalar = None, high: Scalar = None, *, min: Plain = None, max: Plain = None) -> Tensor:
    """Clip: bounds are inputs or, in older operator sets, attributes; the upper one wins."""
    low, high = low if min is None else min, high if max is None else max
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        x = x if low is None else torch.clamp(x, min=low)
        return x if high is None else torch.clamp(x, max=high)
    return x if low is None and high is None else torch.clamp(x, low, high)


def shift(x: Tensor, by: Tensor, *, direction: str) -> Tensor:
    """BitShift."""
    return torch.bitwise_left_shift(x, by) if direction == "LEFT" else torch.bitwise_right_shift(x, by)


def largest(*xs: Tensor) -> Tensor:
    """Max."""
    return functools.reduce(torch.maximum, xs)


def smallest(*xs: Tensor) -> Tensor:
    """Min."""
    return functools.reduce(torch.minimum, xs)


def total(*xs: Tensor) -> Tensor:
    """Sum."""
    return functools.reduce(operator.add, xs)


def mean(*xs: Tensor) -> Tensor:
    """Mean of several tensors."""
    return total(*xs) / len(xs)


def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Celu."""
    return F.celu(x, alpha)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Elu."""
    return F.elu(x, alpha)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Gelu."""
    return F.gelu(x, approximate=approximate)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """HardSigmoid; with the slope that torch has, as one kernel."""
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """IsInf."""
    return torch.isinf(x) & ((x < 0) & bool(detect_negative) | (x > 0) & bool(detect_positive))


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """LeakyRelu."""
    return F.leaky_relu(x, alpha)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """PRelu; a slope per channel runs as one kernel."""
    if x.ndim > 1 and slope.ndim == x.ndim - 1 and slope.shape[0] == slope.numel() == x.shape[1]:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, x * slope, x)


def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    """Selu."""
    return gamma * F.elu(x, alpha)


def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """Shrink."""
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Swish."""
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


def swiglu(gate: Tensor, value: Tensor, *, alpha: float = 1.0) -> Tensor:
    """SwiGLU."""
    return swish(gate, alpha=alpha) * value


def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """ThresholdedRelu."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


def choose(condition: Tensor, x: Operand, y: Operand) -> Tensor:
    """Where."""
    return torch.where(condition, x, y)


def dropout(
    x: Tensor,
    p: Plain = None,
    mode: Plain = None,
    *,
    ratio: float = 0.5,
    seed: int | None = None,
    training: bool = False,
    share: float | None = None,
    outputs: int = 1,
) -> Any:
    """Dropout: at rest it passes; what the file says about training counts as the module's own mode does."""
    if share is None:
        share = ratio if p is None else p
    active = training or bool(mode)
    if outputs == 1:
        return F.dropout(x, share, active)
    kept = torch.rand_like(x) >= share if active else torch.ones_like(x, dtype=torch.bool)
    return (x * kept / (1 - share) if active and share else x), kept


def bernoulli(x: Tensor, *, dtype: int | None = None, seed: float | None = None) -> Tensor:
    """Bernoulli: probabilities to draws."""
    drawn = torch.bernoulli(x)
    return drawn if dtype is None else drawn.to(DTYPES[dtype])


TABLE: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Acos": acos,
    "Acosh": acosh,
    "Add": operator.add,
    "And": torch.logical_and,
    "Asin": asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": atanh,
    "Bernoulli": bernoulli,
    "BitCast": bit_cast,
    "BitShift": shift,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Cast": cast,
    "CastLike": cast_like,
    "Ceil": torch.ceil,
    "Celu": celu,
    "Clip": clip,
    "Cos": torch.cos,
    "Cosh": cosh,
    "Div": divide,
    "Dropout": dropout,
    "Elu": elu,
    "Equal": operator.eq,
    "Erf": torch.erf,
    "Exp": exp,
    "Floor": torch.floor,
    "Gelu": gelu,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": F.hardswish,
    "Identity": same,
    "IsInf": is_inf,
    "IsNaN": torch.isnan,
    "LeakyRelu": leaky_relu,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Log": log,
    "Max": largest,
    "Mean": mean,
    "Min": smallest,
    "Mish": F.mish,
    "Mod": modulo,
    "Mul": operator.mul,
    "Neg": operator.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": prelu,
    "Pow": power,
    "Reciprocal": reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": sqrt,
    "Sub": operator.sub,
    "Sum": total,
    "SwiGLU": swiglu,
    "Swish": swish,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "ThresholdedRelu": thresholded_relu,
    "Where": choose,
    "Xor": torch.logical_xor,
}
