"""Speech, audio and series of numbers, as nets for them are spelt in public code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class WaveGlow(nn.Module):
    """A flow run backwards: noise through inverted 1x1 convolutions and couplings that read a spectrogram."""

    def __init__(self, groups: int = 8, width: int = 16) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose1d(10, 10, 8, 4)
        self.start, self.cond = (nn.Conv1d(i, o, 1) for i, o in ((groups // 2, width), (10 * groups, 4 * width)))
        self.inside = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, dilation=2**k, padding=2**k) for k in range(2))
        self.skip = nn.ModuleList(nn.Conv1d(width, 2 * width if k == 0 else width, 1) for k in range(2))
        self.inside = nn.ModuleList(parametrizations.weight_norm(conv) for conv in self.inside)
        self.end, self.mix = nn.Conv1d(width, groups, 1), nn.Conv1d(groups, groups, 1, bias=False)
        self.groups, self.width = groups, width

    def couple(self, x: Tensor, spectrogram: Tensor) -> Tensor:
        x, cond, result = self.start(x), self.cond(spectrogram), torch.zeros_like(self.start(x))
        for k, (inside, skip) in enumerate(zip(self.inside, self.skip, strict=True)):
            y = inside(x) + cond[:, 2 * k * self.width : 2 * (k + 1) * self.width]
            y = skip(torch.tanh(y[:, : self.width]) * torch.sigmoid(y[:, self.width :]))
            if k == 0:
                x = x + y[:, : self.width]
            result = result + y[:, -self.width :]
        return self.end(result)

    def forward(self, spectrogram: Tensor, noise: Tensor) -> Tensor:
        s = self.upsample(spectrogram)[:, :, :-4]
        b, c, t = s.shape
        s = s.view(b, c, t // self.groups, self.groups).permute(0, 2, 1, 3).contiguous().view(b, t // self.groups, -1)
        s, x = s.permute(0, 2, 1), noise.view(b, -1, self.groups).permute(0, 2, 1)
        x = self.mix(x)
        one, other = x[:, : self.groups // 2], x[:, self.groups // 2 :]
        y = self.couple(one, s)
        other = (other - y[:, self.groups // 2 :]) / torch.exp(torch.tanh(y[:, : self.groups // 2]))
        return torch.cat([one, other], 1).permute(0, 2, 1).contiguous().view(b, -1)


class ConvLstm(nn.Module):
    """A recurrent cell of convolutions, unrolled over frames; its first state is made of zeros of computed sizes."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.width, self.gates = width, nn.Conv2d(3 + width, 4 * width, 3, 1, 1)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, frames: Tensor) -> Tensor:
        b, t, _, height, width = frames.size()
        h, c = (torch.zeros(b, self.width, height, width, device=frames.device) for _ in range(2))
        results = []
        for k in range(t):
            i, f, o, g = torch.split(self.gates(torch.cat([frames[:, k], h], 1)), self.width, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            results.append(h)
        return self.out(torch.stack(results, 1).flatten(0, 1)).unflatten(0, (b, t))


class DualPath(nn.Module):
    """DPRNN: chunks that overlap, a recurrent net inside them, another one across, and the chunks added up again."""

    def __init__(self, width: int = 16, chunk: int = 4) -> None:
        super().__init__()
        self.chunk, self.encoder = chunk, nn.Conv1d(1, width, 4, 2, bias=False)
        self.inside, self.across = (nn.LSTM(width, 12, batch_first=True, bidirectional=True) for _ in range(2))
        self.a, self.d, self.norms = (
            nn.Linear(24, width),
            nn.Linear(24, width),
            nn.ModuleList(nn.GroupNorm(1, width) for _ in range(2)),
        )
        self.mask, self.decoder = nn.Conv2d(width, 2 * width, 1), nn.ConvTranspose1d(width, 1, 4, 2, bias=False)
        self.width = width

    def segment(self, x: Tensor) -> tuple[Tensor, int]:
        b, c, t = x.shape
        hop = self.chunk // 2
        rest = self.chunk - (hop + t % self.chunk) % self.chunk
        x = torch.cat([x, torch.zeros(b, c, rest)], 2) if rest > 0 else x
        edge = torch.zeros(b, c, hop)
        x = torch.cat([edge, x, edge], 2)
        one = x[:, :, :-hop].contiguous().view(b, c, -1, self.chunk)
        two = x[:, :, hop:].contiguous().view(b, c, -1, self.chunk)
        return torch.cat([one, two], 3).view(b, c, -1, self.chunk).transpose(2, 3).contiguous(), rest

    def join(self, x: Tensor, rest: int) -> Tensor:
        b, c, k, _ = x.shape
        hop = self.chunk // 2
        x = x.transpose(2, 3).contiguous().view(b, c, -1, k * 2)
        one = x[:, :, :, :k].contiguous().view(b, c, -1)[:, :, hop:]
        two = x[:, :, :, k:].contiguous().view(b, c, -1)[:, :, :-hop]
        return (one + two)[:, :, : -rest if rest > 0 else None]

    def forward(self, wave: Tensor) -> Tensor:
        x = F.relu(self.encoder(wave.unsqueeze(1)))
        y, rest = self.segment(x)
        b, c, k, s = y.shape
        z = self.a(self.inside(y.permute(0, 3, 2, 1).contiguous().view(b * s, k, c))[0])
        y = y + self.norms[0](z.view(b, s, k, c).permute(0, 3, 2, 1).contiguous())
        z = self.d(self.across(y.permute(0, 2, 3, 1).contiguous().view(b * k, s, c))[0])
        y = y + self.norms[1](z.view(b, k, s, c).permute(0, 3, 1, 2).contiguous())
        masks = self.join(F.relu(self.mask(y)).view(b * 2, c, k, s), rest)
        x = x.unsqueeze(1) * masks.view(b, 2, c, -1)
        return self.decoder(x.view(b * 2, c, -1)).view(b, 2, -1)


class ConvTasNet(nn.Module):
    """Masks from dilated depthwise convolutions between global layer norms that are spelt out."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.encoder, self.decoder = (
            nn.Conv1d(1, width, 8, 4, bias=False),
            nn.ConvTranspose1d(width, 1, 8, 4, bias=False),
        )
        self.up, self.depth = nn.Conv1d(width, 24, 1), nn.Conv1d(24, 24, 3, padding=2, dilation=2, groups=24)
        self.gain, self.shift = nn.Parameter(torch.ones(1, 24, 1)), nn.Parameter(torch.zeros(1, 24, 1))
        self.act, self.down, self.masks = nn.PReLU(), nn.Conv1d(24, width, 1), nn.Conv1d(width, 2 * width, 1)

    def forward(self, wave: Tensor) -> Tensor:
        x = F.relu(self.encoder(wave.unsqueeze(1)))
        y = self.act(self.up(x))
        mean = y.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        var = torch.pow(y - mean, 2).mean(dim=1, keepdim=True).mean(dim=2, keepdim=True)
        y = x + self.down(self.act(self.depth(self.gain * (y - mean) / torch.pow(var + 1e-8, 0.5) + self.shift)))
        b, c, t = y.shape
        masked = x.unsqueeze(1) * F.softmax(self.masks(y).view(b, 2, c, t), 1)
        return self.decoder(masked.view(b * 2, c, t)).view(b, 2, -1)


class StatisticsPooling(nn.Module):
    """ECAPA-TDNN: parts of channels that feed each other, and attentive means and deviations over time."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.parts = (
            nn.Conv1d(12, width, 5, padding=2),
            nn.ModuleList(nn.Conv1d(8, 8, 3, padding=1) for _ in range(3)),
        )
        self.last, self.norm = nn.Conv1d(width, width, 1), nn.BatchNorm1d(width)
        self.attention = nn.Sequential(nn.Conv1d(3 * width, 12, 1), nn.Tanh(), nn.Conv1d(12, width, 1))
        self.out = nn.Linear(2 * width, 10)

    def forward(self, features: Tensor) -> Tensor:
        x = self.norm(F.relu(self.first(features)))
        chunks = torch.chunk(x, 4, 1)
        results = [chunks[0]]
        for k, part in enumerate(self.parts):
            results.append(F.relu(part(chunks[k + 1] + results[-1] if k else chunks[1])))
        x = x + self.last(torch.cat(results, 1))
        t = x.size()[-1]
        mean, dev = (
            x.mean(2, keepdim=True).repeat(1, 1, t),
            x.var(2, keepdim=True).clamp(min=1e-4).sqrt().repeat(1, 1, t),
        )
        w = torch.softmax(self.attention(torch.cat((x, mean, dev), 1)), 2)
        mean = (x * w).sum(2)
        dev = torch.sqrt(((x**2) * w).sum(2).sub(mean**2).clamp(min=1e-4))
        return self.out(torch.cat((mean, dev), 1))


class ColumnsToText(nn.Module):
    """CRNN as it was first published: length first, recurrent answers viewed as length times batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 3, 1, 1), nn.BatchNorm2d(16),
            nn.ReLU(), nn.MaxPool2d((2, 2), (2, 1), (0, 1)), nn.Conv2d(16, 24, 2, (2, 1), (0, 1)), nn.ReLU(),
            nn.MaxPool2d((2, 1)),
        )  # fmt: skip
        self.rnns = nn.ModuleList([nn.LSTM(48, 16, bidirectional=True), nn.LSTM(20, 12, bidirectional=True)])
        self.linears = nn.ModuleList([nn.Linear(32, 20), nn.Linear(24, 30)])

    def forward(self, line: Tensor) -> Tensor:
        x = self.body(line)
        b, c, h, w = x.size()
        x = x.reshape(b, c * h, w).permute(2, 0, 1)
        for rnn, linear in zip(self.rnns, self.linears, strict=True):
            x, _ = rnn(x)
            t, b, h = x.size()
            x = linear(x.view(t * b, h)).view(t, b, -1)
        return x.log_softmax(2)


class SpeechToText(nn.Module):
    """DeepSpeech 2: convolutions, channels and frequencies as features, GRUs with sums of both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 5, (2, 2), 2), nn.BatchNorm2d(8), nn.Hardtanh(0, 20))
        self.norm, self.rnn = nn.BatchNorm1d(8 * 8), nn.GRU(8 * 8, 20, bidirectional=True, bias=False)
        self.out = nn.Sequential(nn.BatchNorm1d(20), nn.Linear(20, 12))

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.body(spectrogram.unsqueeze(1))
        x = x.view(x.size(0), x.size(1) * x.size(2), x.size(3)).transpose(1, 2).transpose(0, 1).contiguous()
        t, n = x.size(0), x.size(1)
        x = self.norm(x.view(t * n, -1)).view(t, n, -1)
        x, _ = self.rnn(x)
        x = x.view(x.size(0), x.size(1), 2, -1).sum(2).view(x.size(0), x.size(1), -1)
        return self.out(x.view(t * n, -1)).view(t, n, -1).transpose(0, 1)


class StatesInAndOut(nn.Module):
    """A recurrent detector of speech that is fed its states: a convolution, an LSTM, one probability a frame."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv, self.rnn, self.out = (
            nn.Conv1d(10, 24, 3, padding=1),
            nn.LSTM(24, width, 2, batch_first=True),
            nn.Linear(width, 1),
        )

    def forward(self, features: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.relu(self.conv(features)).transpose(1, 2)
        x, (h, c) = self.rnn(x, (h, c))
        return torch.sigmoid(self.out(x)), h, c


class LocationAttention(nn.Module):
    """Tacotron's decoder, two steps of it: attention that sees where it was, cells, and a frame a step."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.embed, self.encoder = nn.Embedding(40, 16), nn.LSTM(16, 10, batch_first=True, bidirectional=True)
        self.cell, self.query, self.memory = nn.LSTMCell(width + 8, 24), nn.Linear(24, 12), nn.Linear(width, 12)
        self.where, self.where2, self.v = nn.Conv1d(2, 6, 5, padding=2), nn.Linear(6, 12), nn.Linear(12, 1)
        self.frame, self.prenet = nn.Linear(24 + width, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU())

    def forward(self, tokens: Tensor) -> Tensor:
        memory, _ = self.encoder(self.embed(tokens))
        b, t, c = memory.shape
        keys, frame, context = self.memory(memory), memory.new_zeros(b, 8), memory.new_zeros(b, c)
        h, s, weights, total = (
            memory.new_zeros(b, 24),
            memory.new_zeros(b, 24),
            memory.new_zeros(b, t),
            memory.new_zeros(b, t),
        )
        frames = []
        for _ in range(2):
            h, s = self.cell(torch.cat((self.prenet(frame), context), -1), (h, s))
            seen = self.where2(self.where(torch.stack((weights, total), 1)).transpose(1, 2))
            weights = F.softmax(self.v(torch.tanh(self.query(h).unsqueeze(1) + seen + keys)).squeeze(-1), 1)
            context, total = torch.bmm(weights.unsqueeze(1), memory).squeeze(1), total + weights
            frame = self.frame(torch.cat((h, context), -1))
            frames.append(frame)
        return torch.stack(frames, 1)


class Interpolated(nn.Module):
    """N-HiTS: pooled windows, and coefficients interpolated to the backcast and the forecast; residuals of stacks."""

    def __init__(self, window: int = 24, horizon: int = 12) -> None:
        super().__init__()
        self.window, self.horizon = window, horizon
        self.pools = (4, 2)
        self.stacks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(window // p, 32),
                nn.ReLU(),
                nn.Linear(32, 24),
                nn.ReLU(),
                nn.Linear(24, window + horizon // p),
            )
            for p in self.pools
        )

    def forward(self, series: Tensor) -> Tensor:
        rest, forecast = series, series[:, -1:].repeat(1, self.horizon)
        for pool, stack in zip(self.pools, self.stacks, strict=True):
            theta = stack(F.max_pool1d(rest.unsqueeze(1), pool, pool, ceil_mode=True).squeeze(1))
            back, knots = theta[:, : self.window], theta[:, self.window :]
            ahead = F.interpolate(knots[:, None, :], size=self.horizon, mode="linear")[:, 0]
            rest, forecast = rest - back, forecast + ahead
        return forecast


class Demucs(nn.Module):
    """A wave through gated convolutions, an LSTM between, and back, skips cut to length; scaled by its deviation."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, o, 8, 4), nn.ReLU(), nn.Conv1d(o, 2 * o, 1), nn.GLU(1))
            for i, o in ((1, width), (width, 16))
        )
        self.rnn, self.linear = nn.LSTM(16, 20, bidirectional=True), nn.Linear(40, 16)
        self.decoder = nn.ModuleList(
            nn.Sequential(nn.Conv1d(i, 2 * i, 1), nn.GLU(1), nn.ConvTranspose1d(i, o, 8, 4))
            for i, o in ((16, width), (width, 1))
        )

    def forward(self, wave: Tensor) -> Tensor:
        mono = wave.unsqueeze(1)
        scale = mono.std(-1, keepdim=True) + 1e-3
        x, skips = mono / scale, []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        y, _ = self.rnn(x.permute(2, 0, 1))
        x = self.linear(y).permute(1, 2, 0)
        for k, layer in enumerate(self.decoder):
            skip = skips.pop(-1)
            x = layer(x + skip[..., : x.shape[-1]])
            x = F.relu(x) if k == 0 else x
        return scale * x


class FinalStates(nn.Module):
    """What two recurrent layers of two directions end in, stacked; those of the last are told apart and joined."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.i, self.lstm = nn.Linear(10, 16), nn.LSTM(16, width, 2, batch_first=True, bidirectional=True)
        self.width, self.out = width, nn.Linear(2 * width, 5)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        start = torch.zeros(4, features.size(0), self.width)
        y, (h, _) = self.lstm(self.i(features), (start, torch.zeros_like(start)))
        return self.out(y), self.out(torch.cat([h[-2], h[-1]], -1))
