"""Time a step of learning widths against the same step written by hand in torch.

    python -m benchmarks.learn.steps [NET ...] [--steps N] [--on cuda]

By hand: a batch is picked, the net runs, its outputs are compared with the teacher's (known ahead on both sides),
gradients are clipped, AdamW steps. Ours does that on the bridged file of the same net, and learns widths beside it:
strengths are read, charged and lowered, and the structure is looked at every five steps. Steps alternate, the order
within a pair is drawn, processor time is counted (on a GPU, time until it is done); the ratio is that of the sums, so
that rare work counts, too.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.learn.nets import VGG, Inception
from benchmarks.quality.nets import ResNet20
from benchmarks.quality.train import export
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.learners.morphnet import strengths
from onnxslim_learn.learners.morphnet.learner import Control, MorphNet, ties
from onnxslim_learn.learners.morphnet.pipeline import _space
from onnxslim_learn.learners.morphnet.settings import GAMMA, MorphNetSettings
from onnxslim_learn.train.distributed import World, join
from onnxslim_learn.train.loop import Keeping, LoopTask, _Run
from onnxslim_learn.train.trainer import Training, trainer
from onnxslim_learn.workflow.slim import analyze

BATCH, IMAGES, WARM_UP, TEMPERATURE = 64, 512, 10, 4.0
NETS: dict[str, Callable[[], nn.Module]] = {"resnet20": ResNet20, "vgg": VGG, "inception": Inception}
ALLOWED = 1.05


def by_hand(net: nn.Module, images: torch.Tensor, wanted: torch.Tensor) -> Callable[[int], None]:
    """A step as people write it; statistics of normalisations stay, as they do in ours."""
    net.eval()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    order = torch.Generator().manual_seed(0)
    where = images.device

    def step(number: int) -> None:
        chosen = torch.randperm(IMAGES, generator=order)[:BATCH].to(where)
        optimizer.zero_grad(set_to_none=True)
        logits = F.log_softmax(net(images[chosen]) / TEMPERATURE, 1)
        teacher = F.log_softmax(wanted[chosen] / TEMPERATURE, 1)
        loss = F.kl_div(logits, teacher, reduction="batchmean", log_target=True) * TEMPERATURE**2
        if not torch.isfinite(loss):
            raise ArithmeticError("the loss is not finite")
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        loss.item()

    return step


@contextmanager
def ours(net: nn.Module, images: np.ndarray[Any, Any], steps: int, world: World) -> Iterator[Callable[[int], None]]:
    """A step that learns widths on the way to half of the MACs."""
    with tempfile.TemporaryDirectory() as folder:
        export(net, Path(folder) / "net.onnx")
        analysis = analyze(Path(folder) / "net.onnx")
        source = open_source({"image": images}, analysis.graph, DataSettings(samples=IMAGES))
        training = Training(steps, steps, BATCH, rate=1e-4, folder=Path(folder))
        taught = trainer(analysis, source, training, world, val=source, stage=lambda name: lambda *told: None)
        module, recipe = taught.module(analysis), taught.recipe(analysis.graph, "steps")
        space = _space(analysis, MorphNetSettings({"macs": 0.5}))
        read = strengths.read(module, analysis, space.groups, GAMMA, ties=ties(space.groups, space.bonds))
        learner = MorphNet(space, read, Control(1e-3), recipe, {})
        task = LoopTask(module, taught.objective, taught.samples, taught.teacher, recipe)
        run = _Run(task, learner, Keeping())
        yield lambda number: run.step(number, run.steps[number]) and None


def now(device: torch.device) -> float:
    """Seconds of processor time, or on a GPU seconds until everything is done."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(make: Callable[[], nn.Module], steps: int, world: World) -> dict[str, float]:
    """Take steps of both kinds in turn."""
    torch.manual_seed(0)
    net, device = make(), world.device
    images = np.random.default_rng(0).random((IMAGES, 1, 28, 28), np.float32)
    with ours(net, images, steps + WARM_UP, world) as learning:
        there = torch.from_numpy(images).to(device)
        with torch.no_grad():
            wanted = net.to(device).eval()(there)
        sides, order = (by_hand(net, there, wanted), learning), random.Random(0)
        spent = np.zeros(2)
        for number in range(-WARM_UP, steps):
            for side in order.sample((0, 1), 2):
                begun = now(device)
                sides[side](number + WARM_UP)
                spent[side] += (now(device) - begun) * (number >= 0)
    return {
        **dict(zip(("by hand ms", "ours ms"), np.round(1000 * spent / steps, 2), strict=True)),
        "ratio": round(spent[1] / spent[0], 3),
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="*", default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--on", default="cpu", choices=("cpu", "cuda"), help="where steps are taken (default cpu)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    world = join(options.on)
    print(f"torch {torch.__version__}, {options.threads} thread(s), allowed ratio {ALLOWED}")
    for name in options.nets:
        print(json.dumps({"net": name, **measure(NETS[name], options.steps, world)}), flush=True)


if __name__ == "__main__":
    main()
