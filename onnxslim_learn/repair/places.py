"""Random places of a tensor of the original, and where those that are left lie in a slimmed model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array, Labels, Mask
from onnxslim_learn.errors import PlanError
from onnxslim_learn.rewrite.mask import kept_parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.coupling.relations import Parts, Value
    from onnxslim_learn.coupling.removal import Removal

Picks = tuple[Array, ...]  # one index array per axis of a tensor but the channels, or one over all of them

Lost = Mapping[int, tuple[Array, "Parts"]]
"""Axes, but the channels', along which positions go, and which stay (``onnxslim_learn.rewrite.mask.kept_parts``)."""


@dataclass(frozen=True)
class Places:
    """What a tensor holds at some places.

    Attributes:
        values: Its numbers there, ``(m, channels)``.
        picks: Where.
        axes: Its axes but the channels'.
        shape: Their sizes.
    """

    values: Array
    picks: Picks
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def rows(self, flat: bool) -> int:
        """How many rows the tensor has: along all these axes, or along the first alone."""
        return math.prod(self.shape if flat else self.shape[:1])

    def left(self, lost: Lost) -> Places:
        """The places that are left where positions go, as they lie among what is left.

        Raises:
            PlanError: If none is.
        """
        if not lost:
            return self
        axes = zip(self.axes, self.shape, strict=True)
        masks = [_laid(*lost[axis], size) if axis in lost else np.ones(size, bool) for axis, size in axes]
        flat = len(self.picks) < len(self.shape)
        where = np.unravel_index(self.picks[0], self.shape) if flat else self.picks
        stays = np.logical_and.reduce([mask[place] for mask, place in zip(masks, where, strict=True)])
        if not stays.any():
            raise PlanError("of its rows none that was looked at is left")
        ranks = tuple((np.cumsum(mask) - 1)[place[stays]] for mask, place in zip(masks, where, strict=True))
        sizes = tuple(int(mask.sum()) for mask in masks)
        picks = (np.ravel_multi_index(ranks, sizes),) if flat else ranks
        return Places(self.values[stays], picks, self.axes, sizes)


def sample(target: Array, channel: int, seed: Iterable[int], count: int, counted: Mask | None = None) -> Places:
    """Random places of a tensor, always the same ones for one seed and size; about ``count`` of them.

    Where the channels are the last axis (``channel`` is -1), the others count as one. Where not all places count,
    ``counted`` tells, which has a size of one along the channels.
    """
    axes = tuple(axis for axis in range(target.ndim) if axis != channel % target.ndim)
    shape = tuple(target.shape[axis] for axis in axes)
    if not axes:  # a model without an axis of samples: its one row, whatever axes it lies along
        return Places(target.reshape(1, -1).astype(np.float32), (np.zeros(1, np.int64),), axes, shape)
    total = math.prod(shape)
    rng = np.random.default_rng((*seed, total))
    flat = drawn(rng, total, count, None if counted is None else _spread(counted, channel, shape))
    if channel == -1:
        return Places(target.reshape(-1, target.shape[-1])[flat].astype(np.float32, copy=False), (flat,), axes, shape)
    picks = np.unravel_index(flat, shape)
    picked = np.moveaxis(target, channel, -1)[picks]  # a copy
    return Places(picked.astype(np.float32, copy=False), picks, axes, shape)


def drawn(rng: np.random.Generator, total: int, most: int, counted: Mask | None = None) -> Labels:
    """Places in order, all of them or as many at random; where not all count, of those that do."""
    if counted is not None:
        places = np.flatnonzero(counted)
        return places if len(places) <= most else np.sort(rng.choice(places, most, replace=False))
    return np.arange(total) if total <= most else np.sort(rng.choice(total, most, replace=False))


def _spread(counted: Mask, channel: int, shape: tuple[int, ...]) -> Mask:
    """Whether places count, for all axes but the channels'."""
    return np.broadcast_to(np.squeeze(counted, axis=channel), shape)


def lost(removal: Removal, name: str, layout: Value, channel: int) -> Lost:
    """Along which axes of a value positions go that are no channels.

    Raises:
        PlanError: If it depends on other axes which.
    """
    varying, cut = removal.coupling.graph.shapes.varying(name), {}
    for axis in set(range(len(layout.axes))) - {channel % len(layout.axes)}:
        keep, spoken = kept_parts(layout, [axis], removal, varying)
        if keep.all():
            continue
        if spoken.axes != {axis}:
            raise PlanError("of its rows others go in every place")
        cut[axis] = keep, spoken
    return cut


def _laid(keep: Array, spoken: Parts, size: int) -> Array:
    """Which positions of an axis stay, where a part of it may be as long as the tensor at hand says."""
    axis = spoken.parts[0].axis
    open_part = size // spoken.fixed(axis)
    sizes = [open_part if opened else part.size for part, opened in zip(spoken.parts, spoken.open_parts(), strict=True)]
    laid: Array = np.broadcast_to(keep, sizes).reshape(-1)
    if len(laid) != size:
        raise PlanError("its rows cannot be told apart")
    return laid
