"""Latency fitted to what was measured: a monotone curve over the work of every fragment.

The work of a fragment is what it computes and what it moves, weighed so that it fits the times measured best; over it
runs an isotonic regression, so that less work never takes more time. Where nothing was measured, a roofline says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.costs.polynomial import polynomial
from onnxslim_learn.costs.roofline import Sides

if TYPE_CHECKING:
    from onnxslim_learn.costs.devices import Device
    from onnxslim_learn.costs.polynomial import Cost
    from onnxslim_learn.costs.roofline import Roofline
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.latency.fragments import Fragment

FEW = 3  # measured times that two weights of work and a constant can be fitted to


@dataclass(frozen=True)
class Curve:
    """Time of one fragment over its work.

    Attributes:
        weights: Microseconds per multiply-accumulate and per byte, and for every call: their sum is the work.
        work: Knots, ascending.
        us: Times at them, ascending.
    """

    weights: tuple[float, float, float]
    work: Array
    us: Array


class Knots:
    """The knots of several curves, a row each, the last repeated where others have more."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        """Lay curves side by side."""
        most = max(len(curve.work) for curve in curves)
        self.work, self.us = (
            np.stack([np.pad(one, (0, most - len(one)), mode="edge") for one in axes])
            for axes in zip(*((curve.work, curve.us) for curve in curves), strict=True)
        )
        self._rows, self._last = np.arange(len(curves)), np.array([len(curve.work) - 1 for curve in curves])
        self._first = np.divide(self.us[:, 0], self.work[:, 0], out=np.zeros(len(curves)), where=self.work[:, 0] > 0)

    def _below(self, work: Array) -> tuple[Array, Array]:
        """How many knots lie below an amount of work of each, and the slopes of the pieces there."""
        below = (self.work < work[:, None]).sum(axis=1)
        at = np.minimum(below, self._last)
        before = np.maximum(at - 1, 0)
        wide = self.work[self._rows, at] - self.work[self._rows, before]
        rise = self.us[self._rows, at] - self.us[self._rows, before]
        return below, np.divide(rise, wide, out=self._first.copy(), where=wide > 0)

    def times(self, work: Array) -> Array:
        """Microseconds at amounts of work; below the first knot in proportion, beyond the last as there."""
        work = np.minimum(work, self.work[self._rows, self._last])
        below, slopes = self._below(work)
        before = np.clip(below - 1, 0, self._last)
        inside = self.us[self._rows, before] + (work - self.work[self._rows, before]) * slopes
        first = np.where(self.work[:, 0] > 0, self._first * work, self.us[:, 0])
        times: Array = np.where(below == 0, first, inside)
        return times

    def slopes(self, work: Array) -> Array:
        """Microseconds more per unit of work, of the pieces below."""
        return self._below(work - 1e-12 * np.abs(work))[1]


def fit(points: Array, roof: tuple[float, float, float]) -> Curve:
    """Fit a curve to measured points.

    Args:
        points: Rows of multiply-accumulates, bytes, and microseconds.
        roof: The weights of a roofline, used in proportion where points are few.
    """
    from scipy.optimize import isotonic_regression, nnls

    amounts, us = np.column_stack([points[:, :2], np.ones(len(points))]), np.maximum(points[:, 2], 1e-6)
    weights = np.array(roof)
    if len(points) >= FEW:
        scale = np.maximum(amounts.max(axis=0), 1e-9)
        weights = nnls(amounts / scale / us[:, None], np.ones(len(points)))[0] / scale
    work = amounts @ weights
    order = np.argsort(work, kind="stable")
    fitted = isotonic_regression(us[order], weights=1 / us[order])
    pieces = list(zip(fitted.blocks[:-1], fitted.blocks[1:], strict=True))
    knots = np.array([work[order][a:b].mean() for a, b in pieces])
    steps = np.concatenate([[True], np.diff(knots) > 1e-9 * max(float(knots[-1]), 1e-9)])
    return Curve(tuple(weights.tolist()), knots[steps], np.array([fitted.x[a] for a, _ in pieces])[steps])


@dataclass(frozen=True)
class FittedLatency:
    """Latency of one run in microseconds, fitted to measurements.

    Attributes:
        roofline: What nodes compute and move, and the device.
        fragments: The graph in fragments.
        curves: The curve of every fragment.
        total: End-to-end time of the original, microseconds.
        scale: What of a predicted saving is found when it is measured.
        below: Whether widths below a step of the machine's kernels were measured.
    """

    roofline: Roofline
    fragments: Sequence[Fragment]
    curves: Sequence[Curve]
    total: float
    scale: float = 1.0
    below: bool = False

    @property
    def device(self) -> Device:
        """The machine."""
        return self.roofline.device

    @cached_property
    def _places(self) -> tuple[Array, Array]:
        """Fragment of every term, of what is computed and what is moved."""
        names = [str(node.name) for node in self._coupling.nodes]
        owner = {names[index]: place for place, one in enumerate(self.fragments) for index in one.nodes}
        macs, moved = ([owner[name] for name in c.owners] for c in (self.roofline.macs, self.roofline.moved))
        return np.array(macs, np.int64), np.array(moved, np.int64)

    @property
    def _coupling(self) -> Coupling:
        return self.roofline.coupling

    def amounts(self, alive: Array) -> Array:
        """Multiply-accumulates, bytes and calls of every fragment: fragments × 3."""
        macs, moved = self._places
        count = len(self.fragments)
        computed = np.bincount(macs, self.roofline.macs.terms(alive), count)
        return np.column_stack(
            [computed, np.bincount(moved, self.roofline.moved.terms(alive), count), self._calls.terms(alive)]
        )

    @cached_property
    def _calls(self) -> Cost:
        """One for every fragment."""
        present = ((one.name, 1, self._coupling.present(one.nodes)) for one in self.fragments)
        return polynomial("calls", self._coupling, present)

    @cached_property
    def _knots(self) -> Knots:
        return Knots(self.curves)

    @cached_property
    def _weights(self) -> Array:
        """Of what is computed, moved and called, fragments × 3."""
        return np.array([curve.weights for curve in self.curves])

    def _work(self, alive: Array) -> Array:
        work: Array = (self.amounts(alive) * self._weights).sum(axis=1)
        return work

    def by_fragment(self, alive: Array) -> Array:
        """Microseconds of every fragment, as they were profiled."""
        return self._knots.times(self._work(alive))

    @cached_property
    def _whole(self) -> float:
        """Sum over all fragments of the original."""
        return float(self.by_fragment(np.ones(self._coupling.size)).sum())

    @property
    def _rate(self) -> float:
        """Microseconds saved from end to end for one saved in fragments: times of nodes are others while profiling."""
        return self.scale * self.total / max(self._whole + self.device.run_us, 1e-9)

    def value(self, alive: Array) -> float:
        """Latency in microseconds: the original's, less the share that the fragments save."""
        return self.total - self._rate * (self._whole - float(self.by_fragment(alive).sum()))

    def sides(self) -> Sides:
        """One side for every fragment, whose work is what it computes, what it moves, and its call."""
        each = np.arange(len(self.fragments))
        costs = (self.roofline.macs, self.roofline.moved, self._calls)
        places = (*self._places, each)
        work = tuple((cost, at, self._weights[at, k]) for k, (cost, at) in enumerate(zip(costs, places, strict=True)))
        curves = tuple((curve.work, curve.us) for curve in self.curves)
        return Sides(self.total - self._rate * self._whole, self._rate, work, each, curves)

    def gradient(self, alive: Array) -> Array:
        """Derivative by every class's aliveness, shape ``(classes,)``."""
        weights = self._knots.slopes(self._work(alive))[:, None] * self._weights * self._rate
        macs, moved = self._places
        slope = self.roofline.macs.gradient(alive, weights[macs, 0])
        slope += self.roofline.moved.gradient(alive, weights[moved, 1])
        result: Array = slope + self._calls.gradient(alive, weights[:, 2])
        return result

    def by_node(self, alive: Array) -> dict[str, float]:
        """Microseconds by the first node of every fragment; what is left of the run as ``""``."""
        times = dict(
            zip((f.name for f in self.fragments), (self._rate * self.by_fragment(alive)).tolist(), strict=True)
        )
        return {"": self.value(alive) - sum(times.values()), **times}

    def corrected(self, alive: Array, us: float) -> FittedLatency:
        """The same with the scale at which it predicts a measured time."""
        predicted = self.total - self.value(alive)
        if predicted <= 0:
            return self
        return replace(self, scale=self.scale * float(np.clip((self.total - us) / predicted, 0.5, 2.0)))


def fitted(
    roofline: Roofline, parts: Sequence[Fragment], points: Mapping[int, Sequence[tuple[Array, float]]], total: float
) -> FittedLatency:
    """Fit every fragment.

    Args:
        roofline: What nodes compute and move, and the device that says what was not measured.
        parts: The graph in fragments.
        points: Place of a fragment -> measured: what was alive, and microseconds.
        total: End-to-end time of the original, microseconds.
    """
    rates = (2e-3 / roofline.device.gflops, 1e-3 / roofline.device.gbytes, roofline.device.node_us)
    empty = FittedLatency(roofline, parts, (), total)
    amounts: dict[int, Array] = {}
    for measured in points.values():
        for alive, _ in measured:
            if id(alive) not in amounts:
                amounts[id(alive)] = empty.amounts(alive)
    whole = empty.amounts(np.ones(roofline.coupling.size))
    curves = []
    for place in range(len(parts)):
        rows = [(*amounts[id(alive)][place][:2], us) for alive, us in points.get(place, ())]
        curves.append(fit(np.array(rows or [(*whole[place][:2], float(whole[place] @ rates))]), rates))
    return replace(empty, curves=tuple(curves))
