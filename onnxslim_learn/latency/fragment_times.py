"""What widths are worth in milliseconds: slimmed models run on onnxruntime, and what their fragments took.

Whole models are profiled, not operators by themselves: then fusion, blocked layouts and caches are what they will be.
A few models with all widths at one share, and some with mixed ones, show every fragment at several widths at once.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxslim_learn.costs.polynomial import work
from onnxslim_learn.costs.roofline import Roofline, roofline
from onnxslim_learn.latency import calibrate, node_times
from onnxslim_learn.latency.fitted import FittedLatency, fitted
from onnxslim_learn.latency.fragments import Fragment, fragments, key
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.runtime import cache
from onnxslim_learn.runtime.node import inside
from onnxslim_learn.select import budget, kernel_widths

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Array, Feeds
    from onnxslim_learn.costs.devices import Device
    from onnxslim_learn.coupling.removal import Removal

# Removals -> for each, microseconds by name of a node, measured side by side.
Profiler: TypeAlias = Callable[[Sequence["Removal"]], Sequence[Mapping[str, float]]]

# Shares of all widths that models are profiled at, in this order; ``None`` mixes them.
DESIGN = (0.5, None, 0.25, 0.75, None, None, 0.375, None, 0.625, None, 0.125, None, 0.875, None)
MIXED = (0.25, 0.5, 0.75, 1.0)
TOGETHER = 3  # models side by side
NARROWED = 6  # models with widths below steps
WORK = 2e12  # multiply-accumulates of all runs of models that are profiled; a few are in any case
RUNS, LOW = 20, 0.1  # rounds, and the quantile of their times: other work only slows them
LEFT = 0.1  # of a node's time at least, whatever profiling adds
FRAGMENTS = "fragments"


@dataclass
class Measurements:
    """Times of a model's fragments, gathered step by step; what is known from disk is not measured again.

    Attributes:
        analysis: The model.
        roofline: What nodes compute and move, and the device that says what was not measured.
        profile: How slimmed models are profiled.
        about: The runtime that times hold for.
        clock: Seconds that pass, for tests.
        below: Whether widths below a step of the machine's kernels were measured, too.
    """

    analysis: Analysis
    roofline: Roofline
    profile: Profiler
    about: Mapping[str, str | int]
    clock: Callable[[], float] = perf_counter
    below: bool = False
    parts: Sequence[Fragment] = field(init=False)
    known: dict[str, float] = field(init=False)
    points: dict[int, list[tuple[Array, float]]] = field(init=False, default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.parts = fragments(self.analysis.coupling)
        self.known = cache.read(FRAGMENTS, self.about)

    def gather(self, seconds: float | None = None, progress: Callable[[float], None] = lambda share: None) -> None:
        """Measure the original, then slimmed models: as many as the size of the model allows, whatever time they take.

        Args:
            seconds: After which only what is known already is taken in, if there is such a limit.
            progress: Called with the share done.
        """
        start = self.clock()
        self.add([self.analysis.whole])
        most = max(TOGETHER, int(WORK // max(RUNS * work(self.analysis.coupling), 1)))
        removals = list(itertools.islice(designs(self.analysis, self.roofline.device), most))
        for at in range(0, len(removals), TOGETHER):
            batch = removals[at : at + TOGETHER]
            if seconds is not None and self.clock() - start >= seconds:
                batch = [removal for removal in batch if not self._unknown(removal)]
            self.add(batch)
            progress(at / len(removals))

    def narrow(self) -> None:
        """Measure widths below a step of the machine's kernels, too, unless that is done."""
        if self.below:
            return
        self.below = True
        removals = list(itertools.islice(designs(self.analysis, self.roofline.device, below=True), NARROWED))
        for at in range(0, len(removals), TOGETHER):
            self.add(removals[at : at + TOGETHER])

    def _unknown(self, removal: Removal) -> bool:
        """Whether a fragment was never timed at its widths."""
        return any(key(part, removal) not in self.known for part in self.parts)

    def add(self, removals: Sequence[Removal]) -> None:
        """Take in models, and measure those of which not all is known."""
        missing = [removal for removal in removals if self._unknown(removal)]
        if missing:
            times = self._measured(missing)
            self.known |= times
            cache.add(FRAGMENTS, self.about, times)
        for removal in removals:
            alive = (~removal.gone).astype(float)
            for place, part in enumerate(self.parts):
                self.points[place].append((alive, self.known[key(part, removal)]))

    def _measured(self, removals: Sequence[Removal]) -> dict[str, float]:
        """Times of fragments by key; the original runs beside them, so that a slower moment can be made up for."""
        others = [removal for removal in removals if removal.gone.any()]
        first, *rest = self.profile([self.analysis.whole, *others])
        whole = self._by_key(self.analysis.whole, first)
        known = [self.known.get(name) for name in whole]
        pace = 1.0
        if None not in known:
            pace = sum(filter(None, known)) / max(sum(whole.values()), 1e-9)
            whole = {}
        for removal, times in zip(others, rest, strict=True):
            whole |= {name: pace * us for name, us in self._by_key(removal, times).items() if name not in whole}
        return whole

    def _by_key(self, removal: Removal, times: Mapping[str, float]) -> dict[str, float]:
        """Mean time of the fragments that are alike."""
        graph, times_by_key = self.analysis.graph.nodes, defaultdict(list)
        for part in self.parts:
            nodes = [graph[index] for index in part.nodes]
            names = {str(node.name) for one in nodes for node in (one, *inside(one))}
            times_by_key[key(part, removal)].append(sum(times.get(name, 0.0) for name in names))
        return {name: float(np.mean(values)) for name, values in times_by_key.items()}

    def model(self, total: float) -> FittedLatency:
        """The latency that the measurements say; ``total`` is the original's from end to end, in microseconds."""
        return replace(fitted(self.roofline, self.parts, self.points, total), below=self.below)


def measurements(analysis: Analysis, device: Device, feeds: Feeds, threads: int, provider: str) -> Measurements:
    """Nothing measured yet of a model on this machine, beyond what is on disk."""
    about = cache.runtime(threads, provider)
    profile = profiler(analysis, feeds, threads, provider, device.node_us)
    return Measurements(analysis, roofline(analysis.coupling, device), profile, about)


def profiler(analysis: Analysis, feeds: Feeds, threads: int, provider: str, node_us: float) -> Profiler:
    """Profile slimmed models on onnxruntime, in turns.

    Profiling slows every node by some microseconds. How many is seen on a chain of nodes that do nothing and run in
    turns with the models, of which it is known what they take without: ``node_us``.
    """
    idle = calibrate.chain(calibrate.CHAIN)

    def profile(removals: Sequence[Removal]) -> Sequence[Mapping[str, float]]:
        with tempfile.TemporaryDirectory() as folder:
            files = [write(analysis, removal, Path(folder, str(k))) for k, removal in enumerate(removals)]
            *rows, nothing = node_times.per_node(
                [*files, idle.SerializeToString()],
                [*[feeds] * len(files), calibrate.inputs(idle)],
                threads=threads,
                provider=provider,
                runs=RUNS,
                quantile=LOW,
            )
        excess = max(1e3 * sum(row.ms for row in nothing) / calibrate.CHAIN - node_us, 0.0)
        return [{row.name: max(1e3 * row.ms - excess, LEFT * 1e3 * row.ms) for row in node_rows} for node_rows in rows]

    return profile


def write(analysis: Analysis, removal: Removal, folder: Path) -> Path:
    """Write a slimmed model to be timed into a new folder."""
    folder.mkdir()
    return save.staged(slim(removal), "model.onnx", folder, external=analysis.graph.external)


def designs(analysis: Analysis, device: Device, *, below: bool = False) -> Iterator[Removal]:
    """Removals that show every fragment at widths far apart, the most telling first."""
    coupling, rng = analysis.coupling, np.random.default_rng(0)
    choices = budget.choices(coupling, analysis.groups, np.zeros(coupling.columns), budget.Freedom())
    search = budget.Search(coupling, kernel_widths.undominated(coupling, choices, device.steps, below=below), {}, {})
    for share in DESIGN:
        if share is None:
            shares = rng.choice(MIXED, len(search.choices))
            widths = [_nearest(c, float(s)) for c, s in zip(search.choices, shares, strict=True)]
        else:
            widths = [_nearest(c, share) for c in search.choices]
        removal = search.removal(widths)
        if removal.gone.any() and not search.faults(removal):
            yield removal


def _nearest(choice: budget.Choice, share: float) -> int:
    """The allowed width nearest to a share of all units."""
    return min(choice.kept, key=lambda kept: abs(kept - share * choice.group.width))
