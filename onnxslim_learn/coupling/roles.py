"""What a node is: its row in the operator table, asked for by node. Nobody else decides by the name of an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from onnxslim_learn.coupling.operators import elementwise, table
from onnxslim_learn.coupling.operators.facts import (
    OWN,
    Bounds,
    Convolution,
    Equation,
    Experts,
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
    "OWN",
    "Bounds",
    "Convolution",
    "Equation",
    "Experts",
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
    "converts",
    "convolution",
    "entrywise",
    "factors",
    "has",
    "multiplies",
    "normalisation",
    "of",
    "puts_out",
    "reads_whole",
    "sizes",
    "summands",
]

NEAR = 8  # nodes between a normalisation and an output


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


def summands(node: ir.Node) -> tuple[int, ...]:
    """Which inputs a node adds up, entry by entry; :data:`OWN` for what it multiplies itself."""
    row = of(node)
    return tuple(range(len(node.inputs))) if row.arithmetic == "add" else row.summands


def reads_whole(node: Named) -> bool:
    """Whether a node reads whole axes or places: what it makes of a part is no part of what it makes."""
    return has(node, Trait.WHOLE)


def copies(node: Named) -> bool:
    """Whether a node puts out its input as it is."""
    return of(node).order is not None and has(node, Trait.VIEW)


def converts(node: Named) -> bool:
    """Whether a node puts out its input in another type."""
    return has(node, Trait.CONVERTS)


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
    """What an output is, as far as operators tell that make or read it.

    It is told in a word of :func:`onnxslim_learn.output_kinds.kind`.

    What is ranked, or made probabilities of, are logits; what was normalised over features and went through no layer
    since are embeddings. Views in between change nothing. Beside probabilities that are put out there are no bare
    logits, but quantities (boxes and landmarks of a face).
    """
    node = value.producer()
    if node is not None and of(node).puts_out:
        return of(node).puts_out
    if any(has(use.node, Trait.RANKS) or of(use.node).puts_out == "probabilities" for use in value.uses()):
        return "logits"
    if node is not None and has(node, Trait.VIEW) and node.inputs[0] is not None:
        return puts_out(node.inputs[0])
    if _normalised(value, NEAR):
        return "embeddings"
    return "quantities" if node is not None and node.graph is not None and _makes_probabilities(node.graph) else ""


def _makes_probabilities(graph: ir.Graph | ir.Function) -> bool:
    """Whether a model puts out probabilities that sum to one."""
    last = [value.producer() for value in graph.outputs]
    return any(node is not None and of(node).puts_out == "probabilities" for node in last)


def _normalised(value: ir.Value | None, depth: int) -> bool:
    """Whether a value comes from a normalisation over features with no layer in between."""
    node = None if value is None else value.producer()
    if node is None or not depth or of(node).factors is not None:
        return False
    norm = of(node).norm
    return (norm is not None and norm.features) or any(_normalised(x, depth - 1) for x in node.inputs)


def entrywise(node: Named) -> bool:
    """Whether a node computes numbers from numbers, entry by entry, and its derivative tells how they change."""
    return of(node).rule is elementwise.elementwise and has(node, Trait.SMOOTH) and not has(node, Trait.CONVERTS)


def bounds(node: ir.Node) -> Bounds | None:
    """Between which numbers a node passes its input on, where it is the identity there and constant elsewhere."""
    stated = of(node).bounds
    return None if stated is None else stated(node)
