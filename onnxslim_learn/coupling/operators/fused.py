"""Operators that bundle many steps: fused, embedded and quantized layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.context import aligned
from onnxslim_learn.coupling.operators.facts import Normalisation, Operator, Trait
from onnxslim_learn.coupling.relations import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.coupling.context import Site


def group_norm() -> Operator:
    """GroupNormalization: groups are rows, exact to remove; channels of a group are normalised over."""
    return Operator(_group_norm, norm=Normalisation(), weights=(1, 2), traits=Trait.SMOOTH | Trait.WHOLE)


def _group_norm(site: Site) -> None:
    shape, groups = site.shape(0), int(site.attr("num_groups"))
    inner = shape[1] // groups
    rest = aligned(len(shape) - 2)
    view = (shape[0], groups, inner, *shape[2:])
    spelled = layout.regroup(site.ledger, site.value(0), view)
    site.delicate(spelled, range(2, len(view)), "is normalised over by GroupNormalization")
    operands = [(0, site.operand(0, ["n", "g", "i", *rest], view))]
    for slot in site.given()[1:]:
        whole = site.shape(slot)[0] == shape[1]
        affine = site.operand(slot, "gi", (groups, inner), (2,)) if whole else site.operand(slot, "g")
        operands.append((slot, affine))
    joined = site.join(*operands)
    site.yields(layout.regroup(site.ledger, joined.output(site.ledger, ["n", "g", "i", *rest]), shape))
    row = joined.seen("g")
    site.patch(lambda cut: {"num_groups": cut.size(row, 0)})


def skip_norm(parameters: Sequence[int]) -> Operator:
    """Sum of input and skip, normalised over the last axis; a further output is the sum."""

    def rule(site: Site) -> None:
        rank = len(site.shape(0))
        letters = aligned(rank)
        site.delicate(site.value(0), [rank - 1], f"is normalised over by {site.node.op_type}")
        affine = [(s, site.operand(s, letters[-1])) for s in parameters if site.name(s)]
        skip = aligned(len(site.shape(1)))
        joined = site.join((0, site.operand(0, letters)), (1, site.operand(1, skip)), *affine)
        result = joined.output(site.ledger, letters)
        outputs = site.node.outputs
        shapes = [site.out_shape(k) if v.name else () for k, v in enumerate(outputs)]
        site.yields(*(result if shape == site.out_shape(0) else site.ledger.free(shape) for shape in shapes))

    shift = 3 if len(parameters) > 2 else None
    return Operator(rule, norm=Normalisation(2, shift, features=True), weights=tuple(parameters))


def embed_norm(site: Site) -> None:
    """EmbedLayerNormalization: word, position and segment tables are looked up, summed and normalised."""
    letters = ["b", "s", "c"]
    tables = [(slot, site.operand(slot, [None, "c"])) for slot in (2, 3, 4) if site.name(slot)]
    affine = [(slot, site.operand(slot, "c")) for slot in (5, 6) if site.name(slot)]
    joined = site.join(*tables, *affine)
    for slot in (0, 1, 7, 8):
        site.leave(slot)
    site.records.indices[str(site.name(0))] = site.shape(2)[0]
    if site.name(1):
        site.records.indices[str(site.name(1))] = site.shape(4)[0]
    out = site.out_shape(0)
    value = Value((site.ledger.axis(out[0]), site.ledger.axis(out[1]), joined.space["c"]))
    site.delicate(value, [len(letters) - 1], "is normalised over by EmbedLayerNormalization")
    shapes = [site.out_shape(k) if v.name else () for k, v in enumerate(site.node.outputs)]
    site.yields(*(value if shape == out else site.ledger.free(shape) for shape in shapes))


def block_quantized(site: Site) -> None:
    """MatMulNBits: output units slice weights, scales and zero points; inputs go in whole blocks and stay."""
    units = site.shape(1)[0]
    lead = aligned(len(site.shape(0)) - 1)
    operands = [(0, site.operand(0, [*lead, None])), (1, site.operand(1, ["z", None, None]))]
    for slot in (2, 3):
        if site.name(slot):
            shape = site.shape(slot)
            if len(shape) == 1 and shape[0] % units == 0:
                operands.append((slot, site.operand(slot, ["z", None], (units, shape[0] // units), (2,))))
            else:
                operands.append((slot, site.operand(slot, ["z", *([None] * (len(shape) - 1))])))
    if site.name(5):
        operands.append((5, site.operand(5, "z")))
    joined = site.join(*operands)
    site.yields(joined.output(site.ledger, [*lead, "z"]))
    out = joined.seen("z")
    site.patch(lambda cut: {"N": cut.size(out, 0)})
    *sizes, inner = site.nominal(0)
    site.work(joined.space, {**dict(zip(lead, sizes, strict=True)), "z": units}, inner)
