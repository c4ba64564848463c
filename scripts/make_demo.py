"""Train the demo network on scikit-learn's digits and write it, with its data, into ``onnxslim_learn/demo``.

Run ``python scripts/make_demo.py`` from anywhere (needs the ``dev`` extra). It writes three files:

* ``digits.onnx``: the trained network, input ``image`` float32 [N, 1, 8, 8] in [0, 1], output ``logits`` [N, 10];
* ``digits.npz``: the held-out quarter of the digits, ``image`` and ``labels``; never seen in training;
* ``calibration.npz``: 256 of the training images, ``image`` only.

The run is seeded and single-threaded. Nothing is chosen by the held-out accuracy: it is computed once, in
onnxruntime on the bytes to be written, and the script writes nothing if it is below ``MIN_ACCURACY``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

MetadataHolder = onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto

DEMO_DIR = Path(__file__).resolve().parent.parent / "onnxslim_learn" / "demo"
SEED = 7
EPOCHS = 60
BATCH = 64
HELD_OUT_IMAGES = 450
CALIBRATION_IMAGES = 256
MIN_ACCURACY = 0.985
MAX_MODEL_BYTES = 1_000_000


def conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A "same"-padded convolution followed by BatchNorm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class Residual(nn.Module):
    """Two 3x3 convolutions with an identity shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(channels, channels, 3)
        self.conv2 = conv_bn(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        return functional.relu(x + self.conv2(functional.relu(self.conv1(x))))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the global average of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        gate = functional.hardsigmoid(self.expand(functional.relu(self.reduce(self.pool(x)))))
        return torch.mul(x, gate)


class InvertedResidual(nn.Module):
    """Expand with 1x1, depthwise 3x3, squeeze-and-excitation, project with 1x1, identity shortcut."""

    def __init__(self, channels: int, expanded: int, squeezed: int) -> None:
        super().__init__()
        self.expand = conv_bn(channels, expanded, 1)
        self.depthwise = conv_bn(expanded, expanded, 3, groups=expanded)
        self.gate = SqueezeExcite(expanded, squeezed)
        self.project = conv_bn(expanded, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        y = functional.relu(self.depthwise(functional.relu(self.expand(x))))
        return torch.add(x, self.project(self.gate(y)))


class TwoBranch(nn.Module):
    """A 1x1 and a 3x3 convolution side by side, joined on the channel axis."""

    def __init__(self, in_channels: int, point_channels: int, wide_channels: int) -> None:
        super().__init__()
        self.point = conv_bn(in_channels, point_channels, 1)
        self.wide = conv_bn(in_channels, wide_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, point_channels + wide_channels, H, W]."""
        return torch.cat([functional.relu(self.point(x)), functional.relu(self.wide(x))], dim=1)


class DigitsNet(nn.Module):
    """Residual, inverted-residual and two-branch blocks on 8x8 maps, a residual block on 4x4, linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 40, 3)
        self.residual1 = Residual(40)
        self.inverted = InvertedResidual(40, 64, 16)
        self.branches = TwoBranch(40, 24, 32)
        self.down = conv_bn(56, 48, 3, stride=2)
        self.residual2 = Residual(48)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(48, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Map images [N, 1, 8, 8] to logits [N, 10]."""
        x = functional.relu(self.stem(image))
        x = self.branches(self.inverted(self.residual1(x)))
        x = self.residual2(functional.relu(self.down(x)))
        logits: Tensor = self.classifier(torch.flatten(self.pool(x), 1))
        return logits


def load_data() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Split the digits by class into training and held-out parts.

    Returns:
        Training images [1347, 1, 8, 8] in [0, 1], held-out images [450, 1, 8, 8], and the labels of each.
    """
    digits = load_digits()
    image = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    rows = np.arange(len(labels))
    seen, held = train_test_split(rows, test_size=HELD_OUT_IMAGES, stratify=labels, random_state=SEED)
    return image[seen], image[held], labels[seen], labels[held]


def shifted(batch: Tensor) -> Tensor:
    """Shift each image of a batch [B, 1, 8, 8] by -1, 0 or 1 pixel on both axes, filling with zeros."""
    size = batch.shape[-1]
    padded = functional.pad(batch, (1, 1, 1, 1))
    offsets = torch.randint(0, 3, (len(batch), 2)).tolist()
    crops = [one[:, dy : dy + size, dx : dx + size] for one, (dy, dx) in zip(padded, offsets, strict=True)]
    return torch.stack(crops)


def train(image: Tensor, labels: Tensor) -> DigitsNet:
    """Train a fresh network with AdamW under a one-cycle cosine schedule.

    Args:
        image: Training images [M, 1, 8, 8].
        labels: Their classes [M].

    Returns:
        The trained network in eval mode.
    """
    net = DigitsNet().train()
    steps = len(image) // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=EPOCHS * steps, pct_start=0.15)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(image))[: steps * BATCH]
        total = 0.0
        for rows in torch.split(order, BATCH):
            loss = functional.cross_entropy(net(shifted(image[rows])), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3d}  training loss {total / steps:.4f}")
    return net.eval()


def count_macs(net: nn.Module) -> int:
    """Multiply-accumulates of the convolution and linear layers for one image."""
    macs = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Conv2d | nn.Linear):
            macs += output[0].numel() * layer.weight[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in net.modules()]
    with torch.no_grad():
        net(torch.zeros(1, 1, 8, 8))
    for hook in hooks:
        hook.remove()
    return macs


def metadata_holders(model: onnx.ModelProto) -> Iterator[MetadataHolder]:
    """Every part of a model that can carry a doc string and free-form metadata."""
    graph = model.graph
    yield from (model, graph)
    for parts in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        yield from parts


def strip_paths(model: onnx.ModelProto) -> None:
    """Remove, in place, doc strings and metadata that say where on a machine the model was made."""
    for holder in metadata_holders(model):
        kept = [(entry.key, entry.value) for entry in holder.metadata_props if not names_a_file(entry)]
        del holder.metadata_props[:]
        for key, value in kept:
            holder.metadata_props.add(key=key, value=value)
        holder.ClearField("doc_string")


def names_a_file(entry: onnx.StringStringEntryProto) -> bool:
    """Whether a metadata entry is a stack trace or quotes a source file."""
    return entry.key.endswith("stack_trace") or ".py" in entry.value or str(Path.home()) in entry.value


def export(net: DigitsNet) -> onnx.ModelProto:
    """Export a network in eval mode with a dynamic batch dimension, weights inside, free of machine paths."""
    program = torch.onnx.export(
        net,
        (torch.zeros(2, 1, 8, 8),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    if program is None:
        raise SystemExit("torch.onnx.export: a program is expected, but it returned none. Check the torch version.")
    model = program.model_proto
    strip_paths(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def accuracy(model: bytes, image: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The share of images a serialized model puts in the right class, computed in onnxruntime."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image})
    return float((logits.argmax(axis=1) == labels).mean())


def main() -> None:
    """Train, export, check and only then write the three files."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    started = time.perf_counter()
    train_image, held_image, train_labels, held_labels = load_data()
    net = train(torch.from_numpy(train_image), torch.from_numpy(train_labels))
    model = export(net)
    payload = model.SerializeToString(deterministic=True)
    reached = accuracy(payload, held_image, held_labels)
    if reached < MIN_ACCURACY or len(payload) >= MAX_MODEL_BYTES:
        raise SystemExit(
            f"demo network: at least {MIN_ACCURACY:.1%} held out and under {MAX_MODEL_BYTES} bytes are expected, "
            f"but it has {reached:.2%} and {len(payload)} bytes. Nothing was written; change the network or training."
        )
    calibration, _ = train_test_split(
        train_image, train_size=CALIBRATION_IMAGES, stratify=train_labels, random_state=SEED
    )
    (DEMO_DIR / "digits.onnx").write_bytes(payload)
    np.savez_compressed(DEMO_DIR / "digits.npz", image=held_image, labels=held_labels)
    np.savez_compressed(DEMO_DIR / "calibration.npz", image=calibration)

    print(f"held-out accuracy in onnxruntime {reached:.4f} on {len(held_image)} images")
    print(f"parameters {sum(p.numel() for p in net.parameters())}, MACs per image {count_macs(net)}")
    for name in ("digits.onnx", "digits.npz", "calibration.npz"):
        print(f"{name}: {(DEMO_DIR / name).stat().st_size} bytes")
    print("nodes:", dict(Counter(node.op_type for node in model.graph.node).most_common()))
    print(f"done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
