"""Made-up samples, for models that come without data: smooth noise in the range the model expects."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.data import input_range
from onnxslim_learn.data import noise as fields
from onnxslim_learn.data.batch import Batch
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.random_inputs import RandomInputs, index_limits
from onnxslim_learn.data.signature import LAYOUTS, Declared, Input, declared, layout_of
from onnxslim_learn.data.source import Source
from onnxslim_learn.errors import InputError
from onnxslim_learn.graph import texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnxslim_learn.coupling.solver import Coupling


PILOT, POINTS = 64, 20000  # samples, and numbers of each channel, that tell how noise fills its range
ROUNDS = 100
MOST = 1 << 34  # bytes of samples that are made up
RECORDING = 64  # numbers in a row from which they are a recording rather than a table's columns


# What an input becomes, in words, and what draws one sample of it; else it is drawn together with others.
Maker = tuple[str, "Callable[[np.random.Generator], Array] | None"]


def synthetic(coupling: Coupling, options: DataSettings | None = None, numbers: Sequence[int] | None = None) -> Source:
    """Make samples up; every sample depends on the seed and its number alone, not on the size of batches.

    Images and recordings become smooth noise within ``options.input_range``, else within what the first layers imply,
    else within a guess; indices are valid ones, masks are ones. White noise would be worse by far: see
    :mod:`onnxslim_learn.data.noise`.

    Args:
        coupling: The model; what looks up which input tells its valid indices.
        options: How many, how many at a time, the seed, and the range.
        numbers: Which samples, instead of the first so many.

    Raises:
        InputError: If the range does not fit the model's channels, or they are more than 16 GiB.
    """
    options, takes = options or DataSettings(), declared(coupling.graph)
    makers = {name: _maker(one, coupling, options) for name, one in takes.inputs.items() if one.axis is not None}
    size = takes.batch or options.batch_size
    numbers = range(max(options.count, size)) if numbers is None else numbers
    count = len(numbers) // size * size if takes.batch else min(len(numbers), options.count)
    said = "; ".join(f"{name}: {said}" for name, (said, _) in makers.items())
    nominal = coupling.graph.shapes.nominal.inputs
    single = sum(
        math.prod(nominal[name]) * one.dtype.itemsize for name, one in takes.inputs.items() if one.axis is not None
    )
    if count * single > MOST:
        raise InputError(
            f"⟨samples⟩ {count}: made-up ones take {count * single} bytes, and {MOST} are the most. Give fewer."
        )
    together = RandomInputs(coupling)

    def stream() -> Iterator[Batch]:
        for start in range(0, count, size):
            chosen = numbers[start : min(start + size, count)]
            samples = [_sample(together, makers, takes, (options.seed, k)) for k in chosen]
            inputs = {
                name: samples[0][name] if one.axis is None else np.stack([x[name] for x in samples], one.axis)
                for name, one in takes.inputs.items()
            }
            cast = {name: array.astype(takes.inputs[name].dtype) for name, array in inputs.items()}
            yield Batch(cast, None, len(samples))

    return Source(f"made-up inputs ({said})", True, count, False, stream, takes)


def _sample(
    together: RandomInputs, makers: Mapping[str, Maker], takes: Declared, seed: tuple[int, int]
) -> dict[str, Array]:
    """One sample, without the batch axis; inputs that have none are the same in every sample."""
    rng = np.random.default_rng(seed)
    arrays = {name: make(rng) for name, (_, make) in makers.items() if make is not None}
    if len(arrays) == len(takes.inputs):
        return arrays
    nominal = together.coupling.graph.shapes.nominal
    rest = together.draw(nominal, seed[0] << 32 | seed[1])  # together, so that sums of indices are valid, too
    axes = {name: one.axis for name, one in takes.inputs.items()}
    return {
        name: array if (axis := axes[name]) is None else array.take(0, axis) for name, array in rest.items()
    } | arrays


def _maker(one: Input, coupling: Coupling, options: DataSettings) -> Maker:
    """How an input is made up, by its type, rank and use."""
    nominal = coupling.graph.shapes.nominal.inputs[one.name]
    shape = tuple(size for axis, size in enumerate(nominal) if axis != one.axis)
    bounds = range_of(one, coupling, options)
    if one.dtype.kind == "b" or "mask" in one.name.lower():
        return "ones", lambda rng: np.ones(shape)
    if one.dtype.kind == "O":
        return f"the text {texts.known(coupling.graph.model.graph, one.name)!r}", None
    if one.dtype.kind in "iu" and (one.dtype.itemsize > 1 or len(shape) < 3):
        return _whole(shape, index_limits(coupling).get(one.name), bounds)
    if one.name in coupling.records.boxes:
        return "boxes in the picture", None
    said, make = _measured(one, shape, bounds)
    if one.name in coupling.graph.nonnegative and make is not None:
        return f"{said} without signs", lambda rng, make=make: np.abs(make(rng))
    return said, make


def _whole(shape: tuple[int, ...], limit: int | None, bounds: input_range.Range | None) -> Maker:
    """Whole numbers that are no pixels: indices, else within a range, else switches."""
    if limit is not None:
        return f"random indices below {limit}", None
    if bounds is None:
        return "random zeros and ones", None
    low, high = int(np.min(bounds.low)), int(np.max(bounds.high))
    return f"random whole numbers from {bounds}", lambda rng: rng.integers(low, high + 1, shape)


def _measured(one: Input, shape: tuple[int, ...], bounds: input_range.Range | None) -> Maker:
    """Numbers that something measured: images, recordings, or else columns of a table."""
    if len(shape) >= 3:
        return _smooth(one, shape, LAYOUTS[layout_of(one)][0] - 1, bounds)
    axis = _along(one, shape)
    if axis is not None:
        return _smooth(one, shape, 1 - axis, bounds)
    _, number = _channels(one, shape, 0, bounds)
    columns = shape if _numbers(bounds) > 1 else ()  # each in a range of its own
    pilot = np.random.default_rng(0).standard_normal((1, POINTS))
    fitted = _fitted(np.repeat(pilot, number if columns else 1, 0), bounds)
    slope, shift, low, high = (x.reshape(columns) for x in fitted)
    return f"white noise{_from(bounds)}", lambda rng: np.clip(slope * rng.standard_normal(shape) + shift, low, high)


def _from(bounds: input_range.Range | None) -> str:
    return f" from {bounds}" if bounds else ""


def _along(one: Input, shape: tuple[int, ...]) -> int | None:
    """The axis along which neighbours are alike: the open one, else the longest if it is long."""
    dims = [dim for axis, dim in enumerate(one.dims) if axis != one.axis]
    opened = [axis for axis, dim in enumerate(dims) if isinstance(dim, str)]
    if len(opened) == 1 or not shape:
        return opened[0] if opened else None
    longest = int(np.argmax(shape))
    return longest if len(shape) > 1 or shape[longest] >= RECORDING else None


def _smooth(one: Input, shape: tuple[int, ...], channel: int, bounds: input_range.Range | None) -> Maker:
    """Smooth noise over all axes but that of the channels."""
    channel, number = _channels(one, shape, channel, bounds)
    apart = 0 <= channel < len(shape)  # a recording may have none
    sizes = shape[:channel] + shape[channel + 1 :] if apart else shape
    pilot = np.stack([fields.scene(np.random.default_rng(k), number, sizes) for k in range(PILOT)], 1)
    fitted = _fitted(pilot.reshape(number, -1)[:, :: max(1, pilot[0].size // POINTS)], bounds)
    slope, shift, low, high = (x.reshape(number, *(1 for _ in sizes)) for x in fitted)

    def make(rng: np.random.Generator) -> Array:
        noise = np.clip(slope * fields.scene(rng, number, sizes) + shift, low, high)
        noise = np.rint(noise) if one.dtype.kind in "iu" else noise
        return np.moveaxis(noise, 0, channel) if apart else noise[0]

    return f"smooth noise{_from(bounds)}", make


def _numbers(bounds: input_range.Range | None) -> int:
    """Of how many channels a range tells limits or moments apart."""
    return 1 if bounds is None else max(np.size(x) for x in (bounds.low, bounds.high, *bounds.moments))


def _channels(one: Input, shape: tuple[int, ...], usual: int, bounds: input_range.Range | None) -> tuple[int, int]:
    """The axis of the channels, and how many there are: the usual one, else one as long as a range tells apart.

    Raises:
        InputError: If the range fits no axis.
    """
    number, told = shape[usual] if 0 <= usual < len(shape) else 1, _numbers(bounds)
    if told in (1, number):
        return usual, number
    if told not in shape:
        raise InputError(
            f"⟨input_range⟩: {told} pairs, but {one.name} has {number} channels. Give one pair, or one each."
        )
    return len(shape) - 1 - shape[::-1].index(told), told


def range_of(one: Input, coupling: Coupling, options: DataSettings) -> input_range.Range | None:
    """The range that was asked for, else what the first layers imply, else, for images, a guess.

    First layers may tell mean and deviation within a range that was asked for.
    """
    implied = input_range.implied(coupling.graph, one.name)
    if not options.input_range:
        return implied or (input_range.IMAGENET if one.dtype.kind in "fV" and len(one.dims) >= 4 else None)
    low, high = np.array(options.input_range, np.float64).T
    asked = input_range.Range(low, high, "as given")
    if implied is None or implied.mean is None or np.any(implied.mean < low) or np.any(implied.mean > high):
        return asked
    return replace(asked, mean=implied.mean, deviation=implied.deviation)


def _fitted(pilot: Array, bounds: input_range.Range | None) -> tuple[Array, Array, Array, Array]:
    """How noise is brought into a range: slope, shift, low and high, for each channel.

    The mean and deviation wanted are met after clamping, over all samples.

    Args:
        pilot: Samples of the noise, ``channels x numbers``.
        bounds: The range, or ``None`` for zero mean, unit deviation and no bounds.
    """
    if bounds is None:
        slope = np.ones((len(pilot), 1)) / pilot.std()
        return slope, -slope * pilot.mean(), np.full_like(slope, -np.inf), np.full_like(slope, np.inf)
    low, high, mean, deviation = (
        np.broadcast_to(np.reshape(x, (-1, 1)), (len(pilot), 1)) for x in (bounds.low, bounds.high, *bounds.moments)
    )
    slope, shift = deviation, mean
    for _ in range(ROUNDS):
        clipped = np.clip(slope * pilot + shift, low, high)
        slope = slope * np.sqrt(deviation / np.maximum(clipped.std(1, keepdims=True), 1e-3 * deviation))
        shift = shift + mean - clipped.mean(1, keepdims=True)
    return slope, shift, low, high
