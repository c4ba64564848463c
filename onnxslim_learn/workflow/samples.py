"""Samples to work on where the user gives none: how many, and how they are made up."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from onnxslim_learn.array_types import Progress
from onnxslim_learn.costs.polynomial import work
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from onnxslim_learn.coupling.solver import Coupling
    from onnxslim_learn.data.options import Options
    from onnxslim_learn.data.source import Source


WORK = 200_000_000_000  # multiply-accumulates of made-up samples: some ten seconds on two cores


FEWEST = 32


MOST = 512


def affordable(coupling: Coupling) -> int:
    """How many made-up samples to use for a model."""
    return min(max(WORK // max(work(coupling), 1), FEWEST), MOST)


def matched(coupling: Coupling, options: Options, progress: Progress = lambda share: None) -> Source:
    """Made-up samples that fit the statistics stored in a model's batch normalisations.

    Raises:
        InputError: If the extra ``train`` is not installed, or the model keeps no statistics.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError("--match-statistics: needs torch. Install onnxslim-learn[train].")
    from onnxslim_learn.train import bn_matching as matching

    if not matching.normalisations(coupling.graph):
        raise InputError("--match-statistics: the model keeps no batch statistics (exporters fold them). Leave it out.")
    return matching.matched(coupling, options, progress=progress)
