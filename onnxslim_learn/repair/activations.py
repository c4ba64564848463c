"""What follows a layer number by number, and how far it lets targets of a regression move.

Where an activation is flat, errors before it hardly matter: there a target moves towards what is reached, and the
regression is free to fit the others. A weight ``s² ≤ 1`` of a row, with ``s`` the slope between target and what is
reached, is the same as the target moved by ``1 - s²`` of the difference (majorization; Hunter and Lange, 2004), and the
normal equations stay one for all channels.

Source of the activation in the loss: Zhang et al. 2015 (arXiv:1505.06798).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import onnx
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.operators.facts import attribute
from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime.node import model_of
from onnxslim_learn.runtime.session import open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MOST = 8  # nodes of one function
NEAR, POINTS = 8, 1025  # how far from zero, and at how many numbers, slopes of a function are looked at
WIDE = 1e4  # so far from zero it must be finite
TINY = 1e-30  # squares of changes below are none
STRAIGHT = 1e-2  # slopes of a line differ by rounding, by this share at most
INPUT = "x"


class Activation(Protocol):
    """A function of one number, or of the last axis."""

    @property
    def steepest(self) -> float:
        """The slope that weighs in full, as do all above: its own largest, or that of the identity."""

    def __call__(self, x: Array) -> Array:
        """Apply it."""


def moved(activation: Activation, targets: Array, after: Array, reached: Array) -> Array:
    """How far targets move towards what is reached: the further, the flatter the activation is in between.

    Args:
        activation: What follows.
        targets: What it should be given.
        after: What it makes of them.
        reached: What it is given.
    """
    change, share = reached - targets, activation(reached) - after
    share /= activation.steepest
    share *= share
    share /= np.maximum(change * change, TINY)
    np.minimum(share, 1, out=share)
    np.subtract(1, share, out=share)
    share *= change
    return share


@dataclass(frozen=True)
class Saturation:
    """An activation that is the identity between two bounds and constant outside."""

    low: float = -math.inf
    high: float = math.inf
    steepest: ClassVar[float] = 1.0

    def __call__(self, x: Array) -> Array:
        """Apply it."""
        return x if self == LINEAR else np.clip(x, self.low, self.high)


LINEAR = Saturation()


@dataclass(frozen=True)
class Shares:
    """Square roots of the probabilities that a Softmax makes of logits.

    Their squared differences are, near the original, half the divergence, and bounded: what classes
    have in common counts nothing, nor what is told apart of those that are out of the question.
    """

    steepest: ClassVar[float] = 1 / math.sqrt(27)  # of the root of one probability by its own logit

    def __call__(self, x: Array) -> Array:
        """Apply it along the last axis."""
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        powers /= powers.sum(axis=-1, keepdims=True)
        roots: Array = np.sqrt(powers, out=powers)
        return roots


@dataclass(frozen=True)
class Curve:
    """Any other function.

    Attributes:
        model: A model in bytes that computes it, of one input and output.
        steepest: See :class:`Activation`.
    """

    model: bytes = field(repr=False)
    steepest: float = 1.0

    def __call__(self, x: Array) -> Array:
        """Apply it."""
        (y,) = _session(self.model).run(None, {INPUT: np.asarray(x, np.float32).reshape(-1)})
        return np.asarray(y).reshape(x.shape)


@lru_cache(maxsize=64)
def _session(model: bytes) -> InferenceSession:
    return open_session(model)


def behind(value: ir.Value) -> Activation:
    """What the model makes of a value number by number, before it reads it otherwise; :data:`LINEAR` if nothing."""
    users = {use.node for use in value.uses()}
    bounds = roles.bounds(next(iter(users))) if len(users) == 1 and not value.is_graph_output() else None
    if bounds is not None:
        return Saturation(*bounds)
    nodes = _function(value)
    return _curve(_alone(value, nodes)) if nodes else LINEAR


def shared(value: ir.Value) -> int | None:
    """The axis along which all that reads a value makes probabilities of it; ``None`` if there is none."""
    readers = [use.node for use in value.uses()]
    axes = {int(attribute(node, "axis", -1)) for node in readers if roles.of(node).puts_out == "probabilities"}
    several = len(axes) != 1 or any(roles.of(node).puts_out != "probabilities" for node in readers)
    return None if several else axes.pop()


@lru_cache(maxsize=64)
def _curve(model: bytes) -> Activation:
    """What a model computes, if that is defined for every number and bends."""
    try:
        curve = Curve(model)
        wide, near = curve(np.array([-WIDE, WIDE])), curve(np.linspace(-NEAR, NEAR, POINTS, dtype=np.float32))
    except InputError:
        return LINEAR
    if not (np.isfinite(wide).all() and np.isfinite(near).all()):
        return LINEAR
    slopes = np.abs(np.diff(near)) * ((POINTS - 1) / (2 * NEAR))
    steepest = float(slopes.max())
    return Curve(model, min(steepest, 1.0)) if np.ptp(slopes) > STRAIGHT * steepest else LINEAR


def _alone(value: ir.Value, nodes: list[ir.Node]) -> bytes:
    """A model of nodes that compute one number from one: the same bytes for the same function, whatever names are."""
    assert nodes[0].graph is not None
    names, constants = {"": "", str(value.name): INPUT}, []
    protos = [ir.serde.serialize_node(node) for node in nodes]
    for node, proto in zip(nodes, protos, strict=True):
        for v in (*node.inputs, *node.outputs):
            if v is not None and str(v.name) not in names:
                names[str(v.name)] = f"v{len(names)}"
                if v.const_value is not None:
                    number = np.asarray(v.const_value.numpy(), np.float32).reshape(())
                    constants.append(onnx.numpy_helper.from_array(number, names[str(v.name)]))
        proto.input[:], proto.output[:] = [names[n] for n in proto.input], [names[n] for n in proto.output]
        proto.name, proto.doc_string = "", ""
        del proto.metadata_props[:]
    feeds = {INPUT: np.zeros(1, np.float32)}
    model = model_of(protos, feeds, [protos[-1].output[0]], nodes[0].graph.opset_imports, constants)
    return bytes(model.SerializeToString())


def _function(value: ir.Value) -> list[ir.Node]:
    """The most nodes that compute one number from one and are all that reads a value.

    A spelled-out function reads the value several times: ``x · sigmoid(x)`` is two nodes.
    """
    nodes: list[ir.Node] = []
    complete, known, graph = nodes, [value], value.graph
    while len(nodes) < MOST:
        following = {use.node for one in known for use in one.uses()} - set(nodes)
        ready = [node for node in following if node.graph is graph and _of_numbers(node, known)]
        if not ready:
            break
        nodes = [*nodes, min(ready, key=lambda node: str(node.outputs[0].name))]
        known.append(nodes[-1].outputs[0])
        still_read = [v for v in known if v.is_graph_output() or any(use.node not in nodes for use in v.uses())]
        if still_read == [known[-1]]:
            complete = nodes
    return complete


def _of_numbers(node: ir.Node, known: list[ir.Value]) -> bool:
    """Whether a node reads known values and constant numbers, entry by entry."""
    inputs = [v for v in node.inputs if v is not None]
    constant = [v.const_value is not None and v.const_value.size == 1 for v in inputs]
    return roles.entrywise(node) and all(v in known or number for v, number in zip(inputs, constant, strict=True))
