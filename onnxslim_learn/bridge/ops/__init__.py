"""The table of torch functions: every operator once, by its name in ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.bridge.ops import (
    attention,
    contract,
    contrib_layers,
    control,
    elementwise,
    gather,
    generate,
    loss,
    moves,
    norm,
    pooling,
    quantize,
    recurrent,
    reduce,
    resize,
    sample,
    signal,
)
from onnxslim_learn.registry import operator
from onnxslim_learn.rows import imported

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

TABLE: dict[str, Callable[..., Any]] = {
    **attention.TABLE,
    **contract.TABLE,
    **control.TABLE,
    **elementwise.TABLE,
    **gather.TABLE,
    **loss.TABLE,
    **generate.TABLE,
    **moves.TABLE,
    **norm.TABLE,
    **pooling.TABLE,
    **quantize.TABLE,
    **recurrent.TABLE,
    **reduce.TABLE,
    **resize.TABLE,
    **sample.TABLE,
    **signal.TABLE,
}

DOMAINS: dict[str, dict[str, Callable[..., Any]]] = {
    "": TABLE,
    "ai.onnx": TABLE,
    "ai.onnx.preview": control.PREVIEW,
    "ai.onnx.preview.training": loss.TRAINING,
    "com.microsoft": contrib_layers.CONTRIB,
}


def function_for(node: ir.Node) -> Callable[..., Any] | None:
    """The torch function of a node, given what reads its result, or ``None`` where its operator has none."""
    readers = {use.node.op_type for output in node.outputs for use in output.uses()}
    special = (norm.FOLLOWED.get((node.op_type, reader)) for reader in readers)
    known = next(filter(None, special), None) or DOMAINS.get(node.domain, {}).get(node.op_type)
    declared = None if known or node.domain in DOMAINS else operator(node.domain, node.op_type)
    function: Callable[..., Any] | None = known if declared is None else imported(declared.torch)
    return function


def straight(before: ir.Node, node: ir.Node) -> Callable[..., Any] | None:
    """The function of two nodes in a row through which the gradient passes as if they did nothing, if there is one."""
    return quantize.STRAIGHT.get((before.op_type, node.op_type))
