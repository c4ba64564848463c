"""What samples say about the inputs of every contraction that multiplies weights: means and products of its units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling.relations import Value, parts
from onnxslim_learn.runtime.executor import Runner
from onnxslim_learn.select.weight_slices import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from onnxslim_learn.coupling.context import Contraction
    from onnxslim_learn.coupling.solver import Coupling


ROWS = 32768  # positions per contraction that count, drawn by chance where there are more
RIDGE = 1e-3  # of the mean square: keeps the inverse of the products tame
LARGEST = 1e15  # of an activation: squares of more add up beyond single precision
WIDEST = 8192  # positions of a unit axis up to which products of pairs are kept


@dataclass(frozen=True)
class Inputs:
    """The inputs of one contraction, one entry per position of its labelled summed digits.

    Attributes:
        classes: ``(c,)``: class of each position, -1 if it can never go.
        mean: ``(c,)``: mean over samples and places.
        products: ``(c, c)``: mean products of pairs, or ``(c,)``: mean squares, where pairs were not asked for.
        weights: ``(c, n)``: what a position is multiplied by.
        output: Name of what the contraction puts out.
    """

    classes: Array
    mean: Array
    products: Array
    weights: Array
    output: str

    @property
    def squares(self) -> Array:
        """Mean squares ``(c,)``."""
        return self.products if self.products.ndim == 1 else np.diagonal(self.products)

    @property
    def variance(self) -> Array:
        """Variances ``(c,)``."""
        result: Array = np.maximum(self.squares - self.mean**2, 0)
        return result


def inverse_covariance(inputs: Inputs) -> Array:
    """The inverse of the covariance of a contraction's inputs with a ridge, ``(c, c)``; of squares alone ``(c,)``."""
    if inputs.products.ndim == 1:
        return 1 / (inputs.variance + RIDGE * max(float(inputs.variance.mean()), 1e-12))
    products = inputs.products.astype(np.float64) - np.outer(inputs.mean, inputs.mean)
    size = len(products)
    ridge = RIDGE * max(float(np.trace(products)) / size, 1e-12)
    inverse: Array = scipy.linalg.inv(products + ridge * np.eye(size), check_finite=False)
    return inverse


def collect(
    coupling: Coupling,
    feeds: Sequence[Mapping[str, Array]],
    *,
    pairs: bool = False,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Inputs]:
    """Run a model and gather its contractions' inputs.

    Args:
        coupling: The model.
        feeds: Inputs by name, a mapping per batch.
        pairs: Whether to keep products of pairs.
        seed: Which places of large activations count.
        progress: Called with the share done.
    """
    wanted = _with_weights(coupling)
    graph, rng = coupling.graph, np.random.default_rng(seed)
    names = {str(graph.nodes[c.node].inputs[c.slot].name) for c, _, _ in wanted}  # type: ignore[union-attr]
    runner = Runner(graph.model, feeds, names)
    gathered = []
    for number, (contraction, classes, weights) in enumerate(wanted):
        progress(number / len(wanted))
        name = str(graph.nodes[contraction.node].inputs[contraction.slot].name)  # type: ignore[union-attr]
        runner.run_past(name)
        share = -(-ROWS // len(feeds))
        portions = (_thin(_rows(a, contraction), share, rng) for a in runner.get(name))
        moments, output = (
            _moments(portions, pairs=pairs and len(classes) <= WIDEST),
            graph.nodes[contraction.node].outputs[0],
        )
        gathered.append(Inputs(classes, *moments, weights, str(output.name)))
        if all(n != name for n in _names(coupling, wanted[number + 1 :])):
            runner.drop(name)
    return gathered


def _names(coupling: Coupling, wanted: Sequence[tuple[Contraction, Array, Array]]) -> list[str]:
    nodes = coupling.nodes
    return [str(nodes[c.node].inputs[c.slot].name) for c, _, _ in wanted]  # type: ignore[union-attr]


def _with_weights(coupling: Coupling) -> list[tuple[Contraction, Array, Array]]:
    """The contractions of activations with weights, with the class and the weights of every position."""
    nodes = coupling.nodes
    by_name: dict[str, list[tuple[Array, Array]]] = {}
    for part in slices(coupling, least_rank=2):
        if part.summed:
            class_of_row = np.where(part.labels > 0, coupling.strong[part.labels], -1).reshape(-1)
            by_name.setdefault(part.name, []).append((class_of_row, part.array))
    pairs = []
    for contraction in coupling.records.contractions:
        node = nodes[contraction.node]
        source = node.inputs[contraction.slot]
        assert source is not None
        others = [str(v.name) for k, v in enumerate(node.inputs) if v is not None and k != contraction.slot]
        rows = [entry for name in others for entry in by_name.get(name, ())]
        classes = _classes(coupling, contraction.value, contraction.axes)
        if source.is_initializer() or not rows or classes is None:
            continue
        pairs.append((contraction, classes, _lookup(classes, rows)))
    return pairs


def _classes(coupling: Coupling, value: Value, axes: tuple[int, ...]) -> Array | None:
    """Class of every position of the labelled digits of some axes, or ``None`` where other axes have a say."""
    digits = [d for axis in axes for d in value.axes[axis] if d.labels is not None]
    keys = [d.key for d in digits]
    if any(k not in keys for d in digits for k in d.deps):
        return None
    finest = digits[-1]
    if [*finest.deps, finest.key] != keys or finest.labels is None:
        return None
    result: Array = np.where(finest.labels > 0, coupling.strong[finest.labels], -1).reshape(-1)
    return result


def _lookup(classes: Array, rows: Sequence[tuple[Array, Array]]) -> Array:
    """Rows of weights by class, side by side; zero where a class has none."""
    parts = []
    for class_of_row, array in rows:
        order = np.argsort(class_of_row, kind="stable")
        place = np.searchsorted(class_of_row[order], classes)
        place = np.minimum(place, len(class_of_row) - 1)
        hit = class_of_row[order][place] == classes
        parts.append(np.where(hit[:, None], array[order][place], 0))
    return np.concatenate(parts, axis=1)


def _rows(array: Array, contraction: Contraction) -> Array:
    """An activation as rows of positions; unlabelled digits of the same axes count as places."""
    value, sizes, last = contraction.value, [], []
    for axis, length in enumerate(array.shape):
        if axis not in contraction.axes:
            sizes.append(length)
            continue
        labelled = {d.key for d in value.axes[axis] if d.labels is not None}
        told = parts(Value((value.axes[axis],)), labelled, [0])
        runs = sum(told.open_parts())
        for part in told.parts:
            if part.key is not None:
                last.append(len(sizes))
            sizes.append(length // told.fixed(0) if part.key is None and runs == 1 else part.size)
    first = [k for k in range(len(sizes)) if k not in last]
    split = array.reshape(sizes).transpose([*first, *last])
    return split.reshape(-1, int(np.prod([sizes[k] for k in last])))


def _thin(rows: Array, most: int, rng: np.random.Generator) -> Array:
    if len(rows) > most:
        rows = rows[np.sort(rng.choice(len(rows), most, replace=False))]
    with np.errstate(over="ignore"):  # of doubles
        return np.clip(np.nan_to_num(rows.astype(np.float32)), -LARGEST, LARGEST)


def _moments(portions: Iterable[Array], *, pairs: bool) -> tuple[Array, Array]:
    """Means of rows that come in portions, and mean products of pairs or mean squares."""
    count, sums, products = 0, np.zeros(()), np.zeros(())
    for rows in portions:
        count += len(rows)
        sums = sums + rows.sum(axis=0, dtype=np.float64)
        products = products + (rows.T @ rows if pairs else np.square(rows).sum(axis=0, dtype=np.float64))
    count = max(count, 1)  # no sample may reach an expert
    return (sums / count).astype(np.float32), (products / count).astype(np.float32)
