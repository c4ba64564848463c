"""Small nets with real data, each trained in seconds to a minute and kept, by which repair without data is judged.

Most know scikit-learn's digits, two Fashion-MNIST, and one how pages are turned: mostly white, with lines of digits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality import fashion
from benchmarks.quality.nets import Block, Inverted, Layer, conv_bn
from benchmarks.quality.train import fold

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "quality" / "small"
BATCH = 64
PAGE, LINE = 48, 10  # pixels
SEED = 0


@dataclass(frozen=True)
class Data:
    """Samples of one kind, in two parts.

    Attributes:
        images, labels: To train on.
        test, classes: To judge by.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    test: NDArray[np.float32]
    classes: NDArray[np.int64]

    def mapped(self, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Data:
        """The same samples, prepared in another way."""
        return Data(change(self.images), self.labels, change(self.test), self.classes)


def digits() -> Data:
    """Grey images of 8x8 between 0 and 1, 1,297 and 500 of them."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    images, labels = (images[order].reshape(-1, 1, 8, 8) / 16).astype(np.float32), labels[order].astype(np.int64)
    return Data(images[:-500], labels[:-500], images[-500:], labels[-500:])


def clothes() -> Data:
    """12,000 and 2,000 images of Fashion-MNIST, mean and deviation taken out, as scripts do outside the net."""
    found = []
    for part, count in (("train", 12000), ("t10k", 2000)):
        images, labels = fashion.read(part)
        found += [(fashion.pixels(images[:count]) - fashion.MEAN) / fashion.STD, labels[:count]]
    return Data(*found)


def pages() -> Data:
    """White pages of 48x48 with lines of dark digits, turned by quarters: 3,000 and 600 of them."""
    known, rng = digits(), np.random.default_rng(SEED)
    parts = []
    for source, count in ((known.images, 3000), (known.test, 600)):
        classes = rng.integers(0, 4, count)
        drawn = [np.rot90(_page(source[:, 0], rng), k) for k in classes]
        parts += [np.stack(drawn)[:, None].astype(np.float32), classes.astype(np.int64)]
    return Data(*parts)


def _page(glyphs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    page = np.ones((PAGE, PAGE), np.float32)
    for top in range(int(rng.integers(2, 6)), PAGE - LINE, LINE + int(rng.integers(0, 8))):
        for left in range(int(rng.integers(2, 8)), int(rng.integers(16, PAGE - 8)), 8):
            page[top : top + 8, left : left + 8] -= glyphs[rng.integers(len(glyphs))]
    return page


# --- nets -------------------------------------------------------------------------------------------------------------


class Perceptron(nn.Module):
    """Two hidden layers over flat images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def plain(widths: tuple[int, ...], classes: int = 10, step: int = 2) -> nn.Module:
    """Convolutions with batch normalisation, each ``step``-th of which halves the sides."""
    sizes = list(zip((1, *widths[:-1]), widths, strict=True))
    parts = [nn.Sequential(conv_bn(i, o, 3, 1 + (k % step == step - 1)), nn.ReLU()) for k, (i, o) in enumerate(sizes)]
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))
    return nn.Sequential(*parts, pooled)


def residual(widths: tuple[int, ...]) -> nn.Module:
    """A small ResNet."""
    pairs = list(zip((widths[0], *widths), widths, strict=False))
    blocks = [Block(i, o, 1 if i == o else 2) for i, o in pairs]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))
    return nn.Sequential(conv_bn(1, widths[0]), nn.ReLU(), *blocks, *head)


def mobile(plan: tuple[tuple[int, int, int, int], ...]) -> nn.Module:
    """A small MobileNetV3: input, hidden and output channels, and stride of every block."""
    blocks = [Inverted(i, hidden, o, 3, stride) for i, hidden, o, stride in plan]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(plan[-1][2], 10))
    return nn.Sequential(conv_bn(1, plan[0][0]), nn.Hardswish(), *blocks, *head)


class Transformer(nn.Module):
    """A vision transformer over patches of 2x2 pixels."""

    def __init__(self, width: int = 48, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.layers(x)).mean(1))


@dataclass(frozen=True)
class Small:
    """A net of the benchmark.

    Attributes:
        net: Makes it, untrained.
        data: What it is trained and judged on.
        epochs: How often it sees that.
        folded: Whether batch normalisations are folded into convolutions, as exporters do.
    """

    net: Callable[[], nn.Module]
    data: Callable[[], Data]
    epochs: int
    folded: bool = True


def _flat() -> Data:
    return digits().mapped(lambda x: x.reshape(len(x), -1))


def _centred() -> Data:
    return digits().mapped(lambda x: (x - 0.305) / 0.376)


STAGES = ((16, 48, 24, 1), (24, 72, 24, 1), (24, 72, 40, 2), (40, 120, 40, 1))
SMALL: dict[str, Small] = {
    "digits perceptron": Small(Perceptron, _flat, 30),
    "digits convolutions": Small(lambda: plain((16, 24, 32, 48)), digits, 12),
    "digits convolutions, norms kept": Small(lambda: plain((16, 24, 32, 48)), digits, 12, folded=False),
    "digits residual": Small(lambda: residual((16, 16, 32, 32)), _centred, 12),
    "digits mobile, norms kept": Small(lambda: mobile(STAGES), _centred, 20, folded=False),
    "digits transformer": Small(Transformer, digits, 40),
    "pages": Small(lambda: plain((12, 16, 24, 32, 32, 48), 4), pages, 4),
    "clothes convolutions": Small(lambda: plain((16, 24, 32, 48, 64)), clothes, 3),
    "clothes residual, norms kept": Small(lambda: residual((12, 12, 24, 48)), clothes, 3, folded=False),
}


def train(net: nn.Module, data: Data, epochs: int) -> None:
    """Train a net in place, by one cycle of the learning rate."""
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(images[chosen]), labels[chosen], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()


def model(name: str, cache: Path = CACHE, nets: Mapping[str, Small] = SMALL) -> Path:
    """The ONNX file of a net, trained unless the cache has it."""
    path = cache / f"{name.replace(', ', '-').replace(' ', '-')}.onnx"
    if path.is_file():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    small = nets[name]
    data = small.data()
    net = small.net()
    train(net, data, small.epochs)
    if small.folded:
        fold(net.eval())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.from_numpy(data.test[:2]),),
            str(path.with_suffix(".part")),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    path.with_suffix(".part").rename(path)
    return path
