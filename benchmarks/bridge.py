"""Time a training step of bridged files against the same networks as they are written in PyTorch.

    python -m benchmarks.bridge [--steps N] [--threads N]

Every network is exported with its batch norms kept, bridged with ``norms="batch"``, and trained by SGD beside its
source on the same random images or tokens: forward, backward, update. Steps alternate, the order within a pair is
drawn, and processor time is counted, so that a busy machine disturbs both alike. The ratio is the median over pairs,
with the quartiles; with ``--compile`` both sides go through torch.compile.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nets import exports
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.coupling.normal_form import load

WARM_UP = 3
ALLOWED = 1.1


@dataclass(frozen=True)
class Network:
    """How a network is built, and what it is fed."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]


def vision(name: str, size: int, batch: int, **settings: Any) -> Network:
    """A torchvision network on small images."""
    return Network(
        lambda: getattr(exports.torchvision_models(), name)(weights=None, **settings),
        lambda: (torch.randn(batch, 3, size, size),),
    )


def bert() -> Network:
    """The small BERT of the tests, without dropout."""
    made = exports.NAMES["bert"]

    def build() -> nn.Module:
        net = made.build()
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return net

    return Network(build, lambda: tuple(made.inputs(8).values()))


NETWORKS: dict[str, Network] = {
    "resnet18, 8 x 64 x 64": vision("resnet18", 64, 8),
    "mobilenet_v3_small, 8 x 96 x 96": vision("mobilenet_v3_small", 96, 8, dropout=0.0),
    "efficientnet_b0, 4 x 96 x 96": vision("efficientnet_b0", 96, 4, dropout=0.0, stochastic_depth_prob=0.0),
    "convnext_tiny, 2 x 64 x 64": vision("convnext_tiny", 64, 2, stochastic_depth_prob=0.0),
    "BERT, 4 layers, 8 x 32 tokens": bert(),
}


def exported(network: Network, net: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Path:
    """Write a network with its norms kept."""
    path = folder / "net.onnx"
    settings: dict[str, Any] = {"opset_version": exports.LEGACY_OPSET, "do_constant_folding": False, "dynamo": False}
    settings["training"] = torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), inputs, str(path), **settings)
    return path


def stepper(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """One training step of a module: all its outputs to zero."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        found = module(*inputs)
        outputs = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else (found,)
        loss = torch.stack([value.square().mean() for value in outputs]).sum()
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    """Processor time of a step."""
    started = time.process_time()
    step()
    return time.process_time() - started


def measure(network: Network, steps: int, *, compiled: bool) -> dict[str, Any]:
    """Train a network and its bridged file in turn."""
    torch.manual_seed(0)
    net, inputs = network.build(), network.inputs()
    with tempfile.TemporaryDirectory() as folder:
        path = exported(network, net, inputs, Path(folder))
        module: Any = bridge(load(path), norms="batch")
    sides: list[Any] = [net.train(), module.train()]
    if compiled:
        sides = [torch.compile(side) for side in sides]
    pair = [stepper(side, inputs) for side in sides]
    for step in pair * WARM_UP:
        step()
    shuffle, times = random.Random(0), ([], [])
    for _ in range(steps):
        for side in shuffle.sample((0, 1), 2):
            times[side].append(seconds(pair[side]))
    ratios = sorted(b / a for a, b in zip(*times, strict=True))
    quarters = statistics.quantiles(ratios, n=4)
    return {
        "by hand ms": round(1000 * statistics.median(times[0]), 2),
        "bridged ms": round(1000 * statistics.median(times[1]), 2),
        "ratio": round(quarters[1], 3),
        "quartiles": [round(quarters[0], 3), round(quarters[2], 3)],
        "pairs": steps,
    }


def main() -> None:
    """Measure all networks and print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), allowed ratio {ALLOWED}")
    for name, network in NETWORKS.items():
        found = measure(network, options.steps, compiled=options.compile)
        print(json.dumps({"network": name, **found}), flush=True)


if __name__ == "__main__":
    main()
