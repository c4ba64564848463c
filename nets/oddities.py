"""Small nets with the constructions that analyses stumble over, one class each, for both exporters of PyTorch.

They stand beside whole architectures where the coverage is measured: every net is as small as its construction allows.
"""

import itertools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.exports import Inputs, Network

SIDE = 32
CLASSES = 10


def conv_bn(i: int, o: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(o), nn.ReLU()
    )


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class ZeroPadShortcut(nn.Module):
    """The residual net for CIFAR with shortcuts of option A: every other pixel, zero channels around."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.blocks = nn.ModuleList()
        for i, o in ((16, 16), (16, 32), (32, 32), (32, 64), (64, 64)):
            self.blocks.append(nn.Sequential(conv_bn(i, o, 3, o // i), nn.Conv2d(o, o, 3, 1, 1), nn.BatchNorm2d(o)))
        self.head = head(64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            y = block(x)
            if y.shape[1] != x.shape[1]:
                side = (y.shape[1] - x.shape[1]) // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
            x = F.relu(x + y)
        return self.head(x)


class WeightNorm(nn.Module):
    """Convolutions whose weight is computed in the graph from a direction and a length per output channel."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 32, 24)
        self.v = nn.ParameterList(nn.Parameter(torch.randn(o, i, 3, 3)) for i, o in itertools.pairwise(widths))
        self.g = nn.ParameterList(nn.Parameter(torch.ones(o, 1, 1, 1)) for o in widths[1:])
        self.head = head(24)

    def forward(self, x: Tensor) -> Tensor:
        for v, g in zip(self.v, self.g, strict=True):
            x = F.relu(F.conv2d(x, v * (g / v.pow(2).sum((1, 2, 3), keepdim=True).sqrt()), padding=1))
        return self.head(x)


class ModulatedConv(nn.Module):
    """StyleGAN's convolutions: a style scales the weights per sample, which are then normalised; groups are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, 24, 4, 4))
        self.styles = nn.ModuleList(nn.Linear(32, i) for i in (24, 32))
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(o, i, 3, 3)) for i, o in ((24, 32), (32, 24)))
        self.rgb = nn.Conv2d(24, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z)
        x = self.start.expand(z.shape[0], -1, -1, -1)
        for style, weight in zip(self.styles, self.weights, strict=True):
            scaled = weight.unsqueeze(0) * style(w)[:, None, :, None, None]
            scaled = scaled * torch.rsqrt(scaled.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
            b, o, i, k, _ = scaled.shape
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            h = x.shape[2]
            x = F.conv2d(x.reshape(1, b * i, h, h), scaled.reshape(b * o, i, k, k), padding=1, groups=b)
            x = F.leaky_relu(x.reshape(b, o, h, h), 0.2)
        return self.rgb(x)


class SubPixel(nn.Module):
    """ESPCN: pixels are shuffled out of channels, twice, with a convolution between."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 32, 5, 1, 2), nn.Tanh(), nn.Conv2d(32, 16, 3, 1, 1), nn.Tanh())
        self.up = nn.Sequential(nn.Conv2d(16, 64, 3, 1, 1), nn.PixelShuffle(2), nn.ReLU())
        self.out = nn.Sequential(nn.Conv2d(16, 4, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.up(self.body(x)))


class Focus(nn.Module):
    """YOLOv5's first layer: four strided slices side by side; and the same in the middle (a space-to-depth)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv_bn(12, 24), conv_bn(24 * 4, 32)
        self.head = head(32)

    @staticmethod
    def focus(x: Tensor) -> Tensor:
        return torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.focus(self.first(self.focus(x)))))


class Crnn(nn.Module):
    """Convolutions, then columns as a sequence through two bidirectional LSTMs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(1, 16), nn.MaxPool2d(2), conv_bn(16, 32), nn.MaxPool2d((2, 1)), conv_bn(32, 32, 3)
        )
        self.pool = nn.MaxPool2d((8, 1))
        self.lstm = nn.LSTM(32, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(48, 37)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.body(x)).squeeze(2).transpose(1, 2)
        return self.out(self.lstm(x)[0])


class GruEncoder(nn.Module):
    """Embedded tokens through two GRUs; the last state becomes a bridge to a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.first = nn.GRU(32, 40, batch_first=True)
        self.second = nn.GRU(40, 24, batch_first=True)
        self.bridge = nn.Linear(24, 16)
        self.out = nn.Linear(24, 100)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.first(self.embed(tokens))
        states, last = self.second(torch.tanh(states))
        return self.out(states), torch.tanh(self.bridge(last[-1]))


class Maxout(nn.Module):
    """The largest of neighbouring channels, and the larger half of two (max-feature-map)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 64, 3, 1, 1), nn.Conv2d(32, 48, 3, 1, 1)
        self.head = head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, _, h, w = x.shape
        x = x.reshape(b, 32, 2, h, w).amax(2)
        one, other = self.second(x).chunk(2, 1)
        return self.head(torch.maximum(one, other))


class ChannelFlip(nn.Module):
    """A branch that adds the channels in reverse order, and concatenates a rolled copy."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv_bn(3, 32), conv_bn(64, 24)
        self.head = head(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = x + x.flip(1)
        return self.head(self.second(torch.cat((y, x.roll(4, 1)), 1)))


class BilinearPooling(nn.Module):
    """The outer product of two feature maps summed over the image, as features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(conv_bn(3, 16), conv_bn(16, 12)), nn.Sequential(conv_bn(3, 16), conv_bn(16, 20))
        self.out = nn.Linear(12 * 20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bihw,bjhw->bij", self.a(x), self.b(x)) / SIDE**2
        return self.out(y.flatten(1))


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate(x: Tensor, base: float = 10000.0) -> Tensor:
    """Turn pairs of positions of the last axis of [B, H, T, D] by angles that grow with T."""
    length, width = x.shape[-2:]
    speed = base ** (-torch.arange(0, width, 2, device=x.device).float() / width)
    angle = torch.outer(torch.arange(length, device=x.device).float(), speed)
    angle = torch.cat((angle, angle), -1)
    turned = torch.cat((-x[..., width // 2 :], x[..., : width // 2]), -1)
    return x * angle.cos() + turned * angle.sin()


class LlamaBlocks(nn.Module):
    """Two blocks of grouped-query attention with rotary positions and SwiGLU; the head is the embedding."""

    def __init__(self, width: int = 64, heads: int = 8, groups: int = 2) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.embed = nn.Embedding(120, width)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            block = nn.ModuleDict({"norm": RmsNorm(width), "q": nn.Linear(width, width, bias=False)})
            block.update({key: nn.Linear(width, groups * self.size, bias=False) for key in ("k", "v")})
            block.update({"o": nn.Linear(width, width, bias=False), "norm2": RmsNorm(width)})
            block.update({key: nn.Linear(width, 160, bias=False) for key in ("gate", "up")})
            block["down"] = nn.Linear(160, width, bias=False)
            self.blocks.append(block)
        self.norm = RmsNorm(width)

    def attend(self, block: nn.ModuleDict, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = rotate(block["q"](x).view(b, t, self.heads, self.size).transpose(1, 2))
        k = rotate(block["k"](x).view(b, t, self.groups, self.size).transpose(1, 2))
        v = block["v"](x).view(b, t, self.groups, self.size).transpose(1, 2)
        repeat = self.heads // self.groups
        k, v = (
            y[:, :, None].expand(b, self.groups, repeat, t, self.size).reshape(b, self.heads, t, self.size)
            for y in (k, v)
        )
        scores = q @ k.transpose(2, 3) / self.size**0.5
        scores = scores + torch.full((t, t), -1e9, device=x.device).triu(1)
        return block["o"]((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + self.attend(block, block["norm"](x))
            y = block["norm2"](x)
            x = x + block["down"](F.silu(block["gate"](y)) * block["up"](y))
        return self.norm(x) @ self.embed.weight.T


class PackedQkv(nn.Module):
    """Self-attention with one projection for Q, K and V: packed by part, by head, and by head with parts inside."""

    def __init__(self, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.first = nn.Linear(16, width)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(3))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.last = nn.Linear(width, CLASSES)

    def parts(self, packed: Tensor, layout: int) -> tuple[Tensor, Tensor, Tensor]:
        b, t, _ = packed.shape
        if layout == 0:
            return packed.view(b, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        if layout == 1:
            return packed.view(b, t, self.heads, 3 * self.size).transpose(1, 2).chunk(3, -1)
        return tuple(y.view(b, t, self.heads, self.size).transpose(1, 2) for y in packed.split(packed.shape[2] // 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        for layout, (qkv, out) in enumerate(zip(self.qkv, self.out, strict=True)):
            q, k, v = self.parts(qkv(x), layout)
            y = (q @ k.transpose(2, 3) / self.size**0.5).softmax(-1) @ v
            x = x + out(y.transpose(1, 2).flatten(2))
        return self.last(x)


class CrossAttention(nn.Module):
    """PyTorch's multi-head attention of learned queries over an input of another width, in one fused operator."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 6, 32))
        self.widen = nn.Sequential(nn.Linear(16, 40), nn.GELU(), nn.Linear(40, 24))
        self.q, self.k, self.v, self.o = nn.Linear(32, 48), nn.Linear(24, 48), nn.Linear(24, 48), nn.Linear(48, 32)
        self.own = nn.MultiheadAttention(32, 4, batch_first=True)
        self.out = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        queries = self.queries.expand(x.shape[0], -1, -1)
        q, k, v = (y.unflatten(-1, (4, 12)).transpose(1, 2) for y in (self.q(queries), self.k(x), self.v(x)))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = queries + self.o(y)
        y = y + self.own(y, y, y, need_weights=False)[0]
        return self.out(y)


class LinearAttention(nn.Module):
    """Attention without a softmax over tokens: keys and values are summed first."""

    def __init__(self, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.qkv = nn.Linear(16, width), nn.Linear(width, 3 * width, bias=False)
        self.out, self.last = nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        context = k.transpose(2, 3) @ v
        scale = (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)
        y = (q @ context) / scale
        return self.last(x + self.out(y.transpose(1, 2).flatten(2)))


class Cbam(nn.Module):
    """Attention over channels by average and maximum through one shared net, then over pixels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = conv_bn(3, width), conv_bn(width, width)
        self.shared = nn.Sequential(nn.Conv2d(width, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, width, 1, bias=False))
        self.pixels = nn.Conv2d(2, 1, 7, 1, 3)
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x)
        gate = self.shared(F.adaptive_avg_pool2d(y, 1)) + self.shared(F.adaptive_max_pool2d(y, 1))
        y = y * gate.sigmoid()
        y = y * self.pixels(torch.cat((y.mean(1, keepdim=True), y.amax(1, keepdim=True)), 1)).sigmoid()
        return self.head(x + y)


class SelectiveKernel(nn.Module):
    """Branches of two kernel sizes, weighted per channel by a softmax over the branches."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = conv_bn(3, width)
        self.branches = nn.ModuleList(conv_bn(width, width, kernel, groups=4) for kernel in (3, 5))
        self.squeeze = nn.Sequential(nn.Linear(width, 16), nn.ReLU())
        self.excite = nn.ModuleList(nn.Linear(16, width) for _ in range(2))
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        maps = torch.stack([branch(x) for branch in self.branches], 1)
        code = self.squeeze(maps.sum(1).mean((2, 3)))
        weights = torch.stack([excite(code) for excite in self.excite], 1).softmax(1)
        return self.head((maps * weights[..., None, None]).sum(1))


class SplitAttention(nn.Module):
    """ResNeSt's block: groups of channels in splits, weighted by a softmax over the splits inside each group."""

    def __init__(self, width: int = 32, radix: int = 2, groups: int = 2) -> None:
        super().__init__()
        self.radix, self.groups = radix, groups
        self.first, self.conv = conv_bn(3, width), conv_bn(width, width * radix, 3, groups=groups * radix)
        self.squeeze = nn.Sequential(nn.Conv2d(width, 16, 1, groups=groups), nn.ReLU())
        self.excite = nn.Conv2d(16, width * radix, 1, groups=groups)
        self.last = conv_bn(width, width, 1)
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.conv(x)
        b, c, h, w = y.shape
        splits = y.reshape(b, self.radix, c // self.radix, h, w)
        code = self.excite(self.squeeze(splits.sum(1).mean((2, 3), keepdim=True)))
        weights = code.view(b, self.groups, self.radix, -1).transpose(1, 2).softmax(1).reshape(b, -1, 1, 1)
        gated = (splits * weights.reshape(b, self.radix, c // self.radix, 1, 1)).sum(1)
        return self.head(x + self.last(gated))


class Siamese(nn.Module):
    """One encoder on two images; their distance and their product."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv_bn(3, 16), nn.MaxPool2d(2), conv_bn(16, 32), nn.AdaptiveAvgPool2d(1))
        self.embed, self.out = nn.Linear(32, 24), nn.Linear(48, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = (self.embed(self.encoder(x).flatten(1)) for x in (left, right))
        return self.out(torch.cat(((a - b).abs(), a * b), 1))


class ManyToMany(nn.Module):
    """An image, a vector and tokens in; a map, a vector and scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = nn.Sequential(conv_bn(3, 24), conv_bn(24, 32)), nn.Linear(8, 32)
        self.embed = nn.Embedding(50, 32)
        self.mix = nn.Linear(96, 40)
        self.map, self.latent, self.scores = nn.Conv2d(32, 2, 1), nn.Linear(40, 16), nn.Linear(40, 5)

    def forward(self, image: Tensor, vector: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps, side = self.image(image), F.relu(self.vector(vector))
        gated = maps * side[:, :, None, None].sigmoid()
        mixed = F.relu(self.mix(torch.cat((gated.mean((2, 3)), side, self.embed(tokens).mean(1)), 1)))
        return self.map(gated), self.latent(mixed), self.scores(mixed)


class CausalConvolutions(nn.Module):
    """A temporal convolutional net: dilated causal 1-D convolutions with residual blocks and gated units."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, width, 1)
        self.filters = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, dilation=2**k) for k in range(3))
        self.mixes = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        self.last = nn.Conv1d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for k, (conv, mix) in enumerate(zip(self.filters, self.mixes, strict=True)):
            value, gate = conv(F.pad(x, (2 * 2**k, 0))).chunk(2, 1)
            x = x + mix(torch.tanh(value) * gate.sigmoid())
        return self.last(x)


class Volumes(nn.Module):
    """A 3-D residual net with a factorised (space, then time) convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm3d(16), nn.ReLU())
        self.space = nn.Conv3d(16, 24, (1, 3, 3), padding=(0, 1, 1))
        self.time = nn.Conv3d(24, 16, (3, 1, 1), padding=(1, 0, 0))
        self.down = nn.Conv3d(16, 32, 2, 2)
        self.up = nn.ConvTranspose3d(32, 16, 2, 2)
        self.out = nn.Conv3d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = F.relu(x + self.time(F.relu(self.space(x))))
        return self.out(torch.cat((x, self.up(F.relu(self.down(x)))), 1))


def image(batch: int, channels: int = 3) -> Inputs:
    return {"image": torch.randn(batch, channels, SIDE, SIDE)}


def sequence(batch: int) -> Inputs:
    return {"sequence": torch.randn(batch, 9, 16)}


def tokens(batch: int, words: int = 100) -> Inputs:
    return {"tokens": torch.randint(words, (batch, 11))}


def pair(batch: int) -> Inputs:
    return {side: torch.randn(batch, 3, SIDE, SIDE) for side in ("left", "right")}


def mixed(batch: int) -> Inputs:
    return {**image(batch), "vector": torch.randn(batch, 8), "tokens": torch.randint(50, (batch, 7))}


def tensor(*shape: int) -> Callable[[int], Inputs]:
    return lambda batch: {"x": torch.randn(batch, *shape)}


ODDITIES: dict[str, Network] = {
    "zero-pad shortcut (option A)": Network(ZeroPadShortcut, image),
    "weight norm in the graph": Network(WeightNorm, image),
    "modulated convolution (StyleGAN)": Network(ModulatedConv, tensor(16)),
    "pixel shuffle (ESPCN)": Network(SubPixel, partial(image, channels=1)),
    "focus slices": Network(Focus, image),
    "CRNN, bidirectional LSTM": Network(Crnn, partial(image, channels=1)),
    "GRU encoder": Network(GruEncoder, tokens, ("states", "bridge")),
    "maxout": Network(Maxout, image),
    "channel flip and roll": Network(ChannelFlip, image),
    "bilinear pooling (Einsum)": Network(BilinearPooling, image),
    "llama blocks (GQA, RoPE, SwiGLU, tied)": Network(LlamaBlocks, tokens),
    "packed QKV": Network(PackedQkv, sequence),
    "cross attention": Network(CrossAttention, sequence),
    "linear attention": Network(LinearAttention, sequence),
    "CBAM": Network(Cbam, image),
    "selective kernel": Network(SelectiveKernel, image),
    "split attention": Network(SplitAttention, image),
    "siamese": Network(Siamese, pair),
    "several inputs and outputs": Network(ManyToMany, mixed, ("map", "latent", "scores")),
    "temporal convolutions (1-D)": Network(CausalConvolutions, tensor(4, 40)),
    "3-D convolutions": Network(Volumes, tensor(1, 8, 16, 16)),
}
