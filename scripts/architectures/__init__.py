"""The architectures whose coverage is measured: name, library, and how each is built small and randomly initialised.

Widths are those of the smallest published variant where it is light, else reduced; images are as small as the strides
allow. Needs torch, torchvision, timm, transformers, segmentation-models-pytorch, ultralytics and diffusers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nets.exports import Network
from nets.oddities import ODDITIES
from nets.published import PUBLISHED
from nets.published.configured import CONFIGURED
from nets.published.more import MORE
from scripts.architectures import hugging, vision


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        library: Where it comes from.
        network: How it is built and fed.
    """

    library: str
    network: Network


SOURCES: dict[str, Callable[[], Iterator[tuple[str, Network]]]] = {
    "hand-written": lambda: iter((ODDITIES | PUBLISHED | MORE).items()),
    "torchvision": vision.torchvision_nets,
    "timm": vision.timm_nets,
    "transformers": lambda: itertools.chain(hugging.transformers_nets(), CONFIGURED.items()),
    "segmentation-models-pytorch": vision.smp_nets,
    "ultralytics": vision.yolo_nets,
    "diffusers": vision.diffusers_nets,
}


def catalogue() -> dict[str, Architecture]:
    """All architectures by name; the library is part of the name where two have the same."""
    found: dict[str, Architecture] = {}
    for library, nets in SOURCES.items():
        for name, network in nets():
            found[f"{name} ({library})" if name in found else name] = Architecture(library, network)
    return found
