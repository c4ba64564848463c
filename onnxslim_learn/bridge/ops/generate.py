"""Operators that make tensors: ranges, constants, random draws, windows, kept boxes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import DTYPES, Plain, single


def constant(
    *,
    value: Any = None,
    value_float: Any = None,
    value_floats: Any = None,
    value_int: Any = None,
    value_ints: Any = None,
    like: Tensor | None,
) -> Tensor:
    """Constant that is what a graph puts out."""
    if value is not None:
        result: Tensor = value
        return result
    given = next(v for v in (value_float, value_floats, value_int, value_ints) if v is not None)
    kind = torch.float32 if value_int is None and value_ints is None else torch.int64
    return torch.tensor(given, dtype=kind, device=None if like is None else like.device)


def constant_of_shape(shape: Plain, *, value: Tensor | None = None, like: Tensor) -> Tensor:
    """ConstantOfShape: zero of float32 unless told otherwise."""
    if value is None:
        return torch.zeros(shape, device=like.device)
    return value.reshape(()).expand(shape)


def span(start: Plain, limit: Plain, step: Plain, *, kinds: Plain, like: Tensor) -> Tensor:
    """Range."""
    start, limit, step = (single(v) for v in (start, limit, step))
    dtype = DTYPES.get(kinds[0], torch.int64)
    count = max(math.ceil((limit - start) / step), 0) if dtype.is_floating_point else None
    if count is None:
        return torch.arange(start, limit, step, dtype=dtype, device=like.device)
    result: Tensor = torch.arange(count, dtype=dtype, device=like.device) * step + start
    return result


def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """EyeLike."""
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape)
    return (columns - rows[:, None] == k).to(x.dtype if dtype is None else DTYPES[dtype])


def normal(
    *, shape: Plain, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None, like: Tensor
) -> Tensor:
    """RandomNormal; draws follow torch's generator."""
    return torch.randn(shape, device=like.device).to(DTYPES[dtype]) * scale + mean


def normal_like(
    x: Tensor, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Tensor:
    """RandomNormalLike."""
    return torch.randn_like(x, dtype=x.dtype if dtype is None else DTYPES[dtype]) * scale + mean


def uniform(
    *, shape: Plain, dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None, like: Tensor
) -> Tensor:
    """RandomUniform."""
    return torch.rand(shape, device=like.device).to(DTYPES[dtype]) * (high - low) + low


def uniform_like(
    x: Tensor, *, dtype: int | None = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Tensor:
    """RandomUniformLike."""
    return torch.rand_like(x, dtype=x.dtype if dtype is None else DTYPES[dtype]) * (high - low) + low


def multinomial(x: Tensor, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Tensor:
    """Multinomial: draws from unnormalised log probabilities."""
    return torch.multinomial(torch.softmax(x, 1), sample_size, replacement=True).to(DTYPES[dtype])


def _window(name: str, *weights: float) -> Callable[..., Tensor]:
    """A sum of cosines; not periodic means that both ends are alike."""

    def made(size: Plain, *, output_datatype: int = 1, periodic: int = 1, like: Tensor) -> Tensor:
        count = single(size)
        steps = torch.arange(count, device=like.device, dtype=torch.float64)
        angle = steps * (2 * math.pi / (count if periodic else count - 1))
        total = sum((weight * torch.cos(k * angle) for k, weight in enumerate(weights)), torch.zeros_like(angle))
        return total.to(DTYPES[output_datatype])

    made.__name__ = made.__qualname__ = name
    return made


blackman_window = _window("blackman_window", 0.42, -0.5, 0.08)
hamming_window = _window("hamming_window", 25 / 46, -21 / 46)
hann_window = _window("hann_window", 0.5, -0.5)


def mel_weights(
    bins: Plain, length: Plain, rate: Plain, low: Plain, high: Plain, *, output_datatype: int = 1, like: Tensor
) -> Tensor:
    """MelWeightMatrix: triangles over the frequencies of a spectrum."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    step = (mel(high) - mel(low)) / (bins + 2)
    hertz = [700 * (10 ** ((mel(low) + k * step) / 2595) - 1) for k in range(bins + 2)]
    edge = [int((length + 1) * f // rate) for f in hertz]
    place = torch.arange(length // 2 + 1, dtype=torch.float64, device=like.device)
    columns = []
    for left, middle, right in zip(edge, edge[1:], edge[2:], strict=False):
        rise = (place - left) / (middle - left) if middle > left else (place == middle).double()
        rise = torch.where((place >= left) & (place <= middle), rise, 0.0)
        fall = torch.where((place >= middle) & (place < right), (right - place) / max(right - middle, 1), 0.0)
        columns.append(torch.where(place >= middle, fall, rise) if right > middle else rise)
    return torch.stack(columns, 1).to(DTYPES[output_datatype])


def keep_boxes(
    boxes: Tensor,
    scores: Tensor,
    most: Plain = 0,
    overlap: Plain = 0.0,
    least: Plain = None,
    *,
    center_point_box: int = 0,
) -> Tensor:
    """NonMaxSuppression: ``(batch, class, box)`` of what stays, best first."""
    most, overlap, least = (single(v) for v in (most, overlap, least))
    boxes_kept = []
    for n in range(scores.shape[0]):
        corners = _corners(boxes[n], center_point_box)
        for c in range(scores.shape[1]):
            order = torch.argsort(scores[n, c], descending=True, stable=True)
            order = order if least is None else order[scores[n, c][order] > least]
            kept: list[int] = []
            for k in order.tolist():
                if len(kept) == most:
                    break
                if not kept or bool((_overlap(corners[k], corners[kept]) <= overlap).all()):
                    kept.append(k)
            boxes_kept += [[n, c, k] for k in kept]
    return torch.tensor(boxes_kept, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _corners(boxes: Tensor, center: int) -> Tensor:
    """Boxes as lower corner, upper corner."""
    if center:
        return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    return torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)


def _overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union."""
    sides = torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])
    common = sides.clamp(min=0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / (areas - common)


TABLE: dict[str, Callable[..., Any]] = {
    "BlackmanWindow": blackman_window,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "EyeLike": eye_like,
    "HammingWindow": hamming_window,
    "HannWindow": hann_window,
    "MelWeightMatrix": mel_weights,
    "Multinomial": multinomial,
    "NonMaxSuppression": keep_boxes,
    "RandomNormal": normal,
    "RandomNormalLike": normal_like,
    "RandomUniform": uniform,
    "RandomUniformLike": uniform_like,
    "Range": span,
}
