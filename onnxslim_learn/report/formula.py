"""Costs as a formula in the widths of groups, for pages in which widths are chosen: nothing is run to evaluate it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from onnxslim_learn.registry import MACS, PARAMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Mask
    from onnxslim_learn.costs.polynomial import Cost
    from onnxslim_learn.coupling.groups import Group

MOST = 400  # groups, and
CELLS = 50_000_000  # of a table of groups and classes, and
TERMS = 4000  # terms of a cost: a page with more would be slow


def formula(analysis: Analysis) -> dict[str, Any] | None:
    """What every cost is for any share of the units of each group, as plain data; ``None`` for very large models.

    A size is the sum, over ``parts``, of positions times the product of the shares that stay of the groups that these
    positions go with; a cost is the sum, over ``terms``, of a coefficient times a product of powers of sizes. That is
    exact where all units of a group have equally many positions.

    Returns:
        ``groups`` (names), and for each of ``macs`` and ``params``: ``sizes``, each a list of ``[positions, places of
        groups]``; ``terms``, each ``[coefficient, places of sizes, exponents]``.
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
    return {"groups": [group.name for group in free], **{name: _written(cost, parts) for name, cost in costs.items()}}


def _parts(analysis: Analysis, groups: Sequence[Group]) -> dict[tuple[int, ...], Any]:
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


def _written(cost: Cost, parts: dict[tuple[int, ...], Any]) -> dict[str, Any]:
    """Sizes and terms of a cost; terms of the same sizes are one."""
    sizes: list[list[Any]] = [[[float(fixed), []]] if fixed else [] for fixed in cost.fixed]
    counts = cost.counts.tocsc()
    for places, classes in parts.items():
        positions = np.asarray(counts[:, classes].sum(axis=1)).reshape(-1)
        for size in np.flatnonzero(positions):
            sizes[size].append([float(positions[size]), list(places)])
    sums: dict[tuple[tuple[int, ...], tuple[float, ...]], float] = {}
    for coefficient, widths, exponents in zip(cost.coefficients, cost.widths, cost.exponents, strict=True):
        used = [(int(w), float(e)) for w, e in zip(widths, exponents, strict=True) if w >= 0 and e]
        key = (tuple(w for w, _ in used), tuple(e for _, e in used))
        sums[key] = sums.get(key, 0.0) + float(coefficient)
    return {"sizes": sizes, "terms": [[total, list(w), list(e)] for (w, e), total in sums.items()]}


def value(told: dict[str, Any], shares: list[float]) -> float:
    """A cost where such shares of the units of groups stay."""
    sizes = [sum(n * float(np.prod([shares[k] for k in places])) for n, places in size) for size in told["sizes"]]
    return float(
        sum(
            coefficient
            * float(np.prod([sizes[w] ** e if sizes[w] else 0.0 for w, e in zip(widths, powers, strict=True)]))
            for coefficient, widths, powers in told["terms"]
        )
    )
