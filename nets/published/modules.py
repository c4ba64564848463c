"""Modules that image nets are put together from, as they are spelt in public code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.oddities import conv_bn


class WeightedFusion(nn.Module):
    """BiFPN: maps enlarged or pooled to one size, weighed by learned shares, separable convolutions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv_bn(3, 12, 3, 2), conv_bn(12, 20, 3, 2), conv_bn(20, 24, 3, 2)])
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (12, 20, 24))
        self.down, self.up = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 3))
        self.mix = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, groups=width), conv_bn(width, width, 1)) for _ in range(4)
        )
        self.out = nn.Conv2d(width, 5, 1)

    @staticmethod
    def fused(weights: Tensor, maps: list[Tensor]) -> Tensor:
        shares = F.relu(weights)
        shares = shares / (shares.sum() + 1e-4)
        return F.silu(torch.stack([share * x for share, x in zip(shares.unbind(0), maps, strict=True)]).sum(0))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps, x = [], image
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        fine, middle, coarse = maps
        between = F.interpolate(coarse, size=middle.shape[-2:], mode="nearest")
        inner = self.mix[0](self.fused(self.down[0], [middle, between]))
        fine = self.mix[1](self.fused(self.down[1], [fine, F.interpolate(inner, scale_factor=2.0, mode="nearest")]))
        middle = self.mix[2](self.fused(self.up[0], [middle, inner, F.max_pool2d(fine, 3, 2, 1)]))
        coarse = self.mix[3](self.fused(self.up[1], [coarse, coarse, F.max_pool2d(middle, 3, 2, 1)]))
        return self.out(fine), self.out(middle), self.out(coarse)


class Recalibration(nn.Module):
    """Squeeze and excitation in other forms: scSE, SRM's means and deviations, GCNet's context, gather and excite."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv_bn(3, width), *(conv_bn(width, width) for _ in range(3))])
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 6, 1), nn.ReLU(), nn.Conv2d(6, width, 1), nn.Sigmoid()
        )
        self.space = nn.Sequential(nn.Conv2d(width, 1, 1), nn.Sigmoid())
        self.style, self.norm = nn.Parameter(torch.randn(width, 2)), nn.BatchNorm1d(width)
        self.mask = nn.Conv2d(width, 1, 1)
        self.context = nn.Sequential(nn.Conv2d(width, 8, 1), nn.LayerNorm([8, 1, 1]), nn.ReLU(), nn.Conv2d(8, width, 1))
        self.gather, self.out = nn.Conv2d(width, width, 3, 2, 1, groups=width), nn.Conv2d(width, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stages[0](image)
        x = x * self.channel(x) + x * self.space(x)
        x = self.stages[1](x)
        b, c, h, w = x.size()
        flat = x.view(b, c, -1)
        moments = torch.cat((flat.mean(-1).unsqueeze(-1), flat.std(-1).unsqueeze(-1)), -1)
        x = x * torch.sigmoid(self.norm((moments * self.style[None]).sum(2, keepdim=True))).view(b, c, 1, 1)
        x = self.stages[2](x)
        shares = self.mask(x).view(b, 1, h * w).softmax(2).unsqueeze(-1)
        context = torch.matmul(x.view(b, c, h * w).unsqueeze(1), shares).view(b, c, 1, 1)
        x = self.stages[3](x + self.context(context))
        return self.out(x * torch.sigmoid(F.interpolate(self.gather(x), size=(h, w), mode="nearest")))


class Bottleneck(nn.Module):
    """BAM: one gate from pooled channels, one from dilated convolutions, added before the sigmoid; learned skips."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.out = conv_bn(3, width), nn.Linear(width, 5)
        self.channel = nn.Sequential(nn.Linear(width, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, width))
        self.space = nn.Sequential(
            nn.Conv2d(width, 6, 1), nn.Conv2d(6, 6, 3, padding=4, dilation=4), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 1, 1),
        )  # fmt: skip
        self.rezero = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        pooled = x.mean((2, 3), keepdim=True)
        channel = self.channel(pooled.flatten(1)).unsqueeze(2).unsqueeze(3).expand_as(x)
        gate = 1 + torch.sigmoid(channel + self.space(x).expand_as(x))
        return self.out((x + self.rezero * x * gate).mean((-2, -1)))


class Involution(nn.Module):
    """A kernel for every place and group from the features there, over windows that were laid out."""

    def __init__(self, width: int = 16, groups: int = 4) -> None:
        super().__init__()
        self.groups, self.first, self.out = groups, conv_bn(3, width, 3, 2), nn.Conv2d(width, 5, 1)
        self.reduce, self.span = conv_bn(width, 6, 1), nn.Conv2d(6, 9 * groups, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        b, c, h, w = x.shape
        kernel = self.span(self.reduce(x)).view(b, self.groups, 9, h, w).unsqueeze(2)
        windows = F.unfold(x, 3, padding=1).view(b, self.groups, c // self.groups, 9, h, w)
        return self.out((kernel * windows).sum(3).view(b, c, h, w))


class Octave(nn.Module):
    """Fine and coarse channels that exchange; a first and a last layer that split and join them."""

    def __init__(self, fine: int = 16, coarse: int = 8) -> None:
        super().__init__()
        self.ff, self.fc = nn.Conv2d(3, fine, 3, 1, 1), nn.Conv2d(3, coarse, 3, 1, 1)
        self.hh, self.hl = nn.Conv2d(fine, fine, 3, 1, 1), nn.Conv2d(fine, coarse, 3, 1, 1)
        self.ll, self.lh = nn.Conv2d(coarse, coarse, 3, 1, 1), nn.Conv2d(coarse, fine, 3, 1, 1)
        self.norms, self.out = nn.ModuleList([nn.BatchNorm2d(fine), nn.BatchNorm2d(coarse)]), nn.Conv2d(fine, 5, 1)
        self.join = nn.Conv2d(coarse, fine, 1)

    def forward(self, image: Tensor) -> Tensor:
        high, low = F.relu(self.ff(image)), F.relu(self.fc(F.avg_pool2d(image, 2, 2)))
        up = F.interpolate(self.lh(low), scale_factor=2, mode="nearest")
        high, low = self.norms[0](self.hh(high) + up), self.norms[1](self.ll(low) + self.hl(F.avg_pool2d(high, 2)))
        return self.out(F.relu(high) + F.interpolate(self.join(F.relu(low)), scale_factor=2, mode="nearest"))


class AxialAttention(nn.Module):
    """Rows, then columns, as sequences of their own in the batch, with positions read from relative tables."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.first, self.out = heads, conv_bn(3, width, 3, 4), nn.Conv2d(width, 5, 1)
        self.row, self.column = nn.Conv1d(width, 3 * width, 1), nn.Conv1d(width, 3 * width, 1)
        self.norms = nn.ModuleList(nn.BatchNorm1d(3 * width) for _ in range(2))

    def attend(self, x: Tensor, qkv: nn.Module, norm: nn.Module) -> Tensor:
        n, c, t = x.shape
        q, k, v = norm(qkv(x)).reshape(n, self.heads, 3 * c // self.heads, t).chunk(3, 2)
        weights = torch.einsum("bgci,bgcj->bgij", q, k).mul((c // self.heads) ** -0.5).softmax(-1)
        return torch.einsum("bgij,bgcj->bgci", weights, v).reshape(n, c, t)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        b, c, h, w = x.shape
        y = x.permute(0, 3, 1, 2).contiguous().view(b * w, c, h)
        y = self.attend(y, self.column, self.norms[0]).view(b, w, c, h).permute(0, 2, 3, 1)
        z = y.permute(0, 2, 1, 3).contiguous().view(b * h, c, w)
        z = self.attend(z, self.row, self.norms[1]).view(b, h, c, w).permute(0, 2, 1, 3)
        return self.out(F.relu(x + z))


class ObjectContext(nn.Module):
    """OCR: coarse classes gather features of their regions, places look at them, both joined."""

    def __init__(self, width: int = 24, classes: int = 4) -> None:
        super().__init__()
        self.first, self.aux = conv_bn(3, width, 3, 4), nn.Conv2d(width, classes, 1)
        self.q, self.k, self.v = conv_bn(width, 12, 1), conv_bn(width, 12, 1), conv_bn(width, 12, 1)
        self.up, self.join, self.out = conv_bn(12, width, 1), conv_bn(2 * width, width, 1), nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(image)
        coarse = self.aux(x)
        b, c, _h, _w = x.shape
        shares = F.softmax(coarse.view(b, coarse.size(1), -1), 2)
        regions = torch.matmul(shares, x.view(b, c, -1).permute(0, 2, 1)).permute(0, 2, 1).unsqueeze(3)
        q = self.q(x).view(b, 12, -1).permute(0, 2, 1)
        k, v = self.k(regions).view(b, 12, -1), self.v(regions).view(b, 12, -1).permute(0, 2, 1)
        y = torch.matmul(F.softmax(torch.matmul(q, k) * 12**-0.5, -1), v).permute(0, 2, 1).contiguous()
        y = self.join(torch.cat([self.up(y.view(b, 12, *x.size()[2:])), x], 1))
        both = (
            F.interpolate(z, size=image.shape[-2:], mode="bilinear", align_corners=True) for z in (coarse, self.out(y))
        )
        return next(both), next(both)


class SpatialTransformer(nn.Module):
    """A small net says how the image is turned; coordinates of every place join as channels."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.where = nn.Sequential(conv_bn(3, 8, 7, 2), conv_bn(8, 10, 5, 2))
        self.turn = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 6))
        self.first, self.second, self.out = conv_bn(5, width), conv_bn(width, 20, 3, 2), nn.Linear(20, 5)

    @staticmethod
    def grid(theta: Tensor, h: int, w: int) -> Tensor:
        y, x = torch.meshgrid(torch.arange(h).float() / h * 2 - 1, torch.arange(w).float() / w * 2 - 1, indexing="ij")
        base = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3)
        return torch.matmul(base, theta.transpose(1, 2)).view(-1, h, w, 2)

    def forward(self, image: Tensor) -> Tensor:
        b, _, h, w = image.shape
        theta = self.turn(self.where(image).mean((2, 3))).view(-1, 2, 3) * 0.3
        x = F.grid_sample(image, self.grid(theta, h, w), align_corners=False)
        rows = torch.arange(h).float().view(1, 1, h, 1).expand(b, 1, h, w) / h
        columns = torch.arange(w).float().view(1, 1, 1, w).expand(b, 1, h, w) / w
        return self.out(self.second(self.first(torch.cat([x, rows, columns], 1))).mean((2, 3)))


class CostVolume(nn.Module):
    """Stereo: features of two images at shifts side by side, 3-D convolutions, a mean of shifts by their likelihood."""

    def __init__(self, width: int = 10, shifts: int = 3) -> None:
        super().__init__()
        self.shifts = shifts
        self.features = nn.Sequential(conv_bn(3, 12, 3, 2), conv_bn(12, 16, 3, 2), nn.Conv2d(16, width, 1))
        self.match = nn.Sequential(
            nn.Conv3d(2 * width, 14, 3, 1, 1), nn.BatchNorm3d(14), nn.ReLU(), nn.Conv3d(14, 12, 3, 1, 1), nn.ReLU(),
            nn.Conv3d(12, 1, 3, 1, 1),
        )  # fmt: skip

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, d = self.features(left), self.features(right)
        volume = [torch.cat([a, d], 1)]
        for k in range(1, self.shifts):
            volume.append(F.pad(torch.cat([a[..., k:], d[..., :-k]], 1), (k, 0)))
        scores = self.match(torch.stack(volume, 2)).squeeze(1)
        shares = F.softmax(-scores, 1)
        places = torch.arange(self.shifts).float().view(1, -1, 1, 1)
        flow = (shares * places).sum(1, keepdim=True)
        return F.interpolate(flow, size=left.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)


class Warped(nn.Module):
    """PWC-Net: features warped by a coarser flow, means of products at shifts, a finer flow."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.one, self.two = conv_bn(3, 12, 3, 4), conv_bn(12, width, 3, 2)
        self.coarse, self.fine = nn.Sequential(conv_bn(9, 14), nn.Conv2d(14, 2, 3, 1, 1)), conv_bn(9 + 12 + 2, 16)
        self.flow = nn.Conv2d(16, 2, 3, 1, 1)

    @staticmethod
    def products(a: Tensor, d: Tensor) -> Tensor:
        h, w = a.shape[2:]
        d = F.pad(d, (1, 1, 1, 1))
        return torch.cat(
            [(a * d[:, :, y : y + h, x : x + w]).mean(1, keepdim=True) for y in range(3) for x in range(3)], 1
        )

    @staticmethod
    def warp(x: Tensor, flow: Tensor) -> Tensor:
        b, _, h, w = x.shape
        xs, ys = (
            torch.arange(w).view(1, 1, 1, -1).expand(b, 1, h, w),
            torch.arange(h).view(1, 1, -1, 1).expand(b, 1, h, w),
        )
        place = torch.cat((xs, ys), 1).float() + flow
        place = torch.stack([2 * place[:, 0] / max(w - 1, 1) - 1, 2 * place[:, 1] / max(h - 1, 1) - 1], -1)
        return F.grid_sample(x, place, align_corners=True)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, d = self.one(left), self.one(right)
        flow = self.coarse(self.products(self.two(a), self.two(d)))
        flow = F.interpolate(flow, size=a.shape[-2:], mode="bilinear", align_corners=False) * 2
        x = torch.cat([self.products(a, self.warp(d, flow)), a, flow], 1)
        return flow + self.flow(self.fine(x))


class Denormalised(nn.Module):
    """SPADE: a norm without scales, whose scales and shifts are maps of a layout of the same size."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.conv, self.last = (
            nn.Conv2d(6, width, 3, 1, 1),
            nn.Conv2d(width, 12, 3, 1, 1),
            nn.Conv2d(12, 3, 3, 1, 1),
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(width, affine=False), nn.InstanceNorm2d(12)])
        self.shared = nn.ModuleList([nn.Conv2d(6, 14, 3, 1, 1), nn.Conv2d(6, 14, 3, 1, 1)])
        self.gamma = nn.ModuleList([nn.Conv2d(14, width, 3, 1, 1), nn.Conv2d(14, 12, 3, 1, 1)])
        self.beta = nn.ModuleList([nn.Conv2d(14, width, 3, 1, 1), nn.Conv2d(14, 12, 3, 1, 1)])

    def spade(self, x: Tensor, layout: Tensor, k: int) -> Tensor:
        layout = F.relu(self.shared[k](F.interpolate(layout, size=x.size()[2:], mode="nearest")))
        return F.leaky_relu(self.norms[k](x) * (1 + self.gamma[k](layout)) + self.beta[k](layout), 0.2)

    def forward(self, layout: Tensor) -> Tensor:
        h, w = layout.shape[-2:]
        x = self.first(F.interpolate(layout, size=(h // 4, w // 4)))
        x = F.interpolate(self.conv(self.spade(x, layout, 0)), scale_factor=2)
        return torch.tanh(self.last(F.interpolate(self.spade(x, layout, 1), scale_factor=2)))


class SimpleGate(nn.Module):
    """NAFNet: a norm over channels spelt out, halves that multiply, pooled channels as a gate, scaled sums."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.intro, self.ending = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.one, self.deep, self.two = (
            nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width),
            nn.Conv2d(width, width, 1),
        )  # fmt: skip
        self.gate, self.up, self.down = nn.Conv2d(width, width, 1), nn.Conv2d(width, 40, 1), nn.Conv2d(20, width, 1)
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))

    def norm(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (variance + 1e-6).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        _, _, h, w = image.size()
        x = self.intro(F.pad(image, (0, (4 - w % 4) % 4, 0, (4 - h % 4) % 4)))
        a, d = self.deep(self.one(self.norm(x))).chunk(2, 1)
        y = a * d
        x = x + self.two(y * self.gate(F.adaptive_avg_pool2d(y, 1))) * self.beta
        a, d = self.up(self.norm(x)).chunk(2, 1)
        return (self.ending(x + self.down(a * d) * self.gamma))[:, :, :h, :w] + image


class TransposedAttention(nn.Module):
    """Restormer: channels look at channels, keys and queries of length one; pixels into channels and back."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.scale = heads, nn.Parameter(torch.ones(heads, 1, 1))
        self.down = nn.Sequential(nn.Conv2d(3, width // 4, 3, 1, 1, bias=False), nn.PixelUnshuffle(2))
        self.qkv, self.deep = nn.Conv2d(width, 48, 1), nn.Conv2d(48, 48, 3, 1, 1, groups=48)
        self.o, self.i = nn.Conv2d(width, width, 1), nn.Conv2d(width, 2 * 20, 1)
        self.mix, self.back = nn.Conv2d(40, 40, 3, 1, 1, groups=40), nn.Conv2d(20, width, 1)
        self.up = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(width // 2, 3, 3, 1, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.down(image)
        b, c, h, w = x.shape
        q, k, v = (y.reshape(b, self.heads, -1, h * w) for y in self.deep(self.qkv(x)).chunk(3, 1))
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)) * self.scale
        x = x + self.o((weights.softmax(-1) @ v).reshape(b, c, h, w))
        gate, y = self.mix(self.i(x)).chunk(2, 1)
        return self.up(x + self.back(F.gelu(gate) * y)) + image


class BlocksAndGrids(nn.Module):
    """MaxViT: attention in windows, then between places of one residue, the image viewed as six axes."""

    def __init__(self, width: int = 16, heads: int = 2, window: int = 4) -> None:
        super().__init__()
        self.heads, self.window, self.stem = heads, window, conv_bn(3, width, 3, 2)
        self.expand, self.deep, self.squeeze = conv_bn(width, 32, 1), conv_bn(32, 32), nn.Conv2d(32, 8, 1)
        self.excite, self.shrink = nn.Conv2d(8, 32, 1), nn.Conv2d(32, width, 1)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.o, self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2)), nn.Linear(width, 5)

    def attend(self, x: Tensor, k: int) -> Tensor:
        shape = x.shape
        x = x.reshape(-1, shape[-2], shape[-1])
        q, key, v = self.qkv[k](x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ key.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.o[k](y.transpose(1, 2).reshape(x.shape)).reshape(shape)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        y = self.deep(self.expand(x))
        x = x + self.shrink(y * torch.sigmoid(self.excite(F.silu(self.squeeze(y.mean((2, 3), keepdim=True))))))
        b, c, h, w = x.shape
        s = self.window
        y = x.view(b, c, h // s, s, w // s, s).permute(0, 2, 4, 3, 5, 1).reshape(b, -1, s * s, c)
        y = (y + self.attend(y, 0)).view(b, h // s, w // s, s, s, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
        z = y.view(b, c, s, h // s, s, w // s).permute(0, 3, 5, 2, 4, 1).reshape(b, -1, s * s, c)
        z = (z + self.attend(z, 1)).view(b, h // s, w // s, s, s, c).permute(0, 5, 3, 1, 4, 2).reshape(b, c, h, w)
        return self.out(z.mean((2, 3)))


class Hourglass(nn.Module):
    """Two hourglasses: maps that shrink and grow again beside skips; the first answer is mapped back and added."""

    def __init__(self, width: int = 16, joints: int = 4) -> None:
        super().__init__()
        self.first = conv_bn(3, width, 3, 2)
        self.skips = nn.ModuleList(conv_bn(width, width, 1) for _ in range(4))
        self.inner = nn.ModuleList(nn.Sequential(conv_bn(width, 20), conv_bn(20, width, 1)) for _ in range(4))
        self.heads, self.back = (
            nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(2)),
            nn.Conv2d(joints, width, 1),
        )

    def glass(self, x: Tensor, depth: int, k: int) -> Tensor:
        low = self.inner[k](F.max_pool2d(x, 2, 2))
        if depth > 1:
            low = self.glass(low, depth - 1, k + 1)
        return self.skips[k](x) + F.interpolate(low, size=x.shape[2:], mode="nearest")

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(image)
        y = self.glass(x, 2, 0)
        one = self.heads[0](y)
        return one, self.heads[1](self.glass(x + y + self.back(one), 2, 2))


class Stages(nn.Module):
    """OpenPose: every stage reads the features and both answers of the stage before, joined."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 12, 3, 4), conv_bn(12, width))
        sizes = (width, width + 5 + 3)
        self.limbs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 14, 3, 1, 1), nn.PReLU(14), nn.Conv2d(14, 5, 1)) for c in sizes
        )
        self.joints = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 12, 3, 1, 1), nn.ELU(), nn.Conv2d(12, 3, 1)) for c in sizes
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = y = self.features(image)
        for limbs, joints in zip(self.limbs, self.joints, strict=True):
            a, d = limbs(y), joints(y)
            y = torch.cat([a, d, x], 1)
        return a, d


class HalfNormalised(nn.Module):
    """HINet and IBN: one half of the channels is normalised per sample, then both are joined again."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.one, self.two = (
            nn.Conv2d(3, width, 3, 1, 1),
            nn.Conv2d(width, 24, 3, 1, 1),
            nn.Conv2d(24, width, 3, 1, 1),
        )
        self.norm, self.other, self.batch = (
            nn.InstanceNorm2d(12, affine=True),
            nn.InstanceNorm2d(8, affine=True),
            nn.BatchNorm2d(8),
        )
        self.last = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        a, d = torch.chunk(self.one(x), 2, 1)
        y = self.two(F.leaky_relu(torch.cat([self.norm(a), d], 1), 0.2))
        a, d = torch.split(y, 8, 1)
        return self.last(F.relu(x + torch.cat((self.other(a.contiguous()), self.batch(d.contiguous())), 1)))


class FilterResponse(nn.Module):
    """Norms of each map by its own energy and a learned threshold; weights standardised in the graph."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, 24, 3, 2, 1)])
        self.gamma = nn.ParameterList(nn.Parameter(torch.ones(1, c, 1, 1)) for c in (width, 24))
        self.beta = nn.ParameterList(nn.Parameter(torch.zeros(1, c, 1, 1)) for c in (width, 24))
        self.tau, self.out = (
            nn.ParameterList(nn.Parameter(torch.zeros(1, c, 1, 1)) for c in (width, 24)),
            nn.Linear(24, 5),
        )

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for conv, gamma, beta, tau in zip(self.convs, self.gamma, self.beta, self.tau, strict=True):
            weight = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
            weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
            x = F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)
            x = torch.max(gamma * x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + 1e-6) + beta, tau)
        return self.out(x.mean((2, 3)))


class Reassembly(nn.Module):
    """CARAFE: every enlarged place sums a window of the coarse map by kernels that were shuffled out of channels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.out = conv_bn(3, width, 3, 4), nn.Conv2d(width, 5, 1)
        self.squeeze, self.encode = nn.Conv2d(width, 8, 1), nn.Conv2d(8, 4 * 9, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        b, c, h, w = x.shape
        kernel = F.softmax(F.pixel_shuffle(self.encode(self.squeeze(x)), 2), 1)
        windows = F.interpolate(F.unfold(x, 3, padding=1).view(b, c * 9, h, w), scale_factor=2, mode="nearest")
        windows = windows.view(b, c, 9, 2 * h, 2 * w)
        return self.out(torch.einsum("bkhw,bckhw->bchw", kernel, windows))
