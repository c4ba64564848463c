"""What a file says of the images it takes, beside its graph: metadata of exporters, and denotations of types.

Sources: Ultralytics' exporter (``imgsz``, ``stride``, ``task``), ONNX's image metadata and type denotations
(docs/MetadataProps.md, docs/TypeDenotation.md and docs/DimensionDenotation.md of onnx), and preprocessing entries of
Transformers (``image_mean``, ``rescale_factor``, ...), in the metadata by themselves or as JSON under a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

PIXEL = 255.0
FORMATS = {"gray8": "grey", "rgb8": "rgb", "bgr8": "bgr", "rgba8": "", "bgra8": ""}
RANGES = {
    "nominalrange_0_255": (1.0, (), ()),
    "normalized_0_1": (PIXEL, (), ()),
    "normalized_1_1": (PIXEL, (0.5,), (0.5,)),
}
"""Nominal range of ONNX's image metadata -> scale, mean and deviation that lead to it."""
CHANNEL = "DATA_CHANNEL"


@dataclass(frozen=True)
class Stated:
    """How images are prepared, as far as a file says: ``(pixel / scale - mean) / std``.

    Attributes:
        why: Who says so; empty where nothing is said.
        size: Height and width.
        stride: Sizes are multiples of it.
        layout: ``nchw`` or ``nhwc``; empty where nothing is said, as below.
        colour: ``rgb``, ``bgr`` or ``grey``.
        scale: Divisor of a pixel between 0 and 255, or ``None``.
        mean: One number for each channel, or one for all.
        std: Likewise.
    """

    why: str = ""
    size: tuple[int, int] | None = None
    stride: int = 1
    layout: str = ""
    colour: str = ""
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def stated(metadata: Mapping[str, str], value: ir.Value | None = None) -> Stated:
    """Read what a file says of its images.

    Args:
        metadata: Of the model.
        value: The input that takes images; its denotations are looked at.
    """
    known = next((told for read in READERS if (told := read(metadata)) is not None), Stated())
    layout = "" if value is None else _layout(value)
    return replace(known, layout=layout, why=known.why or "the denotation of its axes") if layout else known


def _ultralytics(metadata: Mapping[str, str]) -> Stated | None:
    """Images between 0 and 1 of the size that was exported."""
    if not {"stride", "task", "names"} <= set(metadata):
        return None
    sizes = [int(text) for text in re.findall(r"\d+", metadata.get("imgsz", ""))]
    size = (sizes[0], sizes[-1]) if sizes else None
    stride = max([int(text) for text in re.findall(r"\d+", metadata["stride"])], default=1)
    return Stated("its Ultralytics metadata", size, stride, colour="rgb", scale=PIXEL)


def _onnx(metadata: Mapping[str, str]) -> Stated | None:
    """ONNX's own image metadata."""
    known = {key.lower(): str(text).lower() for key, text in metadata.items() if key.startswith("Image.")}
    if not known:
        return None
    scale, mean, std = RANGES.get(known.get("image.nominalpixelrange", ""), (None, (), ()))
    colour = FORMATS.get(known.get("image.bitmappixelformat", ""), "")
    return Stated("its image metadata", colour=colour, scale=scale, mean=mean, std=std)


def _transformers(metadata: Mapping[str, str]) -> Stated | None:
    """Entries of an image processor, by themselves or as JSON under a name."""
    for entries in (metadata, *filter(None, map(_parsed, metadata.values()))):
        told = {key: _parsed(text, dict | list | float | int | bool) for key, text in entries.items()}
        mean, std = (_numbers(told.get(key)) for key in ("image_mean", "image_std"))
        if not mean and not std and "rescale_factor" not in told:
            continue
        normal = told.get("do_normalize", True) is not False
        factor = told.get("rescale_factor") or 1 / PIXEL
        scale = 1.0 if told.get("do_rescale", True) is False else 1 / float(factor)
        return Stated(
            "its preprocessing entries",
            _size(told.get("crop_size") or told.get("size")),
            scale=PIXEL if abs(scale - PIXEL) < 1 else scale,
            mean=mean if normal else (),
            std=std if normal else (),
        )
    return None


def _parsed(text: Any, kind: Any = dict) -> Any:
    """What a text holds as JSON, if it is of a kind; what is no text stays."""
    if not isinstance(text, str):
        return text
    try:
        held = json.loads(text)
    except ValueError:
        return None
    return held if isinstance(held, kind) else None


def _numbers(given: Any) -> tuple[float, ...]:
    listed = given if isinstance(given, list) else [] if given is None or isinstance(given, dict | bool) else [given]
    return tuple(map(float, listed)) if all(isinstance(x, int | float) for x in listed) else ()


def _size(given: Any) -> tuple[int, int] | None:
    if isinstance(given, int):
        return given, given
    if isinstance(given, dict) and {"height", "width"} <= set(given):
        return int(given["height"]), int(given["width"])
    return None


READERS: tuple[Callable[[Mapping[str, str]], Stated | None], ...] = (_ultralytics, _onnx, _transformers)


def _layout(value: ir.Value) -> str:
    """Where denotations of axes put channels."""
    if value.shape is None or len(value.shape) != 4:
        return ""
    axes = [value.shape.get_denotation(axis) for axis in range(4)]
    return {1: "nchw", 3: "nhwc"}.get(axes.index(CHANNEL), "") if CHANNEL in axes else ""
