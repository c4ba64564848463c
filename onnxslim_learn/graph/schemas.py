"""What the ONNX standard says of a node's operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    import onnx_ir as ir


def latest(node: ir.Node) -> onnx.defs.OpSchema | None:
    """The newest schema of a node's operator, or ``None`` for one that the standard does not have."""
    known = onnx.defs.has(node.op_type, node.domain)
    return onnx.defs.get_schema(node.op_type, domain=node.domain) if known else None


def at(node: ir.Node, version: int) -> onnx.defs.OpSchema:
    """The schema of a node's operator in a version of its operator set.

    Raises:
        onnx.defs.SchemaError: If there is none.
    """
    return onnx.defs.get_schema(node.op_type, version, node.domain)


def has_attribute(node: ir.Node, name: str) -> bool:
    """Whether nodes of an operator of the standard may have an attribute."""
    schema = latest(node)
    return schema is not None and name in schema.attributes
