"""The range of numbers that a model's first layers, stored statistics or metadata expect of an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.coupling import roles
from onnxslim_learn.graph.stated import stated

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from onnxslim_learn.graph.load import Graph


PIXELS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # usual ranges of images, narrow ones first
STORED = (*PIXELS[:2], (-2.2, 2.7), PIXELS[2])  # the same, and that of images normalised as for ImageNet
ROUNDED = 0.02
HALF = 0.45  # of a range: what deviates by more was divided by the range, not by a deviation
SPREAD = 2.5  # standard deviations taken as the range, where nothing usual fits
CLIPPING, QUANTIZATION = "its clipping", "its quantization"
LIMITS = (CLIPPING, QUANTIZATION)  # what lies beyond is lost
ALONG, ACROSS = 0.95, 0.9  # correlations of neighbouring pixels, and of channels, in images
EXPLAINED = 0.5  # deviations: from there on, no mean of the input explains what a normalisation has stored


@dataclass(frozen=True)
class Range:
    """Smallest and largest number of an input, and what is known of those between.

    Attributes:
        low: One number, or one for each channel.
        high: Likewise.
        why: What says so.
        mean: Likewise, or ``None`` where nothing tells.
        deviation: Likewise.
    """

    low: Array
    high: Array
    why: str
    mean: Array | None = None
    deviation: Array | None = None

    @property
    def moments(self) -> tuple[Array, Array]:
        """Mean and standard deviation; those of usual photographs where nothing tells."""
        width = self.high - self.low
        mean = self.low + PHOTOGRAPH[0] * width if self.mean is None else self.mean
        return mean, PHOTOGRAPH[1] * width if self.deviation is None else self.deviation

    def __str__(self) -> str:
        return f"{np.min(self.low):.3g} to {np.max(self.high):.3g} ({self.why})"


PHOTOGRAPH = 0.45, 0.27  # mean and deviation of pixels between 0 and 1
IMAGENET = Range(np.array(-2.1), np.array(2.6), "a guess: images normalised as for ImageNet", np.zeros(1), np.ones(1))


@dataclass(frozen=True)
class _Line:
    """What is done to the input so far: ``slope * x + shift``; each is one number or one for each channel."""

    slope: Array
    shift: Array


# Operation -> the line after it, from the line before it and its constant. Normalising an input is a chain of these.
LINES: dict[str, Callable[[_Line, Array], _Line]] = {
    "add": lambda line, k: _Line(line.slope, line.shift + k),
    "subtract": lambda line, k: _Line(line.slope, line.shift - k),
    "multiply": lambda line, k: _Line(line.slope * k, line.shift * k),
    "divide": lambda line, k: _Line(line.slope / k, line.shift / k),
}


def implied(graph: Graph, name: str, *, stored: bool = True) -> Range | None:
    """The range that the file implies for an input, or ``None`` where it says nothing.

    A chain ``slope * x + shift`` of constants, or a batch normalisation, is taken to normalise what comes in: the
    narrowest usual range of pixels that holds its mean and is as wide as its deviation is meant. Where first layers say
    nothing, metadata may, else the mean and variance that a batch normalisation behind the first convolution has
    stored.

    Args:
        graph: The model.
        name: The input.
        stored: Whether to look behind the first convolution.
    """
    value = next(v for v in graph.model.graph.inputs if v.name == name)
    first, line, after = _first_layers(value)
    told = first or _stated(graph, value) or (_behind(after, line) if stored else None)
    # one number that several constants multiply (a time, by frequencies) has no range for each
    numbers = 1 if told is None else max(np.size(x) for x in (told.low, told.high, *told.moments))
    return told if numbers in (1, *graph.shapes.nominal.inputs[name][1:]) else None


def _stated(graph: Graph, value: ir.Value) -> Range | None:
    """The range that metadata state for images."""
    told = stated(graph.model.metadata_props, value)
    if told.scale is None or value.shape is None or len(value.shape) != 4:
        return None
    mean, std, end = np.array(told.mean or (0.0,)), np.array(told.std or (1.0,)), 255.0 / told.scale
    level, deviation = (PHOTOGRAPH[0] * end - mean) / std, PHOTOGRAPH[1] * end / std
    return Range((0.0 - mean) / std, (end - mean) / std, told.why, level, deviation)


def _first_layers(value: ir.Value) -> tuple[Range | None, _Line, ir.Value]:
    """What the type and the first layers of an input imply; and the line that these are, up to a value."""
    line = _Line(np.ones(1), np.zeros(1))
    kind: np.dtype[Any] = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
    if kind.kind in "iu" and kind.itemsize == 1:
        limits = np.iinfo(kind)
        return Range(np.array(limits.min), np.array(limits.max), "its type"), line, value
    moved = False
    while (node := _only_use(value)) is not None:
        tells, operation = _first(node), roles.of(node).arithmetic
        if tells is not None:
            return tells(node, line), line, value
        constant = _constant(node, value, operation) if operation else None
        if constant is not None and (constant.all() or operation in ("add", "subtract")):
            line, moved = LINES[operation](line, constant), True
        elif not roles.has(node, roles.Trait.MOVES):
            break
        value = node.outputs[0]
    normal = _usual(-line.shift / line.slope, 1 / np.abs(line.slope), "its first layers") if moved else None
    return normal, line, value


def _behind(value: ir.Value, line: _Line) -> Range | None:
    """What a batch normalisation behind the first convolution has stored, solved for the mean and deviation of images.

    Means are linear in those of the input's channels. Variances follow from one deviation, with the correlations that
    pixels of images have.
    """
    node = _only_use(value)
    convolution = None if node is None else roles.convolution(node)
    normal = None if node is None or convolution is None else _only_use(node.outputs[0])
    norm = None if normal is None else roles.normalisation(normal)
    if node is None or convolution is None or normal is None or norm is None or norm.mean is None:
        return None
    weight = node.inputs[convolution.weight]
    if weight is None or weight.const_value is None or convolution.transposed or node.inputs[0] is not value:
        return None
    kernel = np.asarray(weight.const_value.numpy(), np.float64)
    mean, variance = (None if k is None else _numbers(normal.inputs[k]) for k in (norm.mean, norm.variance))
    bias = _numbers(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1)
    inputs = value.shape[1] if value.shape is not None and len(value.shape) == 4 else None
    if mean is None or variance is None or bias is None or kernel.ndim != 4 or inputs != kernel.shape[1]:
        return None
    solved = _solved(kernel, mean - bias, variance)
    return None if solved is None else _bounded(*_before(line, *solved))


def _solved(kernel: Array, mean: Array, variance: Array) -> tuple[Array, Array] | None:
    """Mean and deviation of the channels of images of which a convolution makes channels of a mean and variance."""
    deviation = np.sqrt(np.maximum(variance, 1e-3 * np.median(variance)))
    if len(kernel) < 2 * kernel.shape[1] or not deviation.all() or not mean.any():
        return None
    sums = kernel.sum((2, 3)) / deviation[:, None]
    level = np.linalg.lstsq(sums, mean / deviation, rcond=1e-2)[0]
    if np.sqrt(np.square(sums @ level - mean / deviation).mean()) > EXPLAINED:
        return None
    channels, (height, width) = kernel.shape[1], kernel.shape[2:]
    together = ACROSS + (1 - ACROSS) * np.eye(channels)
    rows, columns = (ALONG ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))) for n in (height, width))
    unit = np.einsum("oiab,ojcd,ij,ac,bd->o", kernel, kernel, together, rows, columns, optimize=True)
    spread = np.sqrt(variance.sum() / max(unit.sum(), 1e-12))
    return level, np.full(channels, spread)


def _before(line: _Line, mean: Array, deviation: Array) -> tuple[Array, Array]:
    """Mean and deviation at the start of a line, from those at its end."""
    return (mean - line.shift) / line.slope, deviation / np.abs(line.slope)


def _bounded(mean: Array, deviation: Array) -> Range:
    """The narrowest usual range whose numbers may have a mean and a deviation, else some deviations around it."""
    why = "what its first normalisation has stored"
    for low, high in STORED:
        inside = low < mean.min() and mean.max() < high  # numbers within a range deviate by no more than its ends do
        if inside and (deviation**2 <= (mean - low) * (high - mean)).all():
            return Range(np.array(low), np.array(high), why, mean, deviation)
    return Range(mean - SPREAD * deviation, mean + SPREAD * deviation, why, mean, deviation)


def _only_use(value: ir.Value) -> ir.Node | None:
    """The only node that reads a value's numbers, not its shape alone."""
    users = {use.node for use in value.uses() if not roles.has(use.node, roles.Trait.MEASURES)}
    return next(iter(users)) if len(users) == 1 else None


def _constant(node: ir.Node, value: ir.Value, operation: str) -> Array | None:
    """The other operand, if the line stays one: one number, or one for each channel."""
    if len(node.inputs) != 2:
        return None
    ordered = operation in ("subtract", "divide")
    other = node.inputs[1] if node.inputs[0] is value else None if ordered else node.inputs[0]
    return None if other is None else _numbers(other)


def _numbers(value: ir.Value | None) -> Array | None:
    """A constant with one axis at most that is longer than 1, flat."""
    tensor = None if value is None else value.const_value
    numbers = None if tensor is None else np.asarray(tensor.numpy(), np.float64)
    return (
        None
        if numbers is None or numbers.size == 0 or max(numbers.shape, default=1) < numbers.size
        else numbers.ravel()
    )


def _usual(mean: Array, deviation: Array, why: str) -> Range:
    """The narrowest usual range that holds a mean and is as wide as a deviation, else some deviations around it."""
    for low, high in PIXELS:
        slack = ROUNDED * (high - low)  # constants are rounded: 0.0039 for 1/255
        if low - slack <= mean.min() and mean.max() <= high + slack and deviation.max() <= high - low + slack:
            told = deviation.max() < HALF * (high - low)  # else the range itself was scaled, say to -1 and 1
            return Range(np.array(low), np.array(high), why, *((mean, deviation) if told else ()))
    return Range(mean - SPREAD * deviation, mean + SPREAD * deviation, why, mean, deviation)


def _back(line: _Line, low: Array, high: Array, why: str) -> Range:
    """A range at the end of a line, at its start."""
    ends = (low - line.shift) / line.slope, (high - line.shift) / line.slope
    return Range(np.minimum(*ends), np.maximum(*ends), why)


def _normalised(node: ir.Node, line: _Line) -> Range | None:
    norm = roles.normalisation(node)
    if norm is None or norm.mean is None or norm.variance is None:
        return None
    mean, variance = _numbers(node.inputs[norm.mean]), _numbers(node.inputs[norm.variance])
    if mean is None or variance is None:
        return None
    return _usual((mean - line.shift) / line.slope, np.sqrt(variance) / np.abs(line.slope), "its batch normalisation")


def _clipped(node: ir.Node, line: _Line) -> Range | None:
    low, high = roles.bounds(node) or (-np.inf, np.inf)
    return _back(line, np.array([low]), np.array([high]), CLIPPING)


def _quantized(node: ir.Node, line: _Line) -> Range | None:
    point = node.inputs[2].const_value if len(node.inputs) > 2 and node.inputs[2] is not None else None
    zero = np.zeros(1, np.uint8) if point is None else np.ravel(point.numpy())
    scale = _numbers(node.inputs[1])
    if scale is None or zero.dtype.kind not in "iu":
        return None
    limits = np.iinfo(zero.dtype)
    return _back(line, (limits.min - 1.0 * zero) * scale, (limits.max - 1.0 * zero) * scale, QUANTIZATION)


def _looked_up(node: ir.Node, line: _Line) -> Range | None:
    """Whole numbers that are compared with all candidates: one-hot vectors, spelled out."""
    for operand in node.inputs:
        source = operand
        while (
            source is not None
            and (producer := source.producer()) is not None
            and roles.has(producer, roles.Trait.MOVES)
        ):
            source = producer.inputs[0]
        numbers = _numbers(source)
        if numbers is not None and np.array_equal(numbers, np.arange(numbers.size)):
            return _back(line, numbers.min(), numbers.max(), "what it is compared with")
    return None


def _first(node: ir.Node) -> Callable[[ir.Node, _Line], Range | None] | None:
    """How a node tells the range before it, if its operator can."""
    norm, bounds = roles.normalisation(node), roles.bounds(node)
    if norm is not None and norm.stored:
        return _normalised
    if bounds is not None and np.isfinite(bounds).all():
        return _clipped
    if roles.has(node, roles.Trait.QUANTIZES):
        return _quantized
    return _looked_up if roles.has(node, roles.Trait.EQUATES) else None
