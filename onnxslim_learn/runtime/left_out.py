"""Places of samples that a mask among the inputs leaves out, such as what fills short texts up.

What flows there moves no answer, so that no fit, no moment and no judgement should mind it. Nothing is guessed: other
numbers are put in there, and where outputs move at these very places alone, those of values that move are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from onnxslim_learn.array_types import Array, Feeds, Mask
from onnxslim_learn.runtime.executor import Runner

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import onnx_ir as ir

SAME = 1e-4  # of the largest number: differences up to this are rounding

Sides: TypeAlias = "Iterator[tuple[str, Array, Array]]"  # values by name, before and after


@dataclass(frozen=True)
class LeftOut:
    """What a mask leaves out.

    Attributes:
        counted: ``(samples, places)`` of every batch: where it does not.
        axes: Value -> the axis along which these places lie; samples lie along the first.
    """

    counted: Sequence[Mask] = ()
    axes: Mapping[str, int] = field(default_factory=dict)

    def rows(self, name: str, batch: int, shape: tuple[int, ...]) -> Mask | None:
        """Which numbers of a value count, of a size of one along all axes but two; ``None`` where all do."""
        return self._laid(name, self.counted[batch], shape) if name in self.axes else None

    def without(self, outputs: Mapping[str, Array], batches: Sequence[int]) -> dict[str, Array]:
        """Outputs of some batches, one after the other, with zeros where nothing counts."""
        parts = [self.counted[k] for k in batches] if self.axes else []
        if len({part.shape[1:] for part in parts}) != 1:
            return dict(outputs)
        whole = np.concatenate(parts)
        masks = {name: self._laid(name, whole, a.shape) for name, a in outputs.items() if name in self.axes}
        zeros = {name: np.where(mask, outputs[name], 0) for name, mask in masks.items() if mask is not None}
        return {**outputs, **{name: array.astype(outputs[name].dtype) for name, array in zeros.items()}}

    def _laid(self, name: str, counted: Mask, shape: tuple[int, ...]) -> Mask | None:
        axis = self.axes[name]
        return _laid(counted, len(shape), axis) if shape[:1] + shape[axis : axis + 1] == counted.shape else None


def left_out(model: ir.Model, feeds: Sequence[Feeds], names: Collection[str]) -> LeftOut:
    """Find what a mask among the inputs leaves out of some values and of the outputs, by running one batch twice.

    Args:
        model: The model, in normal form.
        feeds: Its inputs, a mapping per batch.
        names: The values.
    """

    def run(one: Feeds, other: Feeds) -> tuple[Sides, Sides]:
        runner = Runner(model, (one, other), ())
        return _values(runner, names), _outputs(runner)

    return _find(feeds, run)


def left_out_of_outputs(run: Callable[[Feeds], Mapping[str, Array]], feeds: Sequence[Feeds]) -> LeftOut:
    """The same of outputs alone.

    Args:
        run: The original: its outputs by name.
        feeds: Its inputs, a mapping per batch.
    """

    def both(one: Feeds, other: Feeds) -> tuple[Sides, Sides]:
        before, after = run(one), run(other)
        return iter(()), ((name, array, after[name]) for name, array in before.items())

    return _find(feeds, both)


def _find(feeds: Sequence[Feeds], run: Callable[[Feeds, Feeds], tuple[Sides, Sides]]) -> LeftOut:
    """The first mask that is one."""
    masks = [name for name in (feeds[0] if len(feeds) else ()) if _is_mask([np.asarray(feed[name]) for feed in feeds])]
    for name in masks:
        counted = [np.asarray(feed[name]) != 0 for feed in feeds]
        batch = next(k for k, one in enumerate(counted) if not one.all())
        changed = _changed(feeds[batch], counted[batch], masks)
        if changed is None:
            continue
        inside, ends = run(feeds[batch], changed)
        values = {value: _axis(one, other, counted[batch]) for value, one, other in inside}
        outputs = {value: _axis(one, other, counted[batch]) for value, one, other in ends}
        if None not in outputs.values():
            return LeftOut(counted, {value: axis for value, axis in {**values, **outputs}.items() if axis})
    return LeftOut()


def _is_mask(arrays: Sequence[Array]) -> bool:
    """Whether an input holds zeros and ones for places of samples, both somewhere, and something in every batch."""
    if any(array.ndim != 2 or array.dtype.kind not in "iubf" or not array.any() for array in arrays):
        return False
    return all(((array == 0) | (array == 1)).all() for array in arrays) and not all(array.all() for array in arrays)


def _changed(feed: Feeds, counted: Mask, masks: Collection[str]) -> dict[str, Array] | None:
    """Inputs with other numbers at places that do not count, from places that do; ``None`` without such inputs."""
    rng, changed = np.random.default_rng(0), {name: np.asarray(array) for name, array in feed.items()}
    filled = [name for name, array in changed.items() if name not in masks and array.shape[:2] == counted.shape]
    for name in filled:
        rows = changed[name][counted]
        changed[name] = changed[name].copy()
        changed[name][~counted] = rows[rng.integers(len(rows), size=int((~counted).sum()))]
    return changed if filled else None


def _values(runner: Runner, names: Collection[str]) -> Sides:
    """Values of both batches, one after the other."""
    for name in sorted(set(names) & runner.place.keys(), key=runner.place.__getitem__):
        one, other = (values[name] for _, values in runner.taken(runner.place[name] + 1, [name]))
        yield name, one, other


def _outputs(runner: Runner) -> Sides:
    """Outputs of both batches."""
    runner.finish()
    for value in runner.model.graph.outputs:
        one, other = runner.get(str(value.name))
        yield str(value.name), one, other


def _axis(one: Array, other: Array, counted: Mask) -> int | None:
    """The axis along which places lie that differ; 0 where nothing does, ``None`` where places differ that count."""
    if one.shape != other.shape or one.dtype.kind not in "iubf":
        return 0 if np.array_equal(one, other) else None
    differs = np.abs(one.astype(np.float64) - other) > SAME * np.abs(one).max(initial=0.0)
    if not differs.any():
        return 0
    axes = [k for k in range(1, one.ndim) if one.shape[:1] + one.shape[k : k + 1] == counted.shape]
    return next((k for k in axes if not (differs & _laid(counted, one.ndim, k)).any()), None)


def _laid(counted: Mask, rank: int, axis: int) -> Mask:
    """A mask along the first and another axis of a value."""
    sizes = [1] * rank
    sizes[0], sizes[axis] = counted.shape
    return counted.reshape(sizes)
