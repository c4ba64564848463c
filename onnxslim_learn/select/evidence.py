"""What samples say about a model, gathered once and used for every target."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.repair.fit import FULL, Effort
from onnxslim_learn.repair.walk import small_batches
from onnxslim_learn.select import statistics
from onnxslim_learn.select.sensitivity import Curves

if TYPE_CHECKING:
    from onnxslim_learn.data.options import Options
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.graph.coupling import Coupling

Progress = Callable[[float], None]


WORK = 2e11  # multiply-accumulates of made-up samples: some ten seconds on two cores
MATCHED = 2e10  # the same, up to which they are matched to stored statistics: about a minute
FEWEST, MOST = 32, 512
CAREFUL = Effort((1e-2, 1e-1, 1.0))  # made-up samples judge themselves too well: weights stay nearer to the plain ones


def affordable(macs: int) -> int:
    """How many made-up samples to use for a model of so many multiply-accumulates a sample."""
    return int(min(max(WORK / max(macs, 1), FEWEST), MOST))


def made_up(coupling: Coupling, options: Options, macs: int, progress: Progress = lambda share: None) -> Source:
    """Samples where there are none: noise, matched to stored statistics where the model has any and torch is there.

    Args:
        coupling: The model.
        options: How many, and their range.
        macs: Multiply-accumulates of one sample; matching is left out where it would take minutes.
        progress: Called with the share of the matching done.
    """
    if importlib.util.find_spec("torch") is not None and options.samples * macs < MATCHED:
        from onnxslim_learn.train import matched

        if matched.normalisations(coupling.graph):
            return matched.matched(coupling, options, progress=progress)
    return synthetic(coupling, options)


@dataclass
class Evidence:
    """Samples of a model, and what was learnt from them so far.

    Attributes:
        coupling: The model.
        source: Where samples come from.
        samples: At most so many of them.
        seconds: Time for measuring what each group's width is worth; 0 to narrow all groups alike.
        curves: What was measured.
    """

    coupling: Coupling
    source: Source
    samples: int | None = None
    seconds: float = 60.0
    curves: Curves = field(default_factory=Curves)

    @property
    def effort(self) -> Effort:
        """How far a repair on these samples may go."""
        return CAREFUL if self.source.synthetic else FULL

    @cached_property
    def feeds(self) -> Sequence[Mapping[str, Any]]:
        """The samples, in small batches."""
        return small_batches(self.source, self.samples)

    @cached_property
    def pairs(self) -> list[statistics.Inputs]:
        """Means and products of pairs of all contractions' inputs."""
        return statistics.collect(self.coupling, self.feeds, pairs=True)

    @cached_property
    def squares(self) -> list[statistics.Inputs]:
        """Means and squares of all contractions' inputs."""
        return statistics.collect(self.coupling, self.feeds)
