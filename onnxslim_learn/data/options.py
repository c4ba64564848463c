"""What can be asked for when samples are read or made up."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from onnxslim_learn.errors import InputError
from onnxslim_learn.readers import any_number, numbers, pair, positive, size, whole
from onnxslim_learn.settings import option, part

USUAL = 512  # samples
IMAGES = "images: "  # begins the help of what makes sense for images alone


def _scale(text: str) -> float:
    if any_number(text) not in (255.0, 1.0):
        raise ValueError(f"expected 255 or 1, but got {text!r}")
    return float(text)


@dataclass(frozen=True)
class DataSettings:
    """How samples are read or made.

    Attributes:
        samples: At most so many, chosen evenly by chance; ``None`` for :data:`USUAL`.
        batch_size: Samples at a time, where the model leaves that open.
        seed: Determines which and in which order.
        input_range: Smallest and largest number of made-up inputs: one pair, or one for each channel.
        image_size: Height and width of images, where the model leaves them open.
        scale: Divisor of pixels: 255 or 1.
        mean: Taken out of scaled pixels, for each channel or all.
        std: Scaled pixels are divided by it afterwards.
        layout: ``nchw`` or ``nhwc``.
        colour: ``rgb``, ``bgr`` or ``grey``.
        as_given: Whether samples are taken that are surely not what the model expects.
    """

    TITLE: ClassVar = ("samples", "inputs to choose, repair and check on; made up without --data")

    samples: int | None = option(None, "use at most so many (default 512)", metavar="N", read=positive)
    batch_size: int = option(32, "run so many at a time", metavar="N", read=positive)
    seed: int = option(0, "chooses and orders samples (default 0)", metavar="N", read=whole)
    input_range: tuple[tuple[float, float], ...] = option(
        (),
        "without --data: range of the inputs to make up; once, or once for each channel",
        metavar="LOW,HIGH",
        read=pair,
        repeat=True,
        between=",",
    )
    image_size: tuple[int, int] | None = option(
        None, f"{IMAGES}size, where the model leaves it open", metavar="HxW", read=size, between="x"
    )
    scale: float | None = option(None, f"{IMAGES}what pixels are divided by", metavar="255|1", read=_scale)
    mean: tuple[float, ...] = option(
        (), f"{IMAGES}taken out of scaled pixels", metavar="R,G,B", read=numbers, between=","
    )
    std: tuple[float, ...] = option((), f"{IMAGES}divides scaled pixels", metavar="R,G,B", read=numbers, between=",")
    layout: str | None = option(None, f"{IMAGES}order of axes", choices=("nchw", "nhwc"))
    colour: str | None = option(None, f"{IMAGES}order of channels", choices=("rgb", "bgr", "grey"))
    as_given: bool = option(False, "take samples that are surely not what the model expects")

    @property
    def count(self) -> int:
        """At most so many samples."""
        return USUAL if self.samples is None else self.samples

    @property
    def for_images(self) -> list[str]:
        """Parameters given that make sense for images alone."""
        about = {one.name: one.metadata["option"].help for one in fields(self)}
        return [name for name in about if about[name].startswith(IMAGES) and getattr(self, name)]

    def check(self, data: object, *, matching: bool = False) -> None:
        """Refuse what has no effect on samples that are given, or on made-up ones.

        Args:
            data: What was given, or ``None`` for made-up samples.
            matching: Whether made-up samples are to match statistics.

        Raises:
            InputError: With the parameter at fault.
        """
        if data is None and self.for_images:
            raise InputError(f"⟨{self.for_images[0]}⟩: is for folders of images. Give one with ⟨data⟩.")
        if data is not None and matching:
            raise InputError(
                "⟨match_statistics⟩: is for made-up inputs, but ⟨data⟩ gives real ones. Leave one of them out."
            )
        if data is not None and self.input_range:
            raise InputError("⟨input_range⟩: is for made-up inputs, but ⟨data⟩ gives real ones. Leave one out.")


@dataclass(frozen=True)
class SampleSettings:
    """Samples, and how they are read.

    Attributes:
        data: Where they come from: see :func:`onnxslim_learn.data.open.open_source`; ``None`` to make them up.
        reading: How they are read or made up.
    """

    TITLE: ClassVar = DataSettings.TITLE

    data: Any = option(
        None,
        ".npz or .npy file, folder of images, .tar files of images (WebDataset), .parquet files, or module:function",
        metavar="SRC",
        reads=True,
        decides=False,
    )
    reading: DataSettings = part(DataSettings)
