"""Train the benchmark's nets on Fashion-MNIST and write them as ONNX files: about half an hour on two cores, once.

    python -m benchmarks.quality.train [NET ...] [--sides 16,28] [--cache FOLDER] [--data FOLDER] [--threads N]

A net that is in the cache already is not trained again; each file is written as soon as its net is trained.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality import fashion
from benchmarks.quality.nets import NETS

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "quality"
BATCH = 256
SMOOTHING = 0.1
SHIFT = 2  # pixels


@dataclass(frozen=True)
class Recipe:
    """How a net is trained: one cycle of the learning rate over all epochs (Smith, 2018).

    Attributes:
        sides: Side of the images in each epoch: convolutional nets learn most of what they need on small ones.
        rate: The highest learning rate.
        decay: Weight decay.
        optimizer: The class; SGD has Nesterov momentum.
    """

    sides: tuple[int, ...]
    rate: float
    decay: float
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD

    def make(self, net: nn.Module) -> torch.optim.Optimizer:
        """An optimizer that decays matrices and kernels only."""
        wide = [p for p in net.parameters() if p.ndim > 1]
        rest = [p for p in net.parameters() if p.ndim <= 1]
        groups = [{"params": wide, "weight_decay": self.decay}, {"params": rest, "weight_decay": 0.0}]
        momentum = {"momentum": 0.9, "nesterov": True} if self.optimizer is torch.optim.SGD else {}
        return self.optimizer(groups, lr=self.rate, **momentum)


RECIPES = {
    "resnet20": Recipe((16, 16, 20, 20, 28, 28, 28), 0.4, 5e-4),
    "mobilenet": Recipe((16, 16, 20, 20, 28, 28), 0.2, 2e-4),
    "vit": Recipe((28,) * 7, 2e-3, 5e-2, torch.optim.AdamW),
}

# File -> whether batch normalisation stays in it. Exporters fold it into the convolution before it.
FILES = {
    "resnet20": {"resnet20": False, "resnet20_bn": True},
    "mobilenet": {"mobilenet": False, "mobilenet_bn": True},
    "vit": {"vit": False},
}


def batches(images: Tensor, labels: Tensor, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, every image flipped by chance, every batch shifted by up to two pixels."""
    for chosen in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
        x = images[chosen]
        x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, x.flip(3), x)
        down, right = torch.randint(2 * SHIFT + 1, (2,)).tolist()
        x = F.pad(x, (SHIFT,) * 4)[..., down : down + fashion.SIDE, right : right + fashion.SIDE]
        if side != fashion.SIDE:
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        yield x.contiguous(memory_format=torch.channels_last), labels[chosen]


def train(net: nn.Module, recipe: Recipe, images: Tensor, labels: Tensor) -> None:
    """Train a net in place."""
    net.train().to(memory_format=torch.channels_last)
    optimizer = recipe.make(net)
    steps = len(images) // BATCH * len(recipe.sides)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=0.25)
    for epoch, side in enumerate(recipe.sides):
        start, total = time.perf_counter(), 0.0
        for x, y in batches(images, labels, side):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(net(x), y, label_smoothing=SMOOTHING)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        mean = total / (len(images) // BATCH)
        print(f"  epoch {epoch + 1}, side {side}: loss {mean:.3f}, {time.perf_counter() - start:.0f} s", flush=True)


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose class the net finds."""
    right = [(net(x).argmax(1) == y).sum() for x, y in zip(images.split(500), labels.split(500), strict=True)]
    return float(torch.stack(right).sum()) / len(images)


def fold(net: nn.Module) -> None:
    """Fold every batch normalisation into the convolution before it, in place."""
    for parent in list(net.modules()):
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
                conv.weight, conv.bias = fused.weight, fused.bias
                setattr(parent, name, nn.Identity())


def export(net: nn.Module, path: Path) -> None:
    """Write a net as an ONNX file whose batch is open and whose batch normalisations stay as they are."""
    kept = torch.onnx.TrainingMode.PRESERVE  # in any other mode the exporter folds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.rand(2, 1, fashion.SIDE, fashion.SIDE),),
            str(path.with_suffix(".part")),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=17,
            training=kept,
            dynamo=False,
        )
    path.with_suffix(".part").rename(path)


def load(name: str, cache: Path = CACHE) -> nn.Module:
    """A trained net from the cache, with its batch normalisations."""
    net = NETS[name]()
    net.load_state_dict(torch.load(cache / f"{name}.pt", weights_only=True))
    return net.eval()


def make(name: str, recipe: Recipe, cache: Path, data: Path) -> None:
    """Train a net unless the cache has it, and write its ONNX files."""
    weights = cache / f"{name}.pt"
    torch.manual_seed(0)
    if not weights.is_file():
        images, labels = fashion.read("train", data)
        net = NETS[name]()
        print(f"{name}: {sum(p.numel() for p in net.parameters())} parameters", flush=True)
        train(net, recipe, torch.from_numpy(fashion.pixels(images)), torch.from_numpy(labels))
        images, labels = fashion.read("t10k", data)
        found = accuracy(net.eval(), torch.from_numpy(fashion.pixels(images)), torch.from_numpy(labels))
        print(f"{name}: {found:.2%} of the test images", flush=True)
        torch.save(net.state_dict(), weights.with_suffix(".part"))
        weights.with_suffix(".part").rename(weights)
    for file, kept in FILES[name].items():
        net = load(name, cache)
        if not kept:
            fold(net)
        export(net, cache / f"{file}.onnx")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"where the nets are kept (default {CACHE})")
    parser.add_argument("--data", type=Path, default=fashion.FOLDER, help="folder with the files of Fashion-MNIST")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--sides", type=_sides, help="of the images in each epoch (default: the recipe's)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.nets:
        recipe = replace(RECIPES[name], sides=options.sides) if options.sides else RECIPES[name]
        make(name, recipe, options.cache, options.data)


def _sides(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


if __name__ == "__main__":
    main()
