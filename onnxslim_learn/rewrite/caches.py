"""Caches of keys and values whose heads may go, though they are inputs and outputs of the model.

A caller holds them, so that their widths are the caller's, and heads that meet them stay. :func:`open_heads` puts a
selection between each cache and the model, a product with a matrix of ones and zeros, ``(heads of the model)(heads of
the caller)``: inputs and outputs are as they were, and heads of the model are units like others. After a cut,
:func:`narrow` takes the selections out again: caches have the heads that stay, and the caller's code must give so many.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.roles import Trait
from onnxslim_learn.errors import InputError
from onnxslim_learn.rewrite import edit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxslim_learn.array_types import Array

MARK = "onnxslim_learn.selects_heads"  # in the metadata of a selection
TAKES, GIVES = "hw,bwts->bhts", "wh,bhts->bwts"  # of what a caller gives, and what it is given
RANK, HEADS = 4, 1


@dataclass(frozen=True)
class Cache:
    """A cache of the caller's: an input or output of the model ``(batch)(heads)(positions)(size)``.

    Attributes:
        name: The input or output.
        heads: How many heads it has.
        kept: Which of those it had before, after a cut.
    """

    name: str
    heads: int
    kept: tuple[int, ...] = ()


def open_heads(model: ir.Model) -> list[Cache]:
    """Put selections between caches and a model, in place; returns the caches.

    Raises:
        InputError: If it has no caches, or selections already.
    """
    if any(MARK in node.metadata_props for node in model.graph):
        raise InputError("caches: heads of caches are open already. Cut the model, then narrow it with ⟨narrow⟩.")
    given = [value for value in model.graph.inputs if _is_cache(value) and any(map(_joined, _readers(value)))]
    put_out = [value for value in model.graph.outputs if _is_cache(value) and _reads_one(value, given)]
    if not given:
        raise InputError("caches: no input (batch)(heads)(positions)(size) is put out again, longer. Leave it out.")
    caches = [Cache(str(value.name), _heads(value)) for value in (*given, *put_out)]
    for value in given:
        _take(model.graph, value)
    for value in put_out:
        _give(model.graph, value)
    return caches


def narrow(model: ir.Model) -> list[Cache]:
    """Take selections out again, in place; caches are left with the heads that stay.

    Raises:
        InputError: If there are no selections, or some do more than select.
    """
    selections = [node for node in model.graph if MARK in node.metadata_props]
    if not selections:
        raise InputError("caches: no heads of caches are open. Open them before the model is cut.")
    return [_narrow(model.graph, list(steps)) for _, steps in itertools.groupby(selections, key=_of_cache)]


def _of_cache(step: ir.Node) -> str:
    """Which cache a step of a selection is about: its name without its number."""
    return str(step.name).rpartition(".")[0]


def _heads(value: ir.Value) -> int:
    assert value.shape is not None
    return int(value.shape[HEADS])  # type: ignore[arg-type]


def _is_cache(value: ir.Value) -> bool:
    shape, kind = value.shape, value.dtype
    if shape is None or len(shape) != RANK or kind is None or not kind.is_floating_point():
        return False
    heads = shape[HEADS]
    return isinstance(heads, int) and heads > 1


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    return (use.node for use in value.uses())


def _joined(node: ir.Node) -> bool:
    """Whether a node puts positions behind those of a cache, and puts the whole out."""
    return roles.has(node, Trait.JOINS | Trait.ATTENDS) and any(v.is_graph_output() for v in node.outputs)


def _reads_one(value: ir.Value, caches: list[ir.Value]) -> bool:
    node = value.producer()
    return node is not None and any(one is cache for one in node.inputs for cache in caches)


def _take(graph: ir.Graph, value: ir.Value) -> None:
    """Put a selection behind a cache that the caller gives."""
    readers = [(use.node, use.idx) for use in value.uses()]
    selected = _selection(graph, value, _heads(value), TAKES, readers[0][0], after=False)
    for node, slot in readers:
        node.replace_input_with(slot, selected)


def _give(graph: ir.Graph, value: ir.Value) -> None:
    """Put a selection in front of a cache that the caller is given, under its name."""
    name, node = str(value.name), value.producer()
    assert node is not None
    value.name = f"{name}.heads"
    selected = _selection(graph, value, _heads(value), GIVES, node, after=True)
    selected.name, selected.shape, selected.type = name, value.shape, value.type
    value.shape = None
    graph.outputs[list(graph.outputs).index(value)] = selected


def _selection(graph: ir.Graph, value: ir.Value, heads: int, equation: str, node: ir.Node, *, after: bool) -> ir.Value:
    """Put a selection before or after a node; what has no product of its type on all devices goes through float32."""
    kind, name = value.dtype, f"{value.name}.selected"
    assert kind is not None
    matrix = edit.constant(graph, f"{name}.by", np.eye(heads, dtype=np.float32))
    steps: list[tuple[str, list[ir.Value], dict[str, int | str]]] = [("Einsum", [matrix], {"equation": equation})]
    if kind != ir.DataType.FLOAT:
        steps = [("Cast", [], {"to": int(ir.DataType.FLOAT)}), *steps, ("Cast", [], {"to": int(kind)})]
    selected, place = value, node
    for number, (op_type, first, attributes) in enumerate(steps):
        step = ir.Node("", op_type, [*first, selected], ir.convenience.convert_attributes(attributes))
        step.name, step.metadata_props[MARK] = f"{name}.{number}", equation
        (selected,) = step.outputs
        selected.name = f"{name}.{number}.out"
        if after:
            graph.insert_after(place, step)
            place = step
        else:
            graph.insert_before(place, step)
    return selected


def _narrow(graph: ir.Graph, steps: list[ir.Node]) -> Cache:
    """Take one selection out again."""
    first, last = steps[0], steps[-1]
    product = next(step for step in steps if len(step.inputs) > 1)  # the others convert
    gives = product.metadata_props[MARK] == GIVES
    matrix, before, behind = product.inputs[0], first.inputs[-1], last.outputs[0]
    assert matrix is not None and before is not None and matrix.const_value is not None
    array = matrix.const_value.numpy().T if gives else matrix.const_value.numpy()
    kept = _chosen(array, str(product.name))
    end = behind if gives else before
    cache, name = Cache(str(end.name), array.shape[1], kept), str(end.name)
    shape = ir.Shape([len(kept) if axis == HEADS else size for axis, size in enumerate(end.shape or ())])
    if gives:
        graph.outputs[list(graph.outputs).index(behind)] = before
        ir.convenience.replace_all_uses_with(behind, before)
        behind.name, before.name, before.type = f"{name}.wide", name, behind.type
        before.shape = shape
    else:
        ir.convenience.replace_all_uses_with(behind, before)
        before.shape = shape
    graph.remove(reversed(steps), safe=True)
    if not matrix.uses():
        graph.initializers.pop(str(matrix.name))
    return cache


def _chosen(matrix: Array, name: str) -> tuple[int, ...]:
    """Which column each row of a matrix selects.

    Raises:
        InputError: If it does more than that.
    """
    places = matrix.argmax(axis=1)
    if not np.array_equal(matrix, np.eye(matrix.shape[1], dtype=matrix.dtype)[places]):
        raise InputError(f"caches: {name} must select heads, but does more. Narrow a model that was only cut.")
    return tuple(int(place) for place in places)
