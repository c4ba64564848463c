"""Operators whose weights a regression can refit, each as a matrix product of unfolded inputs: one table.

``output[..., o] = unfold(data)[..., d] · matrix (d, o) + bias``, in ``g`` independent groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array

Picks = tuple[Array, ...]  # one index array per axis of the output but the channels


@dataclass(frozen=True)
class Form:
    """A linear node in matrix form.

    Attributes:
        channel: Channel axis of the output.
        groups: Number of independent groups.
        matrix: The weight tensor as ``(g, d, o)``.
        tensor: The inverse of ``matrix``.
        unfold: Data and positions of the output to inputs ``(g, m, d)``.
    """

    channel: int
    groups: int
    matrix: Callable[[Array], Array]
    tensor: Callable[[Array], Array]
    unfold: Callable[[Array, Picks], Array]


def _conv(node: ir.Node) -> Form:
    groups = _int(node, "group", 1)
    weight = _shape(node.inputs[1])
    kernel = weight[2:]
    strides, dilations = _ints(node, "strides", kernel), _ints(node, "dilations", kernel)

    def unfold(data: Array, picks: Picks) -> Array:
        pads = _pads(node, data.shape[2:], kernel, strides, dilations)
        return _windows(np.pad(data, [(0, 0), (0, 0), *pads]), picks, kernel, (strides, dilations), groups)

    def matrix(tensor: Array) -> Array:
        return tensor.reshape(groups, tensor.shape[0] // groups, -1).transpose(0, 2, 1)

    def tensor(found: Array) -> Array:
        return found.transpose(0, 2, 1).reshape(weight)

    return Form(1, groups, matrix, tensor, unfold)


def _transposed(node: ir.Node) -> Form | None:
    """A transposed convolution is a convolution over data with zeros put between, by the flipped kernel."""
    if node.attributes.get("auto_pad", None) is not None and node.attributes["auto_pad"].value != "NOTSET":
        return None
    groups = _int(node, "group", 1)
    weight = _shape(node.inputs[1])
    kernel = weight[2:]
    rank = len(kernel)
    strides, dilations = _ints(node, "strides", kernel), _ints(node, "dilations", kernel)
    if "output_shape" in node.attributes:
        return None
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
        return _windows(padded, picks, kernel, ((1,) * rank, dilations), groups)

    def matrix(tensor: Array) -> Array:  # (c, o, kernel) -> (g, c · kernel, o)
        split = tensor[flip].reshape(groups, weight[0] // groups, weight[1], -1)
        return split.transpose(0, 1, 3, 2).reshape(groups, -1, weight[1])

    def tensor(found: Array) -> Array:
        split = found.reshape(groups, weight[0] // groups, -1, weight[1]).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(split.reshape(weight)[flip])

    return Form(1, groups, matrix, tensor, unfold)


def _matmul(node: ir.Node) -> Form | None:
    if len(_shape(node.inputs[1])) != 2:
        return None
    return Form(-1, 1, lambda w: w[None], lambda m: m[0], lambda data, picks: data[picks].astype(np.float32)[None])


def _gemm(node: ir.Node) -> Form | None:
    if _int(node, "transA", 0) or any(_float(node, name) != 1.0 for name in ("alpha", "beta")):
        return None
    if not _int(node, "transB", 0):
        return _matmul(node)
    return Form(-1, 1, lambda w: w.T[None], lambda m: m[0].T, lambda data, picks: data[picks].astype(np.float32)[None])


def _batch_norm(node: ir.Node) -> Form | None:
    if _int(node, "training_mode", 0) or any(v is None or v.const_value is None for v in node.inputs[1:5]):
        return None

    def unfold(data: Array, picks: Picks) -> Array:
        mean, variance = (array_of(v).reshape(-1) for v in node.inputs[3:5])  # type: ignore[arg-type]
        rows = np.moveaxis(data, 1, -1)[picks].astype(np.float32)
        normal = (rows - mean) / np.sqrt(variance + _epsilon(node))
        return normal.T[:, :, None].astype(np.float32)

    return Form(1, _shape(node.inputs[1])[0], lambda w: w.reshape(-1, 1, 1), lambda m: m.reshape(-1), unfold)


@dataclass(frozen=True)
class Normalisation:
    """A normalisation by constants: ``output = gain · input + rest + bias``, one number per channel each."""

    gain: Array
    rest: Array
    bias: ir.Value


def _normal(node: ir.Node) -> Normalisation | None:
    bias = node.inputs[2]
    if bias is None or _batch_norm(node) is None:
        return None
    scale, mean, variance = (array_of(node.inputs[k]).reshape(-1) for k in (1, 3, 4))  # type: ignore[arg-type]
    gain = scale / np.sqrt(variance + _epsilon(node))
    return Normalisation(gain, -gain * mean, bias)


def _epsilon(node: ir.Node) -> float:
    return float(node.attributes["epsilon"].value) if "epsilon" in node.attributes else 1e-5


TABLE: dict[tuple[str, str], Callable[[ir.Node], Form | None]] = {
    ("", "Conv"): _conv,
    ("", "ConvTranspose"): _transposed,
    ("", "MatMul"): _matmul,
    ("", "Gemm"): _gemm,
    ("", "BatchNormalization"): _batch_norm,
}

# Those that only multiply and add, so that the layer before can be refitted with them.
NORMALISATIONS: dict[str, Callable[[ir.Node], Normalisation | None]] = {"BatchNormalization": _normal}


def _windows(
    padded: Array, picks: Picks, kernel: Sequence[int], steps: tuple[Sequence[int], Sequence[int]], groups: int
) -> Array:
    """The windows of a convolution at some outputs ``(n, y, x, ...)`` as rows ``(g, m, c · kernel)``.

    ``steps`` are strides and dilations.
    """
    strides, dilations = steps
    axes = tuple(range(2, 2 + len(kernel)))
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    view: Array = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    thinned: tuple[Any, ...] = (..., *(slice(None, None, d) for d in dilations))
    where: tuple[Any, ...] = (
        picks[0],
        slice(None),
        *(p * s for p, s in zip(picks[1:], strides, strict=True)),
    )
    rows: Array = view[thinned][where].astype(np.float32)
    result: Array = rows.reshape(len(rows), groups, -1).transpose(1, 0, 2)
    return result


def _pads(
    node: ir.Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    rank = len(kernel)
    mode = node.attributes["auto_pad"].value if "auto_pad" in node.attributes else "NOTSET"
    if mode in ("NOTSET", "VALID"):
        pads = node.attributes["pads"].value if "pads" in node.attributes and mode == "NOTSET" else [0] * 2 * rank
        return [(int(pads[a]), int(pads[rank + a])) for a in range(rank)]
    found = []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return found


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
    return np.asarray(value.const_value.numpy(), np.float32)
