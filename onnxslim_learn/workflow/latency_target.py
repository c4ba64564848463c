"""Slim to a latency: choose by a model of the runtime, time what came out, correct the model, choose again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from onnxslim_learn.array_types import Stage, unannounced
from onnxslim_learn.costs.devices import Device
from onnxslim_learn.costs.targets import amount
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.errors import TargetError
from onnxslim_learn.latency import calibrate
from onnxslim_learn.latency.fragment_times import Measurements, measurements, write
from onnxslim_learn.registry import COSTS, LATENCY
from onnxslim_learn.runtime import cache, timing
from onnxslim_learn.runtime.session import CPU

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.latency.profile import RuntimeSetting
    from onnxslim_learn.runtime.timing import Ratio
    from onnxslim_learn.workflow.slimmed import Slimmed


ROUNDS = 5
AIM = 0.985  # of the bound: what is measured scatters around what is predicted
LEAST, MOST = 0.95, 1.005  # of the bound: where a measured latency meets it
MISSED = 1.05
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
    """

    predicted_ms: float
    measured_ms: float
    low_ms: float
    high_ms: float


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
    """

    total: float
    beside: Callable[[Path], Ratio]

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
    asked: dict[str, Any] = {"seconds": seconds, "clock": timing.steady_clock(**setting.runtime), **setting.runtime}

    def beside(path: Path) -> Ratio:
        return timing.compare(timing.measure([source, path], [feeds, feeds], **asked), 1, quantile=QUIET)

    (whole,) = timing.measure([source], [feeds], **asked).latencies()
    return Stopwatch(1e3 * whole.median_ms, beside)


def prepare(
    analysis: Analysis, setting: RuntimeSetting, *, seconds: float, measure_seconds: float, stage: Stage
) -> tuple[Analysis, LatencyMeter]:
    """Measure this machine and what the widths of a model are worth on it.

    Args:
        analysis: The model.
        setting: Threads and provider.
        seconds: Time for every comparison of whole models.
        measure_seconds: Time for measuring what widths are worth.
        stage: Called with the name of each stage; returns what to call with the share done.

    Returns:
        The analysis with its latency, and how to time what is made of it.

    Raises:
        InputError: If the model cannot be timed.
    """
    stage("measuring this machine")
    device = this_machine(setting.threads, setting.provider)
    feeds = random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    stopwatch_of_model = stopwatch(analysis, setting, seconds=seconds)

    def time(removal: Removal) -> Ratio:
        with tempfile.TemporaryDirectory() as folder:
            return stopwatch_of_model.beside(write(analysis, removal, Path(folder, "slimmed")))

    gathered = measurements(analysis, device, feeds, setting.threads, setting.provider)
    if setting.provider == CPU:  # elsewhere, nodes are timed while they are launched, not while they work
        gathered.gather(measure_seconds, stage("measuring widths"))
    meter = LatencyMeter(gathered, stopwatch_of_model.total, time, stage)
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
    make: Callable[[Analysis, Mapping[str, Bound]], Slimmed],
) -> Slimmed:
    """Slim until what is measured meets a bound on latency.

    Args:
        analysis: The model with its latency.
        target: All bounds, that on latency among them.
        meter: How to time what comes out.
        make: How to slim to bounds; that on latency is a fraction.

    Raises:
        TargetError: If the bound cannot be reached; says the least that was measured.
    """
    wish = amount(COSTS[LATENCY], target[LATENCY], meter.total)
    tried: list[tuple[Slimmed, Round]] = []

    def fresh(bound: float) -> Slimmed | None:
        slimmed = make(analysis, {**target, LATENCY: min(bound / meter.total, 1.0)})
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
                raise _unreachable(error, wish, meter.total) from error
            break
        if slimmed is None:
            break
        tried.append((slimmed, _timed(analysis, slimmed, meter)))
        if LEAST * wish <= 1e3 * tried[-1][1].measured_ms <= MOST * wish:
            break
        analysis = _corrected(analysis, meter, *tried[-1])
    return _best(tried, wish, target, meter)


def _between(analysis: Analysis, tried: list[tuple[Slimmed, Round]], wish: float) -> float:
    """The predicted latency halfway between the slowest model that meets a bound and the fastest that does not.

    Where the latter is unknown or far off, it is the bound; where the former is unknown, a tenth less than the latter.
    """
    assert analysis.latency is not None
    met, missed = 0.0, math.inf
    for slimmed, round_ in tried:
        predicted = analysis.latency.value((~slimmed.removal.gone).astype(float))
        if 1e3 * round_.measured_ms <= MOST * wish:
            met = max(met, predicted)
        else:
            missed = min(missed, predicted)
    return (met + min(missed, 2 * wish - met)) / 2 if met else LOWER * missed


def _unreachable(error: TargetError, wish: float, total: float) -> TargetError:
    """The same error in terms of the bound that was asked for."""
    if set(error.missed) != {LATENCY}:
        return error
    least, _ = error.missed[LATENCY]
    return TargetError(
        f"⟨target.latency⟩={wish / 1e3:.4g}ms cannot be reached, at the narrowest widths the model is predicted to take"
        f" {least:.4g} ms ({1e3 * least / total:.3f} of the original). Raise it, or see analyze for what is pinned.",
        error.missed,
    )


def _timed(analysis: Analysis, slimmed: Slimmed, meter: LatencyMeter) -> Round:
    """What was predicted for a slimmed model, and what it takes."""
    assert analysis.latency is not None
    predicted = analysis.latency.value((~slimmed.removal.gone).astype(float))
    meter.stage("timing")
    ratio = meter.time(slimmed.removal)
    return Round(predicted / 1e3, *(meter.total * part / 1e3 for part in (ratio.median, ratio.low, ratio.high)))


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


def _best(tried: list[tuple[Slimmed, Round]], wish: float, target: Mapping[str, Bound], meter: LatencyMeter) -> Slimmed:
    """The slowest model that meets the bound, else the fastest."""
    meeting = [one for one in tried if 1e3 * one[1].measured_ms <= MOST * wish]
    slimmed, round_ = (
        max(meeting, key=lambda one: one[1].measured_ms) if meeting else min(tried, key=lambda one: one[1].measured_ms)
    )
    if 1e3 * round_.low_ms > MISSED * wish:
        share = 1e3 * round_.measured_ms / meter.total
        raise TargetError(
            f"⟨target.latency⟩={wish / 1e3:.4g}ms: {len(tried)} choices of widths were timed, and the fastest takes"
            f" {round_.measured_ms:.4g} ms ({share:.3f} of the original). Raise it."
        )
    about = meter.measured.about
    told: dict[str, Any] = {"target_ms": wish / 1e3, "threads": about["threads"], "provider": about["provider"]}
    told["processor_time"] = timing.steady_clock(int(about["threads"]), str(about["provider"])) is not perf_counter
    told |= {**asdict(round_), "rounds": [asdict(one) for _, one in tried]}
    provenance = {**slimmed.plan.provenance, "target": dict(target), LATENCY: told}
    slimmed.plan = replace(slimmed.plan, provenance=provenance)
    return slimmed
