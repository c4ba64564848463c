"""What a node is, beside what it does with labels: facts that a row of the operator table states.

A family of operators states the facts of all its members; a row adds what only it has. Repair, lossless cuts, training
and costs ask for facts (:mod:`onnxslim_learn.coupling.roles`) and never for the name of an operator.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.coupling.context import NodeContext, Rule
    from onnxslim_learn.coupling.relations import Digit

Sides: TypeAlias = tuple[list[int], list[int]]  # axes of a factor that are summed over, and axes of output channels
Bounds: TypeAlias = tuple[float, float]
Parts: TypeAlias = "Callable[[ir.Node, int], list[ir.Node] | None]"
Apart: TypeAlias = "Callable[[NodeContext], Iterator[Digit]]"


OWN = -1  # of summands: what a node multiplies itself


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Value of a node's attribute."""
    return node.attributes[name].value if name in node.attributes else default


# --- factors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Convolution:
    """Data times a weight ``(o, i, *kernel)``, summed over input channels and kernel; output channels are axis 1.

    Attributes:
        weight: Input with the weight.
        bias: Input that holds a bias, or may.
        transposed: Whether the weight is ``(i, o, *kernel)``.
        moved: Whether the places it reads are computed, or come from a state.
        quantized: Whether the factors are integers.
    """

    weight: int = 1
    bias: int | None = 2
    transposed: bool = False
    moved: bool = False
    quantized: bool = False

    def sides(self, node: ir.Node, slot: int, rank: int) -> Sides | None:
        """Axes of a factor of some rank that are summed over, and axes of output channels; ``None`` for no factor."""
        if slot != self.weight:
            return None
        return ([0], [1]) if self.transposed else ([1], [0])

    def blocks(self, node: ir.Node) -> int:
        """Into how many parts, summed over apart from one another, the input channels of the weight are divided."""
        return int(attribute(node, "group", 1)) if self.transposed else 1


@dataclass(frozen=True, slots=True)
class Product:
    """A product of matrices: attributes may transpose the factors, and scale the product and the bias.

    Attributes:
        left: Input with the first factor.
        weight: Input with the second factor.
        bias: Input that holds a bias, or may; ``None`` for an operator that has none.
        quantized: Whether the factors are integers.
    """

    left: int = 0
    weight: int = 1
    bias: int | None = None
    quantized: bool = False

    def sides(self, node: ir.Node, slot: int, rank: int) -> Sides | None:
        """See :class:`Convolution`."""
        if slot not in (self.left, self.weight) or rank < 2:
            return None
        last = [rank - 2, rank - 1]
        if slot == self.left:
            last.reverse()
        if attribute(node, "transA" if slot == self.left else "transB", 0):
            last.reverse()
        return [last[0]], [*range(rank - 2), last[1]]

    def blocks(self, node: ir.Node) -> int:
        """See :class:`Convolution`."""
        return 1


@dataclass(frozen=True, slots=True)
class Equation:
    """Sums of products as attribute ``equation`` says; any input may be a weight, and is mostly the second."""

    weight: int = 1
    bias: int | None = None

    def sides(self, node: ir.Node, slot: int, rank: int) -> Sides | None:
        """See :class:`Convolution`."""
        left, arrow, right = attribute(node, "equation", "").replace(" ", "").partition("->")
        right = right if arrow else "".join(c for c in left if left.count(c) == 1)
        letters = left.split(",")[slot] if slot <= left.count(",") else ""
        if "." in left or len(letters) != rank:
            return None
        inputs = [a for a, letter in enumerate(letters) if letter not in right]
        return (inputs, [a for a in range(rank) if a not in inputs]) if inputs else None

    def blocks(self, node: ir.Node) -> int:
        """See :class:`Convolution`."""
        return 1


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A recurrent cell: weights ``(directions, gates, inputs)`` of the data and, behind it, of the state.

    Attributes:
        weight: Input with the weight of the data.
        bias: Input that holds a bias, or may.
    """

    weight: int = 1
    bias: int | None = 3

    def sides(self, node: ir.Node, slot: int, rank: int) -> Sides | None:
        """See :class:`Convolution`."""
        return ([2], [0, 1]) if slot in (self.weight, self.weight + 1) else None

    def blocks(self, node: ir.Node) -> int:
        """See :class:`Convolution`."""
        return 1


@dataclass(frozen=True, slots=True)
class Projection:
    """A projection ``(inputs, outputs)`` in front of what else a node does.

    Attributes:
        weight: Input with the weight.
        bias: Input that holds a bias, or may.
        quantized: Whether the factors are integers.
    """

    weight: int = 1
    bias: int | None = 2
    quantized: bool = False

    def sides(self, node: ir.Node, slot: int, rank: int) -> Sides | None:
        """See :class:`Convolution`."""
        return ([0], [1]) if slot == self.weight else None

    def blocks(self, node: ir.Node) -> int:
        """See :class:`Convolution`."""
        return 1


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture's layers, stacked by expert: ``(expert)(hidden)(inputs)``, and back ``(expert)(outputs)(hidden)``.

    Attributes:
        weight: Input with the weight of the first layer.
        second: Input with that of the second.
        third: Input with that of a layer beside the first, which its output is multiplied by.
        scales: How far behind a weight its scales are, 0 where it has none.
        biases: How far behind a weight its bias is.
        zeros: Input with zero points of the first layer, those of the second and third behind it.
        chances: Inputs that weigh experts which another input chooses.
    """

    weight: int
    second: int
    third: int
    biases: int
    scales: int = 0
    zeros: int | None = None
    chances: tuple[int, ...] = ()
    bias: int | None = None  # none that shifts the output alike for all rows

    @property
    def quantized(self) -> bool:
        """Whether the factors are integers."""
        return self.scales > 0

    @property
    def first(self) -> tuple[int, int]:
        """Inputs with the weights of layers that the input goes through."""
        return self.weight, self.third

    @property
    def of_second(self) -> tuple[int, ...]:
        """All inputs of the second layer."""
        return (*range(self.second, self.second + self.biases + 1), *(() if self.zeros is None else (self.zeros + 1,)))

    @property
    def slots(self) -> tuple[int, ...]:
        """All inputs of all layers."""
        zeros = () if self.zeros is None else range(self.zeros, self.zeros + 3)
        return (*range(self.weight, self.third + self.biases + 1), *zeros)

    def sides(self, node: ir.Node, slot: int, rank: int) -> Sides | None:
        """See :class:`Convolution`."""
        return ([2], [0, 1]) if slot in (*self.first, self.second) else None

    def blocks(self, node: ir.Node) -> int:
        """See :class:`Convolution`."""
        return 1


Factors: TypeAlias = Convolution | Product | Equation | Recurrent | Projection | Experts


# --- the rest ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Normalisation:
    """A normalisation of the first input.

    Attributes:
        scale: Input that scales what was normalised, if there is one.
        shift: Input that shifts it, if there is one.
        mean: Input with a stored mean by channel; ``None`` where it is that of the data at hand.
        variance: Likewise.
        features: Whether it normalises over features, each position by itself.
        centred: Whether it takes the mean of the data at hand out.
    """

    scale: int | None = 1
    shift: int | None = 2
    mean: int | None = None
    variance: int | None = None
    features: bool = False
    centred: bool = False

    @property
    def stored(self) -> bool:
        """Whether mean and variance are inputs."""
        return self.mean is not None


class Trait(enum.Flag):
    """What an operator has in common with others of several families."""

    MOVES = enum.auto()  # its outputs are entries of its first input, at other places or of another type
    VIEW = enum.auto()  # its output is its first input under another shape: nothing need be moved
    PICKS = enum.auto()  # it reads no more of its first input than it writes
    JOINS = enum.auto()  # it puts parts end to end
    CONVERTS = enum.auto()  # its output is its first input in another type, which it states
    MEASURES = enum.auto()  # it reads sizes alone
    SMOOTH = enum.auto()  # its derivative tells how its output changes
    WHOLE = enum.auto()  # it reads whole axes or places: what it makes of a part is no part of what it makes
    WRAPS = enum.auto()  # its result may leave the range of an integer type
    DROPS = enum.auto()  # it drops entries while a model trains
    QUANTIZES = enum.auto()  # it rounds to a grid: inputs 1 and 2 are the scale and what stands for zero
    DEQUANTIZES = enum.auto()  # the inverse
    ARRANGES = enum.auto()  # it only brings entries into another order or shape: runtimes insert such nodes
    EQUATES = enum.auto()  # it tells which entries are equal
    ATTENDS = enum.auto()  # it multiplies parts of its inputs with one another, as attention does
    RANKS = enum.auto()  # it tells which entries along an axis are largest


NOTHING = Trait(0)


def everything(context: NodeContext) -> Iterator[Digit]:
    """All digits of what a node reads and writes: nothing is known of how it treats them."""
    for value in (*context.node.inputs, *context.node.outputs):
        if value is not None and value.name in context.values:
            yield from context.values[str(value.name)].digits.values()


@dataclass(frozen=True, eq=False)
class Operator:
    """A row of the operator table.

    Attributes:
        rule: What it does with labels: coupling, masks, work and patches.
        factors: Which of its inputs are multiplied and summed over, where it is linear in them.
        norm: What it normalises by, if it does.
        weights: Inputs that are weights of the model where they are initializers.
        bounds: Where it is the identity, from a node; it is constant below and above. ``None`` where it is another
            function.
        arithmetic: Which of the four operations it is, on its inputs entry by entry.
        summands: Inputs that it adds up entry by entry before anything else, :data:`OWN` for what it multiplies itself;
            the arithmetic ``add`` does so with all of its inputs.
        order: Which axis of the input every axis of the output is, from a node and a rank, where it at most permutes.
        sizes: Inputs that say how large a result is: its rule sees to it that they follow a cut, or pins.
        parts: What a node that does several things is made of, as nodes of the table that do one each, from the node
            and the version of the default operator set; ``None`` for a form that cannot be taken apart.
        apart: The digits along which it tells positions apart (:mod:`onnxslim_learn.coupling.operators.mixing`): along
            all others, mixing the positions of all that it reads by one orthogonal matrix mixes what it puts out alike.
        puts_out: What an output of the model is that it makes, as a word of :func:`onnxslim_learn.output_kinds.kind`.
        traits: What else it is.
    """

    rule: Rule
    factors: Factors | None = None
    norm: Normalisation | None = None
    weights: tuple[int, ...] = ()
    bounds: Callable[[ir.Node], Bounds] | None = None
    arithmetic: Literal["", "add", "subtract", "multiply", "divide"] = ""
    summands: tuple[int, ...] = ()
    order: Callable[[ir.Node, int], list[int]] | None = None
    sizes: tuple[int, ...] = ()
    parts: Parts | None = None
    apart: Apart = everything
    puts_out: str = ""
    traits: Trait = NOTHING

    def having(self, traits: Trait = NOTHING, **facts: Any) -> Operator:
        """The same with more facts."""
        return replace(self, traits=self.traits | traits, **facts)


def above_zero(node: ir.Node) -> Bounds:
    """The bounds of Relu."""
    return 0.0, math.inf


def clipped(node: ir.Node) -> Bounds:
    """The bounds of Clip: attributes before opset 11, then inputs; none where one of them is computed."""
    ends = []
    for slot, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        value = node.inputs[slot] if len(node.inputs) > slot else None
        if value is None:
            ends.append(float(attribute(node, name, default)))
        elif value.const_value is None:
            return -math.inf, math.inf
        else:
            ends.append(float(value.const_value.numpy().reshape(-1)[0]))
    return ends[0], ends[1]


def as_it_was(node: ir.Node, rank: int) -> list[int]:
    """The order of axes after an operator that moves none."""
    return list(range(rank))


def permuted(node: ir.Node, rank: int) -> list[int]:
    """The order of axes after Transpose."""
    return list(attribute(node, "perm", range(rank)[::-1]))
