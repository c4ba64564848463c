"""Which weights go together, and which of them go: masks of an exact number of zeros from scores."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.sparse.maskable import Layer


FREE, UNITS = "unstructured", "units"


@dataclass(frozen=True)
class Pattern:
    """Where zeros may be.

    Attributes:
        name: As it was asked for.
        kind: ``free``: anywhere. ``n:m``: of every ``m`` consecutive input channels, at one output and one place of
            the kernel, at most ``n`` weights stay (the order of sparse tensor cores). ``block``: tiles of ``n`` output
            by ``m`` input channels. ``units``: whole output channels.
        n: See there.
        m: See there.
    """

    name: str = FREE
    kind: str = "free"
    n: int = 1
    m: int = 1

    @property
    def ratio(self) -> float | None:
        """The share that goes, where the pattern fixes it."""
        return 1 - self.n / self.m if self.kind == "n:m" else None


def parse(text: str) -> Pattern:
    """Read ``unstructured``, ``2:4``, ``4x1`` or ``units``.

    Raises:
        InputError: If it is none of these.
    """
    if text in (FREE, UNITS):
        return Pattern(text, "free" if text == FREE else text)
    match = re.fullmatch(r"([1-9]\d{0,3})([:x])([1-9]\d{0,3})", text)
    if not match or (match[2] == ":" and not int(match[1]) < int(match[3])):
        raise InputError(f"⟨pattern⟩ {text}: expected {FREE}, N:M as in 2:4, RxC as in 4x1 (a block), or {UNITS}.")
    return Pattern(text, "n:m" if match[2] == ":" else "block", int(match[1]), int(match[3]))


def smallest(scores: Array, count: int) -> Array:
    """Flat indices of the smallest scores; of equal ones the first go."""
    return np.argsort(scores.reshape(-1), kind="stable")[:count]


def keep(scores: Array, ratio: float, pattern: Pattern, layer: Layer) -> Array:
    """The mask of a weight, true where it stays.

    Args:
        scores: What is lost with every weight, of the layer's shape, at least 0.
        ratio: Share of the weights (of blocks, of units) that goes, rounded to a whole number of them. For ``n:m``
            a share below the pattern's own masks only the worst of what the pattern would.
        pattern: Where zeros may be.
        layer: Which axes are channels.
    """
    if pattern.kind == "n:m":
        return _n_of_m(scores, ratio, pattern, layer)
    parts = parts_of(pattern, layer)
    totals = np.bincount(parts.reshape(-1), np.asarray(scores, np.float64).reshape(-1))
    gone = np.zeros(len(totals), bool)
    gone[smallest(totals, round(ratio * len(totals)))] = True
    return ~gone[parts]


def parts_of(pattern: Pattern, layer: Layer) -> Array:
    """The number of the part that every weight belongs to, ``(*shape)``; parts go or stay whole."""
    places = np.indices(layer.shape, sparse=True)
    if pattern.kind == "free":
        return np.arange(layer.size).reshape(layer.shape)
    if pattern.kind == "block":
        steps = {**dict.fromkeys(layer.inputs, pattern.m), **dict.fromkeys(layer.outputs, pattern.n)}
        keys = [place // steps.get(a, 1) for a, place in enumerate(places)]
    elif not layer.outputs:
        return np.zeros(layer.shape, int)
    else:
        keys = [places[a] for a in layer.outputs]
    counts = [int(k.max()) + 1 for k in keys]
    return np.ravel_multi_index(np.broadcast_arrays(*keys, np.zeros(layer.shape, int))[:-1], counts)


def groups_of(pattern: Pattern, layer: Layer) -> Array:
    """Flat indices of the weights in every group of ``n:m``, ``(groups, m)``; channels that fill no group are left out.

    A layer with fewer than ``m`` input channels has no groups and stays dense, and so does one that nodes read along
    different axes.
    """
    if not layer.alike:
        return np.zeros((0, pattern.m), int)
    order = [a for a in range(len(layer.shape)) if a not in layer.inputs] + list(layer.inputs)
    width = math.prod(layer.shape[a] for a in layer.inputs) // layer.blocks
    rows = np.arange(layer.size).reshape(layer.shape).transpose(order).reshape(-1, width)
    return rows[:, : width // pattern.m * pattern.m].reshape(-1, pattern.m)


def _n_of_m(scores: Array, ratio: float, pattern: Pattern, layer: Layer) -> Array:
    groups = groups_of(pattern, layer)
    order = np.argsort(scores.reshape(-1)[groups], axis=1, kind="stable")
    able = np.take_along_axis(groups, order, axis=1)[:, : pattern.m - pattern.n].reshape(-1)
    assert pattern.ratio is not None
    share = min(ratio / pattern.ratio, 1.0)
    able = np.sort(able)
    gone = able[smallest(scores.reshape(-1)[able], round(share * len(able)))]
    keep = np.ones(layer.size, bool)
    keep[gone] = False
    return keep.reshape(layer.shape)


def holds(array: Array, pattern: Pattern, layer: Layer) -> bool:
    """Whether the zeros of a weight are where the pattern allows, and, for ``n:m``, as many as it demands."""
    zero = np.asarray(array) == 0
    if pattern.kind == "n:m":
        counts = zero.reshape(-1)[groups_of(pattern, layer)].sum(axis=1)
        return bool((counts >= pattern.m - pattern.n).all())
    parts = parts_of(pattern, layer).reshape(-1)
    share = np.bincount(parts, zero.reshape(-1)) / np.bincount(parts)
    return bool(np.isin(share, (0.0, 1.0)).all())


def sparsity(arrays: Sequence[Array]) -> float:
    """Share of zeros in several arrays."""
    return sum(int((a == 0).sum()) for a in arrays) / max(sum(a.size for a in arrays), 1)
