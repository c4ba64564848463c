"""Refit the weights of one linear node to what the original node put out.

All of it is one regression with few candidates, and held-back rows decide between them: the plain weights, a shifted
bias, rescaled rows (both need only means and deviations), and ridge regressions towards the plain weights. So a layer
is never worse on held-back rows than without repair, and the amount of data decides by itself what is safe.

Sources: least squares of the consumer's kept inputs, He et al. 2017 (arXiv:1707.06168); against the drifted inputs,
with the activation in the loss, Zhang et al. 2015 (arXiv:1505.06798); mean shift, Nagel et al. 2019 (arXiv:1906.04721);
rescaling, Jordan et al. 2022 (arXiv:2211.08403).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from onnxslim_learn.array_types import Array

ENOUGH = 16  # samples; with fewer, only means and deviations are matched
GAIN = 1e-3  # a candidate must beat the one before by this share of its error
SMALLEST, LARGEST = 0.5, 2.0  # rescaling stays within


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
        ridges: Ridges tried, ascending until one does worse, times the mean square of an input.
        resolves: Alternations between clipped targets and weights.
        moments: Whether outputs may be shifted and rescaled to the mean and deviation of the original's, which holds
            for inputs of the same kind only: on made-up ones it did harm on each of nine nets.
    """

    ridges: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    resolves: int = 5
    moments: bool = True


FULL, QUICK = Effort(), Effort((1e-3,), 1)


@dataclass(frozen=True)
class Saturation:
    """An activation that is the identity between two bounds and constant outside."""

    low: float = -math.inf
    high: float = math.inf

    def __call__(self, x: Array) -> Array:
        """Apply it."""
        return x if self == LINEAR else np.clip(x, self.low, self.high)

    def free(self, target: Array, reached: Array) -> Array:
        """The targets with those that saturate replaced by what is found there already, where that saturates too."""
        target = np.where(target <= self.low, np.minimum(reached, target), target)
        return np.where(target >= self.high, np.maximum(reached, target), target)


LINEAR = Saturation()


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
    def wanted(self) -> Array:
        """What the node itself should put out."""
        return self.targets if self.offsets is None else self.targets - self.offsets

    def reached(self, weights: Weights) -> Array:
        """What the comparison sees under some weights."""
        reached: Array = self.inputs @ weights.matrix + weights.bias[:, None, :]
        return reached if self.offsets is None else reached + self.offsets

    def error(self, weights: Weights, activation: Saturation) -> float:
        """Mean squared difference after the activation."""
        return float(np.mean((activation(self.reached(weights)) - activation(self.targets)) ** 2))


@dataclass(frozen=True)
class Weights:
    """Weights of a linear node as matrices: ``matrix (g, d, o)``, ``bias (g, o)``."""

    matrix: Array
    bias: Array


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
    activation: Saturation = LINEAR
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


def fit(rows: Rows, held: Rows, plain: Weights, setting: FitSetting) -> Fit:
    """Choose the weights that do best on held-back rows.

    Args:
        rows: Rows to fit on.
        held: Rows to decide on.
        plain: The weights as they were cut.
        setting: The circumstances.
    """
    activation = setting.activation
    before = held.error(plain, activation)
    best = ("plain", plain, before)
    for candidate in _candidates(rows, held, plain, setting):
        if candidate[2] < best[2] * (1 - GAIN):
            best = candidate
    scale = max(float(np.var(activation(held.targets))), 1e-30)
    return Fit(best[1], best[0], before / scale, best[2] / scale)


def _candidates(rows: Rows, held: Rows, plain: Weights, setting: FitSetting) -> Iterator[tuple[str, Weights, float]]:
    """Other weights than the plain ones, by method, with their error on held-back rows."""
    if setting.biased and (setting.effort.moments or setting.samples < ENOUGH):
        for name, weights in (("shift", _shift(rows, plain)), ("rescale", _rescale(rows, plain))):
            yield name, weights, held.error(weights, setting.activation)
    if setting.samples >= ENOUGH:
        for weights, error in _least_squares(rows, held, plain, setting):
            yield "least squares", weights, error


def _shift(rows: Rows, plain: Weights) -> Weights:
    reached = rows.inputs @ plain.matrix
    return Weights(plain.matrix, (rows.wanted - reached).mean(axis=1))


def _rescale(rows: Rows, plain: Weights) -> Weights:
    reached, wanted = rows.inputs @ plain.matrix, rows.wanted
    ratio = wanted.std(axis=1) / np.maximum(reached.std(axis=1), 1e-12)
    ratio = np.clip(ratio, SMALLEST, LARGEST)
    return Weights(plain.matrix * ratio[:, None, :], wanted.mean(axis=1) - ratio * reached.mean(axis=1))


def _least_squares(rows: Rows, held: Rows, plain: Weights, setting: FitSetting) -> Iterator[tuple[Weights, float]]:
    """The best ridge regression, and its refinements where the activation forgives errors, with their errors."""
    problem, activation, effort = Problem.of(rows, plain, setting.biased), setting.activation, setting.effort
    products = problem.products(rows.wanted)
    factor, chosen, least = None, plain, math.inf
    determined = rows.inputs.shape[1] > rows.inputs.shape[2]  # with fewer rows, the least ridges amplify rounding
    for ridge in effort.ridges:
        tried = problem.factor(ridge)
        weights = problem.solve(tried, products)
        error = held.error(weights, activation)
        if error > least * (1 + GAIN) and determined:
            break  # ridges ascend, and what they cost has one minimum, but for rounding
        if error < least:
            factor, chosen, least = tried, weights, error
    yield chosen, least
    if activation != LINEAR and factor is not None:
        for _ in range(effort.resolves):
            targets = activation.free(rows.targets, rows.reached(chosen))
            wanted = targets if rows.offsets is None else targets - rows.offsets
            chosen = problem.solve(factor, problem.products(wanted))
            yield chosen, held.error(chosen, activation)


@dataclass(frozen=True)
class Problem:
    """Normal equations of a ridge regression towards given weights, for several ridges and targets.

    Attributes:
        inputs: ``(g, m, d)``, centred if there is a bias.
        middle: ``(g, 1, d)``: what was subtracted.
        gram: ``(g, d, d)``: mean products of inputs.
        plain: The weights to stay near.
        biased: Whether there is a bias to fit.
    """

    inputs: Array
    middle: Array
    gram: Array
    plain: Weights
    biased: bool

    @classmethod
    def of(cls, rows: Rows, plain: Weights, biased: bool) -> Problem:
        """Set up the normal equations."""
        middle = rows.inputs.mean(axis=1, keepdims=True) if biased else np.zeros_like(rows.inputs[:, :1])
        inputs = rows.inputs - middle
        gram = inputs.transpose(0, 2, 1) @ inputs / inputs.shape[1]
        return cls(inputs, middle, gram.astype(np.float64), plain, biased)

    def products(self, wanted: Array) -> tuple[Array, Array]:
        """Mean products of inputs and targets ``(g, d, o)``, and the targets' means ``(g, o)``."""
        if not self.biased:
            wanted = wanted - self.plain.bias[:, None, :]
        return self.inputs.transpose(0, 2, 1) @ wanted / wanted.shape[1], wanted.mean(axis=1)

    def factor(self, ridge: float) -> tuple[Callable[[Array], Array], Array]:
        """How to solve for right-hand sides ``(g, d, o)`` under a ridge, and the ridge of every group ``(g, 1, 1)``."""
        size = self.gram.shape[1]
        weight = ridge * np.maximum(np.trace(self.gram, axis1=1, axis2=2) / size, 1e-30)[:, None, None]
        system = self.gram + weight * np.eye(size)
        if len(system) == 1:
            factor = scipy.linalg.cho_factor(system[0], check_finite=False)
            return lambda right: scipy.linalg.cho_solve(factor, right[0], check_finite=False)[None], weight
        inverse = np.linalg.inv(system)
        return lambda right: inverse @ right, weight

    def solve(self, factor: tuple[Callable[[Array], Array], Array], products: tuple[Array, Array]) -> Weights:
        """The weights for some :meth:`products`."""
        invert, weight = factor
        matrix = invert(products[0] + weight * self.plain.matrix).astype(np.float32)
        if not self.biased:
            return Weights(matrix, self.plain.bias)
        return Weights(matrix, products[1] - (self.middle @ matrix)[:, 0, :])
