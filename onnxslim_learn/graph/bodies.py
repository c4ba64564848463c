"""Graphs inside nodes (If, Loop, Scan): how often they run, which of them, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.runtime import node as running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from onnxslim_learn.graph.shape_info import Sample


def is_choice(node: ir.Node) -> bool:
    """Whether a node runs one of two bodies (If)."""
    return "then_branch" in node.attributes


def is_scan(node: ir.Node) -> bool:
    """Whether a node runs its body once for every entry of its inputs (Scan)."""
    return "num_scan_inputs" in node.attributes


def is_loop(node: ir.Node) -> bool:
    """Whether a node runs its body again and again (Loop)."""
    return "body" in node.attributes and not is_scan(node)


def parameters(node: ir.Node) -> Iterator[tuple[str, ir.Value]]:
    """Initializers inside the bodies of a node, at any depth, by name."""
    for body in running.bodies(node):
        yield from body.initializers.items()
        for inner in body:
            yield from parameters(inner)


def rounds(node: ir.Node, sample: Sample) -> int | None:
    """How often a body runs, or ``None`` where only the run decides."""
    if is_loop(node):
        count = node.inputs[0]
        known = None if count is None else sample.value.get(str(count.name))
        return None if known is None else int(known.reshape(-1)[0])
    if is_scan(node):
        scanned, first = node.attributes.get_int("num_scan_inputs", 1), node.inputs[-1]
        axis = (node.attributes.get_ints("scan_input_axes", None) or [0] * (scanned or 1))[-1]
        shape = () if first is None else sample.shape.get(str(first.name), ())
        return shape[axis] if shape else None
    return 1 if is_choice(node) else None


def chosen(node: ir.Node, known: Mapping[str, object]) -> list[ir.Graph]:
    """The bodies that may run: of an If whose condition is known, the branch it chooses."""
    condition = node.inputs[0] if len(node.inputs) else None
    if not is_choice(node) or condition is None or str(condition.name) not in known:
        return running.bodies(node)
    flag = known[str(condition.name)]
    return [node.attributes["then_branch" if bool(flag) else "else_branch"].as_graph()]
