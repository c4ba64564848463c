"""Fitted latency never falls with width, finds what it was measured on, and its gradient is the finite difference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.costs.devices import Device
from onnxslim_learn.costs.roofline import roofline
from onnxslim_learn.latency.fitted import Knots, fit, fitted
from onnxslim_learn.latency.fragments import fragments, key
from tests import laws
from tests.laws import ALL, PLANS, analysed, draw_removal

DEVICE = Device("any", 8, 4, node_us=2, run_us=5)
NETS = ["residual", "concat", "depthwise", "attention", "grouped", "bottleneck"]
ROOF = (2.5e-4, 2.5e-4, 2.0)


@given(st.lists(st.tuples(*[st.floats(1, 1e6)] * 3), min_size=1, max_size=12))
def test_curves_rise(points):
    curve = fit(np.array(points), ROOF)
    assert (np.diff(curve.work) > 0).all()
    assert (np.diff(curve.us) >= 0).all()
    works = np.linspace(0, 2 * curve.work[-1], 50)
    beside = fit(np.array(points[:1]), ROOF)
    times = [Knots([beside, curve]).times(np.array([0.0, w]))[1] for w in works]
    assert (np.diff(times) >= -1e-9).all()
    assert times == pytest.approx(np.interp(works, np.append(0, curve.work), np.append(0, curve.us)).tolist())
    assert min(p[2] for p in points) * (1 - 1e-9) <= curve.us[0]
    assert curve.us[-1] <= max(p[2] for p in points) * (1 + 1e-9)


def test_times_that_follow_from_work_are_found_exactly():
    rng = np.random.default_rng(0)
    amounts = rng.uniform(1, 1e6, (12, 2))
    times = amounts @ [3e-4, 2e-3] + 7
    curve = fit(np.column_stack([amounts, times]), ROOF)
    assert curve.weights == pytest.approx((3e-4, 2e-3, 7), rel=1e-6)
    for amount, time in zip(amounts, times, strict=True):
        work = amount @ curve.weights[:2] + curve.weights[2]
        assert Knots([curve]).times(np.array([work]))[0] == pytest.approx(time, rel=1e-6)


def measured(analysis):
    """A model fitted to times that are the roofline's, some way off."""
    roof, parts, rng = roofline(analysis.coupling, DEVICE), fragments(analysis.coupling), np.random.default_rng(0)
    alives = [np.ones(analysis.coupling.size), *rng.uniform(0.3, 1, (5, analysis.coupling.size))]
    names = [str(node.name) for node in analysis.graph.nodes]
    points = {}
    for place, part in enumerate(parts):
        by_node = [roof.by_node(alive) for alive in alives]
        points[place] = [
            (alive, rng.uniform(0.9, 1.1) * sum(found.get(names[i], 0.0) for i in part.nodes) + 1)
            for alive, found in zip(alives, by_node, strict=True)
        ]
    return fitted(roof, parts, points, 1000.0)


@pytest.mark.parametrize("name", NETS)
def test_the_original_takes_what_it_was_measured_to_take(name):
    analysis = analysed(name)
    model = measured(analysis)
    assert model.value(np.ones(analysis.coupling.size)) == pytest.approx(1000)
    alive = np.random.default_rng(1).uniform(0.4, 1, analysis.coupling.size)
    assert sum(model.by_node(alive).values()) == pytest.approx(model.value(alive))
    assert model.corrected(alive, 0.98 * model.value(alive)).value(alive) == pytest.approx(0.98 * model.value(alive))


@pytest.mark.parametrize("name", NETS)
def test_gradient_is_the_finite_difference(name):
    analysis = analysed(name)
    model, rng = measured(analysis), np.random.default_rng(2)
    alive, way = rng.uniform(0.5, 1, (2, analysis.coupling.size))
    difference = (model.value(alive) - model.value(alive - 1e-6 * way)) / 1e-6
    assert difference == pytest.approx(model.gradient(alive) @ way, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_what_was_never_measured_takes_what_the_roofline_says(name):
    analysis = analysed(name)
    roof, parts = roofline(analysis.coupling, DEVICE), fragments(analysis.coupling)
    model = fitted(roof, parts, {}, 1000.0)
    whole = np.ones(analysis.coupling.size)
    amounts = model.amounts(whole)
    assert amounts[:, 0].sum() == pytest.approx(analysis.costs["macs"].value(whole))
    assert model.by_fragment(whole) == pytest.approx(amounts @ [2e-3 / 8, 1e-3 / 4, 2])
    assert model.value(0.5 * whole) < 1000


# --- fragments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_node_is_in_one_fragment_and_no_path_returns(name):
    coupling = analysed(name).coupling
    parts = fragments(coupling)
    owner = {index: place for place, part in enumerate(parts) for index in part.nodes}
    assert sorted(owner) == list(range(len(coupling.nodes)))
    heads = [owner[term.node] for term in coupling.records.terms]
    assert len({term.node for term in coupling.records.terms}) == len(set(heads)), "one contraction each"
    makers = {value: index for index, node in enumerate(coupling.nodes) for value in node.outputs}
    for index, node in enumerate(coupling.nodes):
        for value in node.inputs:
            if value in makers:
                assert owner[makers[value]] <= owner[index]


@pytest.mark.parametrize("name", NETS)
@PLANS
@given(st.data())
def test_keys_are_alike_exactly_where_shapes_are(name, data):
    """The key under a plan is that of the same fragment in the file written, read anew."""
    from onnxslim_learn.workflow import slim

    analysis = analysed(name)
    removal = draw_removal(data.draw, analysis)
    again = slim.analyze(laws.written(analysis, removal), inputs=analysis.graph.shapes.nominal.inputs)
    here = [key(part, removal) for part in fragments(analysis.coupling)]
    there = [key(part, again.whole) for part in fragments(again.coupling)]
    assert here == there
    whole = [key(part, analysis.whole) for part in fragments(analysis.coupling)]
    assert (here == whole) == (not removal.gone.any())
