"""Resize: along every axis, positions of the input and their weights; torch's kernel where it computes the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import Plain

ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}
FAST = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}


@dataclass(frozen=True)
class Stretch:
    """One axis: sizes before and after, the factor between them, and the part of the input that is read."""

    before: int
    after: int
    factor: float
    roi: tuple[float, float]


def resize(
    x: Tensor,
    roi: Plain = None,
    scales: Plain = None,
    sizes: Plain = None,
    *,
    antialias: int = 0,
    axes: Plain = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    opset: int = 13,
) -> Tensor:
    """Resize by scales or to sizes."""
    if opset < 11:  # the second input is the scales
        scales, coordinate_transformation_mode, nearest_mode = roi, "asymmetric", "floor"
        roi = None
    stretches = _stretches(x, roi, scales, sizes, axes, keep_aspect_ratio_policy)
    frame, plain = coordinate_transformation_mode, not (antialias or exclude_outside)
    if plain and _fast(stretches, mode, frame, nearest_mode, cubic_coeff_a, x):
        return _by_kernel(x, stretches, FAST[mode], frame)
    for axis, stretch in stretches.items():
        place = _positions(stretch, frame, x)
        source = place
        if mode == "nearest":
            index = ROUNDINGS[nearest_mode](place).clamp(0, stretch.before - 1).to(torch.int64)
            x = x.index_select(axis, index)
        else:
            reach = 1 if mode == "linear" else 2
            index, weight = _taps(place, stretch, reach, cubic_coeff_a, bool(antialias), bool(exclude_outside))
            x = _mix(x, axis, index, weight)
        if frame == "tf_crop_and_resize":
            outside = (source < 0) | (source > stretch.before - 1)
            shape = [-1 if k == axis else 1 for k in range(x.ndim)]
            x = torch.where(outside.reshape(shape), torch.tensor(extrapolation_value, dtype=x.dtype), x)
    return x


def _stretches(x: Tensor, roi: Plain, scales: Plain, sizes: Plain, axes: Plain, policy: str) -> dict[int, Stretch]:
    """What happens along every axis that changes."""
    places = list(range(x.ndim)) if axes is None else [a % x.ndim for a in axes]
    before = [x.shape[a] for a in places]
    if sizes:
        factors = [n / b for n, b in zip(sizes, before, strict=True)]
        after = list(sizes)
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(factors)
            after = [math.floor(factor * b + 0.5) for b in before]
    else:
        factors, after = list(scales), [math.floor(b * s) for b, s in zip(before, scales, strict=True)]
    count = len(places)
    rois = [(roi[k], roi[k + count]) if roi else (0.0, 1.0) for k in range(count)]
    stretches = {a: Stretch(*each) for a, *each in zip(places, before, after, factors, rois, strict=True)}
    return {a: s for a, s in stretches.items() if s.factor != 1 or s.after != s.before or s.roi != (0.0, 1.0)}


def _fast(stretches: dict[int, Stretch], mode: str, frame: str, nearest: str, a: float, x: Tensor) -> bool:
    """Whether torch has a kernel that computes the same over the last two axes."""
    if x.ndim != 4 or not stretches or set(stretches) - {2, 3} or not x.is_floating_point():
        return False
    if mode == "nearest":
        whole = all(s.after == s.before * round(s.factor) and s.factor >= 1 for s in stretches.values())
        even = all(s.factor % 1 == 0 for s in stretches.values())
        return (
            whole
            and even
            and ((frame, nearest) == ("asymmetric", "floor") or (frame == "half_pixel" and "prefer" in nearest))
        )
    exact = all(abs(s.after / s.before - s.factor) < 1e-9 for s in stretches.values())
    same = frame in ("half_pixel", "align_corners") or (
        frame == "pytorch_half_pixel" and all(s.after > 1 for s in stretches.values())
    )
    return exact and same and (mode == "linear" or a == -0.75)


def _by_kernel(x: Tensor, stretches: dict[int, Stretch], mode: str, frame: str) -> Tensor:
    size = [stretches[k].after if k in stretches else x.shape[k] for k in (2, 3)]
    if mode == "nearest":
        return F.interpolate(x, size, mode=mode)
    return F.interpolate(x, size, mode=mode, align_corners=frame == "align_corners")


def _positions(s: Stretch, frame: str, x: Tensor) -> Tensor:
    """Where every output position lies in the input."""
    k = torch.arange(s.after, dtype=torch.float64, device=x.device)
    length = s.factor * s.before
    if frame == "align_corners":
        return k * (s.before - 1) / (length - 1) if length != 1 else torch.zeros_like(k)
    if frame == "asymmetric":
        return k / s.factor
    if frame == "tf_crop_and_resize":
        part = (s.roi[1] - s.roi[0]) * (s.before - 1)
        return s.roi[0] * (s.before - 1) + (k * part / (length - 1) if length != 1 else part / 2 + 0 * k)
    if frame == "pytorch_half_pixel" and length == 1:
        return torch.full_like(k, -0.5)
    shift = s.before / 2 * (1 - s.after / length) if frame == "half_pixel_symmetric" else 0.0
    return shift + (k + 0.5) / s.factor - 0.5


def _taps(place: Tensor, s: Stretch, reach: int, a: float, antialias: bool, exclude: bool) -> tuple[Tensor, Tensor]:
    """Positions and weights, ``(outputs, taps)``: a tent of width 1 on either side, or a cubic of width 2."""
    scale = min(s.factor, 1.0) if antialias else 1.0
    first = math.floor(-reach / scale) + 1
    offsets = torch.arange(first, 2 - first, device=place.device)
    base = torch.ceil(place) - 1  # the position on the left, strictly
    index = base[:, None] + offsets
    distance = (index - place[:, None]).abs() * scale
    weight = (1 - distance).clamp(min=0) if reach == 1 else _cubic(distance, a)
    if exclude:
        weight = weight * ((index >= 0) & (index < s.before))
    if exclude or antialias:
        weight = weight / weight.sum(1, keepdim=True)
    return index.clamp(0, s.before - 1).to(torch.int64), weight


def _cubic(d: Tensor, a: float) -> Tensor:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def _mix(x: Tensor, axis: int, index: Tensor, weight: Tensor) -> Tensor:
    """Sum over taps of what they read."""
    shape: Sequence[int] = [-1 if k == axis else 1 for k in range(x.ndim)]
    kind = x.dtype
    wide = x if kind == torch.float64 else x.to(torch.float32)
    total = sum(
        wide.index_select(axis, index[:, k]) * weight[:, k].to(wide.dtype).reshape(shape) for k in range(index.shape[1])
    )
    assert isinstance(total, Tensor)
    return total.to(kind) if kind.is_floating_point else total.round().to(kind)


def upsample(x: Tensor, given: Plain = None, *, mode: str = "nearest", scales: Plain = None) -> Tensor:
    """Upsample."""
    wanted = scales if given is None else given
    result: Tensor = resize(
        x, None, wanted, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    return result


TABLE: dict[str, Callable[..., Any]] = {"Resize": resize, "Upsample": upsample}
