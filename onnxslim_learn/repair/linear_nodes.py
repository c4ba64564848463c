"""The nodes of a model whose weights a regression can refit, and what their outputs are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.operators.facts import attribute
from onnxslim_learn.repair.activations import Activation, behind, shared
from onnxslim_learn.repair.least_squares import Weights
from onnxslim_learn.repair.linear_forms import Form, array_of, form_of, normalised, rows
from onnxslim_learn.repair.places import Picks
from onnxslim_learn.runtime.executor import on_disk
from onnxslim_learn.runtime.node import inside
from onnxslim_learn.runtime.part import FED

SILENT = 1e-12  # a gain not above cannot be divided by: weights before it stay


@dataclass(frozen=True)
class BiasPlace:
    """An initializer that shifts a node's output, one number per channel, and what else does.

    Attributes:
        value: The initializer.
        factor: What the node multiplies it by.
        rest: The constant part of the shift that lies elsewhere.
    """

    value: ir.Value
    factor: float = 1.0
    rest: Array | float = 0.0

    def read(self) -> Array:
        """The whole shift."""
        shift: Array = self.factor * array_of(self.value).reshape(-1) + self.rest
        return shift

    def write(self, shift: Array) -> None:
        """Set the whole shift; what is as it was read stays to the last bit."""
        old = array_of(self.value).reshape(-1)
        _set(self.value, np.where(shift == self.read(), old, (shift - self.rest) / self.factor))


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
        shared: Along which axis of the target it makes probabilities, if it does.
    """

    node: ir.Node
    weight: ir.Value
    form: Form
    bias: BiasPlace | None
    constant: Array | None
    gain: Array | None
    output: str
    target: str
    other: str | None
    activation: Activation
    shared: int | None = None

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
        return self.split(rows(np.moveaxis(array, self.form.channel, -1), picks))

    def split(self, flat: Array) -> Array:
        """Rows ``(m, channels)`` as ``(g, m, o)``."""
        return flat.reshape(len(flat), self.form.groups, flat.shape[-1] // self.form.groups).transpose(1, 0, 2)


@dataclass(frozen=True)
class Layer:
    """A node with a weight, and how it can be refitted, or why it cannot."""

    node: ir.Node
    linear: Linear | str


def linears(model: ir.Model) -> list[Linear]:
    """The nodes of a model that can be refitted, in order."""
    return [layer.linear for layer in layers(model) if isinstance(layer.linear, Linear)]


def layers(model: ir.Model) -> list[Layer]:
    """The nodes of a model with weights, in order: layers, and normalisations by constants that can be refitted."""
    order = {node: number for number, node in enumerate(model.graph)}
    constants = _constants(model.graph)
    layers_in_order: list[Layer] = []
    carried: set[str] = set()  # outputs of normalisations that are refitted with the layers before them
    for node in order:
        for inner in inside(node):
            if roles.factors(inner) and any(v is not None and _weighs(v, constants) for v in inner.inputs[1:3]):
                layers_in_order.append(Layer(inner, f"it lies inside the body of {node.name}"))
        factors, norm = roles.factors(node), roles.normalisation(node)
        if factors is not None and any(v in constants for v in _factors(node, factors)):
            linear = _linear(node, factors.weight, order)
            layers_in_order.append(Layer(node, linear))
            if isinstance(linear, Linear) and linear.gain is not None:
                carried.add(linear.output)
        elif factors is not None and any(_picked(v, constants) for v in _factors(node, factors)):
            layers_in_order.append(Layer(node, "its weight is picked for each token"))
        elif norm is not None and norm.stored and node.outputs[0].name not in carried:
            linear = _linear(node, norm.scale or 1, order)
            if isinstance(linear, Linear):
                layers_in_order.append(Layer(node, linear))
    return layers_in_order


def _constants(graph: ir.Graph) -> set[ir.Value]:
    """Initializers, and what is computed from them alone."""
    constant = set(graph.initializers.values())
    for node in graph:
        if node.inputs and all(value is None or value in constant for value in node.inputs):
            constant |= set(node.outputs)
    return constant


def _factors(node: ir.Node, factors: roles.Factors) -> list[ir.Value]:
    """Inputs of a node that are multiplied by others."""
    if isinstance(factors, roles.Equation):
        return [v for v in node.inputs if v is not None]
    slots = (factors.left, factors.weight) if isinstance(factors, roles.Product) else (factors.weight,)
    return [v for slot in slots if slot < len(node.inputs) and (v := node.inputs[slot]) is not None]


def _picked(value: ir.Value, constants: set[ir.Value]) -> bool:
    """Whether a value is matrices, picked from constant ones at computed places."""
    producer = value.producer()
    if producer is None or not roles.has(producer, roles.Trait.PICKS) or roles.has(producer, roles.Trait.MOVES):
        return False
    source = producer.inputs[0]
    if source is None or source not in constants:
        return False
    shape = source.shape if source.const_value is None else source.const_value.shape
    return shape is not None and len(shape) > 2


def _weighs(value: ir.Value, constants: set[ir.Value]) -> bool:
    """Whether what a node in a body reads is a weight, of the body or from outside."""
    return value.is_initializer() or value in constants or value.const_value is not None


def _linear(node: ir.Node, slot: int, order: dict[ir.Node, int]) -> Linear | str:
    """How to refit a node, or why it cannot be refitted."""
    weight, form = node.inputs[slot], _refusal(node, slot) or form_of(node)
    if isinstance(form, str) or weight is None:
        return str(form)
    shift = _shift(node, form.width, form.channel)
    if isinstance(shift, str):
        return shift
    target, other = _sum(shift.output, node, (form.channel, form.width), order)
    seen = _seen(target, form.channel, form.width)
    return Linear(
        node,
        weight,
        form,
        shift.place,
        shift.constant,
        shift.gain,
        str(shift.output.name),
        str(target.name),
        None if other is None else str(other.name),
        behind(seen),
        shared(seen),
    )


def _refusal(node: ir.Node, slot: int) -> str:
    """Why the weight of a node cannot be fitted, or an empty string."""
    weight, data = node.inputs[slot], node.inputs[0]
    if weight is None or data is None:
        return "it has no weight"
    if data.is_initializer():
        return "what it multiplies is constant" if weight.is_initializer() else "its weight is the first factor"
    return _unfit(weight)


@dataclass(frozen=True)
class _Shift:
    """The bias of a node: the output behind it, and the fields of :class:`Linear`."""

    output: ir.Value
    place: BiasPlace | None
    constant: Array | None
    gain: Array | None


def _shift(node: ir.Node, width: int, channel: int) -> _Shift | str:
    """Where the bias of a node is, or why there is none that is the same for all rows."""
    factors, output, place, constant, gain = roles.factors(node), node.outputs[0], None, None, None
    norm = roles.normalisation(node)
    slot = factors.bias if factors is not None else None if norm is None else norm.shift
    bias = node.inputs[slot] if slot is not None and len(node.inputs) > slot else None
    factor = float(attribute(node, "beta", 1.0)) if isinstance(factors, roles.Product) else 1.0
    normed = _normed(output, width)
    if bias is None:
        output, place = _shift_after(output, width, channel)
    elif bias.const_value is None:
        return "its bias is computed"
    elif bias.const_value.size not in (1, width):
        return "its bias differs between rows"
    else:
        place = BiasPlace(bias, factor) if bias.const_value.size == width and factor else None
        constant = factor * array_of(bias).reshape(-1)
    if normed is not None:
        output, gain, carrier, offset = normed
        place = BiasPlace(carrier, 1, offset + gain * (0.0 if constant is None else constant))
    if place is not None and _unfit(place.value):  # shared with another node
        constant, place = place.read(), None
    return _Shift(output, place, constant, gain)


# --- what follows a node ----------------------------------------------------------------------------------------------


def _unfit(value: ir.Value) -> str:
    """Why an initializer cannot be changed for one node alone, or an empty string."""
    if value.const_value is None or not value.is_initializer():
        producer = value.producer()
        quantized = producer is not None and roles.has(producer, roles.Trait.DEQUANTIZES)
        return "its weight is quantized" if quantized else "its weight is computed"
    if not value.const_value.dtype.is_floating_point():
        return "its weight is quantized"
    if value.is_graph_output():
        return "its weight is an output of the model"
    return "" if len(value.uses()) == 1 else "its weight is used in several places"


def _only_user(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _shift_after(output: ir.Value, width: int, channel: int) -> tuple[ir.Value, BiasPlace | None]:
    """An addition right after a node that can carry its bias."""
    user = _only_user(output)
    if user is not None and _adds(user):
        other = user.inputs[0] if user.inputs[1] is output else user.inputs[1]
        if other is not None and other.const_value is not None and _is_vector(other, width, channel):
            return user.outputs[0], BiasPlace(other)
    return output, None


def _normed(output: ir.Value, width: int) -> tuple[ir.Value, Array, ir.Value, Array] | None:
    """A normalisation by constants right after a node: its output, factors, bias, and what else it adds."""
    user = _only_user(output)
    normalisation = None if user is None or user.inputs[0] is not output else normalised(user)
    if user is None or normalisation is None:
        return None
    return (
        (user.outputs[0], normalisation.gain, normalisation.bias, normalisation.rest)
        if len(normalisation.gain) == width
        else None
    )


def _is_vector(value: ir.Value, width: int, channel: int) -> bool:
    """Whether an initializer adds one number per channel."""
    tensor = value.const_value
    assert tensor is not None
    shape = [int(n) for n in tensor.shape]  # type: ignore[arg-type]
    after = math.prod(shape[shape.index(width) + 1 :]) if width in shape else 0
    trailing = len(shape) - 1 - shape.index(width) if width in shape else -1
    last = channel == -1
    return tensor.size == width and after == 1 and (trailing == 0) == last


def _seen(output: ir.Value, channel: int, width: int) -> ir.Value:
    """A value after what only shows it in another shape with the same channels at the end."""
    user = _only_user(output)
    while channel == -1 and user is not None and roles.has(user, roles.Trait.VIEW):
        shape = user.inputs[1].const_value if len(user.inputs) > 1 and user.inputs[1] is not None else None
        sizes = [] if shape is None else shape.numpy().reshape(-1).tolist()
        if not roles.of(user).sizes or not sizes or sizes[-1] != width:
            break
        output = user.outputs[0]
        user = _only_user(output)
    return output


def _sum(
    output: ir.Value, node: ir.Node, channels: tuple[int, int], order: dict[ir.Node, int]
) -> tuple[ir.Value, ir.Value | None]:
    """The residual sum an output goes into, if the other summand is there before the node runs."""
    seen = _seen(output, *channels)
    user = _only_user(seen)
    if user is None or not _adds(user):
        return output, None
    other = user.inputs[0] if user.inputs[1] is seen else user.inputs[1]
    if other is None or other is seen or other.is_initializer():
        return output, None
    maker = other.producer()
    late = maker is not None and order[maker] >= order[node]
    ranks = [None if v.shape is None else len(v.shape) for v in (seen, other)]
    if late or ranks[0] != ranks[1]:
        return output, None
    return user.outputs[0], other


def _adds(node: ir.Node) -> bool:
    """Whether a node adds two values."""
    return roles.of(node).arithmetic == "add" and len(node.inputs) == 2


def _set(value: ir.Value, array: Array) -> None:
    """Replace an initializer's values, keeping its shape, type and name; large ones lie in a temporary file."""
    old = value.const_value
    assert old is not None
    shape = [int(n) for n in old.shape]  # type: ignore[arg-type]
    cast = np.ascontiguousarray(array.reshape(shape)).astype(old.dtype.numpy())
    kept = cast if cast.nbytes < FED else on_disk(cast)
    value.const_value = ir.tensor(kept, dtype=old.dtype, name=old.name, doc_string=old.doc_string)
