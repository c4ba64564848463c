"""Values that exporters put back by places that count a whole tensor are put back row by row, which can be cut.

What lacks an operator for unpooling adds the start of every row (of one entry of the batch, one channel) to the places
that a pooling found within it, and writes to a tensor laid out as one long axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.graph.constant_folding import initializer

if TYPE_CHECKING:
    from onnxslim_learn.graph.shape_info import Sample, Shapes

ROWS = 2  # axes of which every entry is a row: batch and channel
VERSION = 11  # the operator set that brought ScatterElements


def by_rows(module: ir.Model, shapes: Shapes) -> bool:
    """Let what is put back by places in a whole tensor be put back row by row; says whether there was any."""
    if (module.opset_imports.get("") or 0) < VERSION:
        return False
    changed = False
    for node in [node for node in module.graph if node.op_type == "ScatterND" and not node.domain]:
        flat = _flat(node)
        if flat is not None and all(_by_rows(flat, sample) for sample in shapes.samples):
            _write_by_rows(module.graph, node, flat)
            changed = True
    return changed


@dataclass(frozen=True)
class _Flat:
    """A write to a tensor laid out as one axis: what it writes to, where in each row, what; and who shows the rows."""

    data: ir.Value
    pooled: ir.Value
    places: ir.Value
    starts: ir.Value
    updates: ir.Value
    views: tuple[ir.Node, ...]


def _behind(value: ir.Value | None, *op_types: str) -> ir.Value | None:
    """What a value is the result of, or a view of, by such operators in turn, the last one first."""
    for op_type in op_types:
        node = None if value is None else value.producer()
        if node is None or node.op_type != op_type or node.domain:
            return None
        value = node.inputs[0]
    return value


def _flat(node: ir.Node) -> _Flat | None:
    """The parts of a write to a tensor laid out as one axis, if it is one."""
    data, updates = (_behind(node.inputs[slot], "Reshape") for slot in (0, 2))
    summed = _behind(node.inputs[1], "Unsqueeze", "Reshape")
    add = None if summed is None else summed.producer()
    views = tuple(use.node for use in node.outputs[0].uses())
    shown = views and all(view.op_type == "Reshape" for view in views) and not node.outputs[0].is_graph_output()
    plain = node.attributes.get_string("reduction", "none") == "none"
    if data is None or updates is None or add is None or add.op_type != "Add" or not (shown and plain):
        return None
    for places, starts in (add.inputs, add.inputs[::-1]):
        pooled = _pooled_in_rows(places)
        if pooled is not None and places is not None and starts is not None:
            return _Flat(data, pooled, places, starts, updates, views)
    return None


def _pooled_in_rows(places: ir.Value | None) -> ir.Value | None:
    """The tensor within whose rows a pooling found places: their place in all less the place of the row's first one."""
    node = None if places is None else places.producer()
    if node is None or node.op_type != "Sub" or node.inputs[0] is None:
        return None
    pool, first = node.inputs[0].producer(), _behind(node.inputs[1], "Slice")
    single = None if first is None else first.producer()
    if pool is None or single is None or (pool.op_type, single.op_type) != ("MaxPool", "MaxPool"):
        return None
    begins = node.inputs[1].producer().inputs[1]  # type: ignore[union-attr]
    starts = None if begins is None or begins.const_value is None else begins.const_value.numpy()
    alone = all(set(single.attributes.get_ints(key, [1]) or [1]) == {1} for key in ("kernel_shape", "strides"))
    alone &= not any(single.attributes.get_ints("pads", [0]) or [0])
    return (
        pool.inputs[0]
        if alone and starts is not None and not starts.any() and single.inputs[0] is pool.inputs[0]
        else None
    )


def _by_rows(flat: _Flat, sample: Sample) -> bool:
    """Whether the starts that are added are those of the rows that the result is shown as, each as long as pooled."""
    shape, pooled = sample.shape[str(flat.updates.name)], sample.shape[str(flat.pooled.name)]
    rows, length = shape[:ROWS], math.prod(pooled[ROWS:])
    shown = [sample.shape[str(view.outputs[0].name)] for view in flat.views]
    alike = [sample.shape[str(flat.data.name)], pooled, *shown]
    if any(s[:ROWS] != rows or math.prod(s[ROWS:]) != length for s in alike):
        return False
    starts, counted = _value(flat.starts, sample), np.arange(math.prod(rows)).reshape(rows) * length
    if starts is None or starts.ndim != len(shape) or sample.shape[str(flat.places.name)] != shape:
        return False
    return bool((starts == counted.reshape(*rows, *[1] * (starts.ndim - ROWS))).all())


def _value(value: ir.Value, sample: Sample) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    tensor = value.const_value
    return sample.value.get(str(value.name)) if tensor is None else np.asarray(tensor.numpy())


def _write_by_rows(graph: ir.Graph, node: ir.Node, flat: _Flat) -> None:
    """Put a ScatterElements along the rows in place of a write to one long axis."""
    name, rows = node.outputs[0].name, []
    for k, value in enumerate((flat.data, flat.places, flat.updates)):
        target = initializer(graph, f"{node.name}.rows{k}", np.array([0, 0, -1], np.int64))
        view = ir.Node("", "Reshape", [value, target], name=f"{node.name}.viewed{k}")
        view.outputs[0].name, view.outputs[0].type = f"{name}.viewed{k}", value.type
        graph.insert_before(node, view)
        rows.append(view.outputs[0])
    written = ir.Node("", "ScatterElements", rows, [ir.AttrInt64("axis", ROWS)], name=f"{node.name}.written")
    written.outputs[0].name, written.outputs[0].type = f"{name}.written", node.outputs[0].type
    graph.insert_before(node, written)
    for view in flat.views:
        view.replace_input_with(0, written.outputs[0])
    graph.remove(node, safe=True)
