"""A small language model: a quarter of its parameters go, and how well it still predicts text.

Bytes of Python's own library. Needs ``pip install "onnxslim-learn[train]"``.
"""

# %%
import sysconfig
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import nn
from torch.nn import functional as F

import onnxslim_learn as osl

WIDTH, HEADS, LENGTH = 64, 4, 64
torch.manual_seed(0)
sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
text = np.frombuffer(b"".join(path.read_bytes() for path in sources), np.uint8).astype(np.int64) % 128
known, unseen = text[: -len(text) // 10], text[-len(text) // 10 :]


def stretches(part, count, seed):
    """So many stretches of text, each with the byte after it."""
    starts = np.random.default_rng(seed).integers(0, len(part) - LENGTH - 1, count)
    return np.stack([part[start : start + LENGTH + 1] for start in starts])


# %%
class Layer(nn.Module):
    """Attention to what came before, and hidden units, each beside the stream."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.hidden = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        """The stream, ``(samples, LENGTH, WIDTH)``."""
        heads = self.qkv(self.norms[0](x)).reshape(-1, LENGTH, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).reshape(-1, LENGTH, WIDTH)
        x = x + self.out(mixed)
        return x + self.hidden(self.norms[1](x))


class Language(nn.Sequential):
    """Bytes in, logits of the next ones out."""

    def __init__(self):
        super().__init__(nn.Embedding(128, WIDTH), Layer(), Layer(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 128))


# %%
net = Language()
optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
for step in range(150):
    rows = torch.from_numpy(stretches(known, 16, step))
    loss = F.cross_entropy(net(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
example = torch.from_numpy(stretches(known, 2, 0)[:, :-1])
named = {"input_names": ["bytes"], "output_names": ["logits"], "dynamic_axes": {"bytes": {0: "batch"}}}
torch.onnx.export(net.eval(), (example,), "language.onnx", dynamo=False, **named)

# %%
samples = {"bytes": stretches(known, 128, 1)[:, :-1]}
slim = osl.slim("language.onnx", params=0.75, data=samples, work="5G", latency=False, output="slim.onnx")

# %%
print("file           parameters  perplexity")
judged = stretches(unseen, 128, 2)
for file, count in (("language.onnx", slim.report["before"]), ("slim.onnx", slim.report["after"])):
    (logits,) = ort.InferenceSession(file).run(None, {"bytes": judged[:, :-1]})
    loss = F.cross_entropy(torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(judged[:, 1:]).flatten())
    print(f"{file:14} {count['params']:10,} {float(loss.exp()):11.2f}")
