"""Graphs inside nodes (If, Loop, Scan): how often they run, which of them, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime import node as running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from onnxslim_learn.graph.shape_info import Sample

MOST_ROUNDS = 2**24  # of a loop that nothing ends earlier: a net has thousands at most, and more would run for minutes


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


def check_rounds(node: ir.Node, sample: Sample) -> None:
    """Refuse a loop that surely runs for longer than anybody waits.

    Raises:
        InputError: If no condition ends it and its rounds, times those of loops in it, are more than is bearable.
    """
    if is_loop(node) and (count := _rounds_at_least(node, sample)) > MOST_ROUNDS:
        where = f"node {node.name} ({node.op_type})"
        raise InputError(f"{where}: it runs its body {count} times, more than can be waited for ({MOST_ROUNDS}).")


def _rounds_at_least(node: ir.Node, sample: Sample) -> int:
    """How often a loop's bodies surely run, those of loops in it among them."""
    count = node.inputs[0] if is_loop(node) else None
    tensor = None if count is None else count.const_value
    known = rounds(node, sample) if tensor is None else int(tensor.numpy().reshape(-1)[0])
    if count is None or known is None or known < 1 or not _runs_through(node, sample):
        return 0
    return known * max(1, sum(_rounds_at_least(inner, sample) for body in running.bodies(node) for inner in body))


def _runs_through(node: ir.Node, sample: Sample) -> bool:
    """Whether a loop's condition holds to the end: it neither is false at first nor follows from what changes."""
    begun = node.inputs[1] if len(node.inputs) > 1 else None
    first = None if begun is None else sample.value.get(str(begun.name))
    (body,) = running.bodies(node)
    makers = {str(value.name): inner for inner in body for value in inner.outputs}
    changing = {str(value.name) for value in (body.inputs[0], *body.inputs[2:])}
    waiting, met = [str(body.outputs[0].name)], set[str]()
    while waiting:
        met.add(name := waiting.pop())
        waiting += [read for read in (running.reads(makers[name]) if name in makers else ()) if read not in met]
    return (first is None or bool(first.all())) and not met & changing


def chosen(node: ir.Node, known: Mapping[str, object]) -> list[ir.Graph]:
    """The bodies that may run: of an If whose condition is known, the branch it chooses."""
    condition = node.inputs[0] if len(node.inputs) else None
    if not is_choice(node) or condition is None or str(condition.name) not in known:
        return running.bodies(node)
    flag = known[str(condition.name)]
    return [node.attributes["then_branch" if bool(flag) else "else_branch"].as_graph()]
