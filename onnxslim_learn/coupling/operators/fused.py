"""Operators that bundle many steps: fused, embedded and quantized layers, and what fused ones are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.context import aligned
from onnxslim_learn.coupling.operators.facts import Normalisation, Operator, Parts, Trait, attribute
from onnxslim_learn.coupling.relations import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.coupling.context import NodeContext
    from onnxslim_learn.coupling.records import Cut


def group_norm() -> Operator:
    """GroupNormalization: groups are rows, exact to remove; channels of a group are normalised over."""
    return Operator(_group_norm, norm=Normalisation(), weights=(1, 2), traits=Trait.SMOOTH | Trait.WHOLE)


def _group_norm(context: NodeContext) -> None:
    shape, groups = context.shape(0), int(context.attr("num_groups"))
    inner = shape[1] // groups
    rest = aligned(len(shape) - 2)
    view = (shape[0], groups, inner, *shape[2:])
    spelled = layout.regroup(context.relations, context.value(0), view)
    context.delicate(spelled, range(2, len(view)), "is normalised over by GroupNormalization")
    operands = [(0, context.operand(0, ["n", "g", "i", *rest], view))]
    for slot in context.given()[1:]:
        whole = context.shape(slot)[0] == shape[1]
        affine = context.operand(slot, "gi", (groups, inner), (2,)) if whole else context.operand(slot, "g")
        operands.append((slot, affine))
    joined = context.join(*operands)
    context.yields(layout.regroup(context.relations, joined.output(context.relations, ["n", "g", "i", *rest]), shape))
    row = joined.seen("g")
    context.patch(lambda cut: {"num_groups": cut.size(row, 0)})


def skip_norm(parameters: Sequence[int]) -> Operator:
    """Sum of input and skip, normalised over the last axis; a further output is the sum."""

    def rule(context: NodeContext) -> None:
        rank = len(context.shape(0))
        letters = aligned(rank)
        context.delicate(context.value(0), [rank - 1], f"is normalised over by {context.node.op_type}")
        affine = [(s, context.operand(s, letters[-1])) for s in parameters if context.name(s)]
        skip = aligned(len(context.shape(1)))
        joined = context.join((0, context.operand(0, letters)), (1, context.operand(1, skip)), *affine)
        result = joined.output(context.relations, letters)
        outputs = context.node.outputs
        shapes = [context.out_shape(k) if v.name else () for k, v in enumerate(outputs)]
        context.yields(
            *(result if shape == context.out_shape(0) else context.relations.free(shape) for shape in shapes)
        )

    shift = 3 if len(parameters) > 2 else None
    norm = Normalisation(2, shift, features=True, centred=shift is not None)
    return Operator(
        rule, norm=norm, weights=tuple(parameters), summands=(0, 1), parts=_sum_and_norm(parameters[-1], shift)
    )


def embed_norm(context: NodeContext) -> None:
    """EmbedLayerNormalization: word, position and segment tables are looked up, summed and normalised."""
    letters = ["b", "s", "c"]
    tables = [(slot, context.operand(slot, [None, "c"])) for slot in (2, 3, 4) if context.name(slot)]
    affine = [(slot, context.operand(slot, "c")) for slot in (5, 6) if context.name(slot)]
    joined = context.join(*tables, *affine)
    for slot in set(context.given()) - {2, 3, 4, 5, 6}:
        context.leave(slot)
    context.records.indices[str(context.name(0))] = context.shape(2)[0]
    if context.name(1):
        context.records.indices[str(context.name(1))] = context.shape(4)[0]
    out = context.out_shape(0)
    value = Value((context.relations.axis(out[0]), context.relations.axis(out[1]), joined.space["c"]))
    context.delicate(value, [len(letters) - 1], "is normalised over by EmbedLayerNormalization")
    shapes = [context.out_shape(k) if v.name else () for k, v in enumerate(context.node.outputs)]
    context.yields(*(value if shape == out else context.relations.free(shape) for shape in shapes))


SCALES, ZEROS, ORDER, SHIFT = 2, 3, 4, 5  # inputs of MatMulNBits


def block_quantized(context: NodeContext) -> None:
    """MatMulNBits: weight ``z k bytes`` and scales ``z k``, whose inputs go in whole blocks ``k`` that share a scale.

    Zero points are one per scale, or packed, several to a byte: then they are packed anew.
    """
    (units, blocks), size = context.shape(1)[:2], int(context.attr("block_size"))
    *outer, inner = context.shape(0)
    lead = aligned(len(outer))
    each = {s: math.prod(context.shape(s)) // units for s in (SCALES, ZEROS) if context.name(s)}
    packed = each.get(ZEROS, blocks) != blocks
    whole = inner == blocks * size and not context.name(ORDER) and not (packed and _tensor(context, ZEROS) is None)
    k, view = ("k", (*outer, blocks, size)) if whole else (None, (*outer, 1, inner))
    operands = [(0, context.operand(0, [*lead, k, None], view)), (1, context.operand(1, ["z", k, None]))]
    for slot, count in each.items():
        letters, parts = ["z", k if count == blocks else None], (1, 1) if len(context.shape(slot)) > 1 else (2,)
        operands.append((slot, context.operand(slot, letters, (units, count), parts)))
    if context.name(SHIFT):
        operands.append((SHIFT, context.operand(SHIFT, "z")))
    joined = context.join(*operands)
    context.yields(joined.output(context.relations, [*lead, "z"]))
    if whole:
        context.contract(0, [len(outer)], None, (SHIFT if context.name(SHIFT) else -1, -1))
    space = joined.seen(["z", *(k or "")])

    def stated(cut: Cut) -> dict[int | str, Any]:
        inputs = cut.size(space, 1) * size if whole else inner
        changes: dict[int | str, Any] = {"N": cut.size(space, 0), "K": inputs}
        return {**changes, ZEROS: _repacked(context, cut, space)} if packed and inputs < inner else changes

    context.patch(stated)
    sizes = dict(zip(lead, context.nominal(0), strict=False)) | {"z": units, "k": blocks}
    context.work(joined.space, sizes, size if whole else inner)


def _tensor(context: NodeContext, slot: int) -> ir.TensorProtocol | None:
    value = context.node.inputs[slot]
    return None if value is None else value.const_value


def _repacked(context: NodeContext, cut: Cut, space: Value) -> Array:
    """Zero points of the rows and blocks that stay, lowest bits first; each row begins with a byte of its own."""
    tensor, bits = _tensor(context, ZEROS), int(context.attr("bits", 4))
    assert tensor is not None
    rows, blocks = cut.keep(space, 0), cut.keep(space, 1)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    numbers = tensor.numpy().reshape(len(rows), -1, 1)[rows] >> shifts & ((1 << bits) - 1)
    kept = numbers.reshape(len(numbers), -1)[:, : len(blocks)][:, blocks]
    kept = np.pad(kept, ((0, 0), (0, -kept.shape[1] % len(shifts)))).reshape(len(kept), -1, len(shifts))
    packed: Array = np.bitwise_or.reduce(kept << shifts, axis=-1).astype(np.uint8)
    return packed if len(tensor.shape) > 1 else packed.reshape(-1)


# --- what fused nodes are made of -------------------------------------------------------------------------------------

MICROSOFT = "com.microsoft"


def _part(
    node: ir.Node, name: str, inputs: list[ir.Value | None], settings: dict[str, Any] | None = None, domain: str = ""
) -> ir.Node:
    """A node that does one step of another."""
    return ir.node(name, inputs, settings, domain=domain)


def _given(node: ir.Node, slot: int) -> ir.Value | None:
    return node.inputs[slot] if slot < len(node.inputs) else None


ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""What onnxruntime puts inside a layer -> its parameters in the order of ``activation_params``."""


def activated(operator: str, skip: int | None = None) -> Parts:
    """A layer of the default domain, what is added to it, and an activation.

    Args:
        operator: The layer.
        skip: Input that is added, if there is one.
    """

    def parts(node: ir.Node, version: int) -> list[ir.Node] | None:
        names = ("activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma")
        inner = [a for a in node.attributes.values() if a.name not in names]
        layer = ir.Node("", operator, node.inputs[: 3 if skip is None else skip], inner)
        steps, added = [layer], None if skip is None else _given(node, skip)
        if added is not None:
            steps.append(_part(node, "Add", [layer.outputs[0], added]))
        kind = str(attribute(node, "activation", ""))
        if kind and kind not in ACTIVATIONS:
            return None
        if kind:
            steps.append(_activation(node, kind, steps[-1].outputs[0], version))
        return steps

    return parts


def _activation(node: ir.Node, kind: str, value: ir.Value, version: int) -> ir.Node:
    """The activation that a fused node names, with its parameters."""
    listed = [float(x) for x in attribute(node, "activation_params", ())]
    given = dict(zip(ACTIVATIONS[kind], listed, strict=False))
    named = {k: node.attributes.get(f"activation_{k}") for k in ("alpha", "beta")}
    given |= {k: float(a.value) for k, a in named.items() if a is not None}
    if kind == "Clip" and version >= 11:
        bounds = [ir.Value(name=f"{node.name}.{k}", const_value=ir.tensor(given[k], ir.DataType.FLOAT)) for k in given]
        return _part(node, kind, [value, *bounds])
    return _part(node, kind, [value], given)


def _sum_and_norm(bias: int, shift: int | None) -> Parts:
    """Input plus bias plus skip, and a normalisation of the sum over the last axis; the fourth output is the sum."""

    def parts(node: ir.Node, version: int) -> list[ir.Node] | None:
        first, second, extra = node.inputs[0], node.inputs[1], _given(node, bias)
        steps = []
        if extra is not None:  # it was the bias of the layer that makes one of both
            behind = second is not None and second.producer() is not None and len(second.uses()) == 1
            swap = behind and first is not None and len(first.uses()) > 1
            steps.append(_part(node, "Add", [second if swap else first, extra]))
            first, second = (first, steps[0].outputs[0]) if swap else (steps[0].outputs[0], second)
        steps.append(_part(node, "Add", [first, second]))
        name = "SimplifiedLayerNormalization" if shift is None else "LayerNormalization"
        affine = [_given(node, 2)] if shift is None else [_given(node, 2), _given(node, shift)]
        settings = {"axis": -1, "epsilon": float(attribute(node, "epsilon", 1e-12))}
        steps.append(_part(node, name, [steps[-1].outputs[0], *affine], settings))
        return steps

    return parts


def shifted(operator: str) -> Parts:
    """A bias, if there is one, and a function of com.microsoft."""

    def parts(node: ir.Node, version: int) -> list[ir.Node] | None:
        bias = _given(node, 1)
        if bias is None:
            return None
        sum_ = _part(node, "Add", [node.inputs[0], bias])
        return [sum_, _part(node, operator, [sum_.outputs[0]], domain=MICROSOFT)]

    return parts


PAST, BIAS, LENGTH = 4, 5, 6  # inputs of com.microsoft.Attention


def projected(node: ir.Node, version: int) -> list[ir.Node] | None:
    """com.microsoft.Attention: a projection, its bias, and attention of the three parts of what it makes."""
    data, weight, bias, mask = (_given(node, slot) for slot in range(4))
    heads = {"num_heads": int(attribute(node, "num_heads", 1))}
    heads |= {name: node.attributes[name].value for name in ("scale", "unidirectional") if name in node.attributes}
    known = {"num_heads", "scale", "unidirectional"}
    if set(node.attributes) - known or any(_given(node, slot) is not None for slot in (PAST, LENGTH)):
        return None
    product = _part(node, "MatMul", [data, weight])
    steps = [product] if bias is None else [product, _part(node, "Add", [product.outputs[0], bias])]
    split = ir.node("Split", [steps[-1].outputs[0]], {"axis": -1}, num_outputs=3)
    if version >= 18:
        split.attributes["num_outputs"] = ir.AttrInt64("num_outputs", 3)
    inputs = [*split.outputs, None, mask, _given(node, BIAS)]
    return [*steps, split, _part(node, "MultiHeadAttention", inputs, heads, MICROSOFT)]
