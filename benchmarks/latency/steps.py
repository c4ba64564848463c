"""Whether nets at half their multiply-accumulates are faster than they were, at any width and on the steps of kernels.

    python -m benchmarks.latency.steps [NET|FILE.onnx ...] [--shares 0.5] [--seconds 8] [--json FILE]

Nets by name are of torchvision with random weights, and pretrained ones from packages; files can be given as well. The
original of a net and what ``slim`` makes of it with ``--multiple 1`` and with ``auto`` run in turns, all within one
session of timing; ratios are of processor time on one thread, of the least disturbed runs, with their 95 % interval.
Exits with 1 if any is slower with ``auto`` than the original.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime as ort

from nets.exports import EXPORTERS, NAMES, export
from nets.pretrained import MODELS, fetch
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.readers import AUTO
from onnxslim_learn.runtime import kernels, timing
from onnxslim_learn.runtime.session import CPU
from onnxslim_learn.runtime.timing import Ratio
from onnxslim_learn.workflow import slim
from onnxslim_learn.workflow.latency_target import QUIET

NETS = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "densenet121",
    "googlenet",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "bert",
    *MODELS,
)
MULTIPLES = (1, AUTO)
CRITERION = "l2"  # how fast a net is does not depend on which units stay


@dataclass(frozen=True)
class Row:
    """One net at one share of its multiply-accumulates.

    Attributes:
        net, share: Which, and what it was asked to keep.
        macs: Shares that are left, for every multiple.
        ratios: Time over the original's, likewise.
    """

    net: str
    share: float
    macs: tuple[float, ...]
    ratios: tuple[Ratio, ...]

    @property
    def told(self) -> str:
        """The row as Markdown."""
        cells = [f"{100 * macs:.1f} %, {r.median:.3f} ({r.low:.3f} to {r.high:.3f})" for macs, r in self.pairs]
        return " | ".join(["", self.net, f"{self.share:g}", *cells, ""]).strip()

    @property
    def pairs(self) -> Iterator[tuple[float, Ratio]]:
        """What is left and what it takes, for every multiple."""
        return zip(self.macs, self.ratios, strict=True)


def file(name: str, folder: Path) -> Path:
    """A net as a file."""
    if name in MODELS:
        return fetch(name)
    return export(name, EXPORTERS[0], folder / f"{name}.onnx") if name in NAMES else Path(name)


def measured(name: str, share: float, seconds: float, folder: Path) -> Row:
    """Cut a net with every multiple, and time all of them beside it."""
    analysis = slim.analyze(file(name, folder))
    assert analysis.graph.source is not None
    paths, macs = [analysis.graph.source], []
    for multiple in MULTIPLES:
        plan = slim.plan(analysis, {"macs": share}, multiple=multiple, criterion=CRITERION)
        slimmed = slim.slim(analysis, plan)
        paths.append(folder / f"{Path(name).stem}-{multiple}.onnx")
        slimmed.save(paths[-1], check=False)
        macs.append(analysis.price(slimmed.removal)["macs"] / analysis.price(analysis.whole)["macs"])
    feeds = [random_inputs(analysis.coupling, analysis.graph.shapes.nominal)] * len(paths)
    timings = timing.measure(paths, feeds, seconds=seconds, clock=timing.steady_clock(1, CPU))
    ratios = tuple(timing.compare(timings, number, quantile=QUIET) for number in range(1, len(paths)))
    return Row(Path(name).stem, share, tuple(macs), ratios)


def main() -> int:
    """Run the benchmark; returns 1 if any net is slower than it was on the steps of kernels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET", default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--shares", type=lambda text: [float(t) for t in text.split(",")], default=[0.5])
    parser.add_argument("--seconds", type=float, default=8.0, help="for each net, all of its files together")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"onnxruntime {ort.__version__}, blocks of {kernels.block()} channels", flush=True)
    print("| net | share of MACs | any width | on steps (`auto`) |\n| --- | --- | --- | --- |", flush=True)
    for name in options.nets:
        for share in options.shares:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measured(name, share, options.seconds, Path(folder)))
            print(rows[-1].told, flush=True)
    if options.json:
        about = {"machine": platform.processor(), "onnxruntime": ort.__version__, "block": kernels.block()}
        options.json.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    slower = [row.net for row in rows if row.ratios[-1].low > 1]
    print(f"slower than the original with auto: {', '.join(slower) or 'none'}")
    return int(bool(slower))


if __name__ == "__main__":
    sys.exit(main())
