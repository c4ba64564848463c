"""The roofline reproduces MorphNet's published numbers, and its gradient is the finite difference."""

import math

import numpy as np
import pytest

from nets.notation import Net
from onnxslim_learn.costs.devices import Device, load
from onnxslim_learn.costs.roofline import roofline
from onnxslim_learn.errors import InputError
from onnxslim_learn.workflow import slim
from tests.laws import ALL, analysed
from tests.runtime.timed_nets import one_sentence

MORPHNET = (
    """(float[1,3,17,19] x) => (float[1,2,9,10] y, float[1,2,17,19] z) {
        a = Conv <auto_pad = "SAME_UPPER"> (x, w1)
        b = Conv (x, w2)
        c = Concat <axis = 1> (a, b)
        d = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (c, w3)
        e = Conv (c, w4)
        y = Conv (d, w5)
        z = Conv (e, w6)
    }""",
    "w1 13x3x7x5, w2 23x3x1x1, w3 29x36x3x3, w4 31x36x1x1, w5 2x29x1x1, w6 2x31x1x1",
)
GAMMAS = {
    "w1:0": [0.8] * 7 + [0.2] * 6,
    "w2:0": [-0.7] * 11 + [0.1] * 12,
    "w3:0": [0.6] * 10 + [-0.3] * 19,
    "w4:0": [-0.5] * 17 + [-0.4] * 14,
}
THRESHOLD = 0.45
# Node -> FLOPs, their regularization term, P100 nanoseconds, their term: constants of MorphNet's own tests.
GOLDEN = {
    "a": (474810, 461244.0, 51.054840, 49.596129),
    "b": (21318, 17248.2, 24.890711, 15.854645),
    "d": (291600, 595512.0, 45.540985, 51.543716),
    "e": (197676, 336372.2, 63.448086, 55.443169),
}
STEP = 1e-3


@pytest.fixture(scope="module")
def morphnet():
    """The net, which classes are alive, and the strengths of all."""
    analysis = slim.analyze(Net(*MORPHNET).build(), device=load("P100"))
    alive, strengths = np.ones(analysis.coupling.size), np.zeros(analysis.coupling.size)
    for name, gammas in GAMMAS.items():
        classes = [np.flatnonzero(analysis.coupling.column == unit) for unit in analysis.group(name).units]
        for own, gamma in zip(classes, np.abs(gammas), strict=True):
            strengths[own], alive[own] = gamma, gamma > THRESHOLD
    return analysis, alive, strengths


def test_costs_of_morphnet(morphnet):
    analysis, alive, _ = morphnet
    times, macs = analysis.latency.by_node(alive), analysis.costs["macs"].by_node(alive)
    for node, (flops, _, ns, _) in GOLDEN.items():
        assert round(2 * macs[node]) == flops
        assert math.isclose(1e3 * times[node], ns, rel_tol=1e-6)


def test_regularization_terms_of_morphnet(morphnet):
    """The term is the gradient along the strengths; products of two widths have exact central differences."""
    analysis, alive, strengths = morphnet
    ends = [alive + STEP * strengths, alive - STEP * strengths]
    for place, cost, scale in ((1, analysis.costs["macs"], 2.0), (3, analysis.latency, 1e3)):
        up, down = (cost.by_node(end) for end in ends)
        for node, golden in GOLDEN.items():
            assert math.isclose(scale * (up[node] - down[node]) / (2 * STEP), golden[place], rel_tol=1e-6)
        total = sum(up[node] - down[node] for node in up) / (2 * STEP)
        assert math.isclose(cost.gradient(alive) @ strengths, total, rel_tol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_gradient_is_the_finite_difference(name):
    analysis = analysed(name)
    cost = roofline(analysis.coupling, Device("any", 8, 4, node_us=2, run_us=5))
    rng = np.random.default_rng(0)
    alive = rng.uniform(0.5, 1, analysis.coupling.size)
    way = rng.normal(size=alive.shape)
    difference = (cost.value(alive + 1e-5 * way) - cost.value(alive - 1e-5 * way)) / 2e-5
    gradient = cost.gradient(alive)
    assert abs(difference - gradient @ way) <= 1e-4 * np.abs(gradient * way).sum() + 1e-7
    assert cost.value(alive) <= cost.value(np.ones_like(alive))


def test_a_net_by_hand():
    text = (
        "(float[4,3] x) => (float[4,5] y) { h = MatMul(x, w1) r = Relu(h) s = Reshape(r, [4, -1]) y = MatMul(s, w2) }"
    )
    analysis = slim.analyze(Net(text, "w1 3x8, w2 8x5").build())
    found = roofline(analysis.coupling, Device("slow to move", gflops=1, gbytes=0.001, node_us=2, run_us=7))
    bytes_moved = [4 * (12 + 24 + 32), 4 * (32 + 32), 4 * (32 + 40 + 20)]  # the Reshape moves nothing
    times = found.by_node(np.ones(analysis.coupling.size))
    assert times.pop("") == 7
    assert [t - 2 for t in times.values()] == pytest.approx(bytes_moved)
    found = roofline(analysis.coupling, Device("slow to compute", gflops=0.001, gbytes=1e9))
    work = [2 * 4 * 3 * 8, 0, 2 * 4 * 8 * 5]
    assert list(found.by_node(np.ones(analysis.coupling.size)).values()) == pytest.approx([0, *work], abs=1e-3)


def test_what_picks_reads_what_it_picks_and_the_places():
    text = "(float[4,3] x, int64[4] i) => (float[4,5] y) { t = Gather(table, i) h = Add(x, t) y = MatMul(h, w) }"
    analysis = slim.analyze(Net(text, "table 50x3, w 3x5").build())
    found = roofline(analysis.coupling, Device("slow to move", gflops=1, gbytes=0.001))
    bytes_moved = [4 * 12 + 8 * 4 + 4 * 12, 4 * (12 + 12 + 12), 4 * (12 + 15 + 20)]
    assert list(found.by_node(np.ones(analysis.coupling.size)).values()) == pytest.approx([0, *bytes_moved])


# --- files of devices -------------------------------------------------------------------------------------------------


def test_a_device_survives_its_file(tmp_path):
    device = Device('my "own"', 81.5, 12.25, 0.5, 3.0, {"Conv": 16}, {"provider": "CPU", "threads": 2})
    (tmp_path / "d.toml").write_text(device.to_toml())
    assert load(str(tmp_path / "d.toml")) == device
    (tmp_path / "short.toml").write_text("gflops = 100\ngbytes = 10\n")
    assert load(str(tmp_path / "short.toml")) == Device("short", 100, 10)
    assert load("V100") == Device("V100", 125000, 900)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gflops = 1", "gbytes"),
        ("gflops = 0\ngbytes = 1", "gflops"),
        ("gflops = true\ngbytes = 1", "gflops"),
        ("gflops = inf\ngbytes = 1", "gflops"),
        ("gflops = 1\ngbytes = 1\nnode_us = -1", "node_us"),
        ("gflops = 1\ngbytes = 1\nsteps = 3", "steps"),
        ("gflops = 1\ngbytes = 1\n[steps]\nConv = 0", "steps"),
        ("gflops = 1\ngbytes = 1\ncolour = 2", "colour"),
        ("gflops = ", "no TOML"),
    ],
)
def test_files_that_describe_no_device(tmp_path, text, words):
    (tmp_path / "d.toml").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        load(str(tmp_path / "d.toml"))
    assert one_sentence(error)
