"""Scores of units without data: what a unit's weights say about how much it matters.

Only the order within a group counts. Slices of all parameters that carry a unit are read once, one tensor at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.runtime.node import compute
from onnxslim_learn.select.criteria import rows_by_cells
from onnxslim_learn.select.weight_slices import _Sums, slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.calibration import Calibration


QUADRATURE = 24  # Gauss-Hermite points: exact for polynomials of degree 47


def magnitude(power: int) -> Callable[[Analysis, Sequence[Group], Calibration | None], Array]:
    """Group norm: mean over members of the mean of |w|^p (arXiv:1608.08710; DepGraph, arXiv:2301.12900).

    Means per element, so that a wide member does not drown a narrow one.
    """

    def score(analysis: Analysis, groups: Sequence[Group], samples: Calibration | None = None) -> Array:
        return rows_by_cells(analysis.coupling, _norms(analysis.coupling, power))

    return score


l1, l2 = magnitude(1), magnitude(2)


def _norms(coupling: Coupling, power: int) -> Array:
    """The norm of every column's own parameters."""
    sums = _Sums(coupling)
    for part in slices(coupling, least_rank=2, held=False):
        sums.add(part.labels, part.sums(np.square if power == 2 else np.abs) / part.others)
    result: Array = sums.mean() ** (1 / power)
    return result


def energies(coupling: Coupling) -> Array:
    """The mean square of every column's own parameters."""
    result: Array = _norms(coupling, 2) ** 2
    return result


def lamp(analysis: Analysis, groups: Sequence[Group], samples: Calibration | None = None) -> Array:
    """LAMP (Lee et al. 2021, arXiv:2010.07611): w² over the sum of all w² at least as large, in the group."""
    energy = energies(analysis.coupling)
    result = np.zeros_like(energy)
    for group in groups:
        unit_energy = energy[group.units]
        order = np.argsort(unit_energy, kind="stable")
        above = np.cumsum(unit_energy[order][::-1])[::-1]
        result[group.units[order]] = unit_energy[order] / np.maximum(above, 1e-30)
    return rows_by_cells(analysis.coupling, result)


def fpgm(analysis: Analysis, groups: Sequence[Group], samples: Calibration | None = None) -> Array:
    """Distance to the other filters of the layer, Σ_u ‖W_c − W_u‖₂ (FPGM, arXiv:1811.00250), mean over members."""
    sums = _Sums(analysis.coupling)
    for part in slices(analysis.coupling, least_rank=2, held=False):
        if not part.summed and part.others > 1:
            flat = part.array.astype(np.float64)
            squares = (flat**2).sum(axis=1)
            distances = squares[:, None] + squares[None, :] - 2 * flat @ flat.T
            spread = np.sqrt(np.maximum(distances, 0)).sum(axis=1)
            sums.add(part.labels, spread / max(spread.mean(), 1e-30))
    return rows_by_cells(analysis.coupling, sums.mean())


def random(analysis: Analysis, groups: Sequence[Group], samples: Calibration | None = None, *, seed: int = 0) -> Array:
    """Uniform noise: the baseline every criterion has to beat."""
    return rows_by_cells(analysis.coupling, np.random.default_rng(seed).random(analysis.coupling.columns))


def energy(analysis: Analysis, groups: Sequence[Group], samples: Calibration | None = None) -> Array:
    """Expected output energy lost, data-free: Σ over consumers of Var[act(x_c)]·‖K_c‖²_F.

    x_c is taken as normal. Its mean and deviation are beta and |gamma| where a normalisation makes it; where that is
    folded, the producer's bias and ‖W_c‖ (inputs of unit variance). Activations between producer and consumer are
    integrated by Gauss-Hermite quadrature. The variance, not the second moment, because a constant part can be moved
    into the consumer's bias (FLAP, arXiv:2312.11983, with moments in place of data).
    """
    coupling = analysis.coupling
    parts = list(_squares(coupling))
    mean, deviation = _moments(coupling, parts)
    sums, plain = _Sums(coupling), _Sums(coupling)
    nodes = coupling.nodes
    norms: dict[str, list[tuple[Labels, Array]]] = {}
    for part in parts:
        if part.rank > 1:
            plain.add(part.labels, part.squares / part.others)
        if part.rank > 1 and part.summed:
            norms.setdefault(part.name, []).append((part.labels, part.squares))
    for record in coupling.records.contractions:
        node = nodes[record.node]
        source = node.inputs[record.slot]
        others = [str(v.name) for k, v in enumerate(node.inputs) if v is not None and k != record.slot]
        weights = [entry for name in others for entry in norms.get(name, ())]
        if source is None or not weights:
            continue
        for labels, squares in weights:
            atoms = labels.reshape(-1)
            classes = coupling.strong[atoms]
            variance = _through(source, mean[classes], deviation[classes])
            sums.add(labels, variance * squares)
    fallback = plain.mean()
    by_column: Array = np.where(sums.count > 0, sums.total, fallback)
    for group in groups:
        if not by_column[group.units].any():  # no consumer's weights in reach
            by_column[group.units] = fallback[group.units]
    return rows_by_cells(coupling, by_column)


@dataclass(frozen=True)
class _Squares:
    """What is told of one digit of a parameter: how many numbers a unit has, the sum of their squares, the only one."""

    name: str
    labels: Labels
    summed: bool
    rank: int
    others: int
    squares: Array
    only: Array


def _squares(coupling: Coupling) -> Iterator[_Squares]:
    """All labelled digits of parameters, each parameter read once per digit that can lose something."""
    for part in slices(coupling, held=False):
        only = part.sums() if part.others == 1 else np.zeros(0)
        rank = len(coupling.values[part.name].axes)
        yield _Squares(part.name, part.labels, part.summed, rank, part.others, part.sums(np.square), only)


def _moments(coupling: Coupling, parts: Sequence[_Squares]) -> tuple[Array, Array]:
    """Mean and deviation of every class before its activation."""
    nodes = coupling.nodes
    mean, variance = np.zeros(coupling.size), np.zeros(coupling.size)
    normal = np.zeros(coupling.size, bool)
    scales: dict[str, bool] = {}
    for affine in coupling.records.affines:
        for slot in (affine.scale, affine.shift):
            source = nodes[affine.node].inputs[slot]
            if source is not None:
                scales[str(source.name)] = slot == affine.scale
    for part in parts:
        if part.name in scales and part.others == 1:
            classes, scale = coupling.strong[part.labels.reshape(-1)], scales[part.name]
            np.add.at(variance if scale else mean, classes, part.squares if scale else part.only)
            normal[classes] = True
    for part in parts:
        classes = coupling.strong[part.labels.reshape(-1)]
        open_ = ~normal[classes]
        if part.others > 1 and not part.summed:
            open_ &= np.isfinite(part.squares)  # what stands for minus infinity, as where a recurrence begins
            np.add.at(variance, classes[open_], part.squares[open_])
        elif part.others == 1 and part.name not in scales:
            np.add.at(mean, classes[open_], part.only[open_])
    return mean, np.sqrt(variance)


def _through(value: ir.Value, mean: Array, deviation: Array) -> Array:
    """Variance of normal variables after the unary operators that made a value."""
    points, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
    weights = weights / weights.sum()
    x = (mean[:, None] + deviation[:, None] * points).astype(np.float32)
    for node in reversed(_unary_chain(value)):
        y = _elementwise(node, x)
        assert y is not None  # it kept the shape of others
        x = np.nan_to_num(y, nan=0.0, posinf=0.0, neginf=0.0)  # a root has none of negative numbers
    first = (x * weights).sum(axis=1)
    result: Array = np.maximum(((x - first[:, None]) ** 2 * weights).sum(axis=1), 0)
    return result


def _unary_chain(value: ir.Value) -> list[ir.Node]:
    """Operators of one activation and scalar constants that lead to a value, last first."""
    chain: list[ir.Node] = []
    node = value.producer()
    while node is not None and len(chain) < 8:
        moving = [v for v in node.inputs if v is not None and not v.is_initializer()]
        settings = [v for v in node.inputs if v is not None and v.is_initializer()]
        if len(moving) != 1 or any(v.const_value is None or v.const_value.size != 1 for v in settings) or node.domain:
            break
        if node.inputs[0] is not moving[0] and len(settings) != 1:
            break
        chain.append(node)
        node = moving[0].producer()
    return [node for node in chain if _keeps_shape(node)]


def _keeps_shape(node: ir.Node) -> bool:
    out = _elementwise(node, np.zeros((2, 3), np.float32))
    return out is not None and out.shape == (2, 3)


def _elementwise(node: ir.Node, x: Array) -> Array | None:
    """What a node makes of ``x``, its constants taken as scalars; ``None`` if nothing here can run it."""
    inputs = {
        str(value.name): x if value.const_value is None else value.const_value.numpy().reshape(())
        for value in node.inputs
        if value is not None
    }
    return compute(node, inputs).get(str(node.outputs[0].name))
