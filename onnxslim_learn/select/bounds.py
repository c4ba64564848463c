"""Absolute bounds of cost targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.rewrite import save

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.polynomial import Priced


def bounds(analysis: Analysis, target: Mapping[str, float]) -> dict[str, tuple[Priced, float]]:
    """Absolute bounds of cost targets; the bound on file bytes leaves room for everything but weights."""
    before = analysis.price(analysis.whole)
    known, found = analysis.bounded, {}
    for name, wish in target.items():
        if name not in known:
            also = "" if name != "latency" else " Latency needs a device: give one to analyze."
            raise InputError(f"--target {name}: expected {', '.join(known)}. Use one of them.{also}")
        if not wish > 0 or not np.isfinite(wish):
            raise InputError(
                f"--target {name}={wish}: expected a positive number. At most 1 is a fraction, more is absolute."
            )
        total: float = before[name] if name in before else known[name].value(np.ones(analysis.coupling.size))
        if not total:
            raise TargetError(f"{name}={wish:g} cannot be reached: the model has no {name} that are counted.")
        overhead = 0.0
        if name == "bytes" and analysis.graph.source is not None:
            total = save.size_on_disk(analysis.graph.source)
            overhead = max(total - before[name], 0)
        bound = wish * total if wish <= 1 else wish
        found[name] = (known[name], bound - overhead)
    return found
