"""Layers that image nets share, as they are spelt in public code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.oddities import conv_bn


class DepthHead(nn.Module):
    """Depth Anything: positions of tokens interpolated, levels reassembled, fused at each other's size, enlarged."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(3, width, 14, 14), nn.Parameter(torch.randn(1, 17, width))
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width)) for _ in range(2)
        )
        self.readout = nn.ModuleList(nn.Sequential(nn.Linear(2 * width, width), nn.GELU()) for _ in range(2))
        self.project = nn.ModuleList([nn.Conv2d(width, 16, 1), nn.Conv2d(width, 20, 1)])
        self.resize = nn.ModuleList([nn.ConvTranspose2d(16, 16, 2, 2), nn.Conv2d(20, 20, 3, 2, 1)])
        self.scratch = nn.ModuleList(nn.Conv2d(c, 16, 3, 1, 1, bias=False) for c in (16, 20))
        self.residual = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(2))
        self.first, self.second = (
            nn.Conv2d(16, 8, 3, 1, 1),
            nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 1, 1)),
        )

    def embed(self, image: Tensor) -> Tensor:
        h, w = image.shape[2] // 14, image.shape[3] // 14
        x = self.patches(image).flatten(2).transpose(1, 2)
        grid = self.places[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(h, w), mode="bicubic", align_corners=False)
        x = x + grid.permute(0, 2, 3, 1).reshape(1, -1, x.shape[-1])
        return torch.cat((self.token.expand(x.shape[0], -1, -1) + self.places[:, :1], x), 1)

    def forward(self, image: Tensor) -> Tensor:
        x, levels = self.embed(image), []
        h, w = image.shape[-2] // 14, image.shape[-1] // 14
        for k, block in enumerate(self.blocks):
            x = x + block(x)
            y = torch.cat((x[:, 1:], x[:, :1].expand_as(x[:, 1:])), -1)
            y = self.readout[k](y).permute(0, 2, 1).reshape((x.shape[0], x.shape[-1], h, w))
            levels.append(self.scratch[k](self.resize[k](self.project[k](y))))
        fine, coarse = levels
        coarse = coarse + self.residual[0](F.relu(coarse))
        coarse = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=True)
        fine = fine + coarse
        fine = F.interpolate(fine + self.residual[1](F.relu(fine)), scale_factor=2, mode="bilinear", align_corners=True)
        y = F.interpolate(self.first(fine), (int(h * 14), int(w * 14)), mode="bilinear", align_corners=True)
        return F.relu(self.second(y)).squeeze(1)


class SegNet(nn.Module):
    """Values are put back where the poolings of the encoder found them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv_bn(3, 12), conv_bn(12, 20)
        self.c, self.d = conv_bn(20, 12), nn.Conv2d(12, 4, 3, 1, 1)

    @staticmethod
    def put_back(pooled: Tensor, places: Tensor, to: Tensor) -> Tensor:
        return torch.zeros_like(to).flatten(2).scatter(2, places.flatten(2), pooled.flatten(2)).view(to.shape)

    def forward(self, image: Tensor) -> Tensor:
        wide = self.a(image)
        x, first = F.max_pool2d(wide, 2, 2, return_indices=True)
        x = self.b(x)
        y, second = F.max_pool2d(x, 2, 2, return_indices=True)
        return self.d(self.put_back(self.c(self.put_back(y, second, x)), first, wide))


class DetailCapture(nn.Module):
    """VitMatte: a coarse map fused with ever finer convolutions of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = nn.ModuleList(conv_bn(i, o, 3, 2) for i, o in ((4, 12), (12, 16)))
        self.body = nn.Sequential(nn.Conv2d(4, 24, 8, 8), nn.GELU(), nn.Conv2d(24, 24, 3, 1, 1))
        self.fuse = nn.ModuleList(conv_bn(i, o) for i, o in ((24 + 16, 20), (20 + 12, 16), (16 + 4, 8)))
        self.matting = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        details = [image]
        for stream in self.stream:
            details.append(stream(details[-1]))
        x = self.body(image)
        for fuse, detail in zip(self.fuse, details[::-1], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = fuse(torch.cat([detail, x], 1))
        return torch.sigmoid(self.matting(x))


class GlobalResponse(nn.Module):
    """ConvNeXt V2: the last axis normalised, and responses divided by their mean over channels."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 64), nn.Linear(64, width)
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, 64)) for _ in range(2))
        self.out = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        y = F.gelu(self.up(self.norm(self.depth(x).permute(0, 2, 3, 1))))
        response = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        y = self.gamma * (y * (response / (response.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + y
        return self.out((x + self.down(y).permute(0, 3, 1, 2)).mean([-2, -1]))


class GroupEnhance(nn.Module):
    """SGE: in every group of channels, places that are like the mean of the group; groups in the batch."""

    def __init__(self, width: int = 32, groups: int = 4) -> None:
        super().__init__()
        self.groups, self.first, self.out = groups, conv_bn(3, width), nn.Conv2d(width, 5, 1)
        self.weight, self.bias = (nn.Parameter(torch.full((1, groups, 1, 1), v)) for v in (0.0, 1.0))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        b, c, h, w = x.size()
        x = x.view(b * self.groups, -1, h, w)
        y = (x * F.adaptive_avg_pool2d(x, 1)).sum(dim=1, keepdim=True)
        t = y.view(b * self.groups, -1)
        t = t - t.mean(dim=1, keepdim=True)
        t = (t / (t.std(dim=1, keepdim=True) + 1e-5)).view(b, self.groups, h, w)
        t = (t * self.weight + self.bias).view(b * self.groups, 1, h, w)
        return self.out((x * torch.sigmoid(t)).view(b, c, h, w))


class CrossSpatial(nn.Module):
    """EMA: groups in the batch, means along height and width together, and two branches that weigh each other."""

    def __init__(self, width: int = 32, factor: int = 4) -> None:
        super().__init__()
        self.groups, self.first, self.out = factor, conv_bn(3, width), nn.Conv2d(width, 5, 1)
        self.norm = nn.GroupNorm(width // factor, width // factor)
        self.one, self.three = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        b, c, h, w = x.size()
        y = x.reshape(b * self.groups, -1, h, w)
        along = y.mean(3, keepdim=True), y.mean(2, keepdim=True).permute(0, 1, 3, 2)
        rows, columns = torch.split(self.one(torch.cat(along, dim=2)), [h, w], dim=2)
        a = self.norm(y * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid())
        d = self.three(y)
        left = torch.softmax(a.mean((2, 3), keepdim=True).reshape(b * self.groups, -1, 1).permute(0, 2, 1), -1)
        right = torch.softmax(d.mean((2, 3), keepdim=True).reshape(b * self.groups, -1, 1).permute(0, 2, 1), -1)
        weights = left @ d.reshape(b * self.groups, c // self.groups, -1)
        weights = weights + right @ a.reshape(b * self.groups, c // self.groups, -1)
        return self.out((y * weights.reshape(b * self.groups, 1, h, w).sigmoid()).reshape(b, c, h, w))


class CoordinateAttention(nn.Module):
    """Means along height and width through one convolution, split by their sizes."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.last = conv_bn(3, width, 3, 2), nn.Conv2d(width, 5, 1)
        self.shared = nn.Sequential(nn.Conv2d(width, 8, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.rows, self.columns = nn.Conv2d(8, width, 1), nn.Conv2d(8, width, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        _, _, h, w = x.size()
        y = self.shared(torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2))
        rows, columns = torch.split(y, [h, w], dim=2)
        return self.last(x * self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid())


class ChannelConvolution(nn.Module):
    """ECA: a convolution along the channels; and squeeze and excitation by linear layers."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.second, self.out = conv_bn(3, width), conv_bn(width, width), nn.Conv2d(width, 5, 1)
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.squeeze = nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, width), nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        y = F.adaptive_avg_pool2d(x, 1)
        y = self.along(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        x = self.second(x * y.sigmoid().expand_as(x))
        b, c, _, _ = x.size()
        y = self.squeeze(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1)
        return self.out(x * y.expand_as(x))


class NonLocal(nn.Module):
    """Every place looks at every other; then DANet's attention of channels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.inner = conv_bn(3, width, 3, 2), width // 2
        self.theta, self.phi, self.g = (nn.Conv2d(width, self.inner, 1) for _ in range(3))
        self.back, self.out = nn.Conv2d(self.inner, width, 1), nn.Conv2d(width, 5, 1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        b, c, h, w = x.size()
        theta, phi, g = (f(x).view(b, self.inner, -1) for f in (self.theta, self.phi, self.g))
        y = torch.matmul(F.softmax(torch.matmul(theta.permute(0, 2, 1), phi), -1), g.permute(0, 2, 1))
        x = x + self.back(y.permute(0, 2, 1).contiguous().view(b, self.inner, *x.size()[2:]))
        flat = x.view(b, c, -1)
        energy = torch.bmm(flat, flat.permute(0, 2, 1)) / (h * w)
        energy = torch.max(energy, -1, keepdim=True)[0].expand_as(energy) - energy
        return self.out(self.scale * torch.bmm(F.softmax(energy, -1), flat).view(b, c, h, w) + x)


class Correlation(nn.Module):
    """RAFT: products of all pairs of places, pooled, looked up around a flow that a recurrent cell refines twice."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1))
        self.motion, self.context = conv_bn(2 * 9 + 2, 16, 1), nn.Conv2d(width, 16, 1)
        self.gates, self.state = nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 16, 3, 1, 1)
        self.flow = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 2, 3, 1, 1))

    @staticmethod
    def places(b: int, h: int, w: int) -> Tensor:
        grid = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        return torch.stack(grid[::-1], 0).float()[None].repeat(b, 1, 1, 1)

    @staticmethod
    def look_up(levels: list[Tensor], places: Tensor) -> Tensor:
        places = places.permute(0, 2, 3, 1)
        b, h, w, _ = places.shape
        step = torch.stack(torch.meshgrid(torch.arange(-1.0, 2), torch.arange(-1.0, 2), indexing="ij"), -1)
        results = []
        for k, level in enumerate(levels):
            around = places.reshape(b * h * w, 1, 1, 2) / 2**k + step.view(1, 3, 3, 2)
            height, width = level.shape[-2:]
            x, y = around.split([1, 1], dim=-1)
            grid = torch.cat([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
            results.append(F.grid_sample(level, grid, align_corners=True).view(b, h, w, -1))
        return torch.cat(results, -1).permute(0, 3, 1, 2).contiguous()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, d = self.encoder(left), self.encoder(right)
        b, c, h, w = a.shape
        pairs = torch.matmul(a.view(b, c, h * w).transpose(1, 2), d.view(b, c, h * w)) / c**0.5
        pairs = pairs.view(b * h * w, 1, h, w)
        levels = [pairs, F.avg_pool2d(pairs, 2, 2)]
        state, start = torch.tanh(self.context(a)), self.places(b, h, w)
        places = start
        for _ in range(2):
            x = self.motion(torch.cat([self.look_up(levels, places), places - start], 1))
            z, r = torch.sigmoid(self.gates(torch.cat([state, x], 1))).chunk(2, 1)
            state = (1 - z) * state + z * torch.tanh(self.state(torch.cat([r * state, x], 1)))
            places = places + self.flow(state)
        return 4 * F.interpolate(places - start, size=(4 * h, 4 * w), mode="bilinear", align_corners=True)


class UNet(nn.Module):
    """Maps enlarged to the size of those that they join, which need not be twice theirs; attention gates between."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv_bn(3, 12), conv_bn(12, 16), conv_bn(16, 24)])
        self.gate, self.map = nn.Conv2d(24, 16, 1), nn.Conv2d(16, 1, 1)
        self.up = nn.ModuleList([conv_bn(24 + 16, 16), conv_bn(16 + 12, 12)])
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = [self.down[0](image)]
        for down in self.down[1:]:
            maps.append(down(F.max_pool2d(maps[-1], 2)))
        x = F.interpolate(maps[2], size=maps[1].size()[2:], mode="bilinear", align_corners=True)
        gated = maps[1] * torch.sigmoid(self.map(F.relu(maps[1] + self.gate(x))))
        x = self.up[0](torch.cat([x, gated], 1))
        rows, columns = maps[0].size(2) - 2 * x.size(2), maps[0].size(3) - 2 * x.size(3)
        x = F.pad(F.interpolate(x, scale_factor=2), [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.out(self.up[1](torch.cat([x, maps[0]], 1)))


class FeaturePyramid(nn.Module):
    """FPN with one head for all levels, whose answers are viewed per anchor and joined."""

    def __init__(self, classes: int = 3, anchors: int = 2) -> None:
        super().__init__()
        self.classes, self.stages = (
            classes,
            nn.ModuleList([conv_bn(3, 12, 3, 2), conv_bn(12, 16, 3, 2), conv_bn(16, 24, 3, 2)]),
        )
        self.lateral = nn.ModuleList(nn.Conv2d(c, 16, 1) for c in (12, 16, 24))
        self.smooth = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(3))
        self.head = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, anchors * classes, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        maps, x = [], image
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        top, answers = None, []
        for k in (2, 1, 0):
            side = self.lateral[k](maps[k])
            top = side if top is None else side + F.interpolate(top, size=side.shape[-2:], mode="nearest")
            y = self.head(self.smooth[k](top))
            n, _, h, w = y.shape
            y = y.view(n, -1, self.classes, h, w).permute(0, 3, 4, 1, 2)
            answers.append(y.reshape(n, -1, self.classes))
        return torch.cat(answers, 1)


class HighResolution(nn.Module):
    """HRNet: two resolutions side by side, exchanged, and joined at the larger one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = conv_bn(3, 16, 3, 2), conv_bn(16, 24, 3, 2)
        self.high, self.low = conv_bn(16, 16), conv_bn(24, 24)
        self.raise_, self.lower = nn.Sequential(nn.Conv2d(24, 16, 1), nn.BatchNorm2d(16)), nn.Conv2d(16, 24, 3, 2, 1)
        self.head = nn.Sequential(nn.Conv2d(40, 24, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 4, 1))

    def forward(self, image: Tensor) -> Tensor:
        high = self.stem(image)
        low = self.low(self.down(high))
        high = self.high(high)
        h, w = high.shape[-2], high.shape[-1]
        up = F.interpolate(self.raise_(low), size=[h, w], mode="bilinear", align_corners=False)
        high, low = F.relu(high + up), F.relu(low + self.lower(high))
        h, w = high.size(2), high.size(3)
        joined = torch.cat([high, F.interpolate(low, size=(h, w), mode="bilinear", align_corners=False)], 1)
        return F.interpolate(self.head(joined), size=image.shape[-2:], mode="bilinear", align_corners=False)


class GridHead(nn.Module):
    """YOLOv5's head: answers per anchor, moved to a grid that is computed from the size of the map."""

    def __init__(self, anchors: int = 3, outputs: int = 7) -> None:
        super().__init__()
        self.anchors, self.outputs = anchors, outputs
        self.body = nn.Sequential(conv_bn(3, 16, 3, 2), conv_bn(16, 24, 3, 2))
        self.spp, self.m = conv_bn(24 * 3, 24, 1), nn.Conv2d(24, anchors * outputs, 1)
        self.register_buffer("sizes", torch.rand(1, anchors, 1, 1, 2) + 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.body(image)
        y = F.max_pool2d(x, 5, 1, 2)
        x = self.m(self.spp(torch.cat([x, y, F.max_pool2d(y, 5, 1, 2)], 1)))
        b, _, h, w = x.shape
        x = x.view(b, self.anchors, self.outputs, h, w).permute(0, 1, 3, 4, 2).contiguous()
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((columns, rows), 2).expand((1, self.anchors, h, w, 2)).float()
        y = x.sigmoid()
        place, size, rest = y.split((2, 2, self.outputs - 4), 4)
        y = torch.cat(((place * 2 + grid - 0.5) * 4, (size * 2) ** 2 * self.sizes, rest), 4)
        return y.view(b, self.anchors * h * w, self.outputs)


class PointNet(nn.Module):
    """Points turned by a matrix that a net finds from all of them; features by the largest of any point."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.matrix = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 9))
        self.first = nn.Sequential(nn.Conv1d(3, 24, 1), nn.BatchNorm1d(24), nn.ReLU())
        self.second, self.out = nn.Conv1d(24, 32, 1), nn.Conv1d(24 + 32, 5, 1)

    def forward(self, points: Tensor) -> Tensor:
        b, _, n = points.size()
        x = torch.max(self.turn(points), 2, keepdim=True)[0].view(-1, 16)
        one = torch.eye(3).flatten().view(1, 9).repeat(b, 1)
        turned = torch.bmm(points.transpose(2, 1), (self.matrix(x) + one).view(-1, 3, 3)).transpose(2, 1)
        x = self.first(turned)
        top = torch.max(self.second(x), 2, keepdim=True)[0].view(-1, 32, 1).repeat(1, 1, n)
        return self.out(torch.cat([x, top], 1)).transpose(2, 1).log_softmax(-1)


class Capsules(nn.Module):
    """Vectors whose length is a probability, routed by agreement thrice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.primary = nn.Conv2d(3, 16, 5, 2), nn.Conv2d(16, 4 * 8, 5, 2)
        self.weight = nn.Parameter(torch.randn(1, 4 * 16, 3, 6, 8) * 0.1)
        self.decoder = nn.Sequential(nn.Linear(18, 32), nn.ReLU(), nn.Linear(32, 10))

    @staticmethod
    def squash(x: Tensor) -> Tensor:
        norm = (x**2).sum(-1, keepdim=True)
        return norm / (1 + norm) * x / (norm.sqrt() + 1e-8)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.primary(F.relu(self.first(image)))
        b = x.size(0)
        x = self.squash(x.view(b, 4, 8, -1).permute(0, 1, 3, 2).contiguous().view(b, -1, 8))
        votes = torch.matmul(self.weight, x[:, :, None, :, None]).squeeze(-1)
        logits = torch.zeros(b, votes.shape[1], 3, 1)
        for k in range(3):
            capsules = self.squash((F.softmax(logits, 2) * votes).sum(1, keepdim=True))
            if k < 2:
                logits = logits + (votes * capsules).sum(-1, keepdim=True)
        return capsules.squeeze(1).norm(dim=-1), self.decoder(capsules.reshape(b, -1))


class Atrous(nn.Module):
    """DeepLab's pyramid of dilated convolutions beside a pooled branch, GhostNet's halves and a shuffle of channels."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.cheap = conv_bn(3, 12, 3, 2), conv_bn(12, 12, 3, groups=12)
        self.rates = nn.ModuleList(nn.Conv2d(width, 12, 3, 1, r, dilation=r) for r in (1, 2, 4))
        self.pool, self.project = nn.Conv2d(width, 12, 1), conv_bn(48, width, 1)
        self.out = nn.Conv2d(width, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        x = torch.cat([x, self.cheap(x)], 1)[:, :24]
        b, c, h, w = x.size()
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        pooled = F.interpolate(
            self.pool(F.adaptive_avg_pool2d(x, 1)), size=x.shape[-2:], mode="bilinear", align_corners=False
        )
        x = self.project(torch.cat([*(rate(x) for rate in self.rates), pooled], 1))
        return F.interpolate(self.out(x), image.shape[2:], mode="bilinear", align_corners=False)
