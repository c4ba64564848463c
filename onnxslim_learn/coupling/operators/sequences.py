"""Operators over sequences that bundle many steps: recurrent cells, attention, rotary positions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxslim_learn.coupling import alignment, layout
from onnxslim_learn.coupling.operators import counted, elementwise
from onnxslim_learn.coupling.operators.facts import Operator, Recurrent
from onnxslim_learn.coupling.relations import Axis, Value

if TYPE_CHECKING:
    from onnxslim_learn.coupling.context import Cut, Site


# --- recurrent cells --------------------------------------------------------------------------------------------------


def recurrent(gates: int, states: int) -> Operator:
    """RNN, GRU, LSTM: W ``(d)(q h)(i)``, R ``(d)(q h)(h)``, B ``(d)(2q h)``, initial states ``(d)(b)(h)``.

    Hidden units are one digit per direction; both directions keep equal counts.

    Args:
        gates: Gates stacked in a weight: 1, 3 or 4.
        states: Kinds of state: hidden, and cell for LSTM.
    """

    def rule(site: Site) -> None:
        batch_first = bool(site.attr("layout", 0))
        steps = ["b", "t"] if batch_first else ["t", "b"]
        start = ["b", "d", "h"] if batch_first else ["d", "b", "h"]
        order = ["b", "t", "d", "h"] if batch_first else ["t", "d", "b", "h"]
        operands = [(0, site.operand(0, [*steps, "i"])), *_parameters(site, gates)]
        operands += [(slot, site.operand(slot, start)) for slot in range(5, 5 + states) if site.name(slot)]
        if site.name(4):
            site.leave(4)
        lengths = range(2) if site.name(4) else [1 if batch_first else 0]
        site.pin(site.value(0), lengths, f"is a step of {site.node.op_type}")
        joined = site.join(*sorted(operands, key=lambda one: one[0]))
        site.pin(Value((joined.space["d"],)), [0], f"is a direction of {site.node.op_type}")
        _same_units(site, joined)
        final = joined.output(site.ledger, start)
        site.yields(joined.output(site.ledger, order), *([final] * states))
        units = joined.output(site.ledger, "dh")
        site.patch(lambda cut: {"hidden_size": cut.size(units, 1)})
        site.contract(0, [2])
        site.contract(2, [2], inner=True)
        directions, hidden = site.shape(2)[0], site.shape(2)[2]
        sizes = dict(zip([*steps, "i"], site.nominal(0), strict=True)) | {"d": directions, "h": hidden, "k": hidden}
        for letters in ("btdhi", "btdhk"):
            site.work({c: joined.space[c] for c in letters}, sizes, gates)

    return Operator(rule, factors=Recurrent(), weights=(1, 2, 3, 7))


def _same_units(site: Site, joined: alignment.Joined) -> None:
    """Units as outputs and as inputs of the next step are the same: where one cannot go, neither can."""
    sides = [digit for letter in "hk" for digit in joined.space[letter]]
    labelled = [digit for digit in sides if digit.labels is not None]
    if len(labelled) == len(sides) == 2:
        site.ledger.tie(labelled[0].labels, labelled[1].labels)  # type: ignore[arg-type]
    else:
        for digit in labelled:
            site.ledger.pin(digit, f"is tied to a free axis by {site.node.op_type}", joined.seen("hk").digits)


def _parameters(site: Site, gates: int) -> list[tuple[int, alignment.Operand]]:
    """The weights of a recurrent cell, their axes split into directions, gates and one set of hidden units."""
    directions, hidden = site.shape(2)[0], site.shape(2)[2]
    labels = site.ledger.fresh(directions, hidden)
    if directions > 1:
        site.ledger.grids.append(layout.Grid(site.ledger.node, labels, ()))
    views: dict[int, tuple[list[str | None], tuple[int, ...], tuple[int, ...]]] = {
        1: (["d", None, "h", "i"], (directions, gates, hidden, site.shape(1)[2]), (1, 2, 1)),
        2: (["d", None, "h", "k"], (directions, gates, hidden, hidden), (1, 2, 1)),
        3: (["d", None, "h"], (directions, 2 * gates, hidden), (1, 2)),
        7: (["d", None, "h"], (directions, 3, hidden), (1, 2)),
    }
    operands = []
    for slot in (k for k in views if site.name(k)):
        letters, view, parts = views[slot]
        operand = site.operand(slot, letters, view, parts)
        direction = site.ledger.axis(directions)
        known: dict[str, Axis] = {"d": direction}
        for letter in "hk":  # the same units as outputs and as inputs: two digits of one set of labels
            hidden_labels = labels if direction else labels[0]
            known[letter] = (
                (site.ledger.digit(hidden, hidden_labels, [d.key for d in direction]),) if hidden > 1 else ()
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
        whole: Whether the runtime takes whole heads only.
    """

    def rule(site: Site) -> None:
        query, key, value = (slots[role] for role in ("query", "key", "value"))
        four = len(site.shape(query)) == 4
        if site.name(value) is None or site.name(key) is None or (four and not transposed):
            return counted.count(site, counted.compared)
        count = site.shape(query)[1] if four else int(site.attr(heads[0]))
        groups = site.shape(key)[1] if len(site.shape(key)) == 4 else int(site.attr(heads[1], count))
        operands = {
            query: _by_head(site, query, "s", "grh", (groups, count // groups)),
            key: _by_head(site, key, "t", "gh", (groups,)),
            value: _by_head(site, value, "t", "gv", (groups,)),
        }
        sizes = {c: n for op in operands.values() for c, n in zip(op.letters, op.shape, strict=True) if c}
        bias = slots.get("bias", -1)
        if bias >= 0 and site.name(bias):
            if sizes["h"] != sizes["v"]:
                return counted.count(site, counted.compared)
            operands[bias] = site.operand(bias, [None, "g", "h"], (3, groups, sizes["h"]), (3,))
        operands |= _past(site, slots)
        joined = site.join(*operands.items())
        for slot in site.given():
            if slot not in operands:
                site.leave(slot)
        kept_sizes = whole or bias in operands or bool(site.node.domain and _past(site, slots))
        _attention_pins(site, joined, operands, inside=kept_sizes)
        _attention_output(site, joined, four=four)
        _attention_settings(site, joined, heads, sizes["h"], four=four)
        site.contract(query, [len(site.shape(query)) - 1])
        sizes |= {"b": site.nominal(query)[0], "s": site.nominal(query)[2 if four else 1]}
        sizes["t"] = site.nominal(key)[2 if len(site.shape(key)) == 4 else 1]
        sizes["t"] += site.nominal(slots["past_key"])[2] if site.name(slots["past_key"]) else 0
        for letters in ("bsgrth", "bsgrtv"):
            site.work({c: joined.space.get(c, ()) for c in letters}, sizes)
        return None

    return Operator(rule, weights=(slots["bias"],) if "bias" in slots else ())


def _past(site: Site, slots: dict[str, int]) -> dict[int, alignment.Operand]:
    """Cached keys and values: ``b heads position size``."""
    roles = ((slots.get("past_key", -1), "h"), (slots.get("past_value", -1), "v"))
    return {
        slot: site.operand(slot, ["b", "g", None, letter]) for slot, letter in roles if slot >= 0 and site.name(slot)
    }


def _by_head(site: Site, slot: int, position: str, letters: str, counts: tuple[int, ...]) -> alignment.Operand:
    """Query, key or value, heads spelled out: ``b position (heads size)`` or, of rank 4, ``b heads position size``."""
    shape = site.shape(slot)
    if len(shape) == 4:
        view, parts = (shape[0], *counts, *shape[2:]), (1, len(counts), 1, 1)
        return site.operand(slot, ["b", *letters[:-1], position, letters[-1]], view, parts)
    view = (*shape[:2], *counts, shape[2] // math.prod(counts))
    return site.operand(slot, ["b", position, *letters], view, (1, 1, len(counts) + 1))


def _attention_pins(
    site: Site, joined: alignment.Joined, operands: dict[int, alignment.Operand], *, inside: bool
) -> None:
    """What cannot go: compared positions, what masks and put-out scores line up with, head sizes changed inside."""
    masks = [site.shape(slot) for slot in site.given() if slot not in operands]
    window = any(int(site.attr(f"{side}_window_size", -1)) >= 0 for side in ("left", "right"))
    ordered = inside or window or site.attr("is_causal", 0) or site.attr("unidirectional", 0)
    letters = {"t": "is compared with all others"}
    letters |= dict.fromkeys("s" if ordered else "", "sees as far as its place lets it")
    letters |= dict.fromkeys("bs" if masks else "", "is masked")
    letters |= dict.fromkeys("gr" if any(len(shape) > 2 for shape in masks) else "", "is masked by head")
    scores = any(v.uses() or v.is_graph_output() for v in site.node.outputs[3:])
    letters |= dict.fromkeys("bsgr" if scores else "", "has its scores put out")
    letters |= dict.fromkeys("hv" if inside else "", f"is a head size that {site.node.op_type} fixes")
    known = joined.seen(()).digits
    for letter, reason in letters.items():
        for digit in joined.space.get(letter, ()):
            site.ledger.pin(digit, reason, known)


def _attention_output(site: Site, joined: alignment.Joined, *, four: bool) -> None:
    """The result, then present keys and values; other outputs are free."""
    ledger = site.ledger
    result = joined.output(ledger, "bgrsv" if four else "bsgrv")
    values = [layout.regroup(ledger, result, site.out_shape(0))]
    for number, output in enumerate(site.node.outputs[1:], 1):
        if not output.name:
            values.append(result)
            continue
        shape = site.out_shape(number)
        letter = "h" if number == 1 else "v"
        if number <= 2:
            cache = joined.output(ledger, ["b", "g", letter])
            values.append(Value((cache.axes[0], cache.axes[1], ledger.axis(shape[2]), cache.axes[2])))
        else:
            values.append(ledger.free(shape))
    site.yields(*values)


def _attention_settings(site: Site, joined: alignment.Joined, heads: tuple[str, str], size: int, *, four: bool) -> None:
    """Numbers of heads follow the plan; the default scale is frozen at the old head size."""
    space = joined.seen("gr")
    units = joined.output(site.ledger, ["g", "h"])

    def make(cut: Cut) -> dict[int | str, Any]:
        groups, repeats = cut.size(space, 0), cut.size(space, 1)
        wanted: dict[int | str, Any] = {}
        if not four:
            wanted = (
                {heads[0]: groups * repeats} if heads[0] == heads[1] else {heads[0]: groups * repeats, heads[1]: groups}
            )
        if cut.size(units, 1) != size and not site.attr("scale"):
            wanted["scale"] = 1.0 / math.sqrt(size)
        return wanted

    site.patch(make)


def linear_attention(site: Site) -> None:
    """LinearAttention: heads share a state ``b g h v`` that each step updates; whole heads go."""
    ledger, groups, count = site.ledger, int(site.attr("kv_num_heads")), int(site.attr("q_num_heads"))
    operands = {
        0: _by_head(site, 0, "t", "grh", (groups, count // groups)),
        1: _by_head(site, 1, "t", "gh", (groups,)),
        2: _by_head(site, 2, "t", "gv", (groups,)),
    }
    for slot in (4, 5):  # decay and update rate: per head, or per head and key entry
        if site.name(slot):
            whole = site.shape(slot)[2] > groups
            operands[slot] = _by_head(site, slot, "t", "gh", (groups,)) if whole else site.operand(slot, "btg")
    if site.name(3):
        operands[3] = site.operand(3, "bghv")
    joined = site.join(*operands.items())
    for letter, reason in (("t", "is a step of LinearAttention"), ("h", "is summed inside"), ("v", "is summed inside")):
        site.pin(joined.seen(letter), [0], reason)
    site.yields(
        layout.regroup(ledger, joined.output(ledger, "btgrv"), site.out_shape(0)), joined.output(ledger, "bghv")
    )
    heads = joined.seen("gr")
    site.patch(lambda cut: {"kv_num_heads": cut.size(heads, 0), "q_num_heads": cut.size(heads, 0) * cut.size(heads, 1)})
    sizes = {c: n for op in operands.values() for c, n in zip(op.letters, op.shape, strict=True) if c}
    sizes |= dict(zip("bt", site.nominal(0), strict=False))
    for letters in ("btghv", "btgrhv"):  # the state's update, and the queries' reading of it
        site.work(dict(zip(letters, joined.output(ledger, letters).axes, strict=True)), sizes)


def causal_convolution(site: Site) -> None:
    """CausalConvWithState: every channel along time with a kernel of its own, from a state of the last positions."""
    letters: dict[int, list[str | None]] = {0: ["b", "c", None], 1: ["c", None, None], 2: ["c"], 3: ["b", "c", None]}
    joined = site.join(
        *((slot, site.operand(slot, letters_of_slot)) for slot, letters_of_slot in letters.items() if site.name(slot))
    )
    passed = joined.output(site.ledger, "bc")
    site.yields(*(Value((*passed.axes, free.axes[2])) for free in site.free_outputs(0) if len(free.axes) == 3))
    b, c, steps = site.nominal(0)
    site.work({k: joined.space[k] for k in "bc"}, {"b": b, "c": c}, steps * site.shape(1)[2])


def packed_attention(site: Site) -> None:
    """com.microsoft.Attention: input ``b s c``, weight ``c (p g h)`` with query, key and value stacked, their bias."""
    groups = int(site.attr("num_heads"))
    if site.attr("qkv_hidden_sizes") or site.name(4) or site.attr("do_rotary", 0):
        return counted.count(site, counted.projected)
    size = site.shape(1)[1] // (3 * groups)
    ledger, labels = site.ledger, site.ledger.fresh(groups * size)
    weight = site.operand(1, ["c", "p", "f"], (site.shape(1)[0], 3, groups * size), (1, 2))
    stacked, flat = ledger.axis(3), (ledger.digit(groups * size, labels),)
    if weight.axes[1] is None:
        weight = replace(weight, axes=(weight.axes[0], stacked, flat))
    operands = [(0, site.operand(0, ["b", "s", "c"])), (1, weight)]
    if site.name(2):
        bias = site.operand(2, ["p", "f"], (3, groups * size), (2,))
        if bias.axes[0] is None:
            bias = replace(bias, axes=(ledger.axis(3), (ledger.digit(groups * size, labels),)))
        operands.append((2, bias))
    joined = site.join(*operands)
    for slot in site.given():
        if slot > 2:
            site.leave(slot)
    result = joined.output(ledger, ["b", "s", "f"])
    site.yields(result, *site.free_outputs(1))
    units = layout.regroup(ledger, Value((result.axes[2],)), (groups, size))
    site.pin(result, [0, 1], "is compared with all others, or masked")
    site.pin(units, [1], "is summed inside")

    site.patch(lambda cut: {"num_heads": cut.size(units, 0)})
    site.contract(0, [2])
    sizes = dict(zip("bsc", site.nominal(0), strict=True)) | {"f": groups * size}
    site.work({c: joined.space[c] for c in "bscf"}, sizes, 3)
    site.work({c: joined.space[c] for c in "bsf"}, sizes, 2 * sizes["s"])
    return None


def rotary(*, positions: int, cosine: int) -> Operator:
    """RotaryEmbedding: halves (or neighbours) of a head turn together, by tables ``(positions)(half)``.

    Args:
        positions: Input with positions.
        cosine: First of the two inputs with tables.
    """

    def rule(site: Site) -> None:
        shape = site.shape(0)
        half = site.shape(cosine)[-1]
        heads = int(site.attr("num_heads", 0)) or (shape[1] if len(shape) == 4 else shape[2] // (2 * half))
        size = shape[3] if len(shape) == 4 else shape[2] // heads
        if size != 2 * half:
            return elementwise.opaque(site)
        turn = ["c", "p"] if site.attr("interleaved", 0) else ["p", "c"]
        factors = (half, 2) if site.attr("interleaved", 0) else (2, half)
        if len(shape) == 4:
            data = site.operand(0, ["b", "g", "s", *turn], (*shape[:3], *factors), (1, 1, 1, 2))
        else:
            data = site.operand(0, ["b", "s", "g", *turn], (shape[0], shape[1], heads, *factors), (1, 1, 3))
        rank = len(site.shape(cosine))
        tables = [(slot, site.operand(slot, [*([None] * (rank - 1)), "c"])) for slot in (cosine, cosine + 1)]
        joined = site.join((0, data), *tables)
        if site.name(positions) or rank > 2:
            site.leave(positions)
            site.pin(Value((joined.space["b"], joined.space["s"])), [0, 1], "has a position")
        for digit in joined.space["p"]:
            site.ledger.pin(digit, "turns together with another part", joined.seen(()).digits)
        letters = ["b", "g", "s", *turn] if len(shape) == 4 else ["b", "s", "g", *turn]
        site.yields(layout.regroup(site.ledger, joined.output(site.ledger, letters), shape))
        groups = joined.seen("g")
        if site.attr("num_heads", 0):
            site.patch(lambda cut: {"num_heads": cut.size(groups, 0)})
        return None

    return Operator(rule)
