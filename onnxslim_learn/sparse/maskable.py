"""Which initializers are masked: those that multiply channels, by the role they play in the nodes that read them.

An initializer is maskable if every node that reads it (directly or through nodes that only move it) multiplies by it
and sums over channels: weights of convolutions and fully-connected layers. A depthwise kernel sums over no channels,
and a table that is looked up as well is no weight alone; both stay dense.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.groups import expression
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    import onnx_ir as ir

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A maskable weight.

    Attributes:
        name: Its initializer.
        shape: Its shape.
        inputs: Axes that are summed over: input channels.
        outputs: Axes of output channels; the rest are places of a kernel.
        nodes: Names of the nodes that multiply by it.
        blocks: Parts of its input channels that are summed over apart from one another.
        alike: Whether all nodes that read it agree about its input channels.
    """

    name: str
    shape: tuple[int, ...]
    inputs: Axes
    outputs: Axes
    nodes: tuple[str, ...]
    blocks: int = 1
    alike: bool = True

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


def layers(model: ir.Model, protect: Sequence[str] = ()) -> list[Layer]:
    """The weights of a model to mask: all that can be, but for those that are protected.

    Args:
        model: The model, in normal form.
        protect: Regular expressions; weights they find, or whose node they find, stay dense.

    Raises:
        InputError: If an expression is none or finds nothing, nothing is left, or a weight is not finite.
    """
    listed = maskable(model)
    if not listed:
        tensors = [value.const_value for value in model.graph.initializers.values()]
        quantized = any(
            t is not None and t.dtype.is_integer() and t.dtype.itemsize <= 1 and len(t.shape) > 1 for t in tensors
        )
        why = " other than quantized ones" if quantized else ""
        raise InputError(
            f"the model has no weights of convolutions or fully-connected layers{why}. Nothing can be sparsified."
        )
    for layer in listed:
        tensor = model.graph.initializers[layer.name].const_value
        if tensor is not None and not np.isfinite(np.asarray(tensor.numpy(), np.float64)).all():
            raise InputError(f"initializer {layer.name}: has values that are not finite. Repair the model first.")
    return _unprotected(listed, protect)


def maskable(model: ir.Model) -> list[Layer]:
    """All maskable weights of a model, in the order of the nodes that read them."""
    order = {node: number for number, node in enumerate(model.graph)}
    layers = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point() or len(tensor.shape) < 2:
            continue
        shape = tuple(int(n) for n in tensor.shape)  # type: ignore[arg-type]
        readers = _roles(value, tuple(range(len(shape))))
        factors = [role for role in readers if role is not None]
        if not readers or len(factors) < len(readers):
            continue
        factors.sort(key=lambda role: order.get(role[2], len(order)))
        inputs, outputs, first = factors[0]
        if math.prod(shape[a] for a in inputs) > 1:
            names = tuple(str(node.name) for _, _, node in factors)
            alike = all(role[:2] == (inputs, outputs) for role in factors)
            kind = roles.factors(first)
            layer = Layer(
                str(value.name), shape, inputs, outputs, names, 1 if kind is None else kind.blocks(first), alike
            )
            layers.append((order.get(first, len(order)), layer))
    return [layer for _, layer in sorted(layers, key=lambda pair: pair[0])]


def _unprotected(listed: list[Layer], protect: Sequence[str]) -> list[Layer]:
    kept = set()
    for text in protect:
        pattern = expression("⟨protect⟩", text)
        hit = {layer.name for layer in listed if any(map(pattern.search, (layer.name, *layer.nodes)))}
        if not hit:
            named = ", ".join(layer.name for layer in listed[:8])
            raise InputError(f"⟨protect⟩ {text}: no weight has such a name. The weights are {named}.")
        kept |= hit
    left = [layer for layer in listed if layer.name not in kept]
    if not left:
        raise InputError("⟨protect⟩: all weights are protected. Leave some of them out.")
    return left


def _roles(value: ir.Value, axes: Axes) -> list[tuple[Axes, Axes, ir.Node] | None]:
    """What every reader makes of a value whose axes are these of an initializer; ``None`` for anything but a factor."""
    if value.is_graph_output():
        return [None]
    sides_of_readers: list[tuple[Axes, Axes, ir.Node] | None] = []
    for node, slot in value.uses():
        row = roles.of(node)
        if row.order is not None and slot == 0:
            sides_of_readers += _roles(node.outputs[0], tuple(axes[a] for a in row.order(node, len(axes))))
        else:
            sides = None if row.factors is None else row.factors.sides(node, slot, len(axes))
            inputs, outputs = (tuple(axes[a] for a in part) for part in sides or ((), ()))
            sides_of_readers.append((inputs, outputs, node) if sides else None)
    return sides_of_readers
