"""Layers that mix the places of a sequence, as they are spelt in public code."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelectiveScan(nn.Module):
    """Mamba: a causal depthwise convolution cut to length, steps and gates from the input, a scan step by step."""

    def __init__(self, width: int = 16, inner: int = 24, states: int = 4) -> None:
        super().__init__()
        self.states, self.i = states, nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.x, self.dt = nn.Linear(inner, 3 + 2 * states, bias=False), nn.Linear(3, inner)
        self.log_a = nn.Parameter(torch.log(torch.arange(1.0, states + 1).repeat(inner, 1)))
        self.d, self.o = nn.Parameter(torch.ones(inner)), nn.Linear(inner, width, bias=False)

    def forward(self, sequence: Tensor) -> Tensor:
        x, gate = self.i(sequence).chunk(2, -1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : sequence.shape[1]].transpose(1, 2))
        dt, b, c = self.x(x).split([3, self.states, self.states], -1)
        dt = F.softplus(self.dt(dt))
        decay = torch.exp(torch.einsum("bld,dn->bldn", dt, -torch.exp(self.log_a)))
        drive = torch.einsum("bld,bln,bld->bldn", dt, b, x)
        state, ys = torch.zeros_like(drive[:, 0]), []
        for k in range(sequence.shape[1]):
            state = decay[:, k] * state + drive[:, k]
            ys.append(torch.einsum("bdn,bn->bd", state, c[:, k]))
        return sequence + self.o((torch.stack(ys, 1) + x * self.d) * F.silu(gate))


class StateSpaceDuality(nn.Module):
    """Mamba-2: the scan as a masked product, decays between places from a running sum; a gated norm."""

    def __init__(self, width: int = 16, heads: int = 4, size: int = 6, states: int = 5) -> None:
        super().__init__()
        self.heads, self.size, self.states, inner = heads, size, states, heads * size
        self.i, self.o = nn.Linear(width, 2 * inner + 2 * states + heads), nn.Linear(inner, width)
        self.log_a, self.bias = nn.Parameter(torch.rand(heads)), nn.Parameter(torch.rand(heads))
        self.weight = nn.Parameter(torch.ones(inner))

    def forward(self, sequence: Tensor) -> Tensor:
        n, length, _ = sequence.shape
        inner = self.heads * self.size
        gate, x, b, c, dt = self.i(sequence).split([inner, inner, self.states, self.states, self.heads], -1)
        x, dt = x.view(n, length, self.heads, self.size), F.softplus(dt + self.bias)
        total = torch.cumsum(-torch.exp(self.log_a) * dt, 1).transpose(1, 2)
        gap = total[..., :, None] - total[..., None, :]
        mask = torch.tril(torch.ones(length, length))
        decay = torch.exp(gap.masked_fill(mask == 0, -1e9))
        scores = torch.einsum("bln,bsn->bls", c, b)[:, None] * decay
        y = torch.einsum("bhls,bsh,bshp->blhp", scores, dt, x).reshape(n, length, -1)
        y = y * F.silu(gate)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight
        return sequence + self.o(y)


class TimeMixing(nn.Module):
    """RWKV: tokens shifted by a pad, mixed with their neighbours, and a numerically careful recurrence."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(40, width), nn.Linear(width, 10)
        self.mix = nn.ParameterList(nn.Parameter(torch.rand(1, 1, width)) for _ in range(3))
        self.k, self.v, self.r, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.decay, self.first = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))
        self.key, self.value, self.gate = (nn.Linear(i, o) for i, o in ((width, 32), (32, width), (width, width)))
        self.shift, self.norm = nn.ZeroPad2d((0, 0, 1, -1)), nn.LayerNorm(width)

    def wkv(self, k: Tensor, v: Tensor) -> Tensor:
        decay, ys = -torch.exp(self.decay), []
        a, b, most = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], -1e30)
        for t in range(k.shape[1]):
            q = torch.maximum(most, self.first + k[:, t])
            e, f = torch.exp(most - q), torch.exp(self.first + k[:, t] - q)
            ys.append((e * a + f * v[:, t]) / (e * b + f))
            q = torch.maximum(most + decay, k[:, t])
            e, f = torch.exp(most + decay - q), torch.exp(k[:, t] - q)
            a, b, most = e * a + f * v[:, t], e * b + f, q
        return torch.stack(ys, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        before = self.shift(x)
        k, v, r = (x * m + before * (1 - m) for m in self.mix)
        x = x + self.o(torch.sigmoid(self.r(r)) * self.wkv(self.k(k), self.v(v)))
        y = self.norm(x)
        y = torch.sigmoid(self.gate(y)) * self.value(torch.square(torch.relu(self.key(self.shift(y)))))
        return self.out(x + y)


class Retention(nn.Module):
    """RetNet: products of queries and keys, decayed by distance, a norm per head, a gate."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.i = heads, nn.Linear(16, width)
        self.q, self.k, self.v, self.g, self.o = (nn.Linear(width, width, bias=False) for _ in range(5))
        self.norm = nn.GroupNorm(heads, width)
        self.register_buffer("speed", torch.log(1 - 2.0 ** (-5 - torch.arange(heads, dtype=torch.float))))

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.i(sequence)
        b, t, c = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        place = torch.arange(t, device=x.device)
        gap = (place[:, None] - place[None, :]).float()
        decay = torch.where(gap >= 0, torch.exp(gap * self.speed[:, None, None]), torch.zeros_like(gap))
        scores = q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5 * decay
        scores = scores / scores.detach().abs().sum(-1, keepdim=True).clamp(min=1)
        y = (scores @ v).transpose(1, 2).reshape(b * t, c)
        return self.o(F.silu(self.g(x)) * self.norm(y).view(b, t, c))


class Performer(nn.Module):
    """Random features for keys and queries, whose products need no table of all pairs."""

    def __init__(self, width: int = 32, heads: int = 4, features: int = 10) -> None:
        super().__init__()
        self.heads, self.i, self.qkv, self.o = heads, nn.Linear(16, width), nn.Linear(width, 96), nn.Linear(width, 10)
        self.register_buffer("projection", torch.randn(features, width // heads))

    def kernel(self, x: Tensor, *, query: bool) -> Tensor:
        scale = x.shape[-1] ** -0.25
        dash = torch.einsum("...id,jd->...ij", scale * x, self.projection)
        diagonal = (x**2).sum(-1, keepdim=True) / 2.0 * scale**2
        most = dash.amax(-1, keepdim=True) if query else dash.amax((-1, -2), keepdim=True)
        return self.projection.shape[0] ** -0.5 * (torch.exp(dash - diagonal - most) + 1e-4)

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.i(sequence)
        b, t, _ = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        q, k = self.kernel(q, query=True), self.kernel(k, query=False)
        d = 1.0 / torch.einsum("...nd,...d->...n", q, k.sum(-2))
        y = torch.einsum("...nd,...de,...n->...ne", q, torch.einsum("...nd,...ne->...de", k, v), d)
        return self.o(x + y.transpose(1, 2).reshape(b, t, -1))


class FourierMixing(nn.Module):
    """FNet where no transform is at hand: products with tables of cosines and sines, along the length and the width."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.i, self.norm = nn.Linear(16, width), nn.LayerNorm(width)
        self.up, self.down, self.o = nn.Linear(width, 40), nn.Linear(40, width), nn.Linear(width, 6)

    @staticmethod
    def table(size: int) -> Tensor:
        place = torch.arange(size).float()
        return place[:, None] * place[None, :] * (-2 * math.pi / size)

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.i(sequence)
        along, across = self.table(x.shape[1]), self.table(x.shape[2])
        re, im = x @ torch.cos(across), x @ torch.sin(across)
        x = x + torch.cos(along) @ re - torch.sin(along) @ im
        return self.o(x + self.down(F.gelu(self.up(self.norm(x)))))


class Landmarks(nn.Module):
    """Nyström's attention: means of segments as landmarks, an inverse by iterations, a convolution beside."""

    def __init__(self, width: int = 32, heads: int = 4, landmarks: int = 4) -> None:
        super().__init__()
        self.heads, self.landmarks, self.qkv = heads, landmarks, nn.Linear(16, 3 * width, bias=False)
        self.beside, self.o = nn.Conv2d(heads, heads, (3, 1), padding=(1, 0), groups=heads), nn.Linear(width, 8)

    @staticmethod
    def inverse(x: Tensor) -> Tensor:
        z = x.transpose(-1, -2) / (x.abs().sum(-1).max() * x.abs().sum(-2).max())
        eye = torch.eye(x.shape[-1])
        for _ in range(3):
            xz = x @ z
            z = 0.25 * z @ (13 * eye - (xz @ (15 * eye - (xz @ (7 * eye - xz)))))
        return z

    def forward(self, sequence: Tensor) -> Tensor:
        b, t, _ = sequence.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(sequence).chunk(3, -1))
        q = q * q.shape[-1] ** -0.5
        few = [x.reshape(b, self.heads, self.landmarks, t // self.landmarks, -1).mean(-2) for x in (q, k)]
        one, two = (q @ few[1].transpose(-1, -2)).softmax(-1), (few[0] @ few[1].transpose(-1, -2)).softmax(-1)
        three = (few[0] @ k.transpose(-1, -2)).softmax(-1)
        y = one @ self.inverse(two) @ (three @ v) + self.beside(v)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


class LongKernels(nn.Module):
    """Hyena: kernels as long as the input from a small net of places, laid out as a table; gates before and after."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.i, self.short = nn.Linear(16, 3 * width), nn.Conv1d(3 * width, 3 * width, 3, padding=2, groups=3 * width)
        self.filter = nn.Sequential(nn.Linear(3, 12), nn.SiLU(), nn.Linear(12, width))
        self.decay, self.o = nn.Parameter(torch.rand(width)), nn.Linear(width, 7)

    def kernel(self, length: int) -> Tensor:
        t = torch.arange(length).float()[:, None] / 16
        return self.filter(torch.cat([t, torch.sin(t * 3), torch.cos(t * 3)], -1)) * torch.exp(-t * self.decay.abs())

    def forward(self, sequence: Tensor) -> Tensor:
        length = sequence.shape[1]
        a, b, v = self.short(self.i(sequence).transpose(1, 2))[..., :length].chunk(3, 1)
        place = torch.arange(length)
        gap = place[:, None] - place[None, :]
        table = self.kernel(length)[gap.clamp(min=0)] * (gap >= 0).float()[..., None]
        return self.o((a * torch.einsum("tsd,bds->bdt", table, b * v)).transpose(1, 2))


class DiagonalStates(nn.Module):
    """S4D: a kernel of the whole length from modes that decay, and a depthwise convolution with it."""

    def __init__(self, width: int = 16, modes: int = 4, length: int = 12) -> None:
        super().__init__()
        self.length, self.i, self.o = length, nn.Linear(10, width), nn.Conv1d(width, 2 * width, 1)
        self.rate, self.c = nn.Parameter(torch.rand(width, modes)), nn.Parameter(torch.randn(width, modes))
        self.d, self.head = nn.Parameter(torch.randn(width)), nn.Linear(width, 5)

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.i(sequence).transpose(1, 2)
        time = torch.arange(self.length - 1, -1, -1).float()
        kernel = (self.c[..., None] * torch.exp(-self.rate.exp()[..., None] * time * 0.1)).sum(1)
        y = F.conv1d(F.pad(x, (self.length - 1, 0)), kernel[:, None], groups=x.shape[1]) + x * self.d[:, None]
        return self.head(F.glu(self.o(F.gelu(y)), 1).transpose(1, 2).mean(1))


class QuasiRecurrent(nn.Module):
    """QRNN and SRU: gates from convolutions or products, and states that only weigh, step by step."""

    def __init__(self, width: int = 18) -> None:
        super().__init__()
        self.embed, self.conv, self.u = nn.Embedding(30, 12), nn.Conv1d(12, 3 * width, 2), nn.Linear(width, 4 * width)
        self.bias, self.out = nn.Parameter(torch.randn(2, width)), nn.Linear(width, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.pad(self.embed(tokens).transpose(1, 2), (1, 0))
        z, f, o = self.conv(x).transpose(1, 2).chunk(3, -1)
        z, f, o = torch.tanh(z), torch.sigmoid(f), torch.sigmoid(o)
        state, ys = torch.zeros_like(z[:, 0]), []
        for k in range(z.shape[1]):
            state = f[:, k] * state + (1 - f[:, k]) * z[:, k]
            ys.append(o[:, k] * state)
        y = torch.stack(ys, 1)
        x, f, r, skip = self.u(y).chunk(4, -1)
        state, ys = torch.zeros_like(x[:, 0]), []
        for k in range(x.shape[1]):
            gate, read = torch.sigmoid(f[:, k] + self.bias[0]), torch.sigmoid(r[:, k] + self.bias[1])
            state = gate * state + (1 - gate) * x[:, k]
            ys.append(read * torch.tanh(state) + (1 - read) * skip[:, k])
        return self.out(torch.stack(ys, 1))


class SlopedBiases(nn.Module):
    """One key and value for all heads, scores lowered by distance (ALiBi), nothing from the future."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size, self.embed = heads, width // heads, nn.Embedding(60, width)
        self.qkv, self.o = nn.Linear(width, width + 2 * self.size, bias=False), nn.Linear(width, width, bias=False)
        self.register_buffer("slopes", 2.0 ** -(8 / heads * torch.arange(1, heads + 1)))
        self.up, self.down, self.norm = nn.Linear(width, 96), nn.Linear(48, width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        b, t, c = x.shape
        q, k, v = self.qkv(x).split([c, self.size, self.size], -1)
        q = q.view(b, t, self.heads, self.size).permute(0, 2, 1, 3)
        scores = torch.matmul(q, k.unsqueeze(1).transpose(-1, -2)) / math.sqrt(self.size)
        place = torch.arange(t)
        scores = scores + (place[None, :] - place[:, None]).float() * self.slopes.view(1, -1, 1, 1)
        scores = scores.masked_fill(torch.triu(torch.ones(t, t, dtype=torch.bool), 1), torch.finfo(x.dtype).min)
        y = torch.matmul(scores.softmax(-1), v.unsqueeze(1)).permute(0, 2, 1, 3).reshape(b, t, c)
        x = x + self.o(y)
        gate, up = self.up(self.norm(x)).chunk(2, -1)
        return (x + self.down(F.silu(gate) * up)) @ self.embed.weight.t()


class CosineAttention(nn.Module):
    """Queries and keys of one length, a learned scale, heads that talk before and after the softmax."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.patches = heads, nn.Conv2d(3, width, 8, 8)
        self.qkv, self.o, self.out = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width),
            nn.Linear(width, 4),
        )
        self.scale = nn.Parameter(torch.log(10 * torch.ones(heads, 1, 1)))
        self.before, self.after = nn.Linear(heads, heads), nn.Linear(heads, heads)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scores = scores * torch.clamp(self.scale, max=math.log(100.0)).exp()
        scores = self.before(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        scores = self.after(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + self.gain * self.o((scores @ v).transpose(1, 2).reshape(b, n, c))
        return self.out(x.mean(1))


class Prefixes(nn.Module):
    """Learned keys and values before those of the input, adapters of low rank beside the projections."""

    def __init__(self, width: int = 32, heads: int = 4, prefix: int = 3, rank: int = 4) -> None:
        super().__init__()
        self.heads, self.embed = heads, nn.Embedding(60, width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.a, self.b = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        self.keys, self.values = (nn.Parameter(torch.randn(1, heads, prefix, width // heads)) for _ in range(2))
        self.low, self.high, self.out = nn.Linear(width, 6), nn.Linear(6, width), nn.Linear(width, 5)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens)
        b, t, c = x.shape
        q, k, v = (self.q(x) + self.b(self.a(x)) * 2, self.k(x), self.v(x))
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in (q, k, v))
        k = torch.cat([self.keys.expand(b, -1, -1, -1), k], 2)
        v = torch.cat([self.values.expand(b, -1, -1, -1), v], 2)
        seen = torch.cat([torch.ones(b, self.keys.shape[2], dtype=mask.dtype), mask], 1)
        hidden = (1.0 - seen[:, None, None, :].float()) * -10000.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden).transpose(1, 2).reshape(b, t, c)
        y = self.o(y)
        x = x + y + self.high(F.relu(self.low(y)))
        return self.out(x)


class SentenceMean(nn.Module):
    """Sentence encoders: a block of BERT, the mean of what the mask keeps, of length one."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.words, self.places = heads, nn.Embedding(60, width), nn.Embedding(64, width)
        self.kinds, self.norm, self.last = nn.Embedding(2, width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down, self.dense = nn.Linear(width, 64), nn.Linear(64, width), nn.Linear(width, 24)
        self.register_buffer("ids", torch.arange(64).expand(1, -1))

    def heads_of(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], self.heads, x.size(-1) // self.heads).permute(0, 2, 1, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(self.ids[:, : tokens.size(1)]) + self.kinds(torch.zeros_like(tokens))
        x = self.norm(x)
        q, k, v = (self.heads_of(f(x)) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores + (1.0 - mask[:, None, None].to(x.dtype)) * torch.finfo(x.dtype).min
        y = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        x = self.last(x + self.o(y.view(*y.size()[:-2], -1)))
        x = x + self.down(F.gelu(self.up(x)))
        kept = mask.unsqueeze(-1).expand(x.size()).float()
        mean = (x * kept).sum(1) / torch.clamp(kept.sum(1), min=1e-9)
        return F.normalize(torch.tanh(self.dense(mean)), p=2, dim=1)


class TextAndPatches(nn.Module):
    """LayoutLMv3: words with places in two directions, a class patch and patches, one sequence."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.words = heads, nn.Embedding(60, width)
        self.x, self.y = nn.Embedding(32, 8), nn.Embedding(32, 8)
        self.h, self.w = nn.Embedding(32, 4), nn.Embedding(32, 4)
        self.patches, self.token = nn.Conv2d(3, width, 8, 8), nn.Parameter(torch.randn(1, 1, width))
        self.places, self.norm = nn.Parameter(torch.randn(1, 17, width)), nn.LayerNorm(width)
        self.qkv, self.o, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Linear(width, 5)
        self.mlp = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, tokens: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        left, top, right, bottom = boxes.unbind(-1)
        where = torch.cat(
            [self.x(left), self.y(top), self.h((bottom - top).clamp(0, 31)), self.w((right - left).clamp(0, 31))], -1
        )
        patches = self.patches(image).flatten(2).transpose(1, 2)
        patches = torch.cat([self.token.expand(image.shape[0], -1, -1), patches], 1) + self.places
        x = torch.cat([self.words(tokens) + where, patches], 1)
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.norm(x)).chunk(3, -1))
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
        scores = scores / 32 - (scores / 32).amax(-1, keepdim=True)
        x = x + self.o(((scores * 32).softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))
        x = x + self.mlp(x)
        return self.out(x[:, : tokens.shape[1]])


class DecisionTokens(nn.Module):
    """Decision Transformer: returns, states and actions in turns; every action is read off its state."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.time = heads, nn.Embedding(32, width)
        self.returns, self.states, self.actions = nn.Linear(1, width), nn.Linear(5, width), nn.Linear(3, width)
        self.qkv, self.o, self.act = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Linear(width, 3)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, width))

    def forward(self, returns: Tensor, states: Tensor, actions: Tensor, steps: Tensor) -> Tensor:
        b, t = states.shape[:2]
        time = self.time(steps)
        parts = [f(x) + time for f, x in ((self.returns, returns), (self.states, states), (self.actions, actions))]
        x = torch.stack(parts, 1).permute(0, 2, 1, 3).reshape(b, 3 * t, -1)
        q, k, v = (y.view(b, 3 * t, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        mask = torch.tril(torch.ones(3 * t, 3 * t)).view(1, 1, 3 * t, 3 * t)
        scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(mask == 0, -1e9)
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, 3 * t, -1))
        x = (x + self.mlp(x)).reshape(b, t, 3, -1).permute(0, 2, 1, 3)
        return torch.tanh(self.act(x[:, 1]))


class CachedKeys(nn.Module):
    """A step of a decoder: keys and values of before come in, theirs and the new ones go out."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.embed, self.places = heads, nn.Embedding(60, width), nn.Embedding(64, width)
        self.qkv, self.o, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Linear(width, 60)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, t = tokens.shape
        before = keys.shape[2]
        x = self.embed(tokens) + self.places(torch.arange(before, before + t))
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        seen = torch.arange(before + t)[None, :] <= torch.arange(before, before + t)[:, None]
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~seen, -1e9)
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))
        return self.out(x + self.mlp(x)), k, v
