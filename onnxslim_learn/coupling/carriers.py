"""Where a unit's presence can be multiplied in: the values that carry its label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling


def carriers(coupling: Coupling, groups: Sequence[Group]) -> Array:
    """For every class the units whose removal takes it, ``[classes, most]``: 1 + place among all units, 0 for none."""
    units = np.concatenate([np.zeros(0, np.int64), *(group.units for group in groups)])
    where = np.full(coupling.columns, -1, np.int64)
    where[units] = np.arange(len(units))
    classes = np.flatnonzero(where[coupling.column] >= 0)
    shape = (coupling.size, len(units))
    goes = sp.csr_matrix((np.ones(len(classes), np.int32), (classes, where[coupling.column[classes]])), shape=shape)
    rows = sp.diags(coupling.is_row.astype(np.int32), dtype=np.int32)
    counts = np.asarray(coupling.membership.sum(axis=0)).reshape(-1)
    while True:
        before = goes.nnz
        goes = goes + coupling.membership @ (rows @ goes) + coupling.under @ goes
        goes.data[:] = 1
        cells = (coupling.membership.T @ goes).tocoo()  # a row goes with all its cells
        full = cells.data == counts[cells.row]
        extra = (np.ones(int(full.sum()), np.int32), (cells.row[full], cells.col[full]))
        goes = (goes + rows @ sp.csr_matrix(extra, shape=shape)).tocsr()
        goes.data[:] = 1
        if goes.nnz == before:
            break
    many = np.diff(goes.indptr)
    units_of_class = np.zeros((coupling.size, max(int(many.max(initial=0)), 1)), np.int64)
    place = np.arange(goes.nnz) - np.repeat(goes.indptr[:-1], many)
    units_of_class[np.repeat(np.arange(coupling.size), many), place] = goes.indices + 1
    return units_of_class
