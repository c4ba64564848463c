"""Smooth random fields: noise whose neighbours are alike, as in images and recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

MARGIN = 1.5  # fields made by Fourier transforms are periodic: make them larger and cut a part out
STEEPNESS = 1.5  # how fast amplitudes fall beyond the cut-off; images lie between 1 and 2
CUTOFFS = (0.7, 5.0)  # periods across a field, between which its cut-off is drawn
ENVELOPE = 0.7  # periods across a field of what swells and fades


def field(rng: np.random.Generator, sizes: Sequence[int], cutoff: float) -> Array:
    """A field of zero mean and unit variance.

    Args:
        rng: Random numbers.
        sizes: Its shape.
        cutoff: Periods across the field up to which all waves are equally strong.
    """
    wide = [int(np.ceil(MARGIN * n)) if n > 1 else 1 for n in sizes]
    waves = [np.fft.fftfreq(n) * n / MARGIN for n in wide]
    distance = np.sqrt(sum(np.square(w) for w in np.meshgrid(*waves, indexing="ij", sparse=True)))
    gain = (1 + np.square(distance / cutoff)) ** (-STEEPNESS)
    noise = np.fft.ifftn(np.fft.fftn(rng.standard_normal(wide)) * gain).real
    part = noise[tuple(slice(n) for n in sizes)]
    found: Array = (part - part.mean()) / (part.std() + 1e-12)
    return found


def channels(rng: np.random.Generator, number: int, sizes: Sequence[int]) -> Array:
    """Fields of several channels that go together, swelling and fading across the sample, ``number x *sizes``.

    Brightness, contrast, grain and how alike channels are differ from sample to sample. Values lie around 0, most of
    them between -1 and 1.
    """
    cutoff = np.exp(rng.uniform(*np.log(CUTOFFS)))
    alike = rng.uniform(0.5, 1.0)
    shared = field(rng, sizes, cutoff)
    own = np.stack([field(rng, sizes, cutoff) for _ in range(number)])
    mixed = alike * shared + np.sqrt(1 - alike**2) * own
    envelope = 1 / (1 + np.exp(-2 * field(rng, sizes, ENVELOPE)))
    found: Array = rng.uniform(-0.5, 0.5) + rng.uniform(0.4, 1.2) * envelope * mixed
    return found
