"""What every group loses at every width, computed from moments of what flows: nothing is cut or refitted for it.

What a consumer loses with some units after its best refit is closed form in the covariance C of its inputs: with its
weights K and what goes R, tr(K_Rᵀ [C⁻¹_RR]⁻¹ K_R) (Optimal Brain Surgeon, Hassibi & Stork 1993, in blocks). In the
order in which units go, one Cholesky factor C⁻¹_RR = L Lᵀ gives all widths: ‖(L⁻¹ K_R)_i‖² goes with position i.

How much an error there matters at the end is one number for each consumer: its output is disturbed, as much as it
varies over samples, and what follows is run. Both together are losses of one unit, that of the outputs, so that groups
can be held against each other. Of four nets cut to a half, group by group, their logarithms correlate by 0.98, 0.98,
0.92 and 0.93 with the measured ones; 0.99, 0.98, 0.86 and 0.91 where disturbances are noise, place by place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from onnxslim_learn import metrics
from onnxslim_learn.array_types import Array
from onnxslim_learn.quality.channels import channels
from onnxslim_learn.rewrite.unfuse import unfuse
from onnxslim_learn.runtime.executor import Runner, outputs
from onnxslim_learn.runtime.left_out import left_out
from onnxslim_learn.runtime.parallel import spread
from onnxslim_learn.select.activation_statistics import inverse_covariance

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Feeds, Labels
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.select.activation_statistics import Inputs
    from onnxslim_learn.select.budget import Choice


NOISE = 0.3  # of a value's deviation over samples: what a cut to half leaves unexplained is about as much
TINY = 1e-300


def predict(
    coupling: Coupling,
    choices: Sequence[Choice],
    gathered: Sequence[Inputs],
    influence: Mapping[str, float],
    scores: Array,
) -> list[Array]:
    """The loss at every allowed width of every choice.

    Args:
        coupling: The model.
        choices: The groups, with the order in which their units go.
        gathered: Moments of the inputs of its contractions.
        influence: Output of a contraction -> what is lost if an error is as large as the variance of that output.
            Those that are not in it count as the median of the others.
        scores: Of every column. A group that no contraction with weights reads loses in proportion to its scores, all
            of them as much as the others lose in the median.
    """
    told = _told(coupling, choices, gathered, influence)
    most = float(np.median([losses.max() for losses in told.values()])) if told else 1.0
    return [told[k] if k in told else most * _share(choice, scores) for k, choice in enumerate(choices)]


def _share(choice: Choice, scores: Array) -> Array:
    """The share of a group's summed scores that goes at every allowed width."""
    column, place, length = choice.places.T
    worth = np.maximum(scores[column], 0.0)
    lost = [worth[place >= length * kept // choice.group.width].sum() for kept in choice.kept]
    result: Array = np.array(lost) / max(float(worth.sum()), TINY)
    return result


def _told(
    coupling: Coupling, choices: Sequence[Choice], gathered: Sequence[Inputs], influence: Mapping[str, float]
) -> dict[int, Array]:
    """The losses of the choices that contractions with weights read."""
    losses: dict[int, Array] = {}
    members = _Members(coupling, choices)
    usual = float(np.median(list(influence.values()))) if influence else 1.0
    for inputs in gathered:
        read = members.among(inputs.classes)
        if not read:
            continue
        inverse, weights = inverse_covariance(inputs), inputs.factor
        scale = influence.get(inputs.output, usual) / max(_variance(inputs), TINY)
        for number, (positions, stays) in read.items():
            order = np.argsort(-stays, kind="stable")
            grown = np.append(0.0, np.cumsum(_increments(inverse, weights, positions[order])))
            gone = np.searchsorted(-stays[order], -np.array(choices[number].kept), side="left")
            losses[number] = losses.get(number, 0.0) + scale * grown[gone]
    return losses


def _increments(inverse: Array, weights: Array, gone: Labels) -> Array:
    """What is lost with every position, ``(positions,)``, when they go in this order."""
    right = weights[gone]
    if inverse.ndim == 1:
        alone: Array = (right**2).sum(axis=1) / inverse[gone]
        return alone
    factor = scipy.linalg.cholesky(inverse[np.ix_(gone, gone)], lower=True, check_finite=False)
    lost: Array = (scipy.linalg.solve_triangular(factor, right, lower=True, check_finite=False) ** 2).sum(axis=1)
    return lost


def _variance(inputs: Inputs) -> float:
    """The variance of a contraction's outputs, summed over channels, by the moments of its inputs."""
    weights = inputs.factor
    if inputs.products.ndim == 1:
        return float((inputs.variance[:, None] * weights**2).sum())
    covariance = inputs.products - np.outer(inputs.mean, inputs.mean)
    return float((covariance @ weights * weights).sum())


class _Members:
    """Which choice every class goes with, by itself or with a row that it is a cell of, and the width it stays from."""

    def __init__(self, coupling: Coupling, choices: Sequence[Choice]) -> None:
        self.coupling = coupling
        self.owner = np.full(coupling.columns, -1)
        self.stays = np.zeros(coupling.columns, np.int64)
        for number, choice in enumerate(choices):
            column, place, length = choice.places.T
            self.owner[column] = number
            self.stays[column] = -(-(place + 1) * choice.group.width // length)

    def among(self, classes: Labels) -> dict[int, tuple[Labels, Labels]]:
        """Choice -> positions of its units among some classes, and the width from which each of them stays."""
        known = np.flatnonzero(classes >= 0)
        cells, rows = self.coupling.membership.tocsr()[classes[known]].nonzero()
        places = np.concatenate([known, known[cells]])
        columns = self.coupling.column[np.concatenate([classes[known], rows])]
        owners = self.owner[columns]
        return {
            int(number): (places[owners == number], self.stays[columns[owners == number]])
            for number in np.unique(owners[owners >= 0])
        }


def influences(coupling: Coupling, names: Sequence[str], feeds: Sequence[Feeds]) -> dict[str, float]:
    """How much the outputs lose when a value is disturbed, per share of its variance over samples.

    Args:
        coupling: The model.
        names: The values; integers are left out.
        feeds: Batches of inputs.
    """
    whole = unfuse(coupling.graph.model)
    trunk = Runner(whole, feeds, names, threads=1)
    every = list(range(len(feeds)))
    rest = trunk.fork(every)
    rest.finish()
    missing, lie = left_out(whole, feeds, ()), channels(coupling)
    wanted = missing.without(outputs(rest, every), every)

    def damage(branch: Runner) -> float:
        branch.finish()
        return metrics.loss(wanted, missing.without(outputs(branch, every), every), lie) / NOISE**2

    def jobs() -> Iterator[tuple[str, Callable[[], float]]]:
        for name in sorted(set(names) & trunk.place.keys(), key=trunk.place.__getitem__):
            trunk.run_past(name)
            if trunk.get(name)[0].dtype.kind == "f":
                change = partial(_disturb, channels=_channels(coupling, name))
                yield name, partial(damage, trunk.disturbed(name, change))
            trunk.drop(name)

    return {name: lost for name, lost in spread(jobs()) if np.isfinite(lost)}


def _channels(coupling: Coupling, name: str) -> int:
    """The axis of a value along which units lie; its last where nothing tells."""
    value = coupling.values.get(name)
    axes = () if value is None else value.axes
    return next((k for k, axis in enumerate(axes) if k and any(d.labels is not None for d in axis)), -1)


def _disturb(arrays: Sequence[Array], channels: int) -> list[Array]:
    """Errors on a value, in proportion to how much it varies over samples: each channel takes what another has there.

    Turned round by chance, for every sample by itself. Such errors are alike in places near to each other, as those of
    a cut are; noise that is not averages out in what follows. Samples of several shapes, or a single one, get noise.
    """
    rng = np.random.default_rng(0)
    if len({array.shape[1:] for array in arrays}) > 1 or arrays[0].ndim == 1 or sum(map(len, arrays)) == 1:
        deviation = np.concatenate([array.ravel() for array in arrays]).std()
        return [(a + NOISE * deviation * rng.standard_normal(a.shape)).astype(a.dtype) for a in arrays]
    whole = np.concatenate(arrays).astype(np.float32)
    lines = np.moveaxis(whole - whole.mean(axis=0), channels, 0)
    signs = (len(whole), *(1 for _ in lines.shape[2:]))
    errors = [line[rng.permutation(len(line))] * rng.choice((-1, 1), signs) for line in lines]
    changed = (whole + NOISE * np.moveaxis(np.stack(errors), 0, channels)).astype(arrays[0].dtype)
    return np.split(changed, np.cumsum([len(array) for array in arrays])[:-1])
