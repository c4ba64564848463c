"""Which units are alike, so that one can stand for several: clusters of what makes them.

Units are merged two by two, each time where least is lost: Ward's criterion, the same sum of squares as that of k-means
(Model Folding, arXiv:2502.10216), whose clusters are nested, so that one order of units serves every width. A cluster
``a`` weighs ``m_a``, what its consumers multiply it by, squared and summed; merging two whose means are ``d`` apart
loses ``m_a m_b / (m_a + m_b) · d²``.

Measured on nets for Fashion-MNIST at 0.7 / 0.5 of the MACs, without inputs and without repair: ResNet-20 90 / 76 %
(dropping by ``energy``: 30 / 20 %), with folded normalisations 78 / 50 % (15 / 15 %); MobileNet 72 / 40 % (41 / 22 %),
with folded normalisations 56 / 23 % (26 / 10 %); ViT 77 / 68 % (77 / 66 %). Attention heads have to be dropped: the ViT
came to 59 / 45 % where they were merged. Repaired on 256 made-up inputs in the right range, folding is sometimes ahead
and sometimes behind: ResNet-20 90.4 / 82 % (``energy`` 90.8 / 85 %, ``obs`` 83 / 74 %), with folded normalisations
91.9 / 90 % (90.2 / 82 %, 89.9 / 86 %); such a MobileNet 88.2 / 76 % (89.2 / 79 %, 88.2 / 80 %). Single runs, 5,000 test
images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.rewrite.merge import lined_up, refusal
from onnxslim_learn.select import weight_criteria
from onnxslim_learn.select.ranking import Ranking
from onnxslim_learn.select.weight_slices import Slices, slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Labels
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.calibration import Calibration


SHIFTS = 1e-3  # share of biases and scales in what tells units apart: kernels decide, these break ties
LIGHTEST = 1e-6  # of the mean mass: a unit that nobody reads has some, too
TINY = 1e-30


def clusters(analysis: Analysis, groups: Sequence[Group], samples: Calibration | None = None) -> Ranking:
    """Cluster the units of every group that can be cut; where they cannot be merged, scores are those of ``energy``.

    The score of a unit is what had been lost when it was merged into another.
    """
    coupling, merged_into, refused = analysis.coupling, {}, {}
    energies = weight_criteria.energy(analysis, groups)
    parts = list(slices(coupling))
    for group in groups:
        if group.pin is not None:
            continue
        reason = refusal(coupling, group)
        if reason:
            refused[group.name] = reason
            continue
        vectors, mass = _vectors(coupling, parts, group)
        standing = np.arange(group.width)
        for stratum in group.strata:
            order, losses, into = agglomerate(vectors[stratum], mass[stratum])
            standing[stratum] = stratum[into]
            energies[group.units[stratum[order]]] = losses
        merged_into[group.name] = standing
    return Ranking(energies, merged_into, refused)


def _vectors(coupling: Coupling, parts: Sequence[Slices], group: Group) -> tuple[Array, Array]:
    """What makes every unit, as one vector each, and what its consumers multiply it by, squared and summed.

    Kernels count as they are; biases and scales, whose units are others, are scaled down to :data:`SHIFTS` of them.
    Consumers count alike, whatever the size of their weights.
    """
    classes, width = lined_up(coupling, group), group.width
    assert classes is not None
    unit = np.full(coupling.size, -1)
    unit[classes] = np.arange(width)[:, None]
    kernels, shifts, mass = [np.zeros((width, 1))], list[Array](), np.zeros(width)
    for part in parts:
        atoms = part.labels.reshape(-1)
        unit_of_position = np.where(atoms > 0, unit[coupling.strong[atoms]], -1)
        here = np.flatnonzero(unit_of_position >= 0)
        if not len(here):
            continue
        order = here[np.argsort(unit_of_position[here], kind="stable")]
        rows = part.array[order].astype(np.float64).reshape(width, -1)
        if part.summed:
            squares = (rows**2).sum(axis=1)
            mass += squares / max(float(squares.mean()), TINY)
        else:
            (kernels if part.array.shape[1] > 1 else shifts).append(rows)
    total = sum(float((rows**2).sum()) for rows in kernels) or 1.0
    kernels += [rows * np.sqrt(SHIFTS * total / max(float((rows**2).sum()), TINY)) for rows in shifts]
    return np.concatenate(kernels, axis=1), np.maximum(mass, LIGHTEST * (mass.mean() or 1.0))


def agglomerate(vectors: Array, mass: Array) -> tuple[Labels, Array, Labels]:
    """Merge vectors two by two, the heavier of two standing for both.

    Args:
        vectors: ``(n, d)``.
        mass: Their weights, ``(n,)``, positive.

    Returns:
        The vectors in the order in which they go, the last one at the end; what had been lost by then, rising; and
        which vector each goes into, ``(n,)``.
    """
    count = len(vectors)
    mass, into = mass.astype(float).copy(), np.arange(count)
    squares = (vectors**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None] - 2 * vectors @ vectors.T, 0)
    loss = apart * (mass[:, None] * mass[None] / (mass[:, None] + mass[None]))
    np.fill_diagonal(loss, np.inf)
    order, losses, level = [], [], 0.0
    left = np.ones(count, bool)
    nearest, least = loss.argmin(axis=1), loss.min(axis=1)
    for _ in range(count - 1):
        a = int(least.argmin())
        b = int(nearest[a])
        a, b = (a, b) if (mass[a], -a) >= (mass[b], -b) else (b, a)
        level += float(loss[a, b])
        order.append(b)
        losses.append(level)
        into[b] = a
        left[b] = False
        both = (mass + mass[a]) * loss[a] + (mass + mass[b]) * loss[b] - mass * loss[a, b]
        row = np.where(left, both / (mass + mass[a] + mass[b]), np.inf)  # Lance and Williams 1967
        row[a] = np.inf
        loss[a], loss[:, a], loss[b], loss[:, b] = row, row, np.inf, np.inf
        mass[a] += mass[b]
        closer = row < least
        nearest[closer], least[closer] = a, row[closer]
        stale = np.flatnonzero(left & (np.isin(nearest, (a, b)) | (np.arange(count) == a)))
        nearest[stale], least[stale] = loss[stale].argmin(axis=1), loss[stale].min(axis=1)
        least[b] = np.inf
    order.append(int(np.flatnonzero(left)[0]))
    losses.append(level * (1 + 1e-9) + 1e-12)
    return np.array(order), np.array(losses), into
