"""The work flow in Python: analyze, plan, slim, apply, verify."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxslim_learn.costs import cost
from onnxslim_learn.errors import InputError, PlanError, TargetError, VerifyError
from onnxslim_learn.graph import explain
from onnxslim_learn.graph import groups as grouping
from onnxslim_learn.graph.branches import foresee
from onnxslim_learn.graph.coupling import Coupling, Group, Removal, couple, removal
from onnxslim_learn.graph.load import Graph, check_file, load
from onnxslim_learn.plans import Plan
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite import verify as checking
from onnxslim_learn.rewrite.inputs import random_inputs
from onnxslim_learn.rewrite.slim import kept_positions
from onnxslim_learn.rewrite.slim import slim as rewrite
from onnxslim_learn.select import budget, criteria

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

TRIES = 12  # a file's overhead changes by a few bytes with its sizes, and one unit may be more than that


@dataclass(frozen=True)
class Analysis:
    """A model understood: its graph, what is coupled, the groups that can be decided on, and what everything costs.

    Attributes:
        graph: The model in normal form.
        coupling: The solved coupling.
        groups: All groups, those that cannot go with the reason.
        sensitive: Whether normalised axes may be cut.
    """

    graph: Graph
    coupling: Coupling
    groups: tuple[Group, ...]
    sensitive: bool

    @cached_property
    def costs(self) -> dict[str, cost.Cost]:
        """The costs ``macs``, ``params`` and ``bytes`` (of the weights)."""
        return {name: make(self.coupling) for name, make in cost.COSTS.items()}

    @cached_property
    def whole(self) -> Removal:
        """The removal of nothing."""
        return Removal(self.coupling, np.zeros(self.coupling.size, bool))

    @property
    def opaque(self) -> dict[str, int]:
        """Operators without a rule -> number of nodes; what they touch is pinned."""
        return dict(self.coupling.records.opaque)

    def price(self, cut: Removal) -> dict[str, int]:
        """Costs as integers: ``macs``, ``params``, ``bytes`` of the weights."""
        if foresee(cut).dead:  # what is left of a dead branch are constants: count the result
            slimmed = analyze(ir.to_proto(rewrite(cut)), inputs=self.graph.shapes.nominal.inputs)
            return slimmed.price(slimmed.whole)
        alive = (~cut.gone).astype(float)
        return {name: round(value.value(alive)) for name, value in self.costs.items()}

    def group(self, name: str) -> Group:
        """A group by name.

        Raises:
            PlanError: If there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise PlanError(f"group {name}: the model has no such group. Run analyze to see their names.")


def analyze(
    model: str | Path | onnx.ModelProto,
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    allow_sensitive: bool = False,
) -> Analysis:
    """Understand a model: load it, find what is coupled, and why what cannot go cannot.

    Args:
        model: Path of an ``.onnx`` file, or a model in memory.
        inputs: Graph input -> shape at which costs and latency are counted, where the file leaves dimensions open.
        allow_sensitive: Also allow cutting axes that are normalised over; results are then not exact.

    Raises:
        InputError: If the model cannot be used.
    """
    graph = load(model, inputs)
    coupling = couple(graph, sensitive=allow_sensitive)
    groups = budget.decidable(coupling, grouping.find(coupling))
    return Analysis(graph, coupling, tuple(groups), allow_sensitive)


def plan(
    analysis: Analysis,
    target: Mapping[str, float],
    *,
    criterion: str = "energy",
    multiple: int = 1,
    protect: Sequence[str] = (),
    allow_empty: bool = False,
    progress: Callable[[float], None] = lambda share: None,
    slack: float = 0.0,
) -> Plan:
    """Choose what to keep so that every target is met from below.

    Args:
        analysis: The model.
        target: ``macs``, ``params`` or ``bytes`` -> bound; at most 1 is a fraction of the original, more is absolute.
            ``bytes`` is the size of the file.
        criterion: What scores the units of a group.
        multiple: Widths are multiples of this where the group is wide enough.
        protect: Regular expressions; groups they find stay whole.
        allow_empty: Whether a whole branch may go; otherwise one unit of every group stays.
        progress: Called with the share done.
        slack: Bytes to stay below a bound on bytes.

    Raises:
        InputError: If an argument does not fit.
        TargetError: If a target cannot be met.
    """
    if multiple < 1:
        raise InputError(f"--multiple {multiple}: expected a positive number. Use 1 for any width.")
    bounds = _bounds(analysis, target, slack)
    groups = budget.protected(analysis.groups, protect)
    scores = criteria.scores(analysis.coupling, groups, criterion)
    found = None
    for cells in (False, True):
        freedom = budget.Freedom(multiple, cells, allow_empty)
        choices = budget.choices(analysis.coupling, groups, scores, freedom)
        task = budget.Search(analysis.coupling, choices, bounds, dict(target), allow_empty)
        if cells or task.fits(task.at(0.0)):
            found = budget.search(task, progress)
            break
    assert found is not None
    made = {"criterion": criterion, "target": dict(target), "multiple": multiple, "protect": list(protect)}
    made["allow_empty"] = allow_empty
    return describe(analysis, found, made)


def describe(analysis: Analysis, cut: Removal, made: Mapping[str, Any]) -> Plan:
    """Write a removal down as a plan."""
    coupling = analysis.coupling
    whole = np.ones(coupling.columns, bool)
    whole[coupling.column[~cut.gone]] = False
    kept, widths = {}, {}
    for group in analysis.groups:
        gone = whole[group.units]
        if gone.any():
            kept[group.name] = np.flatnonzero(~gone).tolist()
            widths[group.name] = group.width
    provenance = {
        "source": str(analysis.graph.source.name) if analysis.graph.source else "",
        "sha256": analysis.graph.digest,
        **made,
        "allow_sensitive": analysis.sensitive,
        "before": analysis.price(analysis.whole),
        "after": analysis.price(cut),
    }
    return Plan(kept, widths, _tensors(cut), provenance)


def _tensors(cut: Removal) -> dict[str, dict[str, list[Any]]]:
    found = {}
    for name in cut.coupling.graph.initializers:
        if name in cut.coupling.values:
            axes = kept_positions(cut, name)
            if axes:
                found[name] = {str(axis): kept for axis, kept in axes.items()}
    return found


def realize(analysis: Analysis, chosen: Plan) -> Removal:
    """The removal that a plan describes, checked against the model.

    Raises:
        PlanError: If the plan does not fit the model, was edited inconsistently, or breaks a constraint.
    """
    try:
        return _realize(analysis, chosen)
    except PlanError as error:
        made = chosen.provenance
        if made.get("sha256") in (None, analysis.graph.digest):
            raise
        raise PlanError(f"{error} The plan was made for another file ({made.get('source', 'unnamed')}).") from error


def _realize(analysis: Analysis, chosen: Plan) -> Removal:
    columns: list[int] = []
    for name, kept in chosen.groups.items():
        group = analysis.group(name)
        if group.width != chosen.widths[name]:
            raise PlanError(
                f"group {name}: it has {group.width} units, but {chosen.widths[name]!r} in the plan. Use its model."
            )
        if any(not 0 <= k < group.width for k in kept) or len(set(kept)) != len(kept):
            raise PlanError(f"group {name}: kept indices must be distinct and below {group.width}, found {kept}.")
        columns += group.units[np.setdiff1d(np.arange(group.width), kept)].tolist()
    found = removal(analysis.coupling, columns, empty=bool(chosen.provenance.get("allow_empty")))
    if chosen.tensors:
        derived = _tensors(found)
        for name in sorted({*derived, *chosen.tensors}):
            if derived.get(name) != chosen.tensors.get(name):
                raise PlanError(
                    f"tensor {name}: 'tensors' and 'groups' of the plan disagree. Drop 'tensors' or correct it."
                )
    return found


@dataclass
class Slimmed:
    """A slimmed model, not yet written.

    Attributes:
        analysis: The original.
        plan: What was kept.
        removal: The same, as classes.
        model: The slimmed model; weights are sliced when it is saved.
    """

    analysis: Analysis
    plan: Plan
    removal: Removal
    model: ir.Model = field(repr=False)

    def save(
        self,
        path: str | Path,
        *,
        check: bool = True,
        real: Sequence[Mapping[str, Any]] = (),
        file_bytes: float | None = None,
    ) -> checking.Verification | None:
        """Write the model: stage it, compare it with the masked original in onnxruntime, then move it to its place.

        Args:
            path: Where; weights go to ``<path>.data`` if the source kept them in external files.
            check: Whether to compare.
            real: Real inputs to compare on, beside random ones.
            file_bytes: Largest size on disk allowed.

        Raises:
            VerifyError: If the result differs, or is too large; nothing is written.
            InputError: If the place cannot be written.
        """
        target = Path(path)
        if self.analysis.graph.source is not None:
            save.spare(self.analysis.graph.source, target)
        folder = save.workplace(target)
        try:
            staged = self._stage(target.name, folder)
            found = checking.verify(self.removal, staged, real) if check else None
            if found is not None and not found.passed:
                raise VerifyError(f"{target}: {found.complaint}. Nothing was written.")
            if file_bytes is not None and save.size_on_disk(staged) > file_bytes:
                raise TooLargeError(save.size_on_disk(staged) - file_bytes)
            save.publish(staged, target, self.analysis.graph.source or self.analysis.graph.data)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    def _stage(self, name: str, folder: Path) -> Path:
        source = self.analysis.graph.source
        if self.removal.gone.any() or (source is not None and self.analysis.graph.external):
            return save.staged(self.model, name, folder, external=self.analysis.graph.external)
        staged = folder / name
        with save.writing(name, folder):
            staged.write_bytes(self.analysis.graph.data if source is None else source.read_bytes())
        return staged


class TooLargeError(VerifyError):
    """Raised when a written file exceeds its bound; ``args[0]`` is by how many bytes."""


def slim(analysis: Analysis, chosen: Plan) -> Slimmed:
    """Carry out a plan.

    Raises:
        PlanError: If the plan does not fit the model.
    """
    cut = realize(analysis, chosen)
    return Slimmed(analysis, chosen, cut, rewrite(cut))


def verify(
    original: Analysis, slimmed: str | Path, chosen: Plan, real: Sequence[Mapping[str, Any]] = ()
) -> checking.Verification:
    """Check that a slimmed file computes what the original computes under the plan's mask.

    Raises:
        PlanError: If the plan does not fit the original.
        InputError: If the slimmed file cannot be run on the original's inputs.
    """
    check_file(Path(slimmed), "the slimmed model")
    return checking.verify(realize(original, chosen), Path(slimmed), real)


def _bounds(analysis: Analysis, target: Mapping[str, float], slack: float) -> dict[str, tuple[cost.Cost, float]]:
    """Absolute bounds of cost targets; the bound on file bytes leaves room for everything but weights."""
    before = analysis.price(analysis.whole)
    bounds = {}
    for name, wish in target.items():
        if name not in analysis.costs:
            raise InputError(f"--target {name}: expected {', '.join(analysis.costs)}. Use one of them.")
        if not wish > 0 or not np.isfinite(wish):
            raise InputError(
                f"--target {name}={wish}: expected a positive number. At most 1 is a fraction, more is absolute."
            )
        total, overhead = before[name], 0.0
        if name == "bytes" and analysis.graph.source is not None:
            total = save.size_on_disk(analysis.graph.source)
            overhead = max(total - before[name], 0) + slack
        bound = wish * total if wish <= 1 else wish
        bounds[name] = (analysis.costs[name], bound - overhead)
    return bounds


def slim_to(
    analysis: Analysis,
    target: Mapping[str, float],
    path: str | Path,
    *,
    stage: Callable[[str], Callable[[float], None]] = lambda name: lambda share: None,
    real: Sequence[Mapping[str, Any]] = (),
    **settings: Any,
) -> tuple[Slimmed, checking.Verification]:
    """Plan, slim, verify and write in one go; a bound on file bytes is met by the file itself.

    Args:
        analysis: The model.
        target: See :func:`plan`.
        path: Where to write.
        stage: Called with the name of each stage; returns what to call with the share done.
        real: Real inputs to verify on, beside random ones.
        **settings: See :func:`plan`.

    Raises:
        InputError, TargetError, PlanError, VerifyError: See :func:`plan` and :meth:`Slimmed.save`; nothing is written.
    """
    limit = _file_limit(analysis, target)
    slack = 0.0
    for _ in range(TRIES):
        chosen = plan(analysis, target, progress=stage("choosing"), slack=slack, **settings)
        stage("cutting and verifying")
        slimmed = slim(analysis, chosen)
        try:
            found = slimmed.save(path, real=real, file_bytes=limit)
        except TooLargeError as error:
            slack = 2 * slack + float(error.args[0])
            continue
        assert found is not None
        return slimmed, found
    raise TargetError(f"--target bytes={target['bytes']:g}: cannot be reached by the whole file. Raise it.")


def _file_limit(analysis: Analysis, target: Mapping[str, float]) -> float | None:
    """Largest file allowed, in bytes."""
    if "bytes" not in target or analysis.graph.source is None:
        return None
    wish = target["bytes"]
    return wish * save.size_on_disk(analysis.graph.source) if wish <= 1 else wish


def why(analysis: Analysis, question: str) -> list[explain.Step]:
    """Explain by a path why a group (or parameter axis) cannot go, or why ``axis,axis`` are coupled.

    Raises:
        InputError: If the question names nothing.
    """
    first, comma, second = (part.strip() for part in question.partition(","))
    if comma:
        return explain.why_coupled(analysis.coupling, first, second)
    found = [g for g in analysis.groups if g.name == first] or [g for g in analysis.groups if first in g.members]
    if not found:
        names = list(dict.fromkeys(n for g in analysis.groups for n in (g.name, *g.members)))
        near = [n for n in names if n.rpartition(":")[0] == first] or difflib.get_close_matches(first, names, 3, 0.4)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"--why {question!r}: no group or parameter axis that can be decided on has that name.{hint}")
    return explain.why_pinned(analysis.coupling, found[0])


def example_inputs(model: str | Path, inputs: Mapping[str, Sequence[int]] | None = None) -> dict[str, Any]:
    """Random inputs that a model accepts, at its nominal sizes.

    Raises:
        InputError: If the model cannot be used.
    """
    found = analyze(model, inputs=inputs)
    return random_inputs(found.coupling, found.graph.shapes.nominal)
