"""Samples changed at random on their way into training, so that a net sees more than there are.

The teacher sees what the student sees, so samples may become anything that the net could meet. Labels must stay true:
none is on unless it is asked for, as a mirrored digit is another digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from onnxslim_learn.data.signature import layout_of
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import AUGMENTATIONS

if TYPE_CHECKING:
    from torch import Tensor

    from onnxslim_learn.data.signature import Declared

Inputs: TypeAlias = "dict[str, Tensor]"
Images: TypeAlias = "Mapping[str, tuple[int, int]]"
"""Inputs that are images -> their axes of height and width."""

SHIFTED = 0.125  # of height and width, at most: four pixels of 32, as is usual (He et al. 2016, arXiv:1512.03385)


@dataclass(frozen=True)
class Augmentation:
    """What is done to a batch, one after the other.

    Attributes:
        functions: Take inputs by name and which are images: changed inputs or, of rows that mix samples, these with the
            order in which samples were mixed in, and the share of the first.
        images: Axes of height and width of inputs that are images.
    """

    functions: Sequence[tuple[Callable[[Inputs, Images], Any], bool]]
    images: Images

    def __call__(self, inputs: Inputs) -> tuple[Inputs, list[tuple[float, Tensor]]]:
        """Changed inputs; and shares of the samples in each, with their order, where more than one is in it."""
        shares: list[tuple[float, Tensor]] = []
        for function, mixes in self.functions:
            if mixes:
                inputs, order, share = function(inputs, self.images)
                shares = [(share, torch.arange(len(order))), (1 - share, order)]
            else:
                inputs = function(inputs, self.images)
        return inputs, shares


def augmentation(names: Sequence[Any], declared: Declared) -> Augmentation | None:
    """What is asked for by name, or by functions; ``None`` for nothing.

    Args:
        names: See :data:`onnxslim_learn.registry.AUGMENTATIONS`.
        declared: What the model declares.

    Raises:
        InputError: If there is no such thing, the model takes no images, or two mix samples.
    """
    if not names:
        return None
    rows = [AUGMENTATIONS.row(name) for name in names]
    images = {
        name: (2, 3) if layout_of(one) == "nchw" else (1, 2) for name, one in declared.inputs.items() if _image(one)
    }
    if not images:
        raise InputError(f"⟨augment⟩ {rows[0].name}: the model takes no images. Leave it out.")
    if sum(row.mixes for row in rows) > 1:
        raise InputError(f"⟨augment⟩ {rows[-1].name}: samples are mixed twice. Leave one of them out.")
    return Augmentation([(row.load(), row.mixes) for row in rows], images)


def images_alone(declared: Declared) -> bool:
    """Whether all inputs of a model are images."""
    return bool(declared.inputs) and all(_image(one) for one in declared.inputs.values())


def _image(one: Any) -> bool:
    return len(one.dims) == 4 and one.axis == 0 and one.dtype.kind in "fV"


def shift(inputs: Inputs, images: Images) -> Inputs:
    """Move every image by up to an eighth of its size; pixels at the border are repeated."""
    return {name: _shifted(x, images[name]) if name in images else x for name, x in inputs.items()}


def _shifted(x: Tensor, axes: tuple[int, int]) -> Tensor:
    for axis in axes:
        size = x.shape[axis]
        most = max(round(SHIFTED * size), 1)
        by = torch.randint(-most, most + 1, (len(x),))
        places = (torch.arange(size) + by[:, None]).clamp(0, size - 1)
        shape = [len(x) if k == 0 else size if k == axis else 1 for k in range(x.ndim)]
        x = x.gather(axis, places.reshape(shape).expand(x.shape).to(x.device))
    return x


def flip(inputs: Inputs, images: Images) -> Inputs:
    """Mirror every second image, by chance, left to right."""
    count = len(next(inputs[name] for name in images))
    chosen = torch.rand(count) < 0.5
    return {
        name: torch.where(chosen.reshape(-1, *[1] * (x.ndim - 1)).to(x.device), x.flip(images[name][1]), x)
        if name in images
        else x
        for name, x in inputs.items()
    }


def mix(inputs: Inputs, images: Images) -> tuple[Inputs, Tensor, float]:
    """Blend every image with another by a share between a half and one (Zhang et al. 2018, arXiv:1710.09412, α = 1)."""
    share = 0.5 + float(torch.rand(())) / 2
    order = torch.randperm(len(next(inputs[name] for name in images)))
    return (
        {name: torch.lerp(x[order.to(x.device)], x, share) if name in images else x for name, x in inputs.items()},
        order,
        share,
    )
