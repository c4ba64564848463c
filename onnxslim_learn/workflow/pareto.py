"""Several models from one, small to smaller: what each keeps of the original, and which are worth keeping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.errors import TargetError
from onnxslim_learn.runtime import atomic
from onnxslim_learn.workflow import slim

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.targets import Bound
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.workflow.slimmed import Slimmed


def slim_each(
    analysis: Analysis,
    targets: Mapping[str, Mapping[str, Bound]],
    output: Path,
    plans: str | None = None,
    *,
    tell: Callable[[Slimmed, Verification, Path], Mapping[str, Any]] = lambda slimmed, check, path: {},
    **settings: Any,
) -> list[dict[str, Any]]:
    """Slim a model to several targets; what is measured for one serves the others.

    Args:
        analysis: The model.
        targets: Name -> bounds, as in :func:`api.slim_to`.
        output: Where to write; the target's name is put behind the file's.
        plans: Where to write the plans, likewise, if they are wanted.
        tell: What is reported of each by itself, once it is written.
        **settings: See :func:`api.slim_to`.

    Returns:
        A row for each: ``target``, ``output``, ``plan`` (its file, if wanted), costs ``before`` and ``after``,
        ``relative`` L2 distance of the outputs to the original's and ``accuracy`` (both on held-back samples),
        ``quality`` as judged, ``report``, and ``pareto`` as :func:`mark` says.

    Raises:
        TargetError: If one cannot be met; models of targets before it are written.
    """
    rows: list[dict[str, Any]] = []
    for name, target in targets.items():
        path = atomic.beside(output, f"-{name}")
        try:
            slimmed, check = slim.slim_to(analysis, target, path, **settings)
        except TargetError as error:
            written = ", ".join(str(row[file]) for row in rows for file in ("output", "plan") if row[file])
            raise TargetError(f"{error.message} {f'Written before: {written}.' if rows else ''}".strip()) from error
        plan = None if plans is None else atomic.beside(Path(plans), f"-{name}")
        if plan is not None:
            slimmed.plan.save(plan)
        files = {"output": str(path), "plan": None if plan is None else str(plan)}
        row = {"target": dict(target), **files, **_told(slimmed, check)}
        rows.append({**row, "report": tell(slimmed, check, path)})
    return mark(rows)


def _told(slimmed: Slimmed, check: Verification) -> dict[str, Any]:
    analysis, repaired = slimmed.analysis, slimmed.repaired
    row: dict[str, Any] = {
        "before": analysis.price(analysis.whole),
        "after": analysis.price(slimmed.removal),
        "relative": check.change,
        "accuracy": None,
        "quality": None if slimmed.judgement is None else slimmed.judgement.to_dict(),
    }
    if repaired is not None:
        trained = slimmed.finetuned if slimmed.finetuned is not None and slimmed.finetuned.kept else None
        deviations = trained.after if trained is not None else repaired.after if repaired.kept else repaired.before
        row["relative"] = float(np.mean([d.relative for d in deviations.values()])) if deviations else check.change
        if repaired.accuracy is not None:
            row["accuracy"] = trained.accuracy if trained is not None else repaired.accuracy[2 if repaired.kept else 1]
    return row


def mark(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say of every row in ``pareto`` whether no other is both smaller (in MACs) and nearer to the original.

    A row without a file, of which nothing went, is the original itself.
    """
    for row in rows:
        row["pareto"] = row["output"] is not None and not any(_beats(other, row) for other in rows if other is not row)
    return list(rows)


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one is as small and as near as another, and better in one of both."""
    a, b = ((row["after"]["macs"], row["relative"]) for row in (one, other))
    return a[0] <= b[0] and a[1] <= b[1] and a != b
