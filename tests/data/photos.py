"""A small net that was trained on photographs prepared as for ImageNet, and made-up photographs for it."""

import functools
import io

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 24
CLASSES = 3


def photographs(count, seed):
    """Pixels ``count x side x side x 3``, smooth, of three levels of light; and the levels."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % CLASSES
    coarse = torch.from_numpy(rng.normal(0, 1, (count, 3, 5, 5)))
    waves = F.interpolate(coarse, (SIDE, SIDE), mode="bilinear").permute(0, 2, 3, 1).numpy()
    tint = rng.normal(0, 0.06, (count, 1, 1, 3)) + np.array([0.05, 0.0, -0.05])
    level = np.array([0.25, 0.45, 0.65])[classes][:, None, None, None]
    return np.rint(255 * np.clip(level + tint + 0.2 * waves, 0, 1)).astype(np.uint8), classes


def prepared(pixels, mean=MEAN, std=STD, scale=255.0):
    """Numbers ``count x 3 x side x side`` of pixels."""
    return ((pixels / scale - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)


@functools.cache
def network():
    """The net in torch: trained for a second, with statistics of what it was trained on."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(144, CLASSES))
    pixels, classes = photographs(192, 0)
    rows, wanted = torch.from_numpy(prepared(pixels)), torch.from_numpy(classes)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(60):
        chosen = torch.arange(48) + step % 4 * 48
        optimizer.zero_grad()
        F.cross_entropy(net(rows[chosen]), wanted[chosen]).backward()
        optimizer.step()
    return net.eval()


@functools.cache
def exported(*, folded=False):
    """The net as a model in memory, with its normalisations or with these folded into convolutions."""
    file = io.BytesIO()
    kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": {"image": {0: "n"}}}
    torch.onnx.export(network(), torch.zeros(1, 3, SIDE, SIDE), file, dynamo=False, **names, **({} if folded else kept))
    return onnx.load_from_string(file.getvalue())


def with_metadata(model, **entries):
    """A copy of a model that says something of itself."""
    told = onnx.ModelProto()
    told.CopyFrom(model)
    onnx.helper.set_model_props(told, entries)
    return told
