"""Made-up inputs on which batch normalisations see the statistics they have stored.

Where a file keeps its batch normalisations, it remembers the mean and variance of what its layers saw in training.
Inputs are made up as smooth noise and then changed by gradient descent until every layer sees that again. Sources: Cai
et al. 2020 (ZeroQ, arXiv:2001.00281, equation 2); Yin et al. 2020 (DeepInversion, arXiv:1912.08795, equation 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx_ir.passes import common as passes

from onnxslim_learn.array_types import Array
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.coupling import roles
from onnxslim_learn.data.batch import Batch
from onnxslim_learn.data.class_balance import confident
from onnxslim_learn.data.input_range import Range
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.signature import LAYOUTS, layout_of
from onnxslim_learn.data.source import Source, regroup
from onnxslim_learn.data.synthetic import range_of
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, fx

    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.data.signature import Declared
    from onnxslim_learn.graph.load import Graph

STEPS = 24
RATE = 0.05  # of a range, a step
TOGETHER = 128  # samples: statistics are those of so many
EPSILON = 1e-5
WIDE = Range(np.array(-5.0), np.array(5.0), "five deviations")  # where no range is known


@dataclass(frozen=True)
class Norm:
    """A batch normalisation that keeps statistics of what another node puts out.

    Attributes:
        reads: Name of the value it normalises.
        mean: Stored, of every channel.
        variance: Likewise.
    """

    reads: str
    mean: Tensor
    variance: Tensor


def normalisations(graph: Graph) -> list[Norm]:
    """The batch normalisations of a graph that keep statistics, but for those of graph inputs."""
    norms = []
    for node in graph.nodes:
        norm = roles.normalisation(node)
        if norm is None or norm.mean is None or norm.variance is None:
            continue
        value, *stored = (node.inputs[k] for k in (0, norm.mean, norm.variance))
        constants = [v.const_value for v in stored if v is not None and v.const_value is not None]
        if value is not None and value.producer() is not None and len(constants) == 2:
            mean, variance = (torch.from_numpy(np.array(c.numpy(), np.float32)) for c in constants)
            norms.append(Norm(str(value.name), mean, variance + EPSILON))
    return norms


def matched(
    coupling: Coupling,
    options: DataSettings | None = None,
    *,
    steps: int = STEPS,
    progress: Callable[[float], None] = lambda share: None,
) -> Source:
    """Make samples up that fit the statistics stored in a model, starting from what a classifier is surest of.

    Args:
        coupling: The model.
        options: How many, how many at a time, the seed, and the range, which is kept.
        steps: Of gradient descent, for every 128 samples.
        progress: Called with the share done.

    Raises:
        InputError: If the model has no stored statistics, or an operator without a torch function.
    """
    options, norms = options or DataSettings(), normalisations(coupling.graph)
    if not norms:
        raise InputError("⟨match_statistics⟩: the model keeps no batch statistics (exporters fold them). Leave it out.")
    asked = replace(options, batch_size=min(TOGETHER, options.count))
    start = confident(coupling, asked)
    task = _Task(_watching(coupling, norms), norms, _limits(coupling, start.declared, options), steps)
    batches: list[Batch] = []
    for batch in start.batches():
        progress(sum(one.count for one in batches) / (start.count or 1))
        batches.append(replace(batch, inputs={**batch.inputs, **task.descend(batch.inputs)}))

    def stream() -> Iterator[Batch]:
        return regroup(batches, start.declared, options.batch_size)

    name = f"{start.name}, matched to the statistics of {len(norms)} batch normalisations"
    return Source(name, True, start.count, False, stream, start.declared)


@dataclass(frozen=True)
class _Task:
    """What is descended on.

    Attributes:
        module: Puts out what the normalisations see.
        norms: What shall see what it has stored.
        limits: Input that changes -> smallest and largest number, shaped to broadcast.
        steps: Of gradient descent.
    """

    module: fx.GraphModule
    norms: Sequence[Norm]
    limits: dict[str, tuple[Tensor, Tensor]]
    steps: int

    def descend(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """The inputs that change, changed."""
        fixed = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
        free = {name: fixed[name].float().clone().requires_grad_() for name in self.limits}
        widths = {name: float((high - low).mean()) for name, (low, high) in self.limits.items()}
        optimizer = torch.optim.Adam([{"params": [x], "lr": RATE * widths[name]} for name, x in free.items()])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(self.steps, 1))
        for _ in range(self.steps):
            optimizer.zero_grad()
            torch.autograd.backward(self.distance({**fixed, **free}))
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for name, (low, high) in self.limits.items():
                    free[name].clamp_(low, high)
        return {name: x.detach().numpy().astype(inputs[name].dtype) for name, x in free.items()}

    def distance(self, inputs: dict[str, Tensor]) -> Tensor:
        """Mean squared difference to the stored means and deviations, in stored deviations."""
        seen = self.module(*(inputs[name] for name in self.module.meta["inputs"]))
        terms = []
        for norm in self.norms:
            variance, mean = torch.var_mean(seen[norm.reads].float().transpose(0, 1).flatten(1), 1)
            moved = (mean - norm.mean).square() / norm.variance
            spread = ((variance + EPSILON).sqrt() / norm.variance.sqrt() - 1).square()
            terms.append((moved + spread).mean())
        return torch.stack(terms).mean()


def _watching(coupling: Coupling, norms: Sequence[Norm]) -> fx.GraphModule:
    """A module that puts out what normalisations see."""
    model = coupling.graph.model.clone()
    values = {str(v.name): v for node in model.graph for v in node.outputs}
    model.graph.outputs[:] = list(dict.fromkeys(values[norm.reads] for norm in norms))
    passes.RemoveUnusedNodesPass()(model)
    return bridge(model).eval().requires_grad_(False)


def _limits(coupling: Coupling, takes: Declared, options: DataSettings) -> dict[str, tuple[Tensor, Tensor]]:
    """The inputs that change: measurements, within their range."""
    limits = {}
    for name, one in takes.inputs.items():
        if one.dtype.kind != "f" or one.axis is None or "mask" in name.lower():
            continue
        channel = LAYOUTS[layout_of(one)][0]
        shape = [-1 if axis == channel else 1 for axis in range(len(one.dims))]
        bounds = range_of(one, coupling, options) or WIDE
        low, high = (torch.from_numpy(np.array(x, np.float32)) for x in (bounds.low, bounds.high))
        limits[name] = (low.reshape(shape), high.reshape(shape)) if low.numel() > 1 else (low, high)
    return limits
