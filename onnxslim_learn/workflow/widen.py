"""Widen a model: units are doubled, and what leaves them is shared out, so that it computes what it did.

A unit's filters, scales and shifts are copied; where its copies are summed over, each gets a share of the unit's
weights, and the shares add up to the whole (Chen et al. 2016, Net2Net, arXiv:1511.05641). Shares are drawn unevenly:
copies then learn different things.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.registry import LATENCY
from onnxslim_learn.rewrite import edit
from onnxslim_learn.rewrite.merge import floating
from onnxslim_learn.rewrite.slim import reunite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.polynomial import Priced
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.relations import Digit, Value
    from onnxslim_learn.coupling.solver import Coupling


WIDEST = 64.0  # times as wide as it was
BISECTIONS = 40
UNEVEN = 0.1  # how far a share may lie from an even one, relative to it


@dataclass(frozen=True)
class Growth:
    """How often every class of positions occurs in the wider model.

    Attributes:
        coupling: The model.
        copies: Times of every class, at least 1: ``(classes,)``.
    """

    coupling: Coupling
    copies: Array

    def times(self, digit: Digit) -> Array:
        """How often every label of a digit occurs."""
        assert digit.labels is not None
        times: Array = np.where(digit.labels > 0, self.copies[self.coupling.strong[digit.labels]], 1)
        return times

    def width(self, value: Value, digit: Digit) -> int:
        """New number of indices of a digit."""
        if digit.labels is None:
            return digit.size
        times = self.times(digit)
        if not digit.deps:
            return int(times.sum())
        if (times != 1).any():
            raise NotImplementedError
        return digit.size

    def size(self, value: Value, axis: int) -> int:
        """New length of an axis."""
        return math.prod(self.width(value, digit) for digit in value.axes[axis])

    def keep(self, value: Value, axis: int) -> Array:
        """Which positions stay: all, of an axis that does not grow."""
        if self.size(value, axis) != value.shape[axis]:
            raise NotImplementedError
        return np.ones(value.shape[axis], bool)

    def places(self, value: Value, axis: int) -> Array:
        """For every new position of an axis the old one it is a copy of."""
        places = np.zeros((), np.int64)
        for digit in value.axes[axis]:
            self.width(value, digit)
            positions = np.arange(digit.size)
            positions = positions if digit.labels is None or digit.deps else np.repeat(positions, self.times(digit))
            places = places[..., None] * digit.size + positions
        return places.reshape(-1)

    @cached_property
    def grows(self) -> bool:
        """Whether anything does."""
        return bool((self.copies > 1).any())


# --- how wide ---------------------------------------------------------------------------------------------------------


def growable(analysis: Analysis, groups: Sequence[Group]) -> list[Group]:
    """The groups that can grow: free ones whose units are single channels, summed over by weights alone."""
    return [g for g in groups if g.pin is None and not g.rows and len(g.strata) == 1 and not _obstacle(analysis, g)]


def _obstacle(analysis: Analysis, group: Group) -> str:
    """Why a group cannot grow, or an empty string."""
    coupling = analysis.coupling
    growth = _growth(coupling, {group.units[0]: 2})
    if (
        coupling.is_row[growth.copies > 1].any()
        or (coupling.membership @ np.ones(coupling.size))[growth.copies > 1].any()
    ):
        return "its units lie in rows"
    axes = coupling.summed
    for contraction in coupling.records.contractions:
        node, value = coupling.nodes[contraction.node], contraction.value
        try:
            touched = any(growth.size(value, axis) != value.shape[axis] for axis in contraction.axes)
        except NotImplementedError:
            return "its units lie in rows"
        weights = [str(v.name) for v in node.inputs[:2] if v is not None and v.is_initializer() and floating(v)]
        if touched and not (roles.multiplies(node) and sum(_grows(growth, axes, name) for name in weights) == 1):
            return f"{coupling.where(contraction.node)} sums over it without a weight, or with two"
    for name, initializer in coupling.graph.initializers.items():
        recurrent = any(isinstance(roles.factors(use.node), roles.Recurrent) for use in initializer.uses())
        if name in coupling.values and recurrent and _touched(growth, coupling.values[name]):
            return f"{name} is recurrent"
    try:
        for patch in coupling.records.patches:
            patch.make(growth)
    except NotImplementedError:
        return "a node cannot state the new sizes"
    return ""


def _touched(growth: Growth, value: Value) -> bool:
    return any(d.labels is not None and (growth.times(d) != 1).any() for d in value.digits.values())


def _grows(growth: Growth, axes: Mapping[str, set[int]], name: str) -> bool:
    """Whether a weight grows along an axis that is summed over."""
    value = growth.coupling.values.get(name)
    return value is not None and any(growth.size(value, axis) != value.shape[axis] for axis in axes.get(name, ()))


def _growth(coupling: Coupling, copies: Mapping[int, int]) -> Growth:
    """Copies of some columns."""
    columns = np.ones(coupling.columns, np.int64)
    for column, times in copies.items():
        columns[column] = times
    return Growth(coupling, columns[coupling.column])


def widen(
    analysis: Analysis, groups: Sequence[Group], factor: float, *, multiple: int | Mapping[str, int] = 1
) -> Growth:
    """Multiply all widths by one factor, each rounded once; the first units of a group are copied once more.

    Args:
        analysis: The model.
        groups: What grows.
        factor: By how much.
        multiple: What widths are multiples of: one number, or one by group.
    """
    copies: dict[int, int] = {}
    for group in groups:
        step = multiple if isinstance(multiple, int) else multiple[group.name]
        width = max(round(factor * group.width / step) * step, group.width)
        times = np.full(group.width, width // group.width)
        times[: width % group.width] += 1
        copies.update(zip(group.units.tolist(), times.tolist(), strict=True))
    return _growth(analysis.coupling, copies)


def largest(
    analysis: Analysis,
    groups: Sequence[Group],
    bounds: Mapping[str, tuple[Priced, float]],
    *,
    multiple: int | Mapping[str, int] = 1,
) -> tuple[float, Growth]:
    """The largest factor within all bounds, and what it makes.

    Raises:
        InputError: If nothing can grow.
        TargetError: If the bounds leave no room.
    """
    if not groups:
        raise InputError("model: no group of channels can grow. See analyze for what they are tied to.")

    def fits(factor: float) -> bool:
        copies = widen(analysis, groups, factor, multiple=multiple).copies.astype(float)
        return all(cost.value(copies) <= bound * (1 + 1e-9) for cost, bound in bounds.values())

    low, high = 1.0, WIDEST
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    widest = widen(analysis, groups, low, multiple=multiple)
    if not widest.grows:
        whole = np.ones(analysis.coupling.size)
        said = ", ".join(_said(name, cost.value(whole), bound) for name, (cost, bound) in bounds.items())
        raise TargetError(
            f"⟨target⟩: leaves no room to grow ({said}). Raise it, or give fractions of another model with ⟨like⟩."
        )
    return low, widest


def _said(name: str, here: float, bound: float) -> str:
    """What a cost is, and what it may be; a latency is in microseconds."""
    if name == LATENCY:
        return f"latency is {here / 1e3:.4g} ms of {bound / 1e3:.4g} ms"
    return f"{name} is {here:.0f} of {bound:.0f}"


# --- the wider model --------------------------------------------------------------------------------------------------


def expand(growth: Growth, *, seed: int = 0, fresh: bool = False) -> ir.Model:
    """Build the wider model.

    Args:
        growth: How wide.
        seed: Determines how weights are shared out.
        fresh: Whether weights that grow are drawn anew, among the values that they have.

    Raises:
        PlanError: If a node cannot state the new sizes.
    """
    coupling, rng = growth.coupling, np.random.default_rng(seed)
    model = coupling.graph.model.clone()
    nodes, axes = list(model.graph), coupling.summed
    for name, value in model.graph.initializers.items():
        layout = coupling.values.get(name)
        if layout is not None and _touched(growth, layout) and value.const_value is not None:
            array = _grown(value.const_value.numpy(), growth, layout, axes.get(name, set()), rng)
            if fresh and array.dtype.kind == "f":
                array = rng.permutation(array.reshape(-1)).reshape(array.shape)
            value.const_value = ir.tensor(array, dtype=value.const_value.dtype, name=name)
            value.shape = ir.Shape(array.shape)
    sizes = edit.restated(coupling, growth, model.graph, nodes)
    for patch in coupling.records.patches:
        edit.follow(model.graph, nodes[patch.node], patch, growth, sizes)
    for node in nodes:
        for output in node.outputs:
            layout = coupling.values.get(str(output.name))
            if layout is not None and _touched(growth, layout):
                output.shape = None
    reunite(model, coupling)
    return model


def _grown(array: Array, growth: Growth, layout: Value, sums: set[int], rng: np.random.Generator) -> Array:
    """An array with copies of positions; along summed axes copies share what was there."""
    for axis in range(array.ndim):
        places = growth.places(layout, axis)
        if len(places) == array.shape[axis]:
            continue
        array = np.take(array, places, axis=axis)
        if axis in sums:
            array = _shared(array, axis, places, rng)
    return np.ascontiguousarray(array)


def _shared(array: Array, axis: int, places: Array, rng: np.random.Generator) -> Array:
    """Divide copies by uneven shares that add up to one."""
    moved = np.moveaxis(array.astype(np.float64), axis, 0)
    flat = moved.reshape(len(places), -1)
    times = np.bincount(places)[places]
    drawn = 1 + UNEVEN * rng.uniform(-1, 1, flat.shape)
    drawn[times == 1] = 1.0
    total = np.zeros((int(places.max()) + 1, flat.shape[1]))
    np.add.at(total, places, drawn)
    shared = flat * drawn / total[places]
    return np.moveaxis(shared.reshape(moved.shape), 0, axis).astype(array.dtype)
