"""Along which digits operators tell positions apart: along the others, the basis of what they read is free.

Each function is the fact ``apart`` of a family: from a node it yields digits of what the node reads and writes. Where
positions of a digit are mixed by one orthogonal matrix in all tensors that carry it, and the node does not tell them
apart, what it puts out is mixed alike where it has the digit, and stays as it is where it has not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from onnxslim_learn.coupling.operators.facts import Apart, everything

if TYPE_CHECKING:
    from onnxslim_learn.coupling.context import NodeContext
    from onnxslim_learn.coupling.relations import Digit

Notation = Callable[["NodeContext"], "tuple[dict[int, str], str]"]


def nothing(context: NodeContext) -> Iterator[Digit]:
    """Linear, and the same for all positions: what moves data, or works along other axes."""
    yield from ()


def unless(hinders: Callable[[NodeContext], bool], apart: Apart = nothing) -> Apart:
    """Everything where something hinders."""
    return lambda context: (everything if hinders(context) else apart)(context)


def added(context: NodeContext) -> Iterator[Digit]:
    """A sum: what is broadcast along an axis is not mixed with the rest."""
    for axis, present in _present(context):
        if not all(present):
            yield from output_axis(context, axis)


def multiplied(context: NodeContext) -> Iterator[Digit]:
    """A product: factors of one number for all positions of an axis commute with mixing them."""
    for axis, present in _present(context):
        if sum(present) > 1:
            yield from output_axis(context, axis)


def divided(context: NodeContext) -> Iterator[Digit]:
    """A quotient: as a product, but nothing is linear in what divides."""
    for axis, present in _present(context):
        if present != [True, False]:
            yield from output_axis(context, axis)


def _present(context: NodeContext) -> Iterator[tuple[int, list[bool]]]:
    """The axes of the result that are longer than one, and which inputs are as long there."""
    out = context.out_shape()
    for axis, size in enumerate(out):
        if size != 1:
            shapes = [context.shape(slot) for slot in context.given()]
            places = [(shape, axis - len(out) + len(shape)) for shape in shapes]
            yield axis, [place >= 0 and shape[place] == size for shape, place in places]


def input_axis(context: NodeContext, slot: int, axis: int) -> Iterator[Digit]:
    """The digits of an axis of an input."""
    name = str(context.name(slot))
    yield from context.values[name].axes[axis] if name in context.values else ()


def output_axis(context: NodeContext, axis: int) -> Iterator[Digit]:
    """The digits of an axis of the first output."""
    name = str(context.node.outputs[0].name)
    yield from context.values[name].axes[axis] if name in context.values else ()


def grown(context: NodeContext) -> Iterator[Digit]:
    """Broadcast to a shape: the axes that grow hold the same number at all positions."""
    before, after = context.shape(0), context.out_shape()
    for axis, size in enumerate(after):
        place = axis - len(after) + len(before)
        if place < 0 or before[place] != size:
            yield from output_axis(context, axis)


def along(slot: int, axes: Callable[[NodeContext], Sequence[int]]) -> Apart:
    """Some axes of an input are told apart."""

    def apart(context: NodeContext) -> Iterator[Digit]:
        for axis in axes(context):
            yield from input_axis(context, slot, axis)

    return apart


def products(notation: Notation, addend: int | None = None) -> Apart:
    """A sum of products: letters that one factor has pass, those that two have and the result has not cancel out.

    Args:
        notation: Letters of the inputs and of the result.
        addend: Input that is added, if there is one.
    """

    def apart(context: NodeContext) -> Iterator[Digit]:
        inputs, output = notation(context)
        factors = {slot: letters for slot, letters in inputs.items() if slot != addend}
        long = {slot: _long(context, slot, letters) for slot, letters in inputs.items()}
        for slot, letters in factors.items():
            for axis, letter in enumerate(letters):
                count = sum(letter in long[k] for k in factors)
                if count != (1 if letter in output else 2):
                    yield from input_axis(context, slot, axis)
        if addend in inputs:
            for axis, letter in enumerate(output):
                if letter not in long[addend]:
                    yield from output_axis(context, axis)

    return apart


def _long(context: NodeContext, slot: int, letters: str) -> set[str]:
    """Letters of an input's axes that have more than one element."""
    return {letter for letter, size in zip(letters, context.shape(slot), strict=True) if size != 1}


def convolved(*, data: int, weight: int) -> Apart:
    """A convolution: its groups are told apart, as are the entries of a batch; channels of one group are mixed."""

    def apart(context: NodeContext) -> Iterator[Digit]:
        yield from input_axis(context, data, 0)
        groups = int(context.attr("group", 1))
        if groups > 1:
            outer = [*input_axis(context, weight, 0)]
            whole = bool(outer) and outer[0].size == groups and not outer[0].deps
            yield from outer[:1] if whole else everything(context)

    return apart


def cells(context: NodeContext) -> Iterator[Digit]:
    """A recurrent cell: it is linear in its data, and tells everything else apart."""
    mixed = {d.key for slot in (0, 1) for d in input_axis(context, slot, 2)}
    yield from (digit for digit in everything(context) if digit.key not in mixed)


def attended(heads: str) -> Apart:
    """Attention: entries of a head cancel out between query and key, and pass from the value; all else is told apart.

    Args:
        heads: Attribute with the number of heads, for inputs of rank 3.
    """

    def apart(context: NodeContext) -> Iterator[Digit]:
        count = int(context.attr(heads, 0))
        single = any(len(context.shape(k)) == 3 and context.shape(k)[2] == count for k in context.given()[:3])
        if single or context.attr("do_rotary", 0):
            yield from everything(context)
        for slot in context.given():
            for axis in range(len(context.shape(slot)) - 1):
                yield from input_axis(context, slot, axis)

    return apart


def cropped(context: NodeContext) -> bool:
    """Whether a resizing puts a number in beyond the borders of what it reads."""
    return _text(context.attr("coordinate_transformation_mode", "")) == "tf_crop_and_resize"


def activated(layer: Apart) -> Apart:
    """A layer behind which an activation may be fused: that tells apart what is put out."""

    def apart(context: NodeContext) -> Iterator[Digit]:
        yield from layer(context)
        if _text(context.attr("activation", "")):
            for axis in range(len(context.out_shape())):
                yield from output_axis(context, axis)

    return apart


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


def padded_by_number(context: NodeContext) -> bool:
    """Whether a padding puts a number in that is not zero."""
    if _text(context.attr("mode", "constant")) != "constant":
        return False
    stated = context.static(2) if context.name(2) else context.attr("value", 0.0)
    return stated is None or bool(stated != 0)
