"""The families of operators: each states coupling, masks, work and patches in one go.

A family is a function that takes declarations and returns a rule ``rule(site) -> None``; the operator table names one
family per operator. Letters are single characters; ``site`` is the node at hand (:mod:`onnxslim_learn.graph.site`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from onnxslim_learn.graph import joint, layout
from onnxslim_learn.graph.ledger import Value
from onnxslim_learn.graph.site import Affine, Axes, Rule, aligned

if TYPE_CHECKING:
    from onnxslim_learn.graph.site import Cut, Site

# --- elementwise and per channel --------------------------------------------------------------------------------------


def elementwise(site: Site) -> None:
    """Broadcast all inputs against each other; every output has the result's layout."""
    operands = [(slot, site.operand(slot, aligned(len(site.shape(slot))))) for slot in site.given()]
    joined = site.join(*operands)
    outputs = range(len(site.node.outputs))
    site.records.elementwise.add(site.index)
    site.yields(
        *(joined.output(site.ledger, aligned(len(site.out_shape(k)))) for k in outputs if site.node.outputs[k].name)
    )


def first_input(site: Site) -> None:
    """Outputs have the first input's layout; other inputs are settings."""
    for slot in site.given()[1:]:
        site.leave(slot)
    site.yields(*(site.value(0) for _ in site.node.outputs))


def per_channel(
    *,
    normalised: Axes = lambda site, rank: (),
    axis: int | None = 1,
    affine: bool = False,
) -> Rule:
    """Vectors of one entry per channel: batch and instance norm, per-axis scales.

    Args:
        normalised: Which axes of the data are normalised over.
        axis: The channel axis, or ``None`` to read attribute ``axis``.
        affine: Whether inputs 1 and 2 scale and shift a normalised input.
    """

    def rule(site: Site) -> None:
        rank = len(site.shape(0))
        if any(len(site.shape(slot)) > 1 for slot in site.given()[1:]):
            return opaque(site)  # scales by block
        channel = (int(site.attr("axis", 1)) if axis is None else axis) % max(rank, 1)
        site.delicate(site.value(0), normalised(site, rank), f"is normalised over by {site.node.op_type}")
        letters = aligned(rank)
        vectors = [(s, site.operand(s, letters[channel] if site.shape(s) else "")) for s in site.given()[1:]]
        joined = site.join((0, site.operand(0, letters)), *vectors)
        result = joined.output(site.ledger, letters)
        rest = [joined.output(site.ledger, letters[channel]) for _ in site.node.outputs[1:]]
        site.yields(result, *rest)
        if affine:
            site.records.affines.append(Affine(site.index, 1, 2))
        return None

    return rule


def norm(axes: Axes, *, scale: int | None = None) -> Rule:
    """Normalise over axes; further inputs are affine parameters that broadcast from the right.

    Args:
        axes: Which axes.
        scale: Input that scales by channel: it is corrected by √(C/C') where C' of C channels stay, since the removed
            ones, zero in the masked original, count in its mean square (exact for a root mean square).
    """

    def rule(site: Site) -> None:
        rank = len(site.shape(0))
        site.delicate(site.value(0), axes(site, rank), f"is normalised over by {site.node.op_type}")
        operands = [(slot, site.operand(slot, aligned(len(site.shape(slot))))) for slot in site.given()]
        joined = site.join(*operands)
        result = joined.output(site.ledger, aligned(rank))
        statistics = layout.drop(site.ledger, result, axes(site, rank), keep=True)
        site.yields(result, *([statistics] * (len(site.node.outputs) - 1)))
        if site.sensitive and scale is not None and site.name(scale):
            over = list(axes(site, rank))

            def correct(cut: Cut) -> dict[int | str, Any]:
                share = math.prod(cut.size(result, a) for a in over) / math.prod(result.shape[a] for a in over)
                return {"scale_input": (scale, share**-0.5)} if share < 1 else {}

            site.patch(correct)

    return rule


def mixing(axes: Axes, *, vanish: bool = False) -> Rule:
    """Mix positions along axes (sort, cumulate, arg-max): these are pinned, the others pass.

    Args:
        axes: Which axes.
        vanish: Whether outputs may lack these axes.
    """

    def rule(site: Site) -> None:
        rank = len(site.shape(0))
        value, chosen = site.value(0), {a % rank for a in axes(site, rank)}
        for slot in site.given()[1:]:
            site.leave(slot)
        results = site.free_outputs(0)
        for k, free in enumerate(results):
            passed = site.freed(value, chosen, f"is mixed by {site.node.op_type}", site.shape(0))
            if vanish and len(free.axes) < rank:
                results[k] = layout.drop(site.ledger, passed, chosen)
            elif len(free.axes) == rank:
                results[k] = site.freed(value, chosen, f"is mixed by {site.node.op_type}", free.shape)
        site.yields(*results)

    return rule


# --- contraction ------------------------------------------------------------------------------------------------------


Notation = Callable[["Site"], "tuple[dict[int, str], str] | None"]


def einsum(notation: Notation, *, zero: int | None = None) -> Rule:
    """Sum of products: letters by input, letters of the output; what the output lacks is contracted.

    Args:
        notation: Letters from the node; ``None`` for a form that has no rule.
        zero: Input with the value that stands for zero in the first factor (quantized).
    """

    def rule(site: Site) -> None:
        found = notation(site)
        if found is None:
            return opaque(site)
        inputs, output = found
        joined = site.join(*((slot, site.operand(slot, letters)) for slot, letters in inputs.items()))
        site.yields(joined.output(site.ledger, output))
        factors = [slot for slot in inputs if any(c not in output and c != UNIT for c in inputs[slot])]
        for slot in factors[: 1 if zero is not None else None]:
            summed = [a for a, letter in enumerate(inputs[slot]) if letter not in output]
            site.contract(slot, summed, zero, None if zero is not None else (2 if 2 in inputs else -1, -1))
        sizes: dict[str, int] = {}
        for slot, letters in inputs.items():
            for letter, size in zip(letters, site.nominal(slot), strict=True):
                sizes[letter] = max(size, sizes.get(letter, 1))
        site.work(joined.space, sizes)
        return None

    return rule


UNIT = "."  # the letter of axes that have one element


def vector(site: Site, slot: int, letter: str) -> str:
    """Letters of an input that has one entry per ``letter``, or one in all."""
    shape = site.shape(slot)
    return letter if math.prod(shape) > 1 else UNIT * len(shape)


def matmul(*, left: int = 0, right: int = 1, columns: Sequence[int] = ()) -> Notation:
    """Letters of MatMul: batch axes broadcast, vectors lose their axis; attributes may transpose the last two.

    Args:
        left: Input with the first factor.
        right: Input with the second.
        columns: Inputs with one entry per output column, or one in all.
    """

    def notation(site: Site) -> tuple[dict[int, str], str]:
        a, b = len(site.shape(left)), len(site.shape(right))
        letters = {}
        for slot, rank, plain, side in ((left, a, "xy", "A"), (right, b, "yz", "B")):
            last = plain[::-1] if site.attr(f"trans{side}", 0) else plain
            batch = aligned(rank - 2) if rank > 1 else ""
            spelled = last[0] + batch + last[1] if site.attr(f"transBatch{side}", 0) else batch + last
            letters[slot] = spelled if rank > 1 else "y"
        letters |= {slot: vector(site, slot, "z") for slot in columns if site.name(slot)}
        batch = aligned(max(a, b) - 2) if max(a, b) > 2 else ""
        return letters, batch + ("x" if a > 1 else "") + ("z" if b > 1 else "")

    return notation


def gemm(*, right: int = 1, bias: int = 2, columns: Sequence[int] = ()) -> Notation:
    """Letters of Gemm with its optional transpositions and broadcast bias; slots as in :func:`matmul`."""

    def notation(site: Site) -> tuple[dict[int, str], str]:
        letters = {0: "yx" if site.attr("transA", 0) else "xy", right: "zy" if site.attr("transB", 0) else "yz"}
        letters |= {slot: vector(site, slot, "z") for slot in columns if site.name(slot)}
        if site.name(bias):
            letters[bias] = ["", "z", "xz"][len(site.shape(bias))]
        return letters, "xz"

    return notation


def equation(site: Site) -> tuple[dict[int, str], str] | None:
    """Letters of Einsum's equation, with an ellipsis written out; ``None`` if a letter repeats in one operand."""
    left, arrow, right = site.attr("equation").replace(" ", "").partition("->")
    inputs = left.split(",")
    free = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in left]
    extra = max((len(site.shape(k)) - len(text.replace("...", "")) for k, text in enumerate(inputs)), default=0)
    batch = "".join(free[:extra])
    for k, text in enumerate(inputs):
        own = len(site.shape(k)) - len(text.replace("...", ""))
        inputs[k] = text.replace("...", batch[extra - own :])
    if not arrow:
        joined = "".join(inputs)
        right = batch + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in batch))
    if any(len(set(text)) < len(text) for text in inputs):
        return None
    return dict(enumerate(inputs)), right.replace("...", batch)


def convolution(
    *,
    data: int = 0,
    weight: int = 1,
    bias: int = 2,
    more: Sequence[int] = (),
    zero: int | None = None,
    transposed: bool = False,
) -> Rule:
    """Convolution of any rank: channels (g, i) of the data meet (g, o, i) of the weight.

    Args:
        data: Input with the data.
        weight: Input with the weight.
        bias: Input with the bias.
        more: Inputs with one entry per output channel, or one in all.
        zero: Input with the value that stands for zero in the data (quantized).
        transposed: Whether the weight is ``(g i)(o)`` instead of ``(g o)(i)``.
    """

    def rule(site: Site) -> None:
        x, w = site.shape(data), site.shape(weight)
        groups = int(site.attr("group", 1))
        space, own = [None] * (len(x) - 2), (1,) * (len(w) - 1)
        inner, outer = x[1] // groups, w[1] if transposed else w[0] // groups
        view = (groups, inner, outer, *w[2:]) if transposed else (groups, outer, *w[1:])
        letters = "gio" if transposed else "goi"
        vectors = [(s, _per_filter(site, s, groups, outer)) for s in (bias, *more) if site.name(s)]
        joined = site.join(
            (data, site.operand(data, ["n", "g", "i", *space], (x[0], groups, inner, *x[2:]))),
            (weight, site.operand(weight, [*letters, *space], view, (2, *own))),
            *vectors,
        )
        out = site.out_shape()
        value = layout.regroup(site.ledger, joined.output(site.ledger, "ngo"), (out[0], groups * outer))
        site.yields(Value((*value.axes, *site.ledger.free(out[2:]).axes)))
        if inner > 1 or groups == 1:
            site.contract(data, [1], zero, None if zero is not None or site.node.domain else (bias, 1))
        if groups > 1:
            group = Value((joined.space["g"],))
            site.patch(lambda cut: {"group": cut.size(group, 0)})
        positions = site.nominal(data) if transposed else site.out_shape(nominal=True)
        sizes = {"n": site.nominal(data)[0], "g": groups, "i": inner, "o": outer}
        work = {letter: joined.space[letter] for letter in "ngoi"}
        site.work(work, sizes, math.prod(positions[2:]) * math.prod(w[2:]))

    return rule


def _per_filter(site: Site, slot: int, groups: int, outer: int) -> joint.Operand:
    """An input with one entry per output channel ``(g o)``, or one in all."""
    if math.prod(site.shape(slot)) == 1:
        return site.operand(slot, UNIT * len(site.shape(slot)))
    return site.operand(slot, "go", (groups, outer), (2,))


def fused(rule: Rule, skip: int) -> Rule:
    """A layer with a further input that is added to its output."""

    def both(site: Site) -> None:
        rule(site)
        if site.name(skip):
            output = str(site.node.outputs[0].name)
            letters = aligned(len(site.out_shape()))
            result = joint.Operand(tuple(letters), site.out_shape(), site.values[output].axes)
            added = site.operand(skip, aligned(len(site.shape(skip))))
            joined = joint.join(site.ledger, [result, added], f"is added to a free axis by {site.node.op_type}")
            site.values[output] = joined.output(site.ledger, letters)

    return both


def reduce(*, exact: bool, mean: bool = False) -> Rule:
    """Reduce axes.

    Args:
        exact: Whether zeros add nothing (sums); the others are delicate over labelled axes.
        mean: Whether a factor C'/C, where C' of C positions stay, makes it exact.
    """

    def rule(site: Site) -> None:
        shape = site.shape(0)
        rank = len(shape)
        axes = site.ints(1, "axes")
        if axes is None and site.name(1):
            return opaque(site)  # computed axes
        if not axes:
            axes = [] if site.attr("noop_with_empty_axes", 0) else list(range(rank))
        chosen = [a % rank for a in axes]
        value = site.value(0)
        if not exact:
            site.delicate(value, chosen, f"is reduced by {site.node.op_type}")
        if exact or (mean and site.sensitive):
            site.contract(0, chosen)
        if mean and site.sensitive:

            def rescale(cut: Cut) -> dict[int | str, Any]:
                share = math.prod(cut.size(value, a) for a in chosen) / math.prod(value.shape[a] for a in chosen)
                return {"scale_output": share} if share < 1 else {}

            site.patch(rescale)
        site.yields(layout.drop(site.ledger, value, chosen, keep=bool(site.attr("keepdims", 1))))
        return None

    return rule


# --- space ------------------------------------------------------------------------------------------------------------


def spatial(keep: int = 2) -> Rule:
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


# --- the rest ---------------------------------------------------------------------------------------------------------


def shape_of(site: Site) -> None:
    """Shape and Size read no elements: nothing is tied, unless a size is what the graph puts out."""
    if any(value.is_graph_output() for value in site.node.outputs):
        site.pin(site.value(0), range(len(site.shape(0))), "has its size put out")
    site.yields(*site.free_outputs(0))


def fresh_output(site: Site) -> None:
    """Operators whose output has no channels of a model: free."""
    for slot in site.given():
        site.leave(slot)
    site.yields(*site.free_outputs(0))


def opaque(site: Site) -> None:
    """An operator without a rule pins all it touches, captured values of its bodies included."""
    site.records.opaque[site.node.op_type] = site.records.opaque.get(site.node.op_type, 0) + 1
    touched = [str(v.name) for v in site.node.inputs if v is not None and v.name]
    for attribute in site.node.attributes.values():
        touched += captured(attribute)
    for name in touched:
        if name in site.values:
            value = site.values[name]
            site.pin(value, range(len(value.axes)), f"feeds {site.node.op_type}, which has no rule")
        elif name in site.shapes.analysis.shape:
            site.values[name] = site.ledger.free(site.shapes.analysis.shape[name])
    for output in site.node.outputs:
        if output.name:
            site.values[str(output.name)] = site.ledger.free(site.shapes.analysis.shape[str(output.name)])


def captured(attribute: Any) -> list[str]:
    """Names of outer values that the bodies in an attribute read."""
    import onnx_ir as ir

    if attribute.type == ir.AttributeType.GRAPH:
        bodies = [attribute.value]
    elif attribute.type == ir.AttributeType.GRAPHS:
        bodies = list(attribute.value)
    else:
        return []
    return [
        str(v.name) for body in bodies for node in body.all_nodes() for v in node.inputs if v is not None and v.name
    ]
