"""A small decoder as large ones are built: normalised before each layer, rotary positions, gated units, no biases.

Tokens ``(N, T)`` in, ``(N, T, TOKENS)`` logits of the next ones out (LLaMA, arXiv:2302.13971).
"""

import time
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality.manuals import TOKENS

WIDTH, DEPTH, HEADS, HIDDEN = 192, 4, 6, 512
LENGTH = 128  # tokens
BATCH, STEPS, RATE = 16, 700, 3e-3


class Norm(nn.Module):
    """Root mean square normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale


class Attention(nn.Module):
    """Causal self-attention whose queries and keys are turned by their positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        rate = 10_000.0 ** (-torch.arange(0, self.size, 2) / self.size)
        angles = torch.arange(LENGTH)[:, None] * rate.repeat(2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.register_buffer("ahead", torch.full((LENGTH, LENGTH), -1e9).triu(1), persistent=False)

    def turned(self, x: Tensor) -> Tensor:
        """Pairs of components turned by an angle that grows with the position."""
        first, second = x.chunk(2, -1)
        return x * self.cos[: x.shape[2]] + torch.cat([-second, first], -1) * self.sin[: x.shape[2]]

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (m(x).reshape(batch, length, self.heads, self.size).transpose(1, 2) for m in (self.q, self.k, self.v))
        scores = self.turned(q) @ self.turned(k).transpose(-2, -1) * self.size**-0.5 + self.ahead[:length, :length]
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, self.heads * self.size))


class Gated(nn.Module):
    """Hidden units of which each is the product of two."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """Attention and hidden units, each beside the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_hidden = Norm(WIDTH), Norm(WIDTH)
        self.attention, self.hidden = Attention(WIDTH, HEADS), Gated(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x))
        return x + self.hidden(self.before_hidden(x))


class Language(nn.Module):
    """The whole model."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(DEPTH))
        self.norm, self.head = Norm(WIDTH), nn.Linear(WIDTH, TOKENS, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02 if parameter.shape[0] == TOKENS else parameter.shape[1] ** -0.5 / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def windows(tokens: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """So many stretches of text, each with the token after it: ``(count, LENGTH + 1)``."""
    starts = np.random.default_rng(seed).integers(0, len(tokens) - LENGTH - 1, count)
    return np.stack([tokens[start : start + LENGTH + 1] for start in starts])


def train(tokens: NDArray[np.int64], steps: int = STEPS) -> Language:
    """Train a model from nothing, in bfloat16 where that is faster."""
    torch.manual_seed(0)
    net = Language().train()
    wide = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": wide, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    start, total = time.process_time(), 0.0
    for step in range(1, steps + 1):
        rows = torch.from_numpy(windows(tokens, BATCH, step))
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(rows[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % 100 == 0:
            print(f"  step {step}: loss {total / 100:.3f}, {time.process_time() - start:.0f} s", flush=True)
            total = 0.0
    return net.eval()


def export(net: nn.Module, path: Path) -> None:
    """Write a model whose batch and length are open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.zeros(2, LENGTH, dtype=torch.long),),
            str(path.with_suffix(".part")),
            input_names=["tokens"],
            output_names=["logits"],
            dynamic_axes={"tokens": {0: "batch", 1: "length"}, "logits": {0: "batch", 1: "length"}},
            opset_version=17,
            dynamo=False,
        )
    path.with_suffix(".part").rename(path)
