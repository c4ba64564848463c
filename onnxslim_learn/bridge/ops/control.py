"""Control flow. A body is a module and the outer values it reads: ``(module, captured)``.

Conditions and counts that are constant are followed without a trace; others are read from the tensor when the model
runs, which torch.compile answers with a graph break.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import Plain, single

Body: TypeAlias = tuple[Callable[..., tuple[Any, ...]], tuple[Any, ...]]


def branch(condition: Plain, *, then_branch: Body, else_branch: Body) -> tuple[Any, ...]:
    """If."""
    flag = single(condition)
    body, captured = then_branch if flag else else_branch
    return body(*captured)


def loop(count: Plain = None, condition: Plain = None, *states: Any, body: Body, like: Tensor) -> tuple[Any, ...]:
    """Loop: states of the last step, then what every step put out, stacked."""
    run, captured = body
    count, going = (single(v) for v in (count, condition))
    going, step = going is None or going, 0
    scans: list[tuple[Any, ...]] = []
    while going and (count is None or step < count):
        flag, *results = run(
            torch.tensor(step, device=like.device), torch.tensor(True, device=like.device), *states, *captured
        )
        states, scanned = tuple(results[: len(states)]), tuple(results[len(states) :])
        scans.append(scanned)
        going, step = bool(flag), step + 1
    return (*states, *(torch.stack(parts) for parts in zip(*scans, strict=True)))


def scan(
    *xs: Tensor,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: Plain = None,
    scan_input_directions: Plain = None,
    scan_output_axes: Plain = None,
    scan_output_directions: Plain = None,
    opset: int = 9,
) -> tuple[Tensor, ...]:
    """Scan; before operator set 9 every sequence of a batch on its own, after an input with lengths."""
    run, captured = body
    if opset < 9:
        rows = [
            scan(*(x[n] for x in xs[1:]), body=body, num_scan_inputs=num_scan_inputs) for n in range(xs[1].shape[0])
        ]
        return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))
    states, inputs = xs[: len(xs) - num_scan_inputs], list(xs[len(xs) - num_scan_inputs :])
    for k, axis in enumerate(scan_input_axes or []):
        inputs[k] = inputs[k].movedim(axis, 0)
    for k, backwards in enumerate(scan_input_directions or []):
        inputs[k] = inputs[k].flip(0) if backwards else inputs[k]
    scans = []
    for t in range(inputs[0].shape[0]):
        results = run(*states, *(x[t] for x in inputs), *captured)
        states = results[: len(states)]
        scans.append(results[len(states) :])
    outputs = [torch.stack(parts) for parts in zip(*scans, strict=True)]
    for k, backwards in enumerate(scan_output_directions or []):
        outputs[k] = outputs[k].flip(0) if backwards else outputs[k]
    for k, axis in enumerate(scan_output_axes or []):
        outputs[k] = outputs[k].movedim(0, axis)
    return (*states, *outputs)


def sequence_map(sequence: list[Any], *others: Any, body: Body) -> tuple[Any, ...]:
    """SequenceMap: what is no sequence is given to every step."""
    run, captured = body
    rows = [
        run(x, *(other[k] if isinstance(other, list) else other for other in others), *captured)
        for k, x in enumerate(sequence)
    ]
    return tuple(list(parts) for parts in zip(*rows, strict=True))


def flex_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    prob_mod: Body | None = None,
    scale: float | None = None,
    score_mod: Body | None = None,
    softmax_precision: int | None = None,
) -> Tensor:
    """FlexAttention: scores and shares changed by bodies."""
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    root = (q.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
    scores = (q * root) @ (k * root).transpose(-1, -2)
    scores = scores.float() if scores.element_size() < 4 else scores
    change: Body | None
    for change, then in ((score_mod, torch.softmax), (prob_mod, None)):
        if change is not None:
            (scores,) = change[0](scores, *change[1])
        scores = scores if then is None else then(scores, -1)
    result: Tensor = scores @ v.to(scores.dtype)
    return result.to(v.dtype)


TABLE: dict[str, Callable[..., Any]] = {"If": branch, "Loop": loop, "Scan": scan, "SequenceMap": sequence_map}

PREVIEW: dict[str, Callable[..., Any]] = {"FlexAttention": flex_attention}
