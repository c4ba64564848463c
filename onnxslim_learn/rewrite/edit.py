"""Small edits of one node, stated as data: slot -> new content (see :class:`onnxslim_learn.coupling.records.Patch`)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.records import InProportion
from onnxslim_learn.errors import PlanError
from onnxslim_learn.graph import shape_arithmetic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.coupling.records import Cut, Patch, Slot
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.graph.shape_info import Sample, Shapes

Vectors = Mapping[str, Array]


def follow(graph: ir.Graph, node: ir.Node, patch: Patch, cut: Cut, sizes: Vectors) -> None:
    """Let a node state the sizes of a plan.

    Args:
        graph: The graph.
        node: One of its nodes.
        patch: What changes.
        cut: The plan.
        sizes: Name of a computed vector of sizes -> what it would be at the analysis sizes (:func:`restated`).

    Raises:
        PlanError: If it cannot.
    """
    try:
        apply(graph, node, patch.make(cut), sizes)
    except NotImplementedError as error:
        raise PlanError(f"node {node.name} ({node.op_type}): cannot state the new sizes. Protect its group.") from error


def apply(graph: ir.Graph, node: ir.Node, changes: Mapping[Slot, Any], sizes: Vectors | None = None) -> None:
    """Change a node.

    An integer key is an input: an array replaces it by a constant, a dictionary changes elements of it, ``None``
    drops it. A string key is an attribute (``op_type`` renames the operator): ``None`` drops
    it. ``scale_input`` multiplies a constant input ``(slot, factor)``, ``scale_output`` the first output by a factor;
    ``keep_outputs`` lists the outputs that stay.
    """
    for slot, content in sorted(changes.items(), key=lambda change: change[0] == "keep_outputs"):
        if slot == "op_type":
            node.op_type = content
        elif slot == "scale_input":
            _scale_input(node, *content)
        elif slot == "keep_outputs":
            _keep_outputs(graph, node, content)
        elif slot == "scale_output":
            _scale_output(graph, node, content)
        elif isinstance(slot, str):
            _set_attribute(node, slot, content)
        elif isinstance(content, dict):
            if content:
                _set_elements(graph, node, slot, content, sizes or {})
        else:
            _set_input(graph, node, slot, content)
    while len(node.inputs) and node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)


def _set_attribute(node: ir.Node, name: str, content: Any) -> None:
    if content is None:
        node.attributes.pop(name, None)
    elif isinstance(content, list):
        node.attributes[name] = ir.AttrInt64s(name, content)
    elif isinstance(content, float):
        node.attributes[name] = ir.AttrFloat32(name, content)
    else:
        node.attributes[name] = ir.AttrInt64(name, int(content))


def _scale_input(node: ir.Node, slot: int, factor: float) -> None:
    """Multiply a constant input; a computed one is left alone."""
    value = node.inputs[slot]
    tensor = None if value is None else value.const_value
    if value is None or tensor is None:
        return
    value.const_value = ir.LazyTensor(
        lambda: ir.tensor((tensor.numpy() * tensor.dtype.numpy().type(factor)), dtype=tensor.dtype, name=tensor.name),
        dtype=tensor.dtype,
        shape=ir.Shape([int(d) for d in tensor.shape]),  # type: ignore[arg-type]
        name=tensor.name,
    )


def _keep_outputs(graph: ir.Graph, node: ir.Node, kept: list[int]) -> None:
    """Let a node with some of the outputs take the place of one with all; the old one has no live users left."""
    fresh = ir.Node(
        node.domain,
        node.op_type,
        list(node.inputs),
        list(node.attributes.values()),
        num_outputs=len(kept),
        name=node.name,
    )
    node.name = f"{node.name}~whole"
    for number, output in zip(kept, fresh.outputs, strict=True):
        old = node.outputs[number]
        output.name, output.type, output.shape = old.name, old.type, old.shape
        old.name = f"{old.name}~whole"
        ir.convenience.replace_all_uses_with(old, output)
    graph.insert_before(node, fresh)


def _scale_output(graph: ir.Graph, node: ir.Node, factor: float) -> None:
    """Multiply the first output of a node before its consumers, or the graph's own, see it."""
    output = node.outputs[0]
    dtype = output.dtype or (node.inputs[0].dtype if node.inputs[0] is not None else None) or ir.DataType.FLOAT
    name = f"{node.name}.rescaled"
    scale = constant(graph, f"{name}.factor", np.array(factor, dtype.numpy()))
    product = ir.Node("", "Mul", [output, scale], name=name)
    product.outputs[0].name, product.outputs[0].type = name, output.type
    users = [use for use in output.uses() if use.node is not product]
    graph.insert_after(node, product)
    for user, slot in users:
        user.replace_input_with(slot, product.outputs[0])
    if output.is_graph_output():
        product.outputs[0].name, product.outputs[0].shape, output.name = output.name, output.shape, f"{name}.plain"
        graph.outputs[:] = [product.outputs[0] if value is output else value for value in graph.outputs]


def constant(graph: ir.Graph, wish: str, array: np.ndarray[Any, Any]) -> ir.Value:
    """Add an initializer under a free name that starts with ``wish``."""
    name, number = wish, 0
    taken = graph.initializers
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _set_input(graph: ir.Graph, node: ir.Node, slot: int, array: np.ndarray[Any, Any] | None) -> None:
    if slot >= len(node.inputs):
        if array is None:
            return
        node.resize_inputs(slot + 1)
    old = node.inputs[slot]
    if array is None:
        node.replace_input_with(slot, None)
        return
    wish = str(old.name) if old is not None and old.is_initializer() else f"{node.name}.{slot}"
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        tensor = ir.tensor(array, name=old.name)
        old.const_value, old.shape = tensor, ir.Shape(array.shape)
        return
    node.replace_input_with(slot, constant(graph, wish, array))


def restated(coupling: Coupling, cut: Cut, graph: ir.Graph, nodes: Sequence[ir.Node]) -> dict[str, Array]:
    """What every vector of sizes that a model computes would be at the analysis sizes, were all else cut already.

    What descends from the shape of a cut tensor follows the cut by itself; what is computed from numbers does not. One
    that such a shape is divided by (batch x heads by heads) is set here to what still leaves no rest.

    Args:
        coupling: The coupling of the original.
        cut: The plan.
        graph: The graph that is cut.
        nodes: Its nodes, in the order of the original's.
    """
    analysis, shapes = coupling.graph.shapes.analysis, {}
    for name, value in coupling.values.items():
        with contextlib.suppress(NotImplementedError):  # what cannot grow stays
            shapes[name] = tuple(cut.size(value, axis) for axis in range(len(value.axes)))
    constants = {name: array for name, array in analysis.value.items() if name in coupling.graph.initializers}
    trial = replace(analysis, shape=analysis.shape | shapes, value=constants, dtype=dict(analysis.dtype), loose=set())
    for before, node in zip(coupling.nodes, nodes, strict=True):
        if not any(str(value.name) in analysis.value for value in before.outputs):
            continue
        shape_arithmetic.evaluate(before, trial)
        if factors := _division(coupling.graph.shapes, before, trial):
            times, by = factors
            if (times > 1).any():
                node.replace_input_with(0, _computed(graph, node, "Mul", [node.inputs[0], times], f"{node.name}.times"))
            _set_input(graph, node, 1, by)
            quotient = str(before.outputs[0].name)
            trial.value[quotient] = analysis.value[quotient]
    return analysis.value | trial.value


def _division(shapes: Shapes, node: ir.Node, trial: Sample) -> tuple[Array, Array] | None:
    """What to multiply a cut size by, and to divide it by, for the quotient that a file makes of the whole one.

    ``None`` where a node does not divide a size by a number, the size stays, or no rest is left before and after a cut.
    """
    if roles.of(node).arithmetic != "divide":
        return None
    dividend, divisor = (str(value.name) for value in node.inputs if value is not None)
    number, whole, cut = shapes.static(divisor), shapes.known(dividend), trial.value.get(dividend)
    if number is None or number.dtype.kind != "i" or whole is None or cut is None or {number.size, cut.size} != {1}:
        return None
    by, share = number.item(), Fraction(cut.item(), shapes.analysis.value[dividend].item() or 1)
    sizes = [part * size.item() for size in whole for part in (1, share)]
    if share in (0, 1) or not by or not any(size % by for size in sizes):
        return None
    return np.full_like(number, (by * share).denominator), np.full_like(number, (by * share).numerator)


def _set_elements(
    graph: ir.Graph, node: ir.Node, slot: int, elements: Mapping[int, int | InProportion], sizes: Vectors
) -> None:
    """Change elements of an integer vector: of a constant in place, of a computed one by what is computed then.

    Elements that are as they should be, as what they are computed from is cut, stay.
    """
    old = node.inputs[slot]
    assert old is not None
    if (now := sizes.get(str(old.name))) is not None:
        wished = {place: new.size if isinstance(new, InProportion) else new for place, new in elements.items()}
        elements = {place: new for place, new in elements.items() if now[place] != wished[place]}
    if not elements:
        return
    if old.is_initializer() and old.const_value is not None:
        array = old.const_value.numpy().copy()
        for place, new in elements.items():
            array[place] = new.size if isinstance(new, InProportion) else new
        _set_input(graph, node, slot, array)
        return
    (length,) = sizes[str(old.name)].shape if str(old.name) in sizes else [int(d) for d in old.shape or ()]  # type: ignore[arg-type]
    names = {value.name for other in graph for value in other.outputs} | {other.name for other in graph}
    name = next(free for k in itertools.count() if (free := f"{node.name}.sized{k or ''}") not in names)
    result = old
    shares = {
        k: _share(new.size, int(sizes[str(old.name)][k])) for k, new in elements.items() if not isinstance(new, int)
    }
    for op_type, part in (("Mul", "numerator"), ("Div", "denominator")):
        factors = np.ones(length, np.int64)
        for place, share in shares.items():
            factors[place] = getattr(share, part)
        if (factors != 1).any():
            result = _computed(graph, node, op_type, [result, factors], f"{name}.{part}")
    if len(shares) < len(elements):
        mask, stated = np.zeros(length, bool), np.zeros(length, np.int64)
        for place in elements.keys() - shares.keys():
            mask[place], stated[place] = True, elements[place]
        result = _computed(graph, node, "Where", [mask, stated, result], name)
    node.replace_input_with(slot, result)


def _share(size: int, of: int) -> Fraction:
    if not of:
        raise NotImplementedError(f"no share of nothing is {size}")
    return Fraction(size, of)


def _computed(graph: ir.Graph, before: ir.Node, op_type: str, inputs: list[Any], name: str) -> ir.Value:
    """Put a node that computes sizes in front of another; arrays become constants, like the last of which it is.

    Returns its output.
    """
    like = [part for part in inputs if isinstance(part, np.ndarray)][-1]
    given = [constant(graph, f"{name}.{k}", v) if isinstance(v, np.ndarray) else v for k, v in enumerate(inputs)]
    node = ir.Node("", op_type, given, name=name)
    (output,) = node.outputs
    output.name, output.shape = name, ir.Shape(like.shape)
    output.type = ir.TensorType(ir.DataType.from_numpy(like.dtype))
    graph.insert_before(before, node)
    return output
