"""Refit the weights of one linear node to what the original node put out.

All of it is one regression with few candidates, and held-back rows decide between them: the plain weights, a shifted
bias, rescaled rows (both need only means and deviations), and ridge regressions towards the plain weights. So a layer
is never worse on held-back rows than without repair, and the amount of data decides by itself what is safe.

Rows come in portions and are summed up into moments; they are kept only where an activation bends what is compared.

Sources: least squares of the consumer's kept inputs, He et al. 2017 (arXiv:1707.06168); against the drifted inputs,
with the activation in the loss, Zhang et al. 2015 (arXiv:1505.06798); mean shift, Nagel et al. 2019 (arXiv:1906.04721);
rescaling, Jordan et al. 2022 (arXiv:2211.08403).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from onnxslim_learn.array_types import Array
from onnxslim_learn.repair.activations import LINEAR, Activation, moved

ENOUGH = 16  # samples; with fewer, only means and deviations are matched
GAIN = 1e-3  # a candidate must beat the one before by this share of its error
SMALLEST, LARGEST = 0.5, 2.0  # rescaling stays within
STRIP = 64  # rows of sums of products that are made covariances at once, which caches hold


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
        ridges: Ridges tried, ascending: from the middle on as long as one does better, times the mean square of an
            input.
        resolves: Alternations between targets that move and weights.
        moments: Whether outputs may be shifted and rescaled to the mean and deviation of the original's, which holds
            for inputs of the same kind only: on made-up ones it did harm on each of nine nets.
    """

    ridges: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    resolves: int = 5
    moments: bool = True


FULL, QUICK = Effort(), Effort((1e-3,), 1)


@dataclass(frozen=True)
class Rows:
    """Rows of a regression, in ``g`` independent groups.

    Attributes:
        inputs: ``(g, m, d)``: what the slimmed node sees.
        targets: ``(g, m, o)``: what the original put out there.
        offsets: ``(g, m, o)``: what is added to the slimmed node's output before it is compared, or ``None``.
    """

    inputs: Array
    targets: Array
    offsets: Array | None = None

    @property
    def size(self) -> int:
        """How many numbers."""
        return self.inputs.size + self.targets.size

    @classmethod
    def joined(cls, several: Sequence[Rows]) -> Rows:
        """Rows one after the other."""
        inputs, targets, offsets = zip(*((one.inputs, one.targets, one.offsets) for one in several), strict=True)
        return cls(_joined(inputs), _joined(targets), _joined(offsets))  # type: ignore[arg-type]

    def part(self, start: int, stop: int) -> Rows:
        """The rows from one number up to another."""
        parts = (self.inputs, self.targets, self.offsets)
        return Rows(*(None if part is None else part[:, start:stop] for part in parts))  # type: ignore[arg-type]


def regrouped(portions: Iterable[Rows], numbers: int) -> Iterator[Rows]:
    """Rows in portions of about so many numbers, or as many rows as unknowns: products of fewer take as long."""
    waiting, count = list[Rows](), 0
    for rows in portions:
        _, there, unknowns = rows.inputs.shape
        step = max(numbers * there // rows.size, unknowns)
        for start in range(0, there, step):
            waiting.append(rows.part(start, start + step))
            count += waiting[-1].inputs.shape[1]
            if count >= step // 2:
                yield Rows.joined(waiting)
                waiting, count = [], 0
    if waiting:
        yield Rows.joined(waiting)


def _joined(parts: Sequence[Array | None]) -> Array | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=1) if len(known) > 1 else parts[0]


@dataclass(frozen=True)
class Weights:
    """Weights of a linear node as matrices: ``matrix (g, d, o)``, ``bias (g, o)``."""

    matrix: Array
    bias: Array


class Mean:
    """Means ``(g, n)`` of rows ``(g, m, n)`` that come in portions, summed around the first's mean."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.count = 0
        self.middle: Array | None = None
        self._sums: Array | float = 0.0

    def add(self, rows: Array) -> Array:
        """Count a portion in; returns it less what is summed around."""
        if self.middle is None:
            self.middle = rows.mean(axis=1, keepdims=True)
        apart: Array = rows - self.middle
        self.count += rows.shape[1]
        self._sums = self._sums + apart.sum(axis=1).astype(np.float64)
        return apart

    @property
    def shift(self) -> Array:
        """The mean less what is summed around."""
        return np.asarray(self._sums / self.count)

    @property
    def mean(self) -> Array:
        """Means."""
        assert self.middle is not None
        mean: Array = self.middle[:, 0, :] + self.shift
        return mean


class Spread(Mean):
    """Means and variances likewise."""

    _squares: Array | float = 0.0

    def add(self, rows: Array) -> Array:
        """See :meth:`Mean.add`."""
        apart = super().add(rows)
        self._squares = self._squares + np.einsum("gmn,gmn->gn", apart, apart)
        return apart

    @property
    def variance(self) -> Array:
        """Variances."""
        return np.maximum(self._squares / self.count - self.shift**2, 0.0)


@dataclass(frozen=True)
class _Bent:
    """Rows before an activation: inputs less what they are summed around, targets before and after it, offsets."""

    inputs: Array
    targets: Array
    after: Array
    offsets: Array | None


class Sample:
    """What a sample of rows says: moments, and the rows themselves only where an activation follows.

    What plain weights leave to be explained, ``missed``, is what moments are about. The error of any others follows
    from them where nothing bends the output, and is exactly zero where plain weights are.

    Attributes:
        plain: The weights as they are.
        activation: What follows the node.
        inputs: Means of inputs.
        missed: Means and variances of what is wanted and not reached.
        gram: ``(g, d, d)``: covariances of inputs.
        cross: ``(g, d, o)``: covariances of inputs and what is missed.
        scale: Variance of all targets after the activation, where it is for judging.
    """

    def __init__(
        self,
        portions: Iterable[Rows],
        plain: Weights,
        activation: Activation = LINEAR,
        kind: type[np.floating[Any]] = np.float64,
        *,
        judging: bool = False,
    ) -> None:
        """Sum portions of rows up; products of inputs are then held as numbers of some kind.

        What is only for ``judging`` knows errors, and no more.
        """
        self.plain, self.activation = plain, activation
        self.inputs, self.missed, targets = Mean(), Spread(), Spread()
        self._rows: list[_Bent] = []
        bent = activation != LINEAR
        summed = not (judging and bent)  # errors of bent outputs are told by rows
        shapes = [(len(plain.matrix), plain.matrix.shape[1], n) for n in plain.matrix.shape[1:]]
        gram, cross = (np.zeros(shape if summed else (len(plain.matrix), 0, 0)) for shape in shapes)
        for rows in portions:
            apart, after = self.inputs.add(rows.inputs), activation(rows.targets)
            if judging:
                targets.add(after.reshape(1, -1, 1))
            if summed:
                missed = self._missed(rows)
                self.missed.add(missed)
                gram += apart.transpose(0, 2, 1) @ apart
                cross += apart.transpose(0, 2, 1) @ missed
            if bent:
                self._rows.append(_Bent(apart, rows.targets, after, rows.offsets))
        self.scale = max(float(targets.variance.item()), 1e-30) if judging else math.nan
        count, shift = self.inputs.count, self.inputs.shift
        self.gram = (_less(gram, shift, shift, count) if summed else gram).astype(kind, copy=False)
        self.cross = (_less(cross, shift, self.missed.mean, count) if summed else cross).astype(kind, copy=False)

    def _missed(self, rows: Rows) -> Array:
        """What plain weights leave to be explained."""
        missed: Array = rows.inputs @ self.plain.matrix
        missed += self.plain.bias[:, None, :].astype(missed.dtype)
        if rows.offsets is not None:
            missed += rows.offsets
        return np.subtract(rows.targets, missed, out=missed)

    def _reached(self, rows: _Bent, weights: Weights) -> Array:
        """What the comparison sees under some weights, before the activation."""
        assert self.inputs.middle is not None
        reached: Array = rows.inputs @ weights.matrix
        reached += (self.inputs.middle @ weights.matrix + weights.bias[:, None, :]).astype(reached.dtype)
        if rows.offsets is not None:
            reached += rows.offsets
        return reached

    def error(self, weights: Weights) -> float:
        """Mean squared difference from the targets, after the activation."""
        if self._rows:
            squares = 0.0
            for rows in self._rows:
                apart = self.activation(self._reached(rows, weights))
                apart -= rows.after
                squares += float(np.vdot(apart, apart))
            return squares / (self.inputs.count * self.plain.bias.size)
        left, middle = self.missed.variance, self.missed.mean - (weights.bias - self.plain.bias)
        if weights.matrix is not self.plain.matrix:
            change = weights.matrix - self.plain.matrix
            left = left - np.einsum("gdo,gdo->go", change, 2 * self.cross - self.gram @ change)
            middle = middle - np.einsum("gd,gdo->go", self.inputs.mean, change)
        return float(np.mean(np.maximum(left, 0.0) + middle**2))

    def freed(self, weights: Weights) -> tuple[Array, Array]:
        """Like ``cross`` and the means of ``missed``, with targets that move where the activation is flat."""
        cross, sums = np.zeros_like(self.cross), np.zeros_like(self.missed.mean)
        for rows in self._rows:
            change = moved(self.activation, rows.targets, rows.after, self._reached(rows, weights))
            cross += rows.inputs.transpose(0, 2, 1) @ change
            sums += change.sum(axis=1)
        mean = sums / self.inputs.count
        return self.cross + _less(cross, self.inputs.shift, mean, self.inputs.count), self.missed.mean + mean


def _less(sums: Array, left: Array, right: Array, count: int) -> Array:
    """Sums of products as covariances, in place: means of the products less the products of means ``(g, n)``."""
    for start in range(0, sums.shape[1], STRIP):
        strip = slice(start, start + STRIP)
        sums[:, strip] /= count
        sums[:, strip] -= left[:, strip, None] * right[:, None, :]
    return sums


@dataclass(frozen=True)
class FitSetting:
    """The circumstances of a fit.

    Attributes:
        samples: How many samples the rows come from; under :data:`ENOUGH` no least squares.
        biased: Whether the node has a place for a bias.
        activation: What follows the node.
        effort: How hard to try.
    """

    samples: int
    biased: bool = True
    activation: Activation = LINEAR
    effort: Effort = FULL


@dataclass(frozen=True)
class Fit:
    """The outcome for one node.

    Attributes:
        weights: The chosen weights.
        method: ``plain``, ``shift``, ``rescale`` or ``least squares``.
        before: Mean squared error of the plain weights on held-back rows, as a share of the targets' variance.
        after: The same of the chosen ones.
    """

    weights: Weights
    method: str
    before: float
    after: float


def fit(rows: Iterable[Rows], held: Iterable[Rows], plain: Weights, setting: FitSetting) -> Fit:
    """Choose the weights that do best on held-back rows.

    Args:
        rows: Rows to fit on, in portions, each of which is gone through once.
        held: Rows to decide on, likewise.
        plain: The weights as they were cut.
        setting: The circumstances.
    """
    fitted = Sample(rows, plain, setting.activation)
    judge = Sample(held, plain, setting.activation, np.float32, judging=True)
    before = judge.error(plain)
    best = ("plain", plain, before)
    for candidate in _candidates(fitted, judge, setting):
        if candidate[2] < best[2] * (1 - GAIN):
            best = candidate
    return Fit(best[1], best[0], before / judge.scale, best[2] / judge.scale)


def _candidates(fitted: Sample, judge: Sample, setting: FitSetting) -> Iterator[tuple[str, Weights, float]]:
    """Other weights than the plain ones, by method, with their error on held-back rows."""
    if setting.biased and (setting.effort.moments or setting.samples < ENOUGH):
        for name, weights in (("shift", _shift(fitted)), ("rescale", _rescale(fitted))):
            yield name, weights, judge.error(weights)
    if setting.samples >= ENOUGH:
        for weights, error in _least_squares(fitted, judge, setting):
            yield "least squares", weights, error


def _shift(fitted: Sample) -> Weights:
    return Weights(fitted.plain.matrix, fitted.plain.bias + fitted.missed.mean)


def _rescale(fitted: Sample) -> Weights:
    """Outputs of the mean and the deviation that are wanted; what is wanted is what is reached and what is missed."""
    matrix = fitted.plain.matrix
    reached = np.einsum("gdo,gdo->go", matrix, fitted.gram.astype(matrix.dtype) @ matrix)
    wanted = reached + fitted.missed.variance + 2 * np.einsum("gdo,gdo->go", matrix, fitted.cross)
    ratio = np.sqrt(np.maximum(wanted, 0.0)) / np.maximum(np.sqrt(np.maximum(reached, 0.0)), 1e-12)
    ratio = np.clip(ratio, SMALLEST, LARGEST).astype(matrix.dtype)
    middle = np.einsum("gd,gdo->go", fitted.inputs.mean, matrix)
    return Weights(matrix * ratio[:, None, :], fitted.plain.bias + fitted.missed.mean + (1 - ratio) * middle)


def _least_squares(fitted: Sample, judge: Sample, setting: FitSetting) -> Iterator[tuple[Weights, float]]:
    """The best ridge regression, and its refinements where the activation forgives errors, with their errors."""
    problem, effort = Problem(fitted, biased=setting.biased), setting.effort
    invert, chosen, least, best = None, fitted.plain, math.inf, math.inf
    determined = fitted.inputs.count > fitted.gram.shape[1]  # with fewer rows, the least ridges amplify rounding
    middle = len(effort.ridges) // 2
    for ridges in (effort.ridges[middle::-1], effort.ridges[middle + 1 :]):  # what they cost has one minimum
        for ridge in ridges:
            tried = problem.inverse(ridge)
            weights = problem.solve(tried)
            error = judge.error(weights)
            if error > least * (1 + GAIN) and determined:
                break
            if error < least:
                invert, chosen, least, best = tried, weights, error, ridge
        if determined and best < effort.ridges[middle]:
            break
    yield chosen, least
    if setting.activation != LINEAR and invert is not None:
        for _ in range(effort.resolves):
            chosen = problem.solve(invert, fitted.freed(chosen))
            error = judge.error(chosen)
            yield chosen, error
            if error > least * (1 - GAIN):
                break  # each is nearer to the last than the one before
            least = error


class Problem:
    """Normal equations of a ridge regression towards given weights, for several ridges and targets.

    Attributes:
        gram: ``(g, d, d)``: mean products of inputs, centred if there is a bias to fit.
    """

    def __init__(self, fitted: Sample, *, biased: bool) -> None:
        """Set up the normal equations."""
        self._fitted, self._biased, means = fitted, biased, fitted.inputs.mean
        self.gram = fitted.gram if biased else fitted.gram + means[:, :, None] * means[:, None, :]

    def inverse(self, ridge: float) -> Callable[[Array], Array]:
        """How to solve for right-hand sides ``(g, d, o)`` under a ridge, times the mean square of an input."""
        system, size = self.gram.copy(), self.gram.shape[1]
        level = np.maximum(np.trace(system, axis1=1, axis2=2) / size, 1e-30)
        system[:, range(size), range(size)] += ridge * level[:, None]
        if len(system) == 1:
            factor = scipy.linalg.cho_factor(system[0].T, overwrite_a=True, check_finite=False)
            return lambda right: scipy.linalg.cho_solve(factor, right[0], check_finite=False)[None]
        inverse = np.linalg.inv(system)
        return lambda right: inverse @ right

    def solve(self, invert: Callable[[Array], Array], missed: tuple[Array, Array] | None = None) -> Weights:
        """The weights, by default those for the targets as they are; see :meth:`Sample.freed`."""
        fitted = self._fitted
        cross, means = missed or (fitted.cross, fitted.missed.mean)
        if not self._biased:
            cross = cross + fitted.inputs.mean[:, :, None] * means[:, None, :]
        matrix = (fitted.plain.matrix + invert(cross)).astype(np.float32)
        return self.with_bias(matrix, means)

    def with_bias(self, matrix: Array, missed: Array | None = None) -> Weights:
        """Weights with the bias that fits them best, if there is one to fit."""
        fitted = self._fitted
        if not self._biased:
            return Weights(matrix, fitted.plain.bias)
        means = fitted.missed.mean if missed is None else missed
        change = matrix - fitted.plain.matrix
        return Weights(matrix, fitted.plain.bias + means - np.einsum("gd,gdo->go", fitted.inputs.mean, change))
