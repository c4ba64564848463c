"""Small nets of torch, exported: what real exporters write and onnxruntime fuses."""

import io
import warnings

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Attention and a perceptron, normalised after each."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part(x).reshape(batch, length, self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5, -1)
        x = self.norm1(x + self.out((weights @ v).transpose(1, 2).reshape(batch, length, width)))
        return self.norm2(x + self.down(functional.gelu(self.up(x))))


class Transformer(nn.Module):
    """Two blocks between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 32), nn.Linear(32, 5)
        self.blocks = nn.Sequential(Block(), Block())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x)).mean(1))


def conv(inner: int, outer: int, size: int, *, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch normalisation."""
    return nn.Sequential(nn.Conv2d(inner, outer, size, padding=size // 2, groups=groups), nn.BatchNorm2d(outer))


class InvertedResidual(nn.Module):
    """A mobile block with activations of several kinds, and a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(3, 16, 3), nn.ReLU(), conv(16, 16, 3, groups=16), nn.ReLU6(), conv(16, 24, 1))
        self.wide = nn.Sequential(conv(24, 48, 1), nn.Hardswish(), conv(48, 48, 3, groups=48), nn.LeakyReLU(0.1))
        self.back = conv(48, 24, 1)
        self.head = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(torch.relu(x + self.back(self.wide(x))).mean((2, 3)))


NETS = {
    "transformer": (Transformer, (2, 6, 12)),
    "inverted_residual": (InvertedResidual, (2, 3, 16, 16)),
}


def exported(name: str) -> onnx.ModelProto:
    """Export a net whose weights and statistics are jittered."""
    make, shape = NETS[name]
    net = make()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.2)
                part.running_var.uniform_(0.5, 1.5)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["x"], "output_names": ["y"]}
        torch.onnx.export(net.eval(), (torch.randn(*shape),), file, opset_version=17, dynamo=False, **names)
    return onnx.load_model_from_string(file.getvalue())
