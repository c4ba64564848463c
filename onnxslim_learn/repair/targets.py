"""What the original puts out where a slimmed model is refitted: followed as it runs, or recorded once for many cuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from onnxslim_learn.array_types import Array, Feeds, sample_count
from onnxslim_learn.errors import PlanError
from onnxslim_learn.repair.linear_nodes import Linear, linears
from onnxslim_learn.repair.places import Places, sample
from onnxslim_learn.rewrite.unfuse import unfuse
from onnxslim_learn.runtime.executor import Runner, joined, outputs, streamed
from onnxslim_learn.runtime.left_out import LeftOut, left_out

if TYPE_CHECKING:
    import onnx_ir as ir


AHEAD = 1 << 27  # bytes of rows of targets that are taken at once
MANY, LEAST = 256, 0.125  # unknowns that all rows are for; fewer get fewer rows, in proportion, but this share
HELD_BACK = 4  # one batch of so many decides and is not fitted on


class Targets(Protocol):
    """What the original does on some batches.

    Attributes:
        feeds: The batches.
        fitted: Numbers of those to fit on.
        held: Numbers of those held back.
        judged: Numbers of those whose outputs are compared.
        samples: How many samples all batches hold.
        left_out: Places that nothing is fitted to, and that are zero in outputs.
    """

    feeds: Sequence[Feeds]
    fitted: list[int]
    held: list[int]
    judged: list[int]
    samples: int
    left_out: LeftOut

    def expect(self, wanted: Sequence[Wanted]) -> None:
        """Say what :meth:`rows` will be asked for."""

    def rows(self, linear: Linear, batch: int, count: int) -> Places:
        """The original's target at random places of a batch; about ``count`` of them."""

    def outputs(self) -> dict[str, Array]:
        """The original's outputs on the batches that are judged, by name."""


def share(unknowns: int) -> float:
    """The share of the rows of a regression that one with so many unknowns gets."""
    return min(max(unknowns / MANY, LEAST), 1.0)


def divide(batches: int, every: int = HELD_BACK) -> tuple[list[int], list[int]]:
    """Which batches are fitted on and which are held back: every so many, the last one at least."""
    held = list(range(every - 1, batches, every)) or [batches - 1]
    return [k for k in range(batches) if k not in held] or held, held


@dataclass(frozen=True)
class Wanted:
    """What will be asked for.

    Attributes:
        linear: The node.
        fitted: At how many places of each batch that is fitted on.
        held: Of each that is held back.
        width: How many channels its target has.
    """

    linear: Linear
    fitted: int
    held: int
    width: int

    def places(self, batch: int, targets: Targets) -> int:
        """At how many places of a batch."""
        return max(self.fitted * (batch in targets.fitted), self.held * (batch in targets.held))


class Stream:
    """Targets taken from the original as it runs, a few nodes ahead of the slimmed model."""

    def __init__(self, original: ir.Model, feeds: Sequence[Feeds], seed: int = 0, more: Sequence[Feeds] = ()) -> None:
        """Start before the first node; batches of ``more`` are fitted on, too, and decide nothing."""
        fitted, self.held = divide(len(feeds))
        self.fitted = [*fitted, *range(len(feeds), len(feeds) + len(more))]
        self.feeds: Sequence[Feeds] = [*feeds, *more]
        self.seed = seed
        self.judged = self.held
        self.samples = sample_count(self.feeds)
        self._runner = Runner(unfuse(original), self.feeds, ())
        targets = {one.target for one in linears(self._runner.model)}
        self.left_out = left_out(self._runner.model, self.feeds, targets)
        self._waiting: list[list[Wanted]] = []  # by target, in the order of the model
        self._rows: dict[str, list[Places]] = {}
        self._readers: dict[str, int] = {}  # of a target, how many nodes are still to ask for it
        self._last: Linear | None = None

    def expect(self, wanted: Sequence[Wanted]) -> None:
        """See :class:`Targets`."""
        by_target: dict[str, list[Wanted]] = {}
        for one in wanted:
            by_target.setdefault(one.linear.target, []).append(one)
        self._readers = {name: len(several) for name, several in by_target.items()}
        self._waiting = [by_target[name] for name in sorted(by_target, key=lambda name: self._runner.place[name])]

    def rows(self, linear: Linear, batch: int, count: int) -> Places:
        """See :class:`Targets`; what one node was asked for is dropped when another is."""
        if self._last is not None and self._last is not linear:
            self._readers[self._last.target] -= 1
            if not self._readers[self._last.target]:
                del self._rows[self._last.target]
        self._last = linear
        while linear.target not in self._rows:
            self._go_on()
        return self._rows[linear.target][batch]

    def _go_on(self) -> None:
        """Run on, past as many targets as there is room for their rows."""
        ahead, size = dict[str, list[Wanted]](), 0
        while self._waiting:
            several = self._waiting[0]
            places = max(len(self.fitted) * one.fitted + len(self.held) * one.held for one in several)
            size += 4 * places * several[0].width
            if size > AHEAD and ahead:
                break
            ahead[several[0].linear.target] = self._waiting.pop(0)
        stop = 1 + max(self._runner.place[name] for name in ahead)
        for batch, values in self._runner.taken(stop, ahead):
            for name, array in values.items():
                count = max(one.places(batch, self) for one in ahead[name])
                channel = ahead[name][0].linear.form.channel
                counted = self.left_out.rows(name, batch, array.shape)
                self._rows.setdefault(name, []).append(sample(array, channel, (self.seed, batch), count, counted))

    def outputs(self) -> dict[str, Array]:
        """See :class:`Targets`."""
        runner = self._runner.fork(self.judged)
        runner.finish()
        return self.left_out.without(outputs(runner, range(len(self.judged))), self.judged)


class Record:
    """Targets of all nodes at a few places, recorded in one run, for many cuts of the same model."""

    def __init__(
        self, original: ir.Model, feeds: Sequence[Feeds], count: int, every: int = 2, *, whole: bool = False
    ) -> None:
        """Run the original.

        Args:
            original: The model.
            feeds: Batches of inputs.
            count: Places per node and batch, of nodes with many weights.
            every: One batch of so many is held back.
            whole: Whether all batches are judged, those fitted on as well: of cuts that differ little, twice as many
                samples tell the better one more surely, and each was fitted alike.
        """
        self.feeds = feeds
        self.fitted, self.held = divide(len(feeds), every)
        self.judged = list(range(len(feeds))) if whole else self.held
        self.samples = sample_count(self.feeds)
        self._rows: dict[str, list[Places]] = {}
        original = unfuse(original)
        seen = {one.target: (one.form.channel, share(one.form.shape[1])) for one in linears(original)}
        ends = [str(value.name) for value in original.graph.outputs]
        judged: dict[str, list[Array]] = {name: [] for name in ends}
        self.left_out = left_out(original, feeds, seen)
        for batch, values in streamed(original, feeds, {*seen, *ends}):
            for name, array in values.items():
                if name in seen:
                    channel, part = seen[name]
                    counted = self.left_out.rows(name, batch, array.shape)
                    places = sample(array, channel, (0, batch), math.ceil(part * count), counted)
                    self._rows.setdefault(name, []).append(places)
                if name in judged and batch in self.judged:
                    judged[name].append(array)
        counts = [sample_count([feeds[k]]) for k in self.judged]
        self._outputs = self.left_out.without(joined(judged, counts), self.judged)

    def expect(self, wanted: Sequence[Wanted]) -> None:
        """See :class:`Targets`; all are recorded."""

    def rows(self, linear: Linear, batch: int, count: int) -> Places:
        """See :class:`Targets`."""
        if linear.target not in self._rows:
            raise PlanError("the original's target was not recorded")
        return self._rows[linear.target][batch]

    def outputs(self) -> dict[str, Array]:
        """See :class:`Targets`."""
        return self._outputs
