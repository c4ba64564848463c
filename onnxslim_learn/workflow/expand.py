"""Widen a file to a budget: choose one factor, double units, check that nothing changed, write."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxslim_learn.analysis import Analysis, analyze
from onnxslim_learn.costs.targets import amount, is_share
from onnxslim_learn.errors import TargetError, VerifyError
from onnxslim_learn.registry import COSTS, LATENCY
from onnxslim_learn.rewrite import save
from onnxslim_learn.rewrite.verify import Verification, verify
from onnxslim_learn.runtime import atomic
from onnxslim_learn.select import kernel_widths
from onnxslim_learn.select.bounds import bounds, named
from onnxslim_learn.workflow import widen as widening
from onnxslim_learn.workflow.latency_target import AIM, LEAST, ROUNDS

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.costs.polynomial import Priced
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.registry import CostRow
    from onnxslim_learn.select.bounds import Target
    from onnxslim_learn.workflow.latency_target import Stopwatch
    from onnxslim_learn.workflow.widen import Growth


@dataclass(frozen=True)
class Times:
    """Latency before and after.

    Attributes:
        before_ms, after_ms: Of a run.
        measured: On this machine, or estimated for a device.
        bound_ms: What was asked for.
        processor_time: Whether processor time was measured, not wall-clock time.
    """

    before_ms: float
    after_ms: float
    measured: bool
    bound_ms: float
    processor_time: bool = False


Sized: TypeAlias = "tuple[float, Growth, Times | None]"


@dataclass(frozen=True)
class Widening:
    """How to widen.

    Attributes:
        target: Cost -> bound; at most 1 is a fraction, and so is a
            :class:`~onnxslim_learn.costs.targets.Share`, more is absolute, a latency in milliseconds.
        like: The model that fractions are of; ``None`` for the one that is widened.
        multiple: Widths are multiples of this; ``auto`` for the steps of this machine's kernels.
        protect: Regular expressions; groups they find keep their width.
        fresh: Whether weights that grow are drawn anew.
        seed: Determines how weights are shared out or drawn.
        watch: Times files beside the model on this machine; ``None`` where the latency of the analysis is what counts.
    """

    target: Target
    like: Analysis | None = None
    multiple: int | str = 1
    protect: Sequence[str] = ()
    fresh: bool = False
    seed: int = 0
    watch: Stopwatch | None = None


@dataclass(frozen=True)
class Widened:
    """A wider model that was written.

    Attributes:
        factor: By which widths were multiplied.
        before: Costs.
        after: Costs of what was written.
        widths: Group -> width before and after.
        verification: Comparison with the original; ``None`` where weights were drawn anew.
        latency: Where it was bounded.
        costs: How costs are told.
        met: Cost that was bounded -> its bound and what came out, in what it is counted in.
    """

    factor: float
    before: dict[str, int]
    after: dict[str, int]
    widths: dict[str, tuple[int, int]]
    verification: Verification | None
    latency: Times | None = None
    costs: tuple[CostRow, ...] = ()
    met: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def expand(analysis: Analysis, asked: Widening, output: Path) -> Widened:
    """Widen a model as far as a budget allows, by one factor for all groups, and write it.

    Raises:
        InputError: If nothing can grow, or an argument does not fit.
        TargetError: If the budget leaves no room.
        VerifyError: If the result would not compute what the model does; nothing is written.
    """
    asked = replace(asked, target=named(analysis, asked.target))
    groups = widening.growable(analysis, analysis.free_groups(asked.protect))
    measured = LATENCY in asked.target and asked.watch is not None
    factor, growth, latency = (_timed if measured else _counted)(analysis, asked, groups)
    model = widening.expand(growth, seed=asked.seed, fresh=asked.fresh)
    check, price = _write(analysis, model, output, check=not asked.fresh)
    before, widths = analysis.price(analysis.whole), _widths(growth, groups)
    copies = growth.copies.astype(float)
    met = {
        name: (bound, float(price.get(name, cost.value(copies))))
        for name, (cost, bound) in _limits(analysis, asked).items()
    }
    if latency is not None:
        met[LATENCY] = (1e3 * latency.bound_ms, 1e3 * latency.after_ms)
    return Widened(factor, before, price, widths, check, latency, tuple(analysis.counted), met)


def _limits(analysis: Analysis, asked: Widening) -> dict[str, tuple[Priced, float]]:
    """Costs and their bounds; fractions are of another model where there is one."""
    limits = bounds(analysis, asked.target)
    if asked.like is not None:
        whole, like = np.ones(asked.like.coupling.size), asked.like.asked_like(analysis)
        wishes = named(analysis, asked.target)
        for name in filter(lambda name: is_share(wishes[name]), wishes):
            limits[name] = (limits[name][0], float(wishes[name]) * like.cost(name).value(whole))
    return limits


def _multiple(analysis: Analysis, asked: Widening, groups: Sequence[Group]) -> int | Mapping[str, int]:
    """What widths are multiples of."""
    if isinstance(asked.multiple, str):
        return kernel_widths.units_in_steps(analysis.coupling, groups)
    return asked.multiple


def _counted(analysis: Analysis, asked: Widening, groups: Sequence[Group]) -> Sized:
    """As wide as costs allow."""
    limits = _limits(analysis, asked)
    factor, growth = widening.largest(analysis, groups, limits, multiple=_multiple(analysis, asked, groups))
    if LATENCY not in limits:
        return factor, growth, None
    cost, bound = limits[LATENCY]
    before, after = (cost.value(copies) for copies in (np.ones(len(growth.copies)), growth.copies.astype(float)))
    return factor, growth, Times(before / 1e3, after / 1e3, measured=False, bound_ms=bound / 1e3)


def _timed(analysis: Analysis, asked: Widening, groups: Sequence[Group]) -> Sized:
    """As wide as measured latency allows: sized by what is predicted, timed, sized again by what that corrects."""
    assert asked.watch is not None
    limits, name, total = _limits(analysis, asked), LATENCY, asked.watch.total
    cost, asked_for = limits[name][0], named(analysis, asked.target)[name]
    like = None if asked.like is None or not is_share(asked_for) else asked.like.graph.source
    wish = amount(COSTS[LATENCY], asked_for, total if like is None else asked.watch.time(like))
    if wish <= total:
        here, there = (f"{us / 1e3:.4g} ms" for us in (total, wish))
        raise TargetError(f"⟨target.latency⟩: leaves no room to grow (the model takes {here} of {there}). Raise it.")
    multiple = _multiple(analysis, asked, groups)
    seen, tried = [(total, cost.value(np.ones(analysis.coupling.size)))], list[Sized]()
    for _ in range(ROUNDS):
        bound = _predicted(seen, AIM * wish)
        factor, growth = widening.largest(analysis, groups, {**limits, name: (cost, bound)}, multiple=multiple)
        if any((growth.copies == other.copies).all() for _, other, _ in tried):
            break
        us = _time(analysis, growth, asked.watch)
        times = Times(total / 1e3, us / 1e3, True, wish / 1e3, asked.watch.processor_time)
        tried.append((factor, growth, times))
        if LEAST * wish <= us <= wish:
            break
        seen.append((us, cost.value(growth.copies.astype(float))))
    return _widest(tried, wish)


def _predicted(seen: Sequence[tuple[float, float]], us: float) -> float:
    """What is predicted where so much is measured: between measured and predicted pairs, beyond them in proportion."""
    measured, predicted = np.sort(np.array(seen), axis=0).T
    beyond = us / measured[-1]
    return float(predicted[-1] * beyond if beyond > 1 else np.interp(us, measured, predicted))


def _time(analysis: Analysis, growth: Growth, watch: Stopwatch) -> float:
    """Microseconds that a wider model takes."""
    with tempfile.TemporaryDirectory() as folder:
        model = widening.expand(growth)
        return watch.time(save.staged(model, "model.onnx", Path(folder), external=analysis.graph.external))


def _widest(tried: Sequence[Sized], wish: float) -> Sized:
    """The widest of those that keep to the bound."""
    meeting = [one for one in tried if one[2] is not None and 1e3 * one[2].after_ms <= wish]
    if not meeting:
        least = min(one[2].after_ms for one in tried if one[2] is not None)
        raise TargetError(
            f"⟨target.latency⟩={wish / 1e3:.4g}ms: {len(tried)} widths were timed, and the fastest takes "
            f"{least:.4g} ms. Raise it."
        )
    return max(meeting, key=lambda one: one[0])


def _widths(growth: Growth, groups: Sequence[Group]) -> dict[str, tuple[int, int]]:
    columns = dict(zip(growth.coupling.column.tolist(), growth.copies.tolist(), strict=True))
    return {group.name: (group.width, sum(columns[int(unit)] for unit in group.units)) for group in groups}


def _write(
    analysis: Analysis, model: ir.Model, output: Path, *, check: bool
) -> tuple[Verification | None, dict[str, int]]:
    """Stage, compare, and move to its place; returns the comparison, and costs of what is written."""
    source: Any = analysis.graph.source or analysis.graph.data
    if isinstance(source, Path):
        save.spare(source, output)
    with atomic.workplace(output) as folder:
        staged = save.staged(model, output.name, folder, external=analysis.graph.external)
        after = analyze(staged, inputs=analysis.graph.shapes.nominal.inputs, values=analysis.graph.values)
        after.asked_like(analysis)
        price = after.price(after.whole)
        verification = verify(analysis.whole, staged) if check else None
        if verification is not None and not verification.passed:
            raise VerifyError(f"{output}: {verification.complaint}. Nothing was written.")
        after.graph.release()
        save.publish(staged, output, source)
    return verification, price
