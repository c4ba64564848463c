"""Slim to a latency: choose by a model of the runtime, time what came out, correct the model, choose again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Stage, unannounced
from onnxslim_learn.costs.devices import Device
from onnxslim_learn.costs.targets import amount
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.errors import TargetError
from onnxslim_learn.latency import calibrate
from onnxslim_learn.latency.fragment_times import Measurements, measurements, write
from onnxslim_learn.latency.rounds import rounds
from onnxslim_learn.registry import COSTS, LATENCY
from onnxslim_learn.runtime import cache, timing
from onnxslim_learn.runtime.session import CPU

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.array_types import Array
    from onnxslim_learn.costs.roofline import Timed
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.latency.profile import RuntimeSetting
    from onnxslim_learn.runtime.timing import Ratio
    from onnxslim_learn.workflow.slimmed import Slimmed


ROUNDS = 8
AIM = 0.985  # of the bound: what is measured scatters around what is predicted
LEAST = 0.95  # of the bound: what is measured between this and the bound meets it well
UNCHANGED = 0.95  # of its time: what a node takes at least that a cut does not make faster
LOWER = 0.9  # of a predicted latency: what is tried next where the prediction was met and the bound was not
QUIET = 0.1  # quantile of times that are compared: medians double where other work takes half of the machine
CALIBRATION = "device"
STEP = "step of "


@dataclass(frozen=True)
class Round:
    """One choice of widths, and what it took.

    Attributes:
        predicted_ms, measured_ms: End-to-end latency of the slimmed model.
        low_ms, high_ms: 95 % interval of what was measured, from its ratio to the original.
        wall_ratio: Wall-clock time over the original's, where processor time is what was measured.
        stopped: Whether it was timed in fewer rounds than was meant.
    """

    predicted_ms: float
    measured_ms: float
    low_ms: float
    high_ms: float
    wall_ratio: float | None = None
    stopped: bool = False


@dataclass(frozen=True)
class LatencyMeter:
    """How a model is timed.

    Attributes:
        measured: Times of its fragments.
        total: The original's latency, microseconds.
        time: How a slimmed model is timed against the original.
        stage: Called with the name of each stage; returns what to call with the share done.
    """

    measured: Measurements
    total: float
    time: Callable[[Removal], Ratio]
    stage: Stage = unannounced


@dataclass(frozen=True)
class Stopwatch:
    """How files are timed beside a model whose inputs they take.

    Attributes:
        total: The model's latency, microseconds.
        beside: Times a file against it.
        processor_time: Whether that is processor time, not wall-clock time.
    """

    total: float
    beside: Callable[[Path], Ratio]
    processor_time: bool = False

    def time(self, path: Path) -> float:
        """Latency of a file, microseconds."""
        return self.total * self.beside(path).median


def stopwatch(analysis: Analysis, setting: RuntimeSetting, *, seconds: float) -> Stopwatch:
    """Time a model, to time others beside it.

    Args:
        analysis: The model.
        setting: Threads and provider.
        seconds: Time for every comparison.
    """
    source = analysis.graph.source or analysis.graph.data
    feeds = random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    alone = _steadily(setting, rounds(analysis.coupling, seconds, models=1))
    (whole,) = timing.measure([source], [feeds], **alone).latencies()
    processor = timing.steady_clock(**setting.runtime) is not perf_counter
    return Stopwatch(1e3 * whole.median_ms, beside(analysis, setting, seconds=seconds), processor)


def beside(analysis: Analysis, setting: RuntimeSetting, *, seconds: float) -> Callable[[Path], Ratio]:
    """What times a file against a model whose inputs it takes."""
    source = analysis.graph.source or analysis.graph.data
    feeds = random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    paired = _steadily(setting, rounds(analysis.coupling, seconds))

    def ratio(path: Path) -> Ratio:
        timings = timing.measure([source, path], [feeds, feeds], **paired)
        return timing.compare(timings, 1, quantile=QUIET)

    return ratio


def of_removal(analysis: Analysis, ratio: Callable[[Path], Ratio]) -> Callable[[Removal], Ratio]:
    """What times the model that a removal leaves, as a file is timed."""

    def time(removal: Removal) -> Ratio:
        with tempfile.TemporaryDirectory() as folder:
            return ratio(write(analysis, removal, Path(folder, "slimmed")))

    return time


def _steadily(setting: RuntimeSetting, length: timing.Rounds) -> dict[str, Any]:
    """How models are timed so that other work disturbs least."""
    return {"seconds": length, "clock": timing.steady_clock(**setting.runtime), **setting.runtime}


def prepare(
    analysis: Analysis, setting: RuntimeSetting, *, seconds: float, measure_seconds: float | None, stage: Stage
) -> tuple[Analysis, LatencyMeter]:
    """Measure this machine and what the widths of a model are worth on it.

    Args:
        analysis: The model.
        setting: Threads and provider.
        seconds: Time for every comparison of whole models.
        measure_seconds: After which measuring what widths are worth stops, if there is such a limit.
        stage: Called with the name of each stage; returns what to call with the share done.

    Returns:
        The analysis with its latency, and how to time what is made of it.

    Raises:
        InputError: If the model cannot be timed.
    """
    stage("measuring this machine")
    device = this_machine(setting.threads, setting.provider)
    feeds = random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    watch = stopwatch(analysis, setting, seconds=seconds)
    gathered = measurements(analysis, device, feeds, setting.threads, setting.provider)
    if setting.provider == CPU:  # elsewhere, nodes are timed while they are launched, not while they work
        gathered.gather(measure_seconds, stage("measuring widths"))
    meter = LatencyMeter(gathered, watch.total, of_removal(analysis, watch.beside), stage)
    return replace(analysis, latency=gathered.model(meter.total)), meter


def this_machine(threads: int, provider: str) -> Device:
    """This machine as a device, measured once and kept on disk."""
    about = cache.runtime(threads, provider)
    known = cache.read(CALIBRATION, about)
    if not known:
        device = calibrate.calibrate("this machine", threads=threads, provider=provider)
        known = {name: getattr(device, name) for name in ("gflops", "gbytes", "node_us", "run_us")}
        known |= {STEP + operator: float(step) for operator, step in device.steps.items()}
        cache.add(CALIBRATION, about, known)
    table = {name.removeprefix(STEP): int(number) for name, number in known.items() if name.startswith(STEP)}
    numbers = {name: number for name, number in known.items() if not name.startswith(STEP)}
    return Device("this machine", steps=table, about=about, **numbers)


def meet(
    analysis: Analysis,
    target: Mapping[str, Bound],
    meter: LatencyMeter,
    make: Callable[..., Slimmed],
) -> Slimmed:
    """Slim until what is measured meets a bound on latency.

    Args:
        analysis: The model with its latency.
        target: All bounds, that on latency among them.
        meter: How to time what comes out.
        make: How to slim an analysis to bounds, that on latency a fraction, and settings of the plan.

    Raises:
        TargetError: If the bound cannot be reached; says the least that was measured.
    """
    wish = amount(COSTS[LATENCY], target[LATENCY], meter.total)
    tried: list[tuple[Slimmed, Round]] = []

    def fresh(bound: float) -> Slimmed | None:
        settled = {"allocation": tried[0][0].plan.provenance["allocation"]} if tried else {}
        slimmed = make(analysis, {**target, LATENCY: min(bound / meter.total, 1.0)}, **settled)
        seen = any((slimmed.removal.gone == other.removal.gone).all() for other, _ in tried)
        return None if seen else slimmed

    while len(tried) < ROUNDS:
        try:
            slimmed = fresh(AIM * wish) or fresh(_between(analysis, tried, wish))
        except TargetError as error:
            known = analysis.latency
            if LATENCY in error.missed and meter.measured.points and known is not None and not known.below:
                analysis = narrowed(analysis, meter)
                analysis = _corrected(analysis, meter, *tried[-1]) if tried else analysis
                continue
            if not tried:
                raise _unreachable(analysis, error, wish, meter.total) from error
            break
        if slimmed is None:
            break
        tried.append((slimmed, _timed(analysis, slimmed, meter)))
        if LEAST * wish <= 1e3 * tried[-1][1].measured_ms <= wish:
            break
        analysis = _corrected(analysis, meter, *tried[-1])
    return _best(analysis, tried, wish, target, meter)


def _between(analysis: Analysis, tried: list[tuple[Slimmed, Round]], wish: float) -> float:
    """The predicted latency halfway between the slowest model that meets a bound and the fastest that does not.

    Where the latter is unknown or far off, it is the bound; where the former is unknown, a tenth less than the latter.
    """
    assert analysis.latency is not None
    met, missed = 0.0, math.inf
    for slimmed, round_ in tried:
        predicted = analysis.latency.value((~slimmed.removal.gone).astype(float))
        if 1e3 * round_.measured_ms <= wish:
            met = max(met, predicted)
        else:
            missed = min(missed, predicted)
    return (met + min(missed, 2 * wish - met)) / 2 if met else LOWER * missed


def _unreachable(analysis: Analysis, error: TargetError, wish: float, total: float) -> TargetError:
    """The same error in terms of the bound that was asked for."""
    if set(error.missed) != {LATENCY}:
        return error
    least, _ = error.missed[LATENCY]
    fixed = _fixed(analysis) / 1e3
    return TargetError(
        f"⟨target.latency⟩={wish / 1e3:.4g}ms cannot be reached, at the narrowest widths the model is predicted to take"
        f" {least:.4g} ms ({1e3 * least / total:.3f} of the original), {fixed:.4g} ms of it in nodes that no cut makes"
        " faster. Raise it, or see analyze for what is pinned.",
        error.missed,
    )


def _fixed(analysis: Analysis) -> float:
    """Microseconds of the nodes that would be no faster without any unit that can go."""
    assert analysis.latency is not None
    columns = np.zeros(analysis.coupling.columns, bool)
    for group in analysis.groups:
        columns[group.units] |= group.pin is None
    alive = (~analysis.coupling.close(columns)).astype(float)
    return _as_slow(analysis.latency, alive)


def _as_slow(latency: Timed, alive: Array) -> float:
    """Microseconds of the nodes that a removal does not make faster."""
    before, after = (latency.by_node(each) for each in (np.ones_like(alive), alive))
    return sum(us for name, us in after.items() if us >= UNCHANGED * before.get(name, 0.0))


def _timed(analysis: Analysis, slimmed: Slimmed, meter: LatencyMeter) -> Round:
    """What was predicted for a slimmed model, and what it takes."""
    assert analysis.latency is not None
    predicted = analysis.latency.value((~slimmed.removal.gone).astype(float))
    meter.stage("timing")
    ratio = meter.time(slimmed.removal)
    whole = meter.total / 1e3
    times = (whole * ratio.median, whole * ratio.low, whole * ratio.high)
    return Round(predicted / 1e3, *times, ratio.wall, ratio.stopped)


def _corrected(analysis: Analysis, meter: LatencyMeter, slimmed: Slimmed, round_: Round) -> Analysis:
    """The analysis with a latency that is right about a slimmed model."""
    if meter.measured.points:
        meter.stage("measuring widths")
        meter.measured.add([slimmed.removal])
    model = meter.measured.model(meter.total)
    alive = (~slimmed.removal.gone).astype(float)
    return replace(analysis, latency=model.corrected(alive, 1e3 * round_.measured_ms))


def narrowed(analysis: Analysis, meter: LatencyMeter) -> Analysis:
    """The analysis with a latency that knows of widths below the steps of kernels, too."""
    meter.stage("measuring narrow widths")
    meter.measured.narrow()
    return replace(analysis, latency=meter.measured.model(meter.total))


def _best(
    analysis: Analysis,
    tried: Sequence[tuple[Slimmed, Round]],
    wish: float,
    target: Mapping[str, Bound],
    meter: LatencyMeter,
) -> Slimmed:
    """The slowest model that meets the bound.

    Raises:
        TargetError: If none does.
    """
    about = meter.measured.about
    processor = timing.steady_clock(int(about["threads"]), str(about["provider"])) is not perf_counter
    meeting = [one for one in tried if 1e3 * one[1].measured_ms <= wish]
    if not meeting:
        slimmed, round_ = min(tried, key=lambda one: one[1].measured_ms)
        share, clock = 1e3 * round_.measured_ms / meter.total, "processor" if processor else "wall-clock"
        raise TargetError(
            f"⟨target.latency⟩={wish / 1e3:.4g}ms: missed by all {len(tried)} choices of widths that were timed; the"
            f" fastest takes {round_.measured_ms:.4g} ms of {clock} time ({share:.3f} of the original"
            f"{_bounded(analysis, slimmed)}). Raise it."
        )
    slimmed, round_ = max(meeting, key=lambda one: one[1].measured_ms)
    told: dict[str, Any] = {"target_ms": wish / 1e3, "threads": about["threads"], "provider": about["provider"]}
    told |= {"processor_time": processor, "original_ms": meter.total / 1e3}
    told |= {**asdict(round_), "rounds": [asdict(one) for _, one in tried]}
    trials = tried[0][0].plan.provenance["trials"]  # others are chosen in the way that was best there
    provenance = {**slimmed.plan.provenance, "trials": trials, "target": dict(target), LATENCY: told}
    slimmed.plan = replace(slimmed.plan, provenance=provenance)
    return slimmed


def _bounded(analysis: Analysis, slimmed: Slimmed) -> str:
    """Which part of a slimmed model's latency is in nodes that are no faster, in words."""
    assert analysis.latency is not None
    alive = (~slimmed.removal.gone).astype(float)
    part = _as_slow(analysis.latency, alive) / max(sum(analysis.latency.by_node(alive).values()), 1e-9)
    return f"; {100 * part:.0f} % of it in nodes that the cut does not make faster"
