"""Which units can be mixed: all that carries them meets only operators that do not tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Labels, Mask
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.context import NodeContext
from onnxslim_learn.coupling.roles import Trait

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.solver import Coupling


@dataclass(frozen=True)
class Space:
    """Units whose basis is free: any orthogonal matrix may mix them.

    Attributes:
        name: The group, and which of its strata (heads) it is.
        columns: Column of each unit.
    """

    name: str
    columns: Labels

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.columns)

    @property
    def group(self) -> str:
        """The group whose units they are."""
        return self.name.rpartition("|")[0]

    def copies(self, columns: Labels) -> Labels | None:
        """Where its units lie among some columns, a row for each time; ``None`` if some are there more often."""
        order = np.argsort(self.columns)
        here = np.flatnonzero(np.isin(columns, self.columns))
        rank = order[np.searchsorted(self.columns[order], columns[here])]
        times = np.bincount(rank, minlength=self.size)
        if (times != times[0]).any():
            return None
        copies: Labels = here[np.argsort(rank, kind="stable")].reshape(self.size, times[0]).T
        apart = copies[1:].min(axis=1, initial=len(columns)) > copies[:-1].max(axis=1, initial=-1)
        return copies if apart.all() else None


def spaces(coupling: Coupling, groups: Sequence[Group]) -> list[Space]:
    """The spaces of a model, those of one group one after the other; none where numbers are rounded to a grid.

    Args:
        coupling: The model.
        groups: Its groups; those that are pinned stay as they are.
    """
    if any(roles.has(node, Trait.QUANTIZES) for node in coupling.nodes):
        return []  # what is rounded after a rotation is rounded elsewhere
    apart = told_apart(coupling)
    rows = np.zeros(coupling.columns, bool)
    rows[coupling.column[coupling.is_row]] = True
    candidates: list[Space] = []
    for group in groups:
        if group.pin is None and not (apart | rows)[group.units].any():
            parts = [Space(f"{group.name}|{k}", group.units[part]) for k, part in enumerate(group.strata)]
            candidates += parts if all(part.size > 1 for part in parts) else []
    whole = {space.group for space in _broken(coupling, candidates)}
    return [space for space in candidates if space.group not in whole]


def told_apart(coupling: Coupling, passed_over: Container[int] = ()) -> Mask:
    """Columns that some node tells apart, or that lie in a tensor of other than floating numbers.

    Args:
        coupling: The model.
        passed_over: Nodes that do not count.
    """
    graph, apart = coupling.graph, np.zeros(coupling.columns, bool)
    kinds = graph.shapes.analysis.dtype

    def mark(labels: Labels | None) -> None:
        if labels is not None:
            apart[coupling.column[coupling.strong[labels[labels > 0]]]] = True

    for name, value in coupling.values.items():
        if name in kinds and not ir.DataType(kinds[name]).is_floating_point():
            for digit in value.digits.values():
                mark(digit.labels)
    for index, node in enumerate(coupling.nodes):
        if index in passed_over or graph.shapes.is_arithmetic(node):
            continue
        version = graph.model.opset_imports.get(node.domain, 1)
        told = (coupling.relations, graph.shapes, coupling.values, coupling.records)
        for digit in roles.of(node).apart(NodeContext(node, index, version, *told, sensitive=False)):
            mark(digit.labels)
    return apart


def _broken(coupling: Coupling, candidates: Sequence[Space]) -> list[Space]:
    """Those of which a tensor has only a part along an axis, or some units more often than others."""
    owner = owners(coupling, candidates)
    wrong: set[int] = set()
    for labels in _label_rows(coupling):
        for row in np.where(labels > 0, coupling.column[coupling.strong[labels]], -1):
            ids = owner[row]
            wrong |= {k for k in np.unique(ids[ids >= 0]).tolist() if candidates[k].copies(row) is None}
    return [candidates[k] for k in wrong]


def owners(coupling: Coupling, known: Sequence[Space]) -> Labels:
    """For every column the number of its space, -1 without one; one more entry for what is pinned."""
    owner = np.full(coupling.columns + 1, -1)
    for number, space in enumerate(known):
        owner[space.columns] = number
    return owner


def _label_rows(coupling: Coupling) -> Iterator[Labels]:
    """All label arrays of all tensors, each once, as rows x positions."""
    seen: dict[int, Labels] = {}
    for value in coupling.values.values():
        for digit in value.digits.values():
            if digit.labels is not None and id(digit.labels) not in seen:
                seen[id(digit.labels)] = digit.labels
                yield digit.labels.reshape(-1, digit.labels.shape[-1])
