"""Shares per layer from measurements: what each layer loses at a few sparsities, and the split that loses least.

Of one layer some weights go (as the method would have it) while all others stay dense; the outputs on held-back samples
are compared with the original's. Few sparsities are measured, the one asked for first; in between the square root of
the loss is interpolated over the logarithm of the density. Allocations are then tried on the whole model, and the best
one stays, so that the search is never worse than the protocols it starts from, on those samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn import metrics
from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import PlanError
from onnxslim_learn.registry import PROTOCOLS
from onnxslim_learn.repair.linear_nodes import Linear, linears
from onnxslim_learn.repair.sequential import observed
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.rewrite.unfuse import unfuse
from onnxslim_learn.runtime.executor import Runner, outputs
from onnxslim_learn.runtime.workers import trials
from onnxslim_learn.sparse import layer_ratios as ratios
from onnxslim_learn.sparse.one_shot import Circumstances, OneShot, prune
from onnxslim_learn.sparse.solvers import LayerPruning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.repair.targets import Targets
    from onnxslim_learn.sparse.maskable import Layer
    from onnxslim_learn.sparse.one_shot import OneShotSettings

Curve = dict[float, float]  # density -> loss

DENSITIES = (1.0, 1 / 3, 3.0, 1 / 2, 2.0, 1 / 6)  # of the mean density, in the order measured
FINE = 400  # densities that an allocation chooses from
STEEP = 1.5  # power of 1/density by which the root of the loss grows below the least density measured
BISECTIONS = 60
PORTION = 8  # layers of a trial


@dataclass(frozen=True)
class Found:
    """An allocation.

    Attributes:
        ratios: Weight -> share that goes.
        protocol: How it was found.
        trials: Every allocation tried on the whole model -> its loss.
        curves: Weight -> density -> loss, as measured.
    """

    ratios: dict[str, float]
    protocol: str
    trials: dict[str, float]
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Dense:
    """A dense model, and how what is sparsified of it is judged: in this process or in others.

    Attributes:
        whole: The model.
        layers: The maskable weights.
        targets: What the original does, recorded (asked for again and again).
        recipe: Pattern and method.
    """

    whole: Removal
    layers: Sequence[Layer]
    targets: Targets
    recipe: OneShotSettings

    def __getstate__(self) -> dict[str, Any]:
        self.whole.coupling.graph.release()
        return dict(vars(self))

    def alone(self, density: float, names: Sequence[str]) -> dict[str, float]:
        """What is lost where one of some layers is left with a density, all others dense; by layer."""
        by_name, model = {layer.name: layer for layer in self.layers}, unfuse(slim(self.whole))
        runner, losses = Runner(model, self.targets.feeds, (), threads=1), {}
        for linear in (one for one in linears(model) if str(one.weight.name) in names):
            runner.run_to(runner.place[str(linear.node.outputs[0].name)])
            cut = LayerPruning(by_name[str(linear.weight.name)], linear.form, self.recipe.pattern, 1 - density)
            losses[cut.layer.name] = _loss(linear, cut, runner, self.targets, self.recipe)
        return losses

    def together(self, shares: Sequence[float]) -> float:
        """What is lost where every layer loses its share."""
        ratios = {layer.name: share for layer, share in zip(self.layers, shares, strict=True)}
        work = OneShot(slim(self.whole), self.layers, self.targets, replace(self.recipe, ratios=ratios), threads=1)
        work.go()
        return metrics.loss(self.targets.outputs(), work.outputs())


def search(
    dense: Dense,
    target: float,
    *,
    rounds: int = len(DENSITIES),
    seconds: float | None = None,
    place: int | str | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Found:
    """Find the shares per layer that lose least at an overall share.

    Args:
        dense: The model.
        target: Share of all weights that goes.
        rounds: How many densities are measured.
        seconds: After which no further one is begun; ``None`` for no limit.
        place: Where: see :func:`onnxslim_learn.runtime.workers.trials`.
        progress: Called with the share done.
    """
    names, sizes = [layer.name for layer in dense.layers], [layer.size for layer in dense.layers]
    curves = measure(dense, target, rounds=rounds, seconds=seconds, place=place, progress=progress)
    tried = {row.name: row.load()(sizes, target) for row in PROTOCOLS.values() if row.sized}
    if all(len(curves[name]) > 1 for name in names):
        listed = [curves[name] for name in names]
        tried["least loss"] = allocate(listed, sizes, target)
        tried["least loss, within bounds"] = allocate(listed, sizes, target, ratios.bounds(target))
    losses = dict(trials(Dense.together, dense, ((name, (shares,)) for name, shares in tried.items()), place))
    best = min(losses, key=lambda protocol: losses[protocol])
    return Found(dict(zip(names, tried[best], strict=True)), best, losses, curves)


def measure(
    dense: Dense,
    target: float,
    *,
    rounds: int = len(DENSITIES),
    seconds: float | None = None,
    place: int | str | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Curve]:
    """Loss of every layer at some densities, all others dense; a round over all layers for each; see :func:`search`.

    A trial takes some layers that follow one another at one density: what comes before them is run once.
    """
    begun, curves = perf_counter(), {layer.name: {1.0: 0.0} for layer in dense.layers}
    names = dict.fromkeys(str(one.weight.name) for one in linears(unfuse(slim(dense.whole))))
    known = [name for name in names if name in curves]
    portions = [known[start : start + PORTION] for start in range(0, len(known), PORTION)]
    densities = [density for relative in DENSITIES if 0 < (density := (1 - target) * relative) < 1][:rounds]

    def jobs() -> Iterator[tuple[float, tuple[float, Sequence[str]]]]:
        for number, density in enumerate(densities):
            if number and seconds is not None and perf_counter() - begun > seconds:
                return
            yield from ((density, (density, portion)) for portion in portions)

    for number, (density, losses) in enumerate(trials(Dense.alone, dense, jobs(), place)):
        progress((number + 1) / (len(densities) * len(portions)))
        for name, loss in losses.items():
            curves[name][density] = loss
    return curves


def _loss(linear: Linear, cut: LayerPruning, runner: Runner, targets: Targets, recipe: OneShotSettings) -> float:
    """What the outputs lose when one node is sparsified; the model is as before afterwards."""
    plain = linear.read()
    before = [value.const_value for value in linear.node.inputs if value is not None]
    bias = None if linear.bias is None else linear.bias.value
    kept = None if bias is None else bias.const_value
    try:
        rows, held = observed(linear, plain, targets, runner)
        linear.write(prune(cut, rows, held, Circumstances(plain, linear, recipe.method))[0])
        ahead = runner.fork(targets.held)
        ahead.finish()
        return metrics.loss(targets.outputs(), outputs(ahead, range(len(targets.held))))
    except (PlanError, np.linalg.LinAlgError):
        return 0.0  # it will be pruned by size, about which nothing is known
    finally:
        for value, tensor in zip([v for v in linear.node.inputs if v is not None], before, strict=True):
            value.const_value = tensor
        if bias is not None:
            bias.const_value = kept


def allocate(
    curves: Sequence[Mapping[float, float]],
    sizes: Sequence[int],
    target: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> list[float]:
    """Shares of least total loss, with ``target`` as their mean weighted by size.

    For a price of a weight, every layer takes the density at which loss plus price is least; the price is bisected, and
    the last two solutions are blended so that the target is met exactly.

    Args:
        curves: For every layer density -> loss, with 0 at density 1.
        sizes: Weights of every layer.
        target: Share of all weights that goes.
        bounds: Least and largest share of one layer.
    """
    least = max(1 - bounds[1], (1 - target) / 12)
    densities = np.geomspace(least, max(1 - bounds[0], 1 - target), FINE)
    losses = np.array([interpolated(curve, densities) for curve in curves])
    counts = np.array(sizes, float)
    wanted = (1 - target) * counts.sum()

    def at(price: float) -> Array:
        best: Array = densities[np.argmin(losses + price * counts[:, None] * densities, axis=1)]
        return best

    low, high = 0.0, 1.0
    while counts @ at(high) > wanted and high < 1e30:
        low, high = high, high * 4
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if counts @ at(middle) > wanted else (low, middle)
    rich, poor = at(low), at(high)
    spread = counts @ (rich - poor)
    share = (wanted - counts @ poor) / spread if spread > 0 else 0.0
    return [float(1 - d) for d in poor + share * (rich - poor)]


def interpolated(curve: Mapping[float, float], densities: Array) -> Array:
    """The loss at some densities: its root over the logarithm of the density, never falling as weights go."""
    points = np.array(sorted(curve))
    roots = np.sqrt([max(curve[d], 0.0) for d in points])
    roots = np.maximum.accumulate(roots[::-1])[::-1]
    roots_there = np.interp(np.log(densities), np.log(points), roots)
    below = densities < points[0]
    roots_there[below] = roots[0] * (points[0] / densities[below]) ** STEEP
    result: Array = roots_there**2
    return result
