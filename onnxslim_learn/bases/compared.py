"""Units that meet in products of two activations: queries and keys of attention heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.linalg

from onnxslim_learn.array_types import Array, Labels, sample_count
from onnxslim_learn.bases.find import Space, owners
from onnxslim_learn.coupling.relations import Digit, Value, parts
from onnxslim_learn.runtime.executor import streamed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from onnxslim_learn.coupling.records import Contraction
    from onnxslim_learn.coupling.solver import Coupling


SAMPLES = 64  # that count, or a few more: a head has few units, and every token is a row
_Sums: TypeAlias = dict[tuple[int, ...], tuple[Any, Any, int]]


def bases(coupling: Coupling, known: Sequence[Space], feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Rotations of the spaces that are summed over where two activations are multiplied; rows are directions.

    What is lost with directions ``U`` is ``tr(Uᵀ Q U Uᵀ K U)`` of second moments of both sides, for which the
    eigenvectors of their geometric mean are taken: the best ones where the moments commute.

    Args:
        coupling: The model.
        known: Its spaces.
        feeds: Samples, a mapping per batch.
    """
    meetings = list(_meetings(coupling, known))
    if not meetings:
        return {}
    sides_by_name: dict[str, list[tuple[Contraction, int]]] = {}
    for side, contraction in ((side, pair[side]) for pair in meetings for side in (0, 1)):
        name = str(coupling.nodes[contraction.node].inputs[contraction.slot].name)  # type: ignore[union-attr]
        sides_by_name.setdefault(name, []).append((contraction, side))
    sums: dict[tuple[int, int, int], _Sums] = {}
    for _, values in streamed(coupling.graph.model, _some(feeds), list(sides_by_name)):
        for name, array in values.items():
            for contraction, side in sides_by_name[name]:
                _count(sums, array, contraction, side)
    sides: dict[tuple[int, int], Array] = {}
    for pair in meetings:
        for side in (0, 1):
            for space, moments in _moments(coupling, known, pair[side], sums, side):
                sides[space, side] = sides.get((space, side), 0.0) + moments
    both = {space for space, side in sides if (space, 1 - side) in sides}
    both = {space for space in both if all(np.isfinite(sides[space, side]).all() for side in (0, 1))}
    return {known[space].name: between(sides[space, 0], sides[space, 1]) for space in sorted(both)}


def _meetings(coupling: Coupling, known: Sequence[Space]) -> Iterator[tuple[Contraction, Contraction]]:
    """Both sides of every product of two activations over a space."""
    owner = owners(coupling, known)
    fixed = coupling.graph.shapes.analysis.constant
    meeting: dict[int, list[Contraction]] = {}
    for record in coupling.records.contractions:
        name = str(coupling.nodes[record.node].inputs[record.slot].name)  # type: ignore[union-attr]
        labels = [d.labels for a in record.axes for d in record.value.axes[a] if d.labels is not None]
        columns = [coupling.column[coupling.strong[one[one > 0]]] for one in labels]
        if name not in fixed and any((owner[one] >= 0).any() for one in columns):
            meeting.setdefault(record.node, []).append(record)
    yield from (tuple(pair) for pair in meeting.values() if len(pair) == 2)  # type: ignore[misc]


def _some(feeds: Sequence[Mapping[str, Array]]) -> Sequence[Mapping[str, Array]]:
    """The first batches, with so many samples."""
    counts = np.cumsum([sample_count([feed]) for feed in feeds])
    return feeds[: int(np.searchsorted(counts, SAMPLES)) + 1]


def _count(sums: dict[tuple[int, int, int], _Sums], array: Array, contraction: Contraction, side: int) -> None:
    """Count an activation in: for every digit that is summed over, by the digits that it depends on."""
    for number, digit in enumerate(_summed(contraction)):
        totals = sums.setdefault((id(contraction), side, number), {})
        for row, lines in _lines(array, contraction.value, digit):
            rows, products, count = totals.get(row, (0.0, 0.0, 0))
            totals[row] = (rows + lines.sum(axis=0), products + lines.T @ lines, count + len(lines))


def _summed(contraction: Contraction) -> list[Digit]:
    return [d for a in contraction.axes for d in contraction.value.axes[a] if d.labels is not None]


def _moments(
    coupling: Coupling,
    known: Sequence[Space],
    contraction: Contraction,
    sums: Mapping[tuple[int, int, int], _Sums],
    side: int,
) -> Iterator[tuple[int, Array]]:
    """Second moments of every space in one side of a product; of keys without the mean, which changes no attention."""
    owner = owners(coupling, known)
    for number, digit in enumerate(_summed(contraction)):
        for row, (rows, products, count) in sums.get((id(contraction), side, number), {}).items():
            labels: Labels = digit.labels[row]  # type: ignore[index]
            columns = np.where(labels > 0, coupling.column[coupling.strong[labels]], -1)
            mean = rows / count if side else 0.0 * rows
            moments = products / count - np.outer(mean, mean)
            for space in np.unique(owner[columns][owner[columns] >= 0]).tolist():
                copies = known[space].copies(columns)
                for at in copies if copies is not None else ():
                    yield space, moments[np.ix_(at, at)]


def _lines(array: Array, value: Value, digit: Digit) -> Iterator[tuple[tuple[int, ...], Array]]:
    """An activation along a digit, ``(places, size)``, for every index of the digits that it depends on."""
    spoken = parts(value, {digit.key, *digit.deps}, range(len(value.axes)))
    sizes: list[int] = []
    where: dict[int, int] = {}
    for axis, length in enumerate(array.shape):
        inside = [part for part in spoken.parts if part.axis == axis]
        for part in inside:
            if part.key is not None:
                where[part.key] = len(sizes)
            sizes.append(part.size if part.key is not None else length // spoken.fixed(axis))
        sizes += [] if inside else [length]
    split = array.reshape(sizes).astype(np.float64)
    moved = np.moveaxis(split, [*(where[key] for key in digit.deps), where[digit.key]], [*range(len(digit.deps)), -1])
    for row in np.ndindex(moved.shape[: len(digit.deps)]):
        yield row, moved[row].reshape(-1, digit.size)


def between(queries: Array, keys: Array) -> Array:
    """An orthogonal matrix whose first rows are the directions in which two sides have most in common."""
    size = len(queries)
    first, second = (m + RIDGE * max(float(np.trace(m)) / size, 1e-30) * np.eye(size) for m in (queries, keys))
    values, vectors = scipy.linalg.eigh(first)
    values = np.maximum(values, max(float(values[-1]), 1e-30) * np.finfo(np.float32).eps)
    root, inverse = (vectors * values**power @ vectors.T for power in (0.5, -0.5))
    inner, axes = scipy.linalg.eigh(inverse @ second @ inverse)
    mean = root @ (axes * np.sqrt(np.maximum(inner, 0)) @ axes.T) @ root
    result: Array = scipy.linalg.eigh((mean + mean.T) / 2)[1][:, ::-1].T
    return result


RIDGE = 1e-3  # of the mean square
