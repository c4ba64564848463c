"""What operator rules state of their nodes: contractions, work, patches and the like, one kind of record for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.coupling.relations import Digit, Value

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class InProportion:
    """What an entry of a vector of sizes must be at the analysis sizes; at others it is as much more or less."""

    size: int


Changes = dict[int, int | InProportion]  # entry of a vector of sizes -> its new content
Slot = int | str  # an input's index or an attribute's name; ``op_type`` renames the operator


class Cut(Protocol):
    """What a patch may ask about a plan."""

    def size(self, value: Value, axis: int) -> int:
        """New length of an axis."""

    def keep(self, value: Value, axis: int) -> Array:
        """Which positions of an axis stay, as booleans."""

    def width(self, value: Value, digit: Digit) -> int:
        """How many indices of a digit stay (in every kept row)."""


@dataclass(frozen=True, slots=True)
class Contraction:
    """A node input of which some axes are summed over: where masks and repair go.

    Attributes:
        node: Index of the node.
        slot: Which input.
        value: The layout of that input.
        axes: Its summed axes.
        zero: Input of the same node with the value that stands for zero, or ``None`` for plain zero.
        bias: Input that is all the node puts out when this one is zero, and the output axis it lies along; input -1 for
            nothing; ``None`` where it puts out something else.
        inner: Whether it is multiplied with what the node itself has computed before (a recurrence).
    """

    node: int
    slot: int
    value: Value
    axes: tuple[int, ...]
    zero: int | None = None
    bias: tuple[int, int] | None = None
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Contest:
    """A node input of which the entries along some axes compete (experts): one that is removed is given no chance.

    Where a contraction's reference has zeros, a contest's has minus infinity: shares are made of the others alone.

    Attributes:
        node: Index of the node.
        slot: Which input.
        value: The layout of that input.
        axes: The axes along which entries compete.
        least: How many of them win, and must stay.
    """

    node: int
    slot: int
    value: Value
    axes: tuple[int, ...]
    least: int


@dataclass(frozen=True, slots=True)
class Term:
    """Work of a node: ``coefficient`` times the product of the widths of ``digits``.

    Those of ``within`` are only what ``digits`` depend on: of a mixture's experts, each row meets a fixed number.
    """

    node: int
    coefficient: int
    digits: tuple[Digit, ...]
    within: tuple[Digit, ...] = ()

    @property
    def whole(self) -> int:
        """Work where nothing is cut."""
        return self.coefficient * math.prod(d.size for d in self.digits if d.labels is not None)


@dataclass(frozen=True, slots=True)
class Patch:
    """How a node changes with a plan: slot -> new content, as :func:`onnxslim_learn.rewrite.edit.apply` reads it."""

    node: int
    make: Callable[[Cut], Mapping[Slot, Any]]


@dataclass(frozen=True, slots=True)
class Delicate:
    """Axes that a node normalises over: cut, the result is not exact."""

    node: int
    value: Value
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Affine:
    """A node that normalises its first input and then scales and shifts it per channel."""

    node: int
    scale: int
    shift: int


@dataclass(frozen=True, slots=True)
class Inside:
    """What the bodies of a node do, all of which is pinned.

    Attributes:
        node: Index of the node.
        macs: Their multiply-accumulates: of an If those of the branch with most, or of the one that is chosen.
        counted: Whether all shapes inside are known; what is not is not counted.
        rounds: How often a body runs; counted once where that is ``None``: only the run decides.
    """

    node: int
    macs: int
    counted: bool
    rounds: int | None


@dataclass
class Records:
    """What all rules of a model stated, beside the relations.

    Attributes:
        contractions: Inputs that are summed over.
        contests: Inputs whose entries compete.
        silenced: Inputs along which a unit must be zeroed, too, to be as if it were not there.
        affines: Scales and shifts after a normalisation.
        delicate: Axes that are normalised over, where these may be cut.
        terms: Multiply-accumulates.
        patches: How nodes follow a plan.
        summed: Convolution weight -> its axes that are summed over.
        elementwise: Indices of nodes that work element by element, with broadcasting.
        joins: Indices of nodes that put parts end to end.
        indices: Name of a value used as index -> size of the axis it points into.
        tables: Name of a value used as index -> the value that it points into, and along which axis.
        boxes: Name of a value that holds corners of boxes -> width and height of the picture in their units.
        places: Name of a value whose numbers are places along an axis -> the labels of that axis.
        alone: Index of a node that picks one position of an axis -> the atom of that position.
        opaque: Operator without a rule -> number of nodes.
        inside: Nodes that hold graphs of their own.
    """

    contractions: list[Contraction] = field(default_factory=list)
    contests: list[Contest] = field(default_factory=list)
    silenced: list[Contraction] = field(default_factory=list)
    affines: list[Affine] = field(default_factory=list)
    delicate: list[Delicate] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    summed: dict[str, set[int]] = field(default_factory=dict)
    elementwise: set[int] = field(default_factory=set)
    joins: set[int] = field(default_factory=set)
    indices: dict[str, int] = field(default_factory=dict)
    tables: dict[str, tuple[str, int]] = field(default_factory=dict)
    boxes: dict[str, tuple[float, float]] = field(default_factory=dict)
    places: dict[str, Labels] = field(default_factory=dict)
    alone: dict[int, int] = field(default_factory=dict)
    opaque: dict[str, int] = field(default_factory=dict)
    inside: list[Inside] = field(default_factory=list)

    @property
    def consumed(self) -> list[Contraction | Contest]:
        """Inputs at which units are taken out where they are only masked, or multiplied by gates."""
        return [*self.contractions, *self.contests]
