"""Merge similar units before they are cut: one stands for all (Model Folding, arXiv:2502.10216).

What makes a unit (its producers' slices, biases, normalisations) becomes the mean over the units it stands for; what
consumers multiply it by becomes their sum. Units that compute the same so change no output.

A mean of ``n`` slices is smaller than they are: under inputs of equal variance that are not correlated, the variance of
what it makes is ``(1 + (n - 1) r) / n`` of theirs, where ``r = Σ_{i≠j} ⟨w_i, w_j⟩ / ((n - 1) Σ ‖w_i‖²)`` is their mean
correlation. So it is scaled by ``sqrt(n / (1 + (n - 1) r))``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import scipy.sparse as sp

from onnxslim_learn.graph.ledger import lacked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxslim_learn.graph.coupling import Coupling, Removal
    from onnxslim_learn.graph.ledger import Digit, Labels, Value

Array = np.ndarray[Any, Any]

LARGEST_GAIN = 2.0  # slices that nearly cancel out have no direction in common that is worth so much


def merged(removal: Removal) -> ir.Model:
    """The original in normal form with the weights of merged units combined where the unit that stays is.

    Nothing is cut; units that go keep what they have.
    """
    model = removal.coupling.graph.model.clone()
    if removal.heirs is None:
        return model
    gains = _gains(removal)
    for name, value in model.graph.initializers.items():
        layout = removal.coupling.values.get(name)
        if layout is None or not floating(value):
            continue
        old = value.const_value
        assert old is not None
        array = np.asarray(old.numpy())
        new = combine(array, layout, removal, removal.coupling.summed.get(name, set()))
        new = scaled(new, layout, removal, gains[name], removal.coupling.summed.get(name, ())) if name in gains else new
        if new is not array:
            cast = np.ascontiguousarray(new).astype(array.dtype)
            value.const_value = ir.tensor(cast, dtype=old.dtype, name=old.name, doc_string=old.doc_string)
    return model


def _gains(removal: Removal) -> dict[str, Array]:
    """Tensor -> factor for the slices of every class: of a linear map, or of the scale of the normalisation after it."""
    coupling = removal.coupling
    found: dict[str, Array] = {}
    for node in coupling.graph.nodes:
        for source in node.inputs:
            name = "" if source is None else str(source.name)
            value = coupling.graph.initializers.get(name)
            if value is None or name not in coupling.summed or not floating(value):
                continue
            scale = _scale_after(node)
            gain = _gain(removal, coupling.values[name], np.asarray(value.const_value.numpy(), np.float64), coupling.summed[name])
            found[name if scale is None else scale] = gain
    return found


def _scale_after(node: ir.Node) -> str | None:
    users = list(node.outputs[0].uses())
    user = users[0].node if len(users) == 1 else None
    if user is not None and user.op_type == "BatchNormalization" and user.inputs[1] is not None:
        return str(user.inputs[1].name)
    return None


def _gain(removal: Removal, layout: Value, array: Array, summed: Iterable[int]) -> Array:
    gain = np.ones(removal.coupling.size)
    for axis, digits in enumerate(layout.axes):
        for digit in digits:
            ties = None if axis in summed else _ties(removal, layout, digit)
            if ties is None:
                continue
            assert digit.labels is not None
            rows, count = _front(array, layout, digit), np.asarray(ties.sum(axis=1)).reshape(-1)
            own = ties @ (rows**2).sum(axis=1) / count
            mean = ((ties @ rows / count[:, None]) ** 2).sum(axis=1)
            where = (count > 1) & (digit.labels.reshape(-1) > 0)
            classes = removal.coupling.strong[digit.labels.reshape(-1)[where]]
            gain[classes] = np.minimum(np.sqrt(own[where] / np.maximum(mean[where], 1e-30)), LARGEST_GAIN)
    return gain


def scaled(array: Array, layout: Value, removal: Removal, gain: Array, summed: Iterable[int] = ()) -> Array:
    """An array whose slices are multiplied by their class's factor, but for ``summed`` axes."""
    for axis, digits in enumerate(layout.axes):
        for digit in digits:
            if digit.labels is None or axis in summed:
                continue
            factors = np.where(digit.labels > 0, gain[removal.coupling.strong[digit.labels]], 1.0).reshape(-1, 1)
            array = _back(_front(array, layout, digit) * factors, layout, digit)
    return array


def floating(value: ir.Value) -> bool:
    """Whether an initializer holds floating-point numbers."""
    return value.const_value is not None and value.const_value.dtype.is_floating_point()


def combine(array: Array, layout: Value, removal: Removal, summed: Iterable[int] = ()) -> Array:
    """An array of the layout's shape whose slices at units that stay are means (sums along ``summed`` axes)."""
    for axis, digits in enumerate(layout.axes):
        for digit in digits:
            ties = _ties(removal, layout, digit)
            if ties is not None:
                rows = _front(array.astype(np.float64, copy=False), layout, digit)
                rows = ties @ rows
                if axis not in summed:
                    rows /= np.asarray(ties.sum(axis=1))
                array = _back(rows, layout, digit)
    return array


def _ties(removal: Removal, layout: Value, digit: Digit) -> Any | None:
    """Sparse 0/1 matrix over the flat labels of a digit: which slices a slice stands for; ``None`` if just for itself.

    Cells of rows that are merged as a whole are left: they follow their row.
    """
    if digit.labels is None or removal.heirs is None:
        return None
    strong, heirs = removal.coupling.strong, removal.heirs
    classes = np.where(digit.labels > 0, strong[digit.labels], -1)
    moves = (classes >= 0) & (heirs[classes] != classes)
    for rows in lacked(layout.digits, digit.deps, (), digit.size):
        moves &= heirs[strong[rows]] == strong[rows]
    from_, flat = np.flatnonzero(moves), classes.reshape(-1)
    if not len(from_):
        return None
    turns = _turns(flat)
    places = {pair: k for k, pair in enumerate(zip(flat.tolist(), turns.tolist(), strict=True))}
    to = [places[int(heirs[flat[k]]), int(turns[k])] for k in from_]
    moved = sp.coo_matrix((np.ones(len(to)), (to, from_)), shape=(flat.size, flat.size))
    return sp.identity(flat.size, format="csr") + moved.tocsr()


def _turns(classes: Labels) -> Labels:
    """How often the class of each position has occurred before it."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    first = np.searchsorted(ordered, ordered)
    turns = np.empty_like(classes)
    turns[order] = np.arange(len(classes)) - first
    return turns


def _front(array: Array, layout: Value, digit: Digit) -> Array:
    """An array reshaped to (number of labels of a digit, everything else)."""
    sizes, order, own = _order(layout, digit)
    view = array.reshape(sizes).transpose(order)
    return view.reshape(int(np.prod(view.shape[:own])), -1)


def _back(rows: Array, layout: Value, digit: Digit) -> Array:
    """The inverse of :func:`_front`."""
    sizes, order, _ = _order(layout, digit)
    view = rows.reshape([sizes[k] for k in order])
    return view.transpose(np.argsort(order)).reshape(layout.shape)


def _order(layout: Value, digit: Digit) -> tuple[list[int], list[int], int]:
    """Sizes of all digits, the order that brings a digit and what it depends on to the front, and how many these are."""
    keys = list(layout.digits)
    own = [*digit.deps, digit.key]
    order = [keys.index(k) for k in own] + [i for i, k in enumerate(keys) if k not in own]
    return [d.size for d in layout.digits.values()], order, len(own)
