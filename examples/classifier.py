"""A ResNet classifier: from torch to a slim .onnx file, and back to torch.

Digits of 8x8 pixels. Needs ``pip install "onnxslim-learn[train]" scikit-learn``.
"""

# %%
import numpy as np
import onnxruntime as ort
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import onnxslim_learn as osl

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
images = (pixels / 16).reshape(-1, 1, 8, 8).astype(np.float32)
train, test = slice(0, 1200), slice(1200, None)  # the last were written by other people


# %%
class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, i, o, stride=1):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()),
            *(nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)),
        )
        self.shortcut = nn.Identity() if (i, stride) == (o, 1) else nn.Conv2d(i, o, 1, stride)

    def forward(self, x):
        """Feature maps of half the size where the stride is two."""
        return F.relu(self.body(x) + self.shortcut(x))


def fit(net, epochs, rate):
    """Train on the digits to train on; the net may name its outputs."""
    optimizer = torch.optim.AdamW(net.parameters(), rate)
    x, y = torch.from_numpy(images[train]), torch.from_numpy(labels[train])
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            logits = net(x[rows])
            loss = F.cross_entropy(logits["logits"] if isinstance(logits, dict) else logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


# %% Train a net, and write it as any torch net is written.
blocks = (Block(1, 16), Block(16, 32, 2), Block(32, 32), Block(32, 64, 2))
resnet = fit(nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)), 6, 3e-3)
named = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": {"image": {0: "batch"}}}
torch.onnx.export(resnet, (torch.from_numpy(images[:2]),), "resnet.onnx", dynamo=False, **named)

# %% Cut two thirds of its multiply-accumulates, from the file and unlabelled images alone.
slim = osl.slim("resnet.onnx", macs=0.33, data={"image": images[train]}, samples=256, work="2G", latency=False)
slim.save("slim.onnx")

# %% Back to torch, two more epochs with the same loop, and back into a file.
osl.from_torch(fit(osl.to_torch("slim.onnx"), 2, 1e-3), "trained.onnx")

# %%
print("file          parameters      MACs  accuracy")
counts = {"resnet.onnx": slim.report["before"], "slim.onnx": slim.report["after"], "trained.onnx": slim.report["after"]}
for file, count in counts.items():
    (logits,) = ort.InferenceSession(file).run(None, {"image": images[test]})
    print(f"{file:12} {count['params']:11,} {count['macs']:9,}  {(logits.argmax(1) == labels[test]).mean():8.1%}")
