"""Costs as a formula in the widths of groups, for pages in which widths are chosen: nothing is run to evaluate it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from onnxslim_learn.registry import LATENCY, MACS, PARAMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Array, Labels, Mask
    from onnxslim_learn.costs.polynomial import Cost
    from onnxslim_learn.costs.roofline import Sides
    from onnxslim_learn.coupling.groups import Group

Parts: TypeAlias = "dict[tuple[int, ...], Labels]"
"""Classes by the places of the groups that they go with."""
Term: TypeAlias = tuple[int, tuple[int, ...], tuple[float, ...]]
"""The side of a term, its sizes, and their exponents."""

MOST = 400  # groups, and
CELLS = 50_000_000  # of a table of groups and classes, and
TERMS = 4000  # terms of a cost: a page with more would be slow


def formula(analysis: Analysis) -> dict[str, Any] | None:
    """What every cost is for any share of the units of each group, as plain data; ``None`` for very large models.

    A size is the sum, over ``parts``, of positions times the product of the shares that stay of the groups that these
    positions go with; a cost is the sum, over ``terms``, of a coefficient times a product of powers of sizes. That is
    exact where all units of a group have equally many positions.

    Returns:
        ``groups`` (names), ``steps`` (units that go at a time), ``least`` (units that stay at least), and for each of
        ``macs`` and ``params``: ``sizes``, each a list of ``[positions, places of groups]``; ``terms``, each
        ``[coefficient, places of sizes, exponents]``. Where latency is known and has few terms, ``latency``: see
        :func:`_timed`.
    """
    free = [group for group in analysis.groups if group.pin is None]
    costs = {name: analysis.costs[name] for name in (MACS, PARAMS)}
    if (
        not free
        or len(free) > MOST
        or len(free) * analysis.coupling.size > CELLS
        or max(len(cost.coefficients) for cost in costs.values()) > TERMS
    ):
        return None
    parts = _parts(analysis, free)
    return {
        "groups": [group.name for group in free],
        "steps": [group.width // group.levels for group in free],
        "least": [group.floor for group in free],
        **{name: _written(cost, parts) for name, cost in costs.items()},
        **_latency(analysis, parts),
    }


def _latency(analysis: Analysis, parts: Parts) -> dict[str, Any]:
    """What latency is, where it is known and has few terms."""
    if analysis.latency is None:
        return {}
    sides = analysis.latency.sides()
    terms = sum(len(cost.coefficients) for cost, _, _ in sides.work)
    return {LATENCY: _timed(sides, parts)} if terms <= TERMS else {}


def _timed(sides: Sides, parts: Parts) -> dict[str, Any]:
    """A latency in microseconds: ``fixed`` and ``rate`` times the sum, over parts, of their longest side.

    Returns:
        ``fixed``, ``rate``, ``sizes`` and ``terms`` as of costs, each term with the place of its side; ``sides``, each
        the place of its part, and where it has some the knots of its curve: ``[part, [work, ...], [us, ...]]``.
    """
    sizes, terms = list[Any](), list[Any]()
    for cost, places, weights in sides.work:
        first = len(sizes)
        sizes += _sizes(cost, parts)
        terms += [
            [coefficient, [first + width for width in widths], exponents, side]
            for (side, widths, exponents), coefficient in _terms(cost, weights, places).items()
        ]
    curves = [[] if one is None else [axis.tolist() for axis in one] for one in sides.curves]
    named = [[int(part), *curve] for part, curve in zip(sides.part, curves, strict=True)]
    return {"fixed": sides.fixed, "rate": sides.rate, "sizes": sizes, "terms": terms, "sides": named}


def _parts(analysis: Analysis, groups: Sequence[Group]) -> Parts:
    """Classes by the groups that they go with: places of groups -> classes."""
    coupling = analysis.coupling
    gone = [np.any([coupling.close(chosen) for chosen in _halves(coupling.columns, one)], axis=0) for one in groups]
    member = sp.csc_matrix(np.asarray(gone))
    parts: dict[tuple[int, ...], list[int]] = {}
    for number in range(coupling.size):
        places = tuple(member.indices[member.indptr[number] : member.indptr[number + 1]].tolist())
        parts.setdefault(places, []).append(number)
    return {places: np.asarray(classes) for places, classes in parts.items()}


def _halves(columns: int, group: Group) -> list[Mask]:
    """A group's columns in two parts, neither all of it: what only goes with all of its units is not of it alone."""
    halves = []
    for half in range(2 if group.levels > 1 else 1):
        chosen = np.zeros(columns, bool)
        for stratum in group.strata:
            first = len(stratum) // group.levels
            part = stratum if group.levels < 2 else stratum[first:] if half else stratum[:first]
            chosen[np.asarray(group.units)[part]] = True
        halves.append(chosen)
    return halves


def _written(cost: Cost, parts: Parts) -> dict[str, Any]:
    """Sizes and terms of a cost."""
    terms = [[total, list(w), list(e)] for (_, w, e), total in _terms(cost).items()]
    return {"sizes": _sizes(cost, parts), "terms": terms}


def _sizes(cost: Cost, parts: Parts) -> list[list[Any]]:
    """Of every size the positions, with the places of the groups that they go with."""
    sizes: list[list[Any]] = [[[float(fixed), []]] if fixed else [] for fixed in cost.fixed]
    counts = cost.counts.tocsc()
    for places, classes in parts.items():
        positions = np.asarray(counts[:, classes].sum(axis=1)).reshape(-1)
        for size in np.flatnonzero(positions):
            sizes[size].append([float(positions[size]), list(places)])
    return sizes


def _terms(cost: Cost, weights: Array | None = None, sides: Labels | None = None) -> dict[Term, float]:
    """Terms by their sides, sizes and exponents; those that have all of that alike are one."""
    count, sums = len(cost.coefficients), dict[Term, float]()
    weighed = cost.coefficients if weights is None else cost.coefficients * weights
    owners = np.zeros(count, np.int64) if sides is None else sides
    for coefficient, widths, exponents, side in zip(weighed, cost.widths, cost.exponents, owners, strict=True):
        used = [(int(w), float(e)) for w, e in zip(widths, exponents, strict=True) if w < len(cost.fixed) and e]
        key = (int(side), tuple(w for w, _ in used), tuple(e for _, e in used))
        sums[key] = sums.get(key, 0.0) + float(coefficient)
    return sums


def value(told: dict[str, Any], shares: list[float]) -> float:
    """A cost where such shares of the units of groups stay; a latency in microseconds."""
    sizes = [sum(n * float(np.prod([shares[k] for k in places])) for n, places in size) for size in told["sizes"]]
    work = np.zeros(len(told.get("sides", ("all",))))
    for coefficient, widths, powers, *side in told["terms"]:
        factors = [sizes[w] ** e if sizes[w] else 0.0 for w, e in zip(widths, powers, strict=True)]
        work[side or 0] += coefficient * float(np.prod(factors))
    if "sides" not in told:
        return float(work[0])
    longest: dict[int, float] = {}
    for amount, (part, *curve) in zip(work, told["sides"], strict=True):
        longest[part] = max(longest.get(part, 0.0), _at(float(amount), *curve) if curve else amount)
    return float(told["fixed"] + told["rate"] * sum(longest.values()))


def _at(work: float, knots: list[float], us: list[float]) -> float:
    """The time that a curve has at some work; below its first knot in proportion."""
    return float(np.interp(work, [0.0, *knots], [0.0 if knots[0] > 0 else us[0], *us]))
