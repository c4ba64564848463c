"""Attention over tokens and over images, as it is spelt in public code."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Transformer(nn.Module):
    """PyTorch's own encoder and decoder, length first, with a causal mask that is computed from the length."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(60, width), nn.Linear(width, 60)
        self.body = nn.Transformer(width, 4, 1, 1, 64, dropout=0.0)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = torch.triu(torch.full((target.shape[1], target.shape[1]), -1e9), 1)
        x, y = self.embed(source).transpose(0, 1), self.embed(target).transpose(0, 1)
        return self.out(self.body(x, y, tgt_mask=mask)).transpose(0, 1)


class BartAttention(nn.Module):
    """BART's attention before it was fused: heads in the batch, by views of a computed batch times heads."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size, self.embed = heads, width // heads, nn.Embedding(60, width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 64), nn.Linear(64, width)

    def _shape(self, x: Tensor, length: int, batch: int) -> Tensor:
        return x.view(batch, length, self.heads, self.size).transpose(1, 2).contiguous()

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens)
        batch, length, width = x.size()
        shape = (batch * self.heads, -1, self.size)
        q = self._shape(self.q(x) * self.size**-0.5, length, batch).view(*shape)
        k, v = (self._shape(f(x), length, batch).view(*shape) for f in (self.k, self.v))
        scores = torch.bmm(q, k.transpose(1, 2)).view(batch, self.heads, length, length)
        scores = scores + (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        weights = F.softmax(scores.view(batch * self.heads, length, length), -1)
        y = torch.bmm(weights, v).view(batch, self.heads, length, self.size).transpose(1, 2)
        x = self.norm(x + self.o(y.reshape(batch, length, width)))
        return x + self.down(F.gelu(self.up(x)))


class Perceiver(nn.Module):
    """Learned latents that read an input of any length, think among themselves, and are read by queries."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.latents, self.queries = nn.Parameter(torch.randn(6, width)), nn.Parameter(torch.randn(3, width))
        self.q, self.kv, self.o = nn.Linear(width, 48), nn.Linear(16, 96), nn.Linear(48, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))
        self.think = nn.MultiheadAttention(width, 4, batch_first=True)
        self.q2, self.kv2, self.out = nn.Linear(width, 32), nn.Linear(width, 64), nn.Linear(32, 10)

    @staticmethod
    def attend(q: Tensor, kv: Tensor, heads: int = 4) -> Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, *kv.chunk(2, -1)))
        weights = torch.einsum("bhid,bhjd->bhij", q, k).mul(q.shape[-1] ** -0.5).softmax(-1)
        return torch.einsum("bhij,bhjd->bhid", weights, v).transpose(1, 2).flatten(2)

    def forward(self, sequence: Tensor) -> Tensor:
        batch = sequence.shape[0]
        x = self.latents.unsqueeze(0).expand(batch, -1, -1)
        x = x + self.o(self.attend(self.q(x), self.kv(sequence)))
        x = x + self.think(x, x, x)[0]
        x = x + self.mlp(x)
        return self.out(self.attend(self.q2(self.queries.repeat(batch, 1, 1)), self.kv2(x)))


class PoolingHead(nn.Module):
    """SigLIP's pooling: a probe, repeated over the batch, attends with PyTorch's attention, weights asked for."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 8, 8)
        self.probe, self.attention = (
            nn.Parameter(torch.randn(1, 1, width)),
            nn.MultiheadAttention(width, 4, batch_first=True),
        )
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(approximate="tanh"), nn.Linear(64, width))

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image).flatten(2).transpose(1, 2)
        y = self.attention(self.probe.repeat(x.shape[0], 1, 1), x, x)[0]
        return (y + self.mlp(self.norm(y)))[:, 0]


class RelativeBuckets(nn.Module):
    """T5's attention: the bias is looked up by buckets of distances, which are computed from the length."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.embed, self.bias = heads, nn.Embedding(60, width), nn.Embedding(16, heads)
        self.qkv, self.o, self.out = nn.Linear(width, 3 * 48, bias=False), nn.Linear(48, width), nn.Linear(width, 20)

    @staticmethod
    def bucket(distance: Tensor, count: int = 16, most: int = 32) -> Tensor:
        half = count // 2
        side = (distance > 0).long() * half
        far, exact = distance.abs(), half // 2
        large = exact + (torch.log(far.float() / exact) / math.log(most / exact) * (half - exact)).long()
        return side + torch.where(far < exact, far, torch.min(large, torch.full_like(large, half - 1)))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        batch, length = tokens.shape
        place = torch.arange(length, device=tokens.device)
        bias = self.bias(self.bucket(place[None, :] - place[:, None])).permute(2, 0, 1).unsqueeze(0)
        q, k, v = (y.view(batch, length, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        scores = torch.matmul(q, k.transpose(3, 2)) + bias
        y = torch.matmul(scores.softmax(-1), v).transpose(1, 2).contiguous().view(batch, -1, 48)
        return self.out(F.relu(x + self.o(y)))


class RelativeShift(nn.Module):
    """A Conformer block with Transformer-XL's relative positions, shifted by a view, and its convolution module."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size, self.i = heads, width // heads, nn.Linear(16, width)
        self.q, self.k, self.v, self.p, self.o = (nn.Linear(width, width) for _ in range(5))
        self.u, self.w = (nn.Parameter(torch.randn(heads, width // heads)) for _ in range(2))
        self.point, self.depth = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 5, padding=2, groups=width)
        self.norm, self.last = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)
        self.ff = nn.Sequential(nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, width))
        self.register_buffer("speed", torch.exp(torch.arange(0, width, 2).float() * -(math.log(10000.0) / width)))

    def positions(self, length: int) -> Tensor:
        angle = torch.arange(length - 1, -length, -1.0)[:, None] * self.speed
        return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.i(sequence)
        x = x + 0.5 * self.ff(x)
        b, t, c = x.shape
        q = self.q(x).view(b, t, self.heads, self.size)
        k, v = (f(x).view(b, -1, self.heads, self.size).transpose(1, 2) for f in (self.k, self.v))
        p = self.p(self.positions(t)).view(1, -1, self.heads, self.size).transpose(1, 2)
        content = torch.matmul((q + self.u).transpose(1, 2), k.transpose(-2, -1))
        place = torch.matmul((q + self.w).transpose(1, 2), p.transpose(-2, -1))
        zeros = torch.zeros((*place.size()[:3], 1), dtype=place.dtype)
        place = torch.cat([zeros, place], dim=-1).view(*place.size()[:2], place.size(3) + 1, place.size(2))
        place = place[:, :, 1:].reshape(b, self.heads, t, 2 * t - 1)[:, :, :, :t]
        weights = torch.softmax((content + place) / math.sqrt(self.size), -1)
        x = x + self.o(torch.matmul(weights, v).transpose(1, 2).reshape(b, -1, c))
        y = F.glu(self.point(x.transpose(1, 2)), 1)
        return x + self.last(F.silu(self.norm(self.depth(y)))).transpose(1, 2)


class LocalBlocks(nn.Module):
    """LongT5's local attention: padded blocks, each of which looks at its neighbours, too."""

    def __init__(self, width: int = 32, heads: int = 4, block: int = 4) -> None:
        super().__init__()
        self.heads, self.block, self.embed = heads, block, nn.Embedding(60, width)
        self.qkv, self.o, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Linear(width, 12)

    def blocks(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, 0, (-x.shape[1]) % self.block))
        return x.reshape(x.shape[0], x.shape[1] // self.block, self.block, *x.shape[2:])

    @staticmethod
    def neighbours(x: Tensor) -> Tensor:
        count = x.shape[1]
        x = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
        return torch.cat([x[:, k : k + count] for k in range(3)], 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        b, t, c = x.shape
        q, k, v = (self.blocks(y.view(b, t, self.heads, -1)) for y in self.qkv(x).chunk(3, -1))
        k, v = self.neighbours(k), self.neighbours(v)
        scores = torch.einsum("...qhd,...khd->...hqk", q, k)
        y = torch.einsum("...hqk,...khd->...qhd", scores.softmax(-1), v).reshape(b, -1, c)[:, :t]
        return self.out(torch.relu(x + self.o(y)))


class ShiftedWindows(nn.Module):
    """Swin's block: padded to windows, rolled, attention with a table of relative positions, and back."""

    def __init__(self, width: int = 32, heads: int = 4, window: int = 4) -> None:
        super().__init__()
        self.heads, self.window, self.patches = heads, window, nn.Conv2d(3, width, 4, 4)
        self.norm, self.qkv, self.o = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        gap = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", gap[..., 0] * (2 * window - 1) + gap[..., 1])
        self.mlp, self.out = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)), nn.Linear(width, 5)

    def attend(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(t, t, -1).permute(2, 0, 1).unsqueeze(0)
        weights = (q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1) + bias).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).reshape(n, t, c))

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).permute(0, 2, 3, 1)
        y = self.norm(x)
        b, h, w, c = y.shape
        s = self.window
        y = F.pad(y, (0, 0, 0, (s - w % s) % s, 0, (s - h % s) % s))
        _, hp, wp, _ = y.shape
        y = torch.roll(y, shifts=(-2, -2), dims=(1, 2))
        y = y.view(b, hp // s, s, wp // s, s, c).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, s * s, c)
        y = self.attend(y).view(-1, hp // s, wp // s, s, s, c)
        y = y.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, hp, wp, -1)
        x = x + torch.roll(y, shifts=(2, 2), dims=(1, 2))[:, :h, :w, :].contiguous()
        return self.out((x + self.mlp(x)).mean((1, 2)))


class DeformableAttention(nn.Module):
    """Deformable DETR's attention over two levels: offsets, weights, and samples from a grid."""

    def __init__(self, width: int = 32, heads: int = 4, points: int = 2) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.levels = nn.ModuleList([nn.Conv2d(3, width, 8, 8), nn.Conv2d(3, width, 16, 16)])
        self.queries, self.places = nn.Parameter(torch.randn(1, 5, width)), nn.Linear(width, 2)
        self.offsets, self.weights = nn.Linear(width, heads * 2 * points * 2), nn.Linear(width, heads * 2 * points)
        self.value, self.o, self.out = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)

    def forward(self, image: Tensor) -> Tensor:
        maps = [level(image) for level in self.levels]
        b, q = image.shape[0], self.queries.expand(image.shape[0], -1, -1)
        count = q.shape[1]
        weights = self.weights(q).view(b, count, self.heads, 2 * self.points).softmax(-1)
        offsets = self.offsets(q).view(b, count, self.heads, 2, self.points, 2)
        places = self.places(q).sigmoid()[:, :, None, None, None, :]
        sampled = []
        for k, level in enumerate(maps):
            h, w = level.shape[2:]
            value = self.value(level.flatten(2).transpose(1, 2))
            value = value.transpose(1, 2).reshape(b * self.heads, -1, h, w)
            size = torch.tensor([w, h], dtype=torch.float32)
            grid = (places[:, :, :, 0] + offsets[:, :, :, k] / size) * 2 - 1
            grid = grid.transpose(1, 2).flatten(0, 1)
            sampled.append(F.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
        weights = weights.transpose(1, 2).reshape(b * self.heads, 1, count, 2 * self.points)
        y = (torch.stack(sampled, -2).flatten(-2) * weights).sum(-1).view(b, -1, count).transpose(1, 2)
        return self.out(q + self.o(y))


class MaskedQueries(nn.Module):
    """Mask2Former: queries attend where their masks say, which are made of them and of a map of features."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.fine, self.coarse = nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, width, 3, 2, 1)
        self.queries, self.attention = nn.Embedding(6, width), nn.MultiheadAttention(width, heads)
        self.mask, self.classes = (
            nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, width)),
            nn.Linear(width, 5),
        )

    def masks(self, q: Tensor, fine: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        masks = torch.einsum("bqc,bchw->bqhw", self.mask(q.transpose(0, 1)), fine)
        small = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        hidden = (small.sigmoid().flatten(2).unsqueeze(1).repeat(1, self.heads, 1, 1).flatten(0, 1) < 0.5).bool()
        return masks, hidden & ~hidden.all(-1, keepdim=True)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fine = F.relu(self.fine(image))
        coarse = self.coarse(fine)
        tokens = coarse.flatten(2).permute(2, 0, 1)
        q = self.queries.weight.unsqueeze(1).repeat(1, image.shape[0], 1)
        _, hidden = self.masks(q, fine, coarse.shape[-2:])
        q = q + self.attention(q, tokens, tokens, attn_mask=hidden)[0]
        return self.classes(q).transpose(0, 1), self.masks(q, fine, coarse.shape[-2:])[0]


class GroupTokens(nn.Module):
    """GroupViT: every token goes to the group it is most like, one-hot, with the gradient of a softmax."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches, self.groups = nn.Conv2d(3, width, 8, 8), nn.Parameter(torch.randn(1, 4, width))
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        groups = self.groups.expand(x.size(0), -1, -1)
        soft = (self.q(groups) @ self.k(x).transpose(-2, -1)).softmax(-2)
        index = soft.max(-2, keepdim=True)[1]
        hard = torch.zeros_like(soft).scatter_(-2, index, 1.0)
        weights = hard - soft.detach() + soft
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1.0)
        groups = groups + self.o(weights @ self.v(x))
        return groups + self.mlp(groups)


class LinearKernels(nn.Module):
    """XCiT's and EfficientViT's attention: over channels of a head, normalised; without a softmax, padded by ones."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.first, self.out = heads, nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, 5, 1)
        self.qkv, self.temperature = nn.Conv2d(width, 3 * width, 1), nn.Parameter(torch.ones(heads, 1, 1))
        self.project, self.qkv2, self.project2 = (nn.Conv2d(width, k * width, 1) for k in (1, 3, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        b, c, h, w = x.shape
        q, k, v = (y.reshape(b, self.heads, c // self.heads, h * w) for y in self.qkv(x).chunk(3, 1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        y = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(-1) @ v
        x = x + self.project(y.reshape(b, c, h, w))
        q, k, v = self.qkv2(x).view(b, self.heads, -1, h * w).chunk(3, 2)
        v = F.pad(v, (0, 0, 0, 1), value=1.0)
        y = torch.matmul(torch.matmul(v, F.relu(k).transpose(-1, -2)), F.relu(q))
        y = y[:, :, :-1] / (y[:, :, -1:] + 1e-5)
        return self.out(F.relu(x + self.project2(y.reshape(b, -1, h, w))))


class Linformer(nn.Module):
    """Keys and values projected along a length that is fixed, PyTorch's encoder before it."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.TransformerEncoderLayer(width, 4, 48, batch_first=True, dropout=0.0, activation="gelu")
        self.i, self.e = nn.Linear(16, width), nn.Linear(9, 4)
        self.q, self.k, self.v, self.out = (nn.Linear(width, n) for n in (24, 24, 24, 5))
        self.o = nn.Linear(24, width)

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.body(self.i(sequence))
        k, v = (self.e(f(x).transpose(1, 2)).transpose(1, 2) for f in (self.k, self.v))
        return self.out(x + self.o((self.q(x) @ k.transpose(1, 2) / 5).softmax(-1) @ v))


class SwitchedExperts(nn.Module):
    """A mixture whose experts are one stacked weight: every token's best expert, weighted by its probability."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed, self.gate, self.out = nn.Embedding(60, width), nn.Linear(width, 4), nn.Linear(width, 10)
        self.up, self.down = nn.Parameter(torch.randn(4, width, 32)), nn.Parameter(torch.randn(4, 32, width))
        self.shared, self.shared_gate = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        best, chosen = self.gate(x).softmax(-1).topk(2, -1)
        weights = torch.zeros_like(self.gate(x)).scatter(-1, chosen, best / best.sum(-1, keepdim=True))
        y = torch.einsum("btef,efd->bted", F.silu(torch.einsum("btd,edf->btef", x, self.up)), self.down)
        x = x + (y * weights[..., None]).sum(2) + self.shared_gate(x).sigmoid() * self.shared(x)
        return self.out(torch.relu(x))


class RoutedExperts(nn.Module):
    """Mixtral's mixture: every expert is given the tokens that chose it, and its results are added where they were."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed, self.gate, self.out = nn.Embedding(60, width), nn.Linear(width, 3), nn.Linear(width, 10)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)) for _ in range(3)
        )
        self.after = nn.Linear(width, 40)
        self.last = nn.Linear(40, width)

    def forward(self, tokens: Tensor) -> Tensor:
        b, n = tokens.shape
        x = self.embed(tokens).reshape(b * n, -1)
        weights, chosen = torch.topk(self.gate(x).softmax(-1), 2)
        y = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            row, place = torch.where(chosen == k)
            y = y.index_add(0, row, expert(x[row]) * weights[row, place][:, None])
        x = x + y
        return self.out(x + self.last(torch.relu(self.after(x)))).view(b, n, -1)


class TokensMixed(nn.Module):
    """MLP-Mixer: a linear layer over tokens that all channels share, and one over channels, of a fixed length."""

    def __init__(self, width: int = 24, length: int = 9) -> None:
        super().__init__()
        self.i, self.out = nn.Linear(16, width), nn.Linear(width, 5)
        self.tokens = nn.Sequential(nn.Linear(length, 12), nn.GELU(), nn.Linear(12, length))
        self.channels = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, sequence: Tensor) -> Tensor:
        x = F.relu(self.i(sequence))
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return self.out(F.relu(x + self.channels(x)).mean(1))


class ClassToken(nn.Module):
    """A token put before a sequence, and torch's own encoder, into which the older exporter writes its length."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.i, self.token, self.out = nn.Linear(16, width), nn.Parameter(torch.randn(1, 1, width)), nn.Linear(width, 5)
        self.layer = nn.TransformerEncoderLayer(width, 4, 48, batch_first=True, activation="gelu")

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        x = self.i(sequence)
        x = self.layer(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))
        return self.out(x[:, 0]), self.out(x[:, 1:])
