"""Operators that sum over products: matrix products, Einsum, convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import Plain

CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
BACK: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    broadcast: int = 0,
) -> Tensor:
    """Gemm; as a linear layer where it is one."""
    a = a.T if transA else a
    if transB and alpha == beta == 1.0 and (c is None or (c.ndim == 1 and c.shape[0] == b.shape[0])):
        return F.linear(a, b, c)
    product = a @ (b.T if transB else b)
    product = product if alpha == 1.0 else alpha * product
    added = product if c is None else product + (c if beta == 1.0 else beta * c)
    return added if added.dtype == product.dtype else added.to(product.dtype)


def einsum(*xs: Tensor, equation: str) -> Tensor:
    """Einsum."""
    return torch.einsum(equation.replace(" ", ""), *xs)


def padding(
    sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], auto_pad: str, pads: Plain
) -> tuple[list[int], list[int]]:
    """Padding before and after every spatial axis.

    Args:
        sizes: Of the spatial axes.
        window: Reach of the kernel, dilation included.
        strides: Steps.
        auto_pad: ``NOTSET``, ``VALID``, ``SAME_UPPER`` or ``SAME_LOWER``.
        pads: All paddings before, then all after, or ``None``.
    """
    rank = len(window)
    if auto_pad in ("NOTSET", ""):
        given = pads or [0] * (2 * rank)
        return list(given[:rank]), list(given[rank:])
    if auto_pad == "VALID":
        return [0] * rank, [0] * rank
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(sizes, window, strides, strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def sides(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Paddings in the order of ``F.pad``: from the last axis."""
    return [v for pair in zip(reversed(before), reversed(after), strict=True) for v in pair]


def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Plain = None,
    group: int = 1,
    kernel_shape: Plain = None,
    pads: Plain = None,
    strides: Plain = None,
) -> Tensor:
    """Conv of one to three spatial axes; uneven padding is added first."""
    rank = w.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    if auto_pad == "NOTSET":
        pads = pads or [0] * (2 * rank)
        before, after = pads[:rank], pads[rank:]
    else:
        reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
        before, after = padding(x.shape[2:], reach, strides, auto_pad, pads)
    if before != after:
        x, before = F.pad(x, sides(before, after)), [0] * rank
    return CONV[rank](x, w, b, strides, before, dilations, group)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Plain = None,
    group: int = 1,
    kernel_shape: Plain = None,
    output_padding: Plain = None,
    output_shape: Plain = None,
    pads: Plain = None,
    strides: Plain = None,
) -> Tensor:
    """ConvTranspose; uneven padding is cut off from the full result."""
    rank = w.ndim - 2
    strides, dilations, more = strides or [1] * rank, dilations or [1] * rank, output_padding or [0] * rank
    given = pads or [0] * (2 * rank)
    before, after = list(given[:rank]), list(given[rank:])
    if output_shape or auto_pad.startswith("SAME"):
        for k in range(rank):
            full = (x.shape[2 + k] - 1) * strides[k] + more[k] + (w.shape[2 + k] - 1) * dilations[k] + 1
            wanted = output_shape[k - rank] if output_shape else x.shape[2 + k] * strides[k]
            total = full - wanted
            small, large = total // 2, total - total // 2
            before[k], after[k] = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    if (
        before == after
        and min(before) >= 0
        and all(m < max(s, d) for m, s, d in zip(more, strides, dilations, strict=True))
    ):
        return BACK[rank](x, w, b, strides, before, more, group, dilations)
    y = BACK[rank](x, w, None, strides, 0, 0, group, dilations)
    y = F.pad(y, sides([-p for p in before], [m - p for m, p in zip(more, after, strict=True)]))
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def deform_conv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Plain = None,
    group: int = 1,
    kernel_shape: Plain = None,
    offset_group: int = 1,
    pads: Plain = None,
    strides: Plain = None,
) -> Tensor:
    """DeformConv in the plane: every kernel tap reads between pixels, then a product over taps and channels."""
    strides, dilations, pads = strides or [1, 1], dilations or [1, 1], pads or [0] * 4
    n, c, h, width = x.shape
    kh, kw = w.shape[2:]
    oh, ow = offset.shape[2:]
    moved = offset.reshape(n, offset_group, kh * kw, 2, oh, ow)
    axis = [torch.arange(o, device=x.device) * s - p for o, s, p in zip((oh, ow), strides, pads[:2], strict=True)]
    taps = [torch.arange(k, device=x.device) * d for k, d in zip((kh, kw), dilations, strict=True)]
    rows = moved[:, :, :, 0] + (taps[0].repeat_interleave(kw)[:, None, None] + axis[0][:, None])
    columns = moved[:, :, :, 1] + (taps[1].repeat(kh)[:, None, None] + axis[1])
    grid = torch.stack([(columns + 0.5) * 2 / width - 1, (rows + 0.5) * 2 / h - 1], -1)
    parts = x.reshape(n * offset_group, c // offset_group, h, width)
    flat = grid.reshape(n * offset_group, kh * kw, oh * ow, 2).to(x.dtype)
    read = F.grid_sample(parts, flat, "bilinear", "zeros", align_corners=False)
    read = read.reshape(n, offset_group, c // offset_group, kh * kw, oh, ow)
    if mask is not None:
        read = read * mask.reshape(n, offset_group, 1, kh * kw, oh, ow)
    read = read.reshape(n, group, c // group * kh * kw, oh * ow)
    y = w.reshape(group, w.shape[0] // group, -1) @ read
    y = y.reshape(n, w.shape[0], oh, ow)
    return y if b is None else y + b[:, None, None]


def causal_conv(
    x: Tensor, w: Tensor, b: Tensor | None = None, past: Tensor | None = None, *, activation: str = "none"
) -> tuple[Tensor, Tensor]:
    """CausalConvWithState: a depthwise convolution over what came before, which is handed on."""
    reach = w.shape[-1] - 1
    seen = F.pad(x, (reach, 0)) if past is None else torch.cat([past, x], -1)
    y = F.conv1d(seen, w, b, groups=x.shape[1])
    return F.silu(y) if activation in ("silu", "swish") else y, seen[..., seen.shape[-1] - reach :]


def determinant(x: Tensor) -> Tensor:
    """Det."""
    result: Tensor = torch.linalg.det(x)
    return result


def area(sizes: Sequence[int]) -> int:
    """Product of sizes."""
    return math.prod(sizes)


TABLE: dict[str, Callable[..., Any]] = {
    "CausalConvWithState": causal_conv,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DeformConv": deform_conv,
    "Det": determinant,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": torch.matmul,
}
