"""What units are worth: how fast the outputs move when a unit is turned down.

The worth of a unit is the curvature, by its gate, of the divergence between the original's outputs and the gated ones:
the Fisher information where outputs are class probabilities, the Gauss-Newton matrix's diagonal of the squared error
over the variance elsewhere. Both are means of squared gradients of a score drawn by chance (labels from the original's
own distribution, signs), so that no labels are needed (Martens 2020, arXiv:1412.1193, section 5; Molchanov et al. 2019,
arXiv:1906.10771, for gates).
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from onnxslim_learn.bridge import gates
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.train import samples as pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.train.losses import Taught
    from onnxslim_learn.train.samples import SampleStore

BATCHES = 32
TOGETHER = 64
LEAST = 1e-4  # of the mean: what nothing comes from still has a worth


def unit_sensitivity(
    analysis: Analysis, groups: Sequence[Group], samples: SampleStore, known: Mapping[str, Taught], *, seed: int = 0
) -> Tensor:
    """Worth of every unit, ``[units]``, one on average.

    Args:
        analysis: The model.
        groups: Whose units, in order.
        samples: To measure on.
        known: What its float outputs are.
        seed: Of the scores that are drawn.
    """
    module = bridge(analysis).eval().requires_grad_(False)
    factors = [gate.requires_grad_() for gate in gates.attach(module, analysis, groups).values()]
    total = torch.zeros(sum(len(gate) for gate in factors), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for batch in islice(pool.portions(samples, TOGETHER), BATCHES):
        inputs, _ = pool.tensors(batch, torch.device("cpu"))
        outputs = module(*(inputs[name] for name in module.meta["inputs"]))
        score = torch.stack([_score(outputs[name], one, generator) for name, one in known.items()]).sum()
        parts = torch.autograd.grad(score, factors, allow_unused=True)
        parts_or_zero = [torch.zeros_like(f) if p is None else p for p, f in zip(parts, factors, strict=True)]
        total += torch.cat(parts_or_zero).double().square() / batch.count
    mean = total.mean().clamp_min(1e-30)
    return (total / mean).clamp_min(LEAST).float()


def _score(output: Tensor, one: Taught, generator: torch.Generator) -> Tensor:
    """A number whose squared gradient is, on average, the sum over samples of their curvatures."""
    if one.kind == "numbers":
        signs = torch.randint(0, 2, output.shape, generator=generator) * 2 - 1
        size = output[0].numel() if output.ndim else 1
        return torch.sum(output * signs) / math.sqrt(size * one.variance)
    output = output.reshape(-1, output.shape[-1])
    if one.kind == "labels":
        chance = output.clamp(1e-7, 1 - 1e-7)
        return torch.where(torch.bernoulli(chance.detach(), generator=generator) > 0, chance, 1 - chance).log().sum()
    logs = F.log_softmax(output, 1) if one.kind == "logits" else output.clamp_min(1e-12).log()
    drawn = torch.multinomial(logs.detach().exp(), 1, generator=generator)
    score: Tensor = logs.gather(1, drawn).sum()
    return score
