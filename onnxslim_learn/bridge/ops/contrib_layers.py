"""Operators that onnxruntime fuses: layers with their activation, products with their scale, norms with their skip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops import attention, experts, quantize, recurrent
from onnxslim_learn.bridge.ops.contract import conv, gemm
from onnxslim_learn.bridge.ops.kinds import Plain
from onnxslim_learn.bridge.ops.norm import layer_norm

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "": lambda x: x,
    "Clip": lambda x, low=None, high=None: torch.clamp(x, low, high),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0, 1),
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}


def gelu(x: Tensor) -> Tensor:
    """Gelu."""
    return F.gelu(x)


def bias_gelu(x: Tensor, b: Tensor) -> Tensor:
    """BiasGelu."""
    return F.gelu(x + b)


def fast_gelu(x: Tensor, b: Tensor | None = None) -> Tensor:
    """FastGelu: by a hyperbolic tangent."""
    return F.gelu(x if b is None else x + b, approximate="tanh")


def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """QuickGelu."""
    return x * torch.sigmoid(alpha * x)


def bias_add(x: Tensor, b: Tensor, skip: Tensor) -> Tensor:
    """BiasAdd."""
    return x + b + skip


def bias_dropout(
    x: Tensor,
    b: Tensor,
    skip: Tensor | None = None,
    ratio: Plain = 0.5,
    mode: Plain = None,
    *,
    seed: int | None = None,
    training: bool = False,
    share: float | None = None,
    outputs: int = 1,
) -> Any:
    """BiasDropout."""
    share, active = ratio if share is None else share, training or bool(mode)
    kept = torch.rand_like(x) >= share if active else torch.ones_like(x, dtype=torch.bool)
    y = (x + b) * kept / (1 - share) if active else x + b
    y = y if skip is None else y + skip
    return (y, kept) if outputs > 1 else y


def bias_split_gelu(x: Tensor, b: Tensor) -> Tensor:
    """BiasSplitGelu."""
    left, right = (x + b).chunk(2, -1)
    return left * F.gelu(right)


def fused_conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    skip: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Plain = None,
    **settings: Any,
) -> Tensor:
    """FusedConv."""
    y = conv(x, w, b, **settings)
    return ACTIVATIONS[activation](y if skip is None else y + skip, *(activation_params or ()))


def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """FusedGemm."""
    y = gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    given = [v for v in (activation_alpha, activation_beta, activation_gamma) if v is not None]
    return ACTIVATIONS[activation](y, *given)


def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """FusedMatMul: of a batch-transposed factor the first axis is the next to last one."""
    a, b = a.movedim(0, -2) if transBatchA else a, b.movedim(0, -2) if transBatchB else b
    y = (a.transpose(-1, -2) if transA else a) @ (b.transpose(-1, -2) if transB else b)
    return y if alpha == 1.0 else alpha * y


def skip_layer_norm(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    outputs: int = 1,
) -> Any:
    """SkipLayerNormalization; the sum is the fourth output."""
    total = x + skip if bias is None else x + skip + bias
    y = layer_norm(total, scale, shift, epsilon=epsilon)
    return (y, None, None, total)[:outputs] if outputs > 1 else y


def skip_rms_norm(
    x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None, *, epsilon: float = 1e-12, outputs: int = 1
) -> Any:
    """SkipSimplifiedLayerNormalization."""
    total = x + skip if bias is None else x + skip + bias
    y = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon) * scale
    return (y, None, None, total)[:outputs] if outputs > 1 else y


def embed_norm(
    tokens: Tensor,
    segments: Tensor | None,
    words: Tensor,
    places: Tensor,
    parts: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
    outputs: int = 1,
) -> Any:
    """EmbedLayerNormalization; the mask as lengths is the second output, the sum the third."""
    at = torch.arange(tokens.shape[1], device=tokens.device)[None] if positions is None else positions
    total = F.embedding(tokens.long(), words) + F.embedding(at.long(), places)
    total = total if segments is None or parts is None else total + F.embedding(segments.long(), parts)
    y = layer_norm(total, scale, shift, epsilon=epsilon)
    if outputs == 1:
        return y
    counted = tokens.new_zeros(tokens.shape[0]) if mask is None else mask.sum(1)
    return (y, counted.to(torch.int32), total)[:outputs]


def embed_norm_quantized(
    tokens: Tensor,
    segments: Tensor | None,
    words: Tensor,
    places: Tensor,
    parts: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mask: Tensor | None,
    *grids: Tensor | None,
    outputs: int = 1,
    **settings: Any,
) -> Any:
    """QEmbedLayerNormalization: tables, scale and shift are integers; five scales follow, and five zero points."""
    tables = {"words": words, "places": places, "parts": parts, "scale": scale, "shift": shift}
    numbers: dict[str, Any] = {
        name: None if table is None or factor is None else quantize.real(table, factor, zero)
        for (name, table), factor, zero in zip(tables.items(), grids[:5], grids[5:], strict=True)
    }
    return embed_norm(tokens, segments, mask=mask, outputs=outputs, **numbers, **settings)


CONTRIB: dict[str, Callable[..., Any]] = {
    **attention.CONTRIB,
    **experts.CONTRIB,
    **quantize.CONTRIB,
    **recurrent.CONTRIB,
    "BiasAdd": bias_add,
    "BiasDropout": bias_dropout,
    "BiasGelu": bias_gelu,
    "BiasSplitGelu": bias_split_gelu,
    "EmbedLayerNormalization": embed_norm,
    "FastGelu": fast_gelu,
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "Gelu": gelu,
    "QEmbedLayerNormalization": embed_norm_quantized,
    "QuickGelu": quick_gelu,
    "SkipLayerNormalization": skip_layer_norm,
    "SkipSimplifiedLayerNormalization": skip_rms_norm,
    "TransposeMatMul": fused_matmul,
}
