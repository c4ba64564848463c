"""Calibration finds the constants of a machine that keeps to them."""

import math

import pytest

from onnxslim_learn.latency.calibrate import calibrate

PEAK, BANDWIDTH, NODE, RUN = 123.0, 17.0, 1.5, 40.0


def machine(steps):
    """A timer of a machine that is slow by stairs: what it says is computed from shapes alone."""

    def time(model):
        (x,), nodes = model.graph.input, model.graph.node
        shape = [d.dim_value for d in x.type.tensor_type.shape.dim]
        if nodes[0].op_type == "Neg":
            return 8 * math.prod(shape) / BANDWIDTH / 1e3
        if nodes[0].op_type not in ("Conv", "MatMul"):
            return 0.0
        grouped = any(a.name == "group" for a in nodes[0].attribute)
        step = steps["depthwise" if grouped else nodes[0].op_type]
        outputs, inside = model.graph.initializer[0].dims[:2]
        rest = math.prod(model.graph.initializer[0].dims[2:]) * math.prod(shape) // shape[1]
        outputs, inside = (-(-width // step) * step for width in (outputs, inside))
        return 2 * outputs * inside * rest / PEAK / 1e3

    return lambda models, ms: [time(model) + NODE * len(model.graph.node) + RUN for model in models]


@pytest.mark.parametrize("steps", [{"Conv": 16, "depthwise": 8, "MatMul": 1}, {"Conv": 4, "depthwise": 1, "MatMul": 2}])
def test_constants_of_a_machine_are_found(steps):
    found = calibrate("made up", timer=machine(steps))
    assert found.gflops == pytest.approx(PEAK, rel=1e-3)
    assert found.gbytes == pytest.approx(BANDWIDTH, rel=1e-3)
    assert (found.node_us, found.run_us) == pytest.approx((NODE, RUN), rel=1e-3)
    for operator, step in steps.items():
        assert found.steps[operator] == step


def test_probes_run():
    """On onnxruntime every model of a calibration is accepted and timed."""
    found = calibrate("here", seconds=0.05)
    assert found.gflops > 0
    assert found.gbytes > 0
    assert set(found.steps) == {"Conv", "depthwise", "MatMul"}
    assert found.about["threads"] == 1
