"""What an operator rule sees of its node, and what it may state: the vocabulary of the operator table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.coupling import alignment, layout
from onnxslim_learn.coupling.records import (
    Changes,
    Contest,
    Contraction,
    Cut,
    Delicate,
    InProportion,
    Patch,
    Records,
    Slot,
    Term,
)
from onnxslim_learn.coupling.relations import Axis, Grid, Pin, Relations, Value, in_rows, parts, row_atoms
from onnxslim_learn.errors import MisfitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.graph.shape_info import Shapes


WHERE = 9  # the operator set that brought Where, which masks and size vectors that are computed need
OPEN = "shares an axis with an open dimension"
RANK = "abcdefghijklmnop"  # letters of axes counted from the last


def aligned(rank: int) -> str:
    """Letters of the axes of a tensor, such that tensors of other ranks align at the last axis."""
    return RANK[:rank][::-1]


@dataclass
class NodeContext:
    """One node, the layouts of its inputs, and the ways to state what it does.

    Attributes:
        node: The node.
        index: Its position in the graph.
        version: Version of its operator set.
        relations: Where relations go.
        shapes: Shapes of all values.
        values: Layouts by value name; an initializer is absent until something labels it.
        records: Where contractions, work and patches go.
        sensitive: Whether axes that are normalised over may be cut (not exact).
        sizes_of: Which inputs of a node say how large its result is.
        heeded: Inputs with places that the rule took as such (:meth:`places`).
    """

    node: ir.Node
    index: int
    version: int
    relations: Relations
    shapes: Shapes
    values: dict[str, Value]
    records: Records
    sensitive: bool
    sizes_of: Callable[[ir.Node], tuple[int, ...]] = lambda node: ()
    heeded: set[int] = field(default_factory=set)

    # --- asking -----------------------------------------------------------------------------------------------

    def name(self, slot: int) -> str | None:
        """Name of an input, or ``None`` if it is absent."""
        if slot >= len(self.node.inputs):
            return None
        value = self.node.inputs[slot]
        return None if value is None or not value.name else str(value.name)

    def given(self) -> list[int]:
        """Slots of the inputs that are present."""
        return [slot for slot in range(len(self.node.inputs)) if self.name(slot)]

    def shape(self, slot: int) -> tuple[int, ...]:
        """Shape of an input at the analysis sizes."""
        return self.shapes.analysis.shape[str(self.name(slot))]

    def nominal(self, slot: int) -> tuple[int, ...]:
        """Shape of an input at the nominal sizes."""
        return self.shapes.nominal.shape[str(self.name(slot))]

    def met_free(self) -> str:
        """Why what meets a free axis here stays; an input of the model is told: its axes are the caller's."""
        given = next((str(v.name) for v in self.node.inputs if v is not None and v.is_graph_input()), None)
        read = f", which reads graph input {given}" if given else ""
        if given and self._grows(given):
            read += ": a cache. The command caches opens its heads"
        return f"is tied to a free axis by {self.node.op_type}{read}"

    def _grows(self, given: str) -> bool:
        """Whether the model puts an input out again, longer, as it does with caches of keys and values."""
        before = self.shapes.analysis.shape[given]
        outputs = [str(v.name) for v in self.node.outputs if v.is_graph_output()]
        shapes = [self.shapes.analysis.shape[name] for name in outputs]
        return any(
            len(now) == len(before) and [a for a, (m, n) in enumerate(zip(before, now, strict=True)) if m != n] == [2]
            for now in shapes
        )

    def out_shape(self, slot: int = 0, *, nominal: bool = False) -> tuple[int, ...]:
        """Shape of an output at the analysis (or nominal) sizes."""
        sample = self.shapes.nominal if nominal else self.shapes.analysis
        return sample.shape[str(self.node.outputs[slot].name)]

    def varying(self, slot: int) -> frozenset[int]:
        """Axes of an input whose size is open."""
        name, rank = str(self.name(slot)), len(self.shape(slot))
        return frozenset(axis for axis in range(rank) if self.shapes.is_open(name, axis))

    def static(self, slot: int) -> Array | None:
        """Value of an input that is a small constant, else ``None``."""
        name = self.name(slot)
        return None if name is None else self.shapes.static(name)

    def tells(self, slot: int) -> bool:
        """Whether an input is absent, or a small whole-numbered tensor that is known at all input sizes."""
        return self.name(slot) is None or self.shapes.known(str(self.name(slot))) is not None

    def stated(self, slot: int) -> list[int | None]:
        """Entries of a vector of sizes, ``None`` for one that is not the same at all input sizes."""
        values = self.shapes.known(str(self.name(slot)))
        if values is None or len({value.shape for value in values}) > 1:
            return [None] * self.shape(slot)[0]
        return [int(column[0]) if len(set(column)) == 1 else None for column in zip(*values, strict=True)]

    def resized(self, cut: Cut, slot: int, result: Value, places: Mapping[int, int]) -> Changes:
        """How the entries of a vector of sizes follow a cut: to a number, or in proportion where the axis is open.

        Args:
            cut: What goes.
            slot: The input that is the vector. One that is computed may change by itself, with what it is the shape of:
                then it is told what stays, too.
            result: The layout whose sizes the vector states: the node's first output.
            places: Axis -> entry that states its size.
        """
        name, changes = str(self.node.outputs[0].name), {}
        initial = self.node.inputs[slot].is_initializer()  # type: ignore[union-attr]
        now = None if initial else self.shapes.analysis.value.get(str(self.name(slot)))
        for axis, place in places.items():
            old, new = result.shape[axis], cut.size(result, axis)
            if new != old or (now is not None and now[place] == old):
                changes[place] = InProportion(new) if self.shapes.is_open(name, axis) else new
        return changes

    def attr(self, name: str, default: Any = None) -> Any:
        """Value of an attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def ints(self, slot: int, name: str) -> list[int] | None:
        """Integers given as an input or, in older operator sets, as an attribute; ``None`` where not constant."""
        if self.name(slot) is not None:
            values = self.static(slot)
            return None if values is None else [int(v) for v in values.reshape(-1)]
        listed = self.attr(name)
        return None if listed is None else [int(v) for v in listed]

    def value(self, slot: int) -> Value:
        """Layout of an input; an initializer without labels gets fresh ones on every axis."""
        name = str(self.name(slot))
        if name not in self.values:
            digits = [self.relations.digit(n, self.relations.fresh(n)) if n != 1 else None for n in self.shape(slot)]
            self.values[name] = Value(tuple((d,) if d else () for d in digits))
        return self.values[name]

    # --- stating ----------------------------------------------------------------------------------------------

    def free_outputs(self, start: int) -> list[Value]:
        """Layouts without labels for the outputs from one on; absent ones get an empty one."""
        outputs = self.node.outputs
        return [self.relations.free(self.out_shape(k) if outputs[k].name else ()) for k in range(start, len(outputs))]

    def yields(self, *values: Value) -> None:
        """Set the layouts of the outputs."""
        for output, value in zip(self.node.outputs, values, strict=False):
            if output.name:
                self.values[str(output.name)] = value

    def leave(self, slot: int) -> None:
        """An input that is no tensor of channels: pin whatever labels it has."""
        name = self.name(slot)
        if name in self.values:
            self.pin(self.values[name], range(len(self.values[name].axes)), f"feeds {self.node.op_type}")

    def pin(self, value: Value, axes: Iterable[int], reason: str) -> None:
        """Forbid removal along axes of a value."""
        self.relations.pin_axes(value, axes, reason)

    def freed(self, value: Value, axes: Iterable[int], reason: str, shape: Sequence[int]) -> Value:
        """Pin axes and make them free, with the sizes of ``shape``."""
        chosen = set(axes)
        self.pin(value, chosen, reason)
        gone = {d.key for a in chosen for d in value.axes[a]}
        value = layout.forget(self.relations, value, gone)
        return Value(tuple(self.relations.axis(shape[a]) if a in chosen else axis for a, axis in enumerate(value.axes)))

    def delicate(self, value: Value, axes: Iterable[int], reason: str) -> None:
        """Axes that are normalised over: cutting them is legal but not exact."""
        if self.sensitive:
            self.records.delicate.append(Delicate(self.index, value, tuple(axes)))
        else:
            self.relations.pin_axes(value, axes, reason, delicate=True)

    def operand(
        self, slot: int, letters: Sequence[str | None], view: Sequence[int] = (), parts: Sequence[int] = ()
    ) -> alignment.Operand:
        """An input as an operand of a joint, with the axes of ``view``; ``parts`` of them make up each own axis."""
        shape = tuple(view) or self.shape(slot)
        name = str(self.name(slot))
        if name not in self.values and self.node.inputs[slot].is_initializer():  # type: ignore[union-attr]
            parts = parts or (_parts(self.shape(slot), view) if view else ())
            return alignment.Operand(tuple(letters), shape, (None,) * len(shape), tuple(parts))
        value = self.value(slot)
        if view:
            value = layout.regroup(self.relations, value, shape)
        alone = [a for a, letter in enumerate(letters) if letter is None]
        value = self.freed(value, alone, f"is an axis that {self.node.op_type} works along", shape)
        return alignment.Operand(tuple(letters), shape, value.axes)

    def fits(self, slot: int, axis: int, size: int) -> None:
        """See that an input has the size along an axis that another one asks for.

        Raises:
            MisfitError: If it has not: the file leaves open what a weight fixes.
        """
        here, nominal = self.shape(slot)[axis], self.nominal(slot)[axis]
        if here != size:
            where = f"node {self.node.name} ({self.node.op_type}): its input {self.name(slot)}"
            what = f"must have {size} along axis {axis}, not {here if nominal == size else nominal}"
            raise MisfitError(f"{where} {what}. Give the input shapes with ⟨input⟩ NAME:1x3x224x224.", [(here, size)])

    def join(self, *operands: tuple[int, alignment.Operand], reason: str = "") -> alignment.Joined:
        """Join inputs, and remember the layouts that initializers adopted.

        Raises:
            MisfitError: If a letter has two sizes, neither of them one.
        """
        known: dict[str, int] = {}
        for slot, operand in operands:
            for axis, (letter, size) in enumerate(zip(operand.letters, operand.shape, strict=True)):
                if letter and size > 1 and known.setdefault(letter, size) != size:
                    self.fits(slot, axis, known[letter])
        joined = alignment.join(self.relations, [op for _, op in operands], reason or self.met_free())
        for (slot, operand), value in zip(operands, joined.operands, strict=True):
            name = str(self.name(slot))
            if name not in self.values:
                self.values[name] = _unview(value, operand.parts)
        return joined

    def hold_open_axes(self) -> None:
        """Pin what shares an open axis of an output, unless the rest of that axis is what its size varies by."""
        for name in (str(output.name) for output in self.node.outputs if output.name in self.values):
            value, firm = self.values[name], self.values[name].firm
            for axis in self.shapes.varying(name) if firm else ():
                inside = [d.key in firm for d in value.axes[axis]]
                fixed = math.prod(d.size for d in value.axes[axis] if d.key in firm)
                sizes = [sample.shape[name][axis] for sample in self.shapes.samples]
                if any(inside) and (all(inside) or any(size % fixed for size in sizes)):
                    value = self.freed(value, [axis], OPEN, value.shape)
            self.values[name] = value

    def _hold_unmaskable(self, name: str, value: Value, axes: Iterable[int]) -> None:
        """Pin what no mask could be made for at run time: it shares an axis with an open digit and others."""
        summed = [d for a in axes for d in value.axes[a] if d.labels is not None]
        varying = self.shapes.varying(name)
        spoken = parts(value, {key for d in summed for key in (d.key, *d.deps)}, varying)
        undecided = spoken.undecided if self._masks_at_run_time() else spoken.axes & varying
        for digit in summed:
            if any(part.axis in undecided and part.key in (digit.key, *digit.deps) for part in spoken.parts):
                self.relations.pin(digit, OPEN, value.digits)

    def _masks_at_run_time(self) -> bool:
        """Whether masks may be computed: by the standard operators, of which other domains' come with recent ones."""
        return bool(self.node.domain) or self.version >= WHERE

    def contract(
        self,
        slot: int,
        axes: Iterable[int],
        zero: int | None = None,
        bias: tuple[int, int] | None = None,
        *,
        inner: bool = False,
    ) -> None:
        """State that axes of an input are summed over (see :class:`Contraction`)."""
        name = str(self.name(slot))
        value = self.values[name]
        summed = tuple(a for a in axes if any(d.labels is not None for d in value.axes[a]))
        if summed:
            self._hold_unmaskable(name, value, summed)
            zero = zero if zero is not None and self.name(zero) else None
            self.records.contractions.append(Contraction(self.index, slot, value, summed, zero, bias, inner))

    def silence(self, slot: int, axes: Sequence[int], zero: int | None = None) -> None:
        """State that units along axes of an input are zeroed there, too, where they are masked.

        A grid that spans all states of a cell is the same without a unit only if that unit's state is zero.
        """
        value = self.values[str(self.name(slot))]
        self.records.silenced.append(Contraction(self.index, slot, value, tuple(axes), zero))

    def places(self, slot: int, length: int) -> Labels | None:
        """Labels of the axis, so long, that the numbers of an input are places along; ``None`` where they are none.

        Where that axis is cut, they count what is left by themselves; what reads them must be cut alike.
        """
        labels = self.records.places.get(str(self.name(slot)))
        if labels is None or len(labels) != length:
            return None
        self.heeded.add(slot)
        return labels

    def along(self, slot: int, axis: int, places: Labels) -> Value:
        """Layout of an input that is read or written along an axis at such places: it is cut there as they are."""
        value = layout.fuse(self.relations, self.value(slot), axis)
        for digit in value.axes[axis]:
            if digit.labels is None:
                self.relations.pins.append(Pin(self.index, places, self.met_free(), weak=False))
            else:
                self.relations.tie(digit.labels, places)
        self.values[str(self.name(slot))] = value
        return value

    def hand_on_places(self, *, moves: bool) -> None:
        """Places that the node only moves are places still; what else it makes of them holds what they count."""
        for slot in self.given():
            labels = self.records.places.get(str(self.name(slot)))
            if labels is None or slot in self.heeded:
                continue
            if moves and slot == 0:
                self.records.places |= {str(v.name): labels for v in self.node.outputs if v.name}
            elif slot not in self.sizes_of(self.node):
                reason = f"has its place read by {self.node.op_type}"
                self.relations.pins.append(Pin(self.index, labels, reason, weak=False))

    def compete(self, slot: int, axis: int, least: int) -> None:
        """State that the entries of an input compete along an axis (see :class:`Contest`) of which some must stay."""
        name = str(self.name(slot))
        self.values[name] = value = layout.fuse(self.relations, self.value(slot), axis)
        for digit in value.axes[axis]:
            if digit.labels is not None and self._masks_at_run_time():
                self._hold_unmaskable(name, value, [axis])
                cells = in_rows(value.digits, digit, digit.labels)
                self.relations.grids.append(Grid(self.index, cells, row_atoms(value.digits, digit), least))
                self.records.contests.append(Contest(self.index, slot, value, (axis,), least))

    def work(
        self, space: Mapping[str, Axis], sizes: Mapping[str, int], factor: int = 1, within: Iterable[str] = ()
    ) -> None:
        """State multiply-accumulates: the product over all letters, times a factor.

        Args:
            space: Digits by letter.
            sizes: Nominal size by letter.
            factor: What is not a letter (kernel and output positions).
            within: Letters that are no factors, and that others may depend on (:class:`Term`).
        """
        rest = tuple(d for letter in within for d in space[letter])
        space = {letter: axis for letter, axis in space.items() if letter not in within}
        coefficient = factor
        for letter, axis in space.items():
            labelled = math.prod(d.size for d in axis if d.labels is not None)
            coefficient *= sizes.get(letter, 1) // labelled
        digits = tuple(d for axis in space.values() for d in axis)
        self.records.terms.append(Term(self.index, coefficient, digits, rest))

    def fixed_work(self, macs: int) -> None:
        """State multiply-accumulates that no plan changes."""
        self.records.terms.append(Term(self.index, macs, ()))

    def patch(self, make: Callable[[Cut], Mapping[Slot, Any]]) -> None:
        """State how the node changes with a plan."""
        self.records.patches.append(Patch(self.index, make))


def _parts(shape: Sequence[int], view: Sequence[int]) -> list[int]:
    """How many axes of a view make up each axis of a tensor."""
    parts, rest = [], list(view)
    for size in shape:
        count, product = 0, 1
        while rest and (count == 0 or product < size):
            product *= rest.pop(0)
            count += 1
        parts.append(count)
    parts[-1] += len(rest)
    return parts


def _unview(value: Value, parts: Sequence[int]) -> Value:
    """Put the axes of a view back into the axes of the tensor."""
    if not parts:
        return value
    axes, end = [], 0
    for count in parts:
        axes.append(tuple(d for axis in value.axes[end : end + count] for d in axis))
        end += count
    return Value(tuple(axes))


Rule = Callable[[NodeContext], None]
Axes = Callable[[NodeContext, int], Iterable[int]]  # the axes an operator works on, from its node and its input's rank
