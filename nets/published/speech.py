"""More nets for sound and for series of numbers, as they are spelt in public code."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GatedSkips(nn.Module):
    """WaveNet: dilated causal convolutions, gates in halves, skips summed, a local condition."""

    def __init__(self, width: int = 16, layers: int = 3) -> None:
        super().__init__()
        self.first, self.condition = nn.Conv1d(1, width, 1), nn.Conv1d(6, 2 * width, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**k, padding=2**k) for k in range(layers))
        self.skips, self.rests = (nn.ModuleList(nn.Conv1d(width, c, 1) for _ in range(layers)) for c in (20, width))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(20, 24, 1), nn.ReLU(), nn.Conv1d(24, 8, 1))

    def forward(self, wave: Tensor, condition: Tensor) -> Tensor:
        x, total = self.first(wave.unsqueeze(1)), 0
        c = self.condition(condition.unsqueeze(-1))
        for dilated, skip, rest in zip(self.dilated, self.skips, self.rests, strict=True):
            y = dilated(x)[:, :, : x.size(2)] + c
            a, b = torch.split(y, y.size(1) // 2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(y)
            x = (x + rest(y)) * math.sqrt(0.5)
        return self.last(total)


class Vocoder(nn.Module):
    """HiFi-GAN: enlarged by transposed convolutions, branches of several kernels whose sum is shared out."""

    def __init__(self) -> None:
        super().__init__()
        self.pre, self.ups = (
            nn.Conv1d(10, 24, 7, padding=3),
            nn.ModuleList([nn.ConvTranspose1d(24, 16, 4, 2, 1), nn.ConvTranspose1d(16, 12, 8, 4, 2)]),
        )
        self.branches = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(c, c, k, padding=k // 2) for _ in range(2)) for c in (16, 12) for k in (3, 5)
        )
        self.post = nn.Conv1d(12, 1, 7, padding=3)

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.pre(spectrogram)
        for k, up in enumerate(self.ups):
            x, total = up(F.leaky_relu(x, 0.1)), None
            for one, two in self.branches[2 * k : 2 * k + 2]:
                y = x + two(F.leaky_relu(one(F.leaky_relu(x, 0.1)), 0.1))
                total = y if total is None else total + y
            x = total / 2
        return torch.tanh(self.post(F.leaky_relu(x)))


class SeparableBlocks(nn.Module):
    """QuartzNet and ContextNet: separable convolutions with residuals of another width, squeezed over time; CTC."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(12, 20, 5, 2, 2, bias=False), nn.BatchNorm1d(20), nn.ReLU())
        self.deep, self.point = (
            nn.ModuleList(nn.Conv1d(c, c, 5, padding=2, groups=c) for c in (20, 28)),
            nn.ModuleList([nn.Conv1d(20, 28, 1), nn.Conv1d(28, 28, 1)]),
        )
        self.norms, self.skip = (
            nn.ModuleList(nn.BatchNorm1d(28) for _ in range(2)),
            nn.Sequential(nn.Conv1d(20, 28, 1), nn.BatchNorm1d(28)),
        )
        self.squeeze, self.decoder = nn.Sequential(nn.Linear(28, 8), nn.SiLU(), nn.Linear(8, 28)), nn.Conv1d(28, 9, 1)

    def forward(self, features: Tensor) -> Tensor:
        x = y = self.first(features)
        for k, (deep, point, norm) in enumerate(zip(self.deep, self.point, self.norms, strict=True)):
            y = norm(point(deep(y)))
            y = F.relu(y) if k == 0 else y
        gate = self.squeeze(y.mean(-1, keepdim=True).transpose(1, -1)).transpose(1, -1).sigmoid()
        y = F.relu(y * gate + self.skip(x))
        return F.log_softmax(self.decoder(y).transpose(1, 2), -1)


class Transducer(nn.Module):
    """RNN-T: an encoder that stacks frames, a predictor of tokens, all pairs of both through one layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.encoder, self.embed = nn.LSTM(16, width, batch_first=True), nn.Embedding(20, 12)
        self.predictor, self.left, self.right = (
            nn.GRU(12, width, batch_first=True),
            nn.Linear(width, 24),
            nn.Linear(width, 24),
        )
        self.out = nn.Linear(24, 20)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        b, t, c = features.shape
        x = self.encoder(features.reshape(b, t // 2, 2 * c))[0]
        y = self.predictor(self.embed(tokens))[0]
        return self.out(torch.tanh(self.left(x).unsqueeze(2) + self.right(y).unsqueeze(1)))


class SincFilters(nn.Module):
    """SincNet: band filters computed from two numbers each, maps scaled and shifted by their means (RawNet)."""

    def __init__(self, filters: int = 12, size: int = 15) -> None:
        super().__init__()
        self.low, self.band = nn.Parameter(torch.rand(filters, 1)), nn.Parameter(torch.rand(filters, 1))
        time = torch.arange(-(size // 2), 0).float().view(1, -1)
        self.register_buffer("time", 2 * math.pi * time)
        self.register_buffer("window", 0.54 - 0.46 * torch.cos(2 * math.pi * torch.linspace(0, 0.5, size // 2)))
        self.norm, self.conv, self.scale = (
            nn.BatchNorm1d(filters),
            nn.Conv1d(filters, 20, 3, padding=1),
            nn.Linear(20, 20),
        )
        self.gru, self.out = nn.GRU(20, 16, batch_first=True), nn.Linear(16, 6)

    def forward(self, wave: Tensor) -> Tensor:
        low = 0.02 + self.low.abs() * 0.2
        high = torch.clamp(low + 0.02 + self.band.abs() * 0.2, 0.02, 0.5)
        left = (torch.sin(high @ self.time) - torch.sin(low @ self.time)) / (self.time / 2) * self.window
        filters = torch.cat([left, 2 * (high - low), torch.flip(left, [1])], 1) / (2 * (high - low))
        x = F.max_pool1d(torch.abs(F.conv1d(wave.unsqueeze(1), filters.unsqueeze(1), stride=3)), 3)
        x = F.leaky_relu(self.conv(F.leaky_relu(self.norm(x), 0.3)), 0.3)
        y = torch.sigmoid(self.scale(F.adaptive_avg_pool1d(x, 1).view(x.size(0), -1))).view(x.size(0), x.size(1), -1)
        return self.out(self.gru((x * y + y).permute(0, 2, 1))[0][:, -1])


class ComplexLayers(nn.Module):
    """DCCRN: real and imaginary parts in halves of the channels, convolved crosswise; a mask by size and angle."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        half = width // 2
        self.re, self.im = (
            nn.ModuleList([nn.Conv2d(1, half, 3, 1, 1), nn.Conv2d(half, half, (3, 1), (2, 1), (1, 0))])
            for _ in range(2)
        )
        self.norm, self.rnn, self.back = nn.BatchNorm2d(width), nn.LSTM(width * 4, 20), nn.Linear(20, width * 4)
        self.up = nn.ConvTranspose2d(2 * width, 2, (3, 1), (2, 1), (1, 0), (1, 0))

    @staticmethod
    def cross(x: Tensor, re: nn.Module, im: nn.Module) -> Tensor:
        a, b = torch.chunk(x, 2, 1)
        return torch.cat([re(a) - im(b), re(b) + im(a)], 1)

    def forward(self, spectrum: Tensor) -> Tensor:
        x = F.relu(self.norm(self.cross(spectrum, self.re[0], self.im[0])))
        x = self.cross(x, self.re[1], self.im[1])
        b, c, d, t = x.size()
        y = self.back(self.rnn(x.permute(3, 0, 1, 2).reshape(t, b, c * d))[0]).view(t, b, c, d).permute(1, 2, 3, 0)
        mask = self.up(torch.cat([x, y], 1))
        re, im = mask[:, 0], mask[:, 1]
        size = torch.tanh((re**2 + im**2 + 1e-6).sqrt())
        own = (spectrum[:, 0] ** 2 + spectrum[:, 1] ** 2 + 1e-6).sqrt()
        return torch.stack([size * own * re, size * own * im], 1)


class Variances(nn.Module):
    """FastSpeech 2: pitch and energy predicted, put into bins, looked up and added; a block of convolutions."""

    def __init__(self, width: int = 20, bins: int = 8) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(40, width), nn.Linear(width, 10)
        self.predict = nn.ModuleList(
            nn.ModuleList([nn.Conv1d(width, 14, 3, padding=1), nn.LayerNorm(14), nn.Linear(14, 1)]) for _ in range(2)
        )
        self.tables = nn.ModuleList(nn.Embedding(bins + 1, width) for _ in range(2))
        self.register_buffer("bins", torch.linspace(-1, 1, bins))
        self.one, self.two = nn.Conv1d(width, 32, 9, padding=4), nn.Conv1d(32, width, 1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, answers = self.embed(tokens), []
        for (conv, norm, out), table in zip(self.predict, self.tables, strict=True):
            y = out(norm(F.relu(conv(x.transpose(1, 2)).transpose(1, 2)))).squeeze(-1)
            answers.append(y)
            x = x + table((y.unsqueeze(-1) > self.bins).long().sum(-1))
        y = self.two(F.relu(self.one(x.transpose(1, 2)))).transpose(1, 2)
        return self.last(x + y), *answers


class Patches(nn.Module):
    """PatchTST: every series by itself, normalised by its own moments and back, windows of it as tokens."""

    def __init__(self, width: int = 24, heads: int = 4, size: int = 8, stride: int = 4, length: int = 32) -> None:
        super().__init__()
        self.heads, self.size, self.stride = heads, size, stride
        count = (length - size) // stride + 2
        self.embed, self.places = nn.Linear(size, width), nn.Parameter(torch.randn(count, width))
        self.qkv, self.o, self.norm = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.BatchNorm1d(width)
        self.gain, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))
        self.head = nn.Sequential(nn.Flatten(-2), nn.Linear(width * count, 6))

    def forward(self, series: Tensor) -> Tensor:
        mean = series.mean(1, keepdim=True)
        spread = torch.sqrt(torch.var(series, dim=1, keepdim=True, unbiased=False) + 1e-5)
        x = ((series - mean) / spread * self.gain + self.shift).permute(0, 2, 1)
        x = F.pad(x, (0, self.stride), mode="replicate").unfold(-1, self.size, self.stride)
        b, v, n, _ = x.shape
        x = self.embed(x.reshape(b * v, n, -1)) + self.places
        q, k, v_ = (y.reshape(b * v, n, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        y = ((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v_).transpose(1, 2).reshape(b * v, n, -1)
        x = self.norm((x + self.o(y)).transpose(1, 2)).transpose(1, 2)
        y = self.head(x.reshape(b, v, n, -1).permute(0, 1, 3, 2)).permute(0, 2, 1)
        return (y - self.shift) / (self.gain + 1e-10) * spread + mean


class Decomposed(nn.Module):
    """DLinear and Autoformer: a moving mean between repeated ends, trend and rest by layers of their own."""

    def __init__(self, channels: int = 6, width: int = 16) -> None:
        super().__init__()
        self.mean = nn.AvgPool1d(5, 1)
        self.embed, self.one, self.two = (
            nn.Conv1d(channels, width, 3, padding=1, padding_mode="circular"),
            nn.Linear(width, 28),
            nn.Linear(28, width),
        )
        self.trend, self.out = nn.Conv1d(channels, width, 3, padding=1), nn.Linear(width, channels)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        front, end = x[:, 0:1].repeat(1, 2, 1), x[:, -1:].repeat(1, 2, 1)
        trend = self.mean(torch.cat([front, x, end], 1).permute(0, 2, 1)).permute(0, 2, 1)
        return x - trend, trend

    def forward(self, sequence: Tensor) -> Tensor:
        rest, trend = self.split(sequence)
        x = self.embed(rest.transpose(1, 2)).transpose(1, 2)
        x, more = self.split(x + self.two(F.gelu(self.one(x))))
        return self.out(x + more + self.trend(trend.transpose(1, 2)).transpose(1, 2))


class GatedResiduals(nn.Module):
    """TFT: variables embedded one by one, weighed by a softmax of gated residual nets, a recurrent layer, attention."""

    def __init__(self, width: int = 16, count: int = 4) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(1, width) for _ in range(count))
        self.one = nn.ModuleList([nn.Linear(count * width, 20), nn.Linear(width, 20)])
        self.two = nn.ModuleList([nn.Linear(20, 2 * count), nn.Linear(20, 2 * width)])
        self.skip, self.lstm = nn.Linear(count * width, count), nn.LSTM(width, width, batch_first=True)
        self.q, self.k, self.v, self.o = (
            nn.Linear(width, 24),
            nn.Linear(width, 24),
            nn.Linear(width, 12),
            nn.Linear(12, width),
        )
        self.out = nn.Linear(width, 3)

    def residual(self, x: Tensor, k: int, skip: Tensor) -> Tensor:
        return skip + F.glu(self.two[k](F.elu(self.one[k](x))), -1)

    def forward(self, sequence: Tensor) -> Tensor:
        parts = torch.stack([embed(sequence[..., k : k + 1]) for k, embed in enumerate(self.embed)], -1)
        flat = parts.transpose(-1, -2).flatten(-2)
        shares = self.residual(flat, 0, self.skip(flat)).softmax(-1).unsqueeze(-2)
        x = (parts * shares).sum(-1)
        x = x + self.lstm(x)[0]
        x = self.residual(x, 1, x)
        q, k = (f(x).unflatten(-1, (2, 12)).transpose(1, 2) for f in (self.q, self.k))
        mask = torch.triu(torch.ones(x.shape[1], x.shape[1]), 1) * -1e9
        shares = (q @ k.transpose(-1, -2) / 12**0.5 + mask).softmax(-1).mean(1)
        return self.out(x + self.o(shares @ self.v(x)))


class Memory(nn.Module):
    """A neural Turing machine: a cell writes to and reads from a memory by likeness, places are shifted and erased."""

    def __init__(self, width: int = 20, rows: int = 6, size: int = 8) -> None:
        super().__init__()
        self.size, self.cell = size, nn.LSTMCell(5 + size, width)
        self.key, self.strength, self.gate, self.move = (
            nn.Linear(width, size),
            nn.Linear(width, 1),
            nn.Linear(width, 1),
            nn.Linear(width, 3),
        )
        self.erase, self.add, self.out = nn.Linear(width, size), nn.Linear(width, size), nn.Linear(width + size, 5)
        self.memory = nn.Parameter(torch.randn(1, rows, size))

    def address(self, h: Tensor, memory: Tensor, before: Tensor) -> Tensor:
        likeness = F.cosine_similarity(memory + 1e-16, torch.tanh(self.key(h)).unsqueeze(1) + 1e-16, dim=-1)
        content = F.softmax(F.softplus(self.strength(h)) * likeness, -1)
        gate, move = torch.sigmoid(self.gate(h)), F.softmax(self.move(h), -1)
        x = gate * content + (1 - gate) * before
        wide = torch.cat([x[:, -1:], x, x[:, :1]], 1)
        x = sum(move[:, k : k + 1] * wide[:, k : k + x.shape[1]] for k in range(3))
        return x / (x.sum(-1, keepdim=True) + 1e-16)

    def forward(self, sequence: Tensor) -> Tensor:
        b = sequence.shape[0]
        memory, read = self.memory.repeat(b, 1, 1), torch.zeros(b, self.size)
        h, c = torch.zeros(b, self.cell.hidden_size), torch.zeros(b, self.cell.hidden_size)
        where, ys = torch.zeros(b, memory.shape[1]), []
        for k in range(4):
            h, c = self.cell(torch.cat([sequence[:, k], read], 1), (h, c))
            where = self.address(h, memory, where)
            erase, add = torch.sigmoid(self.erase(h)), torch.tanh(self.add(h))
            memory = memory * (1 - where.unsqueeze(-1) * erase.unsqueeze(1)) + where.unsqueeze(-1) * add.unsqueeze(1)
            read = torch.bmm(where.unsqueeze(1), memory).squeeze(1)
            ys.append(self.out(torch.cat([h, read], 1)))
        return torch.stack(ys, 1)


class CopyingDecoder(nn.Module):
    """A decoder that mixes words of its own with copied ones, which are scattered to their places in the vocabulary."""

    def __init__(self, words: int = 30, width: int = 16) -> None:
        super().__init__()
        self.words, self.embed, self.encoder = (
            words,
            nn.Embedding(words, 12),
            nn.GRU(12, width, batch_first=True, bidirectional=True),
        )
        self.cell, self.bridge = nn.GRUCell(12 + 2 * width, width), nn.Linear(2 * width, width)
        self.w, self.u, self.v = nn.Linear(2 * width, 14), nn.Linear(width, 14), nn.Linear(14, 1, bias=False)
        self.share, self.out = nn.Linear(3 * width, 1), nn.Linear(3 * width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        memory, last = self.encoder(self.embed(tokens))
        h, context, ys = torch.tanh(self.bridge(torch.cat([last[0], last[1]], 1))), memory.mean(1), []
        word = self.embed(tokens[:, 0])
        for _ in range(2):
            h = self.cell(torch.cat([word, context], 1), h)
            shares = self.v(torch.tanh(self.w(memory) + self.u(h).unsqueeze(1))).squeeze(-1).softmax(-1)
            context = torch.bmm(shares.unsqueeze(1), memory).squeeze(1)
            x = torch.cat([h, context], 1)
            share = torch.sigmoid(self.share(x))
            y = share * F.softmax(self.out(x), -1)
            ys.append(y.scatter_add(1, tokens, (1 - share) * shares))
            word = ys[-1] @ self.embed.weight
        return torch.stack(ys, 1)
