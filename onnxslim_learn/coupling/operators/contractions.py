"""Families of operators that sum over axes: Einsum and its relatives, convolutions, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxslim_learn.coupling import alignment, layout
from onnxslim_learn.coupling.context import aligned
from onnxslim_learn.coupling.operators import mixing
from onnxslim_learn.coupling.operators.elementwise import opaque
from onnxslim_learn.coupling.operators.facts import Convolution, Equation, Operator, Product, Trait, everything
from onnxslim_learn.coupling.relations import Digit, Value

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.coupling.context import NodeContext
    from onnxslim_learn.coupling.records import Cut


Notation = Callable[["NodeContext"], "tuple[dict[int, str], str]"]


def einsum(notation: Notation, *, zero: int | None = None, addend: int | None = None) -> Operator:
    """Sum of products: letters by input, letters of the output; what the output lacks is contracted.

    Args:
        notation: Letters from the node; one that repeats in an operand has no rule.
        zero: Input with the value that stands for zero in the first factor (quantized).
        addend: Input that is added, if there is one.
    """

    def rule(context: NodeContext) -> None:
        inputs, output = notation(context)
        sizes = _sizes(context, inputs)
        if any(len(set(letters.replace(UNIT, ""))) < len(letters.replace(UNIT, "")) for letters in inputs.values()):
            opaque(context)  # a diagonal
            return context.fixed_work(math.prod(sizes.values()))
        joined = context.join(*((slot, context.operand(slot, letters)) for slot, letters in inputs.items()))
        context.yields(joined.output(context.relations, output))
        factors = [slot for slot in inputs if any(c not in output and c != UNIT for c in inputs[slot])]
        for slot in factors[: 1 if zero is not None else None]:
            summed = [a for a, letter in enumerate(inputs[slot]) if letter not in output]
            context.contract(slot, summed, zero, None if zero is not None else (2 if 2 in inputs else -1, -1))
        context.work(joined.space, sizes)
        return None

    apart = everything if zero is not None else mixing.products(notation, addend)
    return Operator(rule, factors=Equation(), weights=tuple(range(8)), apart=apart)


def _sizes(context: NodeContext, inputs: Mapping[int, str]) -> dict[str, int]:
    """Nominal size of every letter."""
    sizes: dict[str, int] = {}
    for slot, letters in inputs.items():
        for letter, size in zip(letters, context.nominal(slot), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return sizes


UNIT = "."  # the letter of axes that have one element


def vector(context: NodeContext, slot: int, letter: str) -> str:
    """Letters of an input that has one entry per ``letter``, or one in all."""
    shape = context.shape(slot)
    return letter if math.prod(shape) > 1 else UNIT * len(shape)


def matmul(*, right: int = 1, columns: Sequence[int] = (), zero: int | None = None) -> Operator:
    """Product of matrices: batch axes broadcast, vectors lose their axis; attributes may transpose the last two.

    Args:
        right: Input with the second factor.
        columns: Inputs with one entry per output column, or one in all.
        zero: Input with the value that stands for zero in the first factor (quantized).
    """

    def notation(context: NodeContext) -> tuple[dict[int, str], str]:
        a, b = len(context.shape(0)), len(context.shape(right))
        letters = {}
        for slot, rank, plain, side in ((0, a, "xy", "A"), (right, b, "yz", "B")):
            last = plain[::-1] if context.attr(f"trans{side}", 0) else plain
            batch = aligned(rank - 2) if rank > 1 else ""
            spelled = last[0] + batch + last[1] if context.attr(f"transBatch{side}", 0) else batch + last
            letters[slot] = spelled if rank > 1 else "y"
        letters |= {slot: vector(context, slot, "z") for slot in columns if context.name(slot)}
        batch = aligned(max(a, b) - 2) if max(a, b) > 2 else ""
        return letters, batch + ("x" if a > 1 else "") + ("z" if b > 1 else "")

    product = Product(weight=right, quantized=zero is not None)
    return einsum(notation, zero=zero).having(factors=product, weights=() if product.quantized else (0, right))


def gemm(*, right: int = 1, bias: int = 2, columns: Sequence[int] = (), zero: int | None = None) -> Operator:
    """Product of two matrices, transposed or not, with a broadcast bias; slots as in :func:`matmul`."""

    def notation(context: NodeContext) -> tuple[dict[int, str], str]:
        letters = {0: "yx" if context.attr("transA", 0) else "xy", right: "zy" if context.attr("transB", 0) else "yz"}
        letters |= {slot: vector(context, slot, "z") for slot in columns if context.name(slot)}
        if context.name(bias):
            letters[bias] = ["", "z", "xz"][len(context.shape(bias))]
        return letters, "xz"

    product = Product(weight=right, bias=bias, quantized=zero is not None)
    return einsum(notation, zero=zero, addend=bias).having(
        factors=product, weights=() if product.quantized else (0, right, bias)
    )


def equation(context: NodeContext) -> tuple[dict[int, str], str]:
    """Letters of Einsum's equation, with an ellipsis written out."""
    left, arrow, right = context.attr("equation").replace(" ", "").partition("->")
    inputs = left.split(",")
    free = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in left]
    extra = max((len(context.shape(k)) - len(text.replace("...", "")) for k, text in enumerate(inputs)), default=0)
    batch = "".join(free[:extra])
    for k, text in enumerate(inputs):
        missing = len(context.shape(k)) - len(text.replace("...", ""))
        inputs[k] = text.replace("...", batch[extra - missing :])
    if not arrow:
        joined = "".join(inputs)
        right = batch + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in batch))
    return dict(enumerate(inputs)), right.replace("...", batch)


def convolution(
    *,
    data: int = 0,
    weight: int = 1,
    bias: int = 2,
    more: Sequence[int] = (),
    zero: int | None = None,
    transposed: bool = False,
) -> Operator:
    """Convolution of any rank: channels (g, i) of the data meet (g, o, i) of the weight.

    Args:
        data: Input with the data.
        weight: Input with the weight.
        bias: Input with the bias.
        more: Inputs with one entry per output channel, or one in all.
        zero: Input with the value that stands for zero in the data (quantized).
        transposed: Whether the weight is ``(g i)(o)`` instead of ``(g o)(i)``.
    """

    def rule(context: NodeContext) -> None:
        x, w = context.shape(data), context.shape(weight)
        groups = int(context.attr("group", 1))
        space, kernel = [None] * (len(x) - 2), (1,) * (len(w) - 1)
        inner, outer = (w[0] // groups, w[1]) if transposed else (w[1], w[0] // groups)
        context.fits(data, 1, groups * inner)
        letters, channels = ("gio", (inner, outer)) if transposed else ("goi", (outer, inner))
        joined = context.join(
            (data, context.operand(data, ["n", "g", "i", *space], (x[0], groups, inner, *x[2:]))),
            (weight, context.operand(weight, [*letters, *space], (groups, *channels, *w[2:]), (2, *kernel))),
            *((s, _per_filter(context, s, groups, outer)) for s in (bias, *more) if context.name(s)),
        )
        out = context.out_shape()
        value = layout.regroup(context.relations, joined.output(context.relations, "ngo"), (out[0], groups * outer))
        context.yields(Value((*value.axes, *context.relations.free(out[2:]).axes)))
        context.records.summed.setdefault(str(context.name(weight)), set()).add(0 if transposed else 1)
        if inner > 1 or groups == 1:
            context.contract(data, [1], zero, None if zero is not None or context.node.domain else (bias, 1))
        if groups > 1:
            group = joined.seen("g")
            context.patch(lambda cut: {"group": cut.size(group, 0)})
        sizes = {"n": context.nominal(data)[0], "g": groups, "i": inner, "o": outer}
        context.work(joined.space, sizes, _windows(context, data, transposed=transposed) * math.prod(w[2:]))

    kind = Convolution(weight, bias, transposed=transposed, quantized=zero is not None)
    apart = mixing.activated(mixing.convolved(data=data, weight=weight))
    return Operator(rule, factors=kind, weights=() if kind.quantized else (weight, bias)).having(
        apart=everything if kind.quantized else apart
    )


def _windows(context: NodeContext, data: int, *, transposed: bool) -> int:
    """How many places a kernel is laid on, at nominal sizes."""
    places = context.nominal(data) if transposed else context.out_shape(nominal=True)
    return math.prod(places[2:])


def deformed() -> Operator:
    """DeformConv: a convolution from moved places; offsets and their mask are per position, maybe per channel group."""
    plain = convolution(bias=3)

    def rule(context: NodeContext) -> None:
        for slot in (2, 4):
            if context.name(slot):
                context.leave(slot)
        grouped = int(context.attr("offset_group", 1)) > 1
        context.pin(context.value(0), [0, 1] if grouped else [0], "has offsets of its own")
        plain.rule(context)

    return plain.having(rule=rule, factors=Convolution(bias=3, moved=True), apart=everything)


def _per_filter(context: NodeContext, slot: int, groups: int, outer: int) -> alignment.Operand:
    """An input with one entry per output channel ``(g o)``, or one in all."""
    if math.prod(context.shape(slot)) == 1:
        return context.operand(slot, UNIT * len(context.shape(slot)))
    return context.operand(slot, "go", (groups, outer), (2,))


def fused(plain: Operator, skip: int) -> Operator:
    """A layer with a further input that is added to its output."""

    def both(context: NodeContext) -> None:
        plain.rule(context)
        if context.name(skip):
            output = str(context.node.outputs[0].name)
            letters = aligned(len(context.out_shape()))
            result = alignment.Operand(tuple(letters), context.out_shape(), context.values[output].axes)
            added = context.operand(skip, aligned(len(context.shape(skip))))
            joined = alignment.join(
                context.relations, [result, added], f"is added to a free axis by {context.node.op_type}"
            )
            context.values[output] = joined.output(context.relations, letters)

    return plain.having(rule=both)


def _normalises(mean: ir.Value) -> bool:
    """Whether a mean is subtracted, or a root is taken of it, maybe after single numbers were added: a layer's norm."""
    for node, slot in mean.uses():
        if node.op_type in ("Sub", "Neg", "Sqrt", "Pow"):
            return True
        beside = [value.const_value for k, value in enumerate(node.inputs) if k != slot and value is not None]
        single = all(tensor is not None and tensor.size == 1 for tensor in beside)
        if single and len(node.outputs) == 1 and _normalises(node.outputs[0]):
            return True
    return False


def ranged(context: NodeContext) -> None:
    """DynamicQuantizeLinear: a grid for all entries, over a range that includes zero: zeros leave it as it is."""
    value = context.value(0)
    context.contract(0, range(len(value.axes)))
    context.yields(value, *context.free_outputs(1))


def reduced(context: NodeContext) -> Sequence[int]:
    """The axes that a reduction reduces; all where they are computed."""
    rank = len(context.shape(0))
    axes = context.ints(1, "axes")
    untold = not axes and (context.name(1) is not None or not context.attr("noop_with_empty_axes", 0))
    return range(rank) if untold else [a % rank for a in axes or ()]


def squared(context: NodeContext) -> Iterator[Digit]:
    """A sum of squares, or its root: the same in any orthonormal basis, and told apart along the axes that stay."""
    chosen = reduced(context)
    for axis in range(len(context.shape(0))):
        if axis not in chosen:
            yield from mixing.input_axis(context, 0, axis)


def reduce(*, exact: bool, mean: bool = False, linear: bool = False) -> Operator:
    """Reduce axes.

    Args:
        exact: Whether zeros add nothing (sums); the others are delicate over labelled axes.
        mean: Whether a factor C'/C, where C' of C positions stay, makes it exact. One that is subtracted, or that a
            root is taken of, normalises all the same.
        linear: Whether it is linear in what it reduces.
    """

    def rule(context: NodeContext) -> None:
        shape = context.shape(0)
        rank = len(shape)
        axes = context.ints(1, "axes")
        if axes is None and context.name(1):
            return opaque(context)  # computed axes
        if not axes:
            axes = [] if context.attr("noop_with_empty_axes", 0) else list(range(rank))
        chosen = [a % rank for a in axes]
        value = context.value(0)
        delicate = not exact and not (mean and not _normalises(context.node.outputs[0]))
        if delicate:
            context.delicate(value, chosen, f"is reduced by {context.node.op_type}")
        if not delicate or (mean and context.sensitive):
            context.contract(0, chosen)
        if mean and (context.sensitive or not delicate):

            def rescale(cut: Cut) -> dict[int | str, Any]:
                share = math.prod(cut.size(value, a) for a in chosen) / math.prod(value.shape[a] for a in chosen)
                return {"scale_output": share} if share < 1 else {}

            context.patch(rescale)
        context.yields(layout.drop(context.relations, value, chosen, keep=bool(context.attr("keepdims", 1))))
        return None

    plain = Operator(rule, traits=Trait.SMOOTH if exact else Trait.SMOOTH | Trait.WHOLE)
    return plain.having(apart=mixing.along(0, reduced)) if linear else plain
