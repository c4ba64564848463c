"""Widths alike, widths that ``slim`` finds, and learnt widths, trained equally long, where widths do not suit the task.

    python -m benchmarks.learn.widths ["digits vgg" ...] [--shares 0.5,0.3,0.15] [--methods alike,...] [--steps N] ...

Each net is trained first, in seconds, and kept. No method sees labels: the net itself teaches, on the images it was
trained on; what is right is counted on images of others, and so is how far outputs are from the original's (KL
divergence, nats). Results are added to a JSON file, one row a run.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from benchmarks.learn.nets import NETS
from benchmarks.quality import small
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.source import Source
from onnxslim_learn.learners import narrow
from onnxslim_learn.learners.finetune import fit
from onnxslim_learn.learners.morphnet.pipeline import shrink
from onnxslim_learn.learners.morphnet.settings import MorphNetSettings
from onnxslim_learn.learners.settings import NarrowSettings
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.train.distributed import World
from onnxslim_learn.train.trainer import Task, Training, trainer
from onnxslim_learn.workflow import slim

SAMPLES = 512  # to choose by and to repair on


def quiet(name: str, *rest: object) -> Callable[..., None]:
    """Say nothing."""
    return lambda step, numbers=None: None


@dataclass(frozen=True)
class Bench:
    """One net, and how it is cut.

    Attributes:
        name: Of :data:`benchmarks.learn.nets.NETS`.
        share: Of the MACs.
        options: The command line's.
    """

    name: str
    share: float
    options: argparse.Namespace

    @cached_property
    def data(self) -> small.Data:
        """Its images."""
        return NETS[self.name].data()

    @cached_property
    def net(self) -> slim.Analysis:
        """The net itself."""
        return slim.analyze(small.model(self.name, self.options.cache, NETS))

    @cached_property
    def source(self) -> Source:
        """Images without labels."""
        return open_source({"image": self.data.images}, self.net.graph, DataSettings(samples=10**9, batch_size=64))

    def task(self, folder: Path, wanted: Any, learning: int, after: int) -> Task[Any]:
        """What to train, towards what the original puts out."""
        training = Training(learning, after, seed=self.options.seed, folder=folder / "run", every=10**9)
        net = self.net
        taught = trainer(net, self.source, training, World(), teacher=self.net, stage=quiet)
        return Task(net, self.source, wanted, taught, folder / "out.onnx", quiet)

    def plan(self, *, work: float | None) -> Plan:
        """Widths that ``slim`` finds with so much work."""
        calibration = Calibration(self.net.coupling, self.source, SAMPLES, work=work)
        return slim.plan(self.net, {"macs": self.share}, calibration=calibration)


def alike(bench: Bench, folder: Path) -> None:
    """All groups narrowed alike."""
    task = bench.task(folder, MorphNetSettings({"macs": bench.share}), 1, bench.options.steps)
    assert fit(task, task.trainer.module(bench.net), bench.plan(work=0), {"history": []})


def found(bench: Bench, folder: Path) -> None:
    """Widths that ``slim`` finds."""
    task = bench.task(folder, MorphNetSettings({"macs": bench.share}), 1, bench.options.steps)
    assert fit(task, task.trainer.module(bench.net), bench.plan(work=None), {"history": []})


def learnt(bench: Bench, folder: Path, **settings: Any) -> None:
    """Widths learnt in a fifth of the steps."""
    steps = bench.options.steps
    wanted = MorphNetSettings({"macs": bench.share}, multiple=1, **settings)
    assert shrink(bench.task(folder, wanted, steps // 5, steps - steps // 5))


def staged(bench: Bench, folder: Path) -> None:
    """Widths that ``slim`` finds, narrowed in three stages with a little training between them."""
    between = bench.options.steps * 3 // 10
    wanted = NarrowSettings({"macs": bench.share}, multiple=1)
    assert narrow.run(bench.task(folder, wanted, between, bench.options.steps - between))


METHODS: dict[str, Callable[[Bench, Path], None]] = {
    "alike": alike,
    "slim": found,
    "narrow": staged,
    "morphnet": learnt,
    "morphnet, no floor": lambda bench, folder: learnt(bench, folder, least_width=0.0),
    "morphnet, branches may go": lambda bench, folder: learnt(bench, folder, allow_empty=True),
}


def judged(bench: Bench, model: Path) -> dict[str, float]:
    """What a file gets right, and how far it is from the original."""
    data = bench.data
    run = [onnxruntime.InferenceSession(str(path)) for path in (bench.net.graph.source, model)]
    before, after = (torch.from_numpy(one.run(None, {"image": data.test})[0]).log_softmax(1) for one in run)
    right = [float((one.argmax(1).numpy() == data.classes).mean()) for one in (before, after)]
    return {
        "dense": right[0],
        "accuracy": right[1],
        "divergence": float((before.exp() * (before - after)).sum(1).mean()),
    }


def one(bench: Bench, method: str) -> dict[str, Any]:
    """One run of one method."""
    cpu, options = time.process_time(), bench.options
    with tempfile.TemporaryDirectory() as place:
        METHODS[method](bench, Path(place))
        result = slim.analyze(Path(place) / "out.onnx")
        told = judged(bench, Path(place) / "out.onnx")
    return {
        "net": bench.name,
        "method": method,
        "share": bench.share,
        "macs": result.price(result.whole)["macs"] / bench.net.price(bench.net.whole)["macs"],
        **told,
        "widths": {group.name: group.width for group in result.groups},
        "steps": options.steps,
        "seed": options.seed,
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", default=list(NETS)[:4], help=", ".join(NETS))
    parser.add_argument("--shares", default="0.5,0.3,0.15", help="of the MACs")
    parser.add_argument("--methods", default=";".join(METHODS), help=f"(default {';'.join(METHODS)})")
    parser.add_argument("--steps", type=int, default=500, help="of training, all in all")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--cache", type=Path, default=small.CACHE, help="where nets are kept")
    parser.add_argument("--json", type=Path, default=Path("widths.json"), help="results are added to it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.nets:
        for seed in map(int, options.seeds.split(",")):
            for share in map(float, options.shares.split(",")):
                for method in options.methods.split(";"):
                    bench = Bench(name, share, argparse.Namespace(**{**vars(options), "seed": seed}))
                    row = one(bench, method)
                    said = f"{row['accuracy']:.2%} (dense {row['dense']:.2%}), {row['divergence']:.4f} nats"
                    print(f"{name}, {share:.0%}, {seed}, {method}: {said}, {row['cpu_seconds']} s", flush=True)
                    rows = json.loads(options.json.read_text()) if options.json.is_file() else []
                    options.json.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
