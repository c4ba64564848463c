"""The reference a slimmed model is checked against: the original with removed positions zeroed where consumed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.graph.layout import over
from onnxslim_learn.rewrite import edit

if TYPE_CHECKING:
    from onnxslim_learn.graph.coupling import Removal
    from onnxslim_learn.graph.ledger import Value


def mask(removal: Removal) -> ir.Model:
    """Build the masked original: a product with 0 and 1 in front of every contraction input that loses positions."""
    coupling = removal.coupling
    model = coupling.graph.model.clone()
    nodes = list(model.graph)
    for contraction in coupling.records.contractions:
        keep = mask_array(contraction.value, contraction.axes, removal)
        if keep.all():
            continue
        node = nodes[contraction.node]
        source = node.inputs[contraction.slot]
        assert source is not None
        dtype = ir.DataType(coupling.graph.shapes.analysis.dtype[str(source.name)])
        factor = edit.constant(model.graph, f"{node.name}.mask{contraction.slot}", keep.astype(dtype.numpy()))
        product = ir.Node("", "Mul", [source, factor], name=f"{node.name}.masked{contraction.slot}")
        product.outputs[0].name = f"{node.name}.masked{contraction.slot}"
        model.graph.insert_before(node, product)
        node.replace_input_with(contraction.slot, product.outputs[0])
    return model


def mask_array(value: Value, axes: tuple[int, ...], removal: Removal) -> np.ndarray[Any, Any]:
    """Which elements stay, as booleans that broadcast against a tensor of this layout; only ``axes`` count."""
    digits = [d for axis in axes for d in value.axes[axis] if d.labels is not None]
    sizes = {d.key: d.size for d in value.digits.values()}
    keys = list(sizes)
    needed = {k for d in digits for k in (d.key, *d.deps)}
    full = {k for axis in value.axes if any(d.key in needed for d in axis) for k in (d.key for d in axis)}
    keep = np.ones([sizes[k] if k in full else 1 for k in keys], bool)
    for digit in digits:
        own = [*digit.deps, digit.key]
        keep &= over(removal.kept(digit), own, keys, {k: n if k in own else 1 for k, n in sizes.items()})
    return keep.reshape([math.prod(sizes[d.key] if d.key in full else 1 for d in axis) for axis in value.axes])
