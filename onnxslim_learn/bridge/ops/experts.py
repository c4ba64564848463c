"""Mixtures of experts: every token goes through the experts that a router gives the largest numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge.ops.quantize import unpacked

Layer: TypeAlias = "tuple[Tensor, Tensor | None]"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "identity": lambda x: x,
    "relu": torch.relu,
    "relu2": lambda x: torch.relu(x).square(),
    "silu": F.silu,
}
GATED = {"swiglu", "geglu"}
INTERLEAVED, STACKED = 1, 2  # how attribute ``swiglu_fusion`` counts layouts of gates and what they multiply


def activated(first: Tensor, third: Tensor | None, kind: str, settings: dict[str, Any]) -> Tensor:
    """The hidden units of a layer, of which every second one or half may be gates."""
    if kind not in GATED:
        return ACTIVATIONS[kind](first) if third is None else ACTIVATIONS[kind](first) * third
    fusion = settings.get("swiglu_fusion", 0)
    gated: Tensor
    if fusion == INTERLEAVED:
        first, third = first[..., 0::2], first[..., 1::2]
    elif fusion == STACKED:
        first, third = first.chunk(2, -1)
    if third is None:
        raise NotImplementedError("gates without what they multiply")
    if kind == "geglu":
        gated = F.gelu(first, approximate="tanh") * third
        return gated
    limit = settings.get("swiglu_limit")
    if limit is not None:
        first, third = first.clamp(max=limit), third.clamp(-limit, limit)
    alpha, beta = settings.get("activation_alpha", 1.0), settings.get("activation_beta", 0.0)
    gated = first * torch.sigmoid(alpha * first) * (third + beta)
    return gated


def mixed(
    x: Tensor, chosen: Tensor, shares: Tensor, layers: Sequence[Layer | None], kind: str, settings: dict[str, Any]
) -> Tensor:
    """What experts make of their tokens, in shares: ``chosen`` and ``shares`` are ``[tokens, k]``.

    Each of the three layers, of which the last may be absent, is a weight ``[experts, outputs, inputs]`` and a bias.
    """
    if settings.get("use_sparse_mixer") or settings.get("swiglu_limit_after_activation"):
        raise NotImplementedError("a mixture that onnxruntime runs on GPUs alone")
    rows = x.reshape(-1, x.shape[-1])
    total = torch.zeros_like(rows)
    for expert in range(len(layers[0][0])):  # type: ignore[index]
        token, place = (chosen == expert).nonzero(as_tuple=True)

        def layer(number: int, given: Tensor, expert: int = expert) -> Tensor | None:
            weight, bias = layers[number] or (None, None)
            return None if weight is None else F.linear(given, weight[expert], None if bias is None else bias[expert])

        first, third = layer(0, rows[token]), layer(2, rows[token])
        assert first is not None
        output = layer(1, activated(first, third, kind, settings))
        assert output is not None
        total = total.index_add(0, token, output * shares[token, place, None])
    return total.reshape(x.shape)


def moe(
    x: Tensor,
    router: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None = None,
    w3: Tensor | None = None,
    b3: Tensor | None = None,
    *,
    k: int = 1,
    activation_type: str = "relu",
    normalize_routing_weights: int = 0,
    **settings: Any,
) -> Tensor:
    """MoE: shares are of those chosen, or of all."""
    values, chosen = router.topk(k, dim=-1)
    shares = values.softmax(-1) if normalize_routing_weights else router.softmax(-1).gather(-1, chosen)
    return mixed(x, chosen, shares, [(w1, b1), (w2, b2), None if w3 is None else (w3, b3)], activation_type, settings)


def qmoe(
    x: Tensor,
    router: Tensor,
    *inputs: Tensor | None,
    k: int = 1,
    activation_type: str = "relu",
    normalize_routing_weights: int = 0,
    expert_weight_bits: int = 4,
    quant_type: str = "int",
    **settings: Any,
) -> Tensor:
    """QMoE: shares are of those chosen, or what another input weighs these by."""
    if quant_type != "int":
        raise NotImplementedError(f"weights of type {quant_type}")
    given = [*inputs, *([None] * (13 - len(inputs)))]
    layers: list[Layer | None] = []
    for number, slot in enumerate((0, 3, 6)):
        weight, scales, bias = given[slot : slot + 3]
        bits = settings.get(f"fc{number + 1}_expert_weight_bits", expert_weight_bits)
        if weight is None or scales is None:
            layers.append(None)
        else:
            layers.append((dequantized(weight, scales, given[9 + number], bits).to(x.dtype), bias))
    values, chosen = router.topk(k, dim=-1)
    shares = values.softmax(-1)
    if given[12] is not None:
        shares = given[12].gather(-1, chosen)
        shares = shares / shares.sum(-1, keepdim=True) if normalize_routing_weights else shares
    return mixed(x, chosen, shares, layers, activation_type, settings)


def dequantized(packed: Tensor, scales: Tensor, zeros: Tensor | None, bits: int) -> Tensor:
    """Weights ``[experts, rows, columns]`` out of bytes: every row, or every block of one, has a scale and a zero."""
    numbers = unpacked(packed, bits)
    steps = scales.reshape(*numbers.shape[:2], -1)
    offset: Tensor | float = float(1 << bits - 1)
    if zeros is not None:
        offset = unpacked(zeros, bits)[..., : scales.shape[-1]].to(scales.dtype).reshape(*steps.shape, 1)
    blocks = numbers.reshape(*steps.shape, -1)
    return ((blocks - offset) * steps[..., None]).reshape(numbers.shape)


CONTRIB: dict[str, Callable[..., Any]] = {"MoE": moe, "QMoE": qmoe}
