"""Learn widths on Fashion-MNIST by self-distillation without labels, and count what is right on the test images.

    python -m benchmarks.learn.run [--net resnet20_bn] [--shares 0.5,0.3] [--methods morphnet,...] [--steps N] ...

Nets come from ``benchmarks.quality.train``. Every method trains equally long from end to end:

* ``morphnet``: the widths are learnt under a regularizer on MACs, then the weights are fine-tuned.
* ``uniform``: all groups are narrowed alike by the default criterion and repaired; fine-tuned for all steps.
* ``latency``: as ``morphnet``, charged for measured latency, down to that share of it.
* ``cycle``: what ``morphnet`` left is widened to the MACs of the original, and trained.
* ``further``: the original itself, trained as long as ``cycle``, to compare with.

Results are added to a JSON file, one row a run; models are kept in a folder, since methods go on from one another.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.quality import fashion
from benchmarks.quality.train import CACHE
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.data.source import Source
from onnxslim_learn.latency.profile import RuntimeSetting
from onnxslim_learn.learners.finetune import finetune, fit
from onnxslim_learn.learners.morphnet.pipeline import shrink
from onnxslim_learn.learners.morphnet.settings import MorphNetSettings
from onnxslim_learn.runtime import timing
from onnxslim_learn.runtime.session import CPU
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.trainer import Task, Training, trainer
from onnxslim_learn.workflow import expand, latency_target, slim

BATCH = 250
REPAIRED = 512  # samples
TIMED = 5.0  # seconds for comparing two models


def told(name: str, *rest: object) -> Callable[..., None]:
    """Say which stage it is, and every hundred steps how it goes."""
    print(f"  {name}", flush=True)

    def show(step: object, numbers: object = None) -> None:
        if isinstance(step, int) and isinstance(numbers, dict) and step % 100 == 0:
            print(f"    {step}: " + ", ".join(f"{k} {v:.3g}" for k, v in numbers.items()), flush=True)

    return show


@dataclass(frozen=True)
class Bench:
    """One net.

    Attributes:
        found: The net.
        options: The command line's.
    """

    found: slim.Analysis
    options: argparse.Namespace

    @property
    def net(self) -> Path:
        """Its file."""
        assert isinstance(self.found.graph.source, Path)
        return self.found.graph.source

    def output(self, method: str, share: float) -> Path:
        """Where a method's result is."""
        options = self.options
        steps = f"_x{options.multiple}" if options.multiple > 1 else ""
        return options.folder / f"{self.net.stem}_{method}_{share:g}_{options.seed}{steps}.onnx"

    @cached_property
    def source(self) -> Source:
        """Training images."""
        images, labels = fashion.read("train")
        arrays: dict[str, Any] = {str(self.found.graph.model.graph.inputs[0].name): fashion.pixels(images)}
        if "cross-entropy" in self.options.loss:
            arrays["labels"] = labels
        return open_source(arrays, self.found.graph, DataSettings(samples=self.options.samples, batch_size=64))

    def task(self, found: slim.Analysis, target: dict[str, float], output: Path, folder: str) -> Task[MorphNetSettings]:
        """What to train, towards what the original puts out."""
        options = self.options
        training = Training(
            options.steps,
            options.finetune_steps,
            loss=options.loss,
            finetune_rate=options.finetune_rate,
            seed=options.seed,
            folder=Path(folder),
            every=10**9,
        )
        taught = trainer(found, self.source, training, World(), teacher=self.found, stage=told)
        wanted = MorphNetSettings(target, multiple=options.multiple)
        return Task(found, self.source, wanted, taught, output, told)


def longer(task: Task[MorphNetSettings]) -> Task[MorphNetSettings]:
    """The same, with the steps of learning added to those of fine-tuning."""
    training = task.trainer.training
    steps = (training.steps or 0) + (training.finetune_steps or 0)
    return replace(task, trainer=replace(task.trainer, training=replace(training, finetune_steps=steps)))


def morphnet(bench: Bench, share: float, output: Path, folder: str) -> None:
    """Widths learnt for MACs."""
    assert shrink(bench.task(bench.found, {"macs": share}, output, folder))


def uniform(bench: Bench, share: float, output: Path, folder: str) -> None:
    """All groups alike."""
    task = longer(bench.task(bench.found, {"macs": share}, output, folder))
    calibration = Calibration(bench.found.coupling, bench.source, REPAIRED, work=0)
    plan = slim.plan(bench.found, {"macs": share}, multiple=bench.options.multiple, calibration=calibration)
    assert fit(task, task.trainer.module(bench.found), plan, {"history": []})


def by_latency(bench: Bench, share: float, output: Path, folder: str) -> None:
    """Widths learnt for measured latency."""
    setting = RuntimeSetting(bench.options.threads)
    timed, _ = latency_target.prepare(bench.found, setting, seconds=TIMED, measure_seconds=None, stage=told)
    assert shrink(bench.task(timed, {"latency": share}, output, folder))


def cycle(bench: Bench, share: float, output: Path, folder: str) -> None:
    """Narrow, widen, train."""
    wide = Path(folder) / "wide.onnx"
    thin = slim.analyze(bench.output("morphnet", share))
    made = expand.expand(thin, expand.Widening({"macs": 1.0}, like=bench.found), wide)
    print(f"  widened by {made.factor:.3f}", flush=True)
    assert finetune(longer(bench.task(slim.analyze(wide), {}, output, folder)))


def further(bench: Bench, share: float, output: Path, folder: str) -> None:
    """Train the original on."""
    task = longer(bench.task(bench.found, {}, output, folder))
    training = task.trainer.training
    both = replace(training, finetune_steps=2 * (training.finetune_steps or 0))
    assert finetune(replace(task, trainer=replace(task.trainer, training=both)))


METHODS: dict[str, Callable[[Bench, float, Path, str], None]] = {
    "morphnet": morphnet,
    "uniform": uniform,
    "latency": by_latency,
    "cycle": cycle,
    "further": further,
}


def accuracy(model: Path) -> float:
    """Share of test images whose class a file finds."""
    images, labels = fashion.read("t10k")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    pixels = fashion.pixels(images)
    outputs = [session.run(None, {name: pixels[k : k + BATCH]})[0] for k in range(0, len(pixels), BATCH)]
    return float((np.concatenate(outputs).argmax(1) == labels).mean())


def ratio(bench: Bench, model: Path) -> float:
    """A model's latency over the original's, measured side by side."""
    threads = bench.options.threads
    feeds = random_inputs(bench.found.coupling, bench.found.graph.shapes.nominal)
    clock = timing.steady_clock(threads, CPU)
    timed = timing.measure([bench.net, model], [feeds, feeds], threads=threads, seconds=TIMED, clock=clock)
    return timing.compare(timed, 1, quantile=latency_target.QUIET).median


def one(bench: Bench, method: str, share: float) -> dict[str, object]:
    """One run of one method."""
    start, cpu, options = time.perf_counter(), time.process_time(), bench.options
    output = bench.output(method, share)
    with tempfile.TemporaryDirectory() as folder:
        METHODS[method](bench, share, output, folder)
    made = slim.analyze(output)
    return {
        "net": bench.net.stem,
        "method": method,
        "share": share,
        "macs": made.price(made.whole)["macs"] / bench.found.price(bench.found.whole)["macs"],
        "latency": ratio(bench, output),
        "accuracy": accuracy(output),
        "dense": accuracy(bench.net),
        "widths": {group.name: group.width for group in made.groups},
        **{name: getattr(options, name) for name in ("steps", "finetune_steps", "samples", "seed", "loss", "multiple")},
        "seconds": round(time.perf_counter() - start),
        "cpu_seconds": round(time.process_time() - cpu),
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", default="resnet20_bn", help="file in the cache, without .onnx")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"where the nets are (default {CACHE})")
    parser.add_argument("--shares", default="0.5,0.3", help="of the MACs, or of the latency")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"(default {','.join(METHODS)})")
    parser.add_argument("--steps", type=int, default=600, help="of structure learning")
    parser.add_argument("--finetune-steps", type=int, default=4000)
    parser.add_argument("--finetune-rate", type=float, help="highest learning rate (default: by the model)")
    parser.add_argument("--loss", default="distill", help="as of the command learn (default distill: no labels)")
    parser.add_argument("--samples", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--multiple", type=int, default=1, help="of which widths are (default 1)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("learnt"), help="for the models")
    parser.add_argument("--json", type=Path, default=Path("learn.json"), help="results are added to it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(slim.analyze(options.cache / f"{options.net}.onnx"), options)
    for share in map(float, options.shares.split(",")):
        for method in options.methods.split(","):
            print(f"{options.net}, {method}, {share:.0%}", flush=True)
            row = one(bench, method, share)
            said = f"  {row['accuracy']:.2%} (dense {row['dense']:.2%}), {row['macs']:.1%} of the MACs"
            print(f"{said}, {row['latency']:.3f} of the latency, {row['cpu_seconds']} s", flush=True)
            rows = json.loads(options.json.read_text()) if options.json.is_file() else []
            options.json.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
