"""Nets that make images, as they are spelt in public code."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StyleGan(nn.Module):
    """StyleGAN2: a mapping, modulated and demodulated kernels, noise, blur of what was enlarged, a skip of colours."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(12, 20), nn.LeakyReLU(0.2), nn.Linear(20, 20), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, width, 4, 4))
        self.styles = nn.ModuleList(nn.Linear(20, c) for c in (width, 12, 12))
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.randn(1, 12, width, 3, 3)), nn.Parameter(torch.randn(1, 12, 12, 3, 3))]
        )
        self.colour, self.noise = nn.Parameter(torch.randn(1, 3, 12, 1, 1)), nn.Parameter(torch.ones(1))
        blur = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("blur", torch.outer(blur, blur) / 64)

    def modulated(self, x: Tensor, weight: Tensor, style: Tensor, *, normalise: bool = True) -> Tensor:
        b, c, h, w = x.shape
        _, o, _, k, _ = weight.shape
        weight = weight * style.view(b, 1, c, 1, 1)
        if normalise:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(b, o, 1, 1, 1)
        x = F.conv2d(x.reshape(1, b * c, h, w), weight.view(b * o, c, k, k), padding=k // 2, groups=b)
        return x.view(b, o, x.shape[2], x.shape[3])

    def enlarged(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = F.pad(x.view(-1, h, 1, w, 1, 1), [0, 0, 0, 1, 0, 0, 0, 1]).view(-1, 1, h * 2, w * 2)
        return F.conv2d(F.pad(x, [2, 1, 2, 1]), self.blur[None, None] * 4).view(b, c, h * 2, w * 2)

    def forward(self, z: Tensor) -> Tensor:
        style = self.mapping(z * torch.rsqrt(torch.mean(z**2, dim=1, keepdim=True) + 1e-8))
        x = self.start.repeat(z.shape[0], 1, 1, 1)
        for k, weight in enumerate(self.weights):
            x = self.enlarged(self.modulated(x, weight, self.styles[k](style)))
            x = F.leaky_relu(x + self.noise * 0.1 * torch.randn_like(x[:, :1]), 0.2) * 2**0.5
        return self.modulated(x, self.colour, self.styles[2](style), normalise=False)


class SuperResolution(nn.Module):
    """SRGAN: residual blocks, dense ones with a scaled sum, pixels shuffled out of channels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 5, 1, 2), nn.PReLU())
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.PReLU(), nn.Conv2d(width, width, 3, 1, 1)
        )
        self.dense = nn.ModuleList(nn.Conv2d(width + 8 * k, 8 if k < 2 else width, 3, 1, 1) for k in range(3))
        self.up = nn.Sequential(nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU(width))
        self.last = nn.Conv2d(width, 3, 5, 1, 2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        x = x + self.block(x)
        maps = [x]
        for conv in self.dense:
            maps.append(F.leaky_relu(conv(torch.cat(maps, 1)), 0.2))
        return torch.tanh(self.last(self.up(x + 0.2 * maps[-1])))


class CycleGan(nn.Module):
    """Reflected borders, instance norms, transposed convolutions; and AdaIN by a style."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 20, 3, 2, 1), nn.InstanceNorm2d(20, affine=True), nn.ReLU(),
        )  # fmt: skip
        self.block = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(20, 20, 3), nn.InstanceNorm2d(20))
        self.style, self.up = nn.Linear(6, 40), nn.ConvTranspose2d(20, width, 3, 2, 1, output_padding=1)
        self.last = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, image: Tensor, style: Tensor) -> Tensor:
        x = self.down(image)
        gain, shift = self.style(style)[:, :, None, None].chunk(2, 1)
        x = x + (1 + gain) * self.block(x) + shift
        return self.last(F.relu(self.up(x)))


class Diffusion(nn.Module):
    """A denoiser: sines of the time step, group norms shifted by it, attention over places, a skip; and DiT's gates."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
        self.first, self.down = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 24, 3, 2, 1)
        self.norms, self.shift = nn.ModuleList([nn.GroupNorm(4, 24), nn.GroupNorm(4, 24)]), nn.Linear(32, 48)
        self.conv, self.qkv, self.o = nn.Conv2d(24, 24, 3, 1, 1), nn.Conv1d(24, 72, 1), nn.Conv1d(24, 24, 1)
        self.up, self.last = (
            nn.Conv2d(24, width, 3, 1, 1),
            nn.Sequential(nn.GroupNorm(4, 2 * width), nn.SiLU(), nn.Conv2d(2 * width, 3, 3, 1, 1)),
        )

    @staticmethod
    def sines(steps: Tensor, size: int = 16) -> Tensor:
        speed = torch.exp(-math.log(10000) * torch.arange(0, size // 2, dtype=torch.float32) / (size // 2))
        angle = steps[:, None].float() * speed[None]
        return torch.cat([torch.cos(angle), torch.sin(angle)], -1)

    def forward(self, image: Tensor, steps: Tensor) -> Tensor:
        time = self.time(self.sines(steps))
        skip = self.first(image)
        x = self.down(skip)
        scale, shift = torch.chunk(self.shift(F.silu(time))[..., None, None], 2, dim=1)
        x = x + self.conv(F.silu(self.norms[0](x) * (1 + scale) + shift))
        b, c, *places = x.shape
        q, k, v = self.qkv(self.norms[1](x).reshape(b, c, -1)).reshape(b * 4, 3 * c // 4, -1).split(c // 4, dim=1)
        weights = torch.einsum("bct,bcs->bts", q, k).mul((c // 4) ** -0.5).softmax(-1)
        y = torch.einsum("bts,bcs->bct", weights, v).reshape(b, c, -1)
        x = x + self.o(y).reshape(b, c, *places)
        x = self.up(F.interpolate(x, size=skip.shape[2:], mode="nearest"))
        return self.last(torch.cat([x, skip], 1))


class Codebook(nn.Module):
    """VQ-VAE: every place takes the nearest of some vectors, found by distances and looked up."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 20, 4, 2, 1), nn.ReLU(), nn.Conv2d(20, width, 3, 1, 1))
        self.codes = nn.Embedding(16, width)
        self.decoder = nn.Sequential(nn.Conv2d(width, 20, 3, 1, 1), nn.ReLU(), nn.ConvTranspose2d(20, 3, 4, 2, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.encoder(image).permute(0, 2, 3, 1).contiguous()
        flat = x.view(-1, x.shape[-1])
        gaps = (flat**2).sum(1, keepdim=True) + (self.codes.weight**2).sum(1) - 2 * flat @ self.codes.weight.t()
        chosen = self.codes(torch.argmin(gaps, 1)).view(x.shape)
        return self.decoder((x + (chosen - x)).permute(0, 3, 1, 2).contiguous())


class SamplingFlow(nn.Module):
    """VITS: noise drawn in the graph, at the size of a mean, through couplings that halve and flip channels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.statistics = nn.Embedding(40, 24), nn.Conv1d(24, 2 * width, 1)
        self.pre, self.inner, self.post = (
            nn.Conv1d(width // 2, 20, 1),
            nn.Conv1d(20, 40, 5, padding=2),
            nn.Conv1d(20, width // 2, 1),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose1d(width, 12, 4, 2, 1), nn.LeakyReLU(0.1), nn.Conv1d(12, 1, 7, padding=3), nn.Tanh()
        )

    def forward(self, tokens: Tensor) -> Tensor:
        mean, logs = torch.split(self.statistics(self.embed(tokens).transpose(1, 2)), 16, dim=1)
        z = mean + torch.randn_like(mean) * torch.exp(torch.tanh(logs)) * 0.1
        for _ in range(2):
            z = torch.flip(z, [1])
            one, other = torch.split(z, [8, 8], 1)
            t, s = self.inner(self.pre(one)).chunk(2, 1)
            z = torch.cat([one, other - self.post(torch.tanh(t) * torch.sigmoid(s))], 1)
        return self.decoder(z)
