"""How often models are timed follows from what they compute and move, not from the machine."""

import pytest

from onnxslim_learn.costs.roofline import roofline
from onnxslim_learn.latency import rounds as counting
from onnxslim_learn.runtime import timing
from tests.laws import analysed, free

NETS = ("residual", "grouped_query", "channel_shuffle", "depth_to_space")
"""The last three have more classes than columns."""


@pytest.mark.parametrize("net", NETS)
def test_rounds_are_inverse_to_work_within_bounds(net):
    coupling = analysed(net).coupling
    whole = counting.rounds(coupling, 0.05)
    assert timing.ROUNDS < whole.most < timing.MOST_ROUNDS
    assert counting.rounds(coupling, 0.05, models=1).most == pytest.approx(2 * whole.most, abs=2)
    assert counting.rounds(coupling, 0.025).most == pytest.approx(whole.most / 2, abs=2)
    assert counting.rounds(coupling, 1e-9).most == timing.ROUNDS
    assert counting.rounds(coupling, 1e9).most == timing.MOST_ROUNDS
    assert (whole.seconds, whole.counted) == (0.05, True)


def test_rounds_are_those_of_a_usual_machine():
    analysis = analysed(NETS[0])
    assert free(analysis)
    alive = (analysis.whole.gone == 0).astype(float)
    once = 2e-6 * roofline(analysis.coupling, counting.USUAL).value(alive)
    assert counting.rounds(analysis.coupling, 0.05).most == pytest.approx(0.05 / once, abs=1)
