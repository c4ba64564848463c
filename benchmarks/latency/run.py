"""Whether latency is what was predicted, what was asked for, and what the widths could give.

    python -m benchmarks.latency.run [NET|FILE.onnx ...] [--data SRC] [--targets 0.75,0.5,0.3] [--json FILE]

Nets by name have random weights: enough for time, not for quality, which is judged for trained models given as files
(those of ``benchmarks.quality.train``, say), best with real inputs. For every net and target, all within one
run:

* predicted: the latency of the model of widths before any whole slimmed model was timed, over the measured one;
* met: the measured latency of ``slim --target latency`` over the target;
* quality, of files: deviation of its outputs after repair, and that of ``--target macs`` at the same measured latency;
* scratch, of nets by name: its latency over that of the same architecture built anew at its widths.
"""

import argparse
import json
import math
import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.latency import nets
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.errors import TargetError
from onnxslim_learn.latency.profile import RuntimeSetting
from onnxslim_learn.runtime import timing
from onnxslim_learn.runtime.session import CPU
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import latency_target, slim
from onnxslim_learn.workflow.slimmed import Slimmed

PREDICTED, MET, SCRATCH = 0.10, 0.05, 0.03  # how far from 1 the ratios may be
BISECTIONS = 6


@dataclass(frozen=True)
class Row:
    """One net at one target.

    Attributes:
        net, target: Which, and the share of the latency.
        predicted, measured: Shares of the original's latency, at the widths chosen before anything was corrected.
        met: Measured latency over the target, after all corrections.
        rounds: Choices of widths that were timed.
        macs: Share of the MACs that is left.
        deviation: Mean relative L2 distance of the outputs from the original's, after repair.
        macs_target: The share of MACs that ``--target macs`` needs for that latency, at any width; ``None`` where no
            share is as fast.
        macs_latency, macs_deviation: What it takes and deviates then.
        scratch: Latency over that of the architecture built anew, ``None`` where it cannot be built.
    """

    net: str
    target: float
    predicted: float
    measured: float
    met: float
    rounds: int
    macs: float
    deviation: float | None = None
    macs_target: float | None = None
    macs_latency: float | None = None
    macs_deviation: float | None = None
    scratch: float | None = None

    def verdicts(self) -> dict[str, bool | None]:
        """Claim -> whether it holds; ``None`` where it was not tried."""
        quality = None if self.deviation is None else self.deviation <= (self.macs_deviation or math.inf)
        return {
            "predicted within 10 %": abs(self.predicted / self.measured - 1) <= PREDICTED,
            "target met within 5 %": abs(self.met - 1) <= MET,
            "less deviation than with a MACs target": quality,
            "as fast as from scratch": None if self.scratch is None else self.scratch <= 1 + SCRATCH,
        }


@dataclass(frozen=True)
class Bench:
    """One net, measured.

    Attributes:
        name: Which.
        analysis: The net with its latency.
        watch: How it is timed.
        calibration: Samples to choose and repair by.
        options: Of the command line.
        folder: For files.
    """

    name: str
    analysis: slim.Analysis
    watch: latency_target.LatencyMeter
    calibration: Calibration
    options: argparse.Namespace
    folder: Path

    def make(self, analysis: slim.Analysis, bounds: Mapping[str, float]) -> Slimmed:
        """Slim to bounds."""
        return slim.slim(analysis, slim.plan(analysis, bounds, calibration=self.calibration))


def bench(name: str, options: argparse.Namespace, folder: Path) -> Bench:
    """Measure what the widths of a net are worth."""
    file = nets.write(name, *nets.build(name), folder / f"{name}.onnx") if name in nets.NETS else Path(name)
    analysis, watch = latency_target.prepare(
        slim.analyze(file),
        RuntimeSetting(options.threads),
        seconds=options.seconds,
        measure_seconds=options.measure_seconds,
        stage=lambda stage: lambda share: None,
    )
    asked = DataSettings(samples=options.samples)
    real = options.data is not None and name not in nets.NETS
    samples = open_source(options.data, analysis.graph, asked) if real else synthetic(analysis.coupling, asked)
    return Bench(name, analysis, watch, Calibration(analysis.coupling, samples, work=0), options, folder)


def rows(found: Bench) -> Iterator[Row]:
    """Measure one net at all targets."""
    for target in found.options.targets:
        try:
            yield _row(found, target)
        except TargetError as error:
            print(f"{found.name} at {target}: {error}")


def _row(net: Bench, target: float) -> Row:
    """Measure one net at one target."""
    analysis, total = net.analysis, net.watch.total
    try:
        first = net.make(analysis, {"latency": target})
    except TargetError:
        analysis = latency_target.narrowed(analysis, net.watch)
        first = net.make(analysis, {"latency": target})
    assert analysis.latency is not None
    predicted = analysis.latency.value((~first.removal.gone).astype(float)) / total
    measured = net.watch.time(first.removal).median
    slimmed = latency_target.meet(analysis, {"latency": target}, net.watch, net.make)
    told = slimmed.plan.provenance["latency"]
    share = 1e3 * told["measured_ms"] / total
    macs = analysis.price(slimmed.removal)["macs"] / analysis.price(analysis.whole)["macs"]
    row = Row(net.name, target, predicted, measured, share / target, len(told["rounds"]), macs)
    if net.name in nets.NETS:
        return replace(row, scratch=_against_scratch(net, slimmed))
    row = replace(row, deviation=_deviation(slimmed, net.calibration))
    best = _cut_to_macs(net, share)
    if best is None:
        return row
    cut, other, taken = best
    return replace(row, macs_target=cut, macs_latency=taken, macs_deviation=_deviation(other, net.calibration))


def _against_scratch(net: Bench, slimmed: Slimmed) -> float | None:
    """Time over that of the architecture built anew."""
    file = net.folder / "slimmed.onnx"
    slimmed.save(file, check=False)
    built = nets.from_scratch(net.name, file, net.folder / "scratch.onnx")
    if built is None:
        return None
    threads, seconds = net.options.threads, net.options.seconds
    feeds = random_inputs(net.analysis.coupling, net.analysis.graph.shapes.nominal)
    clock = timing.steady_clock(threads, CPU)
    timed = timing.measure([file, built], [feeds, feeds], threads=threads, seconds=seconds, clock=clock)
    return timing.compare(timed, 0, 1, quantile=latency_target.QUIET).median


def _cut_to_macs(net: Bench, share: float) -> tuple[float, Slimmed, float] | None:
    """The largest share of the MACs at which a model takes no more than a share of the latency."""
    low, high, best = 0.02, 1.0, None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        try:
            slimmed = net.make(net.analysis, {"macs": middle})
        except TargetError:
            low = middle
            continue
        taken = net.watch.time(slimmed.removal).median
        if taken <= share:
            low, best = middle, (middle, slimmed, taken)
        else:
            high = middle
    return best


def _deviation(slimmed: Slimmed, calibration: Calibration) -> float:
    """Mean relative distance of the outputs after repair, on held-back samples."""
    found = slimmed.repair(calibration)
    return float(np.mean([d.relative for d in (found.after if found.kept else found.before).values()]))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET", default=list(nets.NETS), help=", ".join(nets.NETS))
    parser.add_argument("--targets", type=lambda text: [float(t) for t in text.split(",")], default=[0.75, 0.5, 0.3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each comparison of whole models")
    parser.add_argument("--measure-seconds", type=float, help="stop measuring widths of one net after this time")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--data", metavar="SRC", help="real inputs for models given as files")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.nets:
            for row in rows(bench(name, options, Path(folder))):
                found.append(row)
                print({k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(row).items()}, flush=True)
    claims = {claim: [row.verdicts()[claim] for row in found] for claim in (found[0].verdicts() if found else ())}
    for claim, held in claims.items():
        tried = [one for one in held if one is not None]
        print(f"{claim}: {sum(tried)} of {len(tried)}")
    if options.json:
        about = {"machine": platform.processor(), "onnxruntime": ort.__version__, "threads": options.threads}
        rows_told = [{**asdict(row), "holds": row.verdicts()} for row in found]
        options.json.write_text(json.dumps({**about, "rows": rows_told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
