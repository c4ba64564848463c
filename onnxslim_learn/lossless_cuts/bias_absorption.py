"""Constants that cut units fed into a sum go into its bias: to the last place, borders of padded convolutions included.

What a convolution makes of a constant differs at its padded borders. There the bias becomes a map, computed by the same
convolution of one channel of ones; where even that varies (a depthwise convolution before), the map is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.repair.linear_forms import form_of
from onnxslim_learn.repair.linear_nodes import Linear, linears
from onnxslim_learn.rewrite import edit
from onnxslim_learn.rewrite.unfuse import give_back, take_apart, unfuse
from onnxslim_learn.runtime.executor import Runner
from onnxslim_learn.runtime.node import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.lossless_cuts.dead_units import Meeting


SAME = 1e-6  # of the largest magnitude: what counts as uniform along an axis


@dataclass(frozen=True)
class Constant:
    """What cut units contributed to the output of a node.

    Attributes:
        node: Name of the node.
        total: The contribution at the sizes of the analysis, over all output channels; of length 1 along every axis
            on which it is uniform, but for the channels.
        channel: Channel axis of the output.
        kernel: The same as a kernel ``(o, 1, ...)`` that a convolution of ones makes it from, and the shape of these.
    """

    node: str
    total: Array
    channel: int
    kernel: tuple[Array, tuple[int, ...]] | None = None

    @property
    def uniform(self) -> bool:
        """Whether it is a number per channel."""
        return self.total.size == int(self.total.shape[self.channel])


def takers(coupling: Coupling) -> set[int]:
    """Nodes, by index, that multiply an input by weights and can take constants over."""
    return {index for index, node in enumerate(coupling.nodes) if _takes(node)}


def _takes(node: ir.Node) -> bool:
    factors = roles.factors(node)
    if not isinstance(factors, roles.Convolution | roles.Product) or factors.quantized:
        return False
    weight = node.inputs[factors.weight]
    return weight is not None and weight.is_initializer() and not isinstance(form_of(node), str)


def constants(
    removal: Removal, met: Sequence[Meeting], feeds: Sequence[Mapping[str, Array]]
) -> tuple[list[Constant], list[Meeting]]:
    """What a removal takes from the sums, as constants, and the meetings at which that cannot be one.

    It cannot where it varies along an axis whose size the file leaves open: by the borders of this convolution, or by
    those of one before.
    """
    coupling = removal.coupling
    lost = [(m, m.lost(removal) & ~m.silent) for m in met]
    lost = [(m, where) for m, where in lost if where.any()]
    nodes = coupling.nodes
    names = {id(m): str(nodes[m.contraction.node].inputs[m.contraction.slot].name) for m, _ in lost}  # type: ignore[union-attr]
    runner = Runner(coupling.graph.model, feeds[:1], set(names.values()))
    constants_met, refused = [], []
    for meeting, where in lost:
        runner.run_past(names[id(meeting)])
        data = runner.get(names[id(meeting)])[0]
        node = nodes[meeting.contraction.node]
        constant = _constant(coupling, node, meeting.only(data, where))
        if any(constant.total.shape[a] > 1 for a in _open_axes(coupling, node, constant)):
            varying = where & ~meeting.even(data)
            refused.append(replace(meeting, constant=meeting.constant & ~(varying if varying.any() else where)))
        constants_met.append(constant)
    return constants_met, refused


def _open_axes(coupling: Coupling, node: ir.Node, constant: Constant) -> list[int]:
    name = str(node.outputs[0].name)
    return [a for a in range(constant.total.ndim) if coupling.graph.shapes.is_open(name, a)]


def _constant(coupling: Coupling, node: ir.Node, part: Array) -> Constant:
    full = _alone(coupling, node, part)
    form = form_of(node)
    assert not isinstance(form, str)
    channel = form.channel % full.ndim
    total = full
    for axis in range(full.ndim):
        first = total.take([0], axis=axis)
        if axis != channel and np.abs(total - first).max() <= SAME * max(np.abs(full).max(), 1e-30):
            total = first
    factors = roles.convolution(node)
    plain = factors is not None and not factors.transposed
    kernel = _kernel(node, part) if plain and total.size > total.shape[channel] else None
    return Constant(str(node.name), total, channel, kernel)


def _kernel(node: ir.Node, part: Array) -> tuple[Array, tuple[int, ...]] | None:
    """The kernel by which a convolution makes the contribution of an even input from ones, and the shape of these."""
    even = part[0].reshape(part.shape[1], -1)[:, 0]
    if (part != even.reshape(1, -1, *([1] * (part.ndim - 2)))).any():
        return None
    weight = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    groups = int(node.attributes["group"].value) if "group" in node.attributes else 1
    rows = weight.reshape(groups, -1, *weight.shape[1:])
    kernel = np.einsum("gi,goi...->go...", even.reshape(groups, -1).astype(np.float64), rows)
    return kernel.reshape(len(weight), 1, *weight.shape[2:]).astype(weight.dtype), (1, 1, *part.shape[2:])


def _alone(coupling: Coupling, node: ir.Node, data: Array) -> Array:
    """What a node makes of an input without its bias, and without what is fused behind it."""
    make = roles.of(node).parts
    layer = node if make is None else next(p for p in make(node, 1) or [node] if roles.multiplies(p))
    weight = node.inputs[1].const_value  # type: ignore[union-attr]
    assert weight is not None
    proto = ir.to_proto(layer)
    proto.input[:], proto.output[:] = ["data", "weight"], ["alone"]
    return run(proto, {"data": data, "weight": weight.numpy()}, coupling.graph.model.opset_imports)["alone"]


def absorb(removal: Removal, model: ir.Model, constants_met: Sequence[Constant]) -> tuple[list[str], list[str]]:
    """Put constants into the biases of a slimmed model, in place.

    Returns:
        Names of the nodes whose bias took one, and of those that got a map added.
    """
    nodes = {str(node.name): node for node in model.graph}
    apart = unfuse(model)
    shifted: dict[str, Linear] = {str(one.node.name): one for one in linears(apart)}
    biased, mapped = [], []
    for constant in constants_met:
        node = nodes[constant.node]
        total = _cut(removal, node, constant)
        if constant.uniform and _shift(model, node, shifted.get(constant.node), total.reshape(-1)):
            give_back(apart, model)
            biased.append(constant.node)
            continue
        kernel = None if constant.kernel is None else _cut(removal, node, constant, constant.kernel[0])
        node = take_apart(model, node)  # a map is added in front of what is fused behind the layer
        _add(model.graph, node, _source(model.graph, node, constant, total, kernel))
        mapped.append(constant.node)
    return biased, mapped


def _cut(removal: Removal, node: ir.Node, constant: Constant, array: Array | None = None) -> Array:
    """What stays of a constant, or of an array with its channels in front."""
    layout = removal.coupling.values[str(node.outputs[0].name)]
    keep = np.flatnonzero(removal.keep(layout, constant.channel))
    return constant.total.take(keep, axis=constant.channel) if array is None else array.take(keep, axis=0)


def _shift(model: ir.Model, node: ir.Node, linear: Linear | None, vector: Array) -> bool:
    """Add to a node's bias; whether it has or can get one."""
    if linear is not None and linear.bias is not None:
        linear.shift(vector)
        return True
    factors = roles.factors(node)
    slot = None if factors is None else factors.bias
    if slot is None or (len(node.inputs) > slot and node.inputs[slot] is not None and linear is None):
        return False
    old = 0.0 if linear is None or linear.constant is None else linear.constant
    dtype = node.inputs[1].const_value.dtype.numpy()  # type: ignore[union-attr]
    edit.apply(model.graph, node, {slot: (old + vector).astype(dtype)})
    return True


def _source(
    graph: ir.Graph, node: ir.Node, constant: Constant, total: Array, kernel: Array | None
) -> Callable[[ir.Node], ir.Value]:
    """How to make what is added to a node's output."""

    def make(before: ir.Node) -> ir.Value:
        if kernel is None or constant.kernel is None:
            return edit.constant(graph, f"{node.name}.constant", total)
        ones = edit.constant(graph, f"{node.name}.ones", np.ones(constant.kernel[1], kernel.dtype))
        weight = edit.constant(graph, f"{node.name}.constant", kernel)
        attributes = [a for a in node.attributes.values() if a.name != "group"]
        border = ir.Node("", "Conv", [ones, weight], attributes, name=f"{node.name}.border")
        border.outputs[0].name = f"{node.name}.border"
        graph.insert_before(before, border)
        return border.outputs[0]

    return make


def _add(graph: ir.Graph, node: ir.Node, make: Callable[[ir.Node], ir.Value]) -> None:
    """Add something to a node's first output; the sum takes its name and its place."""
    output = node.outputs[0]
    name = str(output.name)
    sum_ = ir.Node("", "Add", [output], name=f"{node.name}.shifted")
    graph.insert_after(node, sum_)
    sum_.resize_inputs(2)
    sum_.replace_input_with(1, make(sum_))
    result = sum_.outputs[0]
    result.shape, result.type = output.shape, output.type
    for user, index in list(output.uses()):
        if user is not sum_:
            user.replace_input_with(index, result)
    graph.outputs[:] = [result if v is output else v for v in graph.outputs]
    output.name, result.name = f"{name}.plain", name
