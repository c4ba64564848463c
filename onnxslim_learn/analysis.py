"""A model understood: its graph, what is coupled, which groups can be decided on, and what everything costs."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.costs.activation_memory import Peak, peak
from onnxslim_learn.costs.roofline import Timed, roofline
from onnxslim_learn.coupling import groups as grouping
from onnxslim_learn.coupling import selection
from onnxslim_learn.coupling.branches import foresee
from onnxslim_learn.coupling.groups import Group
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.coupling.solver import Coupling, couple
from onnxslim_learn.coupling.titles import Title, block_title, titles
from onnxslim_learn.data import input_needs
from onnxslim_learn.errors import InputError, MisfitError, PlanError, TooLargeError
from onnxslim_learn.graph import size_search, well_formed
from onnxslim_learn.graph.load import Graph
from onnxslim_learn.graph.stored_types import as_stored
from onnxslim_learn.registry import COSTS
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx

    from onnxslim_learn.costs.devices import Device
    from onnxslim_learn.costs.polynomial import Cost, Priced
    from onnxslim_learn.coupling.residual import Block
    from onnxslim_learn.registry import CostRow


SETTLED = 3  # dimensions that weights fix, though the file leaves them open, of one model


@dataclass(frozen=True)
class Analysis:
    """A model understood: its graph, what is coupled, the groups that can be decided on, and what everything costs.

    Attributes:
        graph: The model in normal form.
        coupling: The solved coupling.
        groups: All groups, those that cannot go with the reason.
        sensitive: Whether normalised axes may be cut.
        latency: Time of a run in microseconds, where there is a device: see :mod:`onnxslim_learn.costs.roofline`.
        asked: The costs that were asked for, by name, which are told from then on: see :meth:`priced`.
        bases: Space -> rotation, where the graph is in other bases than its file (:mod:`onnxslim_learn.bases`).
    """

    graph: Graph
    coupling: Coupling
    groups: tuple[Group, ...]
    sensitive: bool
    latency: Timed | None = None
    asked: dict[str, tuple[CostRow, Priced]] = field(default_factory=dict, repr=False, compare=False)
    bases: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        free = sum(group.pin is None for group in self.groups)
        price = ", ".join(f"{name} {number}" for name, number in self.price(self.whole).items())
        where = self.graph.source or "in memory"
        return (
            f"<Analysis of {where}: {len(self.graph.nodes)} nodes, {free} of {len(self.groups)} groups free; {price}>"
        )

    def priced(self, value: str | Callable[..., Any], parameter: str = "") -> tuple[CostRow, Priced]:
        """A cost of the whole model, and how it is told: see :data:`onnxslim_learn.registry.COSTS`.

        Args:
            value: A name, a function of a coupling, or ``module:function``.
            parameter: What it was given for.

        Raises:
            InputError: If there is no such cost, or it needs a device and none was given.
        """
        known = self.asked.get(value) if isinstance(value, str) else None
        row = known[0] if known else COSTS.row(value, parameter)
        if row.device:
            if self.latency is None:
                asked = f"{parameter or COSTS.parameter} {row.name}"
                raise InputError(f"{asked}: needs a device. Give one to analyze, or measure this machine (calibrate).")
            return row, self.latency
        if row.name not in self.asked:
            self.asked[row.name] = row, COSTS.load(value, parameter)(self.coupling)
        return self.asked[row.name]

    def cost(self, value: str | Callable[..., Any], parameter: str = "") -> Priced:
        """A cost of the whole model; see :meth:`priced`."""
        return self.priced(value, parameter)[1]

    def asked_like(self, other: Analysis) -> Analysis:
        """The same analysis, of which the costs are told that another tells."""
        self.asked.update((row.name, (row, row.load()(self.coupling))) for row in other.counted)
        return self

    @property
    def counted(self) -> list[CostRow]:
        """The costs that are told: those that always are, then users' own that were asked for."""
        always = [row for row in COSTS.values() if row.counted]
        return always + [row for row, _ in self.asked.values() if row.counted and row not in always]

    @property
    def costs(self) -> dict[str, Cost]:
        """The costs that are told, by name; ``macs``, ``params`` and ``bytes`` (of the weights) among them."""
        return {row.name: cast("Cost", self.cost(row.name)) for row in self.counted}

    @cached_property
    def memory(self) -> Peak:
        """Peak memory of activations, bytes."""
        return peak(self.coupling)

    @cached_property
    def whole(self) -> Removal:
        """The removal of nothing."""
        return Removal(self.coupling, np.zeros(self.coupling.size, bool))

    @cached_property
    def titles(self) -> dict[str, Title]:
        """What every group is called beside its name: role and place in words."""
        return titles(self.coupling, self.groups)

    @cached_property
    def block_titles(self) -> dict[str, Title]:
        """What every residual block is called beside its name."""
        return {block.name: block_title(self.coupling, block) for block in self.coupling.blocks}

    def free_groups(self, protect: Sequence[str] = (), only: Sequence[str] = ()) -> list[Group]:
        """The groups, pinned where they are protected or not among those that are meant.

        Args:
            protect: Regular expressions; groups of which they find anything stay whole.
            only: Regular expressions; all groups but those that they name stay whole.

        Raises:
            InputError: If a pattern is invalid or finds nothing.
        """
        beside = self.block_titles.values()
        chosen = selection.only(self.groups, self.titles, only, beside)
        return selection.protected(chosen, self.titles, protect, beside)

    def free_blocks(self, protect: Sequence[str] = (), only: Sequence[str] = ()) -> list[Block]:
        """The residual blocks that can go: of those that ``only`` names, if it names some, those not protected."""
        able = [block for block in self.coupling.blocks if not block.pin]
        return selection.blocks(able, self.block_titles, protect, only)

    @property
    def opaque(self) -> dict[str, int]:
        """Operators without a rule -> number of nodes; what they touch is pinned."""
        return dict(self.coupling.records.opaque)

    def price(self, cut: Removal) -> dict[str, int]:
        """What is told of costs, by name; what is counted one by one is whole."""
        external = self.graph.external  # too large for one message, perhaps
        if foresee(cut).dead or cut.dropped:  # what is left of a dead branch are constants: count the result
            with tempfile.TemporaryDirectory(prefix=atomic.PREFIX) as folder:
                left: Any = save.staged(slim(cut), "left.onnx", Path(folder), external=True) if external else None
                left = left or ir.to_proto(as_stored(slim(cut)))
                slimmed = analyze(left, inputs=self.graph.shapes.nominal.inputs, values=self.graph.values)
                return slimmed.asked_like(self).price(slimmed.whole)
        alive = (~cut.gone).astype(float)
        prices = {row.name: self.cost(row.name).value(alive) for row in self.counted}
        return {row.name: round(prices[row.name]) if row.whole else prices[row.name] for row in self.counted}  # type: ignore[misc]

    def block(self, name: str) -> Block:
        """A residual block that can go, by name.

        Raises:
            PlanError: If there is none, or it cannot go.
        """
        known = next((block for block in self.coupling.blocks if block.name == name), None)
        if known is None:
            raise PlanError(f"block {name}: the model has no such residual block. Run analyze to see their names.")
        if known.pin:
            raise PlanError(f"block {name}: cannot go, because it {known.pin}. Leave it out.")
        return known

    def group(self, name: str) -> Group:
        """A group by name.

        Raises:
            PlanError: If there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise PlanError(f"group {name}: the model has no such group. Run analyze to see their names.")


def analyze_alike(path: Path, analysis: Analysis) -> Analysis:
    """Another file of a model, analysed as it was: at the same sizes and values, for the same device.

    Raises:
        InputError: If it cannot be used.
    """
    graph, device = analysis.graph, None if analysis.latency is None else analysis.latency.device
    shapes, sensitive = graph.shapes.nominal.inputs, analysis.sensitive
    return analyze(path, inputs=shapes, values=graph.values, allow_sensitive=sensitive, device=device)


def analyze(
    model: str | Path | onnx.ModelProto,
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, Any] | None = None,
    allow_sensitive: bool = False,
    device: Device | None = None,
) -> Analysis:
    """Understand a model: load it, find what is coupled, and why what cannot go cannot.

    Args:
        model: Path of an ``.onnx`` file, or a model in memory.
        inputs: Graph input -> shape at which costs and latency are counted, where the file leaves dimensions open.
        values: Graph input -> its value (``{"sr": 16000}``), where it chooses a branch or a size.
        allow_sensitive: Also allow cutting axes that are normalised over; results are then not exact.
        device: A machine to estimate latency for (:mod:`onnxslim_learn.costs.devices`).

    Raises:
        InputError: If the model cannot be used.
    """
    known = {"inputs": inputs or {}, "values": values or {}}
    with well_formed.blame(model):
        graph, coupling = _coupled(model, known, {}, sensitive=allow_sensitive)
        groups = grouping.decidable(coupling, grouping.find(coupling))
    latency = None if device is None else roofline(coupling, device)
    return Analysis(graph, coupling, tuple(groups), allow_sensitive, latency)


def _coupled(
    model: str | Path | onnx.ModelProto,
    known: Mapping[str, Any],
    settled: Mapping[str, int],
    *,
    sensitive: bool,
) -> tuple[Graph, Coupling]:
    """A model and its coupling, with the sizes of open dimensions at which its weights fit."""
    graph = load(model, settled=settled, **known)
    try:
        coupling = couple(graph, sensitive=sensitive)
        input_needs.settle(coupling)
        return graph, coupling
    except TooLargeError as error:
        before = known.get("longest", {})
        longest = {**before, **{key: min(size, before.get(key, size)) for key, size in error.longest.items()}}
        if longest != before:
            with suppress(InputError):
                return _coupled(model, {**known, "longest": longest}, settled, sensitive=sensitive)
        raise
    except MisfitError as error:
        changes = size_search.alternatives(graph.model, graph.shapes, error, known["inputs"], settled)
        for change in changes if len(settled) < SETTLED else ():
            with suppress(InputError):
                return _coupled(model, known, {**settled, **change}, sensitive=sensitive)
        raise
