"""Tensors inside a net that a smaller one is taught to reproduce, beside its outputs.

As in FitNets (Romero et al. 2015, arXiv:1412.6550), but the tensors are those of the original by name, so that nothing
has to be learnt in between: what was cut keeps a tensor with fewer positions, and these are compared with the same
positions of the original. While widths are still open, only tensors are compared that no cut can make narrower:
matching the others would hold on to what shall go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.groups import expression
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import InputError
from onnxslim_learn.rewrite.slim import staying

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group


FLOATS = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE))


def find(analysis: Analysis, patterns: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the tensors to reproduce.

    Args:
        analysis: The original.
        patterns: Regular expressions of names; without any, the sums of residual branches, and where a net has none,
            what its layers read.

    Raises:
        InputError: If a pattern is invalid or finds nothing.
    """
    inside = _inside(analysis)
    if not patterns:
        return _sums(analysis, inside) or _read(analysis, inside)
    names: set[str] = set()
    for pattern in patterns:
        hits = {name for name in inside if expression("⟨features⟩", pattern).search(name)}
        if not hits:
            some = ", ".join(inside[:3]) or "none"
            raise InputError(f"⟨features⟩ {pattern}: finds no tensor of floats inside the model (it has {some}, ...).")
        names |= hits
    return tuple(name for name in inside if name in names)


def _inside(analysis: Analysis) -> list[str]:
    """Float tensors that nodes make and that are no outputs, in the order of the graph."""
    sample, outputs = analysis.graph.shapes.nominal, {str(v.name) for v in analysis.graph.model.graph.outputs}
    names = [str(value.name) for node in analysis.graph.nodes for value in node.outputs if value.name]
    return [name for name in names if sample.dtype.get(name) in FLOATS and name not in outputs]


def _sums(analysis: Analysis, inside: Sequence[str]) -> tuple[str, ...]:
    """What adds up tensors of its own shape, none of them a weight."""
    shape, names = analysis.graph.shapes.nominal.shape, []
    for node in analysis.graph.nodes:
        name, read = str(node.outputs[0].name), [value for value in node.inputs if value is not None]
        same_shape = all(not v.is_initializer() and shape.get(str(v.name)) == shape.get(name) for v in read)
        if roles.of(node).arithmetic == "add" and same_shape and name in inside:
            names.append(name)
    return tuple(names)


def _read(analysis: Analysis, inside: Sequence[str]) -> tuple[str, ...]:
    """What is summed over."""
    nodes = analysis.graph.nodes
    values = [nodes[one.node].inputs[one.slot] for one in analysis.coupling.records.contractions]
    read = {str(value.name) for value in values if value is not None}
    return tuple(name for name in inside if name in read)


def kept(removal: Removal, names: Sequence[str]) -> dict[str, dict[int, Array]]:
    """What of every tensor a cut leaves: axis -> positions, for axes that lose some.

    Tensors of which nothing is left, or other positions in every row, are left out.
    """
    positions: dict[str, dict[int, Array]] = {}
    for name in names:
        axes: dict[int, Array] = {}
        layout = removal.coupling.values.get(name)
        for axis in range(0 if layout is None else len(layout.axes)):
            assert layout is not None
            if all(d.labels is None or removal.kept(d).all() for d in layout.axes[axis]):
                continue
            _, places = staying(layout, axis, removal)
            if not places.size or (places != places[:1]).any():
                break
            axes[axis] = places[0]
        else:
            positions[name] = axes
    return positions


def untouched(analysis: Analysis, groups: Sequence[Group], names: Sequence[str]) -> dict[str, dict[int, Array]]:
    """Those tensors that lose nothing whatever is cut of some groups, as :func:`kept` tells them."""
    free = np.zeros(analysis.coupling.columns, bool)
    for group in groups:
        free[group.units] = True
    positions = kept(Removal(analysis.coupling, analysis.coupling.close(free)), names)
    return {name: axes for name, axes in positions.items() if not axes}
