"""The one alignment primitive: same letter, same digit.

A free operand pins the others; labelled ones are tied; an initializer without labels adopts them; a letter that only an
initializer has gets fresh atoms. Broadcasting, bias, MatMul, Gemm, Einsum, Conv, norm parameters and quantization
scales are all calls of :func:`join`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.relations import Axis, Digit, Pin, Relations, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CROSSWISE = "meets rows that lie the other way round"


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of a joint.

    Attributes:
        letters: One letter per axis; ``None`` marks an axis that the joint leaves alone.
        shape: Sizes of the axes.
        axes: Digits of every axis; ``None`` for an axis of an initializer that has no labels yet.
        parts: For such an initializer, how many of these axes make up each of its own axes.
    """

    letters: tuple[str | None, ...]
    shape: tuple[int, ...]
    axes: tuple[Axis | None, ...]
    parts: tuple[int, ...] = ()

    def lettered(self) -> list[tuple[str, Axis]]:
        """The labelled axes with their letters."""
        return [(letter, axis) for letter, axis in zip(self.letters, self.axes, strict=True) if letter and axis]


@dataclass(frozen=True, slots=True)
class Joined:
    """What a joint found.

    Attributes:
        space: Every letter with its digits; they may depend on digits of other letters.
        operands: The layout of every operand with adopted axes filled in.
    """

    space: dict[str, Axis]
    operands: tuple[Value, ...]

    def seen(self, letters: Sequence[str]) -> Value:
        """These letters first, and behind them all others, whose digits they may depend on: for asking sizes."""
        return Value(tuple(self.space[letter] for letter in dict.fromkeys((*letters, *self.space))))

    def output(self, relations: Relations, letters: Sequence[str]) -> Value:
        """The layout of a tensor with these letters; other letters are contracted away."""
        rest = [letter for letter in self.space if letter not in letters]
        value = Value(tuple(self.space.get(letter, ()) for letter in (*letters, *rest)))
        return layout.drop(relations, value, range(len(letters), len(letters) + len(rest)))


def join(relations: Relations, operands: Sequence[Operand], reason: str) -> Joined:
    """Align operands letter by letter and relate their labels; ``reason`` says why a free operand pins."""
    ready = _same_structure(relations, _materialize(relations, operands))
    places: dict[tuple[str, int], int] = {}
    names: list[dict[int, int]] = []
    seen: dict[int, list[Digit]] = {}
    for operand in ready:
        letters_alone = {}
        for letter, axis in operand.lettered():
            for position, digit in enumerate(axis):
                letters_alone[digit.key] = places.setdefault((letter, position), next(relations.keys))
        names.append(letters_alone)
        for _, axis in operand.lettered():
            for digit in axis:
                seen.setdefault(letters_alone[digit.key], []).append(_rename(digit, letters_alone))
    merged = _merge_all(relations, seen, reason)
    space: dict[str, Axis] = {letter: () for op in ready for letter in op.letters if letter}
    for (letter, _), key in sorted(places.items(), key=lambda item: item[0][1]):
        space[letter] = (*space[letter], merged[key])
    adopted = tuple(_adopt(relations, op, letters_alone, space) for op, letters_alone in zip(ready, names, strict=True))
    return Joined(space, adopted)


def _rename(digit: Digit, names: Mapping[int, int]) -> Digit:
    return replace(digit, key=names[digit.key], deps=tuple(names[k] for k in digit.deps))


def _materialize(relations: Relations, operands: Sequence[Operand]) -> list[Operand]:
    """Give initializers fresh labels on each of their own axes with a letter that nobody else can lend labels for."""
    lent = {letter for operand in operands for letter, _ in operand.lettered()}
    ready = []
    for operand in operands:
        axes = list(operand.axes)
        end = 0
        for count in operand.parts or (1,) * len(axes):
            start, end = end, end + count
            view = range(start, end)
            alone = [a for a in view if axes[a] is None and operand.letters[a] and operand.shape[a] != 1]
            if all(operand.letters[a] in lent for a in alone):
                continue
            sizes = operand.shape[start:end]
            flat = Value(((relations.digit(math.prod(sizes), relations.fresh(math.prod(sizes))),),))
            axes[start:end] = layout.regroup(relations, flat, sizes).axes
        ready.append(replace(operand, axes=tuple(axes)))
        lent |= {letter for letter, _ in ready[-1].lettered()}
    return ready


def _same_structure(relations: Relations, operands: list[Operand]) -> list[Operand]:
    """Fuse the digits of every letter whose operands factor it differently."""
    structures: dict[str, set[tuple[int, ...]]] = {}
    for operand in operands:
        for letter, axis in operand.lettered():
            structures.setdefault(letter, set()).add(tuple(d.size for d in axis))
    differing = {letter for letter, factorings in structures.items() if len(factorings) > 1}
    if not differing:
        return operands
    ready = []
    for operand in operands:
        value = Value(tuple(axis or () for axis in operand.axes))
        for a, letter_of_axis in enumerate(operand.letters):
            if letter_of_axis in differing:
                value = layout.fuse(relations, value, a)
        axes = tuple(None if old is None else new for old, new in zip(operand.axes, value.axes, strict=True))
        ready.append(replace(operand, axes=axes))
    return ready


def _merge_all(relations: Relations, seen: Mapping[int, list[Digit]], reason: str) -> dict[int, Digit]:
    """Merge the digits that stand at one place, those that others depend on first."""
    merged: dict[int, Digit] = {}
    left = list(seen)
    while left:
        waiting = []
        for key in left:
            if all(dep in merged for digit in seen[key] for dep in digit.deps):
                merged[key] = _merge(relations, key, seen[key], merged, reason)
            else:
                waiting.append(key)
        if len(waiting) == len(left):  # digits of one operand depend on each other the other way round in another
            key = waiting.pop(0)
            merged[key] = _freed(relations, key, seen[key])
        left = waiting
    return merged


def _freed(relations: Relations, key: int, seen: Sequence[Digit]) -> Digit:
    """A free digit, all that operands have there pinned."""
    for digit in seen:
        if digit.labels is not None:
            relations.pins.append(Pin(relations.node, digit.labels.reshape(-1), CROSSWISE, weak=False))
    return Digit(key, seen[0].size)


def _merge(relations: Relations, key: int, seen: list[Digit], merged: Mapping[int, Digit], reason: str) -> Digit:
    """One digit for all that operands have at one place."""
    direct = dict.fromkeys(k for digit in seen for k in digit.deps)
    deps = tuple(dict.fromkeys(k for dep in direct for k in (*merged[dep].deps, dep)))
    sizes = {k: merged[k].size for k in deps}
    large = math.prod(sizes.values()) * seen[0].size > layout.LARGEST
    if large or any(digit.labels is None for digit in seen):
        for digit in seen:
            relations.pin(digit, layout.TOO_DEEP if large else reason, merged)
        return Digit(key, seen[0].size)
    spread = [layout.spread(d.labels, d.deps, deps, sizes) for d in seen if d.labels is not None]
    full = [labels for labels, digit in zip(spread, seen, strict=True) if set(digit.deps) == set(deps)]
    if full:
        base = full[0]
    else:
        base = relations.fresh(*(sizes[k] for k in deps), seen[0].size)
        for k in deps:
            row = merged[k]
            if row.labels is not None:
                relations.place(base, layout.over(row.labels, (*row.deps, k), deps, sizes)[..., None])
    for labels, digit in zip(spread, seen, strict=True):
        if set(digit.deps) == set(deps):
            relations.tie(base, labels)
        else:
            relations.tie_columns(base, labels, layout.lacked(merged, deps, digit.deps, seen[0].size))
    return Digit(key, seen[0].size, base, deps)


def _adopt(relations: Relations, operand: Operand, names: Mapping[int, int], space: Mapping[str, Axis]) -> Value:
    """The layout of an operand, with labels taken over where it had none."""
    if all(axis is not None for axis in operand.axes):
        return Value(tuple(axis or () for axis in operand.axes))
    spelled = zip(operand.letters, operand.shape, strict=True)
    keys = {d.key for letter, size in spelled if letter and size != 1 for d in space[letter]}
    axes: list[Axis] = []
    for letter, axis, size in zip(operand.letters, operand.axes, operand.shape, strict=True):
        if axis is not None:
            axes.append(tuple(_rename(d, names) for d in axis) if letter else axis)
        elif letter is None or size == 1:
            axes.append(relations.axis(size))
        else:
            axes.append(tuple(_lend(relations, d, keys, space) for d in space[letter]))
    return Value(tuple(axes))


def _lend(relations: Relations, digit: Digit, keys: set[int], space: Mapping[str, Axis]) -> Digit:
    """A digit of the joint space as an operand that has only some of its dependencies sees it."""
    if digit.labels is None or all(k in keys for k in digit.deps):
        return digit
    deps = tuple(k for k in digit.deps if k in keys)
    sizes = {d.key: d.size for axis in space.values() for d in axis}
    labels = relations.fresh(*(sizes[k] for k in deps), digit.size)
    known = {d.key: d for axis in space.values() for d in axis}
    rows = layout.lacked(known, digit.deps, deps, digit.size)
    relations.tie_columns(digit.labels, layout.spread(labels, deps, digit.deps, sizes), rows)
    return Digit(digit.key, digit.size, labels, deps)
