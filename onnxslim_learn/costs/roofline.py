"""Latency from what a device computes and moves in a second: per node the longer of the two, summed.

max(FLOPs / peak, bytes / bandwidth), as in MorphNet's latency regularizer (arXiv:1711.06798,
and the code published with it); here with the bytes of all tensors that a node reads and writes, and with what every
call takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array, Labels
from onnxslim_learn.costs.polynomial import Cost, Priced, macs, polynomial
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.roles import Trait

if TYPE_CHECKING:
    from onnxslim_learn.costs.devices import Device
    from onnxslim_learn.coupling.relations import Digit
    from onnxslim_learn.coupling.solver import Coupling

IDLE = Trait.VIEW | Trait.MEASURES
"""Nodes whose output is their input under another shape, or its sizes: nothing is moved."""


@dataclass(frozen=True)
class Sides:
    """A latency in microseconds as data: ``fixed`` and ``rate`` times the sum, over parts, of their longest side.

    A side takes the time that its curve has at its work, a weighed sum of terms of costs.

    Attributes:
        fixed: Microseconds whatever goes.
        rate: Microseconds of a run for one that sides take.
        work: Costs, each with the side and the weight of all of its terms.
        part: The part of every side.
        curves: Of every side knots of work, ascending, and the times there; ``None`` where work is microseconds.
    """

    fixed: float
    rate: float
    work: tuple[tuple[Cost, Labels, Array], ...]
    part: Labels
    curves: tuple[tuple[Array, Array] | None, ...]


class Timed(Priced, Protocol):
    """A latency in microseconds on a device."""

    def sides(self) -> Sides:
        """The same as data."""

    @property
    def device(self) -> Device:
        """The machine."""

    @property
    def below(self) -> bool:
        """Whether it knows about widths below a step of the machine's kernels."""

    def by_node(self, alive: Array) -> dict[str, float]:
        """Microseconds by node; what belongs to none as ``""``."""


@dataclass(frozen=True)
class Roofline:
    """Latency of one run in microseconds.

    Attributes:
        device: The machine.
        coupling: The model.
        macs: Multiply-accumulates, owned by nodes.
        moved: Bytes read and written, owned by nodes.
        calls: One for every node that does anything.
        nodes: Names of all nodes that do anything.
        below: See :class:`Timed`.
    """

    device: Device
    coupling: Coupling
    macs: Cost
    moved: Cost
    calls: Cost
    nodes: tuple[str, ...]
    below: bool = True

    @cached_property
    def _places(self) -> tuple[Array, Array]:
        """Node of every term, of both costs."""
        index = {name: place for place, name in enumerate(self.nodes)}
        return tuple(np.array([index[o] for o in c.owners], np.int64) for c in (self.macs, self.moved))  # type: ignore[return-value]

    def _sides(self, alive: Array) -> tuple[Array, Array]:
        """Microseconds of every node for computing and for moving."""
        times = []
        for cost, places, rate in zip((self.macs, self.moved), self._places, self._rates, strict=True):
            times.append(np.bincount(places, cost.terms(alive), len(self.nodes)) * rate)
        return times[0], times[1]

    @property
    def _rates(self) -> tuple[float, float]:
        """Microseconds per multiply-accumulate and per byte."""
        return 2e-3 / self.device.gflops, 1e-3 / self.device.gbytes

    def value(self, alive: Array) -> float:
        """Latency in microseconds; ``alive`` is ``classes`` numbers in [0, 1]."""
        return float(sum(self.by_node(alive).values()))

    def sides(self) -> Sides:
        """Nodes that compute or move, whichever takes longer, and calls."""
        count = len(self.nodes)
        (macs_at, moved_at), each = self._places, np.arange(count)
        computing, moving = (np.full(len(at), rate) for at, rate in zip(self._places, self._rates, strict=True))
        calls = (self.calls, each + 2 * count, np.full(count, self.device.node_us))
        work = ((self.macs, macs_at, computing), (self.moved, moved_at + count, moving), calls)
        return Sides(self.device.run_us, 1.0, work, np.concatenate([each, each, each + count]), (None,) * (3 * count))

    def gradient(self, alive: Array) -> Array:
        """Derivative by every class's aliveness, shape ``(classes,)``: that of the side that takes longer."""
        computing, moving = self._sides(alive)
        longer, (macs_at, moved_at), rates = computing >= moving, self._places, self._rates
        slope = self.macs.gradient(alive, longer[macs_at] * rates[0])
        slope += self.moved.gradient(alive, ~longer[moved_at] * rates[1])
        result: Array = slope + self.calls.gradient(alive, self.device.node_us)
        return result

    def by_node(self, alive: Array) -> dict[str, float]:
        """Microseconds of every node, and of the run as ``""``."""
        longer = np.maximum(*self._sides(alive)) + self.device.node_us * self.calls.terms(alive)
        return {"": self.device.run_us, **dict(zip(self.nodes, longer.tolist(), strict=True))}


def roofline(coupling: Coupling, device: Device) -> Roofline:
    """The latency of a model on a device, at the nominal input sizes."""
    moved = polynomial("moved", coupling, _moved(coupling))
    work = macs(coupling)
    named = {*work.owners, *moved.owners}
    doing = [index for index, node in enumerate(coupling.nodes) if str(node.name) in named]
    nodes = tuple(str(coupling.nodes[index].name) for index in doing)
    calls = polynomial(
        "calls", coupling, ((name, 1, coupling.present([k])) for name, k in zip(nodes, doing, strict=True))
    )
    return Roofline(device, coupling, work, moved, calls, nodes)


def volume(coupling: Coupling, name: str) -> tuple[int, Sequence[Digit]]:
    """Bytes of a value per product of the widths of its digits, and these digits, at the nominal sizes."""
    sample = coupling.graph.shapes.nominal
    known = coupling.graph.initializers.get(name)
    if known is not None and known.const_value is not None:
        shape, bits = tuple(known.const_value.shape.numpy()), known.const_value.dtype.bitwidth
    else:
        shape, bits = sample.shape[name], ir.DataType(sample.dtype[name]).bitwidth
    layout = coupling.values.get(name)
    digits = list(layout.digits.values()) if layout is not None and len(layout.axes) == len(shape) else []
    labelled = math.prod(d.size for d in digits if d.labels is not None)
    return math.prod(shape) * bits // 8 // labelled, digits


def _moved(coupling: Coupling) -> Iterable[tuple[str, int, Sequence[Digit]]]:
    """Bytes that every node reads and writes."""
    for index, node in enumerate(coupling.nodes):
        if roles.has(node, IDLE):
            continue
        present = coupling.present([index])
        outputs = [value for value in node.outputs if value.name]
        read: list[Any] = [value for value in node.inputs if value is not None and value.name]
        if roles.has(node, Trait.PICKS):
            read[:1] = outputs
        for value in (*read, *outputs):
            if known(coupling, str(value.name)):
                each, digits = volume(coupling, str(value.name))
                yield str(node.name), each, (*digits, *present)


def known(coupling: Coupling, name: str) -> bool:
    """Whether a value's size is known: an initializer's, or that of a tensor of numbers."""
    value = coupling.graph.initializers.get(name)
    if value is not None and value.const_value is not None:
        return value.const_value.dtype != ir.DataType.STRING
    sample = coupling.graph.shapes.nominal
    return name in sample.shape and sample.dtype.get(name) not in (None, 0, int(ir.DataType.STRING))
