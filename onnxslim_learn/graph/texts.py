"""What to write into an input that takes texts, where nobody gives any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTS = ("cats_strings", "keys_strings", "pool_strings")  # attributes that list the texts which a node knows
ANY = "a"  # where none lists any


def known(graph: ir.Graph, name: str) -> str:
    """A text that a node knows which reads an input; encoders of categories refuse others."""
    return next((text for value in graph.inputs if value.name == name for text in _listed(value)), ANY)


def _listed(value: ir.Value) -> Iterator[str]:
    """The first texts of the lists of nodes that read a value, or what is made of it, nearest first."""
    reached = [value]
    for one in reached:
        for node in one.consumers():
            yield from (node.attributes[name].as_strings()[0] for name in LISTS if name in node.attributes)
            reached += [that for that in node.outputs if that not in reached and that.type in (None, value.type)]
