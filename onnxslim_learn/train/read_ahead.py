"""What every step sees, read by processes beside the one that trains, in the order in which steps come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from onnxslim_learn.array_types import Array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxslim_learn.data.batch import Batch
    from onnxslim_learn.train.distributed import World
    from onnxslim_learn.train.optimizer import Recipe
    from onnxslim_learn.train.samples import SampleStore

T = TypeVar("T")


@dataclass(frozen=True)
class Drawn:
    """Samples as they are taken.

    Attributes:
        shelf: Where they lie.
        rows: Their places there.
        batch: They themselves.
    """

    shelf: int
    rows: Array
    batch: Batch


class Steps(Dataset[list[Drawn]]):
    """What every step of a run sees: a portion for each part that its batch is computed in."""

    def __init__(self, samples: SampleStore, recipe: Recipe, world: World) -> None:
        """Nothing is read yet."""
        self.samples, self.recipe, self.rank, self.size = samples, recipe, world.rank, world.size

    def __getitem__(self, step: int) -> list[Drawn]:
        shelf, rows = self.samples.rows(step, self.recipe.batch_size, self.recipe.seed)
        mine = [np.split(part, self.size)[self.rank] for part in np.split(rows, self.recipe.accumulate)]
        return [Drawn(shelf, part, self.samples.take(shelf, part)) for part in mine]

    def ahead(self, start: int, workers: int) -> Iterator[list[Drawn]]:
        """From a step on, read by so many processes; with none, whenever a step begins."""
        order = range(start, self.recipe.steps)
        if not workers:
            return (self[step] for step in order)
        return iter(DataLoader(self, batch_size=None, sampler=order, num_workers=workers, collate_fn=_as_it_is))


def _as_it_is(x: T) -> T:
    return x
