"""Zeros for the weights of one linear node, and new values for the others, from second moments of its inputs.

The error of a node's output is a quadratic in its weights around their best dense values ``W*`` (refitted to what the
original put out, from the inputs as they are by now), with the inputs' moments ``H`` as its matrix:
``‖X(W − W*)‖² = tr (W − W*)ᵀ H (W − W*)``. A method chooses which weights are zero; where it updates weights, those
that stay are then solved for exactly, ``H_SS w_S = (H w*)_S`` for every output and its support ``S``, where that is
affordable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from onnxslim_learn.array_types import Array
from onnxslim_learn.sparse import patterns

if TYPE_CHECKING:
    from onnxslim_learn.repair.linear_forms import Form
    from onnxslim_learn.sparse.maskable import Layer
    from onnxslim_learn.sparse.patterns import Pattern

Choice = tuple[Array, Array]  # which weights stay, and the weights, both (g, d, o)

AFFORDABLE = 2e11  # multiply-adds of exact solutions for one node: about ten seconds
BLOCK = 128  # columns of SparseGPT between two updates of all later ones
ROUNDS, SETTLING = 24, 6  # of ADMM, the last ones with a fixed mask
PENALTY = 0.1  # of ADMM, where inputs have unit mean square


@dataclass(frozen=True)
class LayerPruning:
    """What is asked of a node.

    Attributes:
        layer: Its weight.
        form: How it is a matrix product.
        pattern: Where zeros may be.
        ratio: Share of its weights that goes.
    """

    layer: Layer
    form: Form
    pattern: Pattern
    ratio: float

    def keep(self, scores: Array, share: float = 1.0) -> Array:
        """Which weights stay ``(g, d, o)`` when a share of the ratio goes, by scores ``(g, d, o)``."""
        tensor = self.form.tensor(scores).reshape(self.layer.shape)
        kept = patterns.keep(tensor, self.ratio * share, self.pattern, self.layer)
        return self.form.matrix(kept.astype(np.float32)) > 0


@dataclass(frozen=True)
class Moments:
    """What the choice is made from.

    Attributes:
        matrix: The weights ``(g, d, o)``; for methods that update, the best dense ones.
        squares: Mean squares of the inputs, ``(g, d)``.
        gram: Mean products of (centred) inputs with a ridge on the diagonal, ``(g, d, d)``.
    """

    matrix: Array
    squares: Array
    gram: Array


def magnitude(cut: LayerPruning, seen: Moments) -> Choice:
    """The smallest weights go."""
    mask = cut.keep(seen.matrix**2)
    return mask, seen.matrix * mask


def wanda(cut: LayerPruning, seen: Moments) -> Choice:
    """The smallest |w|·‖x‖ of every output go (Sun et al. 2023, arXiv:2306.11695)."""
    scores = seen.matrix**2 * seen.squares[:, :, None]
    if cut.pattern.kind == "free":
        scores = np.argsort(np.argsort(scores, axis=1, kind="stable"), axis=1).astype(float)  # compared per output
    mask = cut.keep(scores)
    return mask, seen.matrix * mask


def sparsegpt(cut: LayerPruning, seen: Moments) -> Choice:
    """SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774): column after column, later ones take over.

    Masks are chosen for 128 columns at a time by w²/[H⁻¹]_cc; for patterns other than unstructured all at once.
    """
    inverse = np.linalg.inv(seen.gram)
    factors = [scipy.linalg.cholesky((one + one.T) / 2) for one in inverse]
    weights = seen.matrix.astype(np.float64)
    fixed = None
    if cut.pattern.kind != "free":
        fixed = cut.keep(weights**2 / np.diagonal(inverse, axis1=1, axis2=2)[:, :, None])
    mask, seen_weights, zeros = np.ones(weights.shape, bool), 0, 0
    for g, factor in enumerate(factors):
        for start in range(0, len(factor), BLOCK):
            block = slice(start, min(start + BLOCK, len(factor)))
            part = weights[g, block]
            seen_weights += part.size
            if fixed is not None:
                mask[g, block] = fixed[g, block]
            else:
                count = round(cut.ratio * seen_weights) - zeros
                scores = part**2 / np.diagonal(factor)[block, None] ** 2
                mask[g, block].reshape(-1)[patterns.smallest(scores, count)] = False
                zeros += count
            _pass_on(weights[g], mask[g], factor, block)
    return mask, weights


def _pass_on(weights: Array, mask: Array, factor: Array, block: slice) -> None:
    """Zero the masked weights of some columns and let all later ones take over, in place."""
    errors = np.zeros((block.stop - block.start, weights.shape[1]))
    for column in range(block.start, block.stop):
        kept = weights[column] * mask[column]
        errors[column - block.start] = error = (weights[column] - kept) / factor[column, column]
        weights[column : block.stop] -= np.outer(factor[column, column : block.stop], error)
        weights[column] = kept
    weights[block.stop :] -= factor[block, block.stop :].T @ errors


def admm(cut: LayerPruning, seen: Moments) -> Choice:
    """Alternating directions (Boža 2024, arXiv:2401.02938): dense solutions and masks pull at each other.

    Inputs are scaled to unit mean square; the mask is chosen anew in every round from what it and the solution agree
    on so far, sparser each time, and stays for the last rounds.
    """
    scale = np.sqrt(np.diagonal(seen.gram, axis1=1, axis2=2))[:, :, None]
    gram = seen.gram / (scale * scale.transpose(0, 2, 1))
    wanted = seen.matrix * scale
    solve = np.linalg.inv(gram + PENALTY * np.eye(gram.shape[1]))
    target, dual, dense = gram @ wanted, np.zeros_like(wanted), wanted
    mask = np.ones(wanted.shape, bool)
    for number in range(ROUNDS):
        if number < ROUNDS - SETTLING:
            share = 1 - (1 - (number + 1) / (ROUNDS - SETTLING)) ** 3
            mask = cut.keep((dense + dual) ** 2, share)
        sparse = (dense + dual) * mask
        dual = dual + dense - sparse
        dense = solve @ (target + PENALTY * (sparse - dual))
    return mask, (dense + dual) * mask / scale


def on_support(seen: Moments, mask: Array) -> Array | None:
    """The best weights under a mask, or ``None`` where that would take too long."""
    counts = mask.sum(axis=1, dtype=float)
    if (counts**3).sum() / 3 > AFFORDABLE:
        return None
    weights, right = np.zeros(seen.matrix.shape), seen.gram @ seen.matrix
    for g, o in np.argwhere(counts > 0):
        at = np.flatnonzero(mask[g, :, o])
        factor = scipy.linalg.cho_factor(seen.gram[g][np.ix_(at, at)], check_finite=False)
        weights[g, at, o] = scipy.linalg.cho_solve(factor, right[g, at, o], check_finite=False)
    return weights
