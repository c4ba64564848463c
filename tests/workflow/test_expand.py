"""A wider model computes what it did, costs what was counted, and is as wide as its budget allows."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from nets.fused import plain
from nets.zoo import NETS as ZOO
from onnxslim_learn.costs import devices
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.graph.stored_types import as_stored
from onnxslim_learn.runtime.timing import Ratio
from onnxslim_learn.workflow import slim
from onnxslim_learn.workflow import widen as widening
from onnxslim_learn.workflow.expand import Widening, expand
from onnxslim_learn.workflow.latency_target import LEAST, Stopwatch
from tests.laws import NETS, analysed, analysis_inputs, normal, run

GROWING = {name for name in ZOO if widening.growable(analysed(name), analysed(name).groups)}


def test_most_kinds_of_nets_grow():
    assert {"residual", "concat", "depthwise", "squeeze_excite", "unet", "conv_transpose", "dense"} <= GROWING


@pytest.mark.parametrize("name", [name for name in NETS if plain(name) in GROWING])
@pytest.mark.parametrize("factor", [1.3, 2.5])
def test_a_wider_net_computes_what_it_did(name, factor):
    analysis = analysed(name)
    groups = widening.growable(analysis, analysis.groups)
    growth = widening.widen(analysis, groups, factor)
    assert growth.grows
    model = ir.to_proto(as_stored(widening.expand(growth)))
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    feeds = analysis_inputs(analysis)
    wanted, found = run(normal(analysis), feeds), run(model, feeds)
    for output, a in wanted.items():
        tolerance = 1e-2 if a.dtype == np.float16 else 1e-4
        np.testing.assert_allclose(found[output], a, rtol=0, atol=tolerance * max(np.abs(a).max(), 1e-12))
    after = slim.analyze(model, inputs=analysis.graph.shapes.nominal.inputs)
    copies = growth.copies.astype(float)
    counted = {cost: round(value.value(copies)) for cost, value in analysis.costs.items()}
    assert after.price(after.whole) == counted


def test_copies_do_not_learn_the_same():
    """Outgoing weights of copies differ, so that their gradients do."""
    analysis = analysed("residual")
    growth = widening.widen(analysis, widening.growable(analysis, analysis.groups), 2.0)
    model = widening.expand(growth)
    layout, before = analysis.coupling.values["w2"], analysis.graph.initializers["w2"].const_value.numpy()
    after = model.graph.initializers["w2"].const_value.numpy()
    outputs, inputs = (growth.places(layout, axis) for axis in (0, 1))
    first, second = np.flatnonzero(inputs == 0)
    np.testing.assert_allclose(after[:, first] + after[:, second], before[outputs, 0], atol=1e-6)
    assert not np.allclose(after[:, first], after[:, second])


@pytest.mark.parametrize("multiple", [1, 4])
def test_it_is_as_wide_as_its_budget_allows(tmp_path, multiple):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    analysis = slim.analyze(tmp_path / "net.onnx")
    before = analysis.price(analysis.whole)["macs"]
    budget = 2.2 * before
    made = expand(analysis, Widening({"macs": budget}, multiple=multiple), tmp_path / "wide.onnx")
    assert made.verification.passed
    written = slim.analyze(load(tmp_path / "wide.onnx").source)
    assert written.price(written.whole) == made.after
    assert before < made.after["macs"] <= budget
    assert all(after % multiple == 0 or after == width for width, after in made.widths.values())
    groups = widening.growable(analysis, analysis.groups)
    wider = [
        factor
        for factor in np.linspace(made.factor * 1.0001, made.factor * 1.5, 200)
        if (growth := widening.widen(analysis, groups, factor, multiple=multiple)).copies.tolist()
        != widening.widen(analysis, groups, made.factor, multiple=multiple).copies.tolist()
        and analysis.costs["macs"].value(growth.copies.astype(float)) <= budget
    ]
    assert not wider


def test_a_budget_may_be_another_models(tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    whole = slim.analyze(tmp_path / "net.onnx")
    slim.slim_to(whole, {"macs": 0.5}, tmp_path / "small.onnx", repair=False)
    small = slim.analyze(tmp_path / "small.onnx")
    made = expand(small, Widening({"macs": 1.0}, like=whole), tmp_path / "wide.onnx")
    total = whole.price(whole.whole)["macs"]
    assert 0.8 * total < made.after["macs"] <= total


def test_a_latency_that_is_estimated_is_that_of_the_file(tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    whole = slim.analyze(tmp_path / "net.onnx", device=devices.load("K80"))
    total = whole.latency.value(np.ones(whole.coupling.size))
    made = expand(whole, Widening({"latency": f"{(3 * total + 1) / 1e3}ms"}), tmp_path / "wide.onnx")
    wide = slim.analyze(tmp_path / "wide.onnx", device=devices.load("K80"))
    assert 1e3 * made.latency.after_ms == pytest.approx(wide.latency.value(np.ones(wide.coupling.size)))
    assert (1e3 * made.latency.before_ms, made.latency.measured) == (pytest.approx(total), False)
    assert 2.5 * total < 1e3 * made.latency.after_ms <= 3 * total + 1


def made_up_clock(net):
    """Files take what no roofline predicts: the 0.7th power of their MACs."""

    def cost(path):
        found = slim.analyze(path)
        return found.price(found.whole)["macs"] ** 0.7

    return Stopwatch(500.0, lambda path: Ratio(cost(path) / cost(net), 0.0, 9.0))


@pytest.mark.parametrize("wish", [1.1, 3.0])
def test_a_latency_that_is_measured_is_met_from_below(tmp_path, wish):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    analysis, clock = (
        slim.analyze(tmp_path / "net.onnx", device=devices.load("K80")),
        made_up_clock(tmp_path / "net.onnx"),
    )
    made = expand(analysis, Widening({"latency": wish}, watch=clock), tmp_path / "wide.onnx")
    assert made.latency.measured
    assert 1e3 * made.latency.after_ms == pytest.approx(clock.time(tmp_path / "wide.onnx"))
    assert LEAST * wish <= made.latency.after_ms <= wish


def test_measured_latency_without_room_says_so(tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    analysis, clock = (
        slim.analyze(tmp_path / "net.onnx", device=devices.load("K80")),
        made_up_clock(tmp_path / "net.onnx"),
    )
    with pytest.raises(TargetError, match=r"takes 0.5 ms of 0.3 ms"):
        expand(analysis, Widening({"latency": "0.3ms"}, watch=clock), tmp_path / "wide.onnx")
    assert not (tmp_path / "wide.onnx").exists()


def test_what_cannot_be_is_refused(tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    analysis = slim.analyze(tmp_path / "net.onnx")
    with pytest.raises(TargetError, match="leaves no room to grow"):
        expand(analysis, Widening({"macs": 1.0}), tmp_path / "wide.onnx")
    with pytest.raises(InputError, match="no group of channels can grow"):
        expand(analysis, Widening({"macs": 1e9}, protect=["."]), tmp_path / "wide.onnx")
    assert not (tmp_path / "wide.onnx").exists()
