"""The families of operators: each states coupling, masks, work and patches in one go.

A family is a function that takes declarations and returns a rule ``rule(site) -> None``; the operator table names one
family per operator. Letters are single characters; ``site`` is the node at hand (:mod:`onnxslim_learn.graph.site`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.graph import joint, layout
from onnxslim_learn.graph.arithmetic import slice_arguments, split_sizes
from onnxslim_learn.graph.layout import Digit, Value
from onnxslim_learn.graph.site import Affine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from onnxslim_learn.graph.site import Cut, Site

Rule = "Callable[[Site], None]"
RANK = "abcdefghijklmnop"  # letters of axes counted from the last


def _aligned(rank: int, start: int = 0) -> str:
    """Letters of the axes of a tensor whose last axis is ``RANK[start]``."""
    return RANK[start : start + rank][::-1]


# --- elementwise and per channel --------------------------------------------------------------------------------------


def elementwise(site: Site) -> None:
    """Broadcast all inputs against each other; every output has the result's layout."""
    operands = [(slot, site.operand(slot, _aligned(len(site.shape(slot))))) for slot in site.given()]
    joined = site.join(*operands)
    outputs = range(len(site.node.outputs))
    site.yields(*(joined.output(site.ledger, _aligned(len(site.out_shape(k)))) for k in outputs if site.node.outputs[k].name))


def first_input(site: Site) -> None:
    """Outputs have the first input's layout; other inputs are settings."""
    for slot in site.given()[1:]:
        site.leave(slot)
    site.yields(*(site.value(0) for _ in site.node.outputs))


def per_channel(
    *,
    normalised: Callable[[Site, int], Iterable[int]] = lambda site, rank: (),
    axis: int | None = 1,
    affine: bool = False,
) -> Any:
    """Vectors of one entry per channel: batch and instance norm, per-axis scales.

    Args:
        normalised: Which axes of the data are normalised over.
        axis: The channel axis, or ``None`` to read attribute ``axis``.
        affine: Whether inputs 1 and 2 scale and shift a normalised input.
    """

    def rule(site: Site) -> None:
        rank = len(site.shape(0))
        channel = (int(site.attr("axis", 1)) if axis is None else axis) % max(rank, 1)
        site.delicate(site.value(0), normalised(site, rank), f"is normalised over by {site.node.op_type}")
        letters = _aligned(rank)
        vectors = [(s, site.operand(s, letters[channel] if site.shape(s) else "")) for s in site.given()[1:]]
        joined = site.join((0, site.operand(0, letters)), *vectors)
        result = joined.output(site.ledger, letters)
        rest = [joined.output(site.ledger, letters[channel]) for _ in site.node.outputs[1:]]
        site.yields(result, *rest)
        if affine:
            site.records.affines.append(Affine(site.index, 1, 2))

    return rule


def norm(axes: Callable[[Site, int], Sequence[int]]) -> Any:
    """Normalise over axes; further inputs are affine parameters that broadcast from the right."""

    def rule(site: Site) -> None:
        rank = len(site.shape(0))
        site.delicate(site.value(0), axes(site, rank), f"is normalised over by {site.node.op_type}")
        operands = [(slot, site.operand(slot, _aligned(len(site.shape(slot))))) for slot in site.given()]
        joined = site.join(*operands)
        value = joined.output(site.ledger, _aligned(rank))
        statistics = [site.ledger.free(site.out_shape(k)) for k in range(1, len(site.node.outputs)) if site.node.outputs[k].name]
        site.yields(value, *statistics)

    return rule


def mixing(axes: Callable[[Site, int], Iterable[int]], *, vanish: bool = False) -> Any:
    """Mix positions along axes (sort, cumulate, arg-max): these are pinned, the others pass."""

    def rule(site: Site) -> None:
        value, chosen = site.value(0), {a % len(site.shape(0)) for a in axes(site, len(site.shape(0)))}
        for slot in site.given()[1:]:
            site.leave(slot)
        results = []
        for k, output in enumerate(site.node.outputs):
            shape = site.out_shape(k) if output.name else ()
            if vanish and len(shape) < len(value.axes):
                passed = site.freed(value, chosen, f"is mixed by {site.node.op_type}", site.shape(0))
                results.append(layout.drop(site.ledger, passed, chosen))
            else:
                results.append(site.freed(value, chosen, f"is mixed by {site.node.op_type}", shape or site.shape(0)))
        site.yields(*results)

    return rule


# --- contraction ------------------------------------------------------------------------------------------------------


def einsum(notation: Callable[[Site], tuple[list[str], str]]) -> Any:
    """Sum of products: letters of every input, letters of the output; what the output lacks is contracted."""

    def rule(site: Site) -> None:
        inputs, output = notation(site)
        slots = site.given()
        joined = site.join(*((slot, site.operand(slot, letters)) for slot, letters in zip(slots, inputs, strict=True)))
        site.yields(joined.output(site.ledger, output))
        for slot, letters in zip(slots[:2], inputs, strict=False):
            site.contract(slot, [a for a, letter in enumerate(letters) if letter not in output])
        sizes: dict[str, int] = {}
        for slot, letters in zip(slots, inputs, strict=True):
            for letter, size in zip(letters, site.nominal(slot), strict=True):
                sizes[letter] = max(size, sizes.get(letter, 1))
        site.work(joined.space, sizes)

    return rule


def matmul(site: Site) -> tuple[list[str], str]:
    """Letters of MatMul: batch axes broadcast, vectors lose their axis."""
    a, b = len(site.shape(0)), len(site.shape(1))
    left = _aligned(a - 2) + "xy" if a > 1 else "y"
    right = _aligned(b - 2) + "yz" if b > 1 else "y"
    batch = _aligned(max(a, b) - 2) if max(a, b) > 2 else ""
    return [left, right], batch + ("x" if a > 1 else "") + ("z" if b > 1 else "")


def gemm(site: Site) -> tuple[list[str], str]:
    """Letters of Gemm with its optional transpositions and broadcast bias."""
    a = "yx" if site.attr("transA", 0) else "xy"
    b = "zy" if site.attr("transB", 0) else "yz"
    bias = [["", "z", "xz"][len(site.shape(2))]] if site.name(2) else []
    return [a, b, *bias], "xz"


def equation(site: Site) -> tuple[list[str], str]:
    """Letters of Einsum's equation, written out."""
    text = site.attr("equation").replace(" ", "")
    left, _, right = text.partition("->")
    inputs = left.split(",")
    if "->" not in text:
        joined = "".join(inputs)
        right = "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    return inputs, right


def convolution(*, transposed: bool = False) -> Any:
    """Convolution of any rank: channels (g, i) of the data meet (g, o, i) of the weight."""

    def rule(site: Site) -> None:
        x, w = site.shape(0), site.shape(1)
        groups = int(site.attr("group", 1))
        spatial = [None] * (len(x) - 2)
        inner = x[1] // groups
        outer = w[1] if transposed else w[0] // groups
        data = site.operand(0, ["n", "g", "i", *spatial], (x[0], groups, inner, *x[2:]))
        if transposed:
            weight = site.operand(1, ["g", "i", "o", *spatial], (groups, inner, outer, *w[2:]), (2, *(1,) * (len(w) - 1)))
        else:
            weight = site.operand(1, ["g", "o", "i", *spatial], (groups, outer, *w[1:]), (2, *(1,) * (len(w) - 1)))
        bias = [(2, site.operand(2, ["g", "o"], (groups, outer), (2,)))] if site.name(2) else []
        joined = site.join((0, data), (1, weight), *bias)
        out = site.out_shape()
        value = joined.output(site.ledger, "ngo")
        value = layout.regroup(site.ledger, value, (out[0], groups * outer))
        site.yields(Value((*value.axes, *site.ledger.free(out[2:]).axes)))
        if inner > 1 or groups == 1:
            site.contract(0, [1])
        if groups > 1:
            group = Value((joined.space["g"],))
            site.patch(lambda cut: {"group": cut.size(group, 0)})
        positions = site.nominal(0) if transposed else site.out_shape(nominal=True)
        sizes = {"n": site.nominal(0)[0], "g": groups, "i": inner, "o": outer}
        site.work(joined.space, sizes, math.prod(positions[2:]) * math.prod(w[2:]))

    return rule


def reduce(*, exact: bool) -> Any:
    """Reduce axes; zeros add nothing to an exact one (sum), the others are delicate over labelled axes."""

    def rule(site: Site) -> None:
        shape = site.shape(0)
        rank = len(shape)
        axes = site.ints(1, "axes")
        if not axes:
            axes = [] if site.attr("noop_with_empty_axes", 0) and site.name(1) is None else list(range(rank))
        chosen = [a % rank for a in axes]
        value = site.value(0)
        if exact:
            site.contract(0, chosen)
        else:
            site.delicate(value, chosen, f"is reduced by {site.node.op_type}")
        site.yields(layout.drop(site.ledger, value, chosen, keep=bool(site.attr("keepdims", 1))))

    return rule


# --- space ------------------------------------------------------------------------------------------------------------


def spatial(keep: int = 2) -> Any:
    """Work along all axes but the first ``keep``: these pass, the others are free."""

    def rule(site: Site) -> None:
        for slot in site.given()[1:]:
            site.leave(slot)
        results = []
        for k, output in enumerate(site.node.outputs):
            if output.name:
                shape = site.out_shape(k)
                why = f"is an axis that {site.node.op_type} works along"
                results.append(site.freed(site.value(0), range(keep, len(site.shape(0))), why, shape))
        site.yields(*results)

    return rule


def resize(site: Site) -> None:
    """Axes whose size stays pass; a constant list of sizes follows the cut."""
    value, before, after = site.value(0), site.shape(0), site.out_shape()
    changed = [a for a in range(len(before)) if before[a] != after[a] or site.nominal(0)[a] != site.out_shape(nominal=True)[a]]
    result = site.freed(value, changed, f"is an axis that {site.node.op_type} works along", after)
    site.yields(result)
    if site.name(3) and site.node.op_type == "Resize" and len(site.shape(3)) == len(before):
        site.patch(lambda cut: {3: {a: cut.size(result, a) for a in range(len(after)) if cut.size(result, a) != after[a]}})


# --- movement ---------------------------------------------------------------------------------------------------------


def reshape(site: Site) -> None:
    """Regroup digits; a constant target follows the cut, and one that is open and cut at once pins."""
    target = site.static(1)
    result = _pin_mixed(site, layout.regroup(site.ledger, site.value(0), site.out_shape()), target)
    site.yields(result)
    if site.name(1) is None:
        return
    before, after = site.value(0), site.out_shape()

    def make(cut: Cut) -> dict[int | str, Any]:
        wanted = {}
        for axis, old in enumerate(after):
            new = cut.size(result, axis)
            entry = None if target is None else int(target[axis])
            copied = entry == 0 and not site.attr("allowzero", 0)
            if entry == -1 or (new == old and not copied) or (copied and new == cut.size(before, axis)):
                continue
            wanted[axis] = new
        return {1: wanted} if wanted else {}

    site.patch(make)


def _pin_mixed(site: Site, value: Value, target: Any) -> Value:
    """Pin labels on axes whose size is open unless the target leaves them to inference."""
    name = str(site.node.outputs[0].name)
    mixed = [
        a
        for a in range(len(value.axes))
        if site.shapes.is_open(name, a) and any(d.labels is not None for d in value.axes[a])
        if target is None or target[a] != -1
    ]
    return site.freed(value, mixed, "shares an axis with an open dimension", site.out_shape()) if mixed else value


def regrouped(site: Site) -> None:
    """Flatten, Squeeze, Unsqueeze: the target follows from the shapes."""
    site.yields(layout.regroup(site.ledger, site.value(0), site.out_shape()))


def transpose(site: Site) -> None:
    """Permute axes."""
    rank = len(site.shape(0))
    order = site.attr("perm") or range(rank)[::-1]
    site.yields(layout.permute(site.value(0), list(order)))


def blocks(*, to_space: bool) -> Any:
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
            view, order = (n, c, space[0] // b, b, space[1] // b, b), (0, 3, 5, 1, 2, 4)
        value = layout.permute(layout.regroup(ledger, site.value(0), view), order)
        site.yields(layout.regroup(ledger, value, site.out_shape()))

    return rule


def expand(site: Site) -> None:
    """Broadcast to a shape: axes that grow are fresh where their size is fixed, free where it is open."""
    before, after = site.value(0), site.out_shape()
    pad = len(after) - len(before.axes)
    axes: list[layout.Axis] = [()] * pad + list(before.axes)
    name = str(site.node.outputs[0].name)
    for a, size in enumerate(after):
        if size != 1 and (a < pad or site.shape(0)[a - pad] == 1):
            labels = None if site.shapes.is_open(name, a) else site.ledger.fresh(size)
            axes[a] = (site.ledger.digit(size, labels),)
    result = Value(tuple(axes))
    site.yields(result)
    target = site.static(1)

    def make(cut: Cut) -> dict[int | str, Any]:
        sizes = {a: cut.size(result, a) for a in range(len(after))}
        return {1: {a: n for a, n in sizes.items() if n != after[a] and (target is None or a < len(target)) and (target is None or target[a] != 1)}}

    site.patch(make)


def fill(site: Site) -> None:
    """ConstantOfShape: axes of fixed size are fresh, others free."""
    after = site.out_shape()
    name = str(site.node.outputs[0].name)
    labels = [None if n == 1 or site.shapes.is_open(name, a) else site.ledger.fresh(n) for a, n in enumerate(after)]
    result = Value(tuple(() if n == 1 else (site.ledger.digit(n, found),) for n, found in zip(after, labels, strict=True)))
    site.yields(result)
    site.patch(lambda cut: {0: {a: cut.size(result, a) for a in range(len(after)) if cut.size(result, a) != after[a]}})


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
    values = [_one_digit(site, layout.fuse(site.ledger, site.value(slot), axis), axis) for slot in slots]
    free = any(value.axes[axis][0].labels is None for value in values)
    if free:
        why = f"is joined with a free part by {site.node.op_type}"
        values = [site.freed(v, [axis], why, site.shape(slot)) for v, slot in zip(values, slots, strict=True)]
    # each part has a letter of its own and so keeps its digit, and what depends on it, while the other axes align
    letters = list(_aligned(rank))
    parts = [f"+{k}" for k in range(len(slots))]
    operands = [
        joint.Operand((*letters[:axis], None if free else part, *letters[axis + 1 :]), site.shape(slot), value.axes)
        for part, slot, value in zip(parts, slots, values, strict=True)
    ]
    space = joint.join(site.ledger, operands, f"meets a free axis in {site.node.op_type}").space
    space[letters[axis]] = site.ledger.axis(site.out_shape()[axis]) if free else ()
    joined = Value(tuple(space[letter] for letter in letters))
    site.yields(joined if free else _put_together(site, joined, [space[part][0] for part in parts], axis))


def _one_digit(site: Site, value: Value, axis: int) -> Value:
    """Give an axis of size 1 a digit, so that it can be a part of a longer one."""
    if value.axes[axis]:
        return value
    single = site.ledger.digit(1, site.ledger.fresh(1))
    return Value((*value.axes[:axis], (single,), *value.axes[axis + 1 :]))


def _put_together(site: Site, value: Value, parts: Sequence[Digit], axis: int) -> Value:
    """Fill in the joined axis; other digits that depend on a part are pinned."""
    gone = {part.key for part in parts}
    for digit in value.digits.values():
        if any(k in gone for k in digit.deps):
            site.ledger.pin(digit, f"depends on the axis that {site.node.op_type} joins")
    rank = len(value.axes)
    value = layout.forget(site.ledger, Value((*value.axes, *((part,) for part in parts))), gone)
    sizes = {d.key: d.size for d in value.digits.values()}
    deps = tuple(dict.fromkeys(k for part in parts for k in part.deps))
    spread = [layout.spread(part.labels, part.deps, deps, sizes) for part in parts if part.labels is not None]
    joined = site.ledger.digit(sum(part.size for part in parts), np.concatenate(spread, axis=-1), deps)
    return Value((*value.axes[:axis], (joined,), *value.axes[axis + 1 : rank]))


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
        if site.version < 13:
            return {"split": counts.tolist()}
        return {1: counts, "num_outputs": None}

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
        if site.shapes.is_open(str(site.name(0)), a) or not len(indices[a]):
            value = site.freed(value, [a], "is an open axis that is sliced", site.out_shape())
        elif len(indices[a]) != shape[a] or (indices[a] != np.arange(shape[a])).any():
            value = layout.take(site.ledger, value, a, indices[a], len(indices[a]))
    site.yields(value)
    site.patch(lambda cut: _slice_patch(site, cut, original, indices))
    return None


def _sliced_blindly(site: Site, value: Value) -> Value:
    """A Slice at computed places: axes whose size changes are pinned; with computed axes, all are."""
    axes = site.ints(3, "axes") if site.name(3) else list(range(len(site.shape(1)) and site.shape(1)[0]))
    rank = len(value.axes)
    chosen = range(rank) if axes is None else [a % rank for a in axes]
    return site.freed(value, chosen, "is sliced at computed places", site.out_shape())


def _slice_patch(site: Site, cut: Cut, value: Value, indices: dict[int, Any]) -> dict[int | str, Any]:
    """New starts, ends, axes and steps for every axis whose positions moved, or a Gather where they are uneven."""
    moved = {a: cut.keep(value, a) for a in indices}
    if all(keep.all() for keep in moved.values()):
        return {}
    starts, ends, axes, steps = [], [], [], []
    for a, index in indices.items():
        keep = moved[a]
        rank = np.cumsum(keep) - 1
        new = rank[index[keep[index]]]
        if keep.all():
            new = index
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


def gather(site: Site) -> None:
    """Pick along an axis: constant positions are picked from the labels, computed ones pin the axis."""
    shape = site.shape(0)
    axis = int(site.attr("axis", 0)) % len(shape)
    index = site.static(1)
    if index is not None and index.ndim <= 1 and site.node.inputs[1].is_initializer():  # type: ignore[union-attr]
        value = layout.fuse(site.ledger, site.value(0), axis)
        picked = index.reshape(-1) % shape[axis]
        result = layout.take(site.ledger, value, axis, picked, len(picked))
        if index.ndim == 0:
            result = layout.drop(site.ledger, result, [axis])
        site.yields(result)

        def make(cut: Cut) -> dict[int | str, Any]:
            keep = cut.keep(value, axis)
            new = (np.cumsum(keep) - 1)[picked[keep[picked]]]
            return {} if keep.all() else {1: new.astype(index.dtype).reshape((-1,) if index.ndim else ())}

        return site.patch(make)
    letters = list(_aligned(len(shape)))
    joined = site.join((0, site.operand(0, [None if a == axis else c for a, c in enumerate(letters)])), reason="")
    where = site.value(1)
    site.records.indices[str(site.name(1))] = shape[axis]
    site.pin(where, range(len(where.axes)), "is an index")
    rest = joined.output(site.ledger, [c for a, c in enumerate(letters) if a != axis])
    site.yields(Value((*rest.axes[:axis], *site.ledger.free(site.shape(1)).axes, *rest.axes[axis:])))
    return None


def pad(site: Site) -> None:
    """Constant padding of a labelled axis adds removable positions; other modes pin it."""
    value, before, after = site.value(0), site.shape(0), site.out_shape()
    rank = len(before)
    pads = site.ints(1, "pads")
    given = site.ints(3, "axes") if site.name(3) else None
    axes = [a % rank for a in given] if given else list(range(rank))
    constant = site.attr("mode", "constant") in ("constant", b"constant")
    parts: dict[int, tuple[int, int]] = {}
    results = list(value.axes)
    for k, a in enumerate(axes):
        low, high = (pads[k], pads[k + len(axes)]) if pads else (0, 0)
        if pads is not None and low == high == 0:
            continue
        fused = layout.fuse(site.ledger, Value(tuple(results)), a)
        digit = fused.axes[a][0] if fused.axes[a] else None
        if digit is None or digit.labels is None or digit.deps or pads is None or not constant or min(low, high) < 0:
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
        assert pads is not None
        new = list(pads)
        for k, (low, high) in parts.items():
            keep = cut.keep(result, axes[k])
            new[k], new[k + len(axes)] = int(keep[:low].sum()), int(keep[len(keep) - high :].sum())
        if new == pads:
            return {}
        return {1: np.array(new, np.int64)} if site.name(1) else {"pads": new}

    if parts:
        site.patch(make)


# --- the rest ---------------------------------------------------------------------------------------------------------


def shape_of(site: Site) -> None:
    """Shape and Size read no elements: nothing is tied."""
    site.yields(*(site.ledger.free(site.out_shape(k)) for k in range(len(site.node.outputs))))


def fresh_output(site: Site) -> None:
    """Operators whose output has no channels of a model: free."""
    for slot in site.given():
        site.leave(slot)
    shape_of(site)


def opaque(site: Site) -> None:
    """An operator without a rule pins all it touches, captured values of its bodies included."""
    site.records.opaque[site.node.op_type] = site.records.opaque.get(site.node.op_type, 0) + 1
    touched = [str(v.name) for v in site.node.inputs if v is not None and v.name]
    for attribute in site.node.attributes.values():
        touched += _captured(attribute)
    for name in touched:
        if name in site.values:
            value = site.values[name]
            site.pin(value, range(len(value.axes)), f"feeds {site.node.op_type}, which has no rule")
        elif name in site.shapes.analysis.shape:
            site.values[name] = site.ledger.free(site.shapes.analysis.shape[name])
    for output in site.node.outputs:
        if output.name:
            site.values[str(output.name)] = site.ledger.free(site.shapes.analysis.shape[str(output.name)])


def _captured(attribute: Any) -> list[str]:
    """Names of outer values that the bodies in an attribute read."""
    import onnx_ir as ir

    if attribute.type == ir.AttributeType.GRAPH:
        bodies = [attribute.value]
    elif attribute.type == ir.AttributeType.GRAPHS:
        bodies = list(attribute.value)
    else:
        return []
    return [str(v.name) for body in bodies for node in body.all_nodes() for v in node.inputs if v is not None and v.name]

