"""What a run can be watched by: TensorBoard's event files, where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Summarise: TypeAlias = "Callable[[int, Mapping[str, float], Mapping[str, Tensor]], None]"

CELL, LINE, GAP = 28, 14, 4  # pixels: width and height of a number's cell, and what is left beside it


@contextmanager
def summaries(folder: Path | None, start: int, history: Sequence[Mapping[str, float]]) -> Iterator[Summarise]:
    """A function that writes a step's numbers and histograms to ``<folder>/events``; it does nothing without a folder.

    With numbers of single groups or layers (``alive/GROUP``) goes a picture of all of them over the steps so far.

    Args:
        folder: The run's folder.
        start: The first step; what an interrupted run wrote from there on is dropped.
        history: The numbers of some steps, which grows as they are taken.
    """
    if folder is None or importlib.util.find_spec("tensorboard") is None:
        yield lambda step, numbers, histograms: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "events"), purge_step=start or None)

    def summarise(step: int, numbers: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        for name, values in histograms.items():
            writer.add_histogram(name, values.detach().cpu(), step)
        for kind in {name.partition("/")[0]: None for name in numbers if "/" in name}:
            parts = [{name: x for name, x in one.items() if name.startswith(f"{kind}/")} for one in history]
            writer.add_image(kind, heat_map([one for one in parts if one]), step, dataformats="HWC")

    try:
        yield summarise
    finally:
        writer.close()


def heat_map(columns: Sequence[Mapping[str, float]]) -> Array:
    """A picture of numbers by name over time: a line for every name, a cell for every time, the last number behind.

    A cell is the darker, the nearer its number is to the largest of its line (to one, if that is less).

    Args:
        columns: The numbers, the earliest first, of the same names each.

    Returns:
        Red, green and blue, ``(height, width, 3)`` uint8.
    """
    names = list(columns[0])
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    first = round(max(pen.textlength(name) for name in names)) + 2 * GAP
    picture = Image.new("RGB", (first + CELL * (len(columns) + 2), LINE * len(names)), "white")
    pen = ImageDraw.Draw(picture)
    for line, name in enumerate(names):
        top, values = line * LINE, [column[name] for column in columns]
        pen.text((GAP, top), name, fill="black")
        for number, value in enumerate(values):
            light = round(255 * (1 - value / max(*values, 1.0)))
            left = first + number * CELL
            pen.rectangle((left, top, left + CELL - 2, top + LINE - 2), fill=(light, light, 255))
        pen.text((first + CELL * len(values) + GAP, top), f"{values[-1]:.4g}", fill="black")
    return np.asarray(picture)
