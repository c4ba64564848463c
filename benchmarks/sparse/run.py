"""Sparse weights on Fashion-MNIST: accuracy on the 10,000 test images after every way to make weights zero.

    python -m benchmarks.sparse.run [NET ...] [--json FILE] [--cache FOLDER] [--data FOLDER] [--parts PART,...]
                                    [--seeds N] [--search-work N] [--rollouts N] [--steps N] [--trained X ...]

The nets are those of ``benchmarks.quality.train``. Parts:

* ``oneshot``: without labels and training, from 512 training images: methods at 75 %, and 2:4.
* ``protocols``: how 90 % and 95 % are spread over layers, one-shot: uniform, heurist, measured curves; the mean over
  samples drawn with several seeds.
* ``agent``: the same with shares found by reinforcement learning in ``--rollouts`` roll-outs, each of which is judged
  by what is sparsified in one go.
* ``trained``: 75 % and 90 % in ``--steps`` steps of distillation, without labels: keeping the zeros of the one-shot
  result, and with masks learnt on the schedule.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality import fashion
from benchmarks.quality.train import CACHE
from onnxslim_learn.analysis import Analysis
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.source import Source
from onnxslim_learn.learners.weight_sparse import pipeline
from onnxslim_learn.learners.weight_sparse.settings import WeightSparseSettings, settings
from onnxslim_learn.runtime.timing import open_session
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.sparse.maskable import layers
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.trainer import Task, Training, trainer
from onnxslim_learn.workflow import slim, sparsify
from onnxslim_learn.workflow.settings import ZeroSettings

SAMPLES = 512  # of the training images, unlabelled
BATCH = 500  # test images at a time
SHORT = {"ws_nb_iters_ft": 0, "ws_nb_iters_feval": 32}
"""Roll-outs of the agent: no fine-tuning, which would take minutes each on one core."""
TRAINED = ((True, "search"), (True, "heurist"), (True, "uniform"), (False, "uniform"))
"""Whether one-shot comes first, and the protocol."""
JUDGED = 8192  # held-back images; the best roll-outs are judged by all of them, the others by the first


@dataclass(frozen=True)
class Bench:
    """What every row needs.

    Attributes:
        found: The net.
        path: Its file.
        images: Training images and their labels.
        test: Test images and their labels.
        options: The command line's.
    """

    found: Analysis
    path: Path
    images: tuple[Any, Any]
    test: tuple[Any, Any]
    options: argparse.Namespace

    def source(self, count: int, seed: int, *, begin: int = 0, labels: bool = False) -> Source:
        """Some training images: of an order that the seed determines, so many from one on."""
        (name,) = self.found.graph.shapes.nominal.inputs
        chosen = np.random.default_rng(seed).permutation(len(self.images[0]))[begin : begin + count]
        arrays = {name: fashion.pixels(self.images[0][chosen])}
        if labels:
            arrays["labels"] = self.images[1][chosen]
        return open_source(arrays, self.found.graph, DataSettings(samples=count, seed=seed))

    def accuracy(self, path: Path) -> float:
        """Share of test images whose class a file finds."""
        session = open_session(path, threads=self.options.threads)
        (given,), pixels = session.get_inputs(), fashion.pixels(self.test[0])
        parts = [pixels[k : k + BATCH] for k in range(0, len(pixels), BATCH)]
        found = np.concatenate([session.run(None, {given.name: part})[0].argmax(1) for part in parts])
        return float((found == self.test[1]).mean())


def one_shot(bench: Bench, asked: ZeroSettings, seed: int) -> dict[str, Any]:
    """A row without training."""
    start = time.perf_counter()
    made = sparsify.sparsify(bench.found, asked, Calibration(bench.found.coupling, bench.source(SAMPLES, seed)))
    with tempfile.TemporaryDirectory() as folder:
        stored = made.save(Path(folder) / "sparse.onnx")
        seconds = time.perf_counter() - start
        accuracy = bench.accuracy(Path(folder) / "sparse.onnx")
    ratio = sum(int((made.array(layer) == 0).sum()) for layer in made.layers) / sum(x.size for x in made.layers)
    row = {"pattern": asked.pattern, "method": asked.method, "protocol": asked.spread(), "found": made.protocol}
    return {**row, "ratio": ratio, "seed": seed, "accuracy": accuracy, "seconds": seconds, "bytes": stored.plain} | {
        "gzip": stored.compressed["gzip"],
        "sparse_initializers": stored.sparse,
    }


def methods(bench: Bench) -> Iterator[dict[str, Any]]:
    """Part ``oneshot``."""
    for method in ("magnitude", "wanda", "sparsegpt", "admm"):
        yield one_shot(bench, ZeroSettings(0.75, method=method, protocol="uniform"), 0)
    yield one_shot(bench, ZeroSettings(0.75, protocol="heurist"), 0)
    for method in ("wanda", "sparsegpt", "admm"):
        yield one_shot(bench, ZeroSettings(None, "2:4", method), 0)


def protocols(bench: Bench) -> Iterator[dict[str, Any]]:
    """Part ``protocols``."""
    for ratio in (0.9, 0.95):
        for seed in range(bench.options.seeds):
            for protocol in ("uniform", "heurist", "search"):
                asked = ZeroSettings(ratio, protocol=protocol, search_work=bench.options.search_work)
                yield one_shot(bench, asked, seed)


def agent(bench: Bench) -> Iterator[dict[str, Any]]:
    """Part ``agent``: roll-outs are judged by labels of training images that are held back."""
    rollouts = bench.options.rollouts
    for ratio in (0.9, 0.95):
        given = {"ws_prune_ratio": ratio, "ws_nb_rlouts": rollouts, "ws_nb_rlouts_min": rollouts // 4, **SHORT}
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            source, val = (
                bench.source(n, 0, begin=begin, labels=True) for begin, n in ((0, SAMPLES), (SAMPLES, JUDGED))
            )
            wanted = WeightSparseSettings(settings(given), one_shot=True)
            task = _job(bench, source, wanted, Training(batch_size=32, folder=Path(folder)), val=val)
            chosen = pipeline.PROTOCOLS["optimal"](task, layers(bench.found.graph.model))
        seconds = time.perf_counter() - start
        for seed in range(bench.options.seeds):
            row = _with(bench, chosen["ratios"], ratio, seed)
            best = chosen["search"]["best"]["score"]
            yield {**row, "rollouts": rollouts, "search_seconds": seconds, "best_score": best}


def _with(bench: Bench, shares: dict[str, float], ratio: float, seed: int) -> dict[str, Any]:
    """A row without training, with shares per layer that were found elsewhere."""
    from unittest import mock

    def chosen(sizes: Any, target: float) -> list[float]:
        return list(shares.values())

    with mock.patch.object(sparsify.ratios, "heurist", chosen):
        row = one_shot(bench, ZeroSettings(ratio, protocol="heurist"), seed)
    return {**row, "protocol": "optimal", "found": "optimal"}


def trained(bench: Bench) -> Iterator[dict[str, Any]]:
    """Part ``trained``."""
    for ratio, (begun, protocol) in product(bench.options.trained, TRAINED):
        given = {"ws_prune_ratio": ratio, "ws_prune_ratio_prtl": protocol, "ws_mask_update_step": 10}
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            training = Training(steps=bench.options.steps, batch_size=64, folder=Path(folder))
            source = bench.source(min(64 * bench.options.steps * 10 // 9 + 64, 60_000), 0)
            wanted = WeightSparseSettings(settings(given), one_shot=begun)
            task = _job(bench, source, wanted, training, output=Path(folder) / "out.onnx")
            assert pipeline.sparsen(task)
            seconds, accuracy = time.perf_counter() - start, bench.accuracy(Path(folder) / "out.onnx")
        row = {"pattern": "unstructured", "method": "one-shot, trained" if begun else "trained", "protocol": protocol}
        row |= {"ratio": ratio, "seed": 0}
        yield {**row, "steps": bench.options.steps, "accuracy": accuracy, "seconds": seconds}


def _job(
    bench: Bench,
    source: Source,
    wanted: WeightSparseSettings,
    training: Training,
    *,
    output: Path = Path("unused.onnx"),
    val: Source | None = None,
) -> Task[WeightSparseSettings]:
    def stage(name: str) -> Callable[..., None]:
        return lambda *said: None

    taught = trainer(bench.found, source, training, World(), val=val, stage=stage)
    return Task(bench.found, source, wanted, taught, output, stage)


PARTS: dict[str, Callable[[Bench], Iterator[dict[str, Any]]]] = {
    "oneshot": methods,
    "protocols": protocols,
    "agent": agent,
    "trained": trained,
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", default=["resnet20"], help="files in the cache")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"where the nets are kept (default {CACHE})")
    parser.add_argument("--data", type=Path, default=fashion.FOLDER, help="folder with the files of Fashion-MNIST")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows, after each of them")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma between several (default {','.join(PARTS)})")
    parser.add_argument("--seeds", type=int, default=3, help="samples drawn anew (default 3)")
    parser.add_argument("--steps", type=int, default=2000, help="of training (default 2000)")
    parser.add_argument("--trained", type=float, nargs="+", default=[0.75, 0.9], help="shares learnt (0.75 0.9)")
    parser.add_argument("--rollouts", type=int, default=200, help="of the agent (default 200)")
    parser.add_argument(
        "--search-work", type=float, default=4e12, help="multiply-accumulates for curves (default 4e12)"
    )
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, test = fashion.read("train", options.data), fashion.read("t10k", options.data)
    rows: list[dict[str, Any]] = []
    for net in options.nets:
        path = options.cache / f"{net}.onnx"
        bench = Bench(slim.analyze(path), path, images, test, options)
        dense = bench.accuracy(path)
        print(f"{net}: dense {dense:.2%}", flush=True)
        for part in options.parts.split(","):
            for row in PARTS[part](bench):
                rows.append({"net": net, "part": part, "dense": dense, **row})
                said = [f"{row[k]}" for k in ("pattern", "method", "protocol", "seed")]
                print(f"{row['ratio']:.2%}", *said, f"{row['accuracy']:.2%} {row['seconds']:.0f} s", flush=True)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
