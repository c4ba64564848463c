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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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


STRAIGHT = quantize.STRAIGHT


def function_for(domain: str, op_type: str, readers: Iterable[str] = ()) -> Callable[..., Any] | None:
    """The torch function of an operator whose result some operators read, or ``None`` for one that has none."""
    special = (norm.FOLLOWED.get((op_type, reader)) for reader in readers)
    return next(filter(None, special), None) or DOMAINS.get(domain, {}).get(op_type)
