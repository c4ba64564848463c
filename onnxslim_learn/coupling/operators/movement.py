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

    from onnxslim_learn.coupling.context import Cut, Site

# --- movement ---------------------------------------------------------------------------------------------------------


def reshape(site: Site) -> None:
    """Regroup digits; the target follows the cut, entries of open axes by a factor."""
    site.leave(1)
    result = layout.regroup(site.ledger, site.value(0), site.out_shape())
    stated = site.stated(1) if site.name(1) else []
    before, copies = site.value(0), not site.attr("allowzero", 0)
    lost = [a for a, entry in enumerate(stated) if entry == 0 and copies and _uncopied(site, before, result, a)]
    lost = lost if site.tells(1) else [a for a in range(len(result.axes)) if _shares_open(site, result, a)]
    result = site.freed(result, lost, OPEN, site.out_shape()) if lost else result
    site.yields(result)

    def make(cut: Cut) -> dict[int | str, Any]:
        kept = {a for a, entry in enumerate(stated) if entry == -1}
        kept |= {a for a, entry in enumerate(stated) if entry == 0 and cut.size(result, a) == cut.size(before, a)}
        places = {a: a for a in range(len(result.axes)) if a not in kept}
        wanted = site.resized(cut, result, places)
        return {1: wanted} if wanted else {}

    if site.name(1):
        site.patch(make)


def _shares_open(site: Site, result: Value, axis: int) -> bool:
    """Whether an open axis of the output has labels."""
    labelled = any(d.labels is not None for d in result.axes[axis])
    return labelled and site.shapes.is_open(str(site.node.outputs[0].name), axis)


def _uncopied(site: Site, before: Value, after: Value, axis: int) -> bool:
    """Whether an open axis that a target copies has other labels than what it is copied from."""
    same = axis < len(before.axes) and [d.key for d in before.axes[axis]] == [d.key for d in after.axes[axis]]
    return not same and site.shapes.is_open(str(site.node.outputs[0].name), axis)


def regrouped(site: Site) -> None:
    """Flatten, Squeeze, Unsqueeze: the target follows from the shapes."""
    site.yields(layout.regroup(site.ledger, site.value(0), site.out_shape()))


def transpose(site: Site) -> None:
    """Permute axes."""
    rank = len(site.shape(0))
    order = site.attr("perm") or range(rank)[::-1]
    site.yields(layout.permute(site.value(0), list(order)))


def blocks(*, to_space: bool) -> Operator:
    """DepthToSpace and SpaceToDepth: regroup, permute, regroup."""

    def rule(site: Site) -> None:
        n, c, *space = site.shape(0)
        b = int(site.attr("blocksize"))
        strided = site.attr("mode", "DCR") == "DCR"
        ledger = site.ledger
        if to_space:
            inner = c // (b * b)
            view = (n, b, b, inner, *space) if strided else (n, inner, b, b, *space)
            order = (0, 3, 4, 1, 5, 2) if strided else (0, 1, 4, 2, 5, 3)
        else:
            view = (n, c, space[0] // b, b, space[1] // b, b)
            order = (0, 3, 5, 1, 2, 4) if strided else (0, 1, 3, 5, 2, 4)
        spelled = layout.regroup(ledger, site.value(0), view)
        inside = ([1, 2] if strided else [2, 3]) if to_space else [3, 5]
        site.pin(spelled, inside, f"is a position inside a block of {site.node.op_type}")
        value = layout.permute(spelled, order)
        site.yields(layout.regroup(ledger, value, site.out_shape()))

    return Operator(rule, traits=Trait.MOVES)


def columns(site: Site) -> None:
    """Col2Im: blocks ``n (c k) l`` are added up into ``n c *image``: channels are rows of whole blocks."""
    shape, out = site.shape(0), site.out_shape()
    view = (shape[0], out[1], shape[1] // out[1], shape[2])
    value = layout.regroup(site.ledger, site.value(0), view)
    value = site.freed(value, [2, 3], f"is a position inside a block of {site.node.op_type}", view)
    site.yields(Value((*value.axes[:2], *site.ledger.free(out[2:]).axes)))


def expand(site: Site) -> None:
    """Broadcast to a shape: axes that grow are fresh where their size is fixed, free where it is open."""
    site.leave(1)
    before, after = site.value(0), site.out_shape()
    pad = len(after) - len(before.axes)
    axes: list[Axis] = [()] * pad + list(before.axes)
    name = str(site.node.outputs[0].name)
    for a, size in enumerate(after):
        if size != 1 and (a < pad or site.shape(0)[a - pad] == 1):
            labels = None if site.shapes.is_open(name, a) else site.ledger.fresh(size)
            axes[a] = (site.ledger.digit(size, labels),)
    result = Value(tuple(axes))
    untold = [] if site.tells(1) else [a for a in range(len(after)) if _shares_open(site, result, a)]
    result = site.freed(result, untold, OPEN, after) if untold else result
    stated = site.stated(1)
    site.yields(result)
    first = len(after) - len(stated)  # a target may state the last axes only; 1 keeps an axis as it is
    places = {first + k: k for k, entry in enumerate(stated) if entry != 1}
    site.patch(lambda cut: {1: site.resized(cut, result, places)})


def fill(site: Site) -> None:
    """ConstantOfShape: axes of fixed size are fresh, others free."""
    site.leave(0)
    after = site.out_shape()
    name = str(site.node.outputs[0].name)
    labels = [None if n == 1 or site.shapes.is_open(name, a) else site.ledger.fresh(n) for a, n in enumerate(after)]
    result = Value(
        tuple(() if n == 1 else (site.ledger.digit(n, label),) for n, label in zip(after, labels, strict=True))
    )
    site.yields(result)
    site.patch(lambda cut: {0: site.resized(cut, result, {a: a for a in range(len(after))})})


def tile(site: Site) -> None:
    """Repeat along axes: repeated positions share their labels."""
    value = site.value(0)
    repeats = site.static(1)
    for axis, (old, new) in enumerate(zip(site.shape(0), site.out_shape(), strict=True)):
        if repeats is None and old != new:
            value = site.freed(value, [axis], "is repeated a computed number of times", site.out_shape())
        elif old != new:
            value = layout.take(site.ledger, value, axis, np.arange(new) % old, new)
    site.yields(value)


def concat(site: Site) -> None:
    """Join end to end: other axes align, labels of the joined axis follow each other."""
    rank = len(site.shape(0))
    axis = int(site.attr("axis")) % rank
    slots = site.given()
    values = [_part(site, layout.fuse(site.ledger, site.value(slot), axis), axis) for slot in slots]
    opened = [v.axes[axis][0].labels is None and axis in site.varying(s) for v, s in zip(values, slots, strict=True)]
    values = [_held(value, axis) for value in values]
    free = any(opened) or not any(value.axes[axis][0].labels.any() for value in values)  # type: ignore[union-attr]
    if free:
        why = f"is joined with a free part by {site.node.op_type}"
        values = [site.freed(v, [axis], why, site.shape(slot)) for v, slot in zip(values, slots, strict=True)]
    # each part has a letter of its own and so keeps its digit, and what depends on it, while the other axes align
    letters = list(aligned(rank))
    parts = [f"+{k}" for k in range(len(slots))]
    operands = [
        alignment.Operand((*letters[:axis], None if free else part, *letters[axis + 1 :]), site.shape(slot), value.axes)
        for part, slot, value in zip(parts, slots, values, strict=True)
    ]
    space = alignment.join(site.ledger, operands, f"is tied to a free axis by {site.node.op_type}").space
    space[letters[axis]] = site.ledger.axis(site.out_shape()[axis]) if free else ()
    joined = Value(tuple(space[letter] for letter in letters))
    site.records.joins.add(site.index)
    site.yields(joined if free else _put_together(site, joined, [space[part][0] for part in parts], axis))


def _part(site: Site, value: Value, axis: int) -> Value:
    """Ready a value to be a part: nothing depends on the joined axis, and size 1 is a digit that nothing can cut."""
    if value.axes[axis]:
        key = value.axes[axis][0].key
        for digit in value.digits.values():
            if key in digit.deps:
                site.ledger.pin(digit, f"depends on the axis that {site.node.op_type} joins", value.digits)
        return layout.forget(site.ledger, value, {key})
    single = Digit(next(site.ledger.keys), 1, np.full(1, PINNED))
    return Value((*value.axes[:axis], (single,), *value.axes[axis + 1 :]))


def _held(value: Value, axis: int) -> Value:
    """A part without labels of a known size stays as a whole, beside others that are cut."""
    digit = value.axes[axis][0]
    held = replace(digit, labels=np.full(digit.size, PINNED)) if digit.labels is None else digit
    return Value((*value.axes[:axis], (held,), *value.axes[axis + 1 :]))


def _put_together(site: Site, value: Value, parts: Sequence[Digit], axis: int) -> Value:
    """Fill in the joined axis."""
    deps = tuple(dict.fromkeys(k for part in parts for k in part.deps))
    spread = [_in_rows(site, value, part, deps) for part in parts]
    joined = site.ledger.digit(sum(part.size for part in parts), np.concatenate(spread, axis=-1), deps)
    return Value((*value.axes[:axis], (joined,), *value.axes[axis + 1 :]))


def _in_rows(site: Site, value: Value, part: Digit, deps: tuple[int, ...]) -> Labels:
    """Labels of a part over the rows that other parts have; where it has none of its own, they go with the rows."""
    assert part.labels is not None
    sizes = {d.key: d.size for d in value.digits.values()}
    shared = layout.spread(part.labels, part.deps, deps, sizes)
    if set(part.deps) == set(deps):
        return shared
    cells = site.ledger.fresh(*shared.shape)
    site.ledger.tie_columns(cells, shared, layout.lacked(value.digits, deps, part.deps, part.size))
    for key in deps:
        row = value.digits[key]
        if row.labels is not None:
            site.ledger.place(cells, layout.over(row.labels, (*row.deps, key), deps, sizes)[..., None])
    return cells


def split_parts(site: Site) -> None:
    """Cut into parts along an axis; the sizes follow the plan."""
    shape = site.shape(0)
    axis = int(site.attr("axis", 0)) % len(shape)
    sizes = [site.out_shape(k)[axis] for k in range(len(site.node.outputs))]
    if site.name(1) and site.static(1) is None:
        value = site.freed(site.value(0), [axis], "is split at computed places", shape)
    else:
        sizes = split_sizes(site.node, shape[axis], site.static(1))
        value = layout.fuse(site.ledger, site.value(0), axis)
    ends = np.cumsum([0, *sizes])
    parts = [np.arange(ends[k], ends[k + 1]) for k in range(len(sizes))]
    site.yields(*(layout.take(site.ledger, value, axis, part, len(part)) for part in parts))

    def make(cut: Cut) -> dict[int | str, Any]:
        keep = cut.keep(value, axis)
        if keep.all():
            return {}
        counts = np.array([int(keep[part].sum()) for part in parts], np.int64)
        left = np.flatnonzero(counts)
        changes: dict[int | str, Any] = {"keep_outputs": left.tolist()} if len(left) < len(counts) else {}
        if site.version < 13:
            return {"split": counts[left].tolist(), **changes}
        return {1: counts[left], "num_outputs": None, **changes}

    site.patch(make)


def slice_axes(site: Site) -> None:
    """Take ranges of axes; their ends follow the plan."""
    shape = site.shape(0)
    value = site.value(0)
    old = "starts" in site.node.attributes
    known = old or all(site.name(s) is None or site.static(s) is not None for s in range(1, 5))
    if not known:
        return site.yields(_sliced_blindly(site, value))
    arguments = [site.static(s) for s in range(1, 5)]
    ranges = slice_arguments(site.node, arguments, len(shape))
    touched = [a for a in range(len(shape)) if ranges[a] != slice(None)]
    indices = {a: np.arange(shape[a])[ranges[a]] for a in touched}
    original = value
    for a in touched:
        uneven = len(touched) > 1 and ranges[a].step not in (None, 1, -1)
        if site.shapes.is_open(str(site.name(0)), a) or not len(indices[a]) or uneven:
            value = site.freed(value, [a], "is sliced in steps or from an open axis", site.out_shape())
        elif len(indices[a]) != shape[a] or (indices[a] != np.arange(shape[a])).any():
            value = layout.take(site.ledger, value, a, indices[a], len(indices[a]))
    site.yields(value)
    site.patch(lambda cut: _slice_patch(site, cut, original, indices, ranges))
    return None


def _sliced_blindly(site: Site, value: Value) -> Value:
    """A Slice at computed places: axes whose size changes are pinned; with computed axes, all are."""
    axes = site.ints(3, "axes") if site.name(3) else list(range(len(site.shape(1)) and site.shape(1)[0]))
    rank = len(value.axes)
    chosen = range(rank) if axes is None else [a % rank for a in axes]
    return site.freed(value, chosen, "is sliced at computed places", site.out_shape())


def _slice_patch(
    site: Site, cut: Cut, value: Value, indices: dict[int, Any], ranges: Sequence[slice]
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
    if "starts" in site.node.attributes:
        return {"starts": starts, "ends": ends, "axes": axes}
    return {s: np.array(v, np.int64) for s, v in enumerate((starts, ends, axes, steps), 1)}


def pad(site: Site) -> None:
    """Constant padding of a labelled axis adds removable positions; other modes pin it."""
    value, before, after = site.value(0), site.shape(0), site.out_shape()
    rank = len(before)
    pads: list[int | None] = site.stated(1) if site.name(1) else list(site.attr("pads", []))
    given = site.ints(3, "axes") if site.name(3) else None
    axes = [a % rank for a in given] if given else list(range(rank))
    constant = site.attr("mode", "constant") in ("constant", b"constant")
    parts: dict[int, tuple[int, int]] = {}
    results = list(value.axes)
    for k, a in enumerate(axes):
        low, high = pads[k], pads[k + len(axes)]
        if low == high == 0:
            continue
        fused = layout.fuse(site.ledger, Value(tuple(results)), a)
        digit = fused.axes[a][0] if fused.axes[a] else None
        unfit = digit is None or digit.labels is None or bool(digit.deps) or not constant
        if unfit or digit is None or digit.labels is None or low is None or high is None or min(low, high) < 0:
            results = list(site.freed(Value(tuple(results)), [a], "is padded", after).axes)
            continue
        fresh = site.ledger.fresh(low + high)
        joined = np.concatenate([fresh[:low], digit.labels, fresh[low:]])
        results = list(layout.forget(site.ledger, fused, {digit.key}).axes)
        results[a] = (site.ledger.digit(after[a], joined),)
        parts[k] = (low, high)
    result = Value(tuple(results))
    site.yields(result)

    def make(cut: Cut) -> dict[int | str, Any]:
        new: dict[int, int] = {}
        for k, (low, high) in parts.items():
            keep = cut.keep(result, axes[k])
            new |= {k: int(keep[:low].sum()), k + len(axes): int(keep[len(keep) - high :].sum())}
        changed = {place: size for place, size in new.items() if size != pads[place]}
        if site.name(1) or not changed:
            return {1: changed}
        return {"pads": [changed.get(place, size) for place, size in enumerate(pads)]}

    if parts:
        site.patch(make)


def resize(site: Site) -> None:
    """Axes whose size and scale stay pass; a constant list of sizes follows the cut."""
    value, before, after = site.value(0), site.shape(0), site.out_shape()
    rank = len(before)
    for slot in site.given()[1:]:
        site.leave(slot)
    scales = site.static(2 if site.node.op_type == "Resize" and site.version > 10 else 1)
    listed = site.attr("axes") or range(rank)
    odd = site.attr("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    odd = odd or site.attr("keep_aspect_ratio_policy", "stretch") != "stretch"
    changed = {a for a in range(rank) if before[a] != after[a] or odd}
    changed |= {a for a in range(rank) if site.nominal(0)[a] != site.out_shape(nominal=True)[a]}
    if scales is not None and scales.size == len(listed):
        changed |= {a % rank for a, scale in zip(listed, scales.reshape(-1), strict=True) if scale != 1}
    result = site.freed(value, changed, f"is an axis that {site.node.op_type} works along", after)
    site.yields(result)
    if site.name(3) and site.node.op_type == "Resize":
        places = {a % rank: place for place, a in enumerate(listed)}
        old = {a: place for a, place in places.items() if a not in changed}
        site.patch(lambda cut: {3: site.resized(cut, result, old)})
