"""Repair a slimmed model node by node in topological order.

Every linear node that sees other inputs than in the original is refitted: inputs come from the slimmed model with all
nodes before already repaired, targets from the original. Where the output goes into a residual sum, the target is the
original's sum minus the slimmed model's other summand. Samples that are not fitted on decide about each node and, at
the end, whether the whole repair stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from onnxslim_learn.array_types import Array, Labels, sample_count
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.relations import Value
from onnxslim_learn.data.source import regroup
from onnxslim_learn.errors import PlanError
from onnxslim_learn.metrics import Deviation, accuracy, deviation, total
from onnxslim_learn.quality.channels import channels
from onnxslim_learn.repair.activations import LINEAR, Shares
from onnxslim_learn.repair.least_squares import FULL, Effort, Fit, FitSetting, Rows, Weights, fit, regrouped
from onnxslim_learn.repair.linear_nodes import Layer, Linear, layers
from onnxslim_learn.repair.places import Lost, lost
from onnxslim_learn.repair.targets import HELD_BACK, Stream, Targets, Wanted, share
from onnxslim_learn.rewrite.mask import kept_parts
from onnxslim_learn.rewrite.merge import stands_for
from onnxslim_learn.rewrite.unfuse import give_back, names_of_parts, unfuse
from onnxslim_learn.runtime.executor import Runner, outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.data.batch import Batch
    from onnxslim_learn.data.signature import Declared
    from onnxslim_learn.quality.metric import Metric


UNCHANGED = "output unchanged but for what was cut"  # the commonest reason why a layer is not refitted

LARGEST_BATCH = 32
ROWS = 16384  # rows of a regression with many unknowns, or so many times these
ROWS_PER_UNKNOWN = 4
COMPARED = 3 << 22  # numbers of outputs that are compared, of one batch at least
HELD_ROWS = 8192  # rows that decide
LARGEST = 1 << 25  # numbers in the inputs of one regression
KEPT = 1 << 25  # of one through an activation, whose rows are kept: numbers of inputs and outputs, if enough are left
PORTION = 1 << 18  # numbers of its rows that are summed up at once, which caches hold, or as many rows as unknowns


@dataclass(frozen=True)
class PassedOver:
    """A layer that was not refitted.

    Attributes:
        name: Name of its node.
        op_type: Its operator.
        reason: Why, in words.
    """

    name: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Repaired:
    """What repair did.

    Attributes:
        nodes: Node name -> what was chosen for it and how well it fits.
        passed_over: The layers that were not refitted, in the order of the model.
        weights: Names of the initializers that changed.
        samples: Samples used, those held back included.
        before: Deviation of the outputs from the original's on held-back samples without repair.
        after: The same with repair.
        accuracy: Share of held-back samples of which the original, the cut and the repaired model find the label, if
            there are labels that are classes.
        kept: Whether the repair stands; if not, it was worse than none.
        made_up: Whether the samples are made up.
        lost: What the repair is judged by, less is better: the metric, if there is one, then distances to the original.
        held_back: Whether it is judged on other samples than those that were fitted.
    """

    nodes: dict[str, Fit]
    passed_over: tuple[PassedOver, ...]
    weights: tuple[str, ...]
    samples: int
    before: dict[str, Deviation]
    after: dict[str, Deviation]
    kept: bool
    accuracy: tuple[float, float, float] | None = None
    made_up: bool = False
    lost: tuple[float, float] = (0.0, 0.0)
    held_back: bool = True


@dataclass(frozen=True)
class Beside:
    """What is known beside inputs.

    Attributes:
        labels: What the outputs should be, for every batch; only told, and judged by, not fitted to.
        metric: What decides whether the repair stands, before distances to the original's outputs do.
        more: Made-up batches beside few real ones: they are fitted on, too, and decide nothing.
    """

    labels: Sequence[Array | None] = ()
    metric: Metric | None = None
    more: Sequence[Mapping[str, Array]] = ()


def repair(
    removal: Removal,
    model: ir.Model,
    feeds: Sequence[Mapping[str, Array]],
    *,
    beside: Beside = Beside(),
    effort: Effort = FULL,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Repaired:
    """Refit the weights of a slimmed model in place.

    Args:
        removal: What was cut.
        model: The slimmed model (:func:`onnxslim_learn.rewrite.slim.slim`).
        feeds: Input batches; every fourth is held back (with fewer than four batches, the last).
        beside: What else is known.
        effort: How hard to try, and how far weights may go.
        seed: Which positions of large activations are used.
        progress: Called with the share done.
    """
    targets = Stream(removal.coupling.graph.model, feeds, seed, beside.more)
    plain = {name: value.const_value for name, value in model.graph.initializers.items()}
    apart = unfuse(model)
    before = _unrepaired(apart, targets)
    walk = SequentialRepair(removal, apart, targets, effort)
    walk.go(progress)
    give_back(apart, model)
    wanted, after = targets.outputs(), walk.outputs()
    lie = channels(removal.coupling)
    deviations = deviation(wanted, before, lie), deviation(wanted, after, lie)
    known = [beside.labels[k] for k in targets.judged] if beside.labels else []
    lost = [_lost(*side, beside.metric, known) for side in zip((before, after), deviations, strict=True)]
    kept = lost[1] <= lost[0]
    right = [accuracy(side, known) for side in (wanted, before, after)]
    changed = [name for name, value in model.graph.initializers.items() if value.const_value is not plain[name]]
    if not kept:
        for name in changed:
            model.graph.initializers[name].const_value = plain[name]
    weights = tuple(changed) if kept else ()
    told: Any = (right[0], right[1], right[2]) if None not in right else None
    passed = tuple(walk.passed_over())
    about: dict[str, Any] = {"lost": lost[kept], "held_back": not set(targets.held) & set(targets.fitted)}
    return Repaired(walk.nodes, passed, weights, sample_count(feeds), *deviations, kept, told, **about)


def _unrepaired(model: ir.Model, targets: Stream) -> dict[str, Array]:
    """The outputs without repair; where those of all batches held back are too many to compare, fewer are judged."""
    runner = Runner(model, [targets.feeds[k] for k in targets.held], ())
    runner.finish()
    arrays = [runner.get(str(value.name)) for value in model.graph.outputs]
    sizes = np.cumsum([sum(a[k].size for a in arrays) for k in range(runner.batches)])
    count = max(int(np.searchsorted(sizes, COMPARED, "right")), 1)
    targets.judged = targets.held[:count]
    return targets.left_out.without(outputs(runner, range(count)), targets.judged)


def _lost(
    outputs: Mapping[str, Array],
    deviations: Mapping[str, Deviation],
    metric: Metric | None,
    labels: Sequence[Array | None],
) -> tuple[float, float]:
    """What decides about a repair: the metric, if there is one, then the distance to the original's outputs."""
    return 0.0 if metric is None else metric.lost(outputs, labels), total(deviations)


def in_small_batches(batches: Iterable[Batch], declared: Declared, most: int = LARGEST_BATCH) -> list[Batch]:
    """Samples in batches so small that some can be held back, and of so many samples at most."""
    held = list(batches)
    count = sum(batch.count for batch in held)
    size = max(1, min(most, count // (2 * HELD_BACK)))
    return list(regroup(held, declared, size))


class SequentialRepair:
    """A slimmed model under repair, stopped at a node.

    Attributes:
        nodes: What was chosen for every node so far.
        reasons: Why others keep their weights, by node.
    """

    def __init__(
        self,
        removal: Removal,
        model: ir.Model,
        targets: Targets,
        effort: Effort = FULL,
        runner: Runner | None = None,
    ) -> None:
        """Stop before the first node that was cut.

        Args:
            removal: What was cut.
            model: The slimmed model, without fused nodes.
            targets: What the original does, on which batches.
            effort: How hard to try.
            runner: The slimmed model on those batches, if it has run up to some node before.
        """
        self.removal, self.model, self.targets, self.effort = removal, model, targets, effort
        self.slimmed = runner or Runner(model, targets.feeds, ())
        self.nodes: dict[str, Fit] = {}
        self.layers = layers(model)
        self.reasons: dict[ir.Node, str] = {}

    def go(self, progress: Callable[[float], None] = lambda share: None) -> None:
        """Refit one node after the other, all whose output changed; run to the end on what is judged."""
        moved = changed(self.removal, self.model)
        todo = [linear for layer in self.layers if (linear := self._open(layer, moved)) is not None]
        self.targets.expect([asked(one, self.targets) for one in todo])
        for number, linear in enumerate(todo):
            progress(number / len(todo))
            self.slimmed.run_to(self.slimmed.place[str(linear.node.outputs[0].name)])
            try:
                self._refit(linear)
            except (PlanError, np.linalg.LinAlgError) as error:
                self.reasons[linear.node] = str(error)
        self.slimmed = self.slimmed.fork(self.targets.judged)
        self.slimmed.finish()

    def passed_over(self) -> list[PassedOver]:
        """The layers that keep their weights, and why."""
        left = [layer.node for layer in self.layers if layer.node in self.reasons and roles.factors(layer.node)]
        return [PassedOver(str(node.name), node.op_type, self.reasons[node]) for node in left]

    def _open(self, layer: Layer, moved: set[str]) -> Linear | None:
        """How to refit a layer; where it is not, the reason is noted."""
        if layer.node.graph is self.model.graph and not any(str(v.name) in moved for v in layer.node.outputs):
            self.reasons[layer.node] = UNCHANGED
        elif isinstance(layer.linear, str):
            self.reasons[layer.node] = layer.linear
        elif self._channels(layer.linear) is None:
            self.reasons[layer.node] = "nothing in the original corresponds to its output"
        else:
            return self._of_classes(layer.linear)
        return None

    def _of_classes(self, linear: Linear) -> Linear:
        """A layer whose channels are classes is judged by what is made of them."""
        layout = self.removal.coupling.values.get(linear.target)
        if linear.shared is None or linear.form.groups > 1 or layout is None or linear.activation != LINEAR:
            return linear
        classes = (linear.shared - linear.form.channel) % len(layout.axes) == 0
        return replace(linear, activation=Shares()) if classes else linear

    def _channels(self, linear: Linear) -> tuple[Value, int] | None:
        """A layout along one axis of which the channels of a node's target lie."""
        values = self.removal.coupling.values
        if linear.target in values:
            return values[linear.target], linear.form.channel % len(values[linear.target].axes)
        factors, weight = roles.factors(linear.node), values.get(str(linear.weight.name))
        sides = None if factors is None or weight is None else factors.sides(linear.node, 1, len(weight.axes))
        return None if sides is None or weight is None or len(sides[1]) != 1 else (weight, sides[1][0])

    def _lost(self, linear: Linear) -> Lost:
        """Along which axes of a node's target rows go."""
        values = self.removal.coupling.values
        if linear.target not in values:
            return {}
        return lost(self.removal, linear.target, values[linear.target], linear.form.channel)

    def outputs(self) -> dict[str, Array]:
        """The outputs on the batches that are judged, by name."""
        every = outputs(self.slimmed, range(len(self.targets.judged)))
        return self.targets.left_out.without(every, self.targets.judged)

    def _refit(self, linear: Linear) -> None:
        channels = self._channels(linear)
        assert channels is not None
        stands = stands_for(self.removal, *channels)
        plain = linear.read()
        rows, held = observed(linear, plain, self.targets, self.slimmed, Left(stands, self._lost(linear)))
        setting = FitSetting(self.targets.samples, linear.bias is not None, linear.activation, self.effort)
        fitted = fit(rows, held, plain, setting)
        if fitted.method != "plain":
            linear.write(fitted.weights)
        self.nodes[str(linear.node.name)] = fitted


@dataclass(frozen=True)
class Left:
    """What is left of a node's target in a slimmed model.

    Attributes:
        stands: Which channels are left, or what those that are left are of the original's, ``(channels, left)``; all by
            default.
        lost: Along which other axes positions go.
    """

    stands: Labels | sp.csc_array | None = None
    lost: Lost = field(default_factory=dict)

    def of(self, values: Array) -> Array:
        """What is left of channels ``(m, channels)``."""
        if self.stands is None:
            return values
        left: Array = values[:, self.stands] if isinstance(self.stands, np.ndarray) else values @ self.stands
        return left


def observed(
    linear: Linear, plain: Weights, targets: Targets, runner: Runner, left: Left = Left()
) -> tuple[Iterator[Rows], Iterator[Rows]]:
    """Rows to fit a node on and rows held back, in portions, with a runner stopped before the node.

    They lie at random places, and are read as they are asked for.

    Args:
        linear: The node.
        plain: Its weights.
        targets: What the original does.
        runner: The model under repair.
        left: What is left of the original's target.

    Raises:
        PlanError: If nothing flows there, or what is not finite.
    """
    unknowns, flat, wanted_rows = plain.matrix.shape[1], linear.form.channel == -1, asked(linear, targets)

    def portion(batch: int, count: int) -> Rows:
        places, data = targets.rows(linear, batch, count).left(left.lost), runner.get(linear.data)[batch]
        if places.rows(flat) != (data.size // unknowns if flat else len(data)):
            raise PlanError("it has other rows than in the original, for numbers decide which")
        wanted = linear.split(left.of(places.values))
        inputs = linear.form.unfold(data, places.picks)
        if not (np.isfinite(inputs).all() and np.isfinite(wanted).all()):
            raise PlanError("its inputs or targets are not finite")
        other = None if linear.other is None else runner.get(linear.other)[batch]
        return Rows(inputs, wanted, None if other is None else linear.outputs(other, places.picks))

    def portions(batches: Sequence[int], count: int) -> Iterator[Rows]:
        empty = True
        for batch in batches:
            rows = portion(batch, count)
            if rows.size:
                empty = False
                yield rows
        if empty:
            raise PlanError("no sample reaches it")

    fitted, held = portions(targets.fitted, wanted_rows.fitted), portions(targets.held, wanted_rows.held)
    return regrouped(fitted, PORTION), regrouped(held, PORTION)


def asked(linear: Linear, targets: Targets) -> Wanted:
    """At how many places of each batch a node is looked at."""
    groups, unknowns, outputs = linear.form.shape
    usual = max(math.ceil(ROWS * share(unknowns)), ROWS_PER_UNKNOWN * unknowns)
    if linear.activation != LINEAR:
        usual = min(usual, max(KEPT // (groups * (unknowns + 2 * outputs)), ROWS_PER_UNKNOWN * unknowns))
    most = max(min(usual, LARGEST // (groups * unknowns)), 2)
    fitted, held = -(-most // len(targets.fitted)), -(-min(most // 2, HELD_ROWS) // len(targets.held))
    return Wanted(linear, fitted, held, groups * outputs)


def _behind(removal: Removal) -> set[int]:
    """The nodes that read what dropped residual blocks were added to, and those that added it."""
    coupling, sums = removal.coupling, {block.sum for block in removal.dropped}
    outputs = {str(value.name) for index in sums for value in coupling.nodes[index].outputs if value.name}
    return sums | {reader for name in outputs for reader in coupling.readers.get(name, ())}


def changed(removal: Removal, model: ir.Model) -> set[str]:
    """Values of a slimmed model that are no mere cut of the original's: what comes after a node that lost inputs."""
    coupling = removal.coupling
    names = [str(node.name) for node in coupling.nodes]
    records = coupling.records
    lost = {names[c.node] for c in records.consumed if not kept_parts(c.value, c.axes, removal)[0].all()}
    lost |= {names[d.node] for d in records.delicate if not removal.exact}
    lost |= {name for index in _behind(removal) for name in names_of_parts(names[index])}
    altered: set[str] = set()
    for node in model.graph:
        if node.name in lost or any(v is not None and str(v.name) in altered for v in node.inputs):
            altered |= {str(v.name) for v in node.outputs}
            lost.discard(str(node.name))
    return altered
