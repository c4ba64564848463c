"""Quantized operators: integers stand for ``scale · (q − zero point)``.

Rounding passes gradients straight through, so that what lies before a QuantizeLinear still learns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.contract import conv
from onnxslim_learn.bridge.ops.elementwise import cast
from onnxslim_learn.bridge.ops.kinds import BITS, DTYPES, Plain
from onnxslim_learn.bridge.ops.pooling import average_pool


def spread(v: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """One value, one per position of an axis, or one per block, as what broadcasts against a tensor."""
    if v.numel() == 1 and v.ndim <= 1:
        return v.reshape(())
    if block:
        return v.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if v.ndim == 1:
        return v.reshape([-1 if k == axis % x.ndim else 1 for k in range(x.ndim)])
    return v


def bounds(kind: int) -> tuple[int, int]:
    """Smallest and largest integer of an element type."""
    if kind in BITS:
        bits, signed = BITS[kind]
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    info = torch.iinfo(DTYPES[kind])
    return int(info.min), int(info.max)


def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    saturate: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    kinds: Plain,
) -> Tensor:
    """QuantizeLinear."""
    kind = kinds[2] if zero is not None else output_dtype or 2
    wide = x.to(DTYPES[precision]) if precision else x if x.is_floating_point() else x.to(scale.dtype)
    scaled = wide / spread(scale, x, axis, block_size).to(wide.dtype)
    if not DTYPES[kind].is_floating_point:
        low, high = bounds(kind)
        shifted = scaled.round() + (0 if zero is None else spread(zero, x, axis, block_size).to(scaled.dtype))
        return shifted.clamp(low, high).to(DTYPES[kind])
    return cast(scaled, to=kind, saturate=saturate)


def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """DequantizeLinear."""
    kind = DTYPES[output_dtype] if output_dtype else scale.dtype
    wide = x.to(torch.float32)
    if zero is not None and not zero.is_floating_point():
        wide = wide - spread(zero, x, axis, block_size).to(torch.float32)
    return (wide * spread(scale, x, axis, block_size).to(torch.float32)).to(kind)


def straight_through(y: Tensor, x: Tensor, scale: Tensor, *, axis: int = 1, block_size: int = 0) -> Tensor:
    """A quantized and dequantized tensor with the gradient of the tensor before, where it was not clipped."""
    inside = ((y - x).abs() <= spread(scale, x, axis, block_size)).to(x.dtype)
    return y.detach() + (x - x.detach()) * inside.detach()


def dynamic_quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """DynamicQuantizeLinear.

    Where a gradient is asked for, whole numbers are of float32, so that it passes as if nothing had been rounded; range
    and grid are as they are.
    """
    whole, scale, zero = _on_its_grid(x.detach())
    if not x.requires_grad or not torch.is_grad_enabled():
        return whole.to(torch.uint8), scale, zero.to(torch.uint8)
    plain = x / scale
    return whole + (plain - plain.detach()), scale, zero.to(torch.uint8)


def _on_its_grid(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    width = torch.where(high == low, torch.ones_like(high), high - low)
    scale = width / 255
    zero = (-low / scale).clamp(0, 255).round()
    return ((x / scale).round() + zero).clamp(0, 255), scale, zero


def _centred(x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    """Integers less their zero point, in double so that sums are exact."""
    wide = x.double()
    if zero is None:
        return wide
    if zero.ndim == 1 and zero.numel() > 1:
        return wide - spread(zero, x, axis, 0).double()
    return wide - zero.double()


def _summed(sums: Tensor) -> Tensor:
    """Sums of whole numbers as such, unless a gradient has to pass."""
    return sums if sums.requires_grad else sums.to(torch.int32)


def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    """MatMulInteger."""
    return _summed(_centred(a, a_zero, a.ndim - 2) @ _centred(b, b_zero, b.ndim - 1))


def conv_integer(
    x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None, **settings: Any
) -> Tensor:
    """ConvInteger."""
    return _summed(conv(_centred(x, x_zero, 1), _centred(w, w_zero, 0), **settings))


def _requantized(sums: Tensor, factor: Tensor, zero: Tensor | None, axis: int = 1) -> Tensor:
    """Sums times a factor, rounded and shifted, in float32 as onnxruntime does."""
    kind = torch.uint8 if zero is None else zero.dtype
    info = torch.iinfo(kind)
    scaled = (sums.to(torch.float32) * spread(factor, sums, axis, 0)).round()
    shifted = scaled if zero is None else scaled + spread(zero, sums, axis, 0).to(torch.float32)
    return shifted.clamp(info.min, info.max).to(kind)


def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    b: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """QLinearConv."""
    bias = None if b is None else b.double()
    sums = conv(_centred(x, x_zero, 1), _centred(w, w_zero, 0), bias, **settings)
    return _requantized(sums, x_scale * w_scale / y_scale, y_zero)


def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """QLinearMatMul."""
    sums = _centred(a, a_zero, a.ndim - 2) @ _centred(b, b_zero, b.ndim - 1)
    rows = spread(a_scale, sums, sums.ndim - 2, 0)
    return _requantized(sums, rows * spread(b_scale, sums, sums.ndim - 1, 0) / y_scale, y_zero)


# --- onnxruntime's own ------------------------------------------------------------------------------------------------


def real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """What integers stand for."""
    return _centred(x, zero, 1).to(torch.float32) * scale


def qlinear_add(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """QLinearAdd."""
    return _requantized(real(a, a_scale, a_zero) + real(b, b_scale, b_zero), 1 / y_scale, y_zero)


def qlinear_mul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """QLinearMul."""
    return _requantized(_centred(a, a_zero, 1) * _centred(b, b_zero, 1), a_scale * b_scale / y_scale, y_zero)


def qlinear_sigmoid(x: Tensor, scale: Tensor, zero: Tensor, y_scale: Tensor, y_zero: Tensor | None = None) -> Tensor:
    """QLinearSigmoid."""
    return _requantized(torch.sigmoid(real(x, scale, zero)), 1 / y_scale, y_zero)


def qlinear_leaky_relu(
    x: Tensor, scale: Tensor, zero: Tensor, y_scale: Tensor, y_zero: Tensor | None = None, *, alpha: float = 0.01
) -> Tensor:
    """QLinearLeakyRelu."""
    return _requantized(F.leaky_relu(real(x, scale, zero), alpha), 1 / y_scale, y_zero)


def qlinear_average(
    x: Tensor, scale: Tensor, zero: Tensor, y_scale: Tensor, y_zero: Tensor, *, channels_last: int = 0
) -> Tensor:
    """QLinearGlobalAveragePool."""
    axes = tuple(range(1, x.ndim - 1)) if channels_last else tuple(range(2, x.ndim))
    return _requantized(_centred(x, zero, 1).mean(axes, keepdim=True), scale / y_scale, y_zero)


def qlinear_average_pool(
    x: Tensor, scale: Tensor, zero: Tensor, y_scale: Tensor, y_zero: Tensor, *, channels_last: int = 0, **windows: Plain
) -> Tensor:
    """QLinearAveragePool."""
    numbers = real(x, scale, zero)
    means = average_pool(numbers.movedim(-1, 1) if channels_last else numbers, **windows)
    return _requantized(means.movedim(1, -1) if channels_last else means, 1 / y_scale, y_zero)


def qlinear_concat(y_scale: Tensor, y_zero: Tensor, *parts: Tensor, axis: int) -> Tensor:
    """QLinearConcat: parts, each followed by its scale and zero point."""
    numbers = [real(x, scale, zero) for x, scale, zero in zip(*[iter(parts)] * 3, strict=True)]
    return _requantized(torch.cat(numbers, axis), 1 / y_scale, y_zero)


def qlinear_where(
    condition: Tensor,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    z_scale: Tensor,
    z_zero: Tensor,
) -> Tensor:
    """QLinearWhere."""
    chosen = torch.where(condition, real(x, x_scale, x_zero), real(y, y_scale, y_zero))
    return _requantized(chosen, 1 / z_scale, z_zero)


def qlinear_softmax(
    x: Tensor, scale: Tensor, zero: Tensor, y_scale: Tensor, y_zero: Tensor, *, axis: int = -1, opset: int = 13
) -> Tensor:
    """QLinearSoftmax; before opset 13 over all axes from one on."""
    numbers = real(x, scale, zero)
    flat = numbers if opset >= 13 else numbers.flatten(axis % x.ndim)
    return _requantized(torch.softmax(flat, axis if opset >= 13 else -1).reshape(x.shape), 1 / y_scale, y_zero)


def qgemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """QGemm: quantized where an output scale is given, float32 otherwise."""
    left, right = _centred(a, a_zero, 1), _centred(b, b_zero, 0 if transB else 1)
    sums = (left.T if transA else left) @ (right.T if transB else right)
    sums = sums if c is None else sums + c.double()
    y = (alpha * sums * a_scale.double() * b_scale.double()).to(torch.float32)
    return y if y_scale is None else _requantized(y, 1 / y_scale, y_zero)


def matmul_integer_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """MatMulIntegerToFloat."""
    sums = matmul_integer(a, b, a_zero, b_zero).to(torch.float32) * a_scale * b_scale
    return sums if bias is None else sums + bias


def dynamic_quantize_matmul(
    a: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """DynamicQuantizeMatMul: the first factor is quantized by its own range."""
    whole, scale, zero = dynamic_quantize(a)
    return matmul_integer_to_float(whole, b, scale, b_scale, zero, b_zero, bias)


def on_its_grid(x: Tensor) -> Tensor:
    """A tensor rounded to the grid that its own range spans; gradients pass as if nothing had been rounded."""
    whole, scale, zero = dynamic_quantize(x)
    return (whole.to(torch.float32) - zero.to(torch.float32)) * scale


def matmul_nbits(
    a: Tensor,
    b: Tensor,
    scales: Tensor,
    zeros: Tensor | None = None,
    order: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    K: int,
    N: int,
    bits: int = 4,
    block_size: int,
    accuracy_level: int = 0,
) -> Tensor:
    """MatMulNBits: weights packed into bytes, blocks of K share a scale and a zero point."""
    blocks = -(-K // block_size)
    packed = unpacked(b.reshape(N, blocks, -1), bits)[..., :block_size].to(torch.float32)
    if zeros is None:
        offset = torch.full((N, blocks, 1), float(1 << bits - 1), device=a.device)
    elif zeros.is_floating_point():
        offset = zeros.reshape(N, blocks, 1)
    else:
        offset = unpacked(zeros.reshape(N, -1), bits)[:, :blocks].to(torch.float32)[..., None]
    weight = ((packed - offset) * scales.reshape(N, blocks, 1)).reshape(N, -1)[:, :K].to(a.dtype)
    if order is not None:
        step = scales.reshape(N, blocks)[:, order.long()]
        offset = offset.reshape(N, -1)[:, order.long()]
        weight = ((packed.reshape(N, -1)[:, :K] - offset) * step).to(a.dtype)
    return F.linear(a, weight, bias)


def unpacked(x: Tensor, bits: int) -> Tensor:
    """Numbers of a few bits, lowest first, out of bytes."""
    shifts = torch.arange(0, 8, bits, device=x.device, dtype=torch.uint8)
    return ((x[..., None] >> shifts) & ((1 << bits) - 1)).flatten(-2)


STRAIGHT: dict[tuple[str, str], Callable[..., Tensor]] = {("QuantizeLinear", "DequantizeLinear"): straight_through}
"""Two operators in a row that only round -> how the gradient passes."""

TABLE: dict[str, Callable[..., Any]] = {
    "ConvInteger": conv_integer,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize,
    "MatMulInteger": matmul_integer,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QuantizeLinear": quantize_linear,
}

CONTRIB: dict[str, Callable[..., Any]] = {
    "DequantizeLinear": dequantize_linear,
    "MatMulIntegerToFloat": matmul_integer_to_float,
    "DynamicQuantizeMatMul": dynamic_quantize_matmul,
    "MatMulNBits": matmul_nbits,
    "QGemm": qgemm,
    "QLinearAdd": qlinear_add,
    "QLinearAveragePool": qlinear_average_pool,
    "QLinearConcat": qlinear_concat,
    "QLinearGlobalAveragePool": qlinear_average,
    "QLinearLeakyRelu": qlinear_leaky_relu,
    "QLinearMul": qlinear_mul,
    "QLinearSigmoid": qlinear_sigmoid,
    "QLinearSoftmax": qlinear_softmax,
    "QLinearWhere": qlinear_where,
    "QuantizeLinear": quantize_linear,
}
