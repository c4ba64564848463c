"""Similar units stand for each other: copies change nothing, clusters lose what sums of squares say, plans replay."""

import itertools
import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from nets.notation import Net
from nets.zoo import NETS
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.data.open import open_source
from onnxslim_learn.errors import PlanError
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.rewrite import merge
from onnxslim_learn.rewrite.merge import inherited, merged
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.select import folding
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim as api
from tests import laws
from tests.laws import ALL, CUT, ZOO_CUT, analysed

REFUSED = {
    "attention": ("wq:1", "node raw (MatMul) sums over it without weights"),
    "attention_dynamic": ("wq:1/4", "node raw (MatMul) sums over it without weights"),
    "lstm": ("w0:1", "node a (LSTM) sums over it without weights"),
    "quantized": ("q1:0", "q1 is not of floating-point numbers"),
    "conv_transpose": ("w3:0", "w3 has its groups and what they sum over on one axis"),
}
MERGED = ["residual", "depthwise", "concat", "flatten_gemm", "swiglu", "squeeze_excite", "grouped"]


def mergeable(analysis):
    return [g for g in laws.free(analysis) if g.levels > 1 and not merge.refusal(analysis.coupling, g)]


def halves(group):
    """Heirs: the first half of every stratum goes into the second."""
    merged_into = np.arange(group.width)
    for part in group.strata:
        half = len(part) // group.levels * (group.levels // 2)
        merged_into[part[:half]] = part[len(part) - half :]
    return merged_into


def halving(analysis, groups):
    """The removal of half of each group, merged into the other half; groups that cannot go with the others are left."""
    coupling, chosen = analysis.coupling, []
    columns = np.zeros(0, np.int64)
    for group in groups:
        wider = np.concatenate([columns, group.units[halves(group) != np.arange(group.width)]])
        if laws.valid(laws.close(analysis, wider)):
            columns, chosen = wider, [*chosen, group]
    gone = laws.close(analysis, columns).gone
    merged_into = merge.by_class(coupling, chosen, {g.name: halves(g) for g in chosen})
    return Removal(coupling, gone, inherited(merged_into, gone))


def with_copies(analysis, removal):
    """The original in which what makes a unit is copied from the one that stands for it; consumers are as they were."""
    coupling, model = removal.coupling, laws.normal(analysis)
    for tensor in model.graph.initializer:
        layout, array = coupling.values.get(tensor.name), onnx.numpy_helper.to_array(tensor)
        if layout is None or (array.dtype.kind not in "f" and array.dtype.itemsize > 1):  # sizes, or places
            continue
        keys = [d.key for d in layout.digits.values()]
        view = array.reshape([d.size for d in layout.digits.values()]).copy()
        for axis, digit in ((a, d) for a, own in enumerate(layout.axes) for d in own if d.labels is not None):
            if axis in coupling.summed.get(tensor.name, ()):
                continue
            own = [keys.index(k) for k in (*digit.deps, digit.key)]
            front = np.moveaxis(view, own, range(len(own)))
            at = [tuple(i) for i in np.argwhere(digit.labels > 0)]
            classes = [int(coupling.strong[digit.labels[i]]) for i in at]
            places = {(c, classes[:k].count(c)): i for k, (c, i) in enumerate(zip(classes, at, strict=True))}
            for (c, turn), i in places.items():
                heir = int(removal.merged_into[c])
                if heir != c and (heir, turn) in places:
                    front[i] = front[places[heir, turn]]
        tensor.CopyFrom(onnx.numpy_helper.from_array(view.reshape(array.shape), tensor.name))
    return model


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CUT)
def test_copies_fold_to_half_the_width_and_outputs_stay(name):
    """Every group by itself: residual streams, depthwise, concatenations, normalisations, heads, rows and strata."""
    analysis = analysed(name)
    for group in mergeable(analysis):
        assert_folds(analysis, [group])


@pytest.mark.parametrize("name", ZOO_CUT)
def test_copies_in_all_groups_fold_together(name):
    analysis = analysed(name)
    together = [g for g in mergeable(analysis) if not g.rows]
    assert_folds(analysis, together)


def assert_folds(analysis, groups):
    removal = halving(analysis, groups)
    if not removal.gone.any():
        return
    doubled = api.analyze(with_copies(analysis, removal))
    cut = slim(Removal(doubled.coupling, removal.gone, removal.merged_into))
    small, whole = ir.to_proto(cut), laws.normal(doubled)
    feed = laws.input_sets(whole)[0]
    wanted, found = laws.run(whole, feed), laws.run(small, feed)
    for output, value in wanted.items():
        laws.assert_close(np.nan_to_num(found[output]), np.nan_to_num(value), (groups, output))


@pytest.mark.parametrize("name", MERGED)
def test_clusters_find_the_copies_by_themselves(name):
    """Half of the units of one group are copies, in random places: what stays for half of them is one of each pair."""
    analysis = analysed(name)
    for group in mergeable(analysis)[:2]:
        removal = halving(analysis, [group])
        doubled = api.analyze(with_copies(analysis, removal))
        twin = doubled.group(group.name)
        merged_into, found = halves(group), folding.clusters(doubled, [twin])
        order = np.argsort(-found.scores[twin.units], kind="stable")
        assert not found.refused
        for part in group.strata:
            ranked = [u for u in order if u in part]
            gone = ranked[len(part) - int((merged_into[part] != part).sum()) :]
            pairs = {frozenset((u, int(found.merged_into[group.name][u]))) for u in gone}
            assert pairs == {frozenset((int(u), int(merged_into[u]))) for u in part if merged_into[u] != u}


# --- clusters ---------------------------------------------------------------------------------------------------------


def spread(vectors, mass, members):
    """Sum of weighted squared distances to the weighted mean of some vectors."""
    own = vectors[members] - np.average(vectors[members], axis=0, weights=mass[members])
    return float((mass[members] * (own**2).sum(axis=1)).sum())


@pytest.mark.parametrize("seed", range(5))
def test_losses_are_the_sums_of_squares_within_clusters(seed):
    rng = np.random.default_rng(seed)
    vectors, mass = rng.normal(size=(9, 4)), rng.uniform(0.2, 3, 9)
    order, losses, into = folding.agglomerate(vectors, mass)
    assert sorted(order) == list(range(9))
    groups = {k: [k] for k in range(9)}
    for unit, loss in zip(order[:-1], losses[:-1], strict=True):
        pairs = itertools.combinations(groups, 2)
        rises = {p: spread(vectors, mass, groups[p[0]] + groups[p[1]]) for p in pairs}
        rises = {p: v - sum(spread(vectors, mass, groups[k]) for k in p) for p, v in rises.items()}
        best = min(rises, key=rises.get)
        assert {int(unit), int(into[unit])} == set(best)
        groups[into[unit]] += groups.pop(unit)
        assert np.isclose(loss, sum(spread(vectors, mass, own) for own in groups.values()), rtol=1e-9)
    assert losses[-1] > losses[-2]
    assert into[order[-1]] == order[-1]


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MERGED)
def test_units_that_stand_for_themselves_keep_their_weights(name):
    analysis = analysed(name)
    whole = analysis.whole
    same = merged(replace(whole, merged_into=np.arange(analysis.coupling.size)))
    for key, value in analysis.graph.initializers.items():
        assert np.array_equal(same.graph.initializers[key].const_value.numpy(), value.const_value.numpy())


@pytest.mark.parametrize("seed", range(3))
def test_variance_is_that_of_the_members_under_white_inputs(seed):
    """Against the formula: sqrt(n / (1 + (n - 1) r)) for slices of one length, of which r is the mean cosine."""
    rng = np.random.default_rng(seed)
    model = NETS["flatten_gemm"].build()
    analysis = api.analyze(model)
    group = mergeable(analysis)[0]
    weight, axis = group.members[0].split(":")
    rows = np.moveaxis(analysis.graph.initializers[weight].const_value.numpy(), int(axis), 0)
    rows = rng.normal(size=rows.shape[1:]) + 0.8 * rng.normal(size=rows.shape)
    rows /= np.sqrt((rows.reshape(group.width, -1) ** 2).sum(axis=1)).reshape(-1, *[1] * (rows.ndim - 1))
    (tensor,) = [t for t in model.graph.initializer if t.name == weight]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.moveaxis(rows, 0, int(axis)).astype(np.float32), weight))
    analysis = api.analyze(model)
    kept, members = 0, [0, 1, 2, 3]
    plan = cut_by_hand(analysis, group, [[kept, *members[1:]]])
    made = slim(api.realize(analysis, plan)).graph.initializers[weight].const_value.numpy()
    flat = rows.reshape(group.width, -1)[members]
    cosines = flat @ flat.T
    r, n = (cosines.sum() - 4) / 12, 4
    wanted = flat.mean(axis=0) * np.sqrt(n / (1 + (n - 1) * r))
    assert np.allclose(np.moveaxis(made, int(axis), 0)[kept].reshape(-1), wanted, rtol=1e-4, atol=1e-6)


def test_merged_units_have_the_mean_of_the_members_after_a_normalisation():
    """A gain comes after the stored mean was subtracted: at the mean, shifts are all there is."""
    rng = np.random.default_rng(0)
    at, w, v = rng.normal(2, 1, (1, 6, 1, 1)), rng.normal(size=(8, 6, 1, 1)), rng.normal(size=(3, 8, 1, 1))
    scale, shift, mean = rng.uniform(0.5, 2, 8), rng.normal(size=8), (w * at).sum(axis=(1, 2, 3))
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 17]>
        net (float[1, 6, 1, 1] x) => (float[1, 3, 1, 1] y) {
            h = Conv(x, w) n = BatchNormalization(h, scale, shift, mean, variance) r = Relu(n) y = Conv(r, v) }""")
    weights = {"w": w, "v": v, "scale": scale, "shift": shift, "mean": mean, "variance": np.ones(8)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items()
    )
    analysis = api.analyze(model)
    plan = cut_by_hand(analysis, analysis.group("w:0"), [[0, 1, 2, 3]])
    small = ir.to_proto(slim(api.realize(analysis, plan)))
    after = laws.run(laws.exposed(small), {"x": at.astype(np.float32)})["n"].reshape(-1)
    assert after == pytest.approx([shift[:4].mean(), *shift[4:]], abs=1e-5)


def cut_by_hand(analysis, group, clusters):
    """A plan that merges some units of one group."""
    gone = [u for own in clusters for u in own[1:]]
    kept = [u for u in range(group.width) if u not in gone]
    return Plan({group.name: kept}, {group.name: group.width}, merged={group.name: clusters})


# --- the work flow ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MERGED)
def test_a_plan_replays_and_is_verified(name, tmp_path):
    onnx.save(ALL[name].build(), tmp_path / "net.onnx")
    analysis = api.analyze(tmp_path / "net.onnx")
    slimmed, check = api.slim_to(analysis, {"macs": 0.6}, tmp_path / "slim.onnx", criterion="folding")
    assert check.passed
    assert slimmed.plan.merged
    again = Plan.from_json(slimmed.plan.to_json())
    assert again == slimmed.plan
    assert np.array_equal(api.realize(analysis, again).merged_into, slimmed.removal.merged_into)
    api.slim(analysis, again).save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "slim.onnx").read_bytes()
    assert api.verify(analysis, tmp_path / "slim.onnx", again).passed
    assert not api.verify(analysis, tmp_path / "slim.onnx", replace(again, merged={})).passed  # as if it were dropped


@pytest.mark.parametrize(
    ("clusters", "words"),
    [([[1, 2]], "must list a kept unit"), ([[0, 3]], "must list a kept unit"), ([[0, 99]], "must list a kept unit")],
)
def test_an_edited_plan_is_refused(clusters, words):
    analysis = analysed("residual")
    group = mergeable(analysis)[0]
    plan = cut_by_hand(analysis, group, [[0, 1]])
    assert api.realize(analysis, plan).merged_into is not None
    with pytest.raises(PlanError, match=words):
        api.realize(analysis, replace(plan, merged={group.name: clusters}))


@pytest.mark.parametrize("found", [3, {"a": 3}, {"a": [3]}, {"a": [[]]}, {"a": [["b"]]}])
def test_a_plan_of_another_form_is_refused(found):
    text = json.loads(Plan({}, {}).to_json())
    with pytest.raises(PlanError, match="merged"):
        Plan.from_json(json.dumps({**text, "merged": found}))


@pytest.mark.parametrize("name", REFUSED)
def test_units_that_cannot_stand_for_each_other_are_dropped_and_said_why(name):
    analysis, (group, why) = analysed(name), REFUSED[name]
    found = folding.clusters(analysis, analysis.groups)
    assert found.refused[group] == why
    assert group not in found.merged_into
    plan = Plan({group: [0]}, {group: analysis.group(group).width}, merged={group: [[0, 1]]})
    with pytest.raises(PlanError, match=r"merged|rows|equal"):
        api.realize(analysis, plan)


def test_units_fold_beside_sums_without_weights_over_others_and_over_what_stays():
    text = """(float[2,4,6] x) => (float[2,4,3] y) {
        h = MatMul(x, w1) r = Relu(h) v = MatMul(r, w2)
        a = MatMul(x, w3) c = Concat<axis=2>(a, x) t = Transpose<perm=[0,2,1]>(c) s = MatMul(c, t) y = MatMul(s, v)
    }"""
    analysis = api.analyze(Net(text, "w1 6x8, w2 8x3, w3 6x5").build())
    assert [group.name for group in mergeable(analysis)] == ["w1:1"]
    assert_folds(analysis, mergeable(analysis))


def test_repair_starts_from_merged_weights_and_fits_their_means():
    """A net whose units come in pairs is whole again after its pairs are merged: nothing is left to repair."""
    analysis = analysed("residual")
    removal = halving(analysis, mergeable(analysis))
    doubled = api.analyze(with_copies(analysis, removal))
    rng = np.random.default_rng(0)
    shapes = doubled.graph.shapes.analysis.inputs
    data = {value: rng.standard_normal((64, *shape[1:])).astype(np.float32) for value, shape in shapes.items()}
    calibration = Calibration(doubled.coupling, open_source(data, doubled.graph), work=0)
    cut = Removal(doubled.coupling, removal.gone, removal.merged_into)
    slimmed = api.slim(doubled, api.describe(doubled, cut, {}))
    found = slimmed.repair(calibration)
    assert max(d.relative for d in found.before.values()) < 1e-5
    assert max(d.relative for d in found.after.values()) < 1e-2


def test_rows_that_are_merged_take_their_cells_along_whatever_becomes_of_these():
    analysis = analysed("attention")
    cells, heads = (next(group for group in analysis.groups if group.name == name) for name in ("wv:1", "wq:1/4"))
    alone = merge.by_class(analysis.coupling, [heads], {heads.name: halves(heads)})
    both = merge.by_class(analysis.coupling, [cells, heads], {g.name: halves(g) for g in (cells, heads)})
    moved = alone != np.arange(len(alone))
    assert moved.any()
    assert np.array_equal(both[moved], alone[moved])
