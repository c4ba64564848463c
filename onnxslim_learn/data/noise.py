"""Smooth random fields: noise whose neighbours are alike, as in images and recordings.

What repairs a network best, of what was tried on a residual net: textures of few waves inside of patches with clear
borders on plain ground. White noise leaves most units of a trained net silent, and one plain smooth field excites them
all in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Sequence


MARGIN = 1.5  # fields made by Fourier transforms are periodic: make them larger and cut a part out
STEEPNESS = 1.5  # how fast amplitudes fall beyond the cut-off; images lie between 1 and 2
COARSE = 64  # points along an axis; more are interpolated
CUTOFFS = (0.7, 4.0)  # periods across a field, between which the cut-off of a texture is drawn
PATCHES = 0.4  # periods across a field of the borders between patches and ground
SHARPNESS = 20.0  # of borders
CONTRAST = (0.3, 1.0)  # deviations of a texture from the level of its patch, 1 over the ground
TINT = 0.2  # deviation of a channel's level
RECORDED = 16  # a texture along one axis has at most a period in so many numbers


def field(rng: np.random.Generator, sizes: Sequence[int], cutoff: float) -> Array:
    """A field of zero mean and unit variance.

    Args:
        rng: Random numbers.
        sizes: Its shape.
        cutoff: Periods across the field up to which all waves are equally strong.
    """
    coarse = [n if len(sizes) == 1 else min(n, COARSE) for n in sizes]
    wide = [int(np.ceil(MARGIN * n)) if n > 1 else 1 for n in coarse]
    waves = np.meshgrid(*(np.fft.fftfreq(n) * n / MARGIN for n in wide), indexing="ij", sparse=True)
    gain = (1 + sum(np.square(w) for w in waves) / cutoff**2) ** (-STEEPNESS)
    noise = np.fft.ifftn(np.fft.fftn(rng.standard_normal(wide)) * gain).real
    part = noise[tuple(slice(n) for n in coarse)]
    for axis, size in enumerate(sizes):
        part = _stretched(part, axis, size)
    found: Array = (part - part.mean()) / (part.std() + 1e-12)
    return found


def _stretched(coarse: Array, axis: int, size: int) -> Array:
    """Interpolate along an axis."""
    if coarse.shape[axis] == size:
        return coarse
    places = np.linspace(0, coarse.shape[axis] - 1, size)
    below = np.minimum(places.astype(int), coarse.shape[axis] - 2)
    share = (places - below).reshape([-1 if k == axis else 1 for k in range(coarse.ndim)])
    found: Array = coarse.take(below, axis) * (1 - share) + coarse.take(below + 1, axis) * share
    return found


def patches(rng: np.random.Generator, channels: int, sizes: Sequence[int]) -> Array:
    """Textured patches around 1 on a ground of 0, ``channels x *sizes``.

    Grain, contrast, tint, how alike the channels are and how much is ground differ from sample to sample.
    """
    finest = CUTOFFS[1] if len(sizes) > 1 else max(CUTOFFS[1], sizes[0] / RECORDED)
    cutoff = np.exp(rng.uniform(np.log(CUTOFFS[0]), np.log(finest)))
    alike = rng.uniform(0.5, 1.0) if channels > 1 else 1.0
    texture = alike * field(rng, sizes, cutoff)
    if channels > 1:
        own = np.stack([field(rng, sizes, cutoff) for _ in range(channels)])
        texture = texture + np.sqrt(1 - alike**2) * own
        texture = texture + TINT * rng.standard_normal((channels, *(1 for _ in sizes)))
    border = SHARPNESS * (field(rng, sizes, PATCHES) + rng.uniform(-PATCHES, PATCHES))
    inside = 1 / (1 + np.exp(-np.clip(border, -50, 50)))
    found: Array = inside * (1 + rng.uniform(*CONTRAST) * texture)
    return np.broadcast_to(found, (channels, *sizes)) if channels > 1 else found.reshape(1, *sizes)
