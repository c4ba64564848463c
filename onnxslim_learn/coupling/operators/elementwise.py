"""The families of operators: each states coupling, masks, work and patches in one go.

A family is a function that takes declarations and returns a rule ``rule(site) -> None``; the operator table names one
family per operator. Letters are single characters; ``site`` is the node at hand
(:mod:`onnxslim_learn.coupling.context`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.context import Affine, Axes, aligned
from onnxslim_learn.coupling.operators.facts import Normalisation, Operator, Trait
from onnxslim_learn.coupling.relations import Value
from onnxslim_learn.graph import shape_arithmetic
from onnxslim_learn.graph.inlining import CHOSEN
from onnxslim_learn.runtime.node import reads

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.coupling.context import Cut, Site

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
    """Outputs have the first input's layout; of the others only the element type or one number counts."""
    site.yields(*(site.value(0) for _ in site.node.outputs))


def per_channel(
    *,
    normalised: Axes = lambda site, rank: (),
    axis: int | None = 1,
    norm: Normalisation | None = None,
) -> Operator:
    """Vectors of one entry per channel: batch and instance norm, per-axis scales.

    Args:
        normalised: Which axes of the data are normalised over.
        axis: The channel axis, or ``None`` to read attribute ``axis``.
        norm: What it normalises by, if it does.
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
        if norm is not None and norm.scale is not None and norm.shift is not None:
            site.records.affines.append(Affine(site.index, norm.scale, norm.shift))
        return None

    if norm is None:
        return Operator(rule)
    weights = tuple(slot for slot in (norm.scale, norm.shift) if slot is not None)
    return Operator(rule, norm=norm, weights=weights, traits=Trait.SMOOTH | Trait.WHOLE)


def norm(axes: Axes, *, scale: int | None = None) -> Operator:
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

    plain = Operator(rule, traits=Trait.SMOOTH | Trait.WHOLE)
    if scale is None:
        return plain
    return plain.having(norm=Normalisation(scale, scale + 1, features=True), weights=(scale, scale + 1))


def mixing(axes: Axes, *, vanish: bool = False) -> Operator:
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

    return Operator(rule)


# --- space ------------------------------------------------------------------------------------------------------------


FLAT = "has flat positions put out"


def _only_unpools(positions: ir.Value) -> bool:
    """Whether positions that count all channels say where to put values back, or what is left of them counts none.

    Exporters subtract the position of the first entry from them, which another pooling of the same input finds.
    """

    def told(node: ir.Node, slot: int) -> bool:
        if node.op_type == "MaxUnpool":
            return slot == 1
        if node.op_type == "Slice":
            return slot == 0 and _only_unpools(node.outputs[0])
        other = node.inputs[1 - slot] if node.op_type == "Sub" else None
        return other is not None and _pooled(other) is not None and _pooled(other) is _pooled(positions)

    return not positions.is_graph_output() and all(told(use.node, use.idx) for use in positions.uses())


def _pooled(positions: ir.Value) -> ir.Value | None:
    """The input of the pooling that positions, or a slice of them, come from."""
    node = positions.producer()
    if node is None or node.op_type not in ("MaxPool", "Slice"):
        return None
    return node.inputs[0] if node.op_type == "MaxPool" else _pooled(node.inputs[0])  # type: ignore[arg-type]


def unpool(site: Site) -> None:
    """MaxUnpool: values go back to where a pooling found them; its channels and theirs are cut together."""
    producer = site.node.inputs[1].producer()  # type: ignore[union-attr]
    letters = ["n", "c", *([None] * (len(site.shape(0)) - 2))]
    for slot in (0, 1) if producer is None or producer.op_type != "MaxPool" else ():
        site.pin(site.value(slot), [0, 1], FLAT)
    if site.name(2):
        site.leave(2)
    joined = site.join(*((slot, site.operand(slot, letters)) for slot in (0, 1)))
    passed = joined.output(site.ledger, "nc")
    result = Value((*passed.axes, *site.ledger.free(site.out_shape()[2:]).axes))
    site.yields(result)
    if site.name(2):
        site.patch(lambda cut: {2: site.resized(cut, result, {a: a for a in range(len(result.axes))})})


def regions(site: Site) -> None:
    """Pool the boxes that the second input holds; the third, if there is one, says of which entry of the batch each."""
    scale = float(site.attr("spatial_scale", 1.0))
    *_, height, width = site.nominal(0)
    site.records.boxes[str(site.name(1))] = (width / scale, height / scale)
    if site.name(2):
        site.records.indices[str(site.name(2))] = min(site.shape(0)[0], site.nominal(0)[0])
    spatial(keep=(1,)).rule(site)


def spatial(keep: Sequence[int] = (0, 1)) -> Operator:
    """Work along all axes but some: these pass, the others are free."""

    def rule(site: Site) -> None:
        for slot in site.given()[1:]:
            site.leave(slot)
        value, results = site.value(0), site.free_outputs(0)
        if not all(_only_unpools(output) for output in site.node.outputs[1:]):
            site.pin(value, keep, FLAT)  # the indices of MaxPool count all channels
        for k, free in enumerate(results):
            axes = [a for a in range(len(value.axes)) if a not in keep]
            if site.node.outputs[k].name:
                results[k] = site.freed(value, axes, f"is an axis that {site.node.op_type} works along", free.shape)
        site.yields(*results)

    return Operator(rule)


# --- the rest ---------------------------------------------------------------------------------------------------------


def shape_of(site: Site) -> None:
    """Shape and Size read no elements: nothing is tied but an axis whose size is computed with or put out."""
    value = site.value(0)
    labelled = [a for a, axis in enumerate(value.axes) if any(d.labels is not None for d in axis)]
    told = [a for a in labelled if shape_arithmetic.escapes(site.node, a, site.shapes.analysis, site.sizes_of)]
    site.pin(value, told, "has its size computed with")
    site.yields(*site.free_outputs(0))


def fresh_output(site: Site) -> None:
    """Operators whose output has no channels of a model: free."""
    for slot in site.given():
        site.leave(slot)
    site.yields(*site.free_outputs(0))


def opaque(site: Site) -> None:
    """An operator without a rule pins all it touches, captured values of its bodies included."""
    if CHOSEN not in site.node.metadata_props:  # an If of which the branch that runs is cut
        site.records.opaque[site.node.op_type] = site.records.opaque.get(site.node.op_type, 0) + 1
    for name in reads(site.node):
        if name in site.values:
            value = site.values[name]
            site.pin(value, range(len(value.axes)), f"feeds {site.node.op_type}, which has no rule")
        elif name in site.shapes.analysis.shape:
            site.values[name] = site.ledger.free(site.shapes.analysis.shape[name])
    for output in site.node.outputs:
        if output.name:
            site.values[str(output.name)] = site.ledger.free(site.shapes.analysis.shape[str(output.name)])
