"""Nets for points, molecules, matches, tables and mixtures, as they are spelt in public code."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EdgeConvolution(nn.Module):
    """DGCNN: the nearest neighbours in feature space, gathered from a flat batch, differences beside the point."""

    def __init__(self, neighbours: int = 4) -> None:
        super().__init__()
        self.k = neighbours
        self.one = nn.Sequential(nn.Conv2d(6, 16, 1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2))
        self.two = nn.Sequential(nn.Conv2d(32, 24, 1, bias=False), nn.BatchNorm2d(24), nn.LeakyReLU(0.2))
        self.join, self.out = nn.Conv1d(40, 32, 1), nn.Linear(64, 5)

    def edges(self, x: Tensor) -> Tensor:
        b, c, n = x.size()
        inner, square = -2 * torch.matmul(x.transpose(2, 1), x), torch.sum(x**2, 1, keepdim=True)
        places = (-square - inner - square.transpose(2, 1)).topk(self.k, -1)[1]
        places = (places + torch.arange(b).view(-1, 1, 1) * n).view(-1)
        flat = x.transpose(2, 1).contiguous()
        near = flat.view(b * n, -1)[places, :].view(b, n, self.k, c)
        flat = flat.view(b, n, 1, c).repeat(1, 1, self.k, 1)
        return torch.cat((near - flat, flat), 3).permute(0, 3, 1, 2).contiguous()

    def forward(self, points: Tensor) -> Tensor:
        one = self.one(self.edges(points)).max(-1)[0]
        two = self.two(self.edges(one)).max(-1)[0]
        x = F.leaky_relu(self.join(torch.cat((one, two), 1)), 0.2)
        return self.out(torch.cat((x.amax(-1), x.mean(-1)), 1))


class EdgeBiases(nn.Module):
    """Graph Transformer and EGNN: attention biased by edges, edges that are refined, places moved by messages."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.i, self.e = heads, nn.Linear(8, width), nn.Linear(3, heads)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.edge = nn.Sequential(nn.Linear(2 * width + 1, 28), nn.SiLU(), nn.Linear(28, 20), nn.SiLU())
        self.coordinate, self.node, self.out = nn.Linear(20, 1), nn.Linear(width + 20, width), nn.Linear(width, 3)

    def forward(self, nodes: Tensor, places: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        x = self.i(nodes)
        b, n, c = x.shape
        q, k, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + self.e(edges).permute(0, 3, 1, 2)
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))
        gap = places[:, :, None] - places[:, None]
        far = gap.pow(2).sum(-1, keepdim=True)
        pairs = torch.cat([x[:, :, None].expand(b, n, n, c), x[:, None].expand(b, n, n, c), far], -1)
        message = self.edge(pairs)
        places = places + (gap / (far.sqrt() + 1) * self.coordinate(message)).mean(2)
        return self.out(x + self.node(torch.cat([x, message.sum(2)], -1))), places


class ContinuousFilters(nn.Module):
    """SchNet: distances spread over bells, filters from them, neighbours weighed by filters, energies summed."""

    def __init__(self, width: int = 20, bells: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, width)
        self.register_buffer("centres", torch.linspace(0, 5, bells))
        self.filter = nn.Sequential(nn.Linear(bells, 24), nn.Softplus(), nn.Linear(24, width))
        self.inside, self.after, self.last = (
            nn.Linear(width, width, bias=False),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.energy = nn.Sequential(nn.Linear(width, 10), nn.Softplus(), nn.Linear(10, 1))

    def forward(self, atoms: Tensor, places: Tensor) -> Tensor:
        x = self.embed(atoms)
        gap = places[:, :, None, :] - places[:, None, :, :]
        far = torch.sqrt((gap**2).sum(-1) + 1e-6)
        bells = torch.exp(-2.0 * (far[..., None] - self.centres) ** 2)
        cut = 0.5 * (torch.cos(far * math.pi / 8) + 1.0) * (far < 8).float()
        filters = self.filter(bells) * cut[..., None]
        y = (self.inside(x)[:, None] * filters).sum(2)
        x = x + self.last(F.softplus(self.after(y)) - math.log(2.0))
        return self.energy(x).sum(1)


class Triangles(nn.Module):
    """AlphaFold: means of outer products, products along triangles with gates, attention biased by pairs."""

    def __init__(self, width: int = 16, pairs: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.a, self.b = heads, nn.Linear(width, 5), nn.Linear(width, 5)
        self.outer, self.norm = nn.Linear(25, pairs), nn.LayerNorm(pairs)
        self.left, self.right, self.gate_left, self.gate_right = (nn.Linear(pairs, 10) for _ in range(4))
        self.inner, self.back, self.gate = nn.LayerNorm(10), nn.Linear(10, pairs), nn.Linear(pairs, pairs)
        self.qkv, self.bias = nn.Linear(pairs, 3 * 8 * heads, bias=False), nn.Linear(pairs, heads, bias=False)
        self.open, self.o, self.out = nn.Linear(pairs, 8 * heads), nn.Linear(8 * heads, pairs), nn.Linear(pairs, 4)

    def forward(self, rows: Tensor) -> Tensor:
        z = torch.einsum("bsic,bsjd->bijcd", self.a(rows), self.b(rows)).flatten(-2) / rows.shape[1]
        z = self.outer(z)
        y = self.norm(z)
        left, right = self.left(y) * self.gate_left(y).sigmoid(), self.right(y) * self.gate_right(y).sigmoid()
        y = self.back(self.inner(torch.einsum("bikc,bjkc->bijc", left, right))) * self.gate(y).sigmoid()
        z = z + y
        q, k, v = self.qkv(z).unflatten(-1, (3, self.heads, 8)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        scores = q @ k.transpose(-1, -2) * 8**-0.5 + self.bias(z).permute(0, 3, 1, 2).unsqueeze(1)
        y = (scores.softmax(-1) @ v).transpose(2, 3).flatten(-2)
        return self.out(z + self.o(y * self.open(z).sigmoid()))


class OptimalMatches(nn.Module):
    """SuperGlue and LoFTR: places encoded, self and cross attention, scores with a bin for what has no match."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.places = nn.Sequential(nn.Conv1d(2, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, width, 1))
        self.project, self.merge = (
            nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3)),
            nn.Conv1d(width, width, 1),
        )
        self.mlp = nn.Sequential(nn.Conv1d(2 * width, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, width, 1))
        self.final, self.bin = nn.Conv1d(width, width, 1), nn.Parameter(torch.tensor(1.0))

    def attend(self, x: Tensor, source: Tensor) -> Tensor:
        b = x.size(0)
        q, k, v = (
            f(y).view(b, -1, self.heads, y.size(-1)) for f, y in zip(self.project, (x, source, source), strict=True)
        )
        weights = torch.einsum("bdhn,bdhm->bhnm", q, k).div(q.shape[1] ** 0.5).softmax(-1)
        y = torch.einsum("bhnm,bdhm->bdhn", weights, v).contiguous().view(b, -1, x.size(-1))
        return x + self.mlp(torch.cat([x, self.merge(y)], 1))

    def forward(self, left: Tensor, right: Tensor, one: Tensor, two: Tensor) -> Tensor:
        a, d = left + self.places(one.transpose(1, 2)), right + self.places(two.transpose(1, 2))
        a, d = self.attend(a, a), self.attend(d, d)
        a, d = self.attend(a, d), self.attend(d, a)
        scores = torch.einsum("bdn,bdm->bnm", self.final(a), self.final(d)) / 24**0.5
        b, m, n = scores.shape
        bins = self.bin.expand(b, m, 1), self.bin.expand(b, 1, n), self.bin.expand(b, 1, 1)
        scores = torch.cat([torch.cat([scores, bins[0]], -1), torch.cat([bins[1], bins[2]], -1)], 1)
        u, v = torch.zeros_like(scores[:, :, 0]), torch.zeros_like(scores[:, 0])
        for _ in range(3):
            u = -torch.logsumexp(scores + v.unsqueeze(1), 2)
            v = -torch.logsumexp(scores + u.unsqueeze(2), 1)
        return scores + u.unsqueeze(2) + v.unsqueeze(1)


class MaskDecoder(nn.Module):
    """SAM: learned tokens and prompts look at an image both ways, small nets of tokens make kernels for its maps."""

    def __init__(self, width: int = 24, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.image = heads, nn.Conv2d(3, width, 8, 8)
        self.tokens, self.frequencies = (
            nn.Embedding(3, width),
            nn.Parameter(torch.randn(2, width // 2), requires_grad=False),
        )
        self.q, self.k, self.v, self.o = (
            nn.Linear(i, o) for i, o in ((width, 12), (width, 12), (width, 12), (12, width))
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(width, 12, 2, 2), nn.GELU(), nn.ConvTranspose2d(12, 8, 2, 2), nn.GELU()
        )
        self.hyper = nn.ModuleList(nn.Sequential(nn.Linear(width, 20), nn.ReLU(), nn.Linear(20, 8)) for _ in range(2))
        self.quality = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 2))

    def encode(self, places: Tensor) -> Tensor:
        angle = 2 * math.pi * ((2 * places - 1) @ self.frequencies)
        return torch.cat([torch.sin(angle), torch.cos(angle)], -1)

    def attend(self, x: Tensor, source: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            f(y).reshape(b, -1, self.heads, 6).transpose(1, 2)
            for f, y in ((self.q, x), (self.k, source), (self.v, source))
        )
        return x + self.o(((q @ k.transpose(2, 3) / 6**0.5).softmax(-1) @ v).transpose(1, 2).reshape(b, n, 12))

    def forward(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        features = self.image(image)
        b, c, h, w = features.shape
        rows, columns = (torch.arange(h).float() + 0.5) / h, (torch.arange(w).float() + 0.5) / w
        grid = torch.stack([columns[None, :].expand(h, w), rows[:, None].expand(h, w)], -1)
        source = features.flatten(2).permute(0, 2, 1) + self.encode(grid).view(1, h * w, c)
        tokens = torch.cat((self.tokens.weight.unsqueeze(0).expand(b, -1, -1), self.encode(points)), 1)
        tokens = self.attend(tokens, source)
        source = self.attend(source, tokens)
        maps = self.up(source.transpose(1, 2).view(b, c, h, w))
        kernels = torch.stack([net(tokens[:, 1 + k, :]) for k, net in enumerate(self.hyper)], 1)
        b, c, h, w = maps.shape
        return (kernels @ maps.view(b, c, h * w)).view(b, -1, h, w), self.quality(tokens[:, 0, :])


class LearnedPlaces(nn.Module):
    """DETR: places looked up per column and row, an encoder that is length first, queries that a decoder answers."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, width, 2, 2))
        self.columns, self.rows = nn.Embedding(50, width // 2), nn.Embedding(50, width // 2)
        self.own, self.cross = nn.MultiheadAttention(width, 4), nn.MultiheadAttention(width, 4)
        self.mlp, self.norm = nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, width)), nn.LayerNorm(width)
        self.queries, self.classes, self.boxes = nn.Embedding(5, width), nn.Linear(width, 4), nn.Linear(width, 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.backbone(image)
        b, _, h, w = x.shape
        columns, rows = self.columns(torch.arange(w)), self.rows(torch.arange(h))
        places = torch.cat([columns.unsqueeze(0).repeat(h, 1, 1), rows.unsqueeze(1).repeat(1, w, 1)], -1)
        places = places.permute(2, 0, 1).unsqueeze(0).repeat(b, 1, 1, 1).flatten(2).permute(2, 0, 1)
        x = x.flatten(2).permute(2, 0, 1)
        q = x + places
        x = self.norm(x + self.own(q, q, value=x)[0])
        x = x + self.mlp(x)
        query = self.queries.weight.unsqueeze(1).repeat(1, b, 1)
        y = self.cross(torch.zeros_like(query) + query, x + places, value=x)[0].transpose(0, 1)
        return self.classes(y), self.boxes(y).sigmoid()


class TwoTowers(nn.Module):
    """Users and items: embeddings summed and joined, towers to one length, products; and neural filtering beside."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.user, self.item, self.history = nn.Embedding(30, width), nn.Embedding(40, width), nn.Embedding(40, width)
        self.left = nn.Sequential(nn.Linear(2 * width, 32), nn.ReLU(), nn.Linear(32, 16))
        self.right = nn.Sequential(nn.Linear(width, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16))
        self.deep, self.last = (
            nn.Sequential(nn.Linear(2 * width, 20), nn.ReLU(), nn.Linear(20, 8)),
            nn.Linear(width + 8, 1),
        )

    def forward(self, user: Tensor, item: Tensor, history: Tensor) -> Tensor:
        u, i, h = self.user(user), self.item(item), self.history(history).mean(1)
        left, right = (F.normalize(x, dim=-1) for x in (self.left(torch.cat([u, h], 1)), self.right(i)))
        deep = self.last(torch.cat([u * i, self.deep(torch.cat([u, i], -1))], -1)).squeeze(-1)
        return torch.sigmoid((left * right).sum(-1) / 0.1 + deep)


class TargetAttention(nn.Module):
    """DIN: what was clicked is weighed by a net of it and the item, with their difference and product, under a mask."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.items = nn.Embedding(40, width)
        self.weigh = nn.Sequential(nn.Linear(4 * width, 20), nn.Sigmoid(), nn.Linear(20, 1))
        self.out = nn.Sequential(nn.Linear(2 * width, 24), nn.PReLU(), nn.Linear(24, 1))

    def forward(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        q, k = self.items(item), self.items(history)
        q2 = q.unsqueeze(1).expand(-1, k.shape[1], -1)
        scores = self.weigh(torch.cat([q2, k, q2 - k, q2 * k], -1)).transpose(1, 2)
        scores = torch.where(mask.unsqueeze(1) > 0, scores, torch.full_like(scores, -1e9))
        pooled = torch.bmm(torch.softmax(scores / 12**0.5, -1), k).squeeze(1)
        return self.out(torch.cat([pooled, q], -1))


class GatedExperts(nn.Module):
    """MMoE and soft mixtures: every task weighs all experts; slots that take shares of tokens and give them back."""

    def __init__(self, width: int = 16, experts: int = 3, slots: int = 2) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, 24), nn.ReLU()) for _ in range(experts))
        self.gates, self.towers = (
            nn.ModuleList(nn.Linear(width, experts) for _ in range(2)),
            nn.ModuleList(nn.Linear(24, 1) for _ in range(2)),
        )
        self.phi = nn.Parameter(torch.randn(width, experts, slots))
        self.up, self.down = (
            nn.Parameter(torch.randn(experts, width, 20) / 4),
            nn.Parameter(torch.randn(experts, 20, width) / 4),
        )

    def forward(self, sequence: Tensor) -> tuple[Tensor, ...]:
        logits = torch.einsum("bnd,des->bnes", sequence, self.phi)
        dispatch, combine = logits.softmax(1), logits.flatten(2).softmax(-1).view_as(logits)
        slots = torch.einsum("bnd,bnes->besd", sequence, dispatch)
        slots = torch.einsum("besh,ehd->besd", F.gelu(torch.einsum("besd,edh->besh", slots, self.up)), self.down)
        x = (sequence + torch.einsum("besd,bnes->bnd", slots, combine)).mean(1)
        answers = torch.stack([expert(x) for expert in self.experts], 1)
        mixed = ((gate(x).softmax(-1).unsqueeze(-1) * answers).sum(1) for gate in self.gates)
        return tuple(tower(y) for tower, y in zip(self.towers, mixed, strict=True))


class MaskedCouplings(nn.Module):
    """RealNVP and MADE: halves chosen by masks that are factors, linear layers whose weights are masked."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.arange(size) % 2).float())
        self.s = nn.ModuleList(nn.Sequential(nn.Linear(size, 20), nn.Tanh(), nn.Linear(20, size)) for _ in range(2))
        self.t = nn.ModuleList(nn.Sequential(nn.Linear(size, 24), nn.ReLU(), nn.Linear(24, size)) for _ in range(2))
        self.one, self.two = nn.Linear(size, 30), nn.Linear(30, 2 * size)
        degrees = torch.arange(30) % (size - 1)
        self.register_buffer("first", (degrees[:, None] >= torch.arange(size)[None]).float())
        self.register_buffer("second", (torch.arange(size).repeat(2)[:, None] > degrees[None]).float())

    def forward(self, row: Tensor) -> tuple[Tensor, Tensor]:
        z, total = row, torch.zeros_like(row[:, 0])
        for k, (s, t) in enumerate(zip(self.s, self.t, strict=True)):
            mask = self.mask if k == 0 else 1 - self.mask
            kept = z * mask
            log = torch.tanh(s(kept)) * (1 - mask)
            z, total = kept + (1 - mask) * (z * torch.exp(log) + t(kept)), total + log.sum(-1)
        h = F.relu(F.linear(z, self.one.weight * self.first, self.one.bias))
        mean, scale = F.linear(h, self.two.weight * self.second, self.two.bias).chunk(2, -1)
        return (z - mean) * torch.exp(-torch.tanh(scale)), total


class Operators(nn.Module):
    """DeepONet: a net of a function and a net of places (random Fourier features, sines), multiplied and summed."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 8))
        self.branch = nn.Sequential(nn.Linear(12, 28), nn.Tanh(), nn.Linear(28, width))
        self.one, self.two, self.bias = nn.Linear(16, 24), nn.Linear(24, width), nn.Parameter(torch.zeros(1))

    def forward(self, function: Tensor, places: Tensor) -> Tensor:
        angle = 2 * math.pi * places @ self.frequencies
        x = torch.cat([torch.sin(angle), torch.cos(angle)], -1)
        x = torch.sin(3.0 * self.two(torch.sin(3.0 * self.one(x))))
        return torch.einsum("bp,bnp->bn", self.branch(function), x) + self.bias


class Splines(nn.Module):
    """KAN: every input to every output by a sum of spline bases, which are computed by their recursion."""

    def __init__(self, sizes: tuple[int, ...] = (6, 14, 3), grid: int = 4, order: int = 2) -> None:
        super().__init__()
        self.order = order
        knots = torch.arange(-order, grid + order + 1).float() * (2 / grid) - 1
        self.register_buffer("knots", knots)
        pairs = list(itertools.pairwise(sizes))
        self.base = nn.ParameterList(nn.Parameter(torch.randn(o, i) / i) for i, o in pairs)
        self.spline = nn.ParameterList(nn.Parameter(torch.randn(o, i, grid + order) / i) for i, o in pairs)

    def bases(self, x: Tensor) -> Tensor:
        x, g = x.unsqueeze(-1), self.knots
        y = ((x >= g[:-1]) & (x < g[1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (x - g[: -(k + 1)]) / (g[k:-1] - g[: -(k + 1)]) * y[..., :-1]
            y = left + (g[k + 1 :] - x) / (g[k + 1 :] - g[1:(-k)]) * y[..., 1:]
        return y

    def forward(self, row: Tensor) -> Tensor:
        x = torch.tanh(row)
        for base, spline in zip(self.base, self.spline, strict=True):
            y = F.linear(self.bases(x).view(x.size(0), -1), spline.view(spline.shape[0], -1))
            x = torch.tanh(F.linear(F.silu(x), base) + y)
        return x


class WeightsFromNets(nn.Module):
    """A net makes the weights of another per sample; a mixture of normals and two heads of an agent follow."""

    def __init__(self, inner: int = 10) -> None:
        super().__init__()
        self.inner, self.embed = inner, nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.weight, self.bias, self.back = nn.Linear(16, 5 * inner), nn.Linear(16, inner), nn.Linear(inner, 24)
        self.pi, self.mu, self.sigma = nn.Linear(24, 3), nn.Linear(24, 6), nn.Linear(24, 6)
        self.value, self.advantage = nn.Sequential(nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 1)), nn.Linear(24, 4)

    def forward(self, task: Tensor, row: Tensor) -> tuple[Tensor, ...]:
        e = self.embed(task)
        y = torch.bmm(self.weight(e).view(-1, self.inner, 5), row.unsqueeze(-1)).squeeze(-1) + self.bias(e)
        x = F.relu(self.back(torch.relu(y)))
        advantage = self.advantage(x)
        q = self.value(x) + advantage - advantage.mean(1, keepdim=True)
        return F.softmax(self.pi(x), 1), self.mu(x).view(-1, 3, 2), F.elu(self.sigma(x)).view(-1, 3, 2) + 1, q


class TagScores(nn.Module):
    """A CRF's sum over all tag sequences, characters convolved to words, highways between."""

    def __init__(self, tags: int = 5) -> None:
        super().__init__()
        self.characters, self.convs = (
            nn.Embedding(30, 8),
            nn.ModuleList(nn.Conv1d(8, c, k) for c, k in ((10, 2), (14, 3))),
        )
        self.gate, self.way, self.lstm = (
            nn.Linear(24, 24),
            nn.Linear(24, 24),
            nn.LSTM(24, 12, batch_first=True, bidirectional=True),
        )
        self.emit, self.move = nn.Linear(24, tags), nn.Parameter(torch.randn(tags, tags))

    def forward(self, characters: Tensor) -> tuple[Tensor, Tensor]:
        b, n, m = characters.shape
        x = self.characters(characters.view(-1, m)).transpose(1, 2)
        x = torch.cat([F.relu(conv(x).max(-1)[0]) for conv in self.convs], 1)
        gate = torch.sigmoid(self.gate(x))
        x = (gate * F.relu(self.way(x)) + (1 - gate) * x).view(b, n, -1)
        emit = self.emit(self.lstm(x)[0])
        alpha = emit[:, 0]
        for k in range(1, 6):
            alpha = torch.logsumexp(alpha.unsqueeze(2) + self.move + emit[:, k].unsqueeze(1), 1)
        return emit, torch.logsumexp(alpha, 1)
