"""The families of operators: each states coupling, masks, work and patches in one go.

A family is a function that takes declarations and returns a rule ``rule(context) -> None``; the operator table names
one family per operator. Letters are single characters; ``context`` is the node at hand
(:mod:`onnxslim_learn.coupling.context`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.context import Axes, aligned
from onnxslim_learn.coupling.operators.facts import Normalisation, Operator, Trait, attribute
from onnxslim_learn.coupling.records import Affine
from onnxslim_learn.coupling.relations import Value
from onnxslim_learn.graph import shape_arithmetic
from onnxslim_learn.graph.inlining import CHOSEN
from onnxslim_learn.runtime.node import reads

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.coupling.context import NodeContext
    from onnxslim_learn.coupling.records import Cut

# --- elementwise and per channel --------------------------------------------------------------------------------------


def elementwise(context: NodeContext) -> None:
    """Broadcast all inputs against each other; every output has the result's layout."""
    operands = [(slot, context.operand(slot, aligned(len(context.shape(slot))))) for slot in context.given()]
    joined = context.join(*operands)
    outputs = range(len(context.node.outputs))
    context.records.elementwise.add(context.index)
    context.yields(
        *(
            joined.output(context.relations, aligned(len(context.out_shape(k))))
            for k in outputs
            if context.node.outputs[k].name
        )
    )


def first_input(context: NodeContext) -> None:
    """Outputs have the first input's layout; of the others only the element type or one number counts."""
    context.yields(*(context.value(0) for _ in context.node.outputs))


def per_channel(
    *,
    normalised: Axes = lambda context, rank: (),
    axis: int | None = 1,
    norm: Normalisation | None = None,
) -> Operator:
    """Vectors of one entry per channel: batch and instance norm, per-axis scales.

    Args:
        normalised: Which axes of the data are normalised over.
        axis: The channel axis, or ``None`` to read attribute ``axis``.
        norm: What it normalises by, if it does.
    """

    def rule(context: NodeContext) -> None:
        rank = len(context.shape(0))
        channel = (int(context.attr("axis", 1)) if axis is None else axis) % max(rank, 1)
        if any(len(context.shape(slot)) > 1 for slot in context.given()[1:]):
            return _by_block(context, channel)
        context.delicate(context.value(0), normalised(context, rank), f"is normalised over by {context.node.op_type}")
        letters = aligned(rank)
        vectors = [(s, context.operand(s, letters[channel] if context.shape(s) else "")) for s in context.given()[1:]]
        joined = context.join((0, context.operand(0, letters)), *vectors)
        result = joined.output(context.relations, letters)
        rest = [joined.output(context.relations, letters[channel]) for _ in context.node.outputs[1:]]
        context.yields(result, *rest)
        if norm is not None and norm.scale is not None and norm.shift is not None:
            context.records.affines.append(Affine(context.index, norm.scale, norm.shift))
        return None

    if norm is None:
        return Operator(rule)
    weights = tuple(slot for slot in (norm.scale, norm.shift) if slot is not None)
    return Operator(rule, norm=norm, weights=weights, traits=Trait.SMOOTH | Trait.WHOLE)


def _by_block(context: NodeContext, channel: int) -> None:
    """Scales that are shared by blocks along an axis: whole blocks go."""
    shape, size = context.shape(0), int(context.attr("block_size", 0))
    blocks = context.shape(1)[channel]
    if shape[channel] != blocks * size:
        return opaque(context)
    letters = list(aligned(len(shape)))
    view = (*shape[:channel], blocks, size, *shape[channel + 1 :])
    inside = [*letters[: channel + 1], None, *letters[channel + 1 :]]
    parts = [2 if axis == channel else 1 for axis in range(len(shape))]
    scales = [(slot, context.operand(slot, letters)) for slot in context.given()[1:]]
    joined = context.join((0, context.operand(0, inside, view, parts)), *scales)
    context.pin(joined.operands[0], [channel + 1], f"is one of a block that {context.node.op_type} scales alike")
    axes = joined.output(context.relations, letters).axes
    spelled = Value((*axes[: channel + 1], context.relations.axis(size), *axes[channel + 1 :]))
    return context.yields(layout.regroup(context.relations, spelled, shape))


def norm(axes: Axes, *, scale: int | None = None, centred: bool = False) -> Operator:
    """Normalise over axes; further inputs are affine parameters that broadcast from the right.

    Args:
        axes: Which axes.
        scale: Input that scales by channel: it is corrected by √(C/C') where C' of C channels stay, since the removed
            ones, zero in the masked original, count in its mean square (exact for a root mean square).
        centred: Whether the mean is taken out.
    """

    def rule(context: NodeContext) -> None:
        rank = len(context.shape(0))
        context.delicate(context.value(0), axes(context, rank), f"is normalised over by {context.node.op_type}")
        operands = [(slot, context.operand(slot, aligned(len(context.shape(slot))))) for slot in context.given()]
        joined = context.join(*operands)
        result = joined.output(context.relations, aligned(rank))
        statistics = layout.drop(context.relations, result, axes(context, rank), keep=True)
        context.yields(result, *([statistics] * (len(context.node.outputs) - 1)))
        if context.sensitive and scale is not None and context.name(scale):
            over = list(axes(context, rank))

            def correct(cut: Cut) -> dict[int | str, Any]:
                share = math.prod(cut.size(result, a) for a in over) / math.prod(result.shape[a] for a in over)
                return {"scale_input": (scale, share**-0.5)} if share < 1 else {}

            context.patch(correct)

    plain = Operator(rule, traits=Trait.SMOOTH | Trait.WHOLE)
    if scale is None:
        return plain
    return plain.having(
        norm=Normalisation(scale, scale + 1, features=True, centred=centred), weights=(scale, scale + 1)
    )


def mixing(axes: Axes, *, vanish: bool = False) -> Operator:
    """Mix positions along axes (sort, cumulate, arg-max): these are pinned, the others pass.

    Args:
        axes: Which axes.
        vanish: Whether outputs may lack these axes.
    """

    def rule(context: NodeContext) -> None:
        rank = len(context.shape(0))
        value, chosen = context.value(0), {a % rank for a in axes(context, rank)}
        for slot in context.given()[1:]:
            context.leave(slot)
        results = context.free_outputs(0)
        for k, free in enumerate(results):
            passed = context.freed(value, chosen, f"is mixed by {context.node.op_type}", context.shape(0))
            if vanish and len(free.axes) < rank:
                results[k] = layout.drop(context.relations, passed, chosen)
            elif len(free.axes) == rank:
                results[k] = context.freed(value, chosen, f"is mixed by {context.node.op_type}", free.shape)
        context.yields(*results)

    return Operator(rule)


FLOATS = (1, 10, 11, 16)  # element types that have minus infinity, as numbers


def ranked(context: NodeContext) -> None:
    """TopK: the largest along an axis, and their places; what goes from that axis has no chance to be among them."""
    rank = len(context.shape(0))
    axis, count = int(context.attr("axis", -1)) % rank, context.ints(1, "k")
    digits, floats = context.value(0).axes[axis], context.shapes.analysis.dtype[str(context.name(0))] in FLOATS
    if not (count and digits and all(d.labels is not None for d in digits) and floats and context.attr("largest", 1)):
        return mixing(lambda context, rank: [axis]).rule(context)
    context.compete(0, axis, count[0])
    value = context.value(0)
    (digit,) = value.axes[axis]
    rest = layout.drop(context.relations, value, [axis]).axes
    chosen = Value((*rest[:axis], context.relations.axis(count[0]), *rest[axis:]))
    context.yields(chosen, chosen)
    if digit.labels is not None and not digit.deps:
        context.records.places[str(context.node.outputs[1].name)] = digit.labels
    elif context.node.outputs[1].uses():
        context.pin(value, [axis], "has its place read")
    return None


def shares(axes: Axes) -> Operator:
    """Softmax: normalises over axes; over one of which the largest are taken later, what goes has no chance."""
    plain = norm(axes)

    def rule(context: NodeContext) -> None:
        chosen = list(axes(context, len(context.shape(0))))
        labelled = len(chosen) == 1 and any(d.labels is not None for d in context.value(0).axes[chosen[0]])
        if not labelled or not _chosen_from(context.node.outputs[0]):
            return plain.rule(context)
        context.compete(0, chosen[0], 1)
        return context.yields(context.value(0))

    return plain.having(rule=rule)


def _chosen_from(value: ir.Value) -> bool:
    """Whether the largest entries of a value are taken, maybe after it is shown in another shape or type."""
    return any(
        use.node.op_type == "TopK" or (use.node.op_type in ("Cast", "Reshape") and _chosen_from(use.node.outputs[0]))
        for use in value.uses()
    )


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


def unpool(context: NodeContext) -> None:
    """MaxUnpool: values go back to where a pooling found them; its channels and theirs are cut together."""
    producer = context.node.inputs[1].producer()  # type: ignore[union-attr]
    letters = ["n", "c", *([None] * (len(context.shape(0)) - 2))]
    for slot in (0, 1) if producer is None or producer.op_type != "MaxPool" else ():
        context.pin(context.value(slot), [0, 1], FLAT)
    if context.name(2):
        context.leave(2)
    joined = context.join(*((slot, context.operand(slot, letters)) for slot in (0, 1)))
    passed = joined.output(context.relations, "nc")
    result = Value((*passed.axes, *context.relations.free(context.out_shape()[2:]).axes))
    context.yields(result)
    if context.name(2):
        context.patch(lambda cut: {2: context.resized(cut, 2, result, {a: a for a in range(len(result.axes))})})


def regions(context: NodeContext) -> None:
    """Pool the boxes that the second input holds; the third, if there is one, says of which entry of the batch each."""
    scale = float(context.attr("spatial_scale", 1.0))
    *_, height, width = context.nominal(0)
    context.records.boxes[str(context.name(1))] = (width / scale, height / scale)
    if context.name(2):
        context.records.indices[str(context.name(2))] = min(context.shape(0)[0], context.nominal(0)[0])
    spatial(keep=(1,)).rule(context)


def spatial(keep: Sequence[int] = (0, 1)) -> Operator:
    """Work along all axes but some: these pass, the others are free; channels may be said to lie last."""

    def rule(context: NodeContext) -> None:
        passed = (0, len(context.value(0).axes) - 1) if attribute(context.node, "channels_last", 0) else keep
        for slot in context.given()[1:]:
            context.leave(slot)
        value, results = context.value(0), context.free_outputs(0)
        if not all(_only_unpools(output) for output in context.node.outputs[1:]):
            context.pin(value, passed, FLAT)  # the indices of MaxPool count all channels
        for k, free in enumerate(results):
            axes = [a for a in range(len(value.axes)) if a not in passed]
            if context.node.outputs[k].name:
                results[k] = context.freed(
                    value, axes, f"is an axis that {context.node.op_type} works along", free.shape
                )
        context.yields(*results)

    return Operator(rule)


# --- the rest ---------------------------------------------------------------------------------------------------------


def shape_of(context: NodeContext) -> None:
    """Shape and Size read no elements: nothing is tied but an axis whose size is computed with or put out."""
    value = context.value(0)
    labelled = [a for a, axis in enumerate(value.axes) if any(d.labels is not None for d in axis)]
    told = [a for a in labelled if shape_arithmetic.escapes(context.node, a, context.shapes.analysis, context.sizes_of)]
    context.pin(value, told, "has its size computed with")
    context.yields(*context.free_outputs(0))


def fresh_output(context: NodeContext) -> None:
    """Operators whose output has no channels of a model: free."""
    for slot in context.given():
        context.leave(slot)
    context.yields(*context.free_outputs(0))


def opaque(context: NodeContext) -> None:
    """An operator without a rule pins all it touches, captured values of its bodies included."""
    if CHOSEN not in context.node.metadata_props:  # an If of which the branch that runs is cut
        context.records.opaque[context.node.op_type] = context.records.opaque.get(context.node.op_type, 0) + 1
    for name in reads(context.node):
        if name in context.values:
            value = context.values[name]
            context.pin(value, range(len(value.axes)), f"feeds {context.node.op_type}, which has no rule")
        elif name in context.shapes.analysis.shape:
            context.values[name] = context.relations.free(context.shapes.analysis.shape[name])
    for output in context.node.outputs:
        if output.name:
            context.values[str(output.name)] = context.relations.free(context.shapes.analysis.shape[str(output.name)])
