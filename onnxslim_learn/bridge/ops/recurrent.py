"""Recurrent cells: torch's own kernels for the usual forms, a loop over time for all others.

Weights are stacked by direction and gate: ``W [d, q·h, i]``, ``R [d, q·h, h]``, ``B [d, 2·q·h]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.kinds import Plain
from onnxslim_learn.bridge.ops.quantize import on_its_grid

ACTIVATIONS: dict[str, Callable[[Tensor, float | None, float | None], Tensor]] = {
    "affine": lambda x, a, b: (1.0 if a is None else a) * x + (b or 0.0),
    "elu": lambda x, a, b: F.elu(x, 1.0 if a is None else a),
    "hardsigmoid": lambda x, a, b: torch.clamp((0.2 if a is None else a) * x + (0.5 if b is None else b), 0, 1),
    "leakyrelu": lambda x, a, b: F.leaky_relu(x, 0.01 if a is None else a),
    "relu": lambda x, a, b: torch.relu(x),
    "scaledtanh": lambda x, a, b: (1.0 if a is None else a) * torch.tanh((1.0 if b is None else b) * x),
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "softplus": lambda x, a, b: F.softplus(x),
    "softsign": lambda x, a, b: F.softsign(x),
    "tanh": lambda x, a, b: torch.tanh(x),
    "thresholdedrelu": lambda x, a, b: torch.where(x > (1.0 if a is None else a), x, torch.zeros_like(x)),
}
WITH_ALPHA = ("affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu")
WITH_BETA = ("affine", "hardsigmoid", "scaledtanh")

Activation = Callable[[Tensor], Tensor]
Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Cell:
    """One direction of a recurrent layer.

    Attributes:
        w: ``[q·h, i]``.
        r: ``[q·h, h]``.
        wb: Bias beside ``w``, ``[q·h]``.
        rb: Bias beside ``r``.
        p: Peepholes, ``[3·h]``, or ``None``.
        act: Activations.
        clip: Bound of what goes into them, or ``None``.
    """

    w: Tensor
    r: Tensor
    wb: Tensor
    rb: Tensor
    p: Tensor | None
    act: tuple[Activation, ...]
    clip: float | None

    def bounded(self, x: Tensor) -> Tensor:
        """What goes into an activation."""
        return x if self.clip is None else x.clamp(-self.clip, self.clip)


def rnn_step(cell: Cell, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One step of RNN."""
    return (cell.act[0](cell.bounded(F.linear(x, cell.w, cell.wb) + F.linear(state[0], cell.r, cell.rb))),)


def gru_step(cell: Cell, x: Tensor, state: tuple[Tensor, ...], linear_before_reset: int = 0) -> tuple[Tensor, ...]:
    """One step of GRU: update, reset, hidden."""
    (h,) = state
    xz, xr, xh = F.linear(x, cell.w, cell.wb).chunk(3, -1)
    rz, rr, rh = cell.r.chunk(3)
    bz, br, bh = cell.rb.chunk(3)
    z = cell.act[0](cell.bounded(xz + F.linear(h, rz, bz)))
    r = cell.act[0](cell.bounded(xr + F.linear(h, rr, br)))
    inner = r * F.linear(h, rh, bh) if linear_before_reset else F.linear(r * h, rh, bh)
    new = cell.act[1](cell.bounded(xh + inner))
    return ((1 - z) * new + z * h,)


def lstm_step(cell: Cell, x: Tensor, state: tuple[Tensor, ...], input_forget: int = 0) -> tuple[Tensor, ...]:
    """One step of LSTM: input, output, forget, cell."""
    h, c = state
    i, o, f, g = (F.linear(x, cell.w, cell.wb) + F.linear(h, cell.r, cell.rb)).chunk(4, -1)
    pi, po, pf = (0.0, 0.0, 0.0) if cell.p is None else cell.p.chunk(3)
    i = cell.act[0](cell.bounded(i + pi * c))
    f = 1 - i if input_forget else cell.act[0](cell.bounded(f + pf * c))
    c = f * c + i * cell.act[1](cell.bounded(g))
    o = cell.act[0](cell.bounded(o + po * c))
    return o * cell.act[2](c), c


def rounded_lstm_step(cell: Cell, x: Tensor, state: tuple[Tensor, ...], input_forget: int = 0) -> tuple[Tensor, ...]:
    """One step of DynamicQuantizeLSTM."""
    return lstm_step(cell, x, (on_its_grid(state[0]), state[1]), input_forget)


def _activate(name: str, a: float | None, b: float | None, x: Tensor) -> Tensor:
    return ACTIVATIONS[name](x, a, b)


def _activations(names: Sequence[str], alphas: Plain, betas: Plain) -> list[Activation]:
    """The named functions; those that take factors take the next ones given."""
    alphas, betas = list(alphas or []), list(betas or [])
    functions: list[Activation] = []
    for name in names:
        a = alphas.pop(0) if name in WITH_ALPHA and alphas else None
        b = betas.pop(0) if name in WITH_BETA and betas else None
        functions.append(functools.partial(_activate, name, a, b))
    return functions


def _run(
    x: Tensor, lengths: Tensor | None, state: tuple[Tensor, ...], step: Step, backwards: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All steps of one direction over ``x [t, b, i]``; a sequence that has ended keeps its state and puts out zero."""
    x = _backwards(x, lengths) if backwards else x
    outputs: list[Tensor] = []
    for t in range(x.shape[0]):
        if lengths is None:
            state = step(x[t], state)
            outputs.append(state[0])
        else:
            alive, before = (t < lengths)[:, None], (t <= lengths)[:, None]
            new = step(x[t], tuple(torch.where(before, s, 0) for s in state))
            outputs.append(torch.where(alive, new[0], 0))
            state = tuple(torch.where(alive, n, s) for n, s in zip(new, state, strict=True))
    y = torch.stack(outputs)
    return _backwards(y, lengths) if backwards else y, state


def _backwards(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Sequences ``[t, b, …]`` from their end to their start; what lies behind an end stays there."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device)[:, None]
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x[places.long(), torch.arange(x.shape[1], device=x.device)]


@dataclass(frozen=True)
class Kind:
    """What tells the three layers apart.

    Attributes:
        gates: Gates stacked in a weight.
        states: Kinds of state.
        usual: Their usual activations.
        step: One step.
        kernel: Torch's own kernel.
        order: Where torch's gates stand among ONNX's.
    """

    gates: int
    states: int
    usual: tuple[str, ...]
    step: Callable[..., tuple[Tensor, ...]]
    kernel: Callable[..., Any]
    order: tuple[int, ...]


RNN = Kind(1, 1, ("tanh",), rnn_step, torch.rnn_tanh, (0,))
GRU = Kind(3, 1, ("sigmoid", "tanh"), gru_step, torch.gru, (1, 0, 2))
LSTM = Kind(4, 2, ("sigmoid", "tanh", "tanh"), lstm_step, torch.lstm, (0, 2, 3, 1))
QUANTIZED = replace(LSTM, step=rounded_lstm_step)


@dataclass(frozen=True)
class CellSettings:
    """The attributes of a recurrent operator, as ONNX names them; ``extra`` goes to every step."""

    activations: Plain = None
    activation_alpha: Plain = None
    activation_beta: Plain = None
    clip: float | None = None
    direction: str = "forward"
    hidden_size: int = 0
    layout: int = 0
    output_sequence: int = 0
    extra: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Given:
    """The inputs of a recurrent operator beside the data: weights by direction, lengths, initial states, peepholes."""

    w: Tensor
    r: Tensor
    b: Tensor | None
    lengths: Tensor | None
    initial: tuple[Tensor | None, ...]
    p: Tensor | None = None


def _layer(kind: Kind, x: Tensor, given: Given, settings: CellSettings, usual: bool) -> tuple[Tensor, ...]:
    """A layer in one or both directions: outputs ``[t, d, b, h]``, then final states ``[d, b, h]``.

    Args:
        kind: Which layer.
        x: ``[t, b, i]``, or ``[b, t, i]`` as the layout says.
        given: Weights and states.
        settings: Attributes.
        usual: Whether torch's kernel knows the form, as far as the operator's own attributes go.
    """
    x = x.transpose(0, 1) if settings.layout else x
    directions, _, hidden = given.r.shape
    states = []
    for state in given.initial:
        placed = state.transpose(0, 1) if state is not None and settings.layout else state
        states.append(x.new_zeros(directions, x.shape[1], hidden) if placed is None else placed)
    names = [name.lower() for name in settings.activations or kind.usual * directions]
    plain = names == list(kind.usual) * directions and not settings.clip and given.lengths is None and given.p is None
    if usual and plain and settings.direction != "reverse":
        y, finals = _by_kernel(kind, x, given, states)
    else:
        acts = _activations(names, settings.activation_alpha, settings.activation_beta)
        y, finals = _by_step(kind, x, given, states, settings, acts)
    if settings.layout:  # [b, t, d, h] and [b, d, h]
        return (y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in finals))
    return (y, *finals)


def _bias(kind: Kind, given: Given, d: int) -> tuple[Tensor, Tensor]:
    """Biases of one direction, zero where none are given."""
    both = given.r.new_zeros(2 * given.r.shape[1]) if given.b is None else given.b[d]
    return both[: given.r.shape[1]], both[given.r.shape[1] :]


def _by_kernel(kind: Kind, x: Tensor, given: Given, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    flat = []
    directions = given.r.shape[0]
    for d in range(directions):
        flat += [_sorted(v, kind) for v in (given.w[d], given.r[d], *_bias(kind, given, d))]
    hx = tuple(states) if kind.states > 1 else states[0]
    y, *finals = kind.kernel(x, hx, flat, True, 1, 0.0, False, directions == 2, False)
    return y.reshape(*y.shape[:2], directions, -1).transpose(1, 2), finals


def _sorted(v: Tensor, kind: Kind) -> Tensor:
    """Gates in torch's order."""
    parts = v.chunk(kind.gates)
    return v if kind.gates == 1 else torch.cat([parts[k] for k in kind.order])


def _by_step(
    kind: Kind, x: Tensor, given: Given, states: list[Tensor], settings: CellSettings, acts: list[Activation]
) -> tuple[Tensor, list[Tensor]]:
    count, outputs, finals = len(kind.usual), [], []
    for d in range(given.r.shape[0]):
        activations = tuple(acts[d * count : (d + 1) * count])
        peephole = None if given.p is None else given.p[d]
        cell = Cell(given.w[d], given.r[d], *_bias(kind, given, d), peephole, activations, settings.clip)
        step = functools.partial(kind.step, cell, **dict(settings.extra))
        start = tuple(s[d] for s in states)
        y, final = _run(x, given.lengths, start, step, settings.direction == "reverse" or d == 1)
        outputs.append(y)
        finals.append(final)
    return torch.stack(outputs, 1), [torch.stack(parts) for parts in zip(*finals, strict=True)]


def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, ...]:
    """RNN."""
    return _layer(RNN, x, Given(w, r, b, lengths, (initial,)), CellSettings(**settings), True)


def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
    *,
    linear_before_reset: int = 0,
    **settings: Any,
) -> tuple[Tensor, ...]:
    """GRU; torch's kernel resets after the product."""
    extra = CellSettings(**settings, extra=(("linear_before_reset", linear_before_reset),))
    return _layer(GRU, x, Given(w, r, b, lengths, (initial,)), extra, bool(linear_before_reset))


def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
    cell: Tensor | None = None,
    p: Tensor | None = None,
    *,
    input_forget: int = 0,
    **settings: Any,
) -> tuple[Tensor, ...]:
    """LSTM."""
    extra = CellSettings(**settings, extra=(("input_forget", input_forget),))
    return _layer(LSTM, x, Given(w, r, b, lengths, (initial, cell), p), extra, not input_forget)


def dynamic_quantize_lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
    cell: Tensor | None = None,
    p: Tensor | None = None,
    *scales_and_zeros: Tensor,
    input_forget: int = 0,
    **settings: Any,
) -> tuple[Tensor, ...]:
    """DynamicQuantizeLSTM: weights ``[d, i, 4·h]`` of integers; data and state are quantized by their own range."""
    extra = CellSettings(**settings, extra=(("input_forget", input_forget),))
    w_scale, w_zero, r_scale, r_zero = (part.reshape(len(part), 1, -1).to(torch.float32) for part in scales_and_zeros)
    w, r = (w.to(torch.float32) - w_zero) * w_scale, (r.to(torch.float32) - r_zero) * r_scale
    given = Given(w.transpose(1, 2), r.transpose(1, 2), b, lengths, (initial, cell), p)
    return _layer(QUANTIZED, on_its_grid(x), given, extra, usual=False)


TABLE: dict[str, Callable[..., Any]] = {"GRU": gru, "LSTM": lstm, "RNN": rnn}

CONTRIB: dict[str, Callable[..., Any]] = {"DynamicQuantizeLSTM": dynamic_quantize_lstm}
