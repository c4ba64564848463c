"""How often whole models are timed: counted from what they compute and move, so that a busy machine times as often.

A number of seconds stands for the rounds that take about as long on a usual machine, idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.costs.devices import Device
from onnxslim_learn.costs.roofline import roofline
from onnxslim_learn.runtime.timing import MOST_ROUNDS, ROUNDS, Rounds

if TYPE_CHECKING:
    from onnxslim_learn.coupling.solver import Coupling

USUAL = Device("one core of a usual machine", gflops=60.0, gbytes=10.0, node_us=2.0, run_us=5.0)


def rounds(coupling: Coupling, seconds: float, models: int = 2) -> Rounds:
    """The rounds that stand for a time.

    Args:
        coupling: A model; the others are taken to be about as large.
        seconds: The time.
        models: How many run in each round.
    """
    once = 1e-6 * models * roofline(coupling, USUAL).value(np.ones(coupling.size))
    return Rounds(int(np.clip(round(seconds / once), ROUNDS, MOST_ROUNDS)), seconds, counted=True)
