"""What samples say about the inputs of every contraction that multiplies weights: means and products of its units.

A unit that a kernel reads is there once for each of its taps: what neighbours of a place can take over is less, and
other, than what the others at the same place seem to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from onnxslim_learn.array_types import Array, Mask
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.relations import Value, parts
from onnxslim_learn.repair.linear_forms import Form, form_of
from onnxslim_learn.repair.places import drawn
from onnxslim_learn.runtime.executor import streamed
from onnxslim_learn.runtime.left_out import left_out
from onnxslim_learn.select.weight_slices import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxslim_learn.coupling.records import Contraction
    from onnxslim_learn.coupling.solver import Coupling


ROWS = 32768  # places per contraction that count, drawn by chance where there are more
AMPLE = 4  # rows for a unit: beside as many, made-up ones do harm
RIDGE = 1e-3  # of the mean square: keeps the inverse of the products tame
LARGEST = 1e15  # of an activation: squares of more add up beyond single precision
WIDEST = 8192  # positions of a unit axis up to which products of pairs are kept
TAPPED = 1152  # positions up to which taps of a kernel are told apart


@dataclass(frozen=True)
class Inputs:
    """The inputs of one contraction, one entry per position of its labelled summed digits.

    Attributes:
        classes: ``(c,)``: class of each position, -1 if it can never go; once for each tap told apart.
        mean: ``(c,)``: mean over samples and places.
        products: ``(c, c)``: mean products of pairs, or ``(c,)``: mean squares, where pairs were not asked for.
        weights: ``(c, n)``: what a position is multiplied by.
        output: Name of what the contraction puts out.
    """

    classes: Array
    mean: Array
    products: Array
    weights: Array
    output: str

    @property
    def squares(self) -> Array:
        """Mean squares ``(c,)``."""
        return self.products if self.products.ndim == 1 else np.diagonal(self.products)

    @property
    def factor(self) -> Array:
        """``(c, m)`` with the products of pairs that ``weights`` have, and no more columns than rows."""
        return self.weights.astype(np.float64) if self.weights.shape[1] <= len(self.weights) else self._lower

    @cached_property
    def _lower(self) -> Array:
        weights = self.weights.T.astype(np.float64)
        upper: Array = scipy.linalg.qr(weights, mode="r", overwrite_a=True, check_finite=False)[0]
        return upper[: len(self.weights)].T

    @property
    def variance(self) -> Array:
        """Variances ``(c,)``."""
        result: Array = np.maximum(self.squares - self.mean**2, 0)
        return result


def inverse_covariance(inputs: Inputs) -> Array:
    """The inverse of the covariance of a contraction's inputs with a ridge, ``(c, c)``; of squares alone ``(c,)``."""
    if inputs.products.ndim == 1:
        return 1 / (inputs.variance + RIDGE * max(float(inputs.variance.mean()), 1e-12))
    products = inputs.products.astype(np.float64) - np.outer(inputs.mean, inputs.mean)
    size = len(products)
    ridge = RIDGE * max(float(np.trace(products)) / size, 1e-12)
    products[range(size), range(size)] += ridge
    factor, failed = scipy.linalg.lapack.dpotrf(products, lower=True)
    if failed:  # what single precision left has a negative eigenvalue below the ridge
        inverse: Array = scipy.linalg.inv(products, check_finite=False)
        return inverse
    lower = scipy.linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)[0]  # what is above is zero
    inverse = lower + lower.T
    inverse[range(size), range(size)] /= 2
    return inverse


def collect(
    coupling: Coupling,
    feeds: Sequence[Mapping[str, Array]],
    *,
    beside: Sequence[Mapping[str, Array]] = (),
    pairs: bool = False,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Inputs]:
    """Run a model and gather its contractions' inputs.

    Args:
        coupling: The model.
        feeds: Inputs by name, a mapping per batch.
        beside: Others, for contractions that see too few of these (:data:`AMPLE`).
        pairs: Whether to keep products of pairs.
        seed: Which places of large activations count.
        progress: Called with the share done.
    """
    wanted = _with_weights(coupling, taps=pairs)
    seen = [one for one, _, _ in wanted]
    sizes = {one: len(classes) for one, classes, _ in wanted}
    sums = {one: _Sums(size, pairs=pairs and size <= WIDEST) for one, size in sizes.items()}
    inside: dict[str, list[tuple[int, _Seen]]] = {}
    for number, one in enumerate(sums):
        inside.setdefault(one.name, []).append((number, one))
    real, every = len(feeds), [*feeds, *beside]
    missing = left_out(coupling.graph.model, every, list(inside))
    for batch, values in streamed(coupling.graph.model, every, list(inside)):
        progress(batch / len(every))
        portions = real if batch < real else len(beside)
        for name, array in values.items():
            for number, one in inside[name]:
                if batch < real or sums[one].count < AMPLE * sizes[one] // one.taps:
                    rng = np.random.default_rng((seed, number, batch))
                    counted = missing.rows(name, batch, array.shape)
                    sums[one].add(one.rows(array, portions, rng, counted))
    moments = {one: one.by_taps(*total.means()) for one, total in sums.items()}
    ends = [str(coupling.nodes[one.contraction.node].outputs[0].name) for one in seen]
    return [
        Inputs(classes, *moments[one], weights, end) for end, (one, classes, weights) in zip(ends, wanted, strict=True)
    ]


@dataclass(frozen=True)
class _Seen:
    """What a contraction sees: a value, along some axes. Those that see the same have the same moments.

    Attributes:
        name: Name of the value.
        axes: Which of its axes are summed over.
        layout: Number and size of every digit of all axes, and whether it is labelled.
        window: Of a convolution whose taps are told apart, its kernel and attributes.
        contraction: One that sees it.
        form: How such a convolution reads.
    """

    name: str
    axes: tuple[int, ...]
    layout: tuple[tuple[tuple[int, int, bool], ...], ...]
    window: str
    contraction: Contraction = field(compare=False)
    form: Form | None = field(compare=False)

    @classmethod
    def of(cls, coupling: Coupling, contraction: Contraction, form: Form | None) -> _Seen:
        """What a contraction sees."""
        node = coupling.nodes[contraction.node]
        source = node.inputs[contraction.slot]
        assert source is not None
        layout = tuple(tuple((d.key, d.size, d.labels is None) for d in axis) for axis in contraction.value.axes)
        window = "" if form is None else f"{form.taps} {sorted(map(str, node.attributes.values()))}"
        return cls(str(source.name), contraction.axes, layout, window, contraction, form)

    @property
    def taps(self) -> int:
        """How often every unit is among the positions."""
        return 1 if self.form is None else self.form.taps

    def rows(self, array: Array, portions: int, rng: np.random.Generator, counted: Mask | None = None) -> Array:
        """Rows of positions at random places of one of so many portions; ``counted`` tells which, but of kernels."""
        most = -(-ROWS // portions)
        if self.form is None:
            return _rows(array, self.contraction, most, rng, counted)
        assert self.form.extent is not None
        extent = self.form.extent(array.shape)
        total = math.prod(extent)
        if not total:
            return np.zeros((0, array.shape[1] * self.taps), np.float32)
        places = drawn(rng, total, most)
        with np.errstate(over="ignore"):  # of doubles
            read = self.form.unfold(array, np.unravel_index(places, extent))[0]
        return _tame(read)

    def by_taps(self, mean: Array, products: Array) -> tuple[Array, Array]:
        """Moments of rows, which have the taps of a unit side by side, with all units of a tap side by side."""
        if self.taps == 1:
            return mean, products
        order = np.arange(len(mean)).reshape(-1, self.taps).T.reshape(-1)
        return mean[order], products[np.ix_(order, order)]


class _Sums:
    """Sums of rows, and of products of pairs or of squares, in single precision for each portion."""

    def __init__(self, size: int, *, pairs: bool) -> None:
        self.pairs, self.count, self.rows = pairs, 0, np.zeros(size)
        self.products = np.zeros((size, size), np.float32) if pairs else np.zeros(size)

    def add(self, rows: Array) -> None:
        """Count rows ``(m, c)`` in."""
        self.count += len(rows)
        self.rows += rows.sum(axis=0, dtype=np.float64)
        self.products += rows.T @ rows if self.pairs else np.square(rows).sum(axis=0, dtype=np.float64)

    def means(self) -> tuple[Array, Array]:
        """Means of rows ``(c,)``, and of products ``(c, c)`` or squares ``(c,)``."""
        count = max(self.count, 1)  # no sample may reach an expert
        self.products /= count
        return (self.rows / count).astype(np.float32), self.products.astype(np.float32, copy=False)


def _with_weights(coupling: Coupling, *, taps: bool) -> list[tuple[_Seen, Array, Array]]:
    """What contractions of activations with weights see, with the class and the weights of every position."""
    nodes = coupling.nodes
    by_name: dict[str, list[tuple[Array, Array]]] = {}
    for part in slices(coupling, least_rank=2):
        if part.summed:
            class_of_row = np.where(part.labels > 0, coupling.strong[part.labels], -1).reshape(-1)
            by_name.setdefault(part.name, []).append((class_of_row, part.array))
    pairs = []
    for contraction in coupling.records.contractions:
        node = nodes[contraction.node]
        source = node.inputs[contraction.slot]
        assert source is not None
        others = [str(v.name) for k, v in enumerate(node.inputs) if v is not None and k != contraction.slot]
        rows = [entry for name in others for entry in by_name.get(name, ())]
        classes = _classes(coupling, contraction.value, contraction.axes)
        if source.is_initializer() or not rows or classes is None:
            continue
        weights, form = _lookup(classes, rows), _tapped(coupling, contraction, len(classes)) if taps else None
        if form is not None:
            of_taps = weights.reshape(len(classes), -1, form.taps).transpose(2, 0, 1)
            classes, weights = np.tile(classes, form.taps), of_taps.reshape(-1, of_taps.shape[2])
        pairs.append((_Seen.of(coupling, contraction, form), classes, weights))
    return pairs


def _tapped(coupling: Coupling, contraction: Contraction, units: int) -> Form | None:
    """How a convolution reads whose taps can be told apart: it reads all units, by a kernel that is not too large."""
    node = coupling.nodes[contraction.node]
    kind = roles.convolution(node)
    weight = None if kind is None else node.inputs[kind.weight]
    if contraction.slot or weight is None or weight.const_value is None:
        return None
    form = form_of(node)
    if isinstance(form, str) or form.extent is None or form.groups > 1 or form.taps == 1:
        return None
    return form if weight.const_value.shape[1] == units and units * form.taps <= TAPPED else None


def _classes(coupling: Coupling, value: Value, axes: tuple[int, ...]) -> Array | None:
    """Class of every position of the labelled digits of some axes, or ``None`` where other axes have a say."""
    digits = [d for axis in axes for d in value.axes[axis] if d.labels is not None]
    keys = [d.key for d in digits]
    if any(k not in keys for d in digits for k in d.deps):
        return None
    finest = digits[-1]
    if [*finest.deps, finest.key] != keys or finest.labels is None:
        return None
    result: Array = np.where(finest.labels > 0, coupling.strong[finest.labels], -1).reshape(-1)
    return result


def _lookup(classes: Array, rows: Sequence[tuple[Array, Array]]) -> Array:
    """Rows of weights by class, side by side; zero where a class has none."""
    parts = []
    for class_of_row, array in rows:
        order = np.argsort(class_of_row, kind="stable")
        place = np.searchsorted(class_of_row[order], classes)
        place = np.minimum(place, len(class_of_row) - 1)
        hit = class_of_row[order][place] == classes
        parts.append(np.where(hit[:, None], array[order][place], 0))
    return np.concatenate(parts, axis=1)


def _rows(
    array: Array, contraction: Contraction, most: int, rng: np.random.Generator, counted: Mask | None = None
) -> Array:
    """Rows of positions of an activation at so many random places; unlabelled digits of the same axes are places.

    Where not all places count, ``counted`` tells.
    """
    value, sizes, last = contraction.value, [], []
    for axis, length in enumerate(array.shape):
        if axis not in contraction.axes:
            sizes.append(length)
            continue
        labelled = {d.key for d in value.axes[axis] if d.labels is not None}
        told = parts(Value((value.axes[axis],)), labelled, [0])
        runs = sum(told.open_parts())
        for part in told.parts:
            if part.key is not None:
                last.append(len(sizes))
            sizes.append(length // told.fixed(0) if part.key is None and runs == 1 else part.size)
    first = [k for k in range(len(sizes)) if k not in last]
    split = array.reshape(sizes).transpose([*first, *last])
    places = split.shape[: len(first)]
    total = math.prod(places)
    if counted is not None:
        laid = np.broadcast_to(counted, array.shape).reshape(sizes).transpose([*first, *last])
        split = split[np.unravel_index(drawn(rng, total, most, laid.reshape(total, -1)[:, 0]), places)]
    elif total > most:
        split = split[np.unravel_index(drawn(rng, total, most), places)]
    with np.errstate(over="ignore"):  # of doubles
        rows = split.reshape(-1, math.prod(sizes[k] for k in last)).astype(np.float32, copy=False)
    return _tame(rows)


def _tame(rows: Array) -> Array:
    tame = rows.size and max(rows.max(), -rows.min()) <= LARGEST  # which NaN is not
    return rows if tame else np.clip(np.nan_to_num(rows), -LARGEST, LARGEST)
