"""What samples say about a model, gathered once and used for every target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxslim_learn.costs.activation_memory import peak
from onnxslim_learn.data.source import limited
from onnxslim_learn.quality.judgement import Samples
from onnxslim_learn.repair.least_squares import FULL, Effort
from onnxslim_learn.repair.sequential import LARGEST_BATCH, in_small_batches
from onnxslim_learn.repair.targets import divide
from onnxslim_learn.runtime.executor import IN_MEMORY, in_memory, on_disk
from onnxslim_learn.select import activation_statistics, predicted
from onnxslim_learn.select.sensitivity import Curves

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Feeds
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.data.batch import Batch
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.quality.metric import Metric
    from onnxslim_learn.select.ranking import Ranking


Range: TypeAlias = tuple[float, float]

FEW, TOPPED = 128, 256  # real samples below which made-up ones are added, and how many there are then
MOMENTS = 1 << 26  # bytes of moments that stay when widths are chosen
FLOWS, LEAST = 1 << 26, 4  # bytes of activations that flow at once in a batch, unless it has so few samples
CAREFUL = Effort((1e-3, 1e-2, 1e-1, 1.0), moments=False)
"""On made-up samples, which judge themselves too well: weights stay nearer to the plain ones, and no moment is met."""


@dataclass
class Calibration:
    """Samples of a model, and what was learnt from them so far.

    Attributes:
        coupling: The model.
        source: Where samples come from.
        samples: At most so many of them.
        work: Multiply-accumulates to spend on what each group's width is worth; 0 to narrow all groups alike, ``None``
            for as much as is usual (:mod:`onnxslim_learn.select.schedule`).
        seconds: After which no further measurement starts, or ``None``; 0 to narrow all groups alike.
        curves: What was measured for the last target.
        measured: Everything that was, by what it depends on.
        ranked: Rankings, by criterion and names of the groups that can be cut.
        workers: Where trials run: see :func:`onnxslim_learn.runtime.workers.trials`.
        extra: Made-up samples beside few real ones, never judged by; see :meth:`topped_up`.
        turned: The model in principal bases, and the samples of that, by whether streams are among them.
        influences: What an error in each contraction's output does to the model's outputs; see :meth:`influence`.
        metric: What decides between ways to share out a cut, and about a repair; divergence where there is none.
    """

    coupling: Coupling
    source: Source
    samples: int | None = None
    work: float | None = None
    seconds: float | None = None
    curves: Curves = field(default_factory=Curves)
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    ranked: dict[tuple[Any, ...], Ranking] = field(default_factory=dict)
    turned: dict[bool, Any] = field(default_factory=dict, repr=False)
    metric: Metric | None = None
    extra: Source | None = None
    workers: int | str | None = None
    influences: dict[str, float] | None = None

    def topped_up(self, make: Callable[[int, Range], Source]) -> Calibration:
        """Add made-up samples where there are fewer than 128 real ones of a single float input, in their range.

        Thirty samples may be fewer than a layer has weights: a small residual net at half of the MACs keeps 97.8 % with
        made-up ones beside 32, and 95.6 % without. A pretrained classifier of lines was 5 points worse with them beside
        96, so that they count where there is a need, and the repair with them stands where it does better on the real
        ones (:data:`onnxslim_learn.select.activation_statistics.AMPLE`, :meth:`Slimmed.repair`).

        Args:
            make: Makes so many samples up in a range.
        """
        count = self.count
        bounds = None if self.source.synthetic or count >= FEW else self._range()
        if bounds is not None:
            self.extra = make(TOPPED - count, bounds)
        return self

    def of(self, coupling: Coupling, pairs: list[activation_statistics.Inputs] | None = None) -> Calibration:
        """The same samples of the same model in other bases, where its contractions' inputs are ``pairs``."""
        other = replace(self, coupling=coupling, curves=Curves(), measured={}, ranked={}, turned={})
        other.__dict__.update({name: known for name, known in self.__dict__.items() if name in ("_batches", "more")})
        if pairs is not None:
            other.pairs = pairs
        return other

    def _range(self) -> Range | None:
        """The range of the numbers, if there is one input of them only."""
        arrays = [[batch.inputs[name] for batch in self._batches] for name in self._batches[0].inputs]
        if len(arrays) != 1 or arrays[0][0].dtype.kind != "f":
            return None
        low, high = min(float(a.min()) for a in arrays[0]), max(float(a.max()) for a in arrays[0])
        return (low, high) if low < high else None

    @cached_property
    def more(self) -> Sequence[Mapping[str, Any]]:
        """The inputs of the made-up samples beside the real ones."""
        return [] if self.extra is None else [batch.inputs for batch in self._small(self.extra.batches())]

    @property
    def effort(self) -> Effort:
        """How far a repair on these samples may go."""
        return CAREFUL if self.source.synthetic else FULL

    @cached_property
    def _batches(self) -> list[Batch]:
        return self._small(self.source.batches(self.samples))

    def _small(self, batches: Iterable[Batch]) -> list[Batch]:
        """Samples in small batches; those that find no room in memory lie on disk."""
        stored = _stored(batches)
        return _stored(in_small_batches(stored, self.source.declared, self._together(stored)))

    def _together(self, batches: Sequence[Batch]) -> int:
        """How many samples go through the model together, by what flows at once."""
        shapes = self.coupling.graph.shapes.nominal.inputs.values()
        nominal = sum(math.prod(shape) for shape in shapes) * sum(batch.count for batch in batches)
        share = sum(array.size for batch in batches for array in batch.inputs.values()) / max(nominal, 1)
        flows = peak(self.coupling).value(np.ones(self.coupling.size)) * share
        return int(min(max(FLOWS // max(flows, 1.0), LEAST), LARGEST_BATCH))

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(batch.count for batch in self._batches)

    def some(self, count: int) -> tuple[Sequence[Mapping[str, Any]], list[Any]]:
        """Inputs and labels of the first samples, in batches so small that some can be held back."""
        if count >= self.count:
            return self.feeds, self.labels
        some, declared = limited(self._batches, self.source.declared, count), self.source.declared
        batches = in_small_batches(some, declared, self._batches[0].count)
        return [batch.inputs for batch in batches], [batch.labels for batch in batches]

    def first(self, count: int) -> Sequence[Mapping[str, Any]]:
        """The inputs of the first samples, in as few batches as they lie in."""
        return [batch.inputs for batch in limited(self._batches, self.source.declared, count)]

    @cached_property
    def feeds(self) -> Sequence[Mapping[str, Any]]:
        """The inputs of the samples, in small batches."""
        return [batch.inputs for batch in self._batches]

    @property
    def labels(self) -> list[Any]:
        """The labels of every batch, or ``None``."""
        return [batch.labels for batch in self._batches]

    @property
    def held(self) -> Samples:
        """The samples that repair does not fit on; of a single batch, that one."""
        fitted, chosen = divide(len(self.feeds))
        feeds, labels = [self.feeds[k] for k in chosen], [self.labels[k] for k in chosen]
        count, apart = sum(self._batches[k].count for k in fitted), not set(fitted) & set(chosen)
        source = self.source
        return Samples(source.name, feeds, labels, source.synthetic, source.doubts, source.cure, count, apart)

    def divided(self) -> tuple[Source, Source]:
        """The samples that repair fits on, and those that it does not, as sources."""
        fitted, held = (self._part(chosen) for chosen in divide(len(self._batches)))
        return fitted, held

    def _part(self, chosen: Sequence[int]) -> Source:
        batches = [self._batches[k] for k in chosen]
        count = sum(batch.count for batch in batches)
        return replace(self.source, count=count, stream=lambda: iter(batches), pick=None)

    @cached_property
    def pairs(self) -> list[activation_statistics.Inputs]:
        """Means and products of pairs of all contractions' inputs."""
        return activation_statistics.collect(self.coupling, self.feeds, beside=self.more, pairs=True)

    @cached_property
    def squares(self) -> list[activation_statistics.Inputs]:
        """Means and squares of all contractions' inputs."""
        return activation_statistics.collect(self.coupling, self.feeds, beside=self.more)

    def let_go(self) -> None:
        """Drop moments that take much memory; whoever asks for them again has them summed up again."""
        if sum(inputs.products.nbytes + inputs.weights.nbytes for inputs in self.__dict__.get("pairs", ())) > MOMENTS:
            del self.pairs

    def influence(self, feeds: Sequence[Feeds]) -> dict[str, float]:
        """What an error in each contraction's output does to the model's outputs, found once, on some samples."""
        if self.influences is None and not len(feeds):
            return {}
        if self.influences is None:
            names = list(dict.fromkeys(inputs.output for inputs in self.pairs))
            self.influences = predicted.influences(self.coupling, names, feeds)
        return self.influences


def _stored(batches: Iterable[Batch]) -> list[Batch]:
    """Batches as they come; from where there is no room in memory on, in files."""
    room = IN_MEMORY
    stored: list[Batch] = []
    for batch in batches:
        room -= sum(map(in_memory, batch.inputs.values()))
        inputs = batch.inputs if room >= 0 else {name: on_disk(array) for name, array in batch.inputs.items()}
        stored.append(replace(batch, inputs=inputs))
    return stored
