"""What the original puts out where a slimmed model is refitted: followed as it runs, or recorded once for many cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from onnxslim_learn.array_types import Array, Feeds, sample_count
from onnxslim_learn.errors import PlanError
from onnxslim_learn.repair.linear_nodes import Linear, linears
from onnxslim_learn.repair.places import Places, sample
from onnxslim_learn.rewrite.unfuse import unfuse
from onnxslim_learn.runtime.executor import Runner, outputs

if TYPE_CHECKING:
    import onnx_ir as ir


HELD_BACK = 4  # one batch of so many decides and is not fitted on


class Targets(Protocol):
    """What the original does on some batches.

    Attributes:
        feeds: The batches.
        fitted: Numbers of those to fit on.
        held: Numbers of those held back.
        judged: Numbers of those whose outputs are compared.
        samples: How many samples all batches hold.
    """

    feeds: Sequence[Feeds]
    fitted: list[int]
    held: list[int]
    judged: list[int]
    samples: int

    def expect(self, names: Sequence[str]) -> None:
        """Say for which values, by name, :meth:`rows` will be asked."""

    def rows(self, linear: Linear, batch: int, count: int) -> Places:
        """The original's target at random places of a batch; about ``count`` of them."""

    def outputs(self) -> dict[str, Array]:
        """The original's outputs on the batches that are judged, by name."""


def divide(batches: int, every: int = HELD_BACK) -> tuple[list[int], list[int]]:
    """Which batches are fitted on and which are held back: every so many, the last one at least."""
    held = list(range(every - 1, batches, every)) or [batches - 1]
    return [k for k in range(batches) if k not in held] or held, held


class Stream:
    """Targets taken from the original as it runs in step with the slimmed model."""

    def __init__(self, original: ir.Model, feeds: Sequence[Feeds], seed: int = 0, more: Sequence[Feeds] = ()) -> None:
        """Start before the first node; batches of ``more`` are fitted on, too, and decide nothing."""
        fitted, self.held = divide(len(feeds))
        self.fitted = [*fitted, *range(len(feeds), len(feeds) + len(more))]
        self.feeds: Sequence[Feeds] = [*feeds, *more]
        self.seed = seed
        self.judged = self.held
        self.samples = sample_count(self.feeds)
        self._runner = Runner(unfuse(original), self.feeds, ())
        self._last = ""

    def expect(self, names: Sequence[str]) -> None:
        """See :class:`Targets`."""
        self._runner.kept.update(names)

    def rows(self, linear: Linear, batch: int, count: int) -> Places:
        """See :class:`Targets`; what one node was asked for is dropped when another is."""
        if linear.target != self._last:
            self._runner.drop(self._last)
            self._runner.run_past(linear.target)
            self._last = linear.target
        return sample(self._runner.get(linear.target)[batch], linear.form.channel, (self.seed, batch), count)

    def outputs(self) -> dict[str, Array]:
        """See :class:`Targets`."""
        runner = self._runner.fork(self.judged)
        runner.finish()
        return outputs(runner, range(len(self.judged)))


class Record:
    """Targets of all nodes at a few places, recorded in one run, for many cuts of the same model."""

    def __init__(
        self, original: ir.Model, feeds: Sequence[Feeds], count: int, every: int = 2, *, whole: bool = False
    ) -> None:
        """Run the original.

        Args:
            original: The model.
            feeds: Batches of inputs.
            count: Places per node and batch.
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
        nodes_to_fit = linears(original)
        runner = Runner(original, feeds, {one.target for one in nodes_to_fit})
        for one in nodes_to_fit:
            runner.run_past(one.target)
            arrays = runner.get(one.target)
            self._rows[one.target] = [sample(a, one.form.channel, (0, k), count) for k, a in enumerate(arrays)]
        for one in nodes_to_fit:
            runner.drop(one.target)
        runner.finish()
        self._outputs = outputs(runner, self.judged)

    def expect(self, names: Sequence[str]) -> None:
        """See :class:`Targets`; all are recorded."""

    def rows(self, linear: Linear, batch: int, count: int) -> Places:
        """See :class:`Targets`."""
        if linear.target not in self._rows:
            raise PlanError("the original's target was not recorded")
        return self._rows[linear.target][batch]

    def outputs(self) -> dict[str, Array]:
        """See :class:`Targets`."""
        return self._outputs
