"""What every group loses at every width: measured one group at a time, after repair, on samples not fitted on.

Of one group some units go, all layers after it are refitted, and the outputs are compared with the original's.
Few widths are measured, half first, then finer, as long as time allows; in between the square root of the loss, which
grows about evenly with what goes, is interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn import metrics
from onnxslim_learn.array_types import Array, Progress
from onnxslim_learn.quality.channels import channels
from onnxslim_learn.repair.least_squares import QUICK
from onnxslim_learn.repair.sequential import SequentialRepair
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.rewrite.unfuse import unfuse
from onnxslim_learn.runtime.executor import Runner, common
from onnxslim_learn.runtime.parallel import spread

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.coupling.removal import Removal
    from onnxslim_learn.select.budget import Choice


SHARES = (1 / 2, 1 / 4, 3 / 4, 1 / 8, 3 / 8, 7 / 8, 1 / 16)  # of a group's units that stay, in the order measured
PLACES = 8192  # rows of each regression on all samples, those held back included
STEEP = 2.0  # power by which the root of the loss grows below the narrowest width measured
LEAST = 1  # rounds over all groups that have to be made


@dataclass(frozen=True)
class Curves:
    """Measured losses.

    Attributes:
        points: Group name -> number of units kept -> loss.
        samples: Samples used, those fitted on included.
        seconds: Time it took.
    """

    points: dict[str, dict[int, float]] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0

    def complete(self, choices: Sequence[Choice]) -> bool:
        """Whether every choice was measured at enough widths."""
        return all(len(self.points.get(c.group.name, ())) >= min(LEAST, len(c.kept) - 1) for c in choices)

    def curve(self, choice: Choice) -> Array:
        """The loss at every allowed width of a choice."""
        points = {**self.points[choice.group.name], choice.group.width: 0.0}
        widths = np.array(sorted(points))
        roots = np.sqrt([max(points[w], 0.0) for w in widths])
        roots = np.maximum.accumulate(roots[::-1])[::-1]
        kept = np.array(choice.kept, float)
        interpolated = np.interp(kept, widths, roots)
        below = kept < widths[0]
        interpolated[below] = roots[0] * (widths[0] / np.maximum(kept[below], 0.5)) ** STEEP
        result: Array = interpolated**2
        return result


def measure(
    model: ir.Model,
    record: Record,
    choices: Sequence[Choice],
    removal: Callable[[Choice, int], Removal],
    *,
    seconds: float,
    known: Curves | None = None,
    keep: Callable[[str, int, float], None] = lambda group, kept, loss: None,
    progress: Progress = lambda share: None,
) -> Curves:
    """Measure curves within a time.

    Args:
        model: The model.
        record: What it does on some batches of inputs, half of them held back.
        choices: The groups to measure, with the order in which their units go.
        removal: What goes when a choice keeps so many units.
        seconds: After which no further measurement starts.
        known: Points measured before; they are not measured again.
        keep: Called with every point measured: group, units kept, loss.
        progress: Called with the share done.
    """
    start, curves = perf_counter(), {name: dict(points) for name, points in (known or Curves()).points.items()}
    rounds = [(n / len(SHARES), share, choice) for n, share in enumerate(SHARES) for choice in choices]
    begun = {(name, kept) for name, points in curves.items() for kept in points}

    def jobs() -> Iterator[tuple[tuple[str, int, float], Callable[[], float]]]:
        whole = unfuse(model)
        trunk = Runner(whole, record.feeds, (), threads=1)
        for done, share, choice in rounds:
            kept = min(choice.kept, key=lambda k: abs(k - share * choice.group.width))
            point = choice.group.name, kept
            if point in begun or kept == choice.group.width:
                continue
            if perf_counter() - start > seconds:
                return
            begun.add(point)
            cut = removal(choice, kept)
            slimmed = unfuse(slim(cut))
            alike = common(whole, slimmed)
            if alike < trunk.position:
                trunk = Runner(whole, record.feeds, (), threads=1)
            trunk.run_to(alike)
            yield (*point, done), partial(loss, cut, slimmed, record, trunk.branch(slimmed))

    for (name, kept, done), lost in spread(jobs()):
        curves.setdefault(name, {})[kept] = lost
        keep(name, kept, lost)
        progress(max((perf_counter() - start) / seconds, done))
    return Curves(curves, record.samples, perf_counter() - start)


def loss(cut: Removal, slimmed: ir.Model, record: Record, runner: Runner | None = None) -> float:
    """How far outputs are from the original's when what is cut is cut and everything after it is repaired.

    Repaired like that, losses of groups add up as long as none is cut to the bone: on a residual net of twelve groups
    their sum was within a tenth of the loss of all cuts together. Where only direct consumers are refitted it is not.

    Args:
        cut: What is cut.
        slimmed: The model without it and without fused nodes; its weights are repaired in place.
        record: What the original does.
        runner: The slimmed model, if it has run up to what is cut; else one of one thread.
    """
    return metrics.loss(record.outputs(), repaired(cut, slimmed, record, runner), channels(cut.coupling))


def repaired(cut: Removal, slimmed: ir.Model, record: Record, runner: Runner | None = None) -> dict[str, Array]:
    """The outputs by name, on the batches that are judged, when what is cut is cut and all is repaired; see above."""
    slimmed = unfuse(slimmed)
    walk = SequentialRepair(cut, slimmed, record, QUICK, runner or Runner(slimmed, record.feeds, (), threads=1))
    walk.go()
    return walk.outputs()
