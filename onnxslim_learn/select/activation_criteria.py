"""Scores of units from samples: what consumers lose with a unit, by what they are given and multiply it by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from onnxslim_learn.array_types import Array
from onnxslim_learn.select.activation_statistics import inverse_covariance
from onnxslim_learn.select.criteria import rows_by_cells
from onnxslim_learn.select.routing import completed

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.activation_statistics import Inputs
    from onnxslim_learn.select.calibration import Calibration

Score = Callable[["Analysis", Sequence["Group"], "Calibration"], Array]

ROUNDING = 1e-9  # of a block's mean diagonal: far below any score, far above what doubles lose
STEPS = 48  # rounds of removal per group; the products are downdated exactly after each


def _summed(value: Callable[[Inputs], Array]) -> Score:
    """A score that adds up one number per position over all consumers."""

    def score(analysis: Analysis, groups: Sequence[Group], samples: Calibration) -> Array:
        coupling = analysis.coupling
        total = np.zeros(coupling.columns)
        for inputs in samples.squares:
            known = inputs.classes >= 0
            np.add.at(total, coupling.column[inputs.classes[known]], value(inputs)[known])
        return completed(analysis, groups, rows_by_cells(coupling, total), samples)

    return score


def _energy(inputs: Inputs) -> Array:
    result: Array = (inputs.weights.astype(np.float64) ** 2).sum(axis=1)
    return result


wifv = _summed(lambda inputs: inputs.variance * _energy(inputs))
"""Variance of what consumers get from a unit: what a moved mean cannot repair (FLAP, arXiv:2312.11983)."""

wanda = _summed(lambda inputs: np.sqrt(inputs.squares * _energy(inputs)))
"""Magnitude of what consumers get (Wanda, arXiv:2306.11695, on structures)."""

activation = _summed(lambda inputs: inputs.squares)
"""Mean square of the activation alone."""


def obs(analysis: Analysis, groups: Sequence[Group], samples: Calibration) -> Array:
    """What consumers lose with a unit after their best refit, ‖K_c‖² / [H⁻¹]_cc, units removed one after the other.

    H are the mean products of a consumer's inputs. A unit of several positions (a head) counts as a block:
    tr(K_Rᵀ [H⁻¹_RR]⁻¹ K_R). After every round H⁻¹ and K are downdated, so that what takes over from a removed unit is
    worth more afterwards (Optimal Brain Surgeon, Hassibi & Stork 1993, on structures as in ZipLM, arXiv:2302.04089).
    """
    coupling, gathered = analysis.coupling, samples.pairs
    score = np.zeros(coupling.columns)
    rows = _rows_of(coupling)
    for group in groups:
        places = [(inputs, _places(coupling, rows, inputs, group)) for inputs in gathered if inputs.products.ndim == 2]
        consumers = [_Consumer.of(inputs, positions) for inputs, positions in places if any(len(p) for p in positions)]
        if consumers:
            score[group.units] = _order(consumers, group.width)
    return completed(analysis, groups, score, samples)


class _Consumer:
    """One contraction as a group sees it: the inverse products and the weights of what is left, both downdated.

    Only the group's own positions are held: what is said of them holds for all others staying.
    """

    def __init__(self, inverse: Array, weights: Array, places: list[Array]) -> None:
        self.inverse, self.weights = inverse, weights
        self.owner = np.repeat(np.arange(len(places)), [len(at) for at in places])
        self.single = all(len(at) <= 1 for at in places)

    @classmethod
    def of(cls, inputs: Inputs, places: list[Array]) -> _Consumer:
        every = np.concatenate(places)
        inverse = inverse_covariance(inputs)
        return cls(inverse[np.ix_(every, every)], inputs.factor[every], places)

    def losses(self, width: int) -> Array:
        """What goes with each of so many units; nothing with those that are gone."""
        result = np.zeros(width)
        if self.single:
            result[self.owner] = (self.weights**2).sum(axis=1) / np.maximum(np.diagonal(self.inverse), 1e-30)
            return result
        units, first, counts = np.unique(self.owner, return_index=True, return_counts=True)
        for count in np.unique(counts):
            alike = counts == count
            at = first[alike, None] + np.arange(count)
            result[units[alike]] = _block_losses(self.inverse[at[:, :, None], at[:, None, :]], self.weights[at])
        return result

    def remove(self, units: Array) -> None:
        """Take units out and let the others take over."""
        gone = np.isin(self.owner, units)
        at, left = np.flatnonzero(gone), np.flatnonzero(~gone)
        if not len(at):
            return
        across = self.inverse[np.ix_(at, left)]
        gain = _solve(self.inverse[np.ix_(at, at)], across)
        self.weights = self.weights[left] - gain.T @ self.weights[at]
        self.inverse = self.inverse[np.ix_(left, left)] - across.T @ gain
        self.owner = self.owner[left]


def _block_losses(blocks: Array, weights: Array) -> Array:
    """What goes with each of several units, by blocks of an inverse ``(u, n, n)`` and weights ``(u, n, m)``."""
    try:
        roots = np.linalg.solve(np.linalg.cholesky(_lifted(blocks)), weights)
    except np.linalg.LinAlgError:
        return np.array([np.sum(matrix * _solve(block, matrix)) for block, matrix in zip(blocks, weights, strict=True)])
    losses: Array = np.einsum("unm,unm->u", roots, roots)
    return losses


def _lifted(blocks: Array) -> Array:
    """Blocks ``(..., n, n)`` of an inverse that many downdates may have left singular up to rounding."""
    size = blocks.shape[-1]
    lift = ROUNDING * np.maximum(np.trace(blocks, axis1=-2, axis2=-1) / size, 1e-30)
    lifted: Array = blocks + lift[..., None, None] * np.eye(size)
    return lifted


def _solve(block: Array, right: Array) -> Array:
    """Solve with a block of an inverse."""
    system = _lifted(block)
    try:
        solved: Array = scipy.linalg.cho_solve(scipy.linalg.cho_factor(system, check_finite=False), right)
    except np.linalg.LinAlgError:
        solved = np.linalg.lstsq(system, right, rcond=ROUNDING)[0]
    return solved


def _places(coupling: Coupling, rows: dict[int, Array], inputs: Inputs, group: Group) -> list[Array]:
    """Positions of every unit of a group among a contraction's inputs."""
    columns = np.where(inputs.classes >= 0, coupling.column[inputs.classes], -1)
    cells = [rows.get(unit, np.zeros(0, np.int64)) for unit in group.units.tolist()]
    if not np.isin(columns, group.units).any() and not np.isin(inputs.classes, np.concatenate(cells)).any():
        return []
    return [
        np.flatnonzero((columns == unit) | np.isin(inputs.classes, cell_positions))
        for unit, cell_positions in zip(group.units.tolist(), cells, strict=True)
    ]


def _order(consumers: Sequence[_Consumer], width: int) -> Array:
    """Losses in the order of removal, never falling, so that they rank the units as they were removed."""
    left, score, level = np.arange(width), np.zeros(width), 0.0
    while len(left):
        losses = np.sum([c.losses(width) for c in consumers], axis=0)[left]
        order = np.argsort(losses, kind="stable")
        chosen = order[: max(1, min(width // STEPS, len(left) - 1))]
        for k in chosen:
            level = max(level * (1 + 1e-9), float(losses[k]))
            score[left[k]] = level
        for consumer in consumers:
            consumer.remove(left[chosen])
        left = np.delete(left, chosen)
    return score


def _rows_of(coupling: Coupling) -> dict[int, Array]:
    """Column of rows -> classes of their cells."""
    cells, rows = coupling.membership.nonzero()
    cells_of: dict[int, list[int]] = {}
    for cell, row in zip(cells.tolist(), rows.tolist(), strict=True):
        cells_of.setdefault(int(coupling.column[row]), []).append(cell)
    return {column: np.array(members, np.int64) for column, members in cells_of.items()}
