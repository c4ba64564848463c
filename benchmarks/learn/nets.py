"""Nets whose widths do not suit their task: doubled where no more is needed, branches that add little, wide insides."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality.nets import Layer, conv_bn
from benchmarks.quality.small import SEED, Data, Small, clothes, digits, mobile

TIMES, NOISE = 6, 0.3  # images made of each digit, and the deviation of what is added to their pixels


def worn() -> Data:
    """Digits moved by up to a pixel under noise: 7,782 images of 8x8 to train on, and 3,000 of other digits."""
    known, rng = digits(), np.random.default_rng(SEED)
    return Data(
        _worn(known.images, rng), known.labels.repeat(TIMES), _worn(known.test, rng), known.classes.repeat(TIMES)
    )


def _worn(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    padded = np.pad(images.repeat(TIMES, axis=0), ((0, 0), (0, 0), (1, 1), (1, 1)))
    places = rng.integers(0, 3, (len(padded), 2))
    cut = np.stack([x[:, i : i + 8, j : j + 8] for x, (i, j) in zip(padded, places, strict=True)])
    result: NDArray[np.float32] = (cut + NOISE * rng.standard_normal(cut.shape)).astype(np.float32)
    return result


def halved() -> Data:
    """12,000 and 2,000 images of Fashion-MNIST at half their resolution."""
    return clothes().mapped(lambda x: x.reshape(len(x), 1, 14, 2, 14, 2).mean((3, 5)))


def conv(i: int, o: int, kernel: int = 3) -> nn.Sequential:
    """A convolution, its batch normalisation, and a ReLU."""
    return nn.Sequential(conv_bn(i, o, kernel), nn.ReLU())


class VGG(nn.Module):
    """Six 3x3 convolutions whose widths double where the resolution halves, and a hidden layer (VGG-11)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32), (32, 64, 64), (64, 128, 128)
        self.stages = nn.Sequential(*(nn.Sequential(conv(i, m), conv(m, o)) for i, m, o in widths))
        self.head = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = F.max_pool2d(stage(x), 2)
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):
    """Four branches side by side (Szegedy et al., 2015): 1x1; 3x3 and 5x5 behind 1x1; pooled."""

    def __init__(self, i: int, width: int) -> None:
        super().__init__()
        self.one, self.pooled = conv(i, width, 1), conv(i, width, 1)
        self.three = nn.Sequential(conv(i, width, 1), conv(width, width, 3))
        self.five = nn.Sequential(conv(i, width, 1), conv(width, width, 5))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat([self.one(x), self.three(x), self.five(x), pooled], 1)


class Inception(nn.Module):
    """A convolution and three modules of four branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 16)
        self.first, self.second, self.third = Branches(16, 12), Branches(48, 16), Branches(64, 24)
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.max_pool2d(self.first(self.stem(x)), 2))
        return self.head(self.third(F.max_pool2d(x, 2)).mean((2, 3)))


class Transformer(nn.Module):
    """A vision transformer over patches of 2x2 pixels."""

    def __init__(self, side: int, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.position = nn.Parameter(torch.randn(1, (side // 2) ** 2, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.layers(x)).mean(1))


WIDE = ((16, 96, 24, 1), (24, 144, 24, 1), (24, 144, 40, 2), (40, 240, 40, 1))  # twice the usual insides

DATA = {"digits": (worn, 8, 8), "clothes": (halved, 14, 3)}  # samples, side of an image, epochs of training
NETS: dict[str, Small] = {
    f"{data} {name}": Small(net, read, epochs, folded=False)
    for data, (read, side, epochs) in DATA.items()
    for name, net in {
        "vgg": VGG,
        "inception": Inception,
        "wide mobilenet": lambda: mobile(WIDE),
        "vit": lambda side=side: Transformer(side),
    }.items()
}
