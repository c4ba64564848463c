"""Ways to prepare images: those in use, and what a way makes of pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnxslim_learn.data.input_range import Range

PIXEL = 255.0
SLACK = 0.02  # of a range: numbers are rounded, and resized with overshoot


@dataclass(frozen=True)
class Recipe:
    """How pixels become numbers: ``(pixel / scale - mean) / std``.

    Attributes:
        name: What comes out, in words.
        scale: Divisor of a pixel between 0 and 255.
        mean: Taken out, one number for each channel or one for all.
        std: Divides, likewise.
        colour: ``rgb``, ``bgr`` or ``grey``.
        layout: ``nchw`` or ``nhwc``.
    """

    name: str
    scale: float = PIXEL
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    colour: str = "rgb"
    layout: str = "nchw"

    @property
    def axis(self) -> int:
        """Where channels lie."""
        return 1 if self.layout == "nchw" else 3

    def of(self, pixels: Array) -> Array:
        """Numbers of pixels from 0 to 255, red first, of the type of the pixels."""
        ordered = self._ordered(pixels)
        return ((ordered / self.scale - self._along(self.mean)) / self._along(self.std)).astype(pixels.dtype)

    def pixels(self, numbers: Array) -> Array:
        """Pixels of numbers."""
        return self._ordered((numbers * self._along(self.std) + self._along(self.mean)) * self.scale).astype(
            numbers.dtype
        )

    def _ordered(self, pixels: Array) -> Array:
        return np.flip(pixels, self.axis) if self.colour == "bgr" else pixels

    def _along(self, numbers: tuple[float, ...]) -> Array:
        return np.reshape(numbers, [-1 if axis == self.axis else 1 for axis in range(4)])

    @property
    def shifted(self) -> bool:
        """Whether a mean is taken out, or a deviation divides."""
        return any(self.mean) or set(self.std) != {1.0}

    def options(self, given: Recipe | None = None) -> dict[str, str]:
        """The options that lead to it, those included that take the place of what was given."""
        other = given or UNIT
        told = {"scale": f"{self.scale:g}"} if {self.scale, other.scale} != {PIXEL} else {}
        told |= {"mean": _list(self.mean), "std": _list(self.std)} if self.shifted or other.shifted else {}
        return told | ({"colour": self.colour} if "bgr" in (self.colour, other.colour) else {})

    def advice(self, given: Recipe | None) -> Cure:
        """What to do to get it, with options where images come from a folder that was read as given."""
        if given is None:
            scaled = "pixels" if self.scale == 1 else f"pixels / {self.scale:g}"
            formula = f"({scaled} - {_list(self.mean)}) / {_list(self.std)}" if self.shifted else scaled
            return Cure(f"Store {formula}{', blue first' if self.colour == 'bgr' else ''}")
        if self.options():
            return giving(self.options(given))
        over = _spelled(given.options()) or "other options"
        return Cure(f"Leave {over} out" + ("" if given.scale == PIXEL else ", or ⟨scale⟩ 255"))

    def cure(self, expected: Range) -> Cure:
        """What to do where the model expects a range of numbers."""
        ends = float(np.min(expected.low)), float(np.max(expected.high))
        known = {(0.0, 1.0): UNIT, (0.0, PIXEL): RAW, (-1.0, 1.0): SIGNED}
        return known[ends].advice(self) if ends in known else Cure("Give ⟨scale⟩, ⟨mean⟩ and ⟨std⟩ that lead there")


@dataclass(frozen=True)
class Cure:
    """What makes samples fit.

    Attributes:
        said: What to do, in words.
        options: What to give for it, by name; none where something else has to change.
    """

    said: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.said


def giving(options: Mapping[str, str]) -> Cure:
    """A cure by options alone."""
    return Cure(f"Give {_spelled(options)}", options)


def _spelled(options: Mapping[str, str]) -> str:
    return " ".join(f"⟨{name}⟩ {value}" for name, value in options.items())


def _list(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{x:.6g}" for x in numbers)


UNIT = Recipe("numbers from 0 to 1")
RAW = Recipe("pixels from 0 to 255", 1.0)
SIGNED = Recipe("numbers from -1 to 1", PIXEL, (0.5,), (0.5,))
COLOURED = (
    Recipe("the mean and deviation of ImageNet taken out", PIXEL, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Recipe("the mean pixel of ImageNet taken out, blue first", 1.0, (103.939, 116.779, 123.68), (1.0,), "bgr"),
)
GREY = (
    Recipe("the mean and deviation of ImageNet taken out", PIXEL, (0.449,), (0.226,)),
    Recipe("the mean and deviation of MNIST taken out", PIXEL, (0.1307,), (0.3081,)),
)
IMAGENET = (-2.2, 2.7)  # numbers that pixels become with its mean and deviation taken out
CENTRED = (-124.0, 152.0)  # with its mean pixel taken out


def guessed(numbers: Array, axis: int) -> Recipe | None:
    """How images were most likely prepared, by their range alone; ``None`` where that says nothing.

    Args:
        numbers: Of images.
        axis: Where channels lie.
    """
    low, high = float(numbers.min()), float(numbers.max())
    normal = COLOURED[0] if numbers.shape[axis] > 1 else GREY[0]
    ranges = ((0.0, 1.0, UNIT), (-1.0, 1.0, SIGNED), (*IMAGENET, normal), (0.0, PIXEL, RAW), (*CENTRED, COLOURED[1]))
    for least, most, recipe in ranges:
        slack = SLACK * (most - least)
        if least - slack <= low and high <= most + slack and low < high:
            return replace(recipe, layout="nchw" if axis == 1 else "nhwc")
    return None


def usual(pixels: Array, given: Recipe) -> Iterator[Recipe]:
    """Ways to prepare images other than what was given, simple ones first, then other orders of colours."""
    channels = pixels.shape[given.axis]
    simple = [UNIT, RAW, SIGNED, *(COLOURED if channels > 1 else GREY)]
    turned = [replace(one, name=f"{one.name}, blue first", colour="bgr") for one in simple if one.colour == "rgb"]
    for one in (*simple, *(turned if channels > 1 else ())):
        way = replace(one, layout=given.layout)
        if (way.scale, way.mean, way.std, way.colour) != (given.scale, given.mean, given.std, given.colour):
            yield way


def standard(pixels: Array, given: Recipe) -> Recipe:
    """Take the samples' own mean and deviation out, as who trains on a data set of his own does."""
    axes = tuple(axis for axis in range(4) if axis != given.axis)
    mean, std = pixels.mean(axes, np.float64) / PIXEL, pixels.std(axes, np.float64) / PIXEL
    level, spread = (tuple(map(float, np.round(x, 3))) for x in (mean, np.maximum(std, 1e-3)))
    return Recipe("the samples' own mean and deviation taken out", PIXEL, level, spread, layout=given.layout)
