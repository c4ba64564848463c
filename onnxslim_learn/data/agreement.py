"""Whether samples are of the kind that a model was made for, as far as its file tells.

Three things tell: the range that its first layers, quantization or metadata expect; the mean and variance of every
channel that its first batch normalisations have stored, against those of the samples run up to there; and, where
samples have classes, how many the model gets right. Of images, usual ways to prepare pixels are tried in place of what
was given: where one agrees far better, it is what the model was made for. Nothing is said where nothing surely tells.

Measured on EfficientNet-Lite0, whose images go from -1 to 1: 1 to 12 pictures of any kind, prepared so, are 0.07 to
0.23 nats away from what its first normalisation has stored; from 0 to 1, they are 0.46 to 0.58 away, normalised as for
ImageNet 0.8 to 1.6, and from 0 to 255 22.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.operators.facts import attribute
from onnxslim_learn.data import input_range, random_inputs
from onnxslim_learn.data.recipes import Cure, Recipe, giving, guessed, standard, usual
from onnxslim_learn.data.signature import COLOURS, LAYOUTS, Declared, Input, layout_of
from onnxslim_learn.graph.stated import stated
from onnxslim_learn.output_kinds import classifies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.data.batch import Batch
    from onnxslim_learn.graph.load import Graph

    Fit = Callable[[Array], "Far"]  # an input's numbers -> how far they are from what is stored

CHECKED = 32  # samples
FRONT = 200  # nodes at most between an input and its first normalisation
CHANNELS = 8  # of the first normalisations: fewer fit by chance
FLOOR = 0.01  # of the median variance, added to all: silent channels tell nothing
SET, DIFFERENT = 0.2, 0.5  # deviations of the logarithms of variances: less was set, from there on they were estimated
ALIKE = 0.8  # correlation of those with the samples': what was estimated from such images
MOST = 25.0  # nats that one channel counts at most
WARNED, SURE = (0.25, 4.0), (0.75, 8.0)  # nats away as given, and times as far as what agrees best
AGREES = 0.25  # nats
NEARLY = 0.03  # nats, or share of samples: of ways that are nearly as good as the best, the most usual is told
STRANGE, FAR = 1.5, 5.0  # nats: inputs of another kind; nor is any light, or dark, reason enough
FEW = 4  # samples: fewer may all be dark, or all of one colour
SIZED = 1.5  # times larger or smaller than what images are said to be, from which on objects look another size
LARGE, SMALL = 8.0, 50.0  # times larger, or smaller, than what is expected
RIGHT = 0.1  # of the samples: by how much fewer are classified right than they could be


@dataclass(frozen=True)
class Doubt:
    """Why samples are hardly what a model was made for.

    Attributes:
        said: What does not fit, and what cures it, in a sentence or two.
        sure: Whether it is beyond doubt.
        cure: The options that cure it, by name.
    """

    said: str
    sure: bool
    cure: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Far:
    """How far samples are from what normalisations have stored.

    Attributes:
        nats: Divergence of normal distributions, for each channel.
        alike: Correlation of the logarithms of variances over channels: filters pass the same shares of any images,
            however these are scaled.
    """

    nats: float
    alike: float


def doubts(where: str, graph: Graph, takes: Declared, batches: Sequence[Batch], recipe: Recipe | None) -> list[Doubt]:
    """What speaks against samples: at most one doubt for an input, the surest.

    Args:
        where: The source.
        graph: The model.
        takes: What it declares.
        batches: Some samples.
        recipe: How images were prepared, if they come from a folder.
    """
    told = []
    for one in takes.inputs.values():
        if one.axis is None or one.dtype.kind not in "fiu":
            continue
        rows = np.concatenate([batch.inputs[one.name] for batch in batches], one.axis) if _alike(batches, one) else None
        if rows is None or not rows.size:
            continue
        doubt = _range(graph, one, rows, recipe) or _look(graph, one, rows, recipe)
        if doubt is None and one.dtype.kind == "f" and one.axis == 0:
            doubt = _statistics(graph, one, rows, batches, recipe) or _classes(graph, takes, rows, batches, recipe)
        if doubt is not None:
            told.append(replace(doubt, said=f"{where}: {doubt.said}"))
    return told


def _alike(batches: Sequence[Batch], one: Input) -> bool:
    """Whether samples differ in number alone."""
    axis = one.axis or 0
    shapes = {(*(s := b.inputs[one.name].shape)[:axis], *s[axis + 1 :]) for b in batches}
    return len(shapes) == 1


# --- the range of numbers ---------------------------------------------------------------------------------------------


def _range(graph: Graph, one: Input, rows: Array, recipe: Recipe | None) -> Doubt | None:
    """Numbers of another magnitude, or another sign, than what the first layers or the metadata expect.

    What is no image may be scaled in any way by its first layers; there, limits alone tell.
    """
    expected = input_range.implied(graph, one.name, stored=False)
    image = len(one.dims) == 4 and rows.shape[LAYOUTS[layout_of(one)][0]] in COLOURS
    if expected is None or not (image or (one.dtype.kind == "f" and expected.why in input_range.LIMITS)):
        return None
    low, high = (float(x) for x in np.percentile(rows, (0.5, 99.5)))
    size = max(abs(float(np.min(expected.low))), abs(float(np.max(expected.high))))
    largest = max(abs(low), abs(high))
    told = f"input {one.name} goes from {low:.3g} to {high:.3g}, but the model expects {expected}"
    cure = recipe.cure(expected) if recipe else Cure(f"Store numbers from {_ends(expected)}")
    if largest > LARGE * size:
        return Doubt(f"{told}. {cure}.", True, cure.options)
    if 0 < largest < size / SMALL and expected.why != input_range.CLIPPING:
        return Doubt(f"{told}. {cure}.", one.dtype.kind == "f", cure.options)
    if image and np.min(expected.low) == 0 and low < -size / 10:
        return Doubt(f"{told}. {cure}.", False, cure.options)
    return None


def _look(graph: Graph, one: Input, rows: Array, recipe: Recipe | None) -> Doubt | None:
    """Images of another size, or another order of colours, than what the metadata say."""
    told = stated(graph.model.metadata_props, next(v for v in graph.model.graph.inputs if v.name == one.name))
    if len(one.dims) != 4:
        return None
    _, *spatial = LAYOUTS[recipe.layout if recipe else told.layout or layout_of(one)]
    size, wanted = [rows.shape[axis] for axis in spatial], told.size
    if wanted is not None and not all(side / SIZED <= x <= side * SIZED for x, side in zip(size, wanted, strict=True)):
        named = f"{wanted[0]}x{wanted[1]}"
        cure = giving({"image_size": named}) if recipe else Cure(f"Store images of {named}")
        said = f"images are {size[0]}x{size[1]}, but {told.why} say {named}. {cure}."
        return Doubt(said, False, cure.options)
    if recipe is not None and told.colour and {told.colour, recipe.colour} == {"rgb", "bgr"}:
        cure = giving({"colour": told.colour})
        said = f"colours are {recipe.colour}, but {told.why} say {told.colour}. {cure}."
        return Doubt(said, False, cure.options)
    return None


def _ends(expected: input_range.Range) -> str:
    return f"{np.min(expected.low):.3g} to {np.max(expected.high):.3g}"


# --- stored statistics ------------------------------------------------------------------------------------------------


def _statistics(graph: Graph, one: Input, rows: Array, batches: Sequence[Batch], recipe: Recipe | None) -> Doubt | None:
    """Samples whose mean and variance at the first normalisations are not those that are stored there."""
    norms = first_normalisations(graph, one.name)
    fit = _fit(graph, norms, one, batches, len(rows)) if norms else None
    away = 0.0 if fit is None else fit(rows).nats
    if fit is None or away < WARNED[0]:
        return None
    said = f"mean and variance at {norms[0].name}, the first normalisation, are {away:.2g} nats from what it has stored"
    ways, enough = list(_ways(one, rows, recipe)), len(rows) >= FEW
    cured = _cured(fit, away, ways, WARNED if enough else SURE)
    sure = cured is not None and enough and away > SURE[0] and away > SURE[1] * cured[0]
    if cured is None and away > STRANGE and enough:  # some light, or dark, is no reason
        cured = _cured(fit, away, [(pixels, standard(pixels, way)) for pixels, way in ways[:1]], SURE)
        sure = away > FAR
    if cured is not None:
        advice = cured[1].advice(recipe)
        return Doubt(f"{said}, and {cured[0]:.2g} with {cured[1].name}. {advice}.", sure, advice.options)
    strange = f"these inputs are not of the model's kind: {said}. Give inputs prepared as for training."
    return Doubt(strange, False) if away > STRANGE and _spread(norms) > DIFFERENT else None


def _cured(
    fit: Fit, away: float, ways: Iterable[tuple[Array, Recipe]], least_so: tuple[float, float]
) -> tuple[float, Recipe] | None:
    """How near the best of some ways is, and the most usual that is nearly as near, where these agree far better."""
    fits = [(fit(way.of(pixels)), way) for pixels, way in ways]
    least = min((far.nats for far, _ in fits if far.alike > ALIKE), default=np.inf)
    if least > AGREES or away < least_so[0] or away < least_so[1] * least:
        return None
    return next((far.nats, way) for far, way in fits if far.nats <= least + NEARLY)


def first_normalisations(graph: Graph, name: str) -> list[ir.Node]:
    """Normalisations with stored statistics that an input reaches through no other one, and through no other input."""
    sources = {str(v.name): {str(v.name)} for v in graph.model.graph.inputs}
    near, norms = {name: 0}, []
    for node in graph.nodes[: 4 * FRONT]:
        read = [str(v.name) for v in node.inputs if v is not None and v.name in sources]
        before = set().union(*(sources[n] for n in read))
        depth = 1 + sum(near.get(n, FRONT) for n in read)
        norm = roles.normalisation(node)
        if norm is not None and norm.stored:
            norms += [node] if before == {name} and depth < FRONT and _trained(node) else []
            continue
        for value in node.outputs:
            if value.name and before:
                sources[str(value.name)] = before
                near[str(value.name)] = min(depth, FRONT)
    width = sum(_stored(node)[0].size for node in norms)
    return norms if width >= CHANNELS else []


def _stored(node: ir.Node) -> tuple[Array, Array, float]:
    """Mean, variance and what is added to it of a normalisation; empty where they are computed."""
    norm = roles.normalisation(node)
    assert norm is not None
    slots = (norm.mean, norm.variance)
    tensors = [None if slot is None else node.inputs[slot].const_value for slot in slots]  # type: ignore[union-attr]
    mean, variance = (np.zeros(0) if t is None else np.asarray(t.numpy(), np.float64).ravel() for t in tensors)
    floor = float(np.median(variance)) * FLOOR if variance.size else 0.0
    return mean, variance, max(float(attribute(node, "epsilon", 1e-5)), floor)


def _spread(norms: Sequence[ir.Node]) -> float:
    """Deviation of the logarithms of stored variances."""
    stored = [_stored(node) for node in norms]
    return float(np.concatenate([np.log(variance + floor) for _, variance, floor in stored]).std())


def _trained(node: ir.Node) -> bool:
    """Whether what is stored may have been estimated: filters of a first layer pass different shares of images."""
    mean, variance, _ = _stored(node)
    return bool(mean.size and mean.size == variance.size and _spread([node]) > SET)


def _fit(graph: Graph, norms: Sequence[ir.Node], one: Input, batches: Sequence[Batch], count: int) -> Fit | None:
    """How far samples of an input are from what normalisations have stored, in nats for each channel."""
    names = [str(node.inputs[0].name) for node in norms]  # type: ignore[union-attr]
    stored = [_stored(node) for node in norms]
    sizes = [batch.count for batch in batches]
    try:
        run = random_inputs.reader(graph, names)
    except Exception:  # of onnxruntime's: what cannot be run is told where the whole model is
        return None

    def fit(rows: Array) -> Far:
        starts = itertools.accumulate(sizes, initial=0)
        parts = [rows[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        taken = [run({**batch.inputs, one.name: part}) for batch, part in zip(batches, parts, strict=True)]
        measured = [_moments(values) for values in zip(*taken, strict=True)]
        pairs = list(zip(measured, stored, strict=True))
        nats = np.concatenate([_apart(mean, variance, *its) for (mean, variance), its in pairs])
        logs = [np.log([variance + floor, its + floor]) for (_, variance), (_, its, floor) in pairs]
        with np.errstate(invalid="ignore", divide="ignore"):
            alike = np.corrcoef(np.concatenate(logs, axis=1))[0, 1]
        return Far(float(nats.mean()), float(np.nan_to_num(alike)))

    try:
        return fit if sum(sizes) == count and np.isfinite(fit(_first(batches, one)).nats) else None
    except Exception:  # of onnxruntime's, as above
        return None


def _first(batches: Sequence[Batch], one: Input) -> Array:
    return np.concatenate([batch.inputs[one.name] for batch in batches])


def _moments(values: Iterable[Array]) -> tuple[Array, Array]:
    """Mean and variance of every channel, axis 1, over portions."""
    count, total, square = 0, np.zeros(1), np.zeros(1)
    for array in values:
        rows = np.moveaxis(np.asarray(array, np.float64), 1, 0).reshape(array.shape[1], -1)
        count, total, square = count + rows.shape[1], total + rows.sum(1), square + np.square(rows).sum(1)
    mean: Array = total / count
    return mean, np.maximum(square / count - mean**2, 0.0)


def _apart(mean: Array, variance: Array, its_mean: Array, its_variance: Array, floor: float) -> Array:
    """Divergence of normal distributions, channel by channel, in nats; at most :data:`MOST`."""
    ratio = (variance + floor) / (its_variance + floor)
    apart: Array = 0.5 * (ratio + (mean - its_mean) ** 2 / (its_variance + floor) - 1 - np.log(ratio))
    return np.minimum(apart, MOST)


# --- other ways to prepare images -------------------------------------------------------------------------------------


def _ways(one: Input, rows: Array, recipe: Recipe | None) -> Iterator[tuple[Array, Recipe]]:
    """Pixels, and ways to prepare them that were not chosen; none where there are no images, or no pixels any more."""
    axis = LAYOUTS[recipe.layout if recipe else layout_of(one)][0] if len(one.dims) == 4 else 0
    if not axis or rows.shape[axis] not in COLOURS:
        return
    known = recipe or guessed(rows, axis)
    if known is None:
        return
    pixels = known.pixels(rows)
    for way in usual(pixels, known):
        yield pixels, way


# --- classes ----------------------------------------------------------------------------------------------------------


def _classes(
    graph: Graph, takes: Declared, rows: Array, batches: Sequence[Batch], recipe: Recipe | None
) -> Doubt | None:
    """Classes that the model gets right far more often with images prepared in another way."""
    labels = [batch.labels for batch in batches]
    if len(takes.inputs) != 1 or any(x is None or x.ndim != 1 or x.dtype.kind not in "iu" for x in labels):
        return None
    (one,), classes = takes.inputs.values(), np.concatenate([x for x in labels if x is not None])
    value = graph.model.graph.outputs[0]
    ways = [(pixels, way) for pixels, way in _ways(one, rows, recipe) if way.colour != "bgr" or way.scale == 1]
    if not ways or len(set(classes.tolist())) < 2 or value.is_graph_input():
        return None
    try:
        run = random_inputs.reader(graph, [str(value.name)])
        right = _right(run, one, batches, str(value.name), roles.puts_out(value))
        given = right(rows, classes)
        shares = [] if given is None else [(right(way.of(pixels), classes) or 0.0, way) for pixels, way in ways]
    except Exception:  # of onnxruntime's: what cannot be run is told where the whole model is
        return None
    most = max((share for share, _ in shares), default=0.0)
    spread = np.sqrt(0.25 / len(rows))
    if given is None or most < 0.5 or most - given < max(RIGHT, 2.5 * spread):
        return None
    best = next(way for share, way in shares if share >= most - NEARLY - 1 / len(rows))
    said = f"the model gets {given:.0%} of {len(rows)} classes right, and {most:.0%} with {best.name}"
    advice, sure = best.advice(recipe), bool(most > 2 * given and most - given > 5 * spread)
    return Doubt(f"{said}. {advice}.", sure, advice.options)


def _right(
    run: random_inputs.Reader, one: Input, batches: Sequence[Batch], name: str, hint: str
) -> Callable[[Array, Array], float | None]:
    """What share of samples an output classifies right; ``None`` if it is no classifier's."""
    ends = [0, *itertools.accumulate(batch.count for batch in batches)]

    def right(rows: Array, classes: Array) -> float | None:
        parts = [run({one.name: rows[start:stop]})[0] for start, stop in itertools.pairwise(ends)]
        output = np.concatenate(parts)
        if not classifies(output, name, hint) or classes.max() >= output.shape[1]:
            return None
        return float((output.argmax(axis=1) == classes).mean())

    return right
