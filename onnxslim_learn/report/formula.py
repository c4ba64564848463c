"""Costs as a formula in the widths of groups, for pages in which widths are chosen: nothing is run to evaluate it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from onnxslim_learn.registry import MACS, PARAMS

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.polynomial import Cost

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
    parts = _parts(analysis, [np.asarray(group.units) for group in free])
    return {"groups": [group.name for group in free], **{name: _written(cost, parts) for name, cost in costs.items()}}


def _parts(analysis: Analysis, units: list[Any]) -> dict[tuple[int, ...], Any]:
    """Classes by the groups that they go with: places of groups -> classes."""
    coupling = analysis.coupling
    gone = []
    for columns in units:
        chosen = np.zeros(coupling.columns, bool)
        chosen[columns] = True
        gone.append(coupling.close(chosen))
    member = sp.csc_matrix(np.asarray(gone))
    parts: dict[tuple[int, ...], list[int]] = {}
    for number in range(coupling.size):
        places = tuple(member.indices[member.indptr[number] : member.indptr[number + 1]].tolist())
        parts.setdefault(places, []).append(number)
    return {places: np.asarray(classes) for places, classes in parts.items()}


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
