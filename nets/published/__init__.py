"""Nets of well-known kinds as their authors spell them: small, with the axes that people leave open when they export.

Where a library's net is a page of configuration, these are the page of code that is peculiar to it: computed sizes,
groups folded into the batch, masks, states, positions. Every net can be written static and with its axes open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from nets.exports import Inputs, Network
from nets.published import attention, audio, features, generative, vision

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZES: dict[str, tuple[int, int]] = {
    "batch": (1, 3), "height": (64, 32), "width": (32, 96), "length": (7, 14), "second": (12, 5), "time": (6, 10),
    "samples": (24, 40), "wave": (170, 254),
}  # fmt: skip
"""Two other sizes of every kind of open axis, taken together."""

TOKENS, ROWS = {0: "batch", 1: "length"}, {0: "batch"}
IMAGE = {0: "batch", 2: "height", 3: "width"}

Spec = tuple[str, tuple[int, ...], dict[int, str]]  # what is drawn (or how many words there are), shape, open axes


def images(*shape: int) -> Spec:
    return "normal", (1, *(shape or (3, 32, 32))), IMAGE


def tokens(count: int = 40, length: int = 9, axis: str = "length") -> Spec:
    return str(count), (1, length), {0: "batch", 1: axis}


def series(*shape: int, **axes: int) -> Spec:
    return "normal", (1, *shape), {0: "batch"} | {axis: kind for kind, axis in axes.items()}


def _draw(kind: str, shape: tuple[int, ...]) -> Tensor:
    if kind == "normal":
        return torch.randn(shape)
    if kind == "ones":
        return torch.ones(shape, dtype=torch.long)
    return torch.rand(shape) if kind == "positive" else torch.randint(int(kind), shape)


def net(build: Callable[[], nn.Module], **inputs: Spec) -> Network:
    """A net with the inputs that are named; the axis of the batch is of any size in their shapes."""

    def feeds(batch: int) -> Inputs:
        return {
            name: _draw(kind, tuple(batch if axes.get(axis) == "batch" else size for axis, size in enumerate(shape)))
            for name, (kind, shape, axes) in inputs.items()
        }

    return Network(build, feeds, dynamic={name: axes for name, (_, _, axes) in inputs.items()})


def resized(inputs: Inputs, axes: Mapping[str, Mapping[int, str]], which: int) -> Inputs:
    """The inputs at other sizes of their open axes, by what they hold, repeated as often as it takes."""
    other = dict(inputs)
    for name, opened in axes.items():
        for axis, kind in opened.items():
            size = SIZES[kind][which]
            other[name] = other[name].index_select(axis, torch.arange(size) % other[name].shape[axis])
    return other


PUBLISHED: dict[str, Network] = {
    "nn.Transformer": net(attention.Transformer, source=tokens(60), target=tokens(60, 6, "second")),
    "BART's attention, by views": net(attention.BartAttention, tokens=tokens(60), mask=("ones", (1, 9), TOKENS)),
    "Perceiver": net(attention.Perceiver, sequence=series(9, 16, length=1)),
    "SigLIP's pooling": net(attention.PoolingHead, image=images()),
    "T5's buckets": net(attention.RelativeBuckets, tokens=tokens(60)),
    "Conformer, relative positions": net(attention.RelativeShift, sequence=series(9, 16, length=1)),
    "LongT5's local blocks": net(attention.LocalBlocks, tokens=tokens(60)),
    "Swin's shifted windows": net(attention.ShiftedWindows, image=images()),
    "deformable attention": net(attention.DeformableAttention, image=images()),
    "Mask2Former's masked queries": net(attention.MaskedQueries, image=images()),
    "GroupViT's tokens": net(attention.GroupTokens, image=images()),
    "attention over channels, linear attention": net(attention.LinearKernels, image=images()),
    "Linformer": net(attention.Linformer, sequence=series(9, 16)),
    "mixture of stacked experts": net(attention.SwitchedExperts, tokens=tokens(60)),
    "mixture of experts, routed": net(attention.RoutedExperts, tokens=tokens(60)),
    "MLP-Mixer": net(attention.TokensMixed, sequence=series(9, 16)),
    "class token": net(attention.ClassToken, sequence=series(9, 16, length=1)),
    "Depth Anything's head": net(vision.DepthHead, image=images(3, 56, 56)),
    "SegNet": net(vision.SegNet, image=images()),
    "VitMatte": net(vision.DetailCapture, image=images(4, 32, 32)),
    "ConvNeXt V2's response": net(vision.GlobalResponse, image=images()),
    "SGE": net(vision.GroupEnhance, image=images()),
    "EMA": net(vision.CrossSpatial, image=images()),
    "coordinate attention": net(vision.CoordinateAttention, image=images()),
    "ECA, squeeze and excitation": net(vision.ChannelConvolution, image=images()),
    "non-local, DANet": net(vision.NonLocal, image=images()),
    "RAFT": net(vision.Correlation, left=images(), right=images()),
    "U-Net with gates": net(vision.UNet, image=images()),
    "feature pyramid": net(vision.FeaturePyramid, image=images()),
    "HRNet": net(vision.HighResolution, image=images()),
    "YOLOv5's grid": net(vision.GridHead, image=images()),
    "PointNet": net(vision.PointNet, points=series(3, 11, length=2)),
    "capsules": net(vision.Capsules, image=("normal", (1, 3, 28, 28), ROWS)),
    "DeepLab's pyramid, GhostNet, shuffle": net(vision.Atrous, image=images()),
    "WaveGlow": net(audio.WaveGlow, spectrogram=series(10, 8, time=2), noise=series(32, samples=1)),
    "ConvLSTM": net(audio.ConvLstm, frames=series(3, 3, 16, 16, height=3, width=4)),
    "DPRNN": net(audio.DualPath, wave=series(86, wave=1)),
    "Conv-TasNet": net(audio.ConvTasNet, wave=series(86, wave=1)),
    "ECAPA-TDNN": net(audio.StatisticsPooling, features=series(12, 17, length=2)),
    "CRNN, length first": net(audio.ColumnsToText, line=("normal", (1, 1, 32, 48), {0: "batch", 3: "width"})),
    "DeepSpeech 2": net(audio.SpeechToText, spectrogram=series(16, 20, length=2)),
    "recurrent states in and out": net(
        audio.StatesInAndOut,
        features=series(10, 9, length=2),
        h=("normal", (2, 1, 16), {1: "batch"}),
        c=("normal", (2, 1, 16), {1: "batch"}),
    ),
    "final states of two directions": net(audio.FinalStates, features=series(9, 10, length=1)),
    "Tacotron's attention": net(audio.LocationAttention, tokens=tokens()),
    "N-HiTS": net(audio.Interpolated, series=series(24)),
    "Demucs": net(audio.Demucs, wave=series(86, wave=1)),
    "DeepFM": net(features.DeepFm, fields=("10", (1, 4), ROWS)),
    "xDeepFM": net(features.CompressedInteractions, fields=("40", (1, 4), ROWS)),
    "AutoInt": net(features.FieldAttention, fields=("40", (1, 4), ROWS)),
    "DLRM": net(features.DotInteractions, numbers=series(6), words=("20", (1, 3), ROWS)),
    "DCN-v2": net(features.CrossNet, row=series(12)),
    "TabNet": net(features.TabNet, row=series(12)),
    "GCN, GAT": net(
        features.GraphConvolutions,
        nodes=series(7, 8, length=1),
        adjacency=("positive", (1, 7, 7), {0: "batch", 1: "length", 2: "length"}),
    ),
    "messages on edges": net(
        features.MessagesOnEdges, nodes=("normal", (6, 8), {0: "length"}), edges=("6", (2, 10), {1: "second"})
    ),
    "ESIM": net(features.Pairwise, left=tokens(), right=tokens(40, 6, "second")),
    "NeRF": net(features.RadianceField, points=series(9, 3, length=1), directions=series(3)),
    "StyleGAN2": net(generative.StyleGan, z=series(12)),
    "SRGAN": net(generative.SuperResolution, image=images()),
    "CycleGAN, AdaIN": net(generative.CycleGan, image=images(), style=series(6)),
    "diffusion": net(generative.Diffusion, image=images(), steps=("normal", (1,), ROWS)),
    "VQ-VAE": net(generative.Codebook, image=images()),
    "VITS": net(generative.SamplingFlow, tokens=tokens()),
}
