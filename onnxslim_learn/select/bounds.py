"""Absolute bounds of cost targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxslim_learn.costs.targets import amount, read, shown
from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.registry import COSTS
from onnxslim_learn.rewrite import save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.polynomial import Priced
    from onnxslim_learn.costs.targets import Bound

Target: TypeAlias = "Mapping[str | Callable[..., Any], Bound] | Mapping[str, Bound] | Mapping[str, float]"
"""Cost -> bound: a name of :data:`onnxslim_learn.registry.COSTS`, a function, or ``module:function``."""

TARGET = "⟨target⟩"


def bounds(analysis: Analysis, target: Target) -> dict[str, tuple[Priced, float]]:
    """Absolute bounds of cost targets by name, in the units that costs are counted in.

    One on the file leaves room for everything but weights.

    Raises:
        InputError: If there is no such cost, it cannot be bounded, or a bound is none.
    """
    limits = {}
    for value, wish in target.items():
        row, cost = analysis.priced(value, TARGET)
        if not row.bounded:
            raise InputError(f"{TARGET} {row.name}: only learners charge for it. Bound {', '.join(boundable())}.")
        if not isinstance(wish, str) and not (wish > 0 and np.isfinite(wish)):
            raise InputError(
                f"⟨target.{row.name}⟩={wish}: expected a positive number. At most 1 is a fraction, more is absolute."
            )
        total, overhead = cost.value(np.ones(analysis.coupling.size)), 0.0
        total = float(round(total)) if row.whole and row.counted else total
        if not total:
            said = f"{row.name}={shown(wish, row)} cannot be reached"
            raise TargetError(f"{said}: the model has no {row.name} that are counted.")
        if row.file and analysis.graph.source is not None:
            size = save.size_on_disk(analysis.graph.source)
            total, overhead = size, max(size - total, 0)
        limits[row.name] = (cost, amount(row, wish, total) - overhead)
    return limits


def named(analysis: Analysis, target: Target) -> dict[str, Bound]:
    """The same bounds as they were asked for, by the names of their costs; a time is a text."""
    rows = [(analysis.priced(value, TARGET)[0], wish) for value, wish in target.items()]
    return {row.name: read(row, wish) for row, wish in rows}


def missed(analysis: Analysis, target: Target) -> dict[str, Bound]:
    """The same as :func:`named`, of a target that the model does not meet as it is.

    Raises:
        InputError: If it does.
    """
    wishes, whole = named(analysis, target), np.ones(analysis.coupling.size)
    if all(cost.value(whole) <= bound for cost, bound in bounds(analysis, wishes).values()):
        asked = ", ".join(f"⟨target.{name}⟩={shown(wish)}" for name, wish in wishes.items())
        raise InputError(f"{asked}: the model meets it as it is. Ask for less.")
    return wishes


def boundable() -> list[str]:
    """The costs that a target may bound."""
    return [row.name for row in COSTS.values() if row.bounded]
