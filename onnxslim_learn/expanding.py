"""Widen a file to a budget: choose one factor, double units, check that nothing changed, write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxslim_learn.analysis import Analysis, analyze
from onnxslim_learn.errors import InputError, VerifyError
from onnxslim_learn.planning import bounds
from onnxslim_learn.rewrite import expand as widening
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.verify import Verification, verify
from onnxslim_learn.select import budget

if TYPE_CHECKING:
    from onnxslim_learn.graph.coupling import Group
    from onnxslim_learn.rewrite.expand import Growth


@dataclass(frozen=True)
class Widening:
    """How to widen.

    Attributes:
        target: Cost -> bound; at most 1 is a fraction, more is absolute.
        like: The model that fractions are of; ``None`` for the one that is widened.
        multiple: Widths are multiples of this.
        protect: Regular expressions; groups they find keep their width.
        fresh: Whether weights that grow are drawn anew.
        seed: Determines how weights are shared out or drawn.
    """

    target: Mapping[str, float]
    like: Analysis | None = None
    multiple: int = 1
    protect: Sequence[str] = ()
    fresh: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Widened:
    """A wider model that was written.

    Attributes:
        factor: By which widths were multiplied.
        before: Costs.
        after: Costs of what was written.
        widths: Group -> width before and after.
        verification: Comparison with the original; ``None`` where weights were drawn anew.
    """

    factor: float
    before: dict[str, int]
    after: dict[str, int]
    widths: dict[str, tuple[int, int]]
    verification: Verification | None


def expand(analysis: Analysis, asked: Widening, output: Path) -> Widened:
    """Widen a model as far as a budget allows, by one factor for all groups, and write it.

    Raises:
        InputError: If nothing can grow, or an argument does not fit.
        TargetError: If the budget leaves no room.
        VerifyError: If the result would not compute what the model does; nothing is written.
    """
    limits = bounds(analysis, _absolute(asked))
    groups = widening.growable(analysis, budget.protected(analysis.groups, asked.protect))
    factor, growth = widening.largest(analysis, groups, limits, multiple=asked.multiple)
    model = widening.expand(growth, seed=asked.seed, fresh=asked.fresh)
    after = analyze(ir.to_proto(model), inputs=analysis.graph.shapes.nominal.inputs)
    found = _write(analysis, model, output, check=not asked.fresh)
    return Widened(factor, analysis.price(analysis.whole), after.price(after.whole), _widths(growth, groups), found)


def _absolute(asked: Widening) -> dict[str, float]:
    """Bounds as numbers, where they are fractions of another model."""
    if asked.like is None:
        return dict(asked.target)
    like = asked.like.price(asked.like.whole)
    for name in asked.target:
        if name not in like:
            raise InputError(f"--target {name}: expected {', '.join(like)} with --like. Use one of them.")
    return {name: wish * like[name] if wish <= 1 else wish for name, wish in asked.target.items()}


def _widths(growth: Growth, groups: Sequence[Group]) -> dict[str, tuple[int, int]]:
    columns = dict(zip(growth.coupling.column.tolist(), growth.copies.tolist(), strict=True))
    return {group.name: (group.width, sum(columns[int(unit)] for unit in group.units)) for group in groups}


def _write(analysis: Analysis, model: ir.Model, output: Path, *, check: bool) -> Verification | None:
    """Stage, compare, and move to its place."""
    source: Any = analysis.graph.source or analysis.graph.data
    if isinstance(source, Path):
        save.spare(source, output)
    folder = save.workplace(output)
    try:
        staged = save.staged(model, output.name, folder, external=analysis.graph.external)
        found = verify(analysis.whole, staged) if check else None
        if found is not None and not found.passed:
            raise VerifyError(f"{output}: {found.complaint}. Nothing was written.")
        save.publish(staged, output, source)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found
