"""Mixtures of experts as one node: a number per token and expert, and the experts' layers stacked along a first axis.

Experts are rows: one that goes takes its slices of all weights and its number of the router along, and as many must
stay as every token meets. Their hidden units are cells: each expert loses others, all equally many. Quantized ones go
in whole blocks, since these share a scale, and bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxslim_learn.coupling import layout
from onnxslim_learn.coupling.operators.facts import Experts, Operator
from onnxslim_learn.coupling.relations import Axis, Value

if TYPE_CHECKING:
    from onnxslim_learn.coupling.alignment import Operand
    from onnxslim_learn.coupling.context import NodeContext

ROUTER = 1  # the input with a number per token and expert
STACKED = 2  # what attribute ``swiglu_fusion`` calls a layer that has all gates first


def mixture(known: Experts) -> Operator:
    """Every token goes through the experts with the ``k`` largest numbers: MoE, QMoE.

    Args:
        known: Which inputs hold what.
    """

    def rule(context: NodeContext) -> None:
        form = _form(context, known)
        context.compete(ROUTER, 1, int(context.attr("k", 1)))
        joined = context.join(*_operands(context, known, form).items())
        for slot in context.given():
            if slot not in (0, ROUTER, *known.chances, *known.slots):
                context.leave(slot)
        passed, (*lead, width) = joined.output(context.relations, form.channel).axes, context.out_shape()
        channels = passed[0] if passed else context.relations.axis(width)
        context.yields(Value((*(context.relations.axis(size) for size in lead), channels)))
        for slot in (0, *known.first):
            if context.name(slot):
                context.contract(slot, [len(context.shape(slot)) - 1])
        if form.apart:
            context.contract(known.second + known.scales, [2], inner=True)
        weights = [slot for slot in (*known.first, known.second) if context.name(slot)]
        each = sum(math.prod(context.shape(slot)[1:]) for slot in weights) * 8 // form.bits
        sizes = {letter: size for letter, size in (("f", form.hidden), ("c", width)) if joined.space.get(letter)}
        space = {letter: joined.space[letter] for letter in ("e", *sizes)}
        tokens = math.prod(context.nominal(0)[:-1]) * int(context.attr("k", 1))
        context.work(space, sizes, tokens * each // math.prod(sizes.values()), within="e")

    return Operator(rule, factors=known, weights=() if known.quantized else known.slots)


@dataclass(frozen=True, slots=True)
class _Form:
    """How the layers of a mixture lie in its inputs.

    Attributes:
        experts: Number of experts.
        hidden: Hidden units of each.
        block: How many of them go together only.
        stacked: Whether a layer that has gates has all of them first, and not each before what it multiplies.
        channel: The letter of input and output channels where these can be cut, or an empty string.
        apart: Whether hidden units can be cut.
        bits: How many bits of the entry of a weight are a number.
    """

    experts: int
    hidden: int
    block: int
    stacked: bool
    channel: str
    apart: bool
    bits: int = 8

    def rows(self, context: NodeContext, slot: int) -> Operand:
        """An input ``(expert)(hidden units, maybe with gates)``, and maybe channels."""
        shape = context.shape(slot)
        gates, blocks = shape[1] // self.hidden, self.hidden // self.block
        inside = (gates, blocks, self.block) if self.stacked else (blocks, self.block * gates)
        letters = [None, "f", None] if self.stacked else ["f", None]
        channels = [self.channel or None] * (len(shape) - 2)
        view = (shape[0], *inside, *shape[2:])
        return context.operand(slot, ["e", *letters, *channels], view, (1, len(inside), *([1] * len(channels))))

    def columns(self, context: NodeContext, slot: int) -> Operand:
        """An input ``(expert)(channel)(hidden units)``."""
        *lead, width = context.shape(slot)
        blocks = self.hidden // self.block
        view = (*lead, blocks, width // blocks)
        return context.operand(slot, ["e", self.channel or None, "f", None], view, (1, 1, 2))


def _form(context: NodeContext, known: Experts) -> _Form:
    (experts, _, width), rows = context.shape(known.second), context.shape(known.weight)[1]
    stacked = int(context.attr("swiglu_fusion", 0)) == STACKED
    if not known.quantized:
        return _Form(experts, width, 1, stacked, "c", apart=True)
    every = int(context.attr("expert_weight_bits", 4))
    bits, *others = {int(context.attr(f"fc{layer}_expert_weight_bits", every)) for layer in (1, 2, 3)}
    hidden, block = width * 8 // bits, int(context.attr("block_size", 0))
    if known.zeros is not None and context.name(known.zeros + 1):
        block *= 8 // bits  # zero points of several blocks share a byte
    packed = context.attr("quant_type", "int") != "int" or int(context.attr("weights_prepacked", -1)) == 1
    apart = not (packed or others or 8 % bits or rows % hidden) and block > 0 and hidden % block == 0
    return _Form(experts, hidden, block if apart else hidden, stacked, "", apart, bits)


def _operands(context: NodeContext, known: Experts, form: _Form) -> dict[int, Operand]:
    """All inputs that are cut, each by how it lies."""
    lead = [None] * (len(context.shape(0)) - 1)
    operands = {0: context.operand(0, [*lead, form.channel or None])}
    operands |= {slot: context.operand(slot, [None, "e"]) for slot in (ROUTER, *known.chances) if context.name(slot)}
    for slot in (slot for slot in known.slots if context.name(slot)):
        rank, second = len(context.shape(slot)), slot in known.of_second
        if not form.apart or rank == 1:
            operands[slot] = context.operand(slot, ["e", *([None] * (rank - 1))])
        elif second and rank == 2:
            operands[slot] = context.operand(slot, ["e", form.channel or None])
        else:
            operands[slot] = form.columns(context, slot) if second else form.rows(context, slot)
    operands[known.second] = _hidden_units(context, operands[known.second], form)
    return operands


def _hidden_units(context: NodeContext, operand: Operand, form: _Form) -> Operand:
    """The weight of the second layer with hidden units of every expert's own, where nothing labels it yet."""
    blocks = form.hidden // form.block
    if "f" not in operand.letters or any(axis is not None for axis in operand.axes):
        return operand
    flat = Value(((context.relations.digit(form.experts * blocks, context.relations.fresh(form.experts * blocks)),),))
    rows, cells = layout.regroup(context.relations, flat, (form.experts, blocks)).axes
    known: dict[str | None, Axis] = {"e": rows, "f": cells}
    return replace(operand, axes=tuple(known.get(letter) for letter in operand.letters))
