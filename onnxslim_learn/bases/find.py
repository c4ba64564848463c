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
    from collections.abc import Iterator, Sequence

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

    def places(self, columns: Labels) -> Labels | None:
        """Where its units lie among some columns; ``None`` if they do not."""
        order = np.argsort(columns, kind="stable")
        at: Labels = order[np.minimum(np.searchsorted(columns[order], self.columns), len(order) - 1)]
        return at if (columns[at] == self.columns).all() else None


def spaces(coupling: Coupling, groups: Sequence[Group]) -> list[Space]:
    """The spaces of a model, those of one group one after the other; none where numbers are rounded to a grid.

    Args:
        coupling: The model.
        groups: Its groups; those that are pinned stay as they are.
    """
    if any(roles.has(node, Trait.QUANTIZES) for node in coupling.nodes):
        return []  # what is rounded after a rotation is rounded elsewhere
    apart = _told_apart(coupling)
    rows = np.zeros(coupling.columns, bool)
    rows[coupling.column[coupling.is_row]] = True
    candidates: list[Space] = []
    for group in groups:
        if group.pin is None and not (apart | rows)[group.units].any():
            parts = [Space(f"{group.name}|{k}", group.units[part]) for k, part in enumerate(group.strata)]
            candidates += parts if all(part.size > 1 for part in parts) else []
    broken = _broken(coupling, candidates)
    whole = {space.name.rpartition("|")[0] for space in broken}
    return [space for space in candidates if space.name.rpartition("|")[0] not in whole]


def _told_apart(coupling: Coupling) -> Mask:
    """Columns that some node tells apart, or that lie in a tensor of other than floating numbers."""
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
        if graph.shapes.is_arithmetic(node):
            continue
        version = graph.model.opset_imports.get(node.domain, 1)
        told = (coupling.relations, graph.shapes, coupling.values, coupling.records)
        for digit in roles.of(node).apart(NodeContext(node, index, version, *told, sensitive=False)):
            mark(digit.labels)
    return apart


def _broken(coupling: Coupling, candidates: Sequence[Space]) -> list[Space]:
    """Those of which a tensor has only a part, or some units several times, along one axis."""
    owner, size = np.full(coupling.columns + 1, -1), np.array([space.size for space in candidates])
    for number, space in enumerate(candidates):
        owner[space.columns] = number
    wrong = np.zeros(len(candidates), bool)
    for labels in _label_rows(coupling):
        columns = np.where(labels > 0, coupling.column[coupling.strong[labels]], -1)
        row, place = np.nonzero(owner[columns] >= 0)
        here = columns[row, place]
        pairs, times = np.unique(np.stack([row, here], axis=1), axis=0, return_counts=True)
        wrong[owner[pairs[times > 1, 1]]] = True
        parts, counts = np.unique(np.stack([row, owner[here]], axis=1), axis=0, return_counts=True)
        wrong[parts[counts != size[parts[:, 1]], 1]] = True
    return [space for space, is_wrong in zip(candidates, wrong, strict=True) if is_wrong]


def _label_rows(coupling: Coupling) -> Iterator[Labels]:
    """All label arrays of all tensors, each once, as rows x positions."""
    seen: dict[int, Labels] = {}
    for value in coupling.values.values():
        for digit in value.digits.values():
            if digit.labels is not None and id(digit.labels) not in seen:
                seen[id(digit.labels)] = digit.labels
                yield digit.labels.reshape(-1, digit.labels.shape[-1])
