"""Repair a slimmed model node by node in topological order.

Every linear node that sees other inputs than in the original is refitted: inputs come from the slimmed model with all
nodes before already repaired, targets from the original. Where the output goes into a residual sum, the target is the
original's sum minus the slimmed model's other summand. Samples that are not fitted on decide about each node and, at
the end, whether the whole repair stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.data.source import regroup
from onnxslim_learn.errors import PlanError
from onnxslim_learn.repair.deviation import Deviation, deviation
from onnxslim_learn.repair.fit import Fitted, Rows, Weights, fit
from onnxslim_learn.repair.linear import Linear, linears
from onnxslim_learn.repair.runner import Runner
from onnxslim_learn.rewrite.mask import mask_array

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.data.source import Source
    from onnxslim_learn.graph.coupling import Removal

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]

HELD_BACK = 4  # one batch of so many decides and is not fitted on
LARGEST_BATCH = 32
ROWS = 16384  # rows of a regression, or so many times its unknowns
ROWS_PER_UNKNOWN = 8
LARGEST = 100_000_000  # numbers in the inputs of one regression


@dataclass(frozen=True)
class Repaired:
    """What repair did.

    Attributes:
        nodes: Node name -> what was chosen for it and how well it fits.
        left: Node name -> why it keeps its plain weights though its inputs changed.
        weights: Names of the initializers that changed.
        samples: Samples used, those held back included.
        before: Deviation of the outputs from the original's on held-back samples without repair.
        after: The same with repair.
        kept: Whether the repair stands; if not, it was worse than none.
    """

    nodes: dict[str, Fitted]
    left: dict[str, str]
    weights: tuple[str, ...]
    samples: int
    before: dict[str, Deviation]
    after: dict[str, Deviation]
    kept: bool


def repair(
    removal: Removal,
    model: ir.Model,
    feeds: Sequence[Feeds],
    *,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Repaired:
    """Refit the weights of a slimmed model in place.

    Args:
        removal: What was cut.
        model: The slimmed model (:func:`onnxslim_learn.rewrite.slim.slim`).
        feeds: Input batches; every fourth is held back (with fewer than four batches, the last).
        seed: Which positions of large activations are used.
        threads: Threads of onnxruntime; ``None`` for all cores.
        progress: Called with the share done.
    """
    walk = _Walk(removal, model, feeds, seed, threads)
    plain = {name: value.const_value for name, value in model.graph.initializers.items()}
    before = walk.outputs_of(Runner(model, walk.held_feeds, (), threads))
    walk.go(progress)
    wanted = walk.outputs_of(walk.original, walk.held)
    after = walk.outputs_of(walk.slimmed, walk.held)
    deviations = deviation(wanted, before), deviation(wanted, after)
    kept = _total(deviations[1]) <= _total(deviations[0])
    changed = [name for name, value in model.graph.initializers.items() if value.const_value is not plain[name]]
    if not kept:
        for name in changed:
            model.graph.initializers[name].const_value = plain[name]
    samples = sum(len(next(iter(feed.values()))) for feed in feeds)
    return Repaired(walk.nodes, walk.left, tuple(changed) if kept else (), samples, *deviations, kept)


def small_batches(source: Source, samples: int | None) -> list[Feeds]:
    """The inputs of a source, in batches so small that some can be held back."""
    batches = list(source.batches(samples))
    count = sum(batch.count for batch in batches)
    size = max(1, min(LARGEST_BATCH, count // (2 * HELD_BACK)))
    return [batch.inputs for batch in regroup(batches, source.declared, size)]


def _total(found: Mapping[str, Deviation]) -> float:
    return float(np.mean([d.relative for d in found.values()])) if found else 0.0


class _Walk:
    """The state of one repair: both models, stopped at the same node."""

    def __init__(
        self, removal: Removal, model: ir.Model, feeds: Sequence[Feeds], seed: int, threads: int | None
    ) -> None:
        self.removal, self.rng = removal, np.random.default_rng(seed)
        self.samples = sum(len(next(iter(feed.values()))) for feed in feeds)
        held = set(range(HELD_BACK - 1, len(feeds), HELD_BACK)) or {len(feeds) - 1}
        self.fitted = [k for k in range(len(feeds)) if k not in held] or sorted(held)
        self.held = sorted(held)
        self.held_feeds = [feeds[k] for k in self.held]
        moved = changed(removal, model)
        values = removal.coupling.values
        self.linears = [one for one in linears(model) if one.output in moved and one.target in values]
        original = removal.coupling.graph.model
        self.original = Runner(original, feeds, {one.target for one in self.linears}, threads)
        self.slimmed = Runner(model, feeds, (), threads)
        self.nodes: dict[str, Fitted] = {}
        self.left: dict[str, str] = {}

    def go(self, progress: Callable[[float], None]) -> None:
        """Refit one node after the other."""
        for number, linear in enumerate(self.linears):
            progress(number / len(self.linears))
            self.original.run_past(linear.target)
            self.slimmed.run_to(self.slimmed.place[str(linear.node.outputs[0].name)])
            try:
                self._refit(linear)
            except (PlanError, np.linalg.LinAlgError) as error:
                self.left[str(linear.node.name)] = str(error)
            self.original.drop(linear.target)
        self.original.finish()
        self.slimmed.finish()

    def outputs_of(self, runner: Runner, batches: Sequence[int] | None = None) -> dict[str, Array]:
        """The outputs of a model on the held-back batches, by name."""
        runner.finish()
        found = {}
        for value in runner.model.graph.outputs:
            arrays = runner.get(str(value.name))
            arrays = arrays if batches is None else [arrays[k] for k in batches]
            if arrays[0].dtype.kind == "f" and len({a.shape[1:] for a in arrays}) == 1:
                found[str(value.name)] = np.concatenate([np.atleast_1d(a) for a in arrays]).astype(np.float32)
        return found

    def _refit(self, linear: Linear) -> None:
        plain = linear.read()
        rows, held = (self._rows(linear, plain, batches) for batches in (self.fitted, self.held))
        if not all(np.isfinite(a).all() for r in (rows, held) for a in (r.inputs, r.targets)):
            raise PlanError("its inputs or targets are not finite")
        biased = linear.bias is not None
        fitted = fit(rows, held, plain, linear.activation, samples=self.samples, biased=biased)
        if fitted.method != "plain":
            linear.write(fitted.weights)
        self.nodes[str(linear.node.name)] = fitted

    def _rows(self, linear: Linear, plain: Weights, batches: Sequence[int]) -> Rows:
        """Rows of the regression at random positions of some batches."""
        keep = self._keep(linear)
        unknowns = plain.matrix.shape[1]
        most = min(max(ROWS, ROWS_PER_UNKNOWN * unknowns), LARGEST // (unknowns * plain.matrix.shape[0]))
        share = -(-max(most, 1) // len(batches))
        parts = [self._part(linear, batch, keep, share) for batch in batches]
        inputs, targets, offsets = (
            None if p[0] is None else np.concatenate(p, axis=1) for p in zip(*parts, strict=True)
        )
        assert inputs is not None
        assert targets is not None
        return Rows(inputs, targets, offsets)

    def _part(self, linear: Linear, batch: int, keep: Array, count: int) -> tuple[Array, Array, Array | None]:
        target = self.original.get(linear.target)[batch]
        channel = linear.form.channel % target.ndim
        places = [n for axis, n in enumerate(target.shape) if axis != channel]
        total = int(np.prod(places))
        flat = np.arange(total) if total <= count else np.sort(self.rng.choice(total, count, replace=False))
        picks = np.unravel_index(flat, places)
        wanted = np.moveaxis(target, channel, -1)[picks][:, keep].astype(np.float32)
        wanted = wanted.reshape(len(wanted), linear.form.groups, -1).transpose(1, 0, 2)
        inputs = linear.form.unfold(self.slimmed.get(linear.data)[batch], picks)
        other = None if linear.other is None else linear.outputs(self.slimmed.get(linear.other)[batch], picks)
        return inputs, wanted, other

    def _keep(self, linear: Linear) -> Array:
        """Which channels of the target stay."""
        layout = self.removal.coupling.values[linear.target]
        return self.removal.keep_all(layout, linear.form.channel % len(layout.axes))


def changed(removal: Removal, model: ir.Model) -> set[str]:
    """Values of a slimmed model that are no mere cut of the original's: what comes after a node that lost inputs."""
    coupling = removal.coupling
    names = [str(node.name) for node in coupling.graph.nodes]
    lost = {names[c.node] for c in coupling.records.contractions if not mask_array(c.value, c.axes, removal).all()} | {
        names[d.node] for d in coupling.records.delicate if not removal.exact
    }
    found: set[str] = set()
    for node in model.graph:
        if node.name in lost or any(v is not None and str(v.name) in found for v in node.inputs):
            found |= {str(v.name) for v in node.outputs}
            lost.discard(str(node.name))
    return found
