"""Losses and optimizer steps, of files that hold a training graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def negative_log_likelihood(
    x: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Tensor:
    """NegativeLogLikelihoodLoss."""
    chosen = target.long()
    ignored = torch.zeros_like(chosen, dtype=torch.bool) if ignore_index is None else chosen == ignore_index
    chosen = chosen.masked_fill(ignored, 0)
    share = torch.ones_like(x[:, 0]) if weight is None else weight[chosen].to(x.dtype)
    share = share.masked_fill(ignored, 0)
    loss = -x.gather(1, chosen[:, None])[:, 0] * share
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / share.sum()


def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    outputs: int = 1,
) -> Any:
    """SoftmaxCrossEntropyLoss; log probabilities where asked for."""
    logs = F.log_softmax(x, 1)
    loss = negative_log_likelihood(logs, target, weight, ignore_index=ignore_index, reduction=reduction)
    return (loss, logs) if outputs > 1 else loss


def _thirds(xs: tuple[Tensor, ...], parts: int) -> list[tuple[Tensor, ...]]:
    """The tensors of every parameter: value, gradient, states."""
    count = len(xs) // parts
    return [xs[k::count] for k in range(count)]


def adagrad(
    r: Tensor,
    t: Tensor,
    *xs: Tensor,
    decay_factor: float = 0.0,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
) -> tuple[Tensor, ...]:
    """Adagrad."""
    rate, values, squares = r / (1 + t * decay_factor), [], []
    for x, g, h in _thirds(xs, 3):
        g = norm_coefficient * x + g  # noqa: PLW2901
        h = h + g * g  # noqa: PLW2901
        values.append(x - rate * g / (h.sqrt() + epsilon))
        squares.append(h)
    return (*values, *squares)


def adam(
    r: Tensor,
    t: Tensor,
    *xs: Tensor,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> tuple[Tensor, ...]:
    """Adam."""
    values, firsts, seconds = [], [], []
    for x, g, v, h in _thirds(xs, 4):
        g = norm_coefficient * x + g  # noqa: PLW2901
        v, h = alpha * v + (1 - alpha) * g, beta * h + (1 - beta) * g * g  # noqa: PLW2901
        rate = torch.where(t > 0, r * (1 - beta**t).sqrt() / (1 - alpha**t), r)
        values.append((1 - norm_coefficient_post) * (x - rate * v / (h.sqrt() + epsilon)))
        firsts.append(v)
        seconds.append(h)
    return (*values, *firsts, *seconds)


def momentum(
    r: Tensor, t: Tensor, *xs: Tensor, alpha: float, beta: float, mode: str, norm_coefficient: float
) -> tuple[Tensor, ...]:
    """Momentum, standard or Nesterov's."""
    values, states = [], []
    for x, g, v in _thirds(xs, 3):
        g = norm_coefficient * x + g  # noqa: PLW2901
        v = alpha * v + torch.where(t > 0, beta, 1.0) * g  # noqa: PLW2901
        values.append(x - r * (g + alpha * v if mode == "nesterov" else v))
        states.append(v)
    return (*values, *states)


TABLE: dict[str, Callable[..., Any]] = {
    "NegativeLogLikelihoodLoss": negative_log_likelihood,
    "SoftmaxCrossEntropyLoss": cross_entropy,
}

TRAINING: dict[str, Callable[..., Any]] = {"Adagrad": adagrad, "Adam": adam, "Momentum": momentum}
