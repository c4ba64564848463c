"""Operators that read between pixels: grids and regions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import Plain

MODES = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic", "cubic": "bicubic"}


def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    """GridSample of two or three spatial axes."""
    return F.grid_sample(x, grid.to(x.dtype), MODES[mode], padding_mode, bool(align_corners))


def affine_grid(theta: Tensor, size: Plain, *, align_corners: int = 0) -> Tensor:
    """AffineGrid."""
    return F.affine_grid(theta, list(size), bool(align_corners))


def roi_align(
    x: Tensor,
    rois: Tensor,
    batch: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    opset: int = 16,
) -> Tensor:
    """RoiAlign: samples between pixels, averaged (or their largest) per cell of every region."""
    half = coordinate_transformation_mode == "half_pixel" and opset >= 16
    bounds = rois.double() * spatial_scale - (0.5 if half else 0.0)
    results = []
    for k in range(rois.shape[0]):
        left, top, right, bottom = bounds[k].tolist()
        taps = []
        for low, high, cells in ((top, bottom, output_height), (left, right, output_width)):
            length = high - low if half else max(high - low, 1.0)
            count = sampling_ratio or math.ceil(length / cells)
            steps = (torch.arange(cells * count, device=x.device) + 0.5) / count
            taps.append((low + steps * (length / cells), count))
        results.append(_cells(x[batch[k]], taps[0], taps[1], mode))
    return torch.stack(results) if results else x.new_zeros(0, x.shape[1], output_height, output_width)


def _cells(x: Tensor, rows: tuple[Tensor, int], columns: tuple[Tensor, int], mode: str) -> Tensor:
    """Samples of a region, gathered into cells."""
    if rows[1] == 0 or columns[1] == 0:
        return x.new_zeros(x.shape[0], 1, 1)
    (low_y, high_y, ly, in_y), (low_x, high_x, lx, in_x) = (
        _between(place, size) for (place, _), size in zip((rows, columns), x.shape[1:], strict=True)
    )
    inside = in_y[:, None] & in_x
    parts = [
        x[:, ys][:, :, xs] * (wy[:, None] * wx * inside).to(x.dtype)
        for ys, wy in ((low_y, 1 - ly), (high_y, ly))
        for xs, wx in ((low_x, 1 - lx), (high_x, lx))
    ]
    height, width = len(low_y) // rows[1], len(low_x) // columns[1]
    view = (x.shape[0], height, rows[1], width, columns[1])
    if mode == "max":  # the largest product of a pixel and its weight
        return torch.stack(parts).amax(0).reshape(view).amax((2, 4))
    return torch.stack(parts).sum(0).reshape(view).mean((2, 4))


def _between(place: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels below and above positions, the share of the upper one, and which positions are inside."""
    inside = (place >= -1) & (place <= size)
    place = place.clamp(min=0)
    low = place.floor().clamp(max=size - 1).to(torch.int64)
    high = (low + 1).clamp(max=size - 1)
    share = torch.where(low >= size - 1, torch.zeros_like(place), place - low)
    return low, high, share, inside


def max_roi_pool(x: Tensor, rois: Tensor, *, pooled_shape: Plain, spatial_scale: float = 1.0) -> Tensor:
    """MaxRoiPool: the largest in every cell of every region of whole pixels."""
    results = []
    for region in rois.tolist():
        left, top, right, bottom = (math.floor(v * spatial_scale + 0.5) for v in region[1:])
        cells = []
        for start, stop, count, size in (
            (top, bottom, pooled_shape[0], x.shape[2]),
            (left, right, pooled_shape[1], x.shape[3]),
        ):
            step = max(stop - start + 1, 1) / count
            edges = [(math.floor(k * step) + start, math.ceil((k + 1) * step) + start) for k in range(count)]
            cells.append([(min(max(a, 0), size), min(max(b, 0), size)) for a, b in edges])
        image = x[int(region[0])]
        rows = [
            torch.stack(
                [
                    image[:, a:b, c:d].amax((1, 2)) if a < b and c < d else image.new_zeros(len(image))
                    for c, d in cells[1]
                ],
                1,
            )
            for a, b in cells[0]
        ]
        results.append(torch.stack(rows, 1))
    return torch.stack(results)


TABLE: dict[str, Callable[..., Any]] = {
    "AffineGrid": affine_grid,
    "GridSample": grid_sample,
    "MaxRoiPool": max_roi_pool,
    "RoiAlign": roi_align,
}
