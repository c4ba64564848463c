"""Attention over heads, of ONNX and of onnxruntime's own domain; rotations of positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.finite import finite
from onnxslim_learn.bridge.ops.kinds import DTYPES
from onnxslim_learn.bridge.ops.quantize import real


def by_head(x: Tensor, heads: Any) -> Tensor:
    """``b s (h d)`` to ``b h s d``; what has four axes stays."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """``b h s d`` to ``b s (h d)``."""
    return x.transpose(1, 2).flatten(2)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    outputs: int = 1,
) -> Any:
    """Attention: bias of masks, causality and windows, softmax over keys; a query that sees nothing puts out zero."""
    three = q.ndim == 3
    q, k, v = by_head(q, q_num_heads), by_head(k, kv_num_heads), by_head(v, kv_num_heads)
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    present = k, v
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    windows = (left_window_size, 0 if is_causal else right_window_size)
    past = 0 if past_key is None else past_key.shape[2]
    lengths = lengths if past_key is None else None
    bias = attention_bias(q, k, mask, windows, past, lengths)
    factor = scale or 1 / math.sqrt(q.shape[-1])
    seen = bias is None or mask_is_safe(mask, lengths, windows)
    if outputs == 1 and seen and not softcap and softmax_precision is None:
        y = F.scaled_dot_product_attention(q, k, v, bias, scale=factor)
        return joined(y) if three else y
    y, steps = _shared(q, k, v, bias, (factor, softcap, softmax_precision or 0))
    result = (joined(y) if three else y, *present, steps[qk_matmul_output_mode].to(q.dtype))
    return result[:outputs] if outputs > 1 else result[0]


def _shared(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, settings: tuple[float, float, int]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The result, and the scores at every step: raw, capped, with bias, as shares."""
    factor, softcap, precision = settings
    root = math.sqrt(factor)
    raw = (q * root) @ (k * root).transpose(-1, -2)
    capped = softcap * torch.tanh(raw / softcap) if softcap else raw
    biased = capped if bias is None else capped + bias
    shares = torch.softmax(biased.to(DTYPES[precision]) if precision else biased, -1)
    if bias is not None:
        shares = torch.where(torch.isneginf(bias.amax(-1, keepdim=True)), torch.zeros_like(shares), shares)
    return shares.to(v.dtype) @ v, (raw, capped, biased, shares)


def mask_is_safe(mask: Tensor | None, lengths: Tensor | None, windows: tuple[int, int]) -> bool:
    """Whether every query surely sees a key, as causality alone lets it."""
    return mask is None and lengths is None and windows[0] < 0


def attention_bias(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    windows: tuple[int, int],
    past: int,
    lengths: Tensor | None,
) -> Tensor | None:
    """What is added to scores: zero, minus infinity, or a mask of numbers."""
    size, total = q.shape[2], k.shape[2]
    allowed = None
    if windows != (-1, -1):
        offset: Any = past if lengths is None else (lengths.reshape(-1, 1, 1, 1) - size)
        steps = torch.arange(total, device=q.device) - torch.arange(size, device=q.device)[:, None] - offset
        left, right = windows
        allowed = torch.ones_like(steps, dtype=torch.bool)
        allowed = allowed if left < 0 else allowed & (steps >= -left)
        allowed = allowed if right < 0 else allowed & (steps <= right)
    if lengths is not None:
        real = torch.arange(total, device=q.device) < lengths.reshape(-1, 1, 1, 1)
        allowed = real if allowed is None else allowed & real
    if mask is not None and mask.dtype == torch.bool:
        seen = F.pad(mask, (0, total - mask.shape[-1]))
        allowed, mask = seen if allowed is None else allowed & seen, None
    bias = None if allowed is None else torch.zeros_like(allowed, dtype=q.dtype).masked_fill(~allowed, -math.inf)
    if mask is not None:
        added = F.pad(mask, (0, total - mask.shape[-1]), value=-math.inf)
        bias = added if bias is None else bias + added
    return bias


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    """Turn halves, or neighbours, of the last axis of ``b h s d`` by tables ``(b) s d/2``."""
    cosine, sine = (v[:, None] if v.ndim == 3 else v for v in (cosine, sine))
    turned = 2 * cosine.shape[-1]
    part, rest = x[..., :turned], x[..., turned:]
    a, b = (part[..., 0::2], part[..., 1::2]) if interleaved else part.chunk(2, -1)
    real, imaginary = cosine * a - sine * b, sine * a + cosine * b
    both = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
    return torch.cat([both, rest], -1) if rest.shape[-1] else both


def rotary(
    x: Tensor,
    cosine: Tensor,
    sine: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """RotaryEmbedding."""
    if positions is not None:
        cosine, sine = cosine[positions], sine[positions]
    y = rotate(by_head(x, num_heads), cosine, sine, bool(interleaved))
    return y if x.ndim == 4 else joined(y)


@finite
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[Tensor, Tensor]:
    """LinearAttention: a state ``b h k v`` that decays, is corrected, and is read by every query."""
    kind = q.dtype
    queries, keys, values = (by_head(x, n).float() for x, n in ((q, q_num_heads), (k, kv_num_heads), (v, kv_num_heads)))
    state = keys.new_zeros(*keys.shape[:2], keys.shape[-1], values.shape[-1]) if past is None else past.float()
    factor = scale or 1 / math.sqrt(queries.shape[-1])
    gate = None if decay is None else by_head(decay, kv_num_heads).float().exp()
    rate = None if beta is None else beta.float().transpose(1, 2)[..., None]
    outputs = []
    for t in range(q.shape[1]):
        key, value = keys[:, :, t], values[:, :, t]
        state = state if gate is None else gate[:, :, t][..., None] * state
        if rate is not None:
            value = rate[:, :, t] * (value - torch.einsum("bhk,bhkv->bhv", key, state))
        state = state + key[..., None] * value[..., None, :]
        read = state.repeat_interleave(q_num_heads // kv_num_heads, 1)
        outputs.append(factor * torch.einsum("bhk,bhkv->bhv", queries[:, :, t], read))
    y = joined(torch.stack(outputs, 2)).to(kind)
    return y, state.to(kind if past is None else past.dtype)


# --- onnxruntime's own ------------------------------------------------------------------------------------------------


def multi_head(
    q: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    bias: Tensor | None = None,
    padding: Tensor | None = None,
    added: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
    outputs: int = 1,
) -> Any:
    """MultiHeadAttention: a bias over query, key and value, masks by length or position."""
    if q.ndim == 5:
        q, k, v = (x.flatten(2) for x in q.unbind(3))
    assert k is not None and v is not None
    if bias is not None:
        width = q.shape[-1]
        q = q + bias[:width]
        k = k if k.ndim == 4 else k + bias[width : 2 * width]
        v = v if v.ndim == 4 else v + bias[2 * width :]
    heads = by_head(q, num_heads), by_head(k, num_heads), by_head(v, num_heads)
    past = 0 if past_key is None else past_key.shape[2]
    mask = padding_bias(padding, past + heads[1].shape[2], mask_filter_value, q.dtype)
    mask = added if mask is None else mask if added is None else mask + added
    results = attention(
        heads[0],
        heads[1],
        heads[2],
        mask,
        past_key,
        past_value,
        is_causal=unidirectional,
        scale=scale or None,
        outputs=max(outputs, 3),
    )
    result = (joined(results[0]), *results[1:])
    return result[:outputs] if outputs > 1 else result[0]


def padding_bias(padding: Tensor | None, total: int, value: float, kind: torch.dtype) -> Tensor | None:
    """A mask of key lengths, or of positions, as what is added to scores."""
    if padding is None:
        return None
    if padding.ndim == 1:
        padding = torch.arange(total, device=padding.device) < padding[:, None]
    view = padding[:, None, None] if padding.ndim == 2 else padding[:, None] if padding.ndim == 3 else padding
    return torch.where(view.bool(), 0.0, value).to(kind)


def packed(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
    *,
    mask_filter_value: float = -10000.0,
    num_heads: int,
    qkv_hidden_sizes: Any = None,
    scale: float = 0.0,
    unidirectional: int = 0,
    outputs: int = 1,
) -> Any:
    """com.microsoft.Attention: query, key and value by one product."""
    sizes = list(qkv_hidden_sizes or [w.shape[1] // 3] * 3)
    q, k, v = torch.split(F.linear(x, w.T, b), sizes, -1)
    past_key, past_value = (None, None) if past is None else past.unbind(0)
    results = multi_head(
        q,
        k,
        v,
        None,
        mask,
        added,
        past_key,
        past_value,
        mask_filter_value=mask_filter_value,
        num_heads=num_heads,
        scale=scale,
        unidirectional=unidirectional,
        outputs=3,
    )
    return (results[0], torch.stack(results[1:3])) if outputs > 1 else results[0]


def packed_quantized(
    x: Tensor,
    w: Tensor,
    b: Tensor,
    x_scale: Tensor,
    w_scale: Tensor,
    mask: Tensor | None = None,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    past: Tensor | None = None,
    *,
    outputs: int = 1,
    **settings: Any,
) -> Any:
    """com.microsoft.QAttention: data and weight are integers, one scale for the data, one or one a column for these."""
    data, weight = real(x, x_scale, x_zero), real(w, w_scale, w_zero)
    return packed(data, weight, b, mask, past, outputs=outputs, **settings)


def grouped(
    q: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    total: Tensor | None = None,
    cosine: Tensor | None = None,
    sine: Tensor | None = None,
    *,
    do_rotary: int = 0,
    kv_num_heads: int,
    local_window_size: int = -1,
    num_heads: int,
    rotary_interleaved: int = 0,
    scale: float = 0.0,
    softcap: float = 0.0,
    smooth_softmax: int = 0,
    outputs: int = 1,
) -> Any:
    """GroupQueryAttention over full sequences: causal, ``lengths`` are the last positions of every sequence."""
    if k is None or v is None:
        size = q.shape[-1] // (num_heads + 2 * kv_num_heads)
        q, k, v = torch.split(q, [num_heads * size, kv_num_heads * size, kv_num_heads * size], -1)
    heads = [by_head(q, num_heads), by_head(k, kv_num_heads), by_head(v, kv_num_heads)]
    past = 0 if past_key is None or past_key.shape[2] == 0 else past_key.shape[2]
    if do_rotary and cosine is not None and sine is not None:
        place = slice(past, past + q.shape[1])
        for n in (0, 1):
            heads[n] = rotate(heads[n], cosine[place], sine[place], bool(rotary_interleaved))
    window = local_window_size - 1 if local_window_size > 0 else -1
    if not past:
        past_key = past_value = None
    settings: dict[str, Any] = {"left_window_size": window, "scale": scale or None, "softcap": softcap, "outputs": 3}
    results = attention(heads[0], heads[1], heads[2], None, past_key, past_value, is_causal=1, **settings)
    result = (joined(results[0]), *results[1:])
    return result[:outputs] if outputs > 1 else result[0]


def rotary_ort(
    x: Tensor,
    positions: Tensor,
    cosine: Tensor,
    sine: Tensor,
    *,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Tensor:
    """com.microsoft.RotaryEmbedding: one first position for all, or positions by sequence."""
    length = x.shape[2] if x.ndim == 4 else x.shape[1]
    if positions.numel() == 1:
        positions = positions.reshape(1, 1) + torch.arange(length, device=x.device)
    heads = num_heads or (x.shape[-1] // (2 * cosine.shape[-1]) if x.ndim == 3 else 0)
    return rotary(x, cosine, sine, positions, interleaved=interleaved, num_heads=heads)


TABLE: dict[str, Callable[..., Any]] = {
    "Attention": attention,
    "LinearAttention": linear_attention,
    "RotaryEmbedding": rotary,
}

CONTRIB: dict[str, Callable[..., Any]] = {
    "Attention": packed,
    "GroupQueryAttention": grouped,
    "MultiHeadAttention": multi_head,
    "QAttention": packed_quantized,
    "RotaryEmbedding": rotary_ort,
}
