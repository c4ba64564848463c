"""The bodies of control flow: graphs that nodes hold as attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that a node holds itself."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.value
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.value


def inside(node: ir.Node) -> Iterator[ir.Node]:
    """All nodes of the graphs that a node holds, and of those inside them."""
    for graph in bodies(node):
        for held in graph:
            yield held
            yield from inside(held)
