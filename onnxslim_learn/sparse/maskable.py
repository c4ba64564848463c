"""Which initializers are masked: those that multiply channels, by the role they play in the nodes that read them.

An initializer is maskable if every node that reads it (directly or through nodes that only move it) multiplies by it
and sums over channels: weights of convolutions and fully-connected layers. A depthwise kernel sums over no channels,
and a table that is looked up as well is no weight alone; both stay dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
    found = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point() or len(tensor.shape) < 2:
            continue
        shape = tuple(int(n) for n in tensor.shape)  # type: ignore[arg-type]
        roles = _roles(value, tuple(range(len(shape))))
        factors = [role for role in roles if role is not None]
        if not roles or len(factors) < len(roles):
            continue
        factors.sort(key=lambda role: order.get(role[2], len(order)))
        inputs, outputs, first = factors[0]
        if math.prod(shape[a] for a in inputs) > 1:
            names = tuple(str(node.name) for _, _, node in factors)
            alike = all(role[:2] == (inputs, outputs) for role in factors)
            layer = Layer(str(value.name), shape, inputs, outputs, names, _blocks(first), alike)
            found.append((order.get(first, len(order)), layer))
    return [layer for _, layer in sorted(found, key=lambda pair: pair[0])]


def _blocks(node: ir.Node) -> int:
    """Into how many parts the input channels that a node's weight lists are divided."""
    return int(_attribute(node, DIVIDED[node.op_type], 1)) if node.op_type in DIVIDED else 1


def _unprotected(listed: list[Layer], protect: Sequence[str]) -> list[Layer]:
    kept = set()
    for text in protect:
        pattern = expression("--protect", text)
        hit = {layer.name for layer in listed if any(map(pattern.search, (layer.name, *layer.nodes)))}
        if not hit:
            named = ", ".join(layer.name for layer in listed[:8])
            raise InputError(f"--protect {text}: no weight has such a name. The weights are {named}.")
        kept |= hit
    left = [layer for layer in listed if layer.name not in kept]
    if not left:
        raise InputError("--protect: all weights are protected. Leave some of them out.")
    return left


def _roles(value: ir.Value, axes: Axes) -> list[tuple[Axes, Axes, ir.Node] | None]:
    """What every reader makes of a value whose axes are these of an initializer; ``None`` for anything but a factor."""
    if value.is_graph_output():
        return [None]
    found: list[tuple[Axes, Axes, ir.Node] | None] = []
    for node, slot in value.uses():
        operator = node.op_type
        if operator in MOVES and slot == 0:
            found += _roles(node.outputs[0], MOVES[operator](node, axes))
        elif slot in FACTORS.get((node.domain, operator), {}):
            role = FACTORS[node.domain, operator][slot](node, len(axes))
            inputs, outputs = (tuple(axes[a] for a in part) for part in role or ((), ()))
            found.append((inputs, outputs, node) if role else None)
        else:
            found.append(None)
    return found


# --- the tables -------------------------------------------------------------------------------------------------------

CONTRIB = "com.microsoft"

Role = tuple[Sequence[int], Sequence[int]]  # axes of input channels and of output channels


def _fixed(inputs: int, outputs: int) -> Callable[[ir.Node, int], Role]:
    return lambda node, rank: ([inputs], [outputs])


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    return node.attributes[name].value if name in node.attributes else default


def _gates(node: ir.Node, rank: int) -> Role:
    """Weights of a recurrent layer: (directions, gates, inputs)."""
    return [2], [0, 1]


def _right(node: ir.Node, rank: int) -> Role:
    """The second factor of a product of matrices: (..., inputs, outputs), or transposed."""
    last = [rank - 2, rank - 1]
    if _attribute(node, "transB", 0):
        last.reverse()
    return [last[0]], [*range(rank - 2), last[1]]


def _left(node: ir.Node, rank: int) -> Role:
    """The first factor: (..., outputs, inputs), or transposed."""
    last = [rank - 2, rank - 1]
    if _attribute(node, "transA", 0):
        last.reverse()
    return [last[1]], [*range(rank - 2), last[0]]


def _einsum(slot: int) -> Callable[[ir.Node, int], Role | None]:
    def read(node: ir.Node, rank: int) -> Role | None:
        left, arrow, right = _attribute(node, "equation", "").replace(" ", "").partition("->")
        right = right if arrow else "".join(c for c in left if left.count(c) == 1)
        letters = left.split(",")[slot] if slot <= left.count(",") else ""
        if "." in left or len(letters) != rank:
            return None
        inputs = [a for a, letter in enumerate(letters) if letter not in right]
        return (inputs, [a for a in range(rank) if a not in inputs]) if inputs else None

    return read


FACTORS: dict[tuple[str, str], dict[int, Callable[[ir.Node, int], Role | None]]] = {
    **{("", name): {1: _fixed(1, 0)} for name in ("Conv", "DeformConv")},
    ("", "ConvTranspose"): {1: _fixed(0, 1)},
    **{("", name): {0: _left, 1: _right} for name in ("MatMul", "Gemm")},
    ("", "Einsum"): {slot: _einsum(slot) for slot in range(4)},
    **{("", name): {1: _gates, 2: _gates} for name in ("RNN", "GRU", "LSTM")},
    (CONTRIB, "FusedConv"): {1: _fixed(1, 0)},
    **{(CONTRIB, name): {0: _left, 1: _right} for name in ("FusedMatMul", "TransposeMatMul", "FusedGemm")},
    (CONTRIB, "Attention"): {1: _fixed(0, 1)},
}
"""Domain and operator -> input -> which axes of a weight there are input channels, and which output channels."""

DIVIDED = {"ConvTranspose": "group"}
"""Operator whose weight lists the input channels of all groups -> the attribute that says how many groups there are."""

MOVES: dict[str, Callable[[ir.Node, Axes], Axes]] = {
    **dict.fromkeys(["Identity", "Cast"], lambda node, axes: axes),
    "Transpose": lambda node, axes: tuple(axes[a] for a in _attribute(node, "perm", range(len(axes))[::-1])),
}
"""Operators that leave zeros where they were -> the axes after them."""
