"""Sparsify a model in one go from unlabelled samples: node by node, inputs from what is sparse already.

Targets are what the original computes. A method that refits weights (:class:`~onnxslim_learn.registry.MethodRow`) also
refits linear nodes that stay dense, and held-back samples decide about each update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import PlanError
from onnxslim_learn.registry import METHODS
from onnxslim_learn.repair import least_squares as fitting
from onnxslim_learn.repair.linear_nodes import Linear, linears
from onnxslim_learn.repair.sequential import asked, observed
from onnxslim_learn.rewrite.unfuse import give_back, unfuse
from onnxslim_learn.runtime.executor import Runner, outputs
from onnxslim_learn.sparse import patterns
from onnxslim_learn.sparse.solvers import LayerPruning, Moments, on_support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from onnxslim_learn.repair.targets import Targets
    from onnxslim_learn.sparse.maskable import Layer
    from onnxslim_learn.sparse.patterns import Pattern


RIDGE = 1e-2  # of an input's mean square: keeps weights that stay near the best dense ones
DENSE_RIDGE = 1e-3  # keeps the best dense ones near the original's


@dataclass(frozen=True)
class OneShotSettings:
    """How a model is sparsified.

    Attributes:
        ratios: Weight -> share of it that goes.
        pattern: Where zeros may be.
        method: See :data:`onnxslim_learn.registry.METHODS`.
        effort: How hard dense nodes are refitted.
    """

    ratios: Mapping[str, float]
    pattern: Pattern
    method: str = "admm"
    effort: fitting.Effort = fitting.FULL


@dataclass(frozen=True)
class Pruned:
    """The outcome for one weight.

    Attributes:
        method: What chose its zeros; ``magnitude`` where its node has no matrix form.
        before: Squared error of the node's output with zeros alone, as a share of its variance; ``None`` unmeasured.
        after: The same with the weights that were written.
    """

    method: str
    before: float | None = None
    after: float | None = None


class OneShot:
    """A model being sparsified in place, stopped at a node.

    Attributes:
        done: Weight -> what was done.
    """

    def __init__(
        self,
        model: ir.Model,
        layers: Sequence[Layer],
        targets: Targets,
        recipe: OneShotSettings,
        threads: int | None = None,
    ) -> None:
        """Stop before the first node; ``targets`` say what the original does, on which batches."""
        self._fused, self.model, self.targets, self.recipe = model, unfuse(model), targets, recipe
        self.layers = {layer.name: layer for layer in layers}
        self.runner = Runner(self.model, targets.feeds, (), threads)
        self.done: dict[str, Pruned] = {}

    def go(self, progress: Callable[[float], None] = lambda share: None) -> None:
        """Sparsify every layer and run to the end."""
        nodes = linears(self.model)
        formed = {str(one.weight.name) for one in nodes}
        for name in [name for name in self.layers if name not in formed]:  # seen by what comes after, wherever they are
            self._by_size(name)
        updating = METHODS.row(self.recipe.method).refits
        todo = [one for one in nodes if updating or str(one.weight.name) in self.layers]
        self.targets.expect([asked(one, self.targets) for one in todo])
        for number, linear in enumerate(todo):
            progress(number / len(todo))
            self.runner.run_to(self.runner.place[str(linear.node.outputs[0].name)])
            self._node(linear)
        give_back(self.model, self._fused)
        self.runner.finish()

    def outputs(self) -> dict[str, Array]:
        """The outputs on the held-back batches, by name."""
        return outputs(self.runner, self.targets.held)

    def _node(self, linear: Linear) -> None:
        name = str(linear.weight.name)
        try:
            if name in self.layers:
                self.done[name] = self._prune(linear)
            elif self.done:  # its inputs are no longer the original's
                self._refit(linear)
        except (PlanError, np.linalg.LinAlgError):
            if name in self.layers:
                self._by_size(name)

    def _prune(self, linear: Linear) -> Pruned:
        layer, plain = self.layers[str(linear.weight.name)], linear.read()
        cut = LayerPruning(layer, linear.form, self.recipe.pattern, self.recipe.ratios[layer.name])
        rows, held = observed(linear, plain, self.targets, self.runner)
        weights, error = prune(cut, rows, held, Circumstances(plain, linear, self.recipe.method))
        linear.write(weights)
        return Pruned(METHODS.told(self.recipe.method), *error)

    def _refit(self, linear: Linear) -> None:
        plain = linear.read()
        rows, held = observed(linear, plain, self.targets, self.runner)
        setting = fitting.FitSetting(
            self.targets.samples, linear.bias is not None, linear.activation, self.recipe.effort
        )
        fitted = fitting.fit(rows, held, plain, setting)
        if fitted.method != "plain":
            linear.write(fitted.weights)

    def _by_size(self, name: str) -> None:
        by_magnitude(self.model, self.layers[name], self.recipe.ratios[name], self.recipe.pattern)
        self.done[name] = Pruned("magnitude")


@dataclass(frozen=True)
class Circumstances:
    """What else decides about a node: its weights as they are, what follows it, and the method."""

    plain: fitting.Weights
    linear: Linear
    method: str

    @property
    def biased(self) -> bool:
        """Whether its bias can change."""
        return self.linear.bias is not None


def prune(
    cut: LayerPruning, rows: Iterable[fitting.Rows], held: Iterable[fitting.Rows], given: Circumstances
) -> tuple[fitting.Weights, tuple[float, float]]:
    """New weights of a node, and their error on held-back rows before and after they were updated.

    Args:
        cut: What is asked for.
        rows: Rows to fit on, in portions.
        held: Rows to decide on, likewise.
        given: The circumstances.
    """
    plain = given.plain
    activation = given.linear.activation
    fitted = fitting.Sample(rows, plain, activation)
    judge = fitting.Sample(held, plain, activation, np.float32, judging=True)
    problem = fitting.Problem(fitted, biased=given.biased)
    level = np.maximum(np.trace(problem.gram, axis1=1, axis2=2) / problem.gram.shape[1], 1e-30)[:, None, None]
    gram = problem.gram + RIDGE * level * np.eye(problem.gram.shape[1])
    updating = METHODS.row(given.method).refits
    best = problem.solve(problem.inverse(DENSE_RIDGE)) if updating else plain
    squares = np.diagonal(fitted.gram, axis1=1, axis2=2) + fitted.inputs.mean**2
    seen = Moments(best.matrix.astype(np.float64), squares, gram)
    mask, matrix = METHODS.load(given.method)(cut, seen)
    candidates = [fitting.Weights(plain.matrix * mask, plain.bias)]
    if updating:
        tried = (candidates[0].matrix, matrix, on_support(seen, mask))
        candidates += [problem.with_bias(weights.astype(np.float32)) for weights in tried if weights is not None]
    errors = [judge.error(one) for one in candidates]
    least = int(np.argmin(errors))
    return candidates[least], (errors[0] / judge.scale, errors[least] / judge.scale)


def by_magnitude(model: ir.Model, layer: Layer, ratio: float, pattern: Pattern) -> None:
    """Zero the smallest entries of a weight, whatever its node is."""
    value = model.graph.initializers[layer.name]
    tensor = value.const_value
    assert tensor is not None
    array = tensor.numpy()
    mask = patterns.keep(np.abs(np.asarray(array, np.float64)), ratio, pattern, layer)
    zeroed = np.where(mask, array, np.zeros((), array.dtype))
    value.const_value = ir.tensor(zeroed, dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)
