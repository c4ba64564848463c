"""Operators that move elements: shapes, slices, joins, paddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import Plain, listed, single


def reshape(x: Tensor, target: Plain = None, *, shape: Plain = None, allowzero: int = 0) -> Tensor:
    """Reshape: 0 copies a size unless it is allowed to mean zero."""
    wanted = shape if target is None else target
    return x.reshape([x.shape[k] if s == 0 and not allowzero else s for k, s in enumerate(wanted)])


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """Flatten to two axes."""
    place = axis + x.ndim if axis < 0 else axis
    if place == 1 and x.ndim > 1:
        return x.flatten(1)
    rows = 1
    for size in x.shape[:place]:
        rows *= size
    return x.reshape(rows, -1) if rows and x.numel() else x.reshape(rows, x.numel() // max(rows, 1))


def squeeze(x: Tensor, at: Plain = None, *, axes: Plain = None) -> Tensor:
    """Squeeze."""
    chosen = axes if at is None else at
    return x.squeeze() if chosen is None else x.squeeze(tuple(listed(chosen)))


def unsqueeze(x: Tensor, at: Plain = None, *, axes: Plain = None) -> Tensor:
    """Unsqueeze: axes of the result."""
    chosen = listed(axes if at is None else at)
    rank = x.ndim + len(chosen)
    for axis in sorted(a % rank for a in chosen):
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor, *, perm: Plain = None) -> Tensor:
    """Transpose."""
    return x.permute(tuple(range(x.ndim))[::-1] if perm is None else perm)


def expand(x: Tensor, shape: Plain) -> Tensor:
    """Expand: broadcast both ways."""
    rank = max(x.ndim, len(shape))
    sizes, asked = [1] * (rank - x.ndim) + list(x.shape), [1] * (rank - len(shape)) + list(shape)
    return x.expand([a if b == 1 else b for a, b in zip(sizes, asked, strict=True)])


def tile(x: Tensor, repeats: Plain, axis: Plain = None) -> Tensor:
    """Tile; of the first operator set along one axis."""
    if axis is None:
        return x.repeat(repeats)
    times, place = (single(v) for v in (repeats, axis))
    return x.repeat([times if k == place else 1 for k in range(x.ndim)])


def concat(*xs: Tensor, axis: int = 1) -> Tensor:
    """Concat."""
    return torch.cat(xs, axis)


def split(
    x: Tensor,
    sizes: Plain = None,
    *,
    axis: int = 0,
    split: Plain = None,
    num_outputs: int | None = None,
    outputs: int = 1,
) -> tuple[Tensor, ...]:
    """Split into given sizes, or into as many equal parts as there are outputs, the last one smaller."""
    wanted = split if sizes is None else sizes
    if wanted is not None:
        return torch.split(x, list(wanted), axis)
    parts, size = num_outputs or outputs, x.shape[axis]
    chunk = -(-size // parts)
    return torch.split(x, [min(chunk, size - chunk * k) for k in range(parts)], axis)


def cut(
    x: Tensor,
    start: Plain = None,
    end: Plain = None,
    at: Plain = None,
    steps: Plain = None,
    *,
    starts: Plain = None,
    ends: Plain = None,
    axes: Plain = None,
) -> Tensor:
    """Slice; a negative step runs backwards."""
    first, last = (listed(v) for v in ((starts, ends) if start is None else (start, end)))
    places = axes if at is None else at
    places = range(len(first)) if places is None else listed(places)
    index: list[Any] = [slice(None)] * x.ndim
    flips = []
    for lower, upper, axis, step in zip(first, last, places, listed(steps or [1] * len(first)), strict=True):
        if step > 0:
            index[axis % x.ndim] = slice(lower, upper, step)
        else:
            size = x.shape[axis]
            top = min(max(lower + size if lower < 0 else lower, -1), size - 1)
            bottom = min(max(upper + size if upper < 0 else upper, -1), size - 1)
            count = max(0, -(-(top - bottom) // -step))
            low = top + step * (count - 1)
            index[axis % x.ndim] = slice(low, top + 1, -step) if count else slice(0, 0)
            flips.append(axis)
    result = x[tuple(index)]
    return result.flip(flips) if flips else result


def pad(
    x: Tensor,
    amounts: Plain = None,
    fill: Plain = None,
    at: Plain = None,
    *,
    mode: str = "constant",
    pads: Plain = None,
    paddings: Plain = None,
    value: float = 0.0,
) -> Tensor:
    """Pad: constant, reflect, edge or wrap; negative amounts cut."""
    given = next(v for v in (amounts, pads, paddings) if v is not None)
    half = len(given) // 2
    axes = range(half) if at is None else [a % x.ndim for a in at]
    sides = {axis: (given[k], given[k + half]) for k, axis in enumerate(axes)}
    if mode == "constant":
        flat = [v for axis in reversed(range(x.ndim)) for v in sides.get(axis, (0, 0))]
        content = value if fill is None else single(fill)
        if x.dtype == torch.bool:
            return F.pad(x.to(torch.uint8), flat, value=int(content)).to(torch.bool)
        return F.pad(x, flat, value=content)
    for axis, (before, after) in sides.items():
        if before or after:
            x = x.index_select(axis, _outside(x, axis, before, after, mode))
    return x


def _outside(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Positions that a padded axis reads."""
    size = x.shape[axis]
    place = torch.arange(-before, size + after, device=x.device)
    if mode == "edge":
        return place.clamp(0, size - 1)
    if mode == "wrap":
        return place % size
    period = max(2 * (size - 1), 1)
    folded = place.abs() % period
    return torch.where(folded >= size, period - folded, folded)


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """DepthToSpace."""
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    b = blocksize
    return x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """SpaceToDepth."""
    if mode == "CRD":
        return F.pixel_unshuffle(x, blocksize)
    n, c, h, w = x.shape
    b = blocksize
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Shape."""
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device=x.device)


def size(x: Tensor) -> Tensor:
    """Size."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """ReverseSequence: the first elements of every sequence backwards."""
    time = torch.arange(x.shape[time_axis], device=x.device)
    place = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)  # batch, time
    view = [1] * x.ndim
    view[batch_axis], view[time_axis] = x.shape[batch_axis], x.shape[time_axis]
    index = (place if batch_axis < time_axis else place.T).reshape(view)
    return torch.gather(x, time_axis, index.expand(x.shape))


def center_crop_pad(x: Tensor, sizes: Plain, *, axes: Plain = None) -> Tensor:
    """CenterCropPad: cut or pad with zeros on both sides to a size."""
    for axis, wanted in zip(range(x.ndim) if axes is None else axes, sizes, strict=True):
        have = x.shape[axis]
        if wanted <= have:
            x = x.narrow(axis, (have - wanted) // 2, wanted)
        else:
            before = (wanted - have) // 2
            x = pad(x, [before, wanted - have - before], at=[axis])
    return x


def trilu(x: Tensor, k: Plain = 0, *, upper: int = 1) -> Tensor:
    """Trilu."""
    diagonal = single(k)
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


def column_to_image(
    x: Tensor, image: Plain, block: Plain, *, dilations: Plain = None, pads: Plain = None, strides: Plain = None
) -> Tensor:
    """Col2Im: add blocks ``[n, c · block, blocks]`` up into an image of any rank."""
    rank = len(image)
    dilations, strides, pads = dilations or [1] * rank, strides or [1] * rank, pads or [0] * (2 * rank)
    full = [n + pads[k] + pads[k + rank] for k, n in enumerate(image)]
    counts = [(f - d * (b - 1) - 1) // s + 1 for f, d, b, s in zip(full, dilations, block, strides, strict=True)]
    places = torch.zeros([1] * (2 * rank), dtype=torch.int64, device=x.device)
    for k in range(rank):
        inside = torch.arange(block[k], device=x.device) * dilations[k]
        outside = torch.arange(counts[k], device=x.device) * strides[k]
        view = [1] * (2 * rank)
        view[k], view[rank + k] = block[k], counts[k]
        places = places * full[k] + (inside[:, None] + outside).reshape(view)
    blocks = 1
    for size_ in block:
        blocks *= size_
    data = x.reshape(x.shape[0], x.shape[1] // blocks, -1)
    area = 1
    for size_ in full:
        area *= size_
    flat = data.new_zeros(*data.shape[:2], area).index_add(2, places.reshape(-1), data)
    result = flat.reshape(*data.shape[:2], *full)
    index = [slice(pads[k], full[k] - pads[k + rank]) for k in range(rank)]
    return result[(slice(None), slice(None), *index)]


def joined(parts: Sequence[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    """ConcatFromSequence."""
    return torch.stack(list(parts), axis) if new_axis else torch.cat(list(parts), axis)


def apart(x: Tensor, sizes: Plain = None, *, axis: int = 0, keepdims: int = 1) -> list[Tensor]:
    """SplitToSequence."""
    if sizes is None:
        parts = torch.split(x, 1, axis)
        return list(parts) if keepdims else [part.squeeze(axis) for part in parts]
    return list(torch.split(x, sizes, axis))


def inserted(sequence: list[Tensor], x: Tensor, place: Plain = None) -> list[Tensor]:
    """SequenceInsert."""
    at = len(sequence) if place is None else single(place)
    return [*sequence[:at], x, *sequence[at:]]


def erased(sequence: list[Tensor], place: Plain = -1) -> list[Tensor]:
    """SequenceErase."""
    at = single(place) % len(sequence)
    return [x for k, x in enumerate(sequence) if k != at]


def sequence(*xs: Tensor) -> list[Tensor]:
    """SequenceConstruct."""
    return list(xs)


def empty(*, dtype: int = 1) -> list[Tensor]:
    """SequenceEmpty."""
    return []


def element(sequence: list[Tensor], place: Plain) -> Tensor:
    """SequenceAt."""
    result: Tensor = sequence[single(place)]
    return result


def length(sequence: list[Tensor], *, like: Tensor) -> Tensor:
    """SequenceLength."""
    return torch.tensor(len(sequence), device=like.device)


def optional(x: Any = None, *, type: Any = None) -> Any:
    """Optional: the element, or nothing."""
    return x


def has_element(x: Any = None, *, like: Any) -> Tensor:
    """OptionalHasElement."""
    return torch.tensor(x is not None)


def get_element(x: Any) -> Any:
    """OptionalGetElement."""
    return x


TABLE: dict[str, Callable[..., Any]] = {
    "CenterCropPad": center_crop_pad,
    "Col2Im": column_to_image,
    "Concat": concat,
    "ConcatFromSequence": joined,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Optional": optional,
    "OptionalGetElement": get_element,
    "OptionalHasElement": has_element,
    "Pad": pad,
    "Reshape": reshape,
    "ReverseSequence": reverse_sequence,
    "SequenceAt": element,
    "SequenceConstruct": sequence,
    "SequenceEmpty": empty,
    "SequenceErase": erased,
    "SequenceInsert": inserted,
    "SequenceLength": length,
    "Shape": shape,
    "Size": size,
    "Slice": cut,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "SplitToSequence": apart,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": trilu,
    "Unsqueeze": unsqueeze,
}
