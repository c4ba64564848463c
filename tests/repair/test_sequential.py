"""Repair of whole models: what can be undone exactly is, nothing gets worse, and only weights change."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nets.notation import Net
from onnxslim_learn.data.batch import Batch
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.data.signature import declared
from onnxslim_learn.errors import InputError
from onnxslim_learn.metrics import deviation, total
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.repair import linear_nodes, sequential, targets
from onnxslim_learn.repair.activations import Shares
from onnxslim_learn.repair.sequential import Beside, repair
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.runtime import executor, part
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim as api
from onnxslim_learn.workflow.samples import topped_up
from tests import laws
from tests.laws import ALL, PLANS, ZOO_CUT, analysed, draw_removal

EXACT = 2e-3  # ridge regressions stop a little short of the exact solution


def batches(analysis, count=8):
    """Draw random inputs."""
    sample = analysis.graph.shapes.analysis
    return [random_inputs(analysis.coupling, sample, seed) for seed in range(count)]


def redundant():
    """Build a net whose second half of channels repeats combinations of the first half."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((8, 8)) / 3
    w1 = rng.standard_normal((8, 3, 3, 3)) / 5
    w1 = np.concatenate([w1, np.einsum("ab,bcij->acij", mix, w1)])
    arrays = {"w1": w1, "w2": rng.standard_normal((6, 16, 3, 3)) / 12, "b2": rng.standard_normal(6)}
    text = """<ir_version: 8, opset_import: ["" : 17]> n (float[batch,3,12,12] x) => (float[batch,6,8,8] y) {
        h = Conv(x, w1)
        y = Conv(h, w2, b2)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items())
    return model


def test_what_the_kept_channels_can_tell_is_not_lost():
    analysis = api.analyze(redundant())
    cut = api.realize(analysis, Plan({"w1:0": list(range(8))}, {"w1:0": 16}))
    found = repair(cut, slim(cut), batches(analysis, 16))
    assert found.before["y"].relative > 0.1
    assert found.after["y"].relative < EXACT
    assert found.kept


def test_a_model_without_an_axis_of_samples_is_repaired_too():
    net = Net("(float[6] x) => (float[4] y) { h = MatMul(x, w1) y = MatMul(h, w2) }", "w1 6x12, w2 12x4")
    analysis = api.analyze(net.build())
    cut = api.realize(analysis, Plan({"w1:1": list(range(8))}, {"w1:1": 12}))
    found = repair(cut, slim(cut), batches(analysis, 40))
    assert found.before["y"].relative > 0.1
    assert found.after["y"].relative < EXACT


@pytest.mark.parametrize(("axis", "classes"), [(2, True), (-1, True), (1, False)])
def test_a_layer_whose_channels_are_classes_is_judged_by_their_shares(axis, classes):
    text = f"(float[n,5,6] x) => (float[n,5,9] y) {{ h = MatMul(x, w1) z = MatMul(h, w2) y = Softmax<axis={axis}>(z) }}"
    analysis = api.analyze(Net(text, "w1 6x12, w2 12x9").build())
    cut = api.realize(analysis, Plan({"w1:1": list(range(4))}, {"w1:1": 12}))
    model = slim(cut)
    walk = sequential.SequentialRepair(cut, model, targets.Stream(analysis.graph.model, batches(analysis, 16)))
    found = walk._open(walk.layers[-1], sequential.changed(cut, model))
    assert (found.activation == Shares()) == classes


def test_rows_that_go_are_not_fitted_on():
    """A layer over places has a row for every channel, of which some went; what it sees was cut, too, and refitted."""
    text = """(float[n,5,6] x) => (float[n,5,6] y) {
        h = MatMul(x, w0) c = MatMul(h, w1) r = Transpose<perm=[0, 2, 1]>(c) m = MatMul(r, mix)
        b = Transpose<perm=[0, 2, 1]>(m) y = MatMul(b, w2)
    }"""
    analysis = api.analyze(Net(text, "w0 6x12, w1 12x16, mix 5x5, w2 16x6").build())
    cut = api.realize(
        analysis, Plan({"w0:1": list(range(0, 12, 2)), "w1:1": list(range(1, 16, 2))}, {"w0:1": 12, "w1:1": 16})
    )
    found = repair(cut, slim(cut), batches(analysis, 16))
    assert found.after["y"].relative < EXACT < 0.1 < found.before["y"].relative
    assert analysis.graph.nodes[3].name in found.nodes


def test_rows_that_numbers_choose_are_not_fitted_on():
    """What is cut chooses other rows than the original."""
    text = """(float[n,6] x) => (float[k,4] y, float[n,3] z) {
        h = MatMul(x, w0) r = Relu(h) z = MatMul(r, w1) s = ReduceSum<keepdims=0>(z, [1]) o = Greater(s, {0.0})
        q = NonZero(o) p = Squeeze(q, [0]) c = Gather<axis=0>(r, p) y = MatMul(c, w2)
    }"""
    analysis = api.analyze(Net(text, "w0 6x12, w1 12x3, w2 12x4").build())
    cut = api.realize(analysis, Plan({"w0:1": list(range(4))}, {"w0:1": 12}))
    found = repair(cut, slim(cut), batches(analysis, 8))
    reasons = {one.name: one.reason for one in found.passed_over}
    assert reasons[str(analysis.graph.nodes[-1].name)].startswith("it has other rows than in the original")


@pytest.mark.parametrize("name", ZOO_CUT)
@PLANS
@given(st.data())
def test_held_back_samples_never_get_worse(name, data):
    analysis = analysed(name)
    cut = draw_removal(data.draw, analysis)
    model, plain = slim(cut), ir.to_proto(slim(cut))
    found = repair(cut, model, batches(analysis))
    assert total(found.after) <= total(found.before) or not found.kept
    repaired = ir.to_proto(model)
    assert [n.SerializeToString() for n in repaired.graph.node] == [n.SerializeToString() for n in plain.graph.node]
    tensors = {t.name: t for t in plain.graph.initializer}
    for tensor in repaired.graph.initializer:
        old = tensors.pop(tensor.name)
        assert (list(tensor.dims), tensor.data_type) == (list(old.dims), old.data_type)
        same = np.array_equal(onnx.numpy_helper.to_array(tensor), onnx.numpy_helper.to_array(old), equal_nan=False)
        assert same or tensor.name in found.weights, tensor.name
    assert not tensors
    assert weighted(analysis, model) <= found.nodes.keys() | {one.name for one in found.passed_over}
    assert all(one.reason for one in found.passed_over)


def weighted(analysis, model):
    """Return the names of the nodes that multiply by a weight and are left after a cut."""
    work = {str(analysis.graph.nodes[term.node].name) for term in analysis.coupling.records.terms}
    left = (n for n in model.graph if n.name in work)
    tables = ((n, [v for v in n.inputs[1:3] if v is not None and v.is_initializer()]) for n in left)
    return {str(n.name) for n, given in tables if any(len(v.const_value.shape) > 1 for v in given)}


REASONS = {
    "before": "output unchanged but for what was cut",
    "computed": "its weight is computed",
    "quantized": "its weight is quantized",
    "one": "its weight is used in several places",
    "two": "its weight is used in several places",
    "turned": "its weight is the first factor",
    "equation": "it is written as an equation",
    "cell": "it is recurrent, so not linear in its weights",
    "inside": "it lies inside the body of choice",
}


def test_every_layer_passed_over_is_told_with_why():
    text = """<ir_version: 8, opset_import: ["" : 17]>
    n (float[batch,6] x) => (float[batch,4] y, float[batch,4] z) {
        [before] h = MatMul(x, w1)
        [refitted] a = MatMul(h, w2)
        [sine] s = Sin(w3)
        [computed] b = MatMul(a, s)
        [bytes] q = DequantizeLinear(w4, scale)
        [quantized] d = MatMul(b, q)
        [one] e = MatMul(d, w5)
        [two] f = MatMul(e, w5)
        [flip] p = Transpose(f)
        [turned] o = MatMul(w9, p)
        [back] k = Transpose(o)
        [equation] g = Einsum<equation="bi,io->bo">(k, w6)
        [steps] t = Unsqueeze(g, axis)
        [cell] r, last = RNN<hidden_size=4>(t, w7, r7)
        [total] total = ReduceSum<keepdims=0>(g)
        [positive] c = Greater(total, zero)
        [choice] y = If (c) <
            then_branch = yes () => (float[batch,4] v) { [inside] v = MatMul(g, w8) },
            else_branch = no () => (float[batch,4] u) { u = Identity(g) }>
        [squeeze] z = Squeeze(last, axis)
    }"""
    shapes = {"w1": (6, 8), "w2": (8, 4), "w3": (4, 4), "w5": (4, 4), "w6": (4, 4), "w7": (1, 4, 4), "r7": (1, 4, 4)}
    rng, model = np.random.default_rng(0), onnx.parser.parse_model(text)
    arrays = {n: rng.standard_normal(s).astype(np.float32) for n, s in (shapes | {"w8": (4, 4), "w9": (4, 4)}).items()}
    arrays |= {
        "w4": rng.integers(-9, 9, (4, 4)).astype(np.int8),
        "scale": np.float32(0.1),
        "axis": np.zeros(1, np.int64),
        "zero": np.float32(0),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items())
    analysis = api.analyze(model)
    cut = api.realize(analysis, Plan({"w1:1": [0, 1, 2, 3]}, {"w1:1": 8}))
    found = repair(cut, slim(cut), batches(analysis, 16))
    assert set(found.nodes) == {"refitted"}
    assert {one.name: one.reason for one in found.passed_over} == REASONS


@pytest.mark.parametrize("name", ["residual", "depthwise", "squeeze_excite", "attention", "conv_transpose", "grouped"])
def test_deviations_are_those_of_the_written_model(name):
    analysis = analysed(name)
    group = laws.free(analysis)[0]
    cut = laws.close(analysis, laws.units(group, max(1, group.levels // 2), np.random.default_rng(0)))
    model, feeds = slim(cut), batches(analysis)
    found = repair(cut, model, feeds)
    held = feeds[3::4]
    for model_, told in ((ir.to_proto(slim(cut)), found.before), (ir.to_proto(model), found.after)):
        outputs = [
            {k: np.concatenate([laws.run(m, feed)[k] for feed in held]) for k in told}
            for m in (ir.to_proto(analysis.graph.model), model_)
        ]
        again = deviation(*outputs)
        assert all(np.isclose(again[k].relative, told[k].relative, rtol=1e-3, atol=1e-5) for k in told)


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_limits_of_memory_do_not_change_what_comes_out(name, monkeypatch):
    """All activations on disk, all weights given as inputs, a node at a time and few rows: the same to rounding."""
    analysis = analysed(name)
    group = laws.free(analysis)[0]
    cut = laws.close(analysis, laws.units(group, max(1, group.levels // 2), np.random.default_rng(0)))
    plenty = repair(cut, slim(cut), batches(analysis, 16))
    limits = ((executor, "IN_MEMORY"), (executor, "WEIGHTS"), (part, "FED"), (linear_nodes, "FED"), (targets, "AHEAD"))
    for module, limit in limits:
        monkeypatch.setattr(module, limit, 0)
    monkeypatch.setattr(sequential, "PORTION", 100)
    model = slim(cut)
    scarce = repair(cut, model, batches(analysis, 16))
    assert any(isinstance(model.graph.initializers[n].const_value.numpy(), np.memmap) for n in scarce.weights)
    assert [fit.method for fit in scarce.nodes.values()] == [fit.method for fit in plenty.nodes.values()]
    for output, told in plenty.after.items():
        assert np.isclose(scarce.after[output].relative, told.relative, rtol=1e-3, atol=1e-5)


def test_outputs_too_many_to_compare_are_judged_by_fewer_samples(monkeypatch):
    analysis = analysed("residual")
    group = laws.free(analysis)[0]
    cut = laws.close(analysis, laws.units(group, max(1, group.levels // 2), np.random.default_rng(0)))
    feeds = batches(analysis, 16)
    monkeypatch.setattr(sequential, "COMPARED", 0)
    found = repair(cut, slim(cut), feeds)
    sides = [laws.run(ir.to_proto(m), feeds[3]) for m in (analysis.graph.model, slim(cut))]
    told = deviation(*sides)
    assert all(np.isclose(told[k].relative, found.before[k].relative, rtol=1e-3, atol=1e-5) for k in found.before)


@pytest.mark.parametrize("count", [8, 10, 15, 30, 100, 1000])
def test_samples_are_divided_so_that_more_than_one_batch_judges_and_most_are_fitted_on(count):
    given = [Batch({"x": np.arange(count)[:, None]}, None, count)]
    small = sequential.in_small_batches(given, declared(api.analyze(redundant()).graph))
    fitted, held = (np.concatenate([small[k].inputs["x"] for k in part]) for part in targets.divide(len(small)))
    assert len(targets.divide(len(small))[1]) > 1
    assert count / 8 < len(held) < count / 3
    assert sorted(np.concatenate([fitted, held])[:, 0]) == list(range(count))


def test_nothing_cut_changes_nothing():
    analysis = analysed("residual")
    model = slim(analysis.whole)
    found = repair(analysis.whole, model, batches(analysis))
    assert found.weights == ()
    assert found.nodes == {}


@pytest.fixture
def repaired(tmp_path):
    """A repaired net on disk, with its analysis and plan."""
    onnx.save(ALL["residual"].build(), tmp_path / "m.onnx")
    analysis = api.analyze(tmp_path / "m.onnx")
    slimmed = api.slim(analysis, api.plan(analysis, {"macs": 0.6}))
    feeds = batches(analysis)
    data = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    slimmed.repair(Calibration(analysis.coupling, open_source(data, analysis.graph)))
    slimmed.save(tmp_path / "s.onnx")
    return tmp_path / "s.onnx", analysis, slimmed


def test_a_repaired_file_is_verified_by_its_plan(repaired):
    path, analysis, slimmed = repaired
    assert slimmed.repaired.weights
    plan = Plan.from_json(slimmed.plan.to_json())
    assert api.verify(analysis, path, plan).passed
    assert not api.verify(analysis, path, Plan(plan.groups, plan.widths)).passed
    onnx.checker.check_model(str(path))


def test_a_weight_that_was_not_repaired_must_be_as_it_was(repaired):
    path, analysis, slimmed = repaired
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name not in slimmed.repaired.weights and len(t.dims) > 1)
    tensor.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, path)
    assert not api.verify(analysis, path, slimmed.plan).passed


def test_a_repaired_weight_of_another_shape_is_refused(repaired):
    path, analysis, slimmed = repaired
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name in slimmed.repaired.weights)
    array = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.concatenate([array, array]), tensor.name))
    onnx.save(model, path)
    with pytest.raises(InputError, match=tensor.name):
        api.verify(analysis, path, slimmed.plan)


def classifier():
    rng = np.random.default_rng(0)
    arrays = {"w1": rng.standard_normal((6, 12)), "w2": rng.standard_normal((12, 4))}
    text = """<ir_version: 8, opset_import: ["" : 17]> n (float[batch,6] x) => (float[batch,4] y) {
        h = MatMul(x, w1)
        r = Relu(h)
        y = MatMul(r, w2)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items())
    return model


def test_accuracy_is_told_where_there_are_labels():
    """Labels that are the original's own classes: its accuracy is one, that of the others their agreement with it."""
    model, rng = classifier(), np.random.default_rng(1)
    inputs = rng.standard_normal((64, 6)).astype(np.float32)
    classes = laws.run(model, {"x": inputs})["y"].argmax(axis=1)
    analysis = api.analyze(model)
    slimmed = api.slim(analysis, Plan({"w1:1": [0, 1, 2]}, {"w1:1": 12}))
    found = slimmed.repair(
        Calibration(analysis.coupling, open_source({"x": inputs, "labels": classes}, analysis.graph))
    )
    assert found.accuracy == (1.0, found.before["y"].agreement, found.after["y"].agreement)
    assert found.accuracy[1] < 1
    plain = slimmed.repair(Calibration(analysis.coupling, open_source({"x": inputs}, analysis.graph)))
    assert plain.accuracy is None
    assert plain.after == found.after


def test_made_up_samples_beside_real_ones_are_fitted_on_and_judge_nothing():
    """The figures without repair are those of the real samples alone; the weights change."""
    analysis = api.analyze(redundant())
    cut = api.realize(analysis, Plan({"w1:0": list(range(6))}, {"w1:0": 16}))
    real, more = batches(analysis, 8), [{"x": 3 * feed["x"] + 1} for feed in batches(analysis, 12)[8:]]
    alone, beside = (repair(cut, slim(cut), real, beside=Beside(more=extra)) for extra in ((), more))
    assert beside.before == alone.before
    assert beside.samples == alone.samples
    assert beside.after != alone.after


def test_few_real_samples_are_topped_up_in_their_range():
    analysis = api.analyze(redundant())
    drawn = np.random.default_rng(0).random((200, 3, 12, 12)).astype(np.float32)
    for count, added in ((40, 216), (200, 0)):
        data = drawn[:count]
        calibration = topped_up(
            Calibration(analysis.coupling, open_source({"x": data}, analysis.graph)), DataSettings()
        )
        made = [feed["x"] for feed in calibration.more]
        assert sum(map(len, made)) == added
        assert all(data.min() <= x.min() and x.max() <= data.max() for x in made)
        assert sum(len(feed["x"]) for feed in calibration.held.feeds) <= count // 4 + 4
