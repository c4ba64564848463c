"""The families of operators: each states coupling, masks, work and patches in one go.

A family is a function that takes declarations and returns a rule ``rule(site) -> None``; the operator table names one
family per operator. Letters are single characters; ``site`` is the node at hand (:mod:`onnxslim_learn.graph.site`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxslim_learn.graph import layout
from onnxslim_learn.graph.ledger import Value
from onnxslim_learn.graph.site import Affine, Axes, Rule, aligned

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxslim_learn.graph.site import Site

# --- elementwise and per channel --------------------------------------------------------------------------------------


def elementwise(site: Site) -> None:
    """Broadcast all inputs against each other; every output has the result's layout."""
    operands = [(slot, site.operand(slot, aligned(len(site.shape(slot))))) for slot in site.given()]
    joined = site.join(*operands)
    outputs = range(len(site.node.outputs))
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

    return rule


def norm(axes: Axes) -> Rule:
    """Normalise over axes; further inputs are affine parameters that broadcast from the right."""

    def rule(site: Site) -> None:
        rank = len(site.shape(0))
        site.delicate(site.value(0), axes(site, rank), f"is normalised over by {site.node.op_type}")
        operands = [(slot, site.operand(slot, aligned(len(site.shape(slot))))) for slot in site.given()]
        joined = site.join(*operands)
        value = joined.output(site.ledger, aligned(rank))
        statistics = [
            site.ledger.free(site.out_shape(k)) for k in range(1, len(site.node.outputs)) if site.node.outputs[k].name
        ]
        site.yields(value, *statistics)

    return rule


def mixing(axes: Axes, *, vanish: bool = False) -> Rule:
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


def einsum(notation: Callable[[Site], tuple[list[str], str]]) -> Rule:
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
    left = aligned(a - 2) + "xy" if a > 1 else "y"
    right = aligned(b - 2) + "yz" if b > 1 else "y"
    batch = aligned(max(a, b) - 2) if max(a, b) > 2 else ""
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


def convolution(*, transposed: bool = False) -> Rule:
    """Convolution of any rank: channels (g, i) of the data meet (g, o, i) of the weight."""

    def rule(site: Site) -> None:
        x, w = site.shape(0), site.shape(1)
        groups = int(site.attr("group", 1))
        spatial = [None] * (len(x) - 2)
        inner = x[1] // groups
        outer = w[1] if transposed else w[0] // groups
        data = site.operand(0, ["n", "g", "i", *spatial], (x[0], groups, inner, *x[2:]))
        if transposed:
            weight = site.operand(
                1, ["g", "i", "o", *spatial], (groups, inner, outer, *w[2:]), (2, *(1,) * (len(w) - 1))
            )
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


def reduce(*, exact: bool) -> Rule:
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


def resize(site: Site) -> None:
    """Axes whose size stays pass; a constant list of sizes follows the cut."""
    value, before, after = site.value(0), site.shape(0), site.out_shape()
    changed = [
        a for a in range(len(before)) if before[a] != after[a] or site.nominal(0)[a] != site.out_shape(nominal=True)[a]
    ]
    result = site.freed(value, changed, f"is an axis that {site.node.op_type} works along", after)
    site.yields(result)
    if site.name(3) and site.node.op_type == "Resize" and len(site.shape(3)) == len(before):
        site.patch(
            lambda cut: {3: {a: cut.size(result, a) for a in range(len(after)) if cut.size(result, a) != after[a]}}
        )


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
    return [
        str(v.name) for body in bodies for node in body.all_nodes() for v in node.inputs if v is not None and v.name
    ]
