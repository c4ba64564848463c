"""What a run can be watched by: TensorBoard's event files, where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Summarise: TypeAlias = "Callable[[int, Mapping[str, float], Mapping[str, Tensor]], None]"


@contextmanager
def summaries(folder: Path | None, start: int) -> Iterator[Summarise]:
    """A function that writes a step's numbers and histograms to ``<folder>/events``; it does nothing without a folder.

    Args:
        folder: The run's folder.
        start: The first step; what an interrupted run wrote from there on is dropped.
    """
    if folder is None or importlib.util.find_spec("tensorboard") is None:
        yield lambda step, numbers, histograms: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "events"), purge_step=start or None)

    def summarise(step: int, numbers: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        for name, values in histograms.items():
            writer.add_histogram(name, values.detach().cpu(), step)

    try:
        yield summarise
    finally:
        writer.close()
