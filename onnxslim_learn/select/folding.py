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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.coupling.relations import lacked
from onnxslim_learn.rewrite.merge import floating
from onnxslim_learn.select.weight_criteria import Slices, slices
from onnxslim_learn.select.weight_criteria import scores as scored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxslim_learn.coupling.relations import Labels, Value
    from onnxslim_learn.coupling.solver import Coupling, Group

Array = np.ndarray[Any, Any]

SHIFTS = 1e-3  # share of biases and scales in what tells units apart: kernels decide, these break ties
LIGHTEST = 1e-6  # of the mean mass: a unit that nobody reads has some, too
TINY = 1e-30


@dataclass(frozen=True)
class Clusters:
    """What is merged in which order.

    Attributes:
        scores: One per column: what had been lost when the unit was merged into another.
        heirs: Group -> for each of its units the one that it is merged into when it goes; itself for the last.
        refused: Group -> why its units cannot stand for each other; they are dropped instead.
    """

    scores: Array
    heirs: dict[str, Labels]
    refused: dict[str, str]


def clusters(coupling: Coupling, groups: Sequence[Group]) -> Clusters:
    """Cluster the units of every group that can be cut; where they cannot be merged, scores are those of ``energy``."""
    found, heirs, refused = scored(coupling, groups, "energy"), {}, {}
    parts = list(slices(coupling))
    for group in groups:
        if group.pin is not None:
            continue
        reason = refusal(coupling, group)
        if reason:
            refused[group.name] = reason
            continue
        vectors, mass = _vectors(coupling, parts, group)
        own = np.arange(group.width)
        for stratum in group.strata:
            order, losses, into = agglomerate(vectors[stratum], mass[stratum])
            own[stratum] = stratum[into]
            found[group.units[stratum[order]]] = losses
        heirs[group.name] = own
    return Clusters(found, heirs, refused)


def by_class(coupling: Coupling, groups: Sequence[Group], heirs: Mapping[str, Labels]) -> Labels:
    """For every class the one that it is merged into when it goes, or itself.

    Args:
        coupling: The model.
        groups: What is decided on.
        heirs: Group -> for each of its units the one that it is merged into, or itself. What lies in rows that have
            heirs follows these.
    """
    found = np.arange(coupling.size)
    for group in sorted(groups, key=lambda g: not g.rows):
        classes = lined_up(coupling, group) if group.name in heirs else None
        if classes is not None and (found[classes] == classes).all():
            found[classes] = classes[heirs[group.name]]
    return found


def lined_up(coupling: Coupling, group: Group) -> Labels | None:
    """Classes of every unit, ``(units, classes)``, such that those of one column correspond; ``None`` if they do not.

    A unit that is a row has its cells, too.
    """
    if group.rows:
        own = [np.flatnonzero(coupling.close(np.arange(coupling.columns) == unit)) for unit in group.units]
    else:
        order = np.argsort(coupling.column, kind="stable")
        ends = np.searchsorted(coupling.column[order], [group.units, group.units + 1])
        own = [order[a:b] for a, b in ends.T]
    if len({len(classes) for classes in own}) > 1:
        return None
    found: Labels = np.stack(own)
    marks = _marks(coupling)[found]
    return found if (marks == marks[:1]).all() else None


def _marks(coupling: Coupling) -> Array:
    """A number for every class, equal for those that occur equally often in every label array of every value."""
    rng, marks = np.random.default_rng(0), np.zeros(coupling.size, np.uint64)
    for layout in coupling.values.values():
        for digit in layout.digits.values():
            code = rng.integers(1, 2**63, dtype=np.uint64)
            if digit.labels is not None:
                atoms = digit.labels[digit.labels > 0]
                np.add.at(marks, coupling.strong[atoms], code)
    return marks


def refusal(coupling: Coupling, group: Group) -> str:
    """Why units of a group cannot stand for each other, or an empty string."""
    classes = lined_up(coupling, group)
    if classes is None:
        return "its units are not laid out alike"
    inside = np.zeros(coupling.size, bool)
    inside[classes] = True
    for name in dict.fromkeys(member.rpartition(":")[0] for member in group.members):
        initializer = coupling.graph.initializers[name]
        if not floating(initializer):
            return f"{name} is not of floating-point numbers"
        value, axes = coupling.values[name], coupling.summed.get(name, set())
        if not _occurs(coupling, value, axes, inside):
            continue
        if len({(use.node.op_type, use.idx) for use in initializer.uses()}) > 1:
            return f"{name} is summed over and used in other ways"
        grouped = coupling.records.summed.get(name, set())
        if group.rows and any(digit.deps for axis in grouped for digit in value.axes[axis]):
            return f"{name} has its groups and what they sum over on one axis"
    nodes, summed = coupling.graph.nodes, coupling.summed
    for record in coupling.records.contractions:  # of rows, too, if within them: heads attend by queries and keys
        node = nodes[record.node]
        source = node.inputs[record.slot]
        assert source is not None
        if source.is_initializer() or not _occurs(coupling, record.value, record.axes, inside, within=True):
            continue
        names = [str(v.name) for v in node.inputs if v is not None and v.is_initializer() and v.name in summed]
        if not any(_occurs(coupling, coupling.values[n], summed[n], inside, within=True) for n in names):
            return f"{coupling.where(record.node)} sums over it without weights"
    return ""


def _occurs(coupling: Coupling, value: Value, axes: Iterable[int], inside: Array, *, within: bool = False) -> bool:
    """Whether units lie along some axes of a value, other than ``within`` rows that are units themselves."""
    for axis in axes:
        for digit in value.axes[axis]:
            if digit.labels is not None:
                hit = inside[coupling.strong[digit.labels]] & (digit.labels > 0)
                for rows in [] if within else lacked(value.digits, digit.deps, (), digit.size):
                    hit &= ~(inside[coupling.strong[rows]] & (rows > 0))
                if hit.any():
                    return True
    return False


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
        own = np.where(atoms > 0, unit[coupling.strong[atoms]], -1)
        here = np.flatnonzero(own >= 0)
        if not len(here):
            continue
        order = here[np.argsort(own[here], kind="stable")]
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
