"""Times models on onnxruntime: latency, and ratios with their intervals.

Both come from paired rounds: a round runs every model once, in a fresh order, so a slow moment of the machine hits
them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxslim_learn.array_types import Feeds
from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime.session import (
    CPU,
    Model,
    check_provider,
    create,
    open_session,
    optimizations,
    runner,
    saying,
    session_options,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

__all__ = [
    "Latency",
    "Ratio",
    "Timings",
    "check_provider",
    "compare",
    "measure",
    "open_session",
    "steady_clock",
    "warm_up",
]

NOTHING = '<ir_version: 9, opset_import: ["": 18]> net (float[1] x) => (float[1] y) { y = Identity(x) }'
Run: TypeAlias = Callable[[], object]
Clock: TypeAlias = Callable[[], float]

# The first run takes 2 to 6 times the steady state; between medians of three runs, 5 % is noise.
_WARM_UPS, _MOST_WARM_UPS, _SETTLED = 5, 50, 0.05
ROUNDS, MOST_ROUNDS = 10, 2000
PATIENCE = 10  # times the seconds that rounds stand for: then no more are begun
_LOADS = 3
SAME = 0.01
"""Of a time: less comes from where in memory a session lies, which drawing rounds again does not tell."""


@dataclass(frozen=True)
class Rounds:
    """How often models are timed.

    Attributes:
        most: At most so many rounds.
        seconds: For which they are timed; where rounds were counted, ten times as long before that is too long.
        counted: Whether the number of rounds was decided by work, so that all are timed whatever they take.
    """

    most: int
    seconds: float
    counted: bool = False

    @property
    def patience(self) -> float:
        """The seconds after which no more are begun, once there are enough."""
        return (PATIENCE if self.counted else 1) * self.seconds


@dataclass(frozen=True)
class Latency:
    """Time of one run of one model.

    Attributes:
        median_ms, low_ms, high_ms: Median, 10 % and 90 % quantile of the wall-clock time of a run, milliseconds.
        runs, load_ms: Timed runs, and the least time to read the file and build the session, milliseconds.
        threads, provider: Threads one operator may use, and the onnxruntime execution provider.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    threads: int
    provider: str
    load_ms: float

    def throughput(self, batch: int = 1) -> float:
        """Return the samples per second when one run computes ``batch`` samples."""
        return batch * 1e3 / self.median_ms


@dataclass(frozen=True)
class Ratio:
    """How a model's time stands to a base's.

    Attributes:
        median: Quotient of the two medians; below 1 the model is faster.
        low, high: Its 95 % interval when the rounds, each with the times of both, are drawn again.
        wall: The quotient by the wall clock, where the times are of another clock.
        stopped: Whether fewer rounds were timed than was meant.
    """

    median: float
    low: float
    high: float
    wall: float | None = None
    stopped: bool = False

    @property
    def faster(self) -> bool | None:
        """Whether the model is faster than the base; ``None`` where both take as long, or it is open."""
        return None if self.low <= 1 + SAME and self.high >= 1 - SAME else self.high < 1


@dataclass(frozen=True, eq=False)
class Timings:
    """Raw times of paired rounds.

    Attributes:
        ms: Times by the clock that was asked for, milliseconds, ``(rounds, models)``.
        load_ms: Least time of up to three to read and build each model, milliseconds.
        threads, provider: As in ``Latency``.
        wall_ms: The same runs by the wall clock, where ``ms`` are of another.
        optimizations: What onnxruntime did to all models before: ``all``, or fewer where it fails at them.
        limits: How many rounds were meant, and for how long.
    """

    ms: npt.NDArray[np.float64]
    load_ms: tuple[float, ...]
    threads: int
    provider: str
    wall_ms: npt.NDArray[np.float64] | None = None
    optimizations: str = "all"
    limits: Rounds | None = None

    @property
    def stopped(self) -> bool:
        """Whether fewer rounds were timed than work told, since they took too long."""
        return self.limits is not None and self.limits.counted and len(self.ms) < self.limits.most

    def latencies(self) -> list[Latency]:
        """Summarise every column, in the order of the models."""
        columns = zip(*np.quantile(self.ms, (0.5, 0.1, 0.9), axis=0).tolist(), self.load_ms, strict=True)
        rest = (len(self.ms), self.threads, self.provider)
        return [Latency(middle, low, high, *rest, load_ms) for middle, low, high, load_ms in columns]


def measure(
    models: Sequence[Model],
    feeds: Sequence[Feeds],
    *,
    threads: int = 1,
    provider: str = CPU,
    bind: bool = False,
    seconds: float | Rounds = 2.0,
    progress: Callable[[float], None] | None = None,
    clock: Clock = perf_counter,
) -> Timings:
    """Time models side by side in shuffled rounds, one session each, after warming up.

    ``feeds`` are the inputs by name for each model; their shapes fix its dynamic dimensions. ``seconds`` are for the 10
    to 2000 rounds of all models together, or say how many rounds there are. Copies to and from a device are part of the
    time unless ``bind`` keeps inputs and outputs there. ``progress`` is called after every round with the part done, 0
    to 1. ``clock`` tells the seconds of a run; where one thread does all the work, ``time.thread_time`` leaves out what
    other work takes of the machine.

    Raises:
        InputError: If a model, its feeds, the threads, the seconds or the provider cannot be used.
    """
    from onnx import parser

    if not models or len(models) != len(feeds):
        raise InputError(f"feeds: one set for each model is needed, but got {len(feeds)} for {len(models)} models.")
    options = session_options(threads)
    limits = seconds if isinstance(seconds, Rounds) else Rounds(MOST_ROUNDS, seconds)
    seconds = limits.seconds
    create(parser.parse_model(NOTHING).SerializeToString(), options, provider)  # or the first would load longer
    runs: list[Run] = []
    load_ms: list[float] = []
    for (session, load), model, feed in zip(_alike(models, options, provider, seconds), models, feeds, strict=True):
        load_ms.append(load)
        with saying(model, "its inputs must fit the provider", "Time it without ⟨io_binding⟩."):
            runs.append(runner(session, feed, provider=provider, bind=bind))
        warm_up(model, session, runs[-1], seconds)
    ms, wall_ms = _rounds(runs, limits, progress or (lambda part: None), clock)
    wall = None if clock is perf_counter else wall_ms
    return Timings(ms, tuple(load_ms), threads, provider, wall, optimizations(options), limits)


def steady_clock(threads: int, provider: str) -> Clock:
    """The clock that other work on the machine disturbs least: processor time where one thread does all the work."""
    return thread_time if threads == 1 and provider == CPU else perf_counter


def _alike(
    models: Sequence[Model], options: SessionOptions, provider: str, seconds: float
) -> list[tuple[InferenceSession, float]]:
    """Open models, all with the optimisations that every one of them can be opened with."""
    asked = options.graph_optimization_level
    loaded = [_load(model, options, provider, seconds) for model in models]
    if len(models) > 1 and options.graph_optimization_level != asked:
        loaded = [_load(model, options, provider, seconds) for model in models]
    return loaded


def _load(model: Model, options: SessionOptions, provider: str, seconds: float) -> tuple[InferenceSession, float]:
    """Open a model up to three times while there is time; returns the last session and the least milliseconds."""
    start = perf_counter()
    took: list[float] = []
    while len(took) < _LOADS and (not took or perf_counter() - start < seconds):
        began = perf_counter()
        session = create(model, options, provider)
        took.append((perf_counter() - began) * 1e3)
    return session, min(took)


def compare(
    timings: Timings, model: int, base: int = 0, *, resamples: int = 2000, seed: int = 0, quantile: float = 0.5
) -> Ratio:
    """Compare two columns by the quotient of their medians, with a paired bootstrap interval that ``seed`` repeats.

    A low ``quantile`` in place of the median leaves out the rounds that other work on the machine slowed.
    """
    pair = timings.ms[:, [model, base]]
    drawn = np.random.default_rng(seed).integers(len(pair), size=(resamples, len(pair)))
    middles = np.quantile(pair[drawn], quantile, axis=1)
    low, high = np.quantile(middles[:, 0] / middles[:, 1], (0.025, 0.975))
    mine, other = np.quantile(pair, quantile, axis=0)
    wall = None
    if timings.wall_ms is not None:
        wall = float(np.divide(*np.quantile(timings.wall_ms[:, [model, base]], quantile, axis=0)))
    return Ratio(float(mine / other), float(low), float(high), wall, timings.stopped)


def _time(run: Run) -> float:
    start = perf_counter()
    run()
    return (perf_counter() - start) * 1e3


def _by_both(run: Run, clock: Clock) -> tuple[float, float]:
    """Milliseconds of a run by a clock and by the wall clock."""
    began, start = perf_counter(), clock()
    run()
    end = clock()
    return (end - start) * 1e3, (perf_counter() - began) * 1e3


def warm_up(model: Model, session: InferenceSession, run: Run, seconds: float) -> None:
    """Run a session of a model at least five times, until the running median settles or the time is up.

    Raises:
        InputError: If it cannot run.
    """
    wanted = ", ".join(f"{x.name} {x.type} {x.shape}" for x in session.get_inputs())
    end = perf_counter() + seconds
    with saying(model, f"feeds for {wanted} are needed", "Give sizes that fit with ⟨input⟩."):
        times = [_time(run) for _ in range(_WARM_UPS)]
        while len(times) < _MOST_WARM_UPS and perf_counter() < end:
            before, now = sorted(times[-5:-2])[1], sorted(times[-3:])[1]
            if abs(now - before) <= _SETTLED * before:
                return
            times.append(_time(run))


def _rounds(
    runs: Sequence[Run], limits: Rounds, progress: Callable[[float], None], clock: Clock = perf_counter
) -> npt.NDArray[np.float64]:
    """Run every model once per round, in a fresh order each: ``(2, rounds, models)``.

    The first are times by the clock, the second by the wall clock.
    """
    seconds = limits.patience
    order, start, part = np.random.default_rng(0), perf_counter(), 0.0
    rounds: list[list[tuple[float, float]]] = []
    while part < 1:
        times = {model: _by_both(runs[model], clock) for model in order.permutation(len(runs))}
        rounds.append([times[model] for model in range(len(runs))])
        spent = (perf_counter() - start) / seconds if seconds > 0 else 1.0
        part = max(min(spent, len(rounds) / ROUNDS, 1.0), len(rounds) / limits.most)
        progress(part)
    return np.moveaxis(np.array(rounds), 2, 0)
