"""The nodes whose weights a regression can refit, each as a matrix product of unfolded inputs: one table.

A linear node is ``output[..., o] = unfold(data)[..., d] · matrix (d, o) + bias``, in ``g`` independent groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.repair.fit import LINEAR, Saturation, Weights

Array = np.ndarray[Any, Any]
SILENT = 1e-12  # a gain below cannot be divided by
Picks = tuple[Array, ...]  # one index array per axis of the output but the channels


@dataclass(frozen=True)
class Place:
    """An initializer that shifts a node's output, one number per channel, and what else does.

    Attributes:
        value: The initializer.
        sign: -1 if it is subtracted.
        rest: The constant part of the shift that lies elsewhere.
    """

    value: ir.Value
    sign: int = 1
    rest: Array | float = 0.0

    def read(self) -> Array:
        """The whole shift."""
        found: Array = self.sign * _array(self.value).reshape(-1) + self.rest
        return found

    def write(self, shift: Array) -> None:
        """Set the whole shift; what is as it was read stays to the last bit."""
        old = _array(self.value).reshape(-1)
        _set(self.value, np.where(shift == self.read(), old, self.sign * (shift - self.rest)))


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


@dataclass(frozen=True)
class Linear:
    """A node to refit, and what its output is compared with.

    Attributes:
        node: The node.
        weight: Its weights.
        form: How it is a matrix product.
        bias: Where its bias is, if it has a place for one.
        constant: A bias it has but that cannot be changed.
        gain: What a normalisation after it multiplies every channel by, if that carries the bias.
        output: Name of its output after the bias.
        target: Name of the value that is compared: the output, or the sum it goes into.
        other: The other summand, if so.
        activation: What follows the target.
    """

    node: ir.Node
    weight: ir.Value
    form: Form
    bias: Place | None
    constant: Array | None
    gain: Array | None
    output: str
    target: str
    other: str | None
    activation: Saturation

    @property
    def data(self) -> str:
        """Name of the value that the weights multiply."""
        return str(self.node.inputs[0].name)  # type: ignore[union-attr]

    def read(self) -> Weights:
        """The weights as they are, times the gain."""
        matrix = self.form.matrix(_array(self.weight)) * self._gains
        bias = np.zeros(matrix.shape[0] * matrix.shape[2])
        if self.bias is not None:
            bias = self.bias.read()
        elif self.constant is not None:
            bias = self.constant
        return Weights(matrix, np.broadcast_to(bias, matrix.shape[0] * matrix.shape[2]).reshape(matrix.shape[0], -1))

    def write(self, weights: Weights) -> None:
        """Set the weights; those that are as they were read stay to the last bit."""
        plain, gains = self.form.matrix(_array(self.weight)), self._gains
        same = weights.matrix == plain * gains
        _set(self.weight, self.form.tensor(np.where(same, plain, weights.matrix / gains)))
        if self.bias is not None:
            self.bias.write(weights.bias.reshape(-1))

    def shift(self, vector: Array) -> None:
        """Add to the node's own output by the bias, which must have a place; ``vector`` has one number per channel."""
        assert self.bias is not None
        self.bias.write(self.bias.read() + (vector if self.gain is None else self.gain * vector))

    @property
    def _gains(self) -> Array:
        """The gain, to multiply matrices ``(g, d, o)``."""
        return np.ones((1, 1, 1), np.float32) if self.gain is None else self.gain.reshape(self.form.groups, 1, -1)

    def outputs(self, array: Array, picks: Picks) -> Array:
        """Positions of a tensor of the output's shape as rows ``(g, m, o)``."""
        return self.split(np.moveaxis(array, self.form.channel, -1)[picks].astype(np.float32))

    def split(self, rows: Array) -> Array:
        """Rows ``(m, channels)`` as ``(g, m, o)``."""
        return rows.reshape(len(rows), self.form.groups, -1).transpose(1, 0, 2)


def linears(model: ir.Model) -> list[Linear]:
    """The nodes of a model that can be refitted, in order."""
    order = {node: number for number, node in enumerate(model.graph)}
    found = []
    for node in order:
        made = TABLE.get((node.domain, node.op_type))
        linear = _linear(node, made, order) if made else None
        if linear is not None:
            found.append(linear)
    return found


def _linear(node: ir.Node, make: Callable[[ir.Node], Form | None], order: dict[ir.Node, int]) -> Linear | None:
    weight = node.inputs[1]
    if weight is None or not _own(weight) or node.inputs[0] is None or node.inputs[0].is_initializer():
        return None
    form = make(node)
    if form is None:
        return None
    width = form.groups * form.matrix(_array(weight)).shape[2]
    third = node.inputs[2] if len(node.inputs) > 2 else None
    output, place, constant, gain = node.outputs[0], None, None, None
    normed = _normed(output, width)
    if third is not None:
        if third.const_value is None or third.const_value.size not in (1, width):
            return None
        place = Place(third) if _own(third) and third.const_value.size == width else None
        constant = _array(third).reshape(-1)
    else:
        output, place = _shift_after(output, width, form.channel)
    if normed is not None:
        output, gain, carrier, offset = normed
        place = Place(carrier, 1, offset + gain * (0.0 if constant is None else constant))
    target, other = _sum(output, node, order)
    activation = _activation(target)
    return Linear(
        node,
        weight,
        form,
        place,
        constant,
        gain,
        str(output.name),
        str(target.name),
        None if other is None else str(other.name),
        activation,
    )


# --- what follows a node ----------------------------------------------------------------------------------------------


def _own(value: ir.Value | None) -> bool:
    """Whether a value is a floating initializer of one use."""
    return (
        value is not None
        and value.const_value is not None
        and value.is_initializer()
        and len(value.uses()) == 1
        and not value.is_graph_output()
        and value.const_value.dtype.is_floating_point()
    )


def _only_user(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _shift_after(output: ir.Value, width: int, channel: int) -> tuple[ir.Value, Place | None]:
    """An addition right after a node that can carry its bias."""
    user = _only_user(output)
    if user is not None and user.op_type in SUMS:
        other = user.inputs[0] if user.inputs[1] is output else user.inputs[1]
        if other is not None and _own(other) and _is_vector(other, width, channel):
            return user.outputs[0], Place(other)
    return output, None


def _normed(output: ir.Value, width: int) -> tuple[ir.Value, Array, ir.Value, Array] | None:
    """A normalisation by constants right after a node: its output, factors, bias, and what else it adds."""
    user = _only_user(output)
    if user is None or user.op_type != "BatchNormalization" or _batch_norm(user) is None:
        return None
    bias = user.inputs[2]
    if bias is None or not _own(bias):
        return None
    scale, mean, variance = (_array(v).reshape(-1) for v in (user.inputs[1], user.inputs[3], user.inputs[4]))  # type: ignore[arg-type]
    gain = scale / np.sqrt(variance + _epsilon(user))
    divides = len(gain) == width and np.abs(gain).min() > SILENT
    return (user.outputs[0], gain, bias, -gain * mean) if divides else None


def _is_vector(value: ir.Value, width: int, channel: int) -> bool:
    """Whether an initializer adds one number per channel."""
    tensor = value.const_value
    assert tensor is not None
    shape = [int(n) for n in tensor.shape]  # type: ignore[arg-type]
    after = math.prod(shape[shape.index(width) + 1 :]) if width in shape else 0
    trailing = len(shape) - 1 - shape.index(width) if width in shape else -1
    last = channel == -1
    return tensor.size == width and after == 1 and (trailing == 0) == last


def _sum(output: ir.Value, node: ir.Node, order: dict[ir.Node, int]) -> tuple[ir.Value, ir.Value | None]:
    """The residual sum an output goes into, if the other summand is there before the node runs."""
    user = _only_user(output)
    if user is None or user.op_type not in SUMS:
        return output, None
    other = user.inputs[0] if user.inputs[1] is output else user.inputs[1]
    if other is None or other is output or other.is_initializer():
        return output, None
    maker = other.producer()
    late = maker is not None and order[maker] >= order[node]
    shapes = [None if v.shape is None else len(v.shape) for v in (output, other)]
    if late or shapes[0] != shapes[1]:
        return output, None
    return user.outputs[0], other


def _activation(value: ir.Value) -> Saturation:
    user = _only_user(value)
    return LINEAR if user is None or user.op_type not in SATURATING else SATURATING[user.op_type](user)


def _clip(node: ir.Node) -> Saturation:
    """Clip between constants."""
    tensors = [None if v is None else v.const_value for v in node.inputs[1:3]]
    bounds = [float(t.numpy().reshape(-1)[0]) for t in tensors if t is not None]
    return Saturation(*bounds) if len(bounds) == 2 else LINEAR


# What may follow a linear node: operators that add, and that saturate.
SUMS = {"Add"}
SATURATING: dict[str, Callable[[ir.Node], Saturation]] = {"Relu": lambda node: Saturation(0.0), "Clip": _clip}


# --- the table --------------------------------------------------------------------------------------------------------


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
        mean, variance = (_array(v).reshape(-1) for v in node.inputs[3:5])  # type: ignore[arg-type]
        rows = np.moveaxis(data, 1, -1)[picks].astype(np.float32)
        normal = (rows - mean) / np.sqrt(variance + _epsilon(node))
        return normal.T[:, :, None].astype(np.float32)

    return Form(1, _shape(node.inputs[1])[0], lambda w: w.reshape(-1, 1, 1), lambda m: m.reshape(-1), unfold)


def _epsilon(node: ir.Node) -> float:
    return float(node.attributes["epsilon"].value) if "epsilon" in node.attributes else 1e-5


TABLE: dict[tuple[str, str], Callable[[ir.Node], Form | None]] = {
    ("", "Conv"): _conv,
    ("", "ConvTranspose"): _transposed,
    ("", "MatMul"): _matmul,
    ("", "Gemm"): _gemm,
    ("", "BatchNormalization"): _batch_norm,
}


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


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float32)


def _set(value: ir.Value, array: Array) -> None:
    """Replace an initializer's values, keeping its shape, type and name."""
    old = value.const_value
    assert old is not None
    shape = [int(n) for n in old.shape]  # type: ignore[arg-type]
    cast = np.ascontiguousarray(array.reshape(shape)).astype(old.dtype.numpy())
    value.const_value = ir.tensor(cast, dtype=old.dtype, name=old.name, doc_string=old.doc_string)
