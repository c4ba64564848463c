"""What every group loses at every width: measured one group at a time, after repair, on samples not fitted on.

Of one group some units go, all layers after it are refitted, and the outputs are compared with the original's.
Few widths are measured; in between the square root of the loss, which grows about evenly with what goes, is
interpolated. What groups lose that were not measured is predicted (:mod:`onnxslim_learn.select.predicted`), and
corrected by what was measured of others (:class:`Law`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from onnxslim_learn import metrics
from onnxslim_learn.array_types import Array, Labels, Mask, Progress
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.quality.channels import channels
from onnxslim_learn.repair.least_squares import QUICK
from onnxslim_learn.repair.sequential import SequentialRepair
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.rewrite import stretches
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.rewrite.unfuse import unfuse
from onnxslim_learn.runtime.executor import Runner, common, outputs
from onnxslim_learn.runtime.session import FAITHFUL
from onnxslim_learn.runtime.workers import trials

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.quality.metric import Metric
    from onnxslim_learn.select.budget import Choice


K = TypeVar("K")
T = TypeVar("T")

SMALL_SPREAD = 1e-6  # of logarithms: points at one share tell no power
TINY = 1e-300
STEEP = 2.0  # power by which the root of the loss grows below the narrowest width measured
POWERS = 0.5, 3.0  # least and largest power of what is predicted that losses grow with


@dataclass(frozen=True)
class Law:
    """Measured losses by those that are predicted: ``scale * predicted ** power``."""

    scale: float = 1.0
    power: float = 1.0

    @classmethod
    def of(cls, predicted: Array, losses: Array) -> Law:
        """The least squares of logarithms, in a range of powers; without points, or with one, losses in proportion."""
        known = (predicted > 0) & (losses > 0)
        if not known.any():
            return cls()
        x, y = np.log(predicted[known]), np.log(losses[known])
        spread = float(((x - x.mean()) ** 2).sum())
        power = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > SMALL_SPREAD else 1.0
        power = min(max(power, POWERS[0]), POWERS[1])
        return cls(float(np.exp(y.mean() - power * x.mean())), power)

    def __call__(self, predicted: Array) -> Array:
        """The losses to be expected."""
        losses: Array = self.scale * predicted**self.power
        return losses


@dataclass(frozen=True)
class Curves:
    """Measured losses.

    Attributes:
        points: Group name -> number of units kept -> loss.
        samples: Samples used, those fitted on included.
        fresh: How many of the points were measured now; the others were known.
    """

    points: dict[str, dict[int, float]] = field(default_factory=dict)
    samples: int = 0
    fresh: int = 0

    def curves(self, choices: Sequence[Choice], predict: Callable[[], Sequence[Array]]) -> list[Array]:
        """The loss at every allowed width of every choice: as measured, else as predicted, by the law of the measured.

        Args:
            choices: The groups.
            predict: Predicts the losses at every allowed width of each (:mod:`onnxslim_learn.select.predicted`).
        """
        if all(choice.group.name in self.points for choice in choices):
            return [self.curve(choice) for choice in choices]
        predicted = [np.maximum.accumulate(losses[::-1])[::-1] for losses in predict()]
        pairs = [
            (losses[choice.kept.index(kept)], lost)
            for choice, losses in zip(choices, predicted, strict=True)
            for kept, lost in self.points.get(choice.group.name, {}).items()
        ]
        law = Law.of(*np.array(pairs, float).reshape(-1, 2).T)
        return [
            self.curve(choice) if choice.group.name in self.points else law(losses)
            for choice, losses in zip(choices, predicted, strict=True)
        ]

    def curve(self, choice: Choice) -> Array:
        """The loss at every allowed width of a choice that was measured."""
        points = {**self.points[choice.group.name], choice.group.width: 0.0}
        widths = np.array(sorted(points))
        roots = np.sqrt([max(points[w], 0.0) for w in widths])
        roots = np.maximum.accumulate(roots[::-1])[::-1]
        kept = np.array(choice.kept, float)
        interpolated = np.interp(kept, widths, roots)
        below = kept < widths[0]
        interpolated[below] = roots[0] * (widths[0] / np.maximum(kept[below], 0.5)) ** STEEP
        result: Array = interpolated**2
        return result


class Bench:
    """Where cuts of one model are tried, in this process or in others.

    The original runs up to where the next cut begins, once for all that begin there or later.
    """

    def __init__(
        self, coupling: Coupling, record: Record, metric: Metric | None = None, labels: Sequence[Any] = ()
    ) -> None:
        """Set up.

        Args:
            coupling: The model.
            record: What it does on some batches of inputs.
            metric: What outputs are judged by before distances to the original's are.
            labels: Of every batch.
        """
        self.coupling, self.record, self.metric, self.labels = coupling, record, metric, labels
        self._begin()

    def _begin(self) -> None:
        self._lock, self._whole = Lock(), unfuse(self.coupling.graph.model)
        self._trunk = self._root()

    def _root(self) -> Runner:
        """The original, not yet run; whichever trial is first, it puts out the same."""
        root = Runner(self._whole, self.record.feeds, (), threads=1)
        root.optimize = False
        return root

    def __getstate__(self) -> dict[str, Any]:
        self.coupling.graph.release()
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def loss(self, gone: Mask, merged_into: Labels | None) -> float:
        """See :func:`loss`."""
        cut = Removal(self.coupling, gone, merged_into)
        slimmed = unfuse(slim(cut))
        with self._lock:
            alike = common(self._whole, slimmed)
            if alike < self._trunk.position:
                self._trunk = self._root()
            self._trunk.run_to(alike)
            runner = self._trunk.branch(slimmed)
        if runner is not None:
            runner.optimize = FAITHFUL
        return loss(cut, slimmed, self.record, runner)

    def trial(self, gone: Mask, merged_into: Labels | None) -> tuple[float, ...]:
        """What is lost after a quick repair of everything: by the metric, if there is one, then by divergence."""
        cut = Removal(self.coupling, gone, merged_into)
        outputs = repaired(cut, slim(cut), self.record)
        lost = metrics.loss(self.record.outputs(), outputs, channels(self.coupling))
        labels = [self.labels[k] for k in self.record.judged] if self.metric is not None else []
        return (lost,) if self.metric is None else (self.metric.lost(outputs, labels), lost)

    def tried(self, candidates: Mapping[K, Removal], place: int | str | None = None) -> dict[K, tuple[float, ...]]:
        """What every cut loses (:meth:`trial`), by name."""
        jobs = ((name, (cut.gone, cut.merged_into)) for name, cut in candidates.items())
        return dict(trials(Bench.trial, self, jobs, place))


def measure(
    bench: Bench,
    points: Sequence[tuple[T, int]],
    removal: Callable[[T, int], Removal],
    *,
    place: int | str | None = None,
    seconds: float | None = None,
    keep: Callable[[T, int, float], None] = lambda choice, kept, loss: None,
    progress: Progress = lambda share: None,
) -> None:
    """Measure losses.

    Args:
        bench: The model, and what it does on some batches of inputs, half of them held back.
        points: What is measured: a group, with the order in which its units go, and how many of them are kept; or a
            residual block, and 0.
        removal: What goes when a choice keeps so many units.
        place: Where: see :func:`onnxslim_learn.runtime.workers.trials`.
        seconds: After which no further measurement starts; ``None`` for all.
        keep: Called with every point measured.
        progress: Called with the share done.
    """
    start = perf_counter()

    def jobs() -> Iterator[tuple[tuple[T, int], tuple[Mask, Labels | None]]]:
        for choice, kept in points:
            if seconds is not None and perf_counter() - start > seconds:
                return
            cut = removal(choice, kept)
            yield (choice, kept), (cut.gone, cut.merged_into)

    for number, ((choice, kept), lost) in enumerate(trials(Bench.loss, bench, jobs(), place)):
        keep(choice, kept, lost)
        progress((number + 1) / len(points))


def loss(cut: Removal, slimmed: ir.Model, record: Record, runner: Runner | None = None) -> float:
    """How far outputs are from the original's when what is cut is cut and everything after it is repaired.

    Repaired like that, losses of groups add up as long as none is cut to the bone: on a residual net of twelve groups
    their sum was within a tenth of the loss of all cuts together. Where only direct consumers are refitted it is not.

    Args:
        cut: What is cut.
        slimmed: The model without it and without fused nodes; its weights are repaired in place.
        record: What the original does.
        runner: The slimmed model, if it has run up to what is cut; else one of one thread.
    """
    return metrics.loss(record.outputs(), repaired(cut, slimmed, record, runner), channels(cut.coupling))


def repaired(cut: Removal, slimmed: ir.Model, record: Record, runner: Runner | None = None) -> dict[str, Array]:
    """The outputs by name, on the batches that are judged, when what is cut is cut and all is repaired; see above.

    Large models are run as they are: a repair takes much longer than that.
    """
    slimmed = unfuse(slimmed)
    runner = runner or Runner(slimmed, record.feeds, (), threads=1)
    if stretches.weight_bytes(cut.coupling) > stretches.LARGEST:
        runner = runner.fork(record.judged)
        runner.finish()
        return record.left_out.without(outputs(runner, range(len(record.judged))), record.judged)
    walk = SequentialRepair(cut, slimmed, record, QUICK, runner)
    walk.go()
    return walk.outputs()
