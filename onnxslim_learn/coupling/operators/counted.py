"""Operators that are cut by no rule, but whose work is known: they pin what they touch, and count.

Work is in multiply-accumulates at the nominal sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxslim_learn.coupling.operators.elementwise import opaque
from onnxslim_learn.coupling.operators.facts import Operator

if TYPE_CHECKING:
    from onnxslim_learn.coupling.context import NodeContext

Work = Callable[["NodeContext"], int]


def counted(work: Work) -> Operator:
    """An operator that pins what it touches, and its work."""
    return Operator(lambda context: count(context, work))


def count(context: NodeContext, work: Work) -> None:
    """Pin what a node touches, and state its work."""
    opaque(context)
    context.fixed_work(work(context))


def each_row(*weights: int, per_byte: Callable[[NodeContext], int] = lambda context: 1) -> Work:
    """Every row of the first input meets every entry of these inputs; of packed ones, several lie in a byte."""

    def work(context: NodeContext) -> int:
        entries = sum(math.prod(context.shape(slot)) for slot in weights if context.name(slot))
        return math.prod(context.nominal(0)[:-1]) * entries * per_byte(context)

    return work


def filters(weight: int, *, data: int | None = None) -> Work:
    """Every output position (of a transposed convolution every position of ``data``) meets every filter."""

    def work(context: NodeContext) -> int:
        w = context.shape(weight)
        positions = context.out_shape(nominal=True) if data is None else context.nominal(data)
        return math.prod(positions) // w[0] * math.prod(w)

    return work


def product(context: NodeContext) -> int:
    """A matrix product of the first two inputs, however they are transposed."""
    a, b = context.nominal(0), context.nominal(1)
    inner = a[0] if context.attr("transA", 0) and len(a) == 2 else a[-2] if context.attr("transA", 0) else a[-1]
    return max(math.prod(a), 1) * (math.prod(b[-2:]) // inner if len(b) > 1 else 1)


def stated(context: NodeContext) -> int:
    """A product with a packed weight of ``K`` rows and ``N`` columns."""
    return math.prod(context.nominal(0)[:-1]) * int(context.attr("N")) * int(context.attr("K"))


def listed(context: NodeContext) -> int:
    """A product with a packed weight whose shape the third input lists."""
    shape = context.static(2)
    return 0 if shape is None else math.prod(context.nominal(0)[:-1]) * math.prod(shape.tolist())


def projected(context: NodeContext) -> int:
    """Attention that projects its input by a stacked weight, the second input, then compares all positions."""
    batch, steps = (*context.nominal(0), 1, 1)[:2]
    return each_row(1)(context) + 2 * batch * steps * steps * (context.shape(1)[-1] // 3)


def packed(offsets: int, *, weight: int | None = None) -> Work:
    """Attention of tokens without padding, projected by a stacked weight if there is one.

    Every token meets as many as the longest sequence has, which ``offsets`` tells, ``(batch, longest)``.
    """

    def work(context: NodeContext) -> int:
        projections = 0 if weight is None else each_row(weight)(context)
        return projections + 2 * math.prod(context.out_shape(nominal=True)) * context.nominal(offsets)[1]

    return work


def windowed(context: NodeContext) -> int:
    """Longformer attention: projections of all tokens, for local and for global attention; scores in a window."""
    batch, steps, width = context.nominal(0)
    return each_row(1, 4)(context) + 2 * batch * steps * (2 * int(context.attr("window")) + 1) * width


def compared(context: NodeContext) -> int:
    """Scaled dot product attention of queries, keys and values, in any packing: scores, and sums of values."""
    shape = context.nominal(0)
    out = math.prod(context.out_shape(nominal=True))
    keys = context.nominal(1) if context.name(1) else shape
    steps = keys[2 if len(keys) == 4 else 1] if len(keys) > 2 else keys[0]
    return 2 * out * steps


def cross(context: NodeContext) -> int:
    """DecoderAttention: projections of the query and of the key, then attention; positions before the batch."""
    (steps, batch, width), (others, _, _) = context.nominal(0), context.nominal(1)
    projections = steps * batch * math.prod(context.shape(2)) + others * batch * math.prod(context.shape(3))
    return projections + 2 * batch * steps * others * width
