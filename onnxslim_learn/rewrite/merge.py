"""Merge similar units before they are cut: one stands for all (Model Folding, arXiv:2502.10216).

What makes a unit (its producers' slices, biases, normalisations) becomes the mean over the units it stands for; what
consumers multiply it by becomes their sum. Units that compute the same so change no output.

A mean of ``n`` slices is smaller than they are. Under inputs of equal variance that are not correlated, the variance
of what it makes is ``‖Σ w_i‖² / n² = (1 + (n - 1) r) / n`` of their mean variance ``Σ ‖w_i‖² / n``, where ``r = Σ_{i≠j}
⟨w_i, w_j⟩ / ((n - 1) Σ ‖w_i‖²)`` is their mean correlation. So what linear maps make (convolutions, depthwise ones
included, and matrix products) is scaled by ``sqrt(n / (1 + (n - 1) r))``, at most :data:`LARGEST_GAIN`: by the scale of
a batch normalisation right after, which has subtracted the mean, else by the map's own slices. Biases, shifts and
look-up tables stay plain means. Cut to half the MACs without repair, a ResNet-20 (92.9 % on Fashion-MNIST) keeps 76 %
with this factor and 18 % without; with its normalisations folded into the convolutions 50 % and 18 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import scipy.sparse as sp

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.relations import Digit, Value, lacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxslim_learn.array_types import Labels
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.relations import Value
    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.coupling.solver import Coupling


LARGEST_GAIN = 2.0  # slices that nearly cancel out have no direction in common that is worth so much


def inherited(merged_into: Labels, gone: Array) -> Labels:
    """The class that stands for every class: of what goes its heir, or the heir's heir; itself where all of them go."""
    themselves = np.arange(len(merged_into))
    standing: Labels = np.where(gone, merged_into, themselves)
    while (further := np.where(gone[standing], merged_into[standing], standing)).tolist() != standing.tolist():
        standing = further
    return np.where(gone[standing], themselves, standing)


def merged(removal: Removal) -> ir.Model:
    """The original in normal form with the weights of merged units combined where the unit that stays is.

    Nothing is cut; units that go keep what they have.
    """
    model = removal.coupling.graph.model.clone()
    if removal.merged_into is None:
        return model
    gains = _gains(removal)
    for name, value in model.graph.initializers.items():
        layout = removal.coupling.values.get(name)
        if layout is None or not floating(value):
            continue
        old = value.const_value
        assert old is not None
        array = np.asarray(old.numpy())
        summed = removal.coupling.summed.get(name, set())
        new = combine(array, layout, removal, summed)
        if name in gains and (gains[name] != 1).any():
            new = _scaled(new, layout, removal, gains[name], summed)
        if new is not array:
            cast = np.ascontiguousarray(new).astype(array.dtype)
            value.const_value = ir.tensor(cast, dtype=old.dtype, name=old.name, doc_string=old.doc_string)
    return model


def _gains(removal: Removal) -> dict[str, Array]:
    """Tensor -> factor for the slices of every class: a linear map, or the scale of a batch normalisation after it."""
    coupling, gains = removal.coupling, dict[str, Array]()
    for node in coupling.nodes:
        for source in node.inputs:
            name = "" if source is None else str(source.name)
            if name in coupling.summed and name in coupling.graph.initializers:
                value = coupling.graph.initializers[name]
                if floating(value):
                    gains[_scale_after(node) or name] = _gain(removal, name, value)
    return gains


def _scale_after(node: ir.Node) -> str | None:
    """The initializer that scales a node's output after its stored mean was subtracted, if one does."""
    uses = list(node.outputs[0].uses())
    user = uses[0].node if len(uses) == 1 else None
    norm = None if user is None else roles.normalisation(user)
    stored = user is not None and norm is not None and norm.stored and norm.scale is not None
    scale = user.inputs[norm.scale] if stored else None  # type: ignore[union-attr,index]
    return str(scale.name) if scale is not None and scale.is_initializer() else None


def _gain(removal: Removal, name: str, value: ir.Value) -> Array:
    """By what the slices of every class are to be multiplied after they were averaged; 1 where they were not."""
    coupling, gain = removal.coupling, np.ones(removal.coupling.size)
    layout = coupling.values[name]
    assert value.const_value is not None
    array = np.asarray(value.const_value.numpy(), np.float64)
    for digit, summed in _labelled(layout, coupling.summed[name]):
        ties = None if summed else _ties(removal, layout, digit)
        if ties is None:
            continue
        rows, count = front(array, layout, digit), np.asarray(ties.sum(axis=1)).reshape(-1)
        before = ties @ (rows**2).sum(axis=1) / count
        after = ((ties @ rows / count[:, None]) ** 2).sum(axis=1)
        several = np.flatnonzero((count > 1) & (after > 0))
        assert digit.labels is not None
        classes = coupling.strong[digit.labels.reshape(-1)[several]]
        gain[classes] = np.minimum(np.sqrt(before[several] / after[several]), LARGEST_GAIN)
    return gain


def _labelled(layout: Value, summed: Iterable[int]) -> list[tuple[Digit, bool]]:
    """The labelled digits of a layout, and whether each lies on one of the ``summed`` axes."""
    axes = set(summed)
    return [(d, axis in axes) for axis, digits in enumerate(layout.axes) for d in digits if d.labels is not None]


def _scaled(array: Array, layout: Value, removal: Removal, gain: Array, summed: Iterable[int]) -> Array:
    """An array whose slices are multiplied by their class's factor, but for ``summed`` axes."""
    for digit, is_summed in _labelled(layout, summed):
        if not is_summed:
            assert digit.labels is not None
            factors = np.where(digit.labels > 0, gain[removal.coupling.strong[digit.labels]], 1.0).reshape(-1, 1)
            array = _back(front(array, layout, digit) * factors, layout, digit)
    return array


def floating(value: ir.Value) -> bool:
    """Whether an initializer holds floating-point numbers."""
    return value.const_value is not None and value.const_value.dtype.is_floating_point()


def combine(array: Array, layout: Value, removal: Removal, summed: Iterable[int] = ()) -> Array:
    """An array of the layout's shape whose slices at units that stay are means (sums along ``summed`` axes)."""
    for digit, is_summed in _labelled(layout, summed):
        ties = _ties(removal, layout, digit)
        if ties is not None:
            rows = ties @ front(array.astype(np.float64, copy=False), layout, digit)
            array = _back(rows if is_summed else rows / np.asarray(ties.sum(axis=1)), layout, digit)
    return array


def stands_for(removal: Removal, layout: Value, axis: int) -> Labels | sp.csc_array:
    """What positions of an axis that stay are of the original's: which ones, or means, ``(positions, left)``."""
    digits, stays = layout.axes[axis], np.flatnonzero(removal.keep(layout, axis))
    size, keys = layout.shape[axis], {d.key for d in digits}
    if removal.merged_into is None or not all(key in keys for d in digits for key in d.deps):
        return stays
    whole = combine(np.eye(size, dtype=np.float32), Value((digits, (Digit(-1, size),))), removal)
    return sp.csc_array(sp.csr_array(whole.astype(np.float32))[stays].T)


def _ties(removal: Removal, layout: Value, digit: Digit) -> Any | None:
    """Sparse 0/1 matrix over the flat labels of a digit: what each slice stands for; ``None`` if all for themselves.

    Cells of rows that are merged as a whole are left: they follow their row.
    """
    if digit.labels is None or removal.merged_into is None:
        return None
    strong, merged_into = removal.coupling.strong, removal.merged_into
    classes = np.where(digit.labels > 0, strong[digit.labels], -1)
    moves = (classes >= 0) & (merged_into[classes] != classes)
    for rows in lacked(layout.digits, digit.deps, (), digit.size):
        moves &= merged_into[strong[rows]] == strong[rows]
    from_, flat = np.flatnonzero(moves), classes.reshape(-1)
    if not len(from_):
        return None
    turns = _turns(flat)
    places = {pair: k for k, pair in enumerate(zip(flat.tolist(), turns.tolist(), strict=True))}
    to = [places[int(merged_into[flat[k]]), int(turns[k])] for k in from_]
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


def front(array: Array, layout: Value, digit: Digit) -> Array:
    """An array of the layout's shape brought to (number of labels of a digit, everything else)."""
    view, count = fronted(array, layout, digit), len(digit.deps) + 1
    return view.reshape(int(np.prod(view.shape[:count])), -1)


def fronted(array: Array, layout: Value, digit: Digit) -> Array:
    """A view of an array of the layout's shape: axes of a digit's labels first, then one for each other digit."""
    sizes, order, _ = _order(layout, digit)
    return array.reshape(sizes).transpose(order)


def _back(rows: Array, layout: Value, digit: Digit) -> Array:
    """The inverse of :func:`front`."""
    sizes, order, _ = _order(layout, digit)
    view = rows.reshape([sizes[k] for k in order])
    return view.transpose(np.argsort(order)).reshape(layout.shape)


def _order(layout: Value, digit: Digit) -> tuple[list[int], list[int], int]:
    """Sizes of all digits, the order that puts a digit behind what it depends on in front, and how many these are."""
    keys = list(layout.digits)
    last = [*digit.deps, digit.key]
    order = [keys.index(k) for k in last] + [i for i, k in enumerate(keys) if k not in last]
    return [d.size for d in layout.digits.values()], order, len(last)


def by_class(coupling: Coupling, groups: Sequence[Group], merged_into: Mapping[str, Labels]) -> Labels:
    """For every class the one that it is merged into when it goes, or itself.

    Args:
        coupling: The model.
        groups: What is decided on.
        merged_into: Group -> for each of its units the one that it is merged into, or itself. What lies in rows that
            are merged follows these.
    """
    standing = np.arange(coupling.size)
    for group in sorted(groups, key=lambda g: not g.rows):
        classes = lined_up(coupling, group) if group.name in merged_into else None
        if classes is not None and (standing[classes] == classes).all():
            standing[classes] = classes[merged_into[group.name]]
    return standing


def lined_up(coupling: Coupling, group: Group) -> Labels | None:
    """Classes of every unit, ``(units, classes)``, such that those of one column correspond; ``None`` if they do not.

    A unit that is a row has its cells, too.
    """
    if group.rows:
        classes_of_unit = [np.flatnonzero(coupling.close(np.arange(coupling.columns) == unit)) for unit in group.units]
    else:
        order = np.argsort(coupling.column, kind="stable")
        ends = np.searchsorted(coupling.column[order], [group.units, group.units + 1])
        classes_of_unit = [order[a:b] for a, b in ends.T]
    if len({len(classes) for classes in classes_of_unit}) > 1:
        return None
    stacked: Labels = np.stack(classes_of_unit)
    marks = _marks(coupling)[stacked]
    return stacked if (marks == marks[:1]).all() else None


def _marks(coupling: Coupling) -> Array:
    """A number for every class, equal for those that occur equally often in every label array of every value."""
    rng, marks = np.random.default_rng(0), np.zeros(coupling.size, np.uint64)
    for layout in coupling.values.values():
        for digit in layout.digits.values():
            code = rng.integers(1, 2**63, dtype=np.uint64)
            if digit.labels is not None:
                atoms = digit.labels[digit.labels > 0]
                np.add.at(marks, coupling.strong[atoms], code)
    return marks


def refusal(coupling: Coupling, group: Group) -> str:
    """Why units of a group cannot stand for each other, or an empty string."""
    classes = None if group.competes else lined_up(coupling, group)
    if classes is None:
        return "its units compete" if group.competes else "its units are not laid out alike"
    inside = np.zeros(coupling.size, bool)
    inside[classes] = True
    for name in dict.fromkeys(member.rpartition(":")[0] for member in group.members):
        initializer = coupling.graph.initializers[name]
        if not floating(initializer):
            return f"{name} is not of floating-point numbers"
        value, axes = coupling.values[name], coupling.summed.get(name, set())
        if not _occurs(coupling, value, axes, inside):
            continue
        if len({(roles.of(use.node), use.idx) for use in initializer.uses()}) > 1:
            return f"{name} is summed over and used in other ways"
        grouped = coupling.records.summed.get(name, set())
        if group.rows and any(digit.deps for axis in grouped for digit in value.axes[axis]):
            return f"{name} has its groups and what they sum over on one axis"
    nodes, summed = coupling.nodes, coupling.summed
    for record in coupling.records.contractions:  # of rows, too, if within them: heads attend by queries and keys
        node = nodes[record.node]
        source = node.inputs[record.slot]
        assert source is not None
        if source.is_initializer() or not _occurs(coupling, record.value, record.axes, inside, within=True):
            continue
        names = [str(v.name) for v in node.inputs if v is not None and v.is_initializer() and v.name in summed]
        if not any(_occurs(coupling, coupling.values[n], summed[n], inside, within=True) for n in names):
            return f"{coupling.where(record.node)} sums over it without weights"
    return ""


def _occurs(coupling: Coupling, value: Value, axes: Iterable[int], inside: Array, *, within: bool = False) -> bool:
    """Whether units lie along some axes of a value, other than ``within`` rows that are units themselves."""
    for axis in axes:
        for digit in value.axes[axis]:
            if digit.labels is not None:
                hit = inside[coupling.strong[digit.labels]] & (digit.labels > 0)
                for rows in [] if within else lacked(value.digits, digit.deps, (), digit.size):
                    hit &= ~(inside[coupling.strong[rows]] & (rows > 0))
                if hit.any():
                    return True
    return False
