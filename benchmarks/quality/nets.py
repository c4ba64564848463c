"""The three nets of the benchmark; each takes grey images ``(N, 1, 28, 28)`` between 0 and 1 and normalises inside."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality.fashion import CLASSES, MEAN, SIDE, STD


def conv_bn(i: int, o: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, and its batch normalisation."""
    conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o))


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al., 2016)."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = conv_bn(i, o, 3, stride), conv_bn(o, o)
        self.shortcut = nn.Identity() if i == o else conv_bn(i, o, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet20(nn.Module):
    """Three stages of three blocks, 16, 32 and 64 channels wide: 31 million MACs."""

    def __init__(self) -> None:
        super().__init__()
        plan = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.stem = conv_bn(1, 16)
        self.blocks = nn.Sequential(*(Block(*sizes) for sizes in plan))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem((x - MEAN) / STD))
        return self.head(self.blocks(x).mean((2, 3)))


class Squeeze(nn.Module):
    """Squeeze and excite, with the hard sigmoid of MobileNetV3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """Widen, depthwise, squeeze and excite, narrow (Howard et al., 2019)."""

    def __init__(self, i: int, hidden: int, o: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(i, hidden, 1),
            nn.Hardswish(),
            conv_bn(hidden, hidden, kernel, stride, hidden),
            nn.Hardswish(),
            Squeeze(hidden),
            conv_bn(hidden, o, 1),
        )
        self.residual = i == o and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNet(nn.Module):
    """A MobileNetV3 for small images."""

    def __init__(self) -> None:
        super().__init__()
        plan = [(16, 64, 24, 3, 2), (24, 96, 24, 3, 1), (24, 96, 40, 5, 2)]
        plan += [(40, 160, 40, 5, 1)] * 2 + [(40, 192, 64, 5, 1), (64, 256, 64, 5, 1)]
        self.stem = nn.Sequential(conv_bn(1, 16), nn.Hardswish())
        self.blocks = nn.Sequential(*(Inverted(*sizes) for sizes in plan))
        self.last = nn.Sequential(conv_bn(64, 256, 1), nn.Hardswish())
        self.head = nn.Sequential(nn.Linear(256, 128), nn.Hardswish(), nn.Linear(128, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem((x - MEAN) / STD)))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Self-attention whose queries, keys and values come from one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.scale = self.size**-0.5  # stays when heads get smaller
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, self.heads * self.size))


class Layer(nn.Module):
    """Attention and a two-layer perceptron, normalised before (Dosovitskiy et al., 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer over patches of 4×4 pixels, with the mean of all tokens as its feature."""

    def __init__(self, width: int = 64, depth: int = 6, heads: int = 4, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.position = nn.Parameter(torch.randn(1, (SIDE // patch) ** 2, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches((x - MEAN) / STD).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.layers(x)).mean(1))


NETS: dict[str, Callable[[], nn.Module]] = {"resnet20": ResNet20, "mobilenet": MobileNet, "vit": ViT}
