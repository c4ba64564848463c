"""What is left of a net's accuracy after cutting it without training, ours and Torch-Pruning's, on Fashion-MNIST.

    python -m benchmarks.quality.train       # once: about an hour on one core
    python -m benchmarks.quality.run [NET ...] [--json FILE] [--figure FILE] [--cache FOLDER] [--seeds N] [--threads N]

Everything starts from the exported ONNX files; labels serve only to count what is right on the 10,000 test images.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from benchmarks.quality import fashion, figure, peers
from benchmarks.quality.train import CACHE, load
from onnxslim_learn.data.class_balance import confident
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.source import Source
from onnxslim_learn.learners.finetune import distilled
from onnxslim_learn.readers import multiple_of
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.train.bn_matching import matched
from onnxslim_learn.workflow import slim as api

NETS = ("resnet20", "mobilenet", "vit")
BATCH = 500


@dataclass(frozen=True)
class Setting:
    """One row for ours.

    Attributes:
        name: In the report.
        target: Share of the MACs.
        data: What repair works with, a key of ``SOURCES``, or ``None`` for no repair.
        allowed: Net -> points of accuracy that may be lost; other nets are not held to anything.
        suffix: Of the file to start from.
        steps: Of training after repair.
    """

    name: str
    target: float
    data: str | None
    allowed: dict[str, float] = field(default_factory=dict)
    suffix: str = ""
    steps: int = 0


STORED = {"resnet20": 1.5, "mobilenet": 1.5}
SETTINGS = (
    Setting("512 images", 0.5, "512", {"resnet20": 0.4, "mobilenet": 0.35, "vit": 0.3}),
    Setting("512 images", 0.3, "512", {"resnet20": 1.2, "mobilenet": 1.3, "vit": 2.0}),
    Setting("512 images, 300 steps", 0.5, "512", {"resnet20": 0.4, "mobilenet": 0.35, "vit": 0.3}, steps=300),
    Setting("512 images, 300 steps", 0.3, "512", {"resnet20": 1.2, "mobilenet": 1.3, "vit": 2.0}, steps=300),
    Setting("64 images", 0.5, "64"),
    Setting("range only", 0.5, "range", {"resnet20": 1.9, "mobilenet": 2.0, "vit": 2.0}),
    Setting("range and stored statistics", 0.5, "statistics", STORED, "_bn"),
    Setting("no repair", 0.5, None),
)


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        net: Of ``NETS``.
        method: Who cut it.
        target: Share of the MACs asked for.
        seed: Of the samples.
        accuracy: Share of test images whose class is found.
        lost: Points of accuracy under the dense net.
        macs: Share of the MACs that is left.
        seconds: That choosing, cutting, repairing and verifying took.
        allowed: Points that may be lost, or ``None``.
    """

    net: str
    method: str
    target: float
    seed: int
    accuracy: float
    lost: float
    macs: float
    seconds: float
    allowed: float | None = None


@dataclass(frozen=True)
class Bench:
    """What all rows share.

    Attributes:
        cache: Where the nets are.
        images: Training images to draw samples from.
        test: Test images, as the nets take them.
        labels: Their classes.
        threads: Of onnxruntime, for counting what is right.
        multiple: Of widths, as ``slim`` takes it.
        work: Multiply-accumulates to find widths with, likewise; ``None`` for what is usual.
        settings: The rows for ours.
    """

    cache: Path
    images: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    threads: int
    multiple: int | str = 1
    work: float | None = None
    settings: tuple[Setting, ...] = SETTINGS

    def accuracy(self, path: Path) -> float:
        """Share of test images whose class a model finds."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        right = 0
        for start in range(0, len(self.test), BATCH):
            (logits,) = session.run(None, {"image": self.test[start : start + BATCH]})
            right += int((logits.argmax(1) == self.labels[start : start + BATCH]).sum())
        return right / len(self.test)

    def samples(self, count: int, seed: int) -> np.ndarray:
        """Unlabelled training images, drawn by chance."""
        return fashion.pixels(np.random.default_rng(seed).choice(self.images, count, replace=False))


def _images(bench: Bench, analysis: api.Analysis, seed: int, count: int) -> Source:
    return open_source({"image": bench.samples(count, seed)}, analysis.graph)


def _range(bench: Bench, analysis: api.Analysis, seed: int) -> Source:
    return confident(analysis.coupling, DataSettings(seed=seed, input_range=((0.0, 1.0),)))


def _statistics(bench: Bench, analysis: api.Analysis, seed: int) -> Source:
    return matched(analysis.coupling, DataSettings(seed=seed, input_range=((0.0, 1.0),)))


SOURCES: dict[str, Callable[[Bench, api.Analysis, int], Source]] = {
    "512": partial(_images, count=512),
    "64": partial(_images, count=64),
    "range": _range,
    "statistics": _statistics,
}


def slim(bench: Bench, path: Path, setting: Setting, seed: int, output: Path) -> None:
    """Cut a model as a user would."""
    analysis = api.analyze(path)
    calibration = None
    if setting.data is not None:
        calibration = Calibration(analysis.coupling, SOURCES[setting.data](bench, analysis, seed), work=bench.work)
    train = (lambda slimmed, known: slimmed.finetune(known, setting.steps, distilled)) if setting.steps else None
    asked = {"calibration": calibration, "multiple": bench.multiple, "finetune": train}
    api.slim_to(analysis, {"macs": setting.target}, output, **asked)


def ours(bench: Bench, net: str, dense: float, seeds: int) -> Iterator[Row]:
    """All rows of ours for a net."""
    for setting in bench.settings:
        path = bench.cache / f"{net}{setting.suffix}.onnx"
        if not path.is_file():
            continue  # a net without batch normalisations
        for seed in range(seeds if setting.data else 1):
            with tempfile.TemporaryDirectory() as folder:
                output = Path(folder) / "slim.onnx"
                start = time.perf_counter()
                slim(bench, path, setting, seed, output)
                seconds = time.perf_counter() - start
                found, left = bench.accuracy(output), macs(output) / macs(path)
            allowed = setting.allowed.get(net)
            yield Row(net, setting.name, setting.target, seed, found, 100 * (dense - found), left, seconds, allowed)


def macs(path: Path) -> int:
    """Multiply-accumulates of one image."""
    found = api.analyze(path)
    return found.price(found.whole)["macs"]


def theirs(bench: Bench, net: str, dense: float, seeds: int) -> Iterator[Row]:
    """All rows of the peer for a net: as cut, and with its statistics estimated on the images that ours sees."""
    whole = load(net, bench.cache)
    total = peers.macs(whole)
    for target in sorted({s.target for s in SETTINGS}, reverse=True):
        for name in peers.PEERS:
            start = time.perf_counter()
            cut, left = peers.at_macs(whole, target * total, name)
            seconds = time.perf_counter() - start
            normed = any(isinstance(m, torch.nn.BatchNorm2d) for m in cut.modules())
            for seed in (None, *range(seeds if normed else 0)):
                if seed is not None:
                    peers.estimate(cut, torch.from_numpy(bench.samples(512, seed)))
                with tempfile.TemporaryDirectory() as folder:
                    peers.export(cut, Path(folder) / "cut.onnx")
                    found = bench.accuracy(Path(folder) / "cut.onnx")
                method = name if seed is None else f"{name}, norms estimated"
                yield Row(net, method, target, seed or 0, found, 100 * (dense - found), left / total, seconds)


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """Mean and spread over seeds, row by row, and whether what is allowed was kept."""
    kinds = list(dict.fromkeys((row.net, row.method, row.target) for row in rows))
    found = []
    for kind in kinds:
        same = [row for row in rows if (row.net, row.method, row.target) == kind]
        lost = [row.lost for row in same]
        entry = dict(zip(("net", "method", "target"), kind, strict=True), lost=statistics.fmean(lost))
        entry |= {"spread": statistics.stdev(lost) if len(lost) > 1 else 0.0, "seeds": len(lost)}
        entry |= {"accuracy": statistics.fmean(row.accuracy for row in same), "allowed": same[0].allowed}
        entry |= {"macs": max(row.macs for row in same), "seconds": max(row.seconds for row in same)}
        found.append(entry | {"met": None if same[0].allowed is None else entry["lost"] <= same[0].allowed})
    return found


def show(entries: list[dict[str, Any]]) -> None:
    """Print a summary as a table."""
    print(f"{'net':10} {'MACs':>5} {'accuracy':>8} {'lost':>6} {'spread':>6} {'allowed':>7} {'s':>5}  method")
    for one in entries:
        allowed = "" if one["allowed"] is None else f"{one['allowed']:g} {'ok' if one['met'] else 'NO'}"
        print(
            f"{one['net']:10} {one['macs']:5.0%} {one['accuracy']:8.2%} {one['lost']:6.2f} {one['spread']:6.2f} "
            f"{allowed:>7} {one['seconds']:5.0f}  {one['method']}",
            flush=True,
        )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"where the nets are kept (default {CACHE})")
    parser.add_argument("--data", type=Path, default=fashion.FOLDER, help="folder with the files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3, help="samples are drawn so many times (default 3)")
    parser.add_argument("--multiple", type=multiple_of, default=1, help="of widths, as slim takes it (default 1)")
    parser.add_argument("--work", type=float, help="multiply-accumulates to find widths with; 0: all groups alike")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="of ours, such as '512 images' (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="threads for counting what is right (default 2)")
    parser.add_argument("--json", type=Path, help="write all rows here")
    parser.add_argument("--figure", type=Path, help="draw the summary here, as .png or .svg")
    parser.add_argument("--no-peers", action="store_true", help="leave Torch-Pruning out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    test, labels = fashion.read("t10k", options.data)
    images, _ = fashion.read("train", options.data)
    settings = tuple(setting for setting in SETTINGS if not options.only or setting.name in options.only)
    given = {"multiple": options.multiple, "work": options.work, "settings": settings}
    bench = Bench(options.cache, images, fashion.pixels(test), labels, options.threads, **given)
    rows: list[Row] = []
    for net in options.nets:
        dense = bench.accuracy(options.cache / f"{net}.onnx")
        rows.append(Row(net, "dense", 1.0, 0, dense, 0.0, 1.0, 0.0))
        rows += ours(bench, net, dense, options.seeds)
        rows += [] if options.no_peers else theirs(bench, net, dense, options.seeds)
        show(summary([row for row in rows if row.net == net]))
        if options.json:
            options.json.write_text(json.dumps(_told(rows, options.threads), indent=1) + "\n")
    if options.figure:
        figure.draw(summary(rows), options.figure)


def _told(rows: list[Row], threads: int) -> dict[str, Any]:
    return {
        "machine": f"{platform.processor() or platform.machine()}, {threads} threads",
        "versions": {"onnxruntime": ort.__version__, "torch": torch.__version__},
        "summary": summary(rows),
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    main()
