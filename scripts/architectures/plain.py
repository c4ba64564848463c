"""Nets of whatever interface, called with tensors by position and answering with tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nets.exports import Inputs, Network


class Plain(nn.Module):
    """A net called with tensors by position, whose outputs of whatever structure come as a tuple of tensors."""

    def __init__(self, net: nn.Module, names: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__()
        self.net, self.names, self.options = net, names, options

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Call the net; ``names`` are its keyword arguments, if any."""
        named = dict(zip(self.names, inputs, strict=True)) if self.names else {}
        found = tuple(_tensors(self.net(*(() if self.names else inputs), **named, **self.options)))
        return found[0] if len(found) == 1 else found


def _tensors(result: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a structure, each once."""
    if isinstance(result, Tensor):
        if result.is_floating_point():
            yield result
    elif isinstance(result, Mapping):
        for part in result.values():
            yield from _tensors(part)
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tensors(part)


def images(batch: int, *, side: int, channels: int = 3, name: str = "image") -> Inputs:
    """Random square images."""
    return {name: torch.randn(batch, channels, side, side)}


def vision(build: Callable[[], nn.Module], side: int) -> Network:
    """A net that reads one image."""
    return Network(lambda: Plain(build()), partial(images, side=side))
