"""Operators that move data: regroup, permute, pick, join, grow. Each rule states labels and how sizes follow a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Labels
from onnxslim_learn.coupling import alignment, layout
from onnxslim_learn.coupling.context import OPEN, aligned
from onnxslim_learn.coupling.operators.facts import Operator, Trait
from onnxslim_learn.coupling.relations import PINNED, Axis, Digit, Value
from onnxslim_learn.graph.shape_arithmetic import slice_arguments, split_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.coupling.context import NodeContext
    from onnxslim_learn.coupling.records import Cut

# --- movement ---------------------------------------------------------------------------------------------------------


def reshape(context: NodeContext) -> None:
    """Regroup digits; the target follows the cut, entries of open axes by a factor."""
    context.leave(1)
    result = layout.regroup(context.relations, context.value(0), context.out_shape())
    stated = context.stated(1) if context.name(1) else []
    before, copies = context.value(0), not context.attr("allowzero", 0)
    lost = [a for a, entry in enumerate(stated) if entry == 0 and copies and _uncopied(context, before, result, a)]
    lost = lost if context.tells(1) else [a for a in range(len(result.axes)) if _shares_open(context, result, a)]
    lost += [a for a in range(len(result.axes)) if _has_open(context, before, result, a)]
    result = context.freed(result, lost, OPEN, context.out_shape()) if lost else result
    context.yields(result)

    def make(cut: Cut) -> dict[int | str, Any]:
        kept = {a for a, entry in enumerate(stated) if entry == -1}
        kept |= {a for a, entry in enumerate(stated) if entry == 0 and cut.size(result, a) == cut.size(before, a)}
        places = {a: a for a in range(len(result.axes)) if a not in kept}
        wanted = context.resized(cut, 1, result, places)
        return {1: wanted} if wanted else {}

    if context.name(1):
        context.patch(make)


def _shares_open(context: NodeContext, result: Value, axis: int) -> bool:
    """Whether an open axis of the output has labels."""
    labelled = any(d.labels is not None for d in result.axes[axis])
    return labelled and context.shapes.is_open(str(context.node.outputs[0].name), axis)


def _has_open(context: NodeContext, before: Value, result: Value, axis: int) -> bool:
    """Whether an output axis of fixed size has labels beside what was an open axis: so at these sizes alone."""
    if context.shapes.is_open(str(context.node.outputs[0].name), axis) or not context.name(0):
        return False
    digits = result.axes[axis]
    inside = {d.key for d in digits}
    opened = [{d.key for d in before.axes[a]} for a in context.varying(0)]
    return any(d.labels is not None for d in digits) and any(keys <= inside for keys in opened if keys)


def _uncopied(context: NodeContext, before: Value, after: Value, axis: int) -> bool:
    """Whether an open axis that a target copies has other labels than what it is copied from."""
    same = axis < len(before.axes) and [d.key for d in before.axes[axis]] == [d.key for d in after.axes[axis]]
    return not same and context.shapes.is_open(str(context.node.outputs[0].name), axis)


def regrouped(context: NodeContext) -> None:
    """Flatten, Squeeze, Unsqueeze: the target follows from the shapes."""
    context.yields(layout.regroup(context.relations, context.value(0), context.out_shape()))


def transpose(context: NodeContext) -> None:
    """Permute axes."""
    rank = len(context.shape(0))
    order = context.attr("perm") or range(rank)[::-1]
    context.yields(layout.permute(context.value(0), list(order)))


def blocks(*, to_space: bool) -> Operator:
    """DepthToSpace and SpaceToDepth: regroup, permute, regroup."""

    def rule(context: NodeContext) -> None:
        n, c, *space = context.shape(0)
        b = int(context.attr("blocksize"))
        strided = context.attr("mode", "DCR") == "DCR"
        relations = context.relations
        if to_space:
            inner = c // (b * b)
            view = (n, b, b, inner, *space) if strided else (n, inner, b, b, *space)
            order = (0, 3, 4, 1, 5, 2) if strided else (0, 1, 4, 2, 5, 3)
        else:
            view = (n, c, space[0] // b, b, space[1] // b, b)
            order = (0, 3, 5, 1, 2, 4) if strided else (0, 1, 3, 5, 2, 4)
        spelled = layout.regroup(relations, context.value(0), view)
        inside = ([1, 2] if strided else [2, 3]) if to_space else [3, 5]
        context.pin(spelled, inside, f"is a position inside a block of {context.node.op_type}")
        value = layout.permute(spelled, order)
        context.yields(layout.regroup(relations, value, context.out_shape()))

    return Operator(rule, traits=Trait.MOVES)


def columns(context: NodeContext) -> None:
    """Col2Im: blocks ``n (c k) l`` are added up into ``n c *image``: channels are rows of whole blocks."""
    shape, out = context.shape(0), context.out_shape()
    view = (shape[0], out[1], shape[1] // out[1], shape[2])
    value = layout.regroup(context.relations, context.value(0), view)
    value = context.freed(value, [2, 3], f"is a position inside a block of {context.node.op_type}", view)
    context.yields(Value((*value.axes[:2], *context.relations.free(out[2:]).axes)))


def expand(context: NodeContext) -> None:
    """Broadcast to a shape: axes that grow are fresh where their size is fixed, free where it is open."""
    context.leave(1)
    before, after = context.value(0), context.out_shape()
    pad = len(after) - len(before.axes)
    axes: list[Axis] = [()] * pad + list(before.axes)
    name = str(context.node.outputs[0].name)
    for a, size in enumerate(after):
        if size != 1 and (a < pad or context.shape(0)[a - pad] == 1):
            labels = None if context.shapes.is_open(name, a) else context.relations.fresh(size)
            axes[a] = (context.relations.digit(size, labels),)
    result = Value(tuple(axes))
    untold = [] if context.tells(1) else [a for a in range(len(after)) if _shares_open(context, result, a)]
    result = context.freed(result, untold, OPEN, after) if untold else result
    stated = context.stated(1)
    context.yields(result)
    first = len(after) - len(stated)  # a target may state the last axes only; 1 keeps an axis as it is
    places = {first + k: k for k, entry in enumerate(stated) if entry != 1}
    context.patch(lambda cut: {1: context.resized(cut, 1, result, places)})


def fill(context: NodeContext) -> None:
    """ConstantOfShape: axes of fixed size are fresh, others free."""
    context.leave(0)
    after = context.out_shape()
    name = str(context.node.outputs[0].name)
    labels = [
        None if n == 1 or context.shapes.is_open(name, a) else context.relations.fresh(n) for a, n in enumerate(after)
    ]
    result = Value(
        tuple(() if n == 1 else (context.relations.digit(n, label),) for n, label in zip(after, labels, strict=True))
    )
    context.yields(result)
    context.patch(lambda cut: {0: context.resized(cut, 0, result, {a: a for a in range(len(after))})})


def drawn(context: NodeContext) -> None:
    """Draw numbers by chance: as many as the first input has, or as the shape says; a seed tells which."""
    if context.attr("seed") is not None:
        for slot in context.given():
            name = str(context.name(slot))
            if name in context.values:
                context.pin(context.values[name], range(len(context.shape(slot))), "draws numbers by a seed")
        return context.yields(*context.free_outputs(0))
    if context.given():
        value = context.value(0)
        open_ones = [a for a in context.varying(0) if any(d.labels is not None for d in value.axes[a])]
        return context.yields(context.freed(value, open_ones, OPEN, context.shape(0)))
    shape = context.out_shape()
    result = Value(tuple((context.relations.digit(n, context.relations.fresh(n)),) if n != 1 else () for n in shape))
    context.yields(result)
    context.patch(lambda cut: {"shape": [cut.size(result, a) for a in range(len(shape))]})
    return None


def tile(context: NodeContext) -> None:
    """Repeat along axes: repeated positions share their labels."""
    value = context.value(0)
    repeats = context.static(1)
    for axis, (old, new) in enumerate(zip(context.shape(0), context.out_shape(), strict=True)):
        if repeats is None and old != new:
            value = context.freed(value, [axis], "is repeated a computed number of times", context.out_shape())
        elif old != new:
            value = layout.take(context.relations, value, axis, np.arange(new) % old, new)
    context.yields(value)


def concat(context: NodeContext) -> None:
    """Join end to end: other axes align, labels of the joined axis follow each other."""
    context.records.joins.add(context.index)
    _join(context, context.given())


def concat_quantized(context: NodeContext) -> None:
    """Join end to end integers; after the scale and zero point of the result, each part is followed by its own."""
    slots = context.given()[2::3]
    for slot in set(context.given()) - set(slots):
        context.leave(slot)
    _join(context, slots)


def _join(context: NodeContext, slots: Sequence[int]) -> None:
    axis = int(context.attr("axis")) % len(context.shape(slots[0]))
    fused = [layout.fuse(context.relations, context.value(slot), axis) for slot in slots]
    if (cells := _cells(fused, axis)) and not any(axis in context.varying(slot) for slot in slots):
        context.yields(_stacked(context, fused, axis, cells))
        return
    values = [_part(context, value, axis) for value in fused]
    opened = [v.axes[axis][0].labels is None and axis in context.varying(s) for v, s in zip(values, slots, strict=True)]
    values = [Value((*v.axes[:axis], (_held(v.axes[axis][0]),), *v.axes[axis + 1 :])) for v in values]
    free = any(opened) or not any(value.axes[axis][0].labels.any() for value in values)  # type: ignore[union-attr]
    if free:
        why = f"is joined with a free part by {context.node.op_type}"
        values = [context.freed(v, [axis], why, context.shape(slot)) for v, slot in zip(values, slots, strict=True)]
    # each part has a letter of its own and so keeps its digit, and what depends on it, while the other axes align
    letters = list(aligned(len(context.shape(slots[0]))))
    parts = [f"+{k}" for k in range(len(slots))]
    operands = [
        alignment.Operand(
            (*letters[:axis], None if free else part, *letters[axis + 1 :]), context.shape(slot), value.axes
        )
        for part, slot, value in zip(parts, slots, values, strict=True)
    ]
    space = alignment.join(context.relations, operands, context.met_free()).space
    space[letters[axis]] = context.relations.axis(context.out_shape()[axis]) if free else ()
    joined = Value(tuple(space[letter] for letter in letters))
    context.yields(joined if free else _put_together(context, joined, [_held(space[part][0]) for part in parts], axis))


def _cells(values: Sequence[Value], axis: int) -> list[int]:
    """Axes of cells whose rows are the positions joined, of all parts alike (units by layer and direction); or none."""
    patterns: set[tuple[int, ...]] = set()
    for value in values:
        keys = tuple(digit.key for digit in value.axes[axis])
        axes = [a for a, digits in enumerate(value.axes) if any(set(keys) & set(d.deps) for d in digits)]
        plain = all(len(value.axes[a]) == 1 and value.axes[a][0].deps == keys for a in axes)
        patterns.add(tuple(axes) if plain and len(keys) == 1 and value.axes[axis][0].labels is None else ())
    return list(patterns.pop()) if len(patterns) == 1 else []


def _stacked(context: NodeContext, values: Sequence[Value], axis: int, cells: Sequence[int]) -> Value:
    """Rows of cells one after the other: kept rows keep equal counts, other axes align."""
    letters = list(aligned(len(values[0].axes)))
    apart = [axis, *cells]
    operands = [
        alignment.Operand(
            tuple(f"+{k}.{a}" if a in apart else letter for a, letter in enumerate(letters)), value.shape, value.axes
        )
        for k, value in enumerate(values)
    ]
    space = alignment.join(context.relations, operands, context.met_free()).space
    rows = context.relations.axis(context.out_shape()[axis])
    axes = [space[letter] if a not in apart else rows for a, letter in enumerate(letters)]
    for a in cells:
        parts = [space[f"+{k}.{a}"][0] for k in range(len(values))]
        none = [np.full((value.shape[axis], value.shape[a]), PINNED) for value in values]
        labels = np.concatenate([p.labels if p.labels is not None else n for p, n in zip(parts, none, strict=True)])
        context.relations.grids.append(layout.Grid(context.relations.node, labels, ()))
        axes[a] = (context.relations.digit(labels.shape[1], labels, [rows[0].key]),)
    return Value(tuple(axes))


def _part(context: NodeContext, value: Value, axis: int) -> Value:
    """Ready a value to be a part: nothing depends on the joined axis, and size 1 is a digit that nothing can cut."""
    if value.axes[axis]:
        key = value.axes[axis][0].key
        for digit in value.digits.values():
            if key in digit.deps:
                context.relations.pin(digit, f"depends on the axis that {context.node.op_type} joins", value.digits)
        return layout.forget(context.relations, value, {key})
    single = Digit(next(context.relations.keys), 1, np.full(1, PINNED))
    return Value((*value.axes[:axis], (single,), *value.axes[axis + 1 :]))


def _held(digit: Digit) -> Digit:
    """A part of a known size without labels stays as a whole, beside others that are cut."""
    return replace(digit, labels=np.full(digit.size, PINNED)) if digit.labels is None else digit


def _put_together(context: NodeContext, value: Value, parts: Sequence[Digit], axis: int) -> Value:
    """Fill in the joined axis."""
    deps = tuple(dict.fromkeys(k for part in parts for k in part.deps))
    spread = [_in_rows(context, value, part, deps) for part in parts]
    joined = context.relations.digit(sum(part.size for part in parts), np.concatenate(spread, axis=-1), deps)
    return Value((*value.axes[:axis], (joined,), *value.axes[axis + 1 :]))


def _in_rows(context: NodeContext, value: Value, part: Digit, deps: tuple[int, ...]) -> Labels:
    """Labels of a part over the rows that other parts have; where it has none of its own, they go with the rows."""
    assert part.labels is not None
    sizes = {d.key: d.size for d in value.digits.values()}
    shared = layout.spread(part.labels, part.deps, deps, sizes)
    if set(part.deps) == set(deps):
        return shared
    cells = context.relations.fresh(*shared.shape)
    context.relations.tie_columns(cells, shared, layout.lacked(value.digits, deps, part.deps, part.size))
    for key in deps:
        row = value.digits[key]
        if row.labels is not None:
            context.relations.place(cells, layout.over(row.labels, (*row.deps, key), deps, sizes)[..., None])
    return cells


def split_parts(context: NodeContext) -> None:
    """Cut into parts along an axis; the sizes follow the plan."""
    shape = context.shape(0)
    axis = int(context.attr("axis", 0)) % len(shape)
    sizes = [context.out_shape(k)[axis] for k in range(len(context.node.outputs))]
    if context.name(1) and context.static(1) is None:
        value = context.freed(context.value(0), [axis], "is split at computed places", shape)
    else:
        sizes = split_sizes(context.node, shape[axis], context.static(1))
        value = layout.fuse(context.relations, context.value(0), axis)
    ends = np.cumsum([0, *sizes])
    parts = [np.arange(ends[k], ends[k + 1]) for k in range(len(sizes))]
    context.yields(*(layout.take(context.relations, value, axis, part, len(part)) for part in parts))

    def make(cut: Cut) -> dict[int | str, Any]:
        keep = cut.keep(value, axis)
        if keep.all():
            return {}
        counts = np.array([int(keep[part].sum()) for part in parts], np.int64)
        left = np.flatnonzero(counts)
        changes: dict[int | str, Any] = {"keep_outputs": left.tolist()} if len(left) < len(counts) else {}
        if context.version < 13:
            return {"split": counts[left].tolist(), **changes}
        return {1: counts[left], "num_outputs": None, **changes}

    context.patch(make)


def slice_axes(context: NodeContext) -> None:
    """Take ranges of axes; their ends follow the plan."""
    shape = context.shape(0)
    value = context.value(0)
    old = "starts" in context.node.attributes
    known = old or all(context.name(s) is None or context.static(s) is not None for s in range(1, 5))
    if not known:
        return _sliced_blindly(context, value)
    arguments = [context.static(s) for s in range(1, 5)]
    ranges = slice_arguments(context.node, arguments, len(shape))
    touched = [a for a in range(len(shape)) if ranges[a] != slice(None)]
    indices = {a: np.arange(shape[a])[ranges[a]] for a in touched}
    original = value
    for a in touched:
        uneven = len(touched) > 1 and ranges[a].step not in (None, 1, -1)
        if context.shapes.is_open(str(context.name(0)), a) or not len(indices[a]) or uneven:
            value = context.freed(value, [a], "is sliced in steps or from an open axis", context.out_shape())
        elif len(indices[a]) != shape[a] or (indices[a] != np.arange(shape[a])).any():
            value = layout.take(context.relations, value, a, indices[a], len(indices[a]))
    context.yields(value)
    context.patch(lambda cut: _slice_patch(context, cut, original, indices, ranges))
    return None


def _sliced_blindly(context: NodeContext, value: Value) -> None:
    """A Slice at computed places: axes that it cuts are pinned; with computed axes, all are."""
    count, rank = context.shape(1)[0], len(value.axes)
    axes = context.ints(3, "axes") if context.name(3) else list(range(count))
    chosen = list(range(rank)) if axes is None else [a % rank for a in axes]
    starts, ends = context.stated(1), context.stated(2)
    steps = context.stated(4) if context.name(4) else [1] * count
    from_zero = [(start, step) == (0, 1) for start, step in zip(starts, steps, strict=True)]
    whole = {
        a: k
        for k, a in enumerate(() if axes is None else chosen)
        if from_zero[k] and (ends[k] or 0) >= context.shape(0)[a] and a not in context.varying(0)
    }
    result = context.freed(value, set(chosen) - set(whole), "is sliced at computed places", context.out_shape())
    context.yields(result)
    context.patch(lambda cut: {2: context.resized(cut, 2, result, whole)})


def _slice_patch(
    context: NodeContext, cut: Cut, value: Value, indices: dict[int, Any], ranges: Sequence[slice]
) -> dict[int | str, Any]:
    """New starts, ends, axes and steps for every axis whose positions moved, or a Gather where they are uneven."""
    moved = {a: cut.keep(value, a) for a in indices}
    if all(keep.all() for keep in moved.values()):
        return {}
    starts, ends, axes, steps = [], [], [], []
    for a, index in indices.items():
        keep = moved[a]
        rank = np.cumsum(keep) - 1
        new = rank[index[keep[index]]]
        if keep.all():  # as it was: an open axis has other sizes than those the analysis saw
            given = ranges[a]
            starts.append(given.start)
            ends.append(-(2**31) if given.stop is None else given.stop)
            axes.append(a)
            steps.append(given.step or 1)
            continue
        pace = int(new[1] - new[0]) if len(new) > 1 else 1
        if (np.diff(new) != pace).any():
            if len(indices) > 1:
                raise NotImplementedError
            return {"op_type": "Gather", "axis": a, 1: new.astype(np.int64), 2: None, 3: None, 4: None}
        end = int(new[-1]) + (1 if pace > 0 else -1)
        starts.append(int(new[0]))
        ends.append(end if end >= 0 else -(2**31))
        axes.append(a)
        steps.append(pace)
    if "starts" in context.node.attributes:
        return {"starts": starts, "ends": ends, "axes": axes}
    return {s: np.array(v, np.int64) for s, v in enumerate((starts, ends, axes, steps), 1)}


def pad(context: NodeContext) -> None:
    """Constant padding of a labelled axis adds removable positions; other modes pin it."""
    value, before, after = context.value(0), context.shape(0), context.out_shape()
    rank = len(before)
    pads: list[int | None] = context.stated(1) if context.name(1) else list(context.attr("pads", []))
    given = context.ints(3, "axes") if context.name(3) else None
    axes = [a % rank for a in given] if given else list(range(rank))
    if len(pads) != 2 * len(axes):  # data decides on which axes
        pads, axes = [None for _ in range(2 * rank)], list(range(rank))
    constant = context.attr("mode", "constant") in ("constant", b"constant")
    parts: dict[int, tuple[int, int]] = {}
    results = list(value.axes)
    for k, a in enumerate(axes):
        low, high = pads[k], pads[k + len(axes)]
        if low == high == 0:
            continue
        fused = layout.fuse(context.relations, Value(tuple(results)), a)
        digit = fused.axes[a][0] if fused.axes[a] else None
        unfit = digit is None or digit.labels is None or bool(digit.deps) or not constant
        if unfit or digit is None or digit.labels is None or low is None or high is None or min(low, high) < 0:
            results = list(context.freed(Value(tuple(results)), [a], "is padded", after).axes)
            continue
        fresh = context.relations.fresh(low + high)
        joined = np.concatenate([fresh[:low], digit.labels, fresh[low:]])
        results = list(layout.forget(context.relations, fused, {digit.key}).axes)
        results[a] = (context.relations.digit(after[a], joined),)
        parts[k] = (low, high)
    result = Value(tuple(results))
    context.yields(result)

    def make(cut: Cut) -> dict[int | str, Any]:
        new: dict[int, int] = {}
        for k, (low, high) in parts.items():
            keep = cut.keep(result, axes[k])
            new |= {k: int(keep[:low].sum()), k + len(axes): int(keep[len(keep) - high :].sum())}
        changed = {place: size for place, size in new.items() if size != pads[place]}
        if context.name(1) or not changed:
            return {1: changed}
        return {"pads": [changed.get(place, size) for place, size in enumerate(pads)]}

    if parts:
        context.patch(make)


def resize(context: NodeContext) -> None:
    """Axes whose size and scale stay pass; a constant list of sizes follows the cut."""
    value, before, after = context.value(0), context.shape(0), context.out_shape()
    rank = len(before)
    for slot in context.given()[1:]:
        context.leave(slot)
    scales = context.static(2 if context.node.op_type == "Resize" and context.version > 10 else 1)
    listed = context.attr("axes") or range(rank)
    odd = context.attr("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    odd = odd or context.attr("keep_aspect_ratio_policy", "stretch") != "stretch"
    changed = {a for a in range(rank) if before[a] != after[a] or odd}
    changed |= {a for a in range(rank) if context.nominal(0)[a] != context.out_shape(nominal=True)[a]}
    if scales is not None and scales.size == len(listed):
        changed |= {a % rank for a, scale in zip(listed, scales.reshape(-1), strict=True) if scale != 1}
    result = context.freed(value, changed, f"is an axis that {context.node.op_type} works along", after)
    context.yields(result)
    if context.name(3) and context.node.op_type == "Resize":
        places = {a % rank: place for place, a in enumerate(listed)}
        old = {a: place for a, place in places.items() if a not in changed}
        context.patch(lambda cut: {3: context.resized(cut, 3, result, old)})
