"""Normalisations that a file spells out in single steps, told by what they compute, as one node each.

Exporters write root mean square normalisation as a power, a mean, a root and products, and layer normalisation of old
operator sets likewise. Which steps they take does not matter: what lies between two values of the same shape, goes
through one number for each row, and gives ``γ x / √(mean x² + ε)`` or ``γ (x - mean) / √(var + ε) + β`` of any rows, is
one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.bases.recouple import recoupled
from onnxslim_learn.coupling import roles
from onnxslim_learn.rewrite import edit
from onnxslim_learn.runtime.node import bodies, compute

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis

    Shapes = dict[str, tuple[int, ...]]

STEPS = 16  # nodes that one is at most spelled in
ROWS = 16  # it is tried on
SCALES = (30.0, 1.0, 0.03, 1e-3)  # of rows, the largest first: there nothing is told of ε
OFFSET = 0.5  # of their mean, in deviations
TOLERANCE = 1e-4  # of the largest number that comes out


@dataclass(frozen=True)
class Spelled:
    """A normalisation in steps.

    Attributes:
        data: What is normalised.
        result: What comes out.
        scale: ``(n,)``.
        shift: ``(n,)``, or ``None`` where it does not take the mean out.
        epsilon: What is added to the variance, or to the mean square.
    """

    data: ir.Value
    result: ir.Value
    scale: Array
    shift: Array | None
    epsilon: float

    @property
    def name(self) -> str:
        """Of the node that stands for it."""
        return f"{self.result.name}.norm"


def gathered(analysis: Analysis, passed_over: Container[str] = ()) -> Analysis:
    """The analysis with normalisations as one node each, or as it is where none is spelled out.

    Args:
        analysis: The model.
        passed_over: Names of nodes that would stand for some: those stay in steps.
    """
    model = analysis.graph.model.clone()
    every = [one for one in _spelled(model, analysis.graph.shapes.analysis.shape) if one.name not in passed_over]
    if not every:
        return analysis
    for one in every:
        _gather(model.graph, one)
    return recoupled(analysis, model, {})


def standing(analysis: Analysis) -> set[str]:
    """Names of the nodes of an analysis that stand for steps."""
    names = {str(node.name) for node in analysis.graph.nodes if roles.normalisation(node) is not None}
    return {name for name in names if name.endswith(".norm")}


def _gather(graph: ir.Graph, one: Spelled) -> None:
    """Put a node in the place of what comes last; the steps before it go, since nothing reads them any more."""
    last, name = one.result.producer(), str(one.result.name)
    assert last is not None
    given = {"scale": one.scale} if one.shift is None else {"scale": one.scale, "shift": one.shift}
    constants = [edit.constant(graph, f"{one.name}.{k}", a.astype(np.float32)) for k, a in given.items()]
    kind = "SimplifiedLayerNormalization" if one.shift is None else "LayerNormalization"
    settings = {"axis": -1, "epsilon": one.epsilon}
    node = ir.node(kind, [one.data, *constants], settings, name=one.name)
    fresh = node.outputs[0]
    fresh.type, fresh.shape = one.result.type, one.result.shape
    graph.insert_before(last, node)
    for user, index in list(one.result.uses()):
        user.replace_input_with(index, fresh)
    one.result.name, fresh.name = f"{name}.old", name
    pending = [last]
    while pending:
        gone = pending.pop()
        if gone.graph is None or any(value.uses() or value.is_graph_output() for value in gone.outputs):
            continue
        before = [value.producer() for value in gone.inputs if value is not None]
        graph.remove(gone, safe=True)
        pending += [node for node in before if node is not None]


def _spelled(model: ir.Model, shapes: Shapes) -> list[Spelled]:
    """All normalisations in steps; none begins inside another."""
    norms: list[Spelled] = []
    inside: set[ir.Value] = set()
    for data in [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]:
        one = None if data in inside else next(_normalisations(data, _steps(data, shapes), shapes), None)
        if one is not None:
            norms.append(one)
            inside |= {value for node in _between(data, one.result) for value in node.outputs} - {one.result}
    return norms


def _steps(data: ir.Value, shapes: Shapes) -> list[ir.Node]:
    """What is computed of a value and constants alone, in its shape or as one number for each row, in order."""
    shape = shapes.get(str(data.name), ())
    if len(shape) < 2 or len(list(data.uses())) < 2:  # it is measured, and scaled
        return []
    steps: list[ir.Node] = []
    known, pending = {data}, [user for user, _ in data.uses()]
    while pending and len(steps) < STEPS:
        node = pending.pop(0)
        given = [value for value in node.inputs if value is not None and value.const_value is None]
        if node in steps or not known.issuperset(given) or roles.factors(node) or bodies(node) or len(node.outputs) > 1:
            continue
        if shapes.get(str(node.outputs[0].name)) not in (shape, (*shape[:-1], 1)):
            continue
        steps.append(node)
        known.add(node.outputs[0])
        pending += [user for user, _ in node.outputs[0].uses()]
    narrow = any(shapes[str(node.outputs[0].name)][-1] == 1 for node in steps)
    return steps if narrow and shape[-1] > 1 else []


def _between(data: ir.Value, result: ir.Value) -> list[ir.Node]:
    """The nodes that make one value of another."""
    nodes: list[ir.Node] = []
    pending = [result]
    while pending:
        value = pending.pop()
        node = None if value is data else value.producer()
        if node is not None and node not in nodes:
            nodes.append(node)
            pending += [one for one in node.inputs if one is not None]
    return nodes


def _normalisations(data: ir.Value, steps: Sequence[ir.Node], shapes: Shapes) -> Iterator[Spelled]:
    """The normalisations of a value that end at some step, the last first, of which nothing else reads a part."""
    for last in reversed(steps):
        result = last.outputs[0]
        region = _between(data, result)
        inner = [node.outputs[0] for node in region if node is not last]
        alone = all(user in region for value in inner for user, _ in value.uses())
        narrow = any(shapes[str(value.name)][-1] == 1 for value in inner)
        if narrow and alone and not any(value.is_graph_output() for value in inner):
            one = _fitted(data, result, [node for node in steps if node in region], shapes)
            if one is not None:
                yield one


def _fitted(data: ir.Value, result: ir.Value, steps: Sequence[ir.Node], shapes: Shapes) -> Spelled | None:
    """What normalisation some steps are, if they are one."""
    size, rank = shapes[str(data.name)][-1], len(shapes[str(data.name)])
    if data.dtype not in (None, ir.DataType.FLOAT) or shapes[str(result.name)][-1] != size:
        return None
    rows = np.random.default_rng(0).standard_normal((ROWS, size)) + OFFSET
    shape = (*[1] * (rank - 2), ROWS, size)
    results = [_made(data, steps, (scale * rows).reshape(shape)) for scale in SCALES]
    outputs = [one.astype(np.float64).reshape(ROWS, size) for one in results if one is not None]
    if len(outputs) < len(SCALES):
        return None
    for centred in (False, True):
        scale, shift = _affine(_normal(SCALES[0] * rows, 0.0, centred=centred), outputs[0])
        if not centred:
            shift = np.zeros(size)
        for epsilon in _small(steps, size):
            wanted = [scale * _normal(s * rows, epsilon, centred=centred) + shift for s in SCALES]
            far = max(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in zip(outputs, wanted, strict=True))
            if far < TOLERANCE:
                return Spelled(data, result, scale, shift if centred else None, epsilon)
    return None


def _made(data: ir.Value, steps: Sequence[ir.Node], rows: Array) -> Array | None:
    """What steps make of rows; ``None`` if nothing here can run them, or if it has another shape."""
    known = {str(data.name): rows.astype(np.float32)}
    for node in steps:
        known |= compute(node, known)
        if str(node.outputs[0].name) not in known:
            return None
    last = known[str(steps[-1].outputs[0].name)]
    return last if last.shape == rows.shape and np.isfinite(last).all() else None


def _normal(rows: Array, epsilon: float, *, centred: bool) -> Array:
    """Rows over their root mean squares, after their means are taken out or not."""
    rows = rows - rows.mean(axis=1, keepdims=True) if centred else rows
    result: Array = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + epsilon)
    return result


def _affine(normal: Array, output: Array) -> tuple[Array, Array]:
    """Scale and shift of every channel, by least squares over rows."""
    centre = normal - normal.mean(axis=0)
    scale = (centre * output).sum(axis=0) / (centre**2).sum(axis=0)
    return scale, (output - scale * normal).mean(axis=0)


def _small(steps: Sequence[ir.Node], size: int) -> list[float]:
    """What may be added to a mean of squares: single numbers that steps read, and their shares of a sum; or nothing."""
    constants = [v.const_value for node in steps for v in node.inputs if v is not None and v.const_value is not None]
    numbers = {float(c.numpy().reshape(())) for c in constants if c.size == 1 and c.dtype.is_floating_point()}
    return [*(number for one in sorted(numbers) if 0 < one < 1 for number in (one, one / size)), 0.0]
