"""Which residual blocks go as a whole: greedily, one after the other, each time the one that loses least.

What a block loses is measured as what widths lose is (:mod:`onnxslim_learn.select.sensitivity`): with the blocks before
it gone and everything after repaired, on samples. Losses grow as more blocks go, so that a loss measured with fewer
gone bounds it from below, and only the block that seems to lose least is measured anew (Minoux 1978, "Accelerated
greedy algorithms for maximizing submodular set functions"). Where blocks compete with widths, a few numbers of blocks
are tried, each with the widths that meet the bounds beside it, and the samples decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from onnxslim_learn.array_types import Progress
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.readers import AUTO
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.runtime import cache
from onnxslim_learn.select import search, sensitivity
from onnxslim_learn.select.allocation import KEPT, about
from onnxslim_learn.select.schedule import affordable
from onnxslim_learn.select.sensitivity import Bench

if TYPE_CHECKING:
    from onnxslim_learn.coupling.residual import Block
    from onnxslim_learn.select.budget import Search
    from onnxslim_learn.select.calibration import Calibration
    from onnxslim_learn.select.schedule import Portion

NUMBERS = 6  # of blocks that are tried beside none, where they compete with widths

Make = Callable[[Sequence["Block"]], "Search"]  # the search for widths where some blocks go


@dataclass(frozen=True)
class Decided:
    """Which blocks go.

    Attributes:
        blocks: In the order in which they were chosen.
        losses: What is lost when each of them and those before it are gone.
        trials: Number of blocks -> what is lost with the widths that meet the bounds beside them.
    """

    blocks: tuple[Block, ...] = ()
    losses: tuple[float, ...] = ()
    trials: dict[str, float] = field(default_factory=dict)


def decide(
    make: Make,
    able: Sequence[Block],
    number: int | str,
    calibration: Calibration | None,
    progress: Progress = lambda share: None,
) -> Decided:
    """Choose the blocks that go.

    Args:
        make: What searches widths beside blocks that go.
        able: The blocks that may go.
        number: How many go; ``auto`` for as many as turn out best.
        calibration: The samples to measure on.
        progress: Called with the share done.

    Raises:
        InputError: If there are fewer blocks, or no samples.
        TargetError: If bounds cannot be met.
    """
    if number != AUTO and int(number) > len(able):
        most = f"Give at most {len(able)}." if able else "Leave it out."
        raise InputError(f"⟨drop_blocks⟩ {number}: the model has {len(able)} residual blocks that can go. {most}")
    if number == 0 or not able:
        return Decided()
    if calibration is None:
        raise InputError("⟨drop_blocks⟩: what blocks lose is measured on samples. Give some with ⟨data⟩.")
    greedy = _Greedy(make(()), able, calibration)
    if number != AUTO:
        chosen = greedy.sequence(lambda blocks: len(blocks) == int(number), progress, even=True)
        if len(chosen.blocks) < int(number):
            together = len(chosen.blocks)
            said = f"of {len(able)} residual blocks {together} can go together"
            raise InputError(f"⟨drop_blocks⟩ {number}: {said}. Give at most {together}.")
        return chosen
    if not make(able).choices and not make(()).choices:  # blocks alone
        return greedy.needed(greedy.sequence(greedy.fits, progress))
    return _best(make, greedy, greedy.sequence(greedy.fits, progress))


def _best(make: Make, greedy: _Greedy, sequence: Decided) -> Decided:
    """As many of a sequence of blocks as lose least with the widths that meet the bounds beside them."""
    most = len(sequence.blocks)
    candidates: dict[int, Removal] = {}
    for number in sorted({round(most * share / NUMBERS) for share in range(NUMBERS + 1)}):
        try:
            candidates[number] = search.search(make(sequence.blocks[:number]))
        except TargetError:
            if number == most and not candidates:
                raise
    losses = greedy.tried(candidates)
    best = min(losses, key=lambda number: losses[number])
    trials = {str(number): lost[0] for number, lost in losses.items()}
    return Decided(sequence.blocks[:best], sequence.losses[:best], trials)


class _Greedy:
    """Blocks chosen one after the other, and what was measured of them."""

    def __init__(self, task: Search, able: Sequence[Block], calibration: Calibration) -> None:
        self.task, self.able, self.calibration = replace(task, choices=()), able, calibration
        self.coupling = task.coupling
        self.portion: Portion = affordable(task.coupling, calibration, 2 * len(able) + NUMBERS + 1)
        self.about = about(task, self.portion)
        self.known = calibration.measured.setdefault(str(cache.path(KEPT, self.about)), {})
        self.known |= {**cache.read(KEPT, self.about), **self.known}

    @cached_property
    def bench(self) -> Bench:
        """Where blocks are tried."""
        record = Record(self.coupling.graph.model, self.portion.feeds, self.portion.rows, whole=True)
        return Bench(self.coupling, record, self.calibration.metric, self.portion.labels)

    def removal(self, blocks: Iterable[Block]) -> Removal:
        return replace(self.task, dropped=tuple(map(self.coupling.column_of, blocks))).removal(())

    def fits(self, blocks: Sequence[Block]) -> bool:
        """Whether the bounds hold without some blocks."""
        alive = (~self.removal(blocks).gone).astype(float)
        return all(cost.value(alive) <= bound * (1 + 1e-9) for cost, bound in self.task.bounds.values())

    def sequence(
        self,
        enough: Callable[[Sequence[Block]], bool],
        progress: Progress = lambda share: None,
        *,
        even: bool = False,
    ) -> Decided:
        """Let blocks go until it is enough, or none is left: those that lose least for what they save, or at all."""
        gone: list[Block] = []
        losses: list[float] = []
        seeming = self._measured((), self.able, progress)
        while (left := self._left(gone)) and not enough(gone):
            fresh = set[str]() if gone else set(seeming)
            while True:
                worth = {b.name: 1.0 if even else self._worth(b, gone) for b in left}
                first = min(worth, key=lambda name: seeming[name] / worth[name])
                if first in fresh:
                    break
                block = next(b for b in self.able if b.name == first)
                seeming |= self._measured(gone, [block])
                fresh.add(first)
            gone.append(next(b for b in self.able if b.name == first))
            losses.append(seeming[first])
        return Decided(tuple(gone), tuple(losses))

    def _left(self, gone: Sequence[Block]) -> list[Block]:
        """The blocks that may go beside some; of experts, as many stay as a token meets."""
        left = [block for block in self.able if block not in gone]
        return [block for block in left if not self.coupling.faults(self.removal([*gone, block]).gone)]

    def _worth(self, block: Block, gone: Sequence[Block]) -> float:
        """Which share of the bounds that are still exceeded a block takes."""
        before, after = ((~self.removal(b).gone).astype(float) for b in (gone, [*gone, block]))
        exceeded = [(c, bound) for c, bound in self.task.bounds.values() if c.value(before) > bound]
        return max(sum((c.value(before) - c.value(after)) / bound for c, bound in exceeded), 1e-12)

    def needed(self, sequence: Decided) -> Decided:
        """The blocks of a sequence without which bounds would not hold, those that lose most left in first."""
        blocks = list(sequence.blocks)
        if not self.fits(blocks):
            return sequence
        for block in reversed(sequence.blocks[:-1]):
            rest = [one for one in blocks if one is not block]
            blocks = rest if self.fits(rest) else blocks
        if len(blocks) == len(sequence.blocks):
            return sequence
        losses = [self._measured(blocks[:n], [block])[block.name] for n, block in enumerate(blocks)]
        return Decided(tuple(blocks), tuple(losses))

    def _measured(
        self, gone: Sequence[Block], blocks: Sequence[Block], progress: Progress = lambda share: None
    ) -> dict[str, float]:
        """What is lost without some blocks and each of others; what was measured before is not measured again."""
        keys = {block.name: " ".join(["without", *sorted(b.name for b in (*gone, block))]) for block in blocks}

        def keep(block: Block, kept: int, lost: float) -> None:
            self.known[keys[block.name]] = lost
            cache.add(KEPT, self.about, {keys[block.name]: lost})

        missing = [(block, 0) for block in blocks if keys[block.name] not in self.known]
        if missing:
            cut = lambda block, kept: self.removal([*gone, block])  # noqa: E731
            place = self.calibration.workers
            sensitivity.measure(self.bench, missing, cut, place=place, keep=keep, progress=progress)
        return {name: self.known[key] for name, key in keys.items()}

    def tried(self, candidates: dict[int, Removal]) -> dict[int, tuple[float, ...]]:
        """What is lost by some removals after a quick repair of everything."""
        return self.bench.tried(candidates, self.calibration.workers)
