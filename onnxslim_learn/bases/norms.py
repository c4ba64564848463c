"""Normalisations of a stream written so that its basis is free: as root mean squares without scale or shift.

``γ (x - mean) / √(var + ε) + β`` over ``n`` channels is ``√n γ x' / √(Σ x'² + n ε) + β``, where ``x'`` is the stream
without its mean. What writes the stream takes the mean out, what reads the normalised one takes ``√n γ`` in, and its
bias ``β``; the sum of squares is the same in any orthonormal basis, and exact where channels are cut that are zero
(SliceGPT, arXiv:2401.15024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array, Labels, Mask
from onnxslim_learn.bases.find import Space, spaces, told_apart
from onnxslim_learn.bases.recouple import Likes, recoupled
from onnxslim_learn.bases.spelled import gathered, standing
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.operators.facts import attribute
from onnxslim_learn.repair.linear_nodes import linears
from onnxslim_learn.rewrite import edit
from onnxslim_learn.rewrite.unfuse import take_apart

if TYPE_CHECKING:
    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.solver import Coupling

SMALL = 1e-4  # of the largest scale: a shift is not divided by less
INPUT = 18  # the operator set since which reductions take axes as an input


class _UnfitError(Exception):
    """A stream whose normalisations cannot be written otherwise."""


@dataclass(frozen=True)
class Norm:
    """A normalisation over all channels of a stream.

    Attributes:
        node: Its index.
        scale: Number for each unit of the stream.
        shift: Likewise.
        centred: Whether it takes the mean out.
        epsilon: What is added to the variance.
    """

    node: int
    scale: Array
    shift: Array
    centred: bool
    epsilon: float


def without(analysis: Analysis, wanted: Callable[[str], bool] = lambda name: True) -> Analysis:
    """The analysis with the normalisations of streams as sums of squares, where that makes their bases free.

    Those that the file spells out otherwise (:mod:`onnxslim_learn.bases.spelled`) serve as well.

    Args:
        analysis: The model.
        wanted: Whether the space of a name is wanted; others stay as they are.
    """
    every = gathered(analysis)
    other = _without(every, wanted)
    left = standing(other) if every is not analysis else set()
    return _without(gathered(analysis, left), wanted) if left else other


def _without(analysis: Analysis, wanted: Callable[[str], bool]) -> Analysis:
    normal = _over_features(analysis.coupling)
    streams = _normalised(analysis.coupling, normal) & ~told_apart(analysis.coupling, normal)
    for group in analysis.groups:
        loose = group.pin is None or group.pin.delicate
        if loose and len(group.strata) == 1 and not group.rows and streams[group.units].all():
            known = {space.name for space in spaces(analysis.coupling, analysis.groups)}
            try:
                other = _rewritten(analysis, Space(group.name, group.units))
            except _UnfitError:
                continue
            free = {s.name for s in spaces(other.coupling, other.groups) if s.size == group.width} - known
            if any(map(wanted, free)):
                return _without(other, wanted)
    return analysis


def rewritten(before: Analysis, after: Analysis) -> set[str]:
    """Groups of an analysis that are free since normalisations are written otherwise than in another one."""
    free = [{space.group for space in spaces(one.coupling, one.groups)} for one in (before, after)]
    return free[1] - free[0]


def _over_features(coupling: Coupling) -> set[int]:
    """Nodes that normalise over features."""
    norms = {index: roles.normalisation(node) for index, node in enumerate(coupling.nodes)}
    return {index for index, norm in norms.items() if norm is not None and norm.features}


def _normalised(coupling: Coupling, nodes: Iterable[int]) -> Mask:
    """Columns that lie on the last axis of what some of these nodes puts out."""
    columns = np.zeros(coupling.columns, bool)
    for node in nodes:
        last = _columns(coupling, str(coupling.nodes[node].outputs[0].name), -1)
        columns[[] if last is None else last[last >= 0]] = True
    return columns


def _rewritten(analysis: Analysis, stream: Space) -> Analysis:
    """The analysis with the normalisations of one stream written otherwise.

    Raises:
        _UnfitError: If they cannot be.
    """
    coupling = analysis.coupling
    norms = list(_norms(coupling, stream))
    centred = {norm.centred for norm in norms}
    if len(centred) != 1:
        raise _UnfitError
    model = analysis.graph.model.clone()
    read = {norm.node: _readers(coupling, stream, norm) for norm in norms}
    _check_readers(coupling, stream, [reader for readers in read.values() for reader in readers])
    if True in centred:
        _centre(model, coupling, stream, {v for norm in norms for v in _affine(coupling, norm)})
    likes: Likes = {}
    for norm in norms:
        likes |= _replace(model, coupling, stream, norm, read[norm.node])
    return recoupled(analysis, model, likes)


def _columns(coupling: Coupling, name: str, axis: int) -> Labels | None:
    """The columns along an axis of a tensor that is one digit; -1 for what is pinned."""
    digits = coupling.values[name].axes[axis] if name in coupling.values else ()
    if len(digits) != 1 or digits[0].labels is None or digits[0].deps:
        return None
    return np.where(digits[0].labels > 0, coupling.column[coupling.strong[digits[0].labels]], -1)


def _axes(coupling: Coupling, name: str, stream: Space) -> dict[int, Labels]:
    """Axes of a tensor that are the stream, and where its units lie there.

    Raises:
        _UnfitError: If a tensor has it otherwise.
    """
    value, places = coupling.values.get(name), dict[int, Labels]()
    for axis, digits in enumerate(value.axes if value else ()):
        labels = [d.labels[d.labels > 0] for d in digits if d.labels is not None]
        if not any(np.isin(coupling.column[coupling.strong[one]], stream.columns).any() for one in labels):
            continue
        columns = _columns(coupling, name, axis)
        copies = None if columns is None else stream.copies(columns)
        if copies is None or columns is None or len(copies) != 1 or len(columns) != stream.size:
            raise _UnfitError
        places[axis] = copies[0]
    return places


def _norms(coupling: Coupling, stream: Space) -> Iterator[Norm]:
    """The normalisations over a stream.

    Raises:
        _UnfitError: If one has another form.
    """
    for index, node in enumerate(coupling.nodes):
        norm = roles.normalisation(node)
        if norm is None or not norm.features:
            continue
        data = str(node.outputs[0].name)
        rank = len(coupling.values[data].axes)
        where = _axes(coupling, data, stream)
        if not where:
            continue
        if not _axes(coupling, str(node.inputs[0].name), stream):  # type: ignore[union-attr]
            raise _UnfitError
        axis = int(attribute(node, "axis", -1)) % rank
        if (
            list(where) != [rank - 1]
            or axis != rank - 1
            or norm.scale is None
            or any(o.name for o in node.outputs[1:3])
        ):
            raise _UnfitError
        at = where[rank - 1]
        scale = _vector(node, norm.scale, stream.size, 1.0)[at]
        shift = np.zeros(stream.size) if norm.shift is None else _vector(node, norm.shift, stream.size, 0.0)[at]
        default = 1e-12 if roles.of(node).parts else 1e-5
        yield Norm(index, scale, shift, norm.centred, float(attribute(node, "epsilon", default)))


def _vector(node: ir.Node, slot: int, size: int, missing: float) -> Array:
    value = node.inputs[slot] if slot < len(node.inputs) else None
    if value is None:
        return np.full(size, missing)
    if value.const_value is None or value.const_value.dtype != ir.DataType.FLOAT or value.const_value.size != size:
        raise _UnfitError
    return np.asarray(value.const_value.numpy(), np.float64).reshape(-1)


def _affine(coupling: Coupling, norm: Norm) -> Iterator[str]:
    """Names of the scale and the shift of a normalisation."""
    node = coupling.nodes[norm.node]
    stated = roles.normalisation(node)
    for slot in (stated.scale, stated.shift) if stated else ():
        if slot is not None and slot < len(node.inputs) and node.inputs[slot] is not None:
            yield str(node.inputs[slot].name)  # type: ignore[union-attr]


# --- what reads -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """A node that multiplies a normalised stream by weights.

    Attributes:
        node: Its index.
        weight: Name of the weights.
        direct: Whether nothing lies between the normalisation and it but what moves entries.
    """

    node: int
    weight: str
    direct: bool


def _readers(coupling: Coupling, stream: Space, norm: Norm) -> list[Reader]:
    """All that reads what a normalisation puts out, across what treats all channels alike.

    Raises:
        _UnfitError: If something else reads it.
    """
    first = coupling.nodes[norm.node].outputs[0]
    order = {id(node): index for index, node in enumerate(coupling.nodes)}
    summed = {
        (c.node, c.slot)
        for c in coupling.records.contractions
        if any(_holds(coupling, c.value.axes[a], stream) for a in c.axes)
    }
    readers, pending, passed, moved = list[Reader](), [first], {str(first.name)}, {str(first.name)}
    through: list[ir.Node] = []
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            raise _UnfitError
        for use in value.uses():
            index = order[id(use.node)]
            if (index, use.idx) in summed:
                readers.append(Reader(index, _weight(coupling, stream, use.node, use.idx), value.name in moved))
            elif not roles.has(use.node, roles.Trait.MEASURES):
                through.append(use.node)
                fresh = [v for v in use.node.outputs if v.name not in passed and _axes(coupling, str(v.name), stream)]
                if not fresh and not any(v.name in passed for v in use.node.outputs):
                    raise _UnfitError
                passed |= {str(v.name) for v in fresh}
                if value.name in moved and roles.has(use.node, roles.Trait.MOVES):
                    moved |= {str(v.name) for v in fresh}
                pending += fresh
    given = {str(v.name) for node in through for v in node.inputs if v is not None}
    if any(_axes(coupling, name, stream) for name in given - passed):
        raise _UnfitError  # something else of the stream meets it there
    return readers


def _holds(coupling: Coupling, axis: Iterable[object], stream: Space) -> bool:
    labels = [d.labels for d in axis if d.labels is not None]  # type: ignore[attr-defined]
    return any(np.isin(coupling.column[coupling.strong[one[one > 0]]], stream.columns).any() for one in labels)


def _weight(coupling: Coupling, stream: Space, node: ir.Node, slot: int) -> str:
    """The one initializer, read by this node alone, that a node multiplies a stream by."""
    others = [v for k, v in enumerate(node.inputs) if v is not None and k != slot]
    weights = [v for v in others if set(_axes(coupling, str(v.name), stream)) & coupling.summed.get(str(v.name), set())]
    if len(weights) != 1 or not weights[0].is_initializer() or len(weights[0].uses()) != 1:
        raise _UnfitError
    tensor = weights[0].const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        raise _UnfitError
    return str(weights[0].name)


def _check_readers(coupling: Coupling, stream: Space, readers: Iterable[Reader]) -> None:
    """Refuse a stream that something reads without a normalisation, or of which two read by the same weights."""
    names = [reader.weight for reader in readers]
    if len(set(names)) != len(names):
        raise _UnfitError
    nodes = {reader.node for reader in readers}
    for record in coupling.records.contractions:
        if record.node not in nodes and any(_holds(coupling, record.value.axes[a], stream) for a in record.axes):
            raise _UnfitError


# --- what is written otherwise ----------------------------------------------------------------------------------------


def _centre(model: ir.Model, coupling: Coupling, stream: Space, passed_over: set[str]) -> None:
    """Take the mean over the stream out of what writes it."""
    for name, value in model.graph.initializers.items():
        if name in passed_over or value.const_value is None:
            continue
        axes = [a for a in _axes(coupling, name, stream) if a not in coupling.summed.get(name, ())]
        if axes:
            array = np.asarray(value.const_value.numpy(), np.float64)
            for axis in axes:
                array = array - array.mean(axis=axis, keepdims=True)
            _set(value, array)


def _set(value: ir.Value, array: Array) -> None:
    old = value.const_value
    assert old is not None
    if old.dtype != ir.DataType.FLOAT:
        raise _UnfitError
    value.const_value = ir.tensor(array.astype(np.float32), dtype=old.dtype, name=old.name)


def _replace(model: ir.Model, coupling: Coupling, stream: Space, norm: Norm, readers: Iterable[Reader]) -> Likes:
    """Put a sum of squares in the place of a normalisation, and its scale and shift into what reads it.

    Returns:
        New value -> one of the same type, and of the same shape but for the last axis if that is summed over.
    """
    graph, size = model.graph, stream.size
    gain = np.sqrt(size) * norm.scale
    (at,) = _axes(coupling, str(coupling.nodes[norm.node].outputs[0].name), stream).values()
    shift = np.empty(size)
    shift[at] = norm.shift
    if norm.shift.any() and not _absorbed(model, coupling, norm, readers, shift):
        if (np.abs(gain) < SMALL * np.abs(gain).max()).any():
            raise _UnfitError
        rest = np.empty(size)
        rest[at] = norm.shift / gain
    else:
        rest = None
    for reader in readers:
        _scale(graph.initializers[reader.weight], coupling, stream, gain)
    return _spelled(model, coupling.nodes[norm.node], size * norm.epsilon, rest)


def _scale(value: ir.Value, coupling: Coupling, stream: Space, gain: Array) -> None:
    """Multiply weights by a number for each unit that they are multiplied by."""
    name = str(value.name)
    assert value.const_value is not None
    array = np.asarray(value.const_value.numpy(), np.float64)
    for axis, at in _axes(coupling, name, stream).items():
        if axis in coupling.summed.get(name, ()):
            factor = np.empty(stream.size)
            factor[at] = gain
            array = array * factor.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    _set(value, array)


def _absorbed(model: ir.Model, coupling: Coupling, norm: Norm, readers: Iterable[Reader], shift: Array) -> bool:
    """Put a shift into the biases of what reads it directly; whether all have a place for it."""
    known = {str(linear.node.name): linear for linear in linears(model)}
    taking = [known.get(str(coupling.nodes[reader.node].name)) for reader in readers if reader.direct]
    if len(taking) != len(list(readers)) or any(one is None or one.bias is None for one in taking):
        return False
    matrices = [one.form.matrix(np.asarray(one.weight.const_value.numpy())) for one in taking if one is not None]  # type: ignore[union-attr]
    if any(len(matrix) != 1 or matrix.shape[1] != len(shift) for matrix in matrices):
        return False
    for one, matrix in zip(taking, matrices, strict=True):
        assert one is not None
        one.shift(shift @ matrix[0].astype(np.float64))
    return True


def _spelled(model: ir.Model, old: ir.Node, epsilon: float, rest: Array | None) -> Likes:
    """Spell a normalisation out in the place of a node; what is fused with it is taken apart."""
    graph, name = model.graph, str(old.outputs[0].name)
    before = {str(v.name) for node in graph for v in node.outputs}
    node = next(node for node in graph if node.name == old.name)
    take_apart(model, node)
    result = next(v for node in graph for v in node.outputs if v.name == name)
    likes = {str(v.name): (name, False) for node in graph for v in node.outputs if v.name not in before}
    norm, title = result.producer(), f"{old.name}.squares"
    assert norm is not None
    data = norm.inputs[0]

    def step(kind: str, inputs: list[ir.Value | None], place: str, attributes: dict[str, object]) -> ir.Value:
        made_node = ir.node(kind, inputs, attributes, name=f"{title}.{place}")  # type: ignore[arg-type]
        made_node.outputs[0].name = f"{title}.{place}"
        graph.insert_before(norm, made_node)
        likes[f"{title}.{place}"] = (name, place in ("sum", "shifted", "root"))
        return made_node.outputs[0]

    late = model.opset_imports.get("", 1) >= INPUT
    axes = edit.constant(graph, f"{title}.axes", np.array([-1], np.int64)) if late else None
    inputs = [data, axes] if late else [data]
    total = step("ReduceSumSquare", inputs, "sum", {"keepdims": 1} | ({} if late else {"axes": [-1]}))
    floor = edit.constant(graph, f"{title}.epsilon", np.array(epsilon, np.float32))
    root = step("Sqrt", [step("Add", [total, floor], "shifted", {})], "root", {})
    normal = step("Div", [data, root], "normal", {})
    if rest is not None:
        normal = step("Add", [normal, edit.constant(graph, f"{title}.shift", rest.astype(np.float32))], "whole", {})
    normal.type, normal.shape = result.type, result.shape
    for user, index in list(result.uses()):
        user.replace_input_with(index, normal)
    likes.pop(str(normal.name))
    result.name, normal.name = f"{title}.old", name
    graph.remove(norm, safe=True)
    return likes
