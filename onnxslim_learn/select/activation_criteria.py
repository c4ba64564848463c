"""Scores of units from samples: what consumers lose with a unit, by what they are given and multiply it by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array, Labels
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
TINY = 1e-30
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
    coupling, gathered = analysis.coupling, [inputs for inputs in samples.pairs if inputs.products.ndim == 2]
    score, read = np.zeros(coupling.columns), [_read(coupling, inputs) for inputs in gathered]
    for group in groups:
        several = [_Consumer.of(inputs, *_owned(group, *at)) for inputs, at in zip(gathered, read, strict=True)]
        consumers = [consumer for consumer in several if consumer is not None]
        if consumers:
            score[group.units] = _order(consumers, group.width)
    return completed(analysis, groups, score, samples)


class _Consumer:
    """One contraction as a group sees it: inverse products and weights, downdated by what is gone.

    Only the group's own positions are held: what is said of them holds for all others staying. Of the downdated inverse
    only the blocks of units are formed: the rest is the inverse less the products of ``across``, a Cholesky factor of
    what is gone (pivoted, by blocks).
    """

    def __init__(self, inverse: Array, weights: Array, owner: Labels) -> None:
        self.inverse, self.weights, self.owner = inverse, weights.copy(), owner
        self.across, self.count = np.empty_like(inverse), 0
        self.gone = np.zeros(len(owner), bool)
        first, counts = np.unique(owner, return_index=True, return_counts=True)[1:]
        self.places = [first[counts == n, None] + np.arange(n) for n in np.unique(counts)]
        self.blocks = [inverse[at[:, :, None], at[:, None, :]] for at in self.places]

    @classmethod
    def of(cls, inputs: Inputs, places: Labels, owner: Labels) -> _Consumer | None:
        """What is known of positions, and the unit that each is of, in ascending order; ``None`` if there is none."""
        if not len(places):
            return None
        inverse = inverse_covariance(inputs)
        return cls(inverse[np.ix_(places, places)], inputs.factor[places], owner)

    def losses(self, width: int) -> Array:
        """What goes with each of so many units; nothing with those that are gone."""
        result = np.zeros(width)
        for at, blocks in zip(self.places, self.blocks, strict=True):
            stay = ~self.gone[at[:, 0]]
            result[self.owner[at[stay, 0]]] = _block_losses(blocks[stay], self.weights[at[stay]])
        return result

    def remove(self, units: Labels) -> None:
        """Take units out and let the others take over."""
        at = np.flatnonzero(np.isin(self.owner, units))
        if not len(at):
            return
        known, more = self.across[: self.count], self.across[self.count : self.count + len(at)]
        across = self.inverse[at] - known[:, at].T @ known
        root = _inverse_root(across[:, at])
        more[:] = root @ across
        self.weights -= more.T @ (root @ self.weights[at])
        self.count, self.gone[at] = self.count + len(at), True
        for number, positions in enumerate(self.places):
            parts = more[:, positions]
            self.blocks[number] -= np.einsum("kun,kum->unm", parts, parts)


def _block_losses(blocks: Array, weights: Array) -> Array:
    """What goes with each of several units, by blocks of an inverse ``(u, n, n)`` and weights ``(u, n, m)``."""
    if blocks.shape[1] == 1:
        single: Array = np.einsum("unm,unm->u", weights, weights) / np.maximum(blocks[:, 0, 0], TINY)
        return single
    try:
        roots: Array = np.linalg.solve(np.linalg.cholesky(_lifted(blocks)), weights)
    except np.linalg.LinAlgError:
        roots = np.stack([_inverse_root(block) @ matrix for block, matrix in zip(blocks, weights, strict=True)])
    losses: Array = np.einsum("unm,unm->u", roots, roots)
    return losses


def _lifted(blocks: Array) -> Array:
    """Blocks ``(..., n, n)`` of an inverse that many downdates may have left singular up to rounding."""
    size = blocks.shape[-1]
    lift = ROUNDING * np.maximum(np.trace(blocks, axis1=-2, axis2=-1) / size, 1e-30)
    lifted: Array = blocks + lift[..., None, None] * np.eye(size)
    return lifted


def _inverse_root(block: Array) -> Array:
    """A matrix ``R`` for a block of an inverse, with ``Rᵀ R`` its inverse."""
    system = _lifted(block)
    try:
        root: Array = np.linalg.inv(np.linalg.cholesky(system))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(system)
        known = values > ROUNDING * values[-1]
        root = np.where(known, 1 / np.sqrt(np.where(known, values, 1)), 0)[:, None] * vectors.T
    return root


def _read(coupling: Coupling, inputs: Inputs) -> tuple[Labels, Labels]:
    """Positions among a contraction's inputs, and columns that they are of: their own, and those of their rows."""
    known = np.flatnonzero(inputs.classes >= 0)
    cells, rows = coupling.membership.tocsr()[inputs.classes[known]].nonzero()
    classes = np.concatenate([inputs.classes[known], rows])
    return np.concatenate([known, known[cells]]), coupling.column[classes]


def _owned(group: Group, places: Labels, columns: Labels) -> tuple[Labels, Labels]:
    """The positions of a group's units, unit by unit, and the number of the unit that each is of."""
    order = np.argsort(group.units, kind="stable")
    unit = order[np.minimum(np.searchsorted(group.units, columns, sorter=order), len(order) - 1)]
    pairs = np.column_stack([unit, places])[group.units[unit] == columns]
    owner, owned = np.unique(pairs, axis=0).T
    return owned, owner


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
