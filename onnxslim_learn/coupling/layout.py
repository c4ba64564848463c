"""The few moves that operators make with axis layouts: split, fuse, regroup, permute, take, drop.

Every move appends relations between atoms; nothing is solved here.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Labels
from onnxslim_learn.coupling.relations import (
    Axis,
    Digit,
    Grid,
    Pin,
    Relation,
    Relations,
    Value,
    in_rows,
    lacked,
    over,
    row_atoms,
)
from onnxslim_learn.errors import MisfitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "Axis",
    "Digit",
    "Grid",
    "Labels",
    "Pin",
    "Relation",
    "Relations",
    "Value",
    "in_rows",
    "lacked",
    "over",
    "row_atoms",
]


LARGEST = 1 << 20  # atoms in one label array; beyond, its digit is pinned and free instead
TOO_DEEP = "has too many rows within rows to track"


def spread(labels: Labels, deps: Sequence[int], target: Sequence[int], sizes: Mapping[int, int]) -> Labels:
    """Broadcast labels ``(*deps, n)`` to ``(*target, n)``; ``deps`` is a subset of ``target``."""
    return over(labels, (*deps, -1), (*target, -1), {**sizes, -1: labels.shape[-1]})


def rebuild(value: Value, new: Mapping[int, Sequence[Digit]]) -> Value:
    """Put digits in place of others in a value (its dependants already in ``new``)."""
    return Value(tuple(tuple(d for old in axis for d in new.get(old.key, (old,))) for axis in value.axes))


def split(relations: Relations, value: Value, key: int, outer: int) -> Value:
    """Split a digit of size n into ``outer`` × n/outer.

    Labels that vary along one factor only stay with it. Else the outer factor gets fresh row atoms and the inner one
    keeps the labels as cells, under the law that kept rows keep equal counts.
    """
    digit = value.digits[key]
    inner = digit.size // outer
    new: dict[int, Sequence[Digit]] = {}
    if digit.labels is None:
        first, second = relations.digit(outer), relations.digit(inner)
    else:
        cells = digit.labels.reshape(*digit.labels.shape[:-1], outer, inner)
        if (cells == cells[..., :1]).all():
            first, second = relations.digit(outer, cells[..., 0], digit.deps), relations.digit(inner)
        elif (cells == cells[..., :1, :]).all():
            first, second = relations.digit(outer), relations.digit(inner, cells[..., 0, :], digit.deps)
        else:
            rows = _rows(relations, cells)
            inside, outside = in_rows(value.digits, digit, rows), row_atoms(value.digits, digit)
            for atoms in outside:
                relations.place(inside, atoms[:, None])
            if outside and outer > 1:  # rows within rows: every outer row that stays keeps as many inner ones
                relations.grids.append(Grid(relations.node, inside, outside))
            first = relations.digit(outer, rows, digit.deps)
            second = relations.digit(inner, cells, (*digit.deps, first.key))
    new[key] = (first, second)
    for other in value.digits.values():
        if key in other.deps:
            assert other.labels is not None
            place = other.deps.index(key)
            shape = other.labels.shape
            labels = other.labels.reshape(*shape[:place], outer, inner, *shape[place + 1 :])
            deps = (*other.deps[:place], first.key, second.key, *other.deps[place + 1 :])
            new[other.key] = (Digit(other.key, other.size, labels, deps),)
    return rebuild(value, new)


def _rows(relations: Relations, cells: Labels) -> Labels:
    """Row atoms of a split, the same for every view of the same labels."""
    memo = (*cells.shape[-2:], hashlib.blake2b(np.ascontiguousarray(cells).tobytes()).digest())
    if memo not in relations.splits:
        rows = relations.fresh(*cells.shape[:-1])
        relations.place(cells, rows[..., None])
        relations.grids.append(Grid(relations.node, cells.reshape(-1, cells.shape[-1]), (rows.reshape(-1),)))
        relations.splits[memo] = rows
    return relations.splits[memo].reshape(cells.shape[:-1])  # other rows may have the same labels


def fuse(relations: Relations, value: Value, axis: int) -> Value:
    """Make one digit of an axis."""
    return fuse_digits(relations, value, value.axes[axis]) if len(value.axes[axis]) > 1 else value


def fuse_digits(relations: Relations, value: Value, run: Axis) -> Value:
    """Make one digit of adjacent digits of one axis, and let what depends on them depend on it."""
    keys = [d.key for d in run]
    sizes = {d.key: d.size for d in value.digits.values()}
    outer = tuple(dict.fromkeys(k for d in run for k in d.deps if k not in keys))
    total = math.prod(d.size for d in run)
    if math.prod(sizes[k] for k in outer) * total > LARGEST and any(d.labels is not None for d in run):
        for digit in run:
            relations.pin(digit, "the fused axis is too long to track", value.digits)
        labels = None
    else:
        labels = _fused_labels(relations, run, outer, sizes)
    flat = relations.digit(total, labels, outer)
    new: dict[int, Sequence[Digit]] = dict.fromkeys(keys, ())
    new[keys[0]] = (flat,)
    for other in value.digits.values():
        if other.key not in keys and any(k in keys for k in other.deps):
            new[other.key] = (_depend_on(relations, other, run, flat, sizes),)
    return rebuild(value, new)


def _fused_labels(relations: Relations, run: Axis, outer: tuple[int, ...], sizes: Mapping[int, int]) -> Labels | None:
    """Labels of a fused digit, shape ``(*outer, n)``."""
    keys = tuple(d.key for d in run)
    labelled = [d for d in run if d.labels is not None]
    if not labelled:
        return None
    axes = (*outer, *keys)
    shape = [sizes[k] for k in axes]

    def cells_of(digit: Digit) -> Labels:
        assert digit.labels is not None
        return over(digit.labels, (*digit.deps, digit.key), axes, sizes)

    tops = [d for d in labelled if not any(d.key in other.deps for other in labelled)]
    flat_shape = (*(sizes[k] for k in outer), math.prod(d.size for d in run))
    if len(tops) > 1:
        cells = _crossed(relations, [(d, cells_of(d)) for d in tops], axes, labelled)
        return np.ascontiguousarray(np.broadcast_to(cells, shape)).reshape(flat_shape)
    (top,) = tops
    inside = [k for k in top.deps if k in keys]
    if any(keys.index(k) > keys.index(top.key) for k in inside):
        cells, known = cells_of(top), {d.key: d for d in run}
        labelled_rows = {k: cells_of(known[k]) for k in inside if known[k].labels is not None}
        for k in inside:  # a transposed merge interleaves rows: their kept columns must be the same
            place, rows = axes.index(k), [labelled_rows[k]] if k in labelled_rows else []
            rows += [row.take([0], axis=place) for row in rows]
            relations.tie_columns(cells, cells.take([0], axis=place), rows, under=False)
        order = (*(k for k in outer if k in top.deps), *inside, top.key)
        _keep_alike(relations, [_along(a, axes, order) for a in (cells, *labelled_rows.values())], len(inside))
    return np.ascontiguousarray(cells_of(top)).reshape(flat_shape)


def _along(labels: Labels, axes: Sequence[int], order: Sequence[int]) -> Labels:
    """Labels over ``axes`` as labels over those in ``order``, in that order, where they depend on no other."""
    picked = labels[tuple([slice(None) if k in order else 0 for k in axes])]
    return picked.transpose([[k for k in axes if k in order].index(k) for k in order])


def _keep_alike(relations: Relations, labels: Sequence[Labels], inside: int) -> None:
    """State that the rows of the last axis keep the same columns: those that differ along ``inside`` axes before it.

    ``labels`` are the cells, and rows of them, of one shape.
    """
    size = labels[0].shape[-1]
    blocks = [a.reshape(math.prod(a.shape[: -1 - inside]), -1, size) for a in labels]
    for cells, *rows in zip(*blocks, strict=True):
        relations.alike.append(Grid(relations.node, cells, tuple(row[:, 0] for row in rows)))


def _crossed(
    relations: Relations, tops: Sequence[tuple[Digit, Labels]], axes: tuple[int, ...], labelled: Sequence[Digit]
) -> Labels:
    """Fresh cells where digits that do not depend on each other meet: rows of the first, columns of the others.

    ``tops`` come with their labels over ``axes``; the result has those axes, of length 1 where nothing depends on one.
    """
    need = [k for k in axes if any(k == d.key or k in d.deps for d in labelled)]
    picks = tuple([slice(None) if k in need else slice(0, 1) for k in axes])
    first, *others = [labels[picks] for _, labels in tops]
    cells = relations.fresh(*first.shape)
    relations.place(cells, first)
    for other in others:
        relations.tie_columns(cells, other, [first])
    if len(tops) == 2:
        last = axes.index(tops[1][0].key)
        moved, rows = np.moveaxis(cells, last, -1), np.moveaxis(first, last, -1)[..., 0].reshape(-1)
        relations.grids.append(Grid(relations.node, moved.reshape(-1, moved.shape[-1]), (rows,)))
    return cells


def _depend_on(relations: Relations, digit: Digit, run: Axis, flat: Digit, sizes: Mapping[int, int]) -> Digit:
    """A dependant of fused digits, with labels over the fused one instead."""
    assert digit.labels is not None
    keys = [d.key for d in run]
    index = dict(zip(keys, np.unravel_index(np.arange(flat.size), [d.size for d in run]), strict=True))
    rest = tuple(k for k in digit.deps if k not in keys)
    moved = digit.labels.transpose(*(digit.deps.index(k) for k in (*rest, *(k for k in keys if k in digit.deps))), -1)
    chosen: list[Any] = [slice(None) for _ in rest] + [index[k] for k in keys if k in digit.deps]
    large = math.prod(sizes[k] for k in rest) * flat.size * digit.size > LARGEST
    if large or any(k not in rest for k in flat.deps):
        relations.pins.append(Pin(relations.node, digit.labels.reshape(-1), TOO_DEEP, weak=False))
        return Digit(digit.key, digit.size)
    picked = moved[tuple(chosen)]
    if any(d.labels is not None and d.key not in digit.deps for d in run):
        assert flat.labels is not None
        cells = relations.fresh(*picked.shape)
        labels = spread(flat.labels, flat.deps, rest, sizes)
        relations.tie_columns(cells, picked, [labels[..., None]])
        relations.place(cells, labels[..., None])
        relations.grids.append(Grid(relations.node, cells.reshape(-1, digit.size), (labels.reshape(-1),)))
        picked = cells
    return Digit(digit.key, digit.size, picked, (*rest, flat.key))


def regroup(relations: Relations, value: Value, shape: Sequence[int]) -> Value:
    """Reshape: the row-major digit sequence cut anew into axes of the given sizes.

    A digit is split only where a target boundary falls inside it; where boundaries do not nest, the run of digits
    between two common boundaries is fused and split again.

    Raises:
        MisfitError: If the sizes have another product.
    """
    if 0 in shape:
        relations.pin_axes(value, range(len(value.axes)), "has no entries at the sizes that were looked at")
        return relations.free(shape)
    if math.prod(value.shape) != math.prod(shape):
        before, after = ("x".join(map(str, sizes)) for sizes in (value.shape, shape))
        raise MisfitError(f"{before} cannot be seen as {after}.", [(math.prod(value.shape), math.prod(shape))])
    value = Value((tuple(d for axis in value.axes for d in axis),))
    done: list[int] = []  # digits per target axis
    for size in shape:
        taken, product = 0, 1
        start = sum(done)
        while product < size:
            digit = value.axes[0][start + taken]
            if (size // product) % digit.size == 0 and size % product == 0:
                product, taken = product * digit.size, taken + 1
                continue
            wanted = size // product
            if size % product or digit.size % wanted:
                value = _fuse_common(relations, value, start, shape[len(done) :])
                taken, product = 0, 1
                continue
            value = split(relations, value, digit.key, wanted)
            product, taken = size, taken + 1
        done.append(taken)
    bounds = list(itertools.accumulate(done, initial=0))
    flat = value.axes[0]
    value = Value(tuple(flat[a:b] for a, b in itertools.pairwise(bounds)))
    return canonical(relations, value)


def _fuse_common(relations: Relations, value: Value, start: int, shape: Sequence[int]) -> Value:
    """Fuse the digits from ``start`` to the next boundary that digits and target axes share."""
    digits = value.axes[0][start:]
    ends = set(itertools.accumulate((d.size for d in digits), lambda a, b: a * b))
    product = 1
    for size in shape:
        product *= size
        if product > 1 and product in ends and product != digits[0].size:
            break
    count, reached = 0, 1
    while reached < product:
        reached *= digits[count].size
        count += 1
    return fuse_digits(relations, value, digits[:count])


def canonical(relations: Relations, value: Value) -> Value:
    """Fuse adjacent digits of one axis of which one depends on the other: a plain channel axis stays one digit."""
    for axis in value.axes:
        for first, second in itertools.pairwise(axis):
            nested = first.key in second.deps and first.labels is not None
            shuffled = second.key in first.deps and second.labels is not None
            if nested or shuffled:
                return canonical(relations, fuse_digits(relations, value, (first, second)))
    return value


def permute(value: Value, order: Sequence[int]) -> Value:
    """Transpose: axes in another order."""
    return Value(tuple(value.axes[axis] for axis in order))


def take(relations: Relations, value: Value, axis: int, index: np.ndarray[Any, Any], size: int) -> Value:
    """Pick positions along an axis of one digit; at least one picked position must stay.

    Args:
        relations: Where relations go.
        value: The layout.
        axis: Which axis; it is fused first.
        index: Positions, one-dimensional.
        size: Length of the axis in the result (``len(index)``).
    """
    value = fuse(relations, value, axis)
    if not value.axes[axis]:
        return Value((*value.axes[:axis], relations.axis(size), *value.axes[axis + 1 :]))
    digit = value.axes[axis][0]
    new: dict[int, Sequence[Digit]] = {}
    if digit.labels is None:
        fresh = relations.axis(size)
    else:
        labels = np.ascontiguousarray(digit.labels[..., index])
        note_part(relations, value, digit, labels)
        if len(index) and index[0] > 0:
            note_part(relations, value, digit, digit.labels[..., : index[0]], least=0)
        fresh = (relations.digit(size, labels, digit.deps),) if size != 1 else ()
    new[digit.key] = fresh
    for other in value.digits.values():
        if digit.key in other.deps:
            assert other.labels is not None
            picked = np.take(other.labels, index, axis=other.deps.index(digit.key))
            if fresh:
                deps = tuple(fresh[0].key if k == digit.key else k for k in other.deps)
            else:
                picked = picked.squeeze(other.deps.index(digit.key))
                deps = tuple(k for k in other.deps if k != digit.key)
            new[other.key] = (Digit(other.key, other.size, np.ascontiguousarray(picked), deps),)
    return rebuild(value, new)


def note_part(relations: Relations, value: Value, digit: Digit, labels: Labels, least: int = 1) -> None:
    """State that a part of a digit keeps something, and as much in every row."""
    if least:
        relations.some.append((relations.node, labels.reshape(-1)))
        relations.leaves.append((relations.node, labels))
    if digit.deps:
        cells = in_rows(value.digits, digit, labels)
        relations.grids.append(Grid(relations.node, cells, row_atoms(value.digits, digit), least))


def drop(relations: Relations, value: Value, axes: Iterable[int], *, keep: bool = False) -> Value:
    """Remove axes (or keep them with size 1); what depended on them is freshly labelled and tied as columns."""
    gone = {d.key for a in axes for d in value.axes[a]}
    value = forget(relations, value, gone)
    if keep:
        return Value(tuple(() if a in set(axes) else axis for a, axis in enumerate(value.axes)))
    return Value(tuple(axis for a, axis in enumerate(value.axes) if a not in set(axes)))


def forget(relations: Relations, value: Value, gone: set[int]) -> Value:
    """Make no digit depend on the given ones."""
    known = value.digits
    sizes = {d.key: d.size for d in known.values()}
    new: dict[int, Sequence[Digit]] = {}
    for digit in sorted(known.values(), key=lambda d: len(d.deps)):
        if digit.key in gone or gone.isdisjoint(digit.deps):
            continue
        assert digit.labels is not None
        rest = tuple(k for k in digit.deps if k not in gone)
        labels = relations.fresh(*(sizes[k] for k in rest), digit.size)
        rows = lacked(known, digit.deps, rest, digit.size)
        relations.tie_columns(digit.labels, spread(labels, rest, digit.deps, sizes), rows)
        for row in (known[k] for k in rest):
            if row.labels is not None:
                relations.place(labels, over(row.labels, (*row.deps, row.key), rest, sizes)[..., None])
        known[digit.key] = Digit(digit.key, digit.size, labels, rest)
        new[digit.key] = (known[digit.key],)
    return rebuild(value, new)
