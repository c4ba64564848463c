"""What can be asked for when samples are read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How samples are read or made.

    Attributes:
        samples: At most so many, chosen evenly by chance.
        batch_size: Samples at a time, where the model leaves that open.
        seed: Determines which and in which order.
        input_range: Smallest and largest number of made-up inputs: one pair, or one for each channel.
        image_size: Height and width of images, where the model leaves them open.
        mean: Taken out of scaled pixels, for each channel or all.
        std: Scaled pixels are divided by it afterwards.
        layout: ``nchw`` or ``nhwc``.
        colour: ``rgb``, ``bgr`` or ``grey``.
        scale: Divisor of pixels: 255 or 1.
    """

    samples: int = 512
    batch_size: int = 32
    seed: int = 0
    input_range: tuple[tuple[float, float], ...] = ()
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str | None = None
    colour: str | None = None
    scale: float | None = None

    @property
    def for_images(self) -> list[str]:
        """Flags given that make sense for images alone."""
        names = ("image_size", "mean", "std", "layout", "colour", "scale")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]
