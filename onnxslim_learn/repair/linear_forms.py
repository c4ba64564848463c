"""Nodes whose weights a regression can refit, each family as a matrix product of unfolded inputs.

``output[..., o] = unfold(data)[..., d] · matrix (d, o) + bias``, in ``g`` independent groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.operators.facts import attribute
from onnxslim_learn.repair.places import Picks
from onnxslim_learn.runtime.part import READING


@dataclass(frozen=True)
class Form:
    """A linear node in matrix form.

    Attributes:
        channel: Channel axis of the output.
        shape: Numbers of independent groups, inputs and outputs of each, ``(g, d, o)``.
        matrix: The weight tensor in that shape.
        tensor: The inverse of ``matrix``.
        unfold: Data and positions of the output to inputs ``(g, m, d)``.
        taps: How often every channel of the data is among the ``d``: those of a convolution's kernel.
        extent: The shape of data to that of the output without its channels, where taps are several.
    """

    channel: int
    shape: tuple[int, int, int]
    matrix: Callable[[Array], Array]
    tensor: Callable[[Array], Array]
    unfold: Callable[[Array, Picks], Array]
    taps: int = 1
    extent: Callable[[Sequence[int]], tuple[int, ...]] | None = None

    @property
    def groups(self) -> int:
        """Number of independent groups."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Outputs of all groups."""
        return self.shape[0] * self.shape[2]


def form_of(node: ir.Node) -> Form | str:
    """A node with a constant weight in matrix form, or why it has none, in words."""
    factors, norm = roles.factors(node), roles.normalisation(node)
    if norm is not None and norm.stored:
        return _batch_norm(node, norm)
    if isinstance(factors, roles.Convolution) and not factors.quantized:
        if factors.moved:
            return "it reads from computed places"
        return _transposed(node, factors) if factors.transposed else _conv(node, factors)
    if isinstance(factors, roles.Product) and not factors.quantized:
        return _product(node, factors)
    if isinstance(factors, roles.Equation):
        return "it is written as an equation"
    recurrent = isinstance(factors, roles.Recurrent)
    return "it is recurrent, so not linear in its weights" if recurrent else "it does more than multiply by its weight"


def _conv(node: ir.Node, factors: roles.Convolution) -> Form:
    groups = _int(node, "group", 1)
    weight = _shape(node.inputs[factors.weight])
    kernel = weight[2:]
    strides, dilations = _ints(node, "strides", kernel), _ints(node, "dilations", kernel)

    def unfold(data: Array, picks: Picks) -> Array:
        pads = _pads(node, data.shape[2:], kernel, strides, dilations)
        starts = [p * s - before for p, s, (before, _) in zip(picks[1:], strides, pads, strict=True)]
        return _windows(data, (picks[0], *starts), kernel, dilations, groups)

    def matrix(tensor: Array) -> Array:
        return tensor.reshape(groups, tensor.shape[0] // groups, -1).transpose(0, 2, 1)

    def tensor(rows: Array) -> Array:
        return rows.transpose(0, 2, 1).reshape(weight)

    def extent(shape: Sequence[int]) -> tuple[int, ...]:
        pads = _pads(node, shape[2:], kernel, strides, dilations)
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        free = [n + sum(pad) - r for n, pad, r in zip(shape[2:], pads, reach, strict=True)]
        return (shape[0], *(n // s + 1 for n, s in zip(free, strides, strict=True)))

    shape = (groups, math.prod(weight[1:]), weight[0] // groups)
    return Form(1, shape, matrix, tensor, unfold, math.prod(kernel), extent)


def _transposed(node: ir.Node, factors: roles.Convolution) -> Form | str:
    """A transposed convolution is a convolution over data with zeros put between, by the flipped kernel."""
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        return "it is padded to a given size"
    groups = _int(node, "group", 1)
    weight = _shape(node.inputs[factors.weight])
    kernel = weight[2:]
    rank = len(kernel)
    strides, dilations = _ints(node, "strides", kernel), _ints(node, "dilations", kernel)
    pads = [int(p) for p in node.attributes["pads"].value] if "pads" in node.attributes else [0] * 2 * rank
    extra = (
        [int(p) for p in node.attributes["output_padding"].value] if "output_padding" in node.attributes else [0] * rank
    )
    flip = (slice(None),) * 2 + (slice(None, None, -1),) * rank

    def unfold(data: Array, picks: Picks) -> Array:
        spaced = np.zeros(
            (*data.shape[:2], *((n - 1) * s + 1 for n, s in zip(data.shape[2:], strides, strict=True))), data.dtype
        )
        spaced[(slice(None), slice(None), *(slice(None, None, s) for s in strides))] = data
        reach = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        width = [(r - pads[a], r - pads[rank + a] + extra[a]) for a, r in enumerate(reach)]
        if min(min(pair) for pair in width) < 0:
            inner = tuple(slice(max(-a, 0), None if b >= 0 else b) for a, b in width)
            spaced = spaced[(slice(None), slice(None), *inner)]
        padded = np.pad(spaced, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in width)])
        return _windows(padded, picks, kernel, dilations, groups)

    def matrix(tensor: Array) -> Array:  # (c, o, kernel) -> (g, c · kernel, o)
        split = tensor[flip].reshape(groups, weight[0] // groups, weight[1], -1)
        return split.transpose(0, 1, 3, 2).reshape(groups, -1, weight[1])

    def tensor(rows: Array) -> Array:
        split = rows.reshape(groups, weight[0] // groups, -1, weight[1]).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(split.reshape(weight)[flip])

    shape = (groups, weight[0] // groups * math.prod(kernel), weight[1])
    return Form(1, shape, matrix, tensor, unfold)


def _product(node: ir.Node, factors: roles.Product) -> Form | str:
    """Data, transposed or not, times a matrix, transposed or not, times a number."""
    weight = _shape(node.inputs[factors.weight])
    if len(weight) != 2:
        return "its weight is a stack of matrices"
    if any(_int(node, f"transBatch{side}", 0) for side in "AB"):
        return "it moves axes of its factors"
    turned, across, scale = _int(node, "transB", 0), _int(node, "transA", 0), _float(node, "alpha")
    if not scale:
        return "it multiplies by zero"

    def unfold(data: Array, picks: Picks) -> Array:
        return rows(data.swapaxes(-1, -2) if across else data, picks)[None]

    def matrix(tensor: Array) -> Array:
        return (tensor.T if turned else tensor)[None] * np.float32(scale)

    def tensor(rows: Array) -> Array:
        plain: Array = rows[0] / np.float32(scale)
        return plain.T if turned else plain

    inputs, outputs = reversed(weight) if turned else weight
    return Form(-1, (1, inputs, outputs), matrix, tensor, unfold)


def rows(array: Array, picks: Picks) -> Array:
    """Rows of a tensor whose channels are its last axis, by one index array per other axis, or one over all of them."""
    if len(picks) != array.ndim - 1:
        array = array.reshape(-1, array.shape[-1])
    picked: Array = array[picks].astype(np.float32)
    return picked


def _batch_norm(node: ir.Node, norm: roles.Normalisation) -> Form | str:
    if _int(node, "training_mode", 0):
        return "it normalises by the data at hand"
    stored = [node.inputs[slot] for slot in (norm.mean, norm.variance) if slot is not None]
    if any(v is None or v.const_value is None for v in (*stored, *node.inputs[1:3])):
        return "what it normalises by is computed"

    def unfold(data: Array, picks: Picks) -> Array:
        mean, variance = (array_of(v).reshape(-1) for v in stored)  # type: ignore[arg-type]
        unfolded = np.moveaxis(data, 1, -1)[picks].astype(np.float32)
        normal = (unfolded - mean) / np.sqrt(variance + _epsilon(node))
        return normal.T[:, :, None].astype(np.float32)

    width = _shape(node.inputs[norm.scale or 1])[0]
    return Form(1, (width, 1, 1), lambda w: w.reshape(-1, 1, 1), lambda m: m.reshape(-1), unfold)


@dataclass(frozen=True)
class FoldedNormalisation:
    """A normalisation by constants: ``output = gain · input + rest + bias``, one number per channel each."""

    gain: Array
    rest: Array
    bias: ir.Value


def normalised(node: ir.Node) -> FoldedNormalisation | None:
    """A node as a normalisation by constants, if it is one: the layer before can be refitted with it."""
    norm = roles.normalisation(node)
    if norm is None or not norm.stored or isinstance(_batch_norm(node, norm), str):
        return None
    scale, bias, mean, variance = (
        node.inputs[slot] for slot in (norm.scale, norm.shift, norm.mean, norm.variance) if slot is not None
    )
    if scale is None or bias is None or mean is None or variance is None:
        return None
    gain = array_of(scale).reshape(-1) / np.sqrt(array_of(variance).reshape(-1) + _epsilon(node))
    return FoldedNormalisation(gain, -gain * array_of(mean).reshape(-1), bias)


def _epsilon(node: ir.Node) -> float:
    return float(node.attributes["epsilon"].value) if "epsilon" in node.attributes else 1e-5


def _windows(data: Array, starts: Picks, kernel: Sequence[int], dilations: Sequence[int], groups: int) -> Array:
    """The windows of a convolution that start at ``(n, y, x, ...)`` as rows ``(g, m, c · kernel)``; zeros outside."""
    batch, *corners = starts
    read = np.empty((len(batch), data.shape[1], *kernel), np.float32)
    for offset in np.ndindex(*kernel):  # several times as fast as to gather whole windows
        places = [at + o * d for at, o, d in zip(corners, offset, dilations, strict=True)]
        there = [(at >= 0) & (at < size) for at, size in zip(places, data.shape[2:], strict=True)]
        outside = np.flatnonzero(~np.logical_and.reduce(there))
        if len(outside):
            places = [np.where(ok, at, 0) for at, ok in zip(places, there, strict=True)]
        read[(slice(None), slice(None), *offset)] = data[(batch, slice(None), *places)]
        read[(outside, slice(None), *offset)] = 0
    result: Array = read.reshape(len(read), groups, -1).transpose(1, 0, 2)
    return result


def _pads(
    node: ir.Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    rank = len(kernel)
    mode = node.attributes["auto_pad"].value if "auto_pad" in node.attributes else "NOTSET"
    if mode in ("NOTSET", "VALID"):
        pads = node.attributes["pads"].value if "pads" in node.attributes and mode == "NOTSET" else [0] * 2 * rank
        return [(int(pads[a]), int(pads[rank + a])) for a in range(rank)]
    both_sides = []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        both_sides.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return both_sides


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    assert value is not None
    assert value.const_value is not None
    return tuple(int(n) for n in value.const_value.shape)  # type: ignore[arg-type]


def _int(node: ir.Node, name: str, default: int) -> int:
    return int(node.attributes[name].value) if name in node.attributes else default


def _float(node: ir.Node, name: str) -> float:
    return float(node.attributes[name].value) if name in node.attributes else 1.0


def _ints(node: ir.Node, name: str, kernel: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(n) for n in node.attributes[name].value) if name in node.attributes else (1,) * len(kernel)


def array_of(value: ir.Value) -> Array:
    """An initializer's numbers as float32."""
    assert value.const_value is not None
    with READING:
        return np.asarray(value.const_value.numpy(), np.float32)
