"""What a node is: its row in the operator table, asked for by node. Nobody else decides by the name of an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from onnxslim_learn.coupling.operators import table
from onnxslim_learn.coupling.operators.facts import (
    Bounds,
    Convolution,
    Equation,
    Factors,
    Normalisation,
    Operator,
    Product,
    Projection,
    Recurrent,
    Trait,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "Bounds",
    "Convolution",
    "Equation",
    "Factors",
    "Normalisation",
    "Operator",
    "Product",
    "Projection",
    "Recurrent",
    "Trait",
    "alike",
    "arranges",
    "bounds",
    "convolution",
    "factors",
    "has",
    "multiplies",
    "normalisation",
    "of",
    "puts_out",
    "reads_whole",
    "sizes",
]


class Named(Protocol):
    """A node of a graph, or of a file."""

    @property
    def domain(self) -> str:
        """Domain of its operator."""

    @property
    def op_type(self) -> str:
        """Name of its operator."""


def of(node: Named) -> Operator:
    """The row of a node's operator."""
    return table.row(node.domain, node.op_type)


def has(node: Named, traits: Trait) -> bool:
    """Whether a node has one of some traits."""
    return bool(of(node).traits & traits)


def factors(node: Named) -> Factors | None:
    """Which inputs of a node are multiplied and summed over."""
    return of(node).factors


def convolution(node: Named) -> Convolution | None:
    """How a node is a convolution, if it is one."""
    known = of(node).factors
    return known if isinstance(known, Convolution) else None


def multiplies(node: Named) -> bool:
    """Whether a node is linear in what it multiplies: a convolution, or a product of matrices."""
    return isinstance(of(node).factors, Convolution | Product | Equation)


def normalisation(node: Named) -> Normalisation | None:
    """How a node normalises, if it does."""
    return of(node).norm


def sizes(node: Named) -> tuple[int, ...]:
    """Which inputs of a node say how large its result is."""
    return of(node).sizes


def reads_whole(node: Named) -> bool:
    """Whether a node reads whole axes or places: what it makes of a part is no part of what it makes."""
    return has(node, Trait.WHOLE)


def copies(node: Named) -> bool:
    """Whether a node puts out its input as it is."""
    return of(node).order is not None and has(node, Trait.VIEW)


def stacks(node: Named) -> bool:
    """Whether a node wants parts (gates, directions) stacked on the axes of its parameters."""
    return isinstance(of(node).factors, Recurrent)


def arranges(op_type: str) -> bool:
    """Whether an operator in a profile only brings entries into another order or shape."""
    return Trait.ARRANGES in table.named(op_type).traits


def alike(node: Named, op_type: str) -> bool:
    """Whether an operator in a profile does what a node does, and maybe more."""
    other = table.named(op_type)
    same = other.factors is not None and other.factors == of(node).factors
    return same or node.op_type == op_type


def puts_out(value: ir.Value) -> str:
    """What an output is, as far as the operator that makes it tells: a word of :func:`onnxslim_learn.metrics.kind`."""
    node = value.producer()
    return "" if node is None else of(node).puts_out


def bounds(node: ir.Node) -> Bounds | None:
    """Between which numbers a node passes its input on, where it is the identity there and constant elsewhere."""
    stated = of(node).bounds
    return None if stated is None else stated(node)
