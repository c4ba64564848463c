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
    from onnxslim_learn.coupling.context import Site

Work = Callable[["Site"], int]


def counted(work: Work) -> Operator:
    """An operator that pins what it touches, and its work."""
    return Operator(lambda site: count(site, work))


def count(site: Site, work: Work) -> None:
    """Pin what a node touches, and state its work."""
    opaque(site)
    site.fixed_work(work(site))


def each_row(*weights: int, per_byte: Callable[[Site], int] = lambda site: 1) -> Work:
    """Every row of the first input meets every entry of these inputs; of packed ones, several lie in a byte."""

    def work(site: Site) -> int:
        entries = sum(math.prod(site.shape(slot)) for slot in weights if site.name(slot))
        return math.prod(site.nominal(0)[:-1]) * entries * per_byte(site)

    return work


def filters(weight: int, *, data: int | None = None) -> Work:
    """Every output position (of a transposed convolution every position of ``data``) meets every filter."""

    def work(site: Site) -> int:
        w = site.shape(weight)
        positions = site.out_shape(nominal=True) if data is None else site.nominal(data)
        return math.prod(positions) // w[0] * math.prod(w)

    return work


def product(site: Site) -> int:
    """A matrix product of the first two inputs, however they are transposed."""
    a, b = site.nominal(0), site.nominal(1)
    inner = a[0] if site.attr("transA", 0) and len(a) == 2 else a[-2] if site.attr("transA", 0) else a[-1]
    return max(math.prod(a), 1) * (math.prod(b[-2:]) // inner if len(b) > 1 else 1)


def stated(site: Site) -> int:
    """A product with a packed weight of ``K`` rows and ``N`` columns."""
    return math.prod(site.nominal(0)[:-1]) * int(site.attr("N")) * int(site.attr("K"))


def listed(site: Site) -> int:
    """A product with a packed weight whose shape the third input lists."""
    shape = site.static(2)
    return 0 if shape is None else math.prod(site.nominal(0)[:-1]) * math.prod(shape.tolist())


def projected(site: Site) -> int:
    """Attention that projects its input by a stacked weight, the second input, then compares all positions."""
    batch, steps = (*site.nominal(0), 1, 1)[:2]
    return each_row(1)(site) + 2 * batch * steps * steps * (site.shape(1)[-1] // 3)


def windowed(site: Site) -> int:
    """Longformer attention: projections of all tokens, for local and for global attention; scores in a window."""
    batch, steps, width = site.nominal(0)
    return each_row(1, 4)(site) + 2 * batch * steps * (2 * int(site.attr("window")) + 1) * width


def compared(site: Site) -> int:
    """Scaled dot product attention of queries, keys and values, in any packing: scores, and sums of values."""
    shape = site.nominal(0)
    out = math.prod(site.out_shape(nominal=True))
    keys = site.nominal(1) if site.name(1) else shape
    steps = keys[2 if len(keys) == 4 else 1] if len(keys) > 2 else keys[0]
    return 2 * out * steps


def cross(site: Site) -> int:
    """DecoderAttention: projections of the query and of the key, then attention; positions before the batch."""
    (steps, batch, width), (others, _, _) = site.nominal(0), site.nominal(1)
    projections = steps * batch * math.prod(site.shape(2)) + others * batch * math.prod(site.shape(3))
    return projections + 2 * batch * steps * others * width


def experts(*weights: int) -> Work:
    """A mixture of experts: every row meets ``k`` of them."""

    def work(site: Site) -> int:
        bits = int(site.attr("expert_weight_bits", 8))
        per_expert = sum(math.prod(site.shape(slot)[1:]) for slot in weights if site.name(slot))
        return math.prod(site.nominal(0)[:-1]) * int(site.attr("k", 1)) * per_expert * 8 // bits

    return work
