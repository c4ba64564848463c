"""Smooth random fields: noise whose neighbours are alike, as in images and recordings.

What repairs a residual net of clothes best, of what was tried: textures of few waves inside of patches with clear
borders on plain ground. White noise leaves most units of a trained net silent, and one plain smooth field excites them
all in the same way. Two thirds of the samples are such patches. The others are of other kinds, and faded: what is
fitted on one kind only does not hold on others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Sequence


MARGIN = 1.5  # fields made by Fourier transforms are periodic: make them larger and cut a part out
STEEPNESS = 1.5  # how fast amplitudes fall beyond the cut-off; images lie between 1 and 2
COARSE = 64  # points along an axis; more are interpolated
TOGETHER = 1 << 20  # points of fields that are made at once
CUTOFFS = (0.7, 4.0)  # periods across a field, between which the cut-off of a texture is drawn
PATCHES = 0.4  # periods across a field of the borders between patches and ground
SHARPNESS = 20.0  # of borders
CONTRAST = (0.3, 1.0)  # deviations of a texture from the level of its patch, 1 over the ground
TINT = 0.2  # deviation of a channel's level
PLAIN = 0.67  # share of samples that are patches as they are; the rest is mirrored, written or textured all over
FADED = 0.2  # least contrast of those
STROKES = 12  # at most in a sample
DOTS = 12  # points along a stroke
RECORDED = 16  # a texture along one axis has at most a period in so many numbers


def field(rng: np.random.Generator, sizes: Sequence[int], cutoff: float) -> Array:
    """A field of zero mean and unit variance: one of :func:`fields`."""
    one: Array = fields(rng, 1, sizes, cutoff)[0]
    return one


def fields(rng: np.random.Generator, count: int, sizes: Sequence[int], cutoff: float) -> Array:
    """Fields of zero mean and unit variance, ``count x *sizes``.

    Args:
        rng: Random numbers.
        count: How many: as many are made together as do not take much memory.
        sizes: The shape of each.
        cutoff: Periods across a field up to which all waves are equally strong.
    """
    coarse = [n if len(sizes) == 1 else min(n, COARSE) for n in sizes]
    wide = [int(np.ceil(MARGIN * n)) if n > 1 else 1 for n in coarse]
    waves = np.meshgrid(*(np.fft.fftfreq(n) * n / MARGIN for n in wide), indexing="ij", sparse=True)
    gain = (1 + sum(np.square(w) for w in waves) / cutoff**2) ** (-STEEPNESS)
    axes = tuple(range(1, len(sizes) + 1))
    fields, together = np.empty((count, *sizes)), max(1, TOGETHER // max(1, math.prod(wide)))
    for start in range(0, count, together):
        some = min(together, count - start)
        noise = np.fft.ifftn(np.fft.fftn(rng.standard_normal((some, *wide)), axes=axes) * gain, axes=axes).real
        part = noise[:, *(slice(n) for n in coarse)]
        for axis, size in zip(axes, sizes, strict=True):
            part = _stretched(part, axis, size)
        deviation = part.std(axis=axes, keepdims=True) + 1e-12
        fields[start : start + some] = (part - part.mean(axis=axes, keepdims=True)) / deviation
    return fields


def _stretched(coarse: Array, axis: int, size: int) -> Array:
    """Interpolate along an axis."""
    if coarse.shape[axis] == size:
        return coarse
    places = np.linspace(0, coarse.shape[axis] - 1, size)
    below = np.minimum(places.astype(int), coarse.shape[axis] - 2)
    share = (places - below).reshape([-1 if k == axis else 1 for k in range(coarse.ndim)])
    stretched: Array = coarse.take(below, axis) * (1 - share) + coarse.take(below + 1, axis) * share
    return stretched


def scene(rng: np.random.Generator, channels: int, sizes: Sequence[int]) -> Array:
    """One of several kinds of pictures or recordings, mostly between 0 and 1, ``channels x *sizes``.

    At half of the MACs, a net that reads how pages are turned kept 74 % on patches alone and 96 % or more on all kinds,
    of 100 %; convolutions on digits 87 % and 98 %. A mobile net of digits lost by it, less the more patches there are.
    """
    if rng.random() < PLAIN:
        return patches(rng, channels, sizes)
    kind = KINDS[rng.integers(len(KINDS))]
    level, contrast = rng.uniform(0, 1), rng.uniform(FADED, 1)
    faded: Array = level + contrast * (kind(rng, channels, sizes) - level)
    return faded


def _mirrored(rng: np.random.Generator, channels: int, sizes: Sequence[int]) -> Array:
    """Dark patches on light ground."""
    mirrored: Array = 1 - patches(rng, channels, sizes)
    return mirrored


def _written(rng: np.random.Generator, channels: int, sizes: Sequence[int]) -> Array:
    """A few thin curves on plain ground, of one tint: writing, drawings, spikes."""
    coarse = [min(n, COARSE) for n in sizes]
    places = np.stack(np.meshgrid(*map(np.arange, coarse), indexing="ij"), -1).reshape(-1, len(sizes))
    along = np.linspace(0, 1, DOTS)[:, None]
    ink = np.zeros(len(places))
    for _ in range(int(rng.integers(1, STROKES + 1))):
        length = rng.uniform(0.1, 0.7) * min(coarse)
        start = rng.uniform(0, 1, len(sizes)) * coarse
        ends = start + length * np.cumsum(rng.normal(0, 0.5, (2, len(sizes))), axis=0)
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * ends[0] + along**2 * ends[1]
        squares = sum((at[:, None] - dots) ** 2 for at, dots in zip(places.T, curve.T, strict=True))
        distance = np.sqrt(np.min(squares, axis=1))
        ink = np.maximum(ink, np.clip(rng.uniform(0.5, 0.8 + min(coarse) / 16) + 0.5 - distance, 0, 1))
    drawn = ink.reshape(coarse)
    for axis, size in enumerate(sizes):
        drawn = _stretched(drawn, axis, size)
    drawn = drawn if rng.random() < 0.5 else 1 - drawn
    return np.broadcast_to(drawn, (channels, *sizes))


def _textured(rng: np.random.Generator, channels: int, sizes: Sequence[int]) -> Array:
    """A texture all over, of its own in every channel."""
    cutoff = np.exp(rng.uniform(*np.log(CUTOFFS)))
    textured: Array = 0.5 + 0.25 * fields(rng, channels, sizes, cutoff)
    return textured


KINDS = (_mirrored, _written, _textured)


def patches(rng: np.random.Generator, channels: int, sizes: Sequence[int]) -> Array:
    """Textured patches around 1 on a ground of 0, ``channels x *sizes``.

    Grain, contrast, tint, how alike the channels are and how much is ground differ from sample to sample.
    """
    finest = CUTOFFS[1] if len(sizes) > 1 else max(CUTOFFS[1], sizes[0] / RECORDED)
    cutoff = np.exp(rng.uniform(np.log(CUTOFFS[0]), np.log(finest)))
    alike = rng.uniform(0.5, 1.0) if channels > 1 else 1.0
    texture = alike * field(rng, sizes, cutoff)
    if channels > 1:
        ground = fields(rng, channels, sizes, cutoff)
        texture = texture + np.sqrt(1 - alike**2) * ground
        texture = texture + TINT * rng.standard_normal((channels, *(1 for _ in sizes)))
    border = SHARPNESS * (field(rng, sizes, PATCHES) + rng.uniform(-PATCHES, PATCHES))
    inside = 1 / (1 + np.exp(-np.clip(border, -50, 50)))
    textured: Array = inside * (1 + rng.uniform(*CONTRAST) * texture)
    return np.broadcast_to(textured, (channels, *sizes)) if channels > 1 else textured.reshape(1, *sizes)
