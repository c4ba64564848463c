"""The nodes of a model whose weights a regression can refit, and what their outputs are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.repair.least_squares import LINEAR, Saturation, Weights
from onnxslim_learn.repair.linear_forms import NORMALISATIONS, TABLE, Form, Picks, array_of

SILENT = 1e-12  # a gain not above cannot be divided by: weights before it stay


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
        found: Array = self.sign * array_of(self.value).reshape(-1) + self.rest
        return found

    def write(self, shift: Array) -> None:
        """Set the whole shift; what is as it was read stays to the last bit."""
        old = array_of(self.value).reshape(-1)
        _set(self.value, np.where(shift == self.read(), old, self.sign * (shift - self.rest)))


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
        matrix = self.form.matrix(array_of(self.weight)) * self._gains
        bias = np.zeros(matrix.shape[0] * matrix.shape[2])
        if self.bias is not None:
            bias = self.bias.read()
        elif self.constant is not None:
            bias = self.constant
        return Weights(matrix, np.broadcast_to(bias, matrix.shape[0] * matrix.shape[2]).reshape(matrix.shape[0], -1))

    def write(self, weights: Weights) -> None:
        """Set the weights; those that are as they were read stay to the last bit."""
        plain, gains = self.form.matrix(array_of(self.weight)), self._gains
        same = (weights.matrix == plain * gains) | (np.abs(gains) <= SILENT)
        _set(self.weight, self.form.tensor(np.where(same, plain, weights.matrix / np.where(same, 1, gains))))
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
    width = form.groups * form.matrix(array_of(weight)).shape[2]
    third = node.inputs[2] if len(node.inputs) > 2 else None
    output, place, constant, gain = node.outputs[0], None, None, None
    normed = _normed(output, width)
    if third is not None:
        if third.const_value is None or third.const_value.size not in (1, width):
            return None
        place = Place(third) if third.const_value.size == width else None
        constant = array_of(third).reshape(-1)
    else:
        output, place = _shift_after(output, width, form.channel)
    if normed is not None:
        output, gain, carrier, offset = normed
        place = Place(carrier, 1, offset + gain * (0.0 if constant is None else constant))
    if place is not None and not _own(place.value):  # shared with another node
        constant, place = place.read(), None
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
        if other is not None and other.const_value is not None and _is_vector(other, width, channel):
            return user.outputs[0], Place(other)
    return output, None


def _normed(output: ir.Value, width: int) -> tuple[ir.Value, Array, ir.Value, Array] | None:
    """A normalisation by constants right after a node: its output, factors, bias, and what else it adds."""
    user = _only_user(output)
    found = None if user is None or user.op_type not in NORMALISATIONS else NORMALISATIONS[user.op_type](user)
    if user is None or found is None:
        return None
    return (user.outputs[0], found.gain, found.bias, found.rest) if len(found.gain) == width else None


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


def _set(value: ir.Value, array: Array) -> None:
    """Replace an initializer's values, keeping its shape, type and name."""
    old = value.const_value
    assert old is not None
    shape = [int(n) for n in old.shape]  # type: ignore[arg-type]
    cast = np.ascontiguousarray(array.reshape(shape)).astype(old.dtype.numpy())
    value.const_value = ir.tensor(cast, dtype=old.dtype, name=old.name, doc_string=old.doc_string)
