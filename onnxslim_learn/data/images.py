"""A folder of images as samples: found, resized, cropped and scaled as a model expects them."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.data import input_range
from onnxslim_learn.data.recipes import Recipe
from onnxslim_learn.data.signature import LAYOUTS, Declared, accept, layout_of
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.graph.stated import Stated, stated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxslim_learn.data.batch import Batch
    from onnxslim_learn.data.options import DataSettings
    from onnxslim_learn.data.signature import Input
    from onnxslim_learn.graph.load import Graph


SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"))
CHANNELS = {1: "grey", 3: "rgb"}
MODES = {"grey": "L", "rgb": "RGB", "bgr": "RGB"}  # colour -> Pillow's mode
PIXEL = 255.0
RAW = 20.0  # first layers that expect more than this take pixels as they are


@dataclass(frozen=True)
class Look:
    """How pixels become numbers: ``(pixel / scale - mean) / std``.

    Attributes:
        name: The graph input.
        size: Height and width.
        layout: ``nchw`` or ``nhwc``.
        colour: ``rgb``, ``bgr`` or ``grey``.
        scale: Divisor of a pixel between 0 and 255.
        mean: One number for each channel, or one for all.
        std: Likewise.
        dtype: Type of the numbers.
    """

    name: str
    size: tuple[int, int]
    layout: str
    colour: str
    scale: float
    mean: Array
    std: Array
    dtype: np.dtype[Any]

    @property
    def recipe(self) -> Recipe:
        """The same, without sizes."""
        mean, std = (tuple(map(float, x)) for x in (self.mean, self.std))
        return Recipe("what was asked for", self.scale, mean, std, self.colour, self.layout)

    def __str__(self) -> str:
        said = f"{self.size[0]}x{self.size[1]} {self.colour} from 0 to {PIXEL / self.scale:g}"
        shifted = np.any(self.mean != 0) or np.any(self.std != 1)
        return said + (f", mean {self.mean.tolist()} and std {self.std.tolist()} taken out" if shifted else "")


class Kept(Protocol):
    """An image, wherever it is kept."""

    @property
    def parent(self) -> Path:
        """The file or folder that it is in."""

    def open(self) -> IO[bytes]:
        """Its bytes, as a file."""


@dataclass(frozen=True)
class Packed:
    """A file that lies in another (:mod:`onnxslim_learn.data.shards`).

    Attributes:
        parent: The other.
        name: Of the file in it.
        start: Its first byte.
        size: Bytes.
    """

    parent: Path
    name: str
    start: int
    size: int

    def open(self) -> io.BytesIO:
        """Its bytes, as a file."""
        with self.parent.open("rb") as file:
            file.seek(self.start)
            return io.BytesIO(file.read(self.size))

    def __str__(self) -> str:
        return f"{self.parent}: {self.name}"


def pictures(folder: Path) -> list[Path]:
    """The images in a folder and those below it, in order."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def find(folder: Path) -> tuple[list[Path], list[int] | None]:
    """The images under a folder in order, and their classes where all lie in sub-folders.

    Raises:
        InputError: If there is none.
    """
    files = pictures(folder)
    if not files:
        raise InputError(f"{folder}: holds no images ({', '.join(sorted(SUFFIXES))}). Give a folder that does.")
    tops = [path.relative_to(folder).parts[:-1][:1] for path in files]
    classes = sorted(set(tops))
    if len(classes) < 2 or () in classes:
        return files, None
    return files, [classes.index(top) for top in tops]


def look(where: str, declared: Declared, graph: Graph, options: DataSettings) -> Look:
    """Decide how images are prepared, from the model and what was asked for.

    Args:
        where: The folder, for errors.
        declared: What the model declares.
        graph: The model; its metadata and first layers may tell what it expects, nominal sizes stand for open ones.
        options: What was asked for.

    Raises:
        InputError: If the model takes no images, or what was asked for does not fit it.
    """
    one = _image_input(where, declared)
    told = stated(graph.model.metadata_props, next(v for v in graph.model.graph.inputs if v.name == one.name))
    layout = options.layout or told.layout or layout_of(one)
    channel, *spatial = LAYOUTS[layout]
    colour = _colour(one, one.dims[channel], options, told)
    sizes = graph.shapes.nominal.inputs[one.name]
    size = options.image_size or (sizes[spatial[0]], sizes[spatial[1]])
    for axis, wanted in zip(spatial, size, strict=True):
        if isinstance(one.dims[axis], int) and one.dims[axis] != wanted:
            raise InputError(f"⟨image_size⟩ {size[0]}x{size[1]}: the model takes {one.picture}. Leave the option out.")
    whole = one.dtype.kind in "iu"
    implied = input_range.implied(graph, one.name)
    raw = whole or (implied is not None and np.max(implied.high) > RAW)
    scale = options.scale or (1.0 if raw else told.scale or PIXEL)
    usual = Stated() if whole or options.mean or options.std else told
    mean, std = np.array(options.mean or usual.mean or (0.0,)), np.array(options.std or usual.std or (1.0,))
    for flag, value in (("⟨mean⟩", mean), ("⟨std⟩", std)):
        if len(value) not in (1, len(MODES[colour])):
            raise InputError(f"{flag}: {len(value)} numbers, but images are {colour}. Give one for each channel.")
    if whole and (scale != 1 or np.any(mean != 0) or np.any(std != 1)):
        raise InputError(f"⟨scale⟩, ⟨mean⟩, ⟨std⟩: the model takes {one.picture}, so pixels stay. Leave them out.")
    return Look(one.name, size, layout, colour, scale, mean, std, one.dtype)


def _image_input(where: str, declared: Declared) -> Input:
    inputs = list(declared.inputs.values())
    if len(inputs) != 1 or len(inputs[0].dims) != 4 or inputs[0].axis != 0:
        said = ", ".join(f"{one.name} {one.picture}" for one in inputs)
        raise InputError(f"{where}: the model takes {said}, no single batch of images. Give an .npz file.")
    return inputs[0]


def _colour(one: Input, channels: int | str, options: DataSettings, told: Stated) -> str:
    fits = isinstance(channels, str) or len(MODES.get(told.colour, "")) == channels
    colour = options.colour or (fits and told.colour) or CHANNELS.get(channels if isinstance(channels, int) else 3, "")
    if not colour or (isinstance(channels, int) and len(MODES[colour]) != channels):
        raise InputError(
            f"⟨colour⟩ {colour or 'rgb|bgr|grey'}: input {one.name} has {channels} channels. "
            f"Give ⟨layout⟩ and ⟨colour⟩ that fit, or an .npz file."
        )
    return colour


def picture(path: Path | Kept, look: Look) -> Array:
    """Read one image: shorter side resized, centre cut out, pixels turned into numbers.

    Raises:
        InputError: If it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path if isinstance(path, Path) else path.open()) as opened:
            if opened.mode[0] in "IF":
                raise ValueError("more than 8 bits a channel")
            image = ImageOps.fit(
                ImageOps.exif_transpose(opened).convert(MODES[look.colour]), look.size[::-1], Image.Resampling.BILINEAR
            )
    except Exception as error:
        raise InputError(f"{path}: no image that can be read ({reason(error)}). Convert or remove it.") from error
    pixels = np.asarray(image, np.float64).reshape(*look.size, -1)
    if look.colour == "bgr":
        pixels = pixels[..., ::-1]
    numbers = ((pixels / look.scale - look.mean) / look.std).astype(look.dtype)
    return numbers if look.layout == "nhwc" else np.ascontiguousarray(numbers.transpose(2, 0, 1))


@dataclass(frozen=True)
class Pictures:
    """Images, read when they are wanted.

    Attributes:
        files: In order.
        classes: Their classes, or ``None``.
        look: How they are prepared.
        declared: What the model declares.
    """

    files: Sequence[Path | Kept]
    classes: Sequence[int] | None
    look: Look
    declared: Declared

    def at(self, order: Array) -> Pictures:
        """Some of them, in another order."""
        classes = None if self.classes is None else [self.classes[k] for k in order]
        return replace(self, files=[self.files[k] for k in order], classes=classes)

    def pick(self, places: Sequence[int] | Array) -> Batch:
        """The images at some places of the order."""
        stack = np.stack([picture(self.files[k], self.look) for k in places])
        labels = None if self.classes is None else np.array([self.classes[k] for k in places])
        return accept(str(self.files[0].parent), {self.look.name: stack}, self.declared, labels)

    def portions(self, size: int) -> Iterator[Batch]:
        """All images, so many at a time."""
        for start in range(0, len(self.files), size):
            yield self.pick(range(start, min(start + size, len(self.files))))
