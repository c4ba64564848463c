"""Scores of units from labels: how much the loss of every sample moves when a unit is turned down.

With a gate of 1 on every unit, the gradient of a sample's cross-entropy by the gate is, to first order, what the loss
gains when the unit goes: activation times gradient, summed over all places, normalisations included. ``taylor`` is the
mean of its magnitude (Molchanov et al. 2017, arXiv:1611.06440, eq. 8), ``fisher`` half the mean of its square (Theis et
al. 2018, arXiv:1801.05787, eq. 10; Molchanov et al. 2019, arXiv:1906.10771, eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxslim_learn.array_types import Array
from onnxslim_learn.bridge import gates
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.labels import collated
from onnxslim_learn.train.losses import cross_entropy
from onnxslim_learn.train.samples import Portion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.select.calibration import Calibration


def taylor(analysis: Analysis, groups: Sequence[Group], samples: Calibration) -> Array:
    """Mean magnitude of the slopes."""
    return _scores(analysis, groups, samples, torch.abs)


def fisher(analysis: Analysis, groups: Sequence[Group], samples: Calibration) -> Array:
    """Half the mean square of the slopes."""
    return _scores(analysis, groups, samples, lambda slope: slope.square() / 2)


def _scores(
    analysis: Analysis, groups: Sequence[Group], samples: Calibration, measure: Callable[[Tensor], Tensor]
) -> Array:
    """One score per column; 0 for columns of groups that cannot go.

    Args:
        analysis: The model.
        groups: Its groups.
        samples: Labelled samples; all of them count, one by one where the file leaves the batch open.
        measure: What a slope counts.

    Raises:
        InputError: If labels do not fit the first output.
    """
    free = [group for group in groups if group.pin is None]
    module = bridge(analysis).eval().requires_grad_(False)
    factors = list(gates.attach(module, analysis, free).values())
    total, count = [torch.zeros(len(gate), dtype=torch.float64) for gate in factors], 0
    for inputs, labels in _samples(analysis, samples):
        outputs = module(*(torch.from_numpy(inputs[name]) for name in module.meta["inputs"]))
        loss = cross_entropy(outputs, Portion({}, collated(labels, torch.from_numpy), {}))
        slopes = torch.autograd.grad(loss, [gate.requires_grad_() for gate in factors], allow_unused=True)
        for place, slope in enumerate(slopes):
            if slope is not None:
                total[place] += measure(slope.double())
        count += 1
    by_column = np.zeros(analysis.coupling.columns)
    for group, sums in zip(free, total, strict=True):
        by_column[group.units] = sums.numpy() / max(count, 1)
    return by_column


def _samples(analysis: Analysis, calibration: Calibration) -> Iterator[tuple[dict[str, Array], Array]]:
    """Single samples, or whole batches where the file fixes their size."""
    inputs = [str(v.name) for v in analysis.graph.model.graph.inputs]
    alone = all(analysis.graph.shapes.is_open(name, 0) for name in inputs)
    for feed, labels in zip(calibration.feeds, calibration.labels, strict=True):
        for start in range(0, len(labels), 1 if alone else len(labels)):
            stop = start + 1 if alone else len(labels)
            yield {name: np.array(a[start:stop]) for name, a in feed.items()}, np.array(labels[start:stop])
