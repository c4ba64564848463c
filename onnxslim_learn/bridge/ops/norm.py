"""Operators that normalise: by batch, channel, group or last axes; softmax and its relatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, distributed

from onnxslim_learn.bridge.ops.finite import finite
from onnxslim_learn.bridge.ops.kinds import DTYPES, Plain


def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
    training: bool = False,
    outputs: int = 1,
) -> Any:
    """BatchNormalization: by running statistics, or in training by those of the batch, updating the running ones.

    Where several processes train together, the batch is that of all of them. A node that is in training mode in the
    file puts out updated statistics, and changes none in place.
    """
    if training_mode:
        axes = [a for a in range(x.ndim) if a != 1]
        own_mean, own_var = x.mean(axes), x.var(axes, correction=0)
        y = F.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
        updated = own_mean * (1 - momentum) + mean * momentum, own_var * (1 - momentum) + var * momentum
        return (y, *updated)[:outputs] if outputs > 1 else y
    if training and distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return joint_batch_norm(x, (scale, bias), (mean, var), epsilon=epsilon, momentum=momentum)
    return F.batch_norm(x, mean, var, scale, bias, training, 1 - momentum, epsilon)


class _Summed(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient.contiguous())


def _summed(x: Tensor) -> Tensor:
    total: Tensor = _Summed.apply(x)  # type: ignore[no-untyped-call]
    return total


def joint_batch_norm(
    x: Tensor, affine: tuple[Tensor, Tensor], running: tuple[Tensor, Tensor], *, epsilon: float, momentum: float
) -> Tensor:
    """Normalise by the statistics of the batches of all processes, which are of one size; updates the running ones.

    ``torch.nn.SyncBatchNorm`` does this on GPUs alone. Gradients pass through the exchange: each process gets the sum
    of what all of them make of the statistics, so that their mean is the gradient of the whole batch.

    Args:
        x: This process's batch, ``(samples, channels, ...)``.
        affine: Scale and shift, ``(channels,)``.
        running: Running mean and variance, changed in place.
        epsilon: Added to the variance.
        momentum: Share of the running statistics that stays.
    """
    axes, size = [a for a in range(x.ndim) if a != 1], distributed.get_world_size()
    wide, shape = x.to(running[0].dtype), [-1 if a == 1 else 1 for a in range(x.ndim)]
    mean = _summed(wide.mean(axes)) / size
    centred = wide - mean.reshape(shape)
    var = _summed(centred.square().mean(axes)) / size
    count = size * x.numel() / x.shape[1]
    with torch.no_grad():
        running[0].lerp_(mean, 1 - momentum)
        running[1].lerp_(var * (count / max(count - 1, 1)), 1 - momentum)
    scale, bias = (one.reshape(shape) for one in affine)
    y: Tensor = centred * torch.rsqrt(var + epsilon).reshape(shape) * scale + bias
    return y.to(x.dtype)


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """InstanceNormalization."""
    return F.instance_norm(x, None, None, scale, bias, True, 0.0, epsilon)


def group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """GroupNormalization; before operator set 21 one scale and shift for every group."""
    if scale.shape[0] != x.shape[1]:
        scale, bias = (v.repeat_interleave(x.shape[1] // num_groups) for v in (scale, bias))
    return F.group_norm(x, num_groups, scale, bias, epsilon)


def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> Any:
    """LayerNormalization; mean and inverse deviation where asked for."""
    first = axis % x.ndim
    shape = x.shape[first:]
    if outputs == 1 and scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    axes = tuple(range(first, x.ndim))
    wide = x.to(DTYPES[stash_type])
    mean = wide.mean(axes, keepdim=True)
    inverse = torch.rsqrt((wide - mean).square().mean(axes, keepdim=True) + epsilon)
    y = ((wide - mean) * inverse).to(x.dtype) * scale
    return (
        (y if bias is None else y + bias, mean, inverse)[:outputs] if outputs > 1 else y if bias is None else y + bias
    )


def rms_norm(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1, outputs: int = 1
) -> Any:
    """RMSNormalization."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    wide = x.to(DTYPES[stash_type]) if x.dtype != torch.float64 else x
    inverse = torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)
    y = (wide * inverse).to(x.dtype) * scale
    return (y, None, inverse)[:outputs] if outputs > 1 else y


@finite
def lp_norm(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """LpNormalization; nothing is zero by zero."""
    length = x.abs().sum(axis, keepdim=True) if p == 1 else torch.linalg.vector_norm(x, 2, axis, keepdim=True)
    return torch.where(length == 0, torch.zeros_like(x), x / length)


@finite
def mean_variance_norm(x: Tensor, *, axes: Plain = (0, 2, 3)) -> Tensor:
    """MeanVarianceNormalization."""
    centred = x - x.mean(tuple(axes), keepdim=True)
    return centred / (centred.square().mean(tuple(axes), keepdim=True).sqrt() + 1e-9)


def local_response(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """LRN over neighbouring channels."""
    squares = F.pad(x.square().flatten(2), (0, 0, (size - 1) // 2, size // 2)) if x.ndim > 2 else None
    if squares is None:
        squares = F.pad(x.square()[..., None], (0, 0, (size - 1) // 2, size // 2))
    total = squares.unfold(1, size, 1).sum(-1).reshape(x.shape)
    return x / (bias + alpha / size * total) ** beta


def _over(x: Tensor, axis: int | None, opset: int, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Along one axis since operator set 13, over all from ``axis`` to the last before."""
    if opset >= 13:
        return function(x, -1 if axis is None else axis)
    first = (1 if axis is None else axis) % max(x.ndim, 1)
    return function(x.reshape(math.prod(x.shape[:first]), -1), 1).reshape(x.shape)


def softmax(x: Tensor, *, axis: int | None = None, opset: int = 13) -> Tensor:
    """Softmax."""
    return _over(x, axis, opset, torch.softmax)


def safe_softmax(x: Tensor, *, axis: int | None = None, opset: int = 13) -> Tensor:
    """Softmax whose result is asked for NaN: of nothing but minus infinity it is NaN, but has no gradient."""
    hidden = torch.isneginf(x).all(-1 if axis is None else axis, keepdim=True)
    return softmax(x.masked_fill(hidden, 0.0), axis=axis, opset=opset).masked_fill(hidden, torch.nan)


def log_softmax(x: Tensor, *, axis: int | None = None, opset: int = 13) -> Tensor:
    """LogSoftmax."""
    return _over(x, axis, opset, torch.log_softmax)


def _hard(x: Tensor, axis: int) -> Tensor:
    place = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, place, 1.0)


def hardmax(x: Tensor, *, axis: int | None = None, opset: int = 13) -> Tensor:
    """Hardmax: one at the first largest."""
    return _over(x, axis, opset, _hard)


FOLLOWED: dict[tuple[str, str], Callable[..., Any]] = {("Softmax", "IsNaN"): safe_softmax}
"""An operator and one that reads its result -> the function for the first."""

TABLE: dict[str, Callable[..., Any]] = {
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "Hardmax": hardmax,
    "InstanceNormalization": instance_norm,
    "LRN": local_response,
    "LayerNormalization": layer_norm,
    "LogSoftmax": log_softmax,
    "LpNormalization": lp_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "RMSNormalization": rms_norm,
    "SimplifiedLayerNormalization": rms_norm,
    "Softmax": softmax,
}
