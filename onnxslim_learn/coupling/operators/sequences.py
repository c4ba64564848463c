"""Operators over sequences that bundle many steps: recurrent cells, attention, rotary positions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.coupling import alignment, layout
from onnxslim_learn.coupling.operators import counted, elementwise, mixing
from onnxslim_learn.coupling.operators.facts import Operator, Projection, Recurrent, Trait
from onnxslim_learn.coupling.relations import Axis, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.coupling.alignment import Operand
    from onnxslim_learn.coupling.context import NodeContext
    from onnxslim_learn.coupling.records import Cut


# --- recurrent cells --------------------------------------------------------------------------------------------------


def recurrent(gates: int, states: int, *, quantized: bool = False) -> Operator:
    """RNN, GRU, LSTM: W ``(d)(q h)(i)``, R ``(d)(q h)(h)``, B ``(d)(2q h)``, initial states ``(d)(b)(h)``.

    Hidden units are one digit per direction; both directions keep equal counts.

    Args:
        gates: Gates stacked in a weight: 1, 3 or 4.
        states: Kinds of state: hidden, and cell for LSTM.
        quantized: Whether weights are integers, W ``(d)(i)(q h)`` and R ``(d)(h)(q h)``, with scales and zero points by
            direction, or by column of each (inputs 8 to 11), and data and state are quantized by their own range.
    """

    def rule(context: NodeContext) -> None:
        if quantized and not _rests_at_zero(context):
            return counted.count(context, counted.each_row(1, 2))
        batch_first = bool(context.attr("layout", 0))
        steps = ["b", "t"] if batch_first else ["t", "b"]
        start = ["b", "d", "h"] if batch_first else ["d", "b", "h"]
        order = ["b", "t", "d", "h"] if batch_first else ["t", "d", "b", "h"]
        operands = [(0, context.operand(0, [*steps, "i"])), *_parameters(context, gates, quantized=quantized)]
        initial = [slot for slot in range(5, 5 + states) if context.name(slot)]
        for slot in initial:  # a state that is as it is fixes the batch
            if start.index("b") not in context.varying(slot):
                context.fits(0, steps.index("b"), context.shape(slot)[start.index("b")])
        operands += [(slot, context.operand(slot, start)) for slot in initial]
        if context.name(4):
            context.leave(4)
        together = range(2) if context.name(4) or quantized else [1 if batch_first else 0]
        context.pin(context.value(0), together, f"is a step of {context.node.op_type}")
        joined = context.join(*sorted(operands, key=lambda one: one[0]))
        context.pin(Value((joined.space["d"],)), [0], f"is a direction of {context.node.op_type}")
        _same_units(context, joined)
        final = joined.output(context.relations, start)
        context.yields(joined.output(context.relations, order), *([final] * states))
        units = joined.output(context.relations, "dh")
        context.patch(lambda cut: {"hidden_size": cut.size(units, 1)})
        context.contract(0, [2])
        context.contract(2, [1 if quantized else 2], zero=11 if quantized else None, inner=True)
        for slot, zero in ((1, 9), (2, 11), (3, None), (5, None), (6, None)) if quantized else ():
            if context.name(slot):
                context.silence(slot, [len(context.shape(slot)) - 1], zero)
        directions, hidden = context.shape(2)[0], context.shape(2)[1 if quantized else 2]
        sizes = dict(zip([*steps, "i"], context.nominal(0), strict=True)) | {"d": directions, "h": hidden, "k": hidden}
        for letters in ("btdhi", "btdhk"):
            context.work({c: joined.space[c] for c in letters}, sizes, gates)

    if quantized:
        return Operator(rule, factors=Recurrent())
    return Operator(rule, factors=Recurrent(), weights=(1, 2, 3, 7), apart=mixing.cells)


def _same_units(context: NodeContext, joined: alignment.Joined) -> None:
    """Units as outputs and as inputs of the next step are the same: where one cannot go, neither can."""
    sides = [digit for letter in "hk" for digit in joined.space[letter]]
    labelled = [digit for digit in sides if digit.labels is not None]
    if len(labelled) == len(sides) == 2:
        context.relations.tie(labelled[0].labels, labelled[1].labels)  # type: ignore[arg-type]
    else:
        for digit in labelled:
            context.relations.pin(digit, context.met_free(), joined.seen("hk").digits)


_View = tuple[list[str | None], tuple[int, ...], tuple[int, ...]]  # letters, a view of a tensor, and parts of its axes
_STAY_AT_ZERO = "relu tanh leakyrelu thresholdedrelu scaledtanh softsign elu".split()  # noqa: SIM905


def _rests_at_zero(context: NodeContext) -> bool:
    """Whether a unit that nothing drives stays at zero: then only is the range of all states the same without it."""
    functions = [str(name).lower() for name in context.attr("activations", ())]
    return all(name in _STAY_AT_ZERO for k, name in enumerate(functions) if k % 3)


def _parameters(context: NodeContext, gates: int, *, quantized: bool) -> list[tuple[int, alignment.Operand]]:
    """The weights of a recurrent cell, their axes split into directions, gates and one set of hidden units."""
    directions, hidden = context.shape(2)[0], context.shape(2)[1 if quantized else 2]
    labels = context.relations.fresh(directions, hidden)
    if directions > 1:
        context.relations.grids.append(layout.Grid(context.relations.node, labels, ()))
    views: dict[int, _View] = {
        1: (["d", None, "h", "i"], (directions, gates, hidden, context.shape(1)[2]), (1, 2, 1)),
        2: (["d", None, "h", "k"], (directions, gates, hidden, hidden), (1, 2, 1)),
        3: (["d", None, "h"], (directions, 2 * gates, hidden), (1, 2)),
        7: (["d", None, "h"], (directions, 3, hidden), (1, 2)),
    }
    if quantized:
        views[1] = (["d", "i", None, "h"], (directions, context.shape(1)[1], gates, hidden), (1, 1, 2))
        views[2] = (["d", "k", None, "h"], (directions, hidden, gates, hidden), (1, 1, 2))
        each: _View = ["d", None, "h"], (directions, gates, hidden), (1, 2)
        all_of_one: _View = ["d"], (directions,), (1,)
        views |= {slot: each if len(context.shape(slot)) > 1 else all_of_one for slot in range(8, 12)}
    operands = []
    for slot in (k for k in views if context.name(k)):
        letters, view, parts = views[slot]
        operand = context.operand(slot, letters, view, parts)
        direction = context.relations.axis(directions)
        known: dict[str, Axis] = {"d": direction}
        for letter in "hk":  # the same units as outputs and as inputs: two digits of one set of labels
            hidden_labels = labels if direction else labels[0]
            known[letter] = (
                (context.relations.digit(hidden, hidden_labels, [d.key for d in direction]),) if hidden > 1 else ()
            )
        axes = [known.get(c or "") if axis is None else axis for c, axis in zip(letters, operand.axes, strict=True)]
        operands.append((slot, replace(operand, axes=tuple(axes))))
    return operands


# --- attention --------------------------------------------------------------------------------------------------------


def attention(
    *, slots: dict[str, int], heads: tuple[str, str], transposed: bool = False, whole: bool = False
) -> Operator:
    """Scaled dot product attention over heads: query ``b s (g r h)``, key ``b t (g h)``, value ``b t (g v)``.

    Query heads are key heads times repeats; whole heads go with no hint, and head sizes as columns.

    Args:
        slots: Inputs by role: ``query``, ``key``, ``value``, ``bias``, ``past_key``, ``past_value``.
        heads: Attributes with the number of query heads and of key heads (equal names where they are the same).
        transposed: Whether inputs of rank 4 have heads before positions (else after).
        whole: Whether the runtime takes whole heads only, and queries, keys and values end to end in one input, too.
    """

    def rule(context: NodeContext) -> None:
        query, key, value = (slots[role] for role in ("query", "key", "value"))
        four, packed = len(context.shape(query)) == 4, whole and not context.name(key) and not context.name(value)
        if not packed and (not context.name(value) or not context.name(key) or (four and not transposed)):
            return counted.count(context, counted.compared)
        key, value = (query, query) if packed else (key, value)
        count, groups = _head_counts(context, query, key, heads)
        parts = _parts((query, key, value), count, groups)
        operands = _end_to_end(context, parts) if packed else [(part[0], _by_head(context, *part)) for part in parts]
        sizes = {c: n for _, op in operands for c, n in zip(op.letters, op.shape, strict=True) if c}
        bias = slots.get("bias", -1)
        if bias >= 0 and context.name(bias):
            if sizes["h"] != sizes["v"]:
                return counted.count(context, counted.compared)
            operands.append((bias, context.operand(bias, [None, "g", "h"], (3, groups, sizes["h"]), (3,))))
        past = _past(context, slots)
        operands += past
        joined = context.join(*operands)
        joined_slots = {slot for slot, _ in operands}
        for slot in (slot for slot in context.given() if slot not in joined_slots):
            context.leave(slot)
        kept_sizes = whole or bias in joined_slots or bool(context.node.domain and past)
        _attention_pins(context, joined, joined_slots, inside=kept_sizes)
        _attention_output(context, joined, four=four)
        _attention_settings(context, joined, heads, sizes["h"], four=four)
        context.contract(query, [len(context.shape(query)) - 1])
        sizes |= {"b": context.nominal(query)[0], "s": context.nominal(query)[2 if four else 1]}
        sizes["t"] = _positions(context, key, slots["past_key"])
        for letters in ("bsgrth", "bsgrtv"):
            context.work({c: joined.space.get(c, ()) for c in letters}, sizes)
        return None

    return Operator(
        rule, weights=(slots["bias"],) if "bias" in slots else (), traits=Trait.ATTENDS, apart=mixing.attended(heads[0])
    )


def _parts(slots: tuple[int, int, int], count: int, groups: int) -> tuple[Heads, ...]:
    """Query, key and value by slot, with letters of their positions and channels, and sizes of what heads lie in."""
    query, key, value = slots
    return (query, "s", "grh", (groups, count // groups)), (key, "t", "gh", (groups,)), (value, "t", "gv", (groups,))


def _head_counts(context: NodeContext, query: int, key: int, heads: tuple[str, str]) -> tuple[int, int]:
    """Numbers of query heads and of key heads."""
    count = context.shape(query)[1] if len(context.shape(query)) == 4 else int(context.attr(heads[0]))
    return count, context.shape(key)[1] if len(context.shape(key)) == 4 else int(context.attr(heads[1], count))


def _positions(context: NodeContext, key: int, past: int) -> int:
    """How many positions are attended to, former ones included, at nominal sizes."""
    here = context.nominal(key)[2 if len(context.shape(key)) == 4 else 1]
    return here + (context.nominal(past)[2] if context.name(past) else 0)


def _past(context: NodeContext, slots: dict[str, int]) -> list[tuple[int, alignment.Operand]]:
    """Cached keys and values: ``b heads position size``."""
    roles = ((slots.get("past_key", -1), "h"), (slots.get("past_value", -1), "v"))
    return [
        (slot, context.operand(slot, ["b", "g", None, letter]))
        for slot, letter in roles
        if slot >= 0 and context.name(slot)
    ]


Heads = tuple[int, str, str, tuple[int, ...]]  # an input, the letters of its positions and of the rest, and counts


def _end_to_end(context: NodeContext, parts: Sequence[Heads]) -> list[tuple[int, alignment.Operand]]:
    """Query, key and value heads, one after the other along the last axis of one input."""
    slot = parts[0][0]
    packed = layout.fuse(context.relations, context.value(slot), 2)
    counts = [math.prod(heads) for *_, heads in parts]
    size, start, operands = packed.shape[2] // sum(counts), 0, []
    for (_, position, letters, heads), count in zip(parts, counts, strict=True):
        index = np.arange(start, start + count * size)
        part = layout.take(context.relations, packed, 2, index, len(index))
        shape = (*part.shape[:2], *heads, size)
        axes = layout.regroup(context.relations, part, shape).axes
        operands.append((slot, alignment.Operand(("b", position, *letters), shape, axes)))
        start += len(index)
    return operands


def _by_head(
    context: NodeContext, slot: int, position: str, letters: str, counts: tuple[int, ...]
) -> alignment.Operand:
    """Query, key or value, heads spelled out: ``b position (heads size)`` or, of rank 4, ``b heads position size``."""
    shape = context.shape(slot)
    if len(shape) == 4:
        view, parts = (shape[0], *counts, *shape[2:]), (1, len(counts), 1, 1)
        return context.operand(slot, ["b", *letters[:-1], position, letters[-1]], view, parts)
    view = (*shape[:2], *counts, shape[2] // math.prod(counts))
    return context.operand(slot, ["b", position, *letters], view, (1, 1, len(counts) + 1))


def _attention_pins(context: NodeContext, joined: alignment.Joined, slots: set[int], *, inside: bool) -> None:
    """What cannot go: compared positions, what masks and put-out scores line up with, head sizes changed inside.

    Inputs that are not among the joined ``slots`` are masks, or say how long something is.
    """
    masks = [context.shape(slot) for slot in context.given() if slot not in slots]
    window = any(int(context.attr(f"{side}_window_size", -1)) >= 0 for side in ("left", "right"))
    ordered = inside or window or context.attr("is_causal", 0) or context.attr("unidirectional", 0)
    letters = {"t": "is compared with all others"}
    letters |= dict.fromkeys("s" if ordered else "", "sees as far as its place lets it")
    letters |= dict.fromkeys("bs" if masks else "", "is masked")
    letters |= dict.fromkeys("gr" if any(len(shape) > 2 for shape in masks) else "", "is masked by head")
    scores = any(v.uses() or v.is_graph_output() for v in context.node.outputs[3:])
    letters |= dict.fromkeys("bsgr" if scores else "", "has its scores put out")
    letters |= dict.fromkeys("hv" if inside else "", f"is a head size that {context.node.op_type} fixes")
    known = joined.seen(()).digits
    for letter, reason in letters.items():
        for digit in joined.space.get(letter, ()):
            context.relations.pin(digit, reason, known)


def _attention_output(context: NodeContext, joined: alignment.Joined, *, four: bool) -> None:
    """The result, then present keys and values; other outputs are free."""
    relations = context.relations
    result = joined.output(relations, "bgrsv" if four else "bsgrv")
    values = [layout.regroup(relations, result, context.out_shape(0))]
    for number, output in enumerate(context.node.outputs[1:], 1):
        if not output.name:
            values.append(result)
            continue
        shape = context.out_shape(number)
        letter = "h" if number == 1 else "v"
        if number <= 2:
            cache = joined.output(relations, ["b", "g", letter])
            values.append(Value((cache.axes[0], cache.axes[1], relations.axis(shape[2]), cache.axes[2])))
        else:
            values.append(relations.free(shape))
    context.yields(*values)


def _attention_settings(
    context: NodeContext, joined: alignment.Joined, heads: tuple[str, str], size: int, *, four: bool
) -> None:
    """Numbers of heads follow the plan; the default scale is frozen at the old head size."""
    space = joined.seen("gr")
    units = joined.output(context.relations, ["g", "h"])

    def make(cut: Cut) -> dict[int | str, Any]:
        groups, repeats = cut.size(space, 0), cut.size(space, 1)
        wanted: dict[int | str, Any] = {}
        if not four:
            wanted = (
                {heads[0]: groups * repeats} if heads[0] == heads[1] else {heads[0]: groups * repeats, heads[1]: groups}
            )
        if cut.size(units, 1) != size and not context.attr("scale"):
            wanted["scale"] = 1.0 / math.sqrt(size)
        return wanted

    context.patch(make)


def linear_attention(context: NodeContext) -> None:
    """LinearAttention: heads share a state ``b g h v`` that each step updates; whole heads go."""
    relations, groups, count = context.relations, int(context.attr("kv_num_heads")), int(context.attr("q_num_heads"))
    operands = {
        0: _by_head(context, 0, "t", "grh", (groups, count // groups)),
        1: _by_head(context, 1, "t", "gh", (groups,)),
        2: _by_head(context, 2, "t", "gv", (groups,)),
    }
    for slot in (4, 5):  # decay and update rate: per head, or per head and key entry
        if context.name(slot):
            whole = context.shape(slot)[2] > groups
            operands[slot] = _by_head(context, slot, "t", "gh", (groups,)) if whole else context.operand(slot, "btg")
    if context.name(3):
        operands[3] = context.operand(3, "bghv")
    joined = context.join(*operands.items())
    for letter, reason in (("t", "is a step of LinearAttention"), ("h", "is summed inside"), ("v", "is summed inside")):
        context.pin(joined.seen(letter), [0], reason)
    context.yields(
        layout.regroup(relations, joined.output(relations, "btgrv"), context.out_shape(0)),
        joined.output(relations, "bghv"),
    )
    heads = joined.seen("gr")
    context.patch(
        lambda cut: {"kv_num_heads": cut.size(heads, 0), "q_num_heads": cut.size(heads, 0) * cut.size(heads, 1)}
    )
    sizes = {c: n for op in operands.values() for c, n in zip(op.letters, op.shape, strict=True) if c}
    sizes |= dict(zip("bt", context.nominal(0), strict=False))
    for letters in ("btghv", "btgrhv"):  # the state's update, and the queries' reading of it
        context.work(dict(zip(letters, joined.output(relations, letters).axes, strict=True)), sizes)


def causal_convolution(context: NodeContext) -> None:
    """CausalConvWithState: every channel along time with a kernel of its own, from a state of the last positions."""
    letters: dict[int, list[str | None]] = {0: ["b", "c", None], 1: ["c", None, None], 2: ["c"], 3: ["b", "c", None]}
    joined = context.join(
        *(
            (slot, context.operand(slot, letters_of_slot))
            for slot, letters_of_slot in letters.items()
            if context.name(slot)
        )
    )
    passed = joined.output(context.relations, "bc")
    context.yields(*(Value((*passed.axes, free.axes[2])) for free in context.free_outputs(0) if len(free.axes) == 3))
    b, c, steps = context.nominal(0)
    context.work({k: joined.space[k] for k in "bc"}, {"b": b, "c": c}, steps * context.shape(1)[2])


def packed_attention(*, past: int, columns: Sequence[int] = (), zero: int | None = None) -> Operator:
    """Attention of com.microsoft: input ``b s c``, weight ``c (p g h)`` with query, key and value stacked, their bias.

    Args:
        past: Input with keys and values of earlier steps.
        columns: Inputs with one entry per column of the weight, or one in all.
        zero: Input with the value that stands for zero in the data (quantized).
    """

    def rule(context: NodeContext) -> None:
        groups = int(context.attr("num_heads"))
        if context.attr("qkv_hidden_sizes") or context.name(past) or context.attr("do_rotary", 0):
            return counted.count(context, counted.projected)
        size = context.shape(1)[1] // (3 * groups)
        relations, labels = context.relations, context.relations.fresh(groups * size)

        def stacked(slot: int, letters: str, rows: Sequence[int] = ()) -> tuple[int, Operand]:
            view, parts = (*rows, 3, groups * size), (*[1] * len(rows), 2)
            one = context.operand(slot, [*letters], view, parts)
            if one.axes[-2] is None:
                digits = relations.axis(3), (relations.digit(groups * size, labels),)
                one = replace(one, axes=(*one.axes[:-2], *digits))
            return slot, one

        each = [slot for slot in (2, *columns) if context.name(slot) and math.prod(context.shape(slot)) > 1]
        factors = [(0, context.operand(0, ["b", "s", "c"])), stacked(1, "cpf", context.shape(1)[:1])]
        joined = context.join(*factors, *(stacked(slot, "pf") for slot in each))
        for slot in set(context.given()) - {0, 1, *each}:
            context.leave(slot)
        result = joined.output(relations, ["b", "s", "f"])
        context.yields(result, *context.free_outputs(1))
        units = layout.regroup(relations, Value((result.axes[2],)), (groups, size))
        context.pin(result, [0, 1], "is compared with all others, or masked")
        context.pin(units, [1], "is summed inside")

        context.patch(lambda cut: {"num_heads": cut.size(units, 0)})
        context.contract(0, [2], zero)
        sizes = dict(zip("bsc", context.nominal(0), strict=True)) | {"f": groups * size}
        context.work({c: joined.space[c] for c in "bscf"}, sizes, 3)
        context.work({c: joined.space[c] for c in "bsf"}, sizes, 2 * sizes["s"])
        return None

    kind = Projection(quantized=zero is not None)
    return Operator(rule, factors=kind, weights=() if kind.quantized else (1, 2), traits=Trait.ATTENDS)


def rotary(*, positions: int, cosine: int) -> Operator:
    """RotaryEmbedding: halves (or neighbours) of a head turn together, by tables ``(positions)(half)``.

    Args:
        positions: Input with positions.
        cosine: First of the two inputs with tables.
    """

    def rule(context: NodeContext) -> None:
        shape = context.shape(0)
        half = context.shape(cosine)[-1]
        heads = int(context.attr("num_heads", 0)) or (shape[1] if len(shape) == 4 else shape[2] // (2 * half))
        size = shape[3] if len(shape) == 4 else shape[2] // heads
        if size != 2 * half:
            return elementwise.opaque(context)
        turn = ["c", "p"] if context.attr("interleaved", 0) else ["p", "c"]
        factors = (half, 2) if context.attr("interleaved", 0) else (2, half)
        if len(shape) == 4:
            data = context.operand(0, ["b", "g", "s", *turn], (*shape[:3], *factors), (1, 1, 1, 2))
        else:
            data = context.operand(0, ["b", "s", "g", *turn], (shape[0], shape[1], heads, *factors), (1, 1, 3))
        rank = len(context.shape(cosine))
        tables = [(slot, context.operand(slot, [*([None] * (rank - 1)), "c"])) for slot in (cosine, cosine + 1)]
        joined = context.join((0, data), *tables)
        if context.name(positions) or rank > 2:
            context.leave(positions)
            context.pin(Value((joined.space["b"], joined.space["s"])), [0, 1], "has a position")
        for digit in joined.space["p"]:
            context.relations.pin(digit, "turns together with another part", joined.seen(()).digits)
        letters = ["b", "g", "s", *turn] if len(shape) == 4 else ["b", "s", "g", *turn]
        context.yields(layout.regroup(context.relations, joined.output(context.relations, letters), shape))
        groups = joined.seen("g")
        if context.attr("num_heads", 0):
            context.patch(lambda cut: {"num_heads": cut.size(groups, 0)})
        return None

    return Operator(rule)
