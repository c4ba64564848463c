"""Laws of couplings: closing a removal, finding its faults, gathering columns into groups."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nets.notation import Net
from onnxslim_learn.coupling import groups as grouping
from onnxslim_learn.coupling.alignment import CROSSWISE
from onnxslim_learn.coupling.removal import removal
from onnxslim_learn.errors import PlanError
from onnxslim_learn.rewrite.verify import verify
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import ALL, NETS, PLANS, analysed


def group_of(analysis, name):
    return next(group for group in analysis.groups if group.name == name)


def faults_of(net, columns):
    analysis = analysed(net)
    return analysis.coupling.faults(laws.close(analysis, np.asarray(columns)).gone)


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
@PLANS
@given(st.data())
def test_closing_is_monotone_and_closed(name, data):
    coupling = analysed(name).coupling
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    some = rng.random(coupling.columns) < 0.3
    more = some | (rng.random(coupling.columns) < 0.3)
    gone, wider = coupling.close(some), coupling.close(more)
    assert gone[some[coupling.column]].all()
    assert (wider | ~gone).all()
    by_row = coupling.membership.tocsc()
    for row in np.flatnonzero(coupling.is_row):
        cells = by_row[:, [row]].indices
        assert gone[row] == gone[cells].all(), "cells follow their row, a row its cells"


def test_a_head_goes_with_its_last_cell_and_takes_all_its_cells_along():
    analysis = analysed("attention")
    heads, queries, values = (group_of(analysis, name) for name in ("wq:1/4", "wq:1", "wv:1"))
    by_row = laws.close(analysis, heads.units[[1]]).gone
    cells = np.concatenate([queries.units[4:8], values.units[4:8]])
    assert set(analysis.coupling.column[by_row]) == {*heads.units[[1]], *cells}
    assert np.array_equal(laws.close(analysis, cells).gone, by_row)
    assert not laws.close(analysis, cells[:-1]).gone[analysis.coupling.is_row].any()


# --- faults -----------------------------------------------------------------------------------------------------------


def test_nothing_removed_has_no_fault():
    for name in ALL:
        assert analysed(name).coupling.faults(analysed(name).whole.gone) == []


def test_pinned_positions_are_a_fault():
    tapped = group_of(analysed("pinned_by_output"), "w1:0")
    assert any("is the graph output tap" in fault for fault in faults_of("pinned_by_output", tapped.units[:1]))


def test_heads_of_unequal_size_are_a_fault():
    queries = group_of(analysed("attention"), "wq:1")
    assert faults_of("attention", queries.units[:1])
    assert faults_of("attention", queries.units[[0, 5, 10, 15]]) == []


def test_an_empty_part_is_a_fault():
    upper = group_of(analysed("c2f"), "w0:0@8")
    assert any("nothing would be left of a part" in fault for fault in faults_of("c2f", upper.units))


def test_an_empty_weight_is_a_fault():
    inner = group_of(analysed("chain"), "w1:0")
    assert "w1: nothing would be left of it" in faults_of("chain", inner.units)
    assert faults_of("chain", inner.units[1:]) == []


def test_positions_that_meet_must_go_together():
    """Rotary turns cell d of every head by one table: a cell of one head alone would leave the table's behind."""
    coupling = analysed("rotary").coupling
    cells = coupling.strong[coupling.values["wq"].axes[1][0].labels]
    gone = np.zeros(coupling.size, bool)
    gone[cells[[0, 2]]] = True  # dimensions 0 and 2 of the first head, as rotated pairs
    assert any("would not go together" in fault for fault in coupling.faults(gone))


def test_a_removal_with_a_fault_is_refused_in_one_sentence():
    analysis = analysed("attention")
    with pytest.raises(PlanError) as caught:
        removal(analysis.coupling, group_of(analysis, "wq:1").units[:1])
    assert str(caught.value).startswith("node ")
    assert "\n" not in str(caught.value)


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_groups_have_names_of_their_own_and_share_no_unit(name):
    groups = analysed(name).groups
    assert len({group.name for group in groups}) == len(groups)
    units = np.concatenate([np.zeros(0, int), *(group.units for group in groups)])
    assert len(np.unique(units)) == len(units)
    for group in groups:
        assert np.array_equal(np.sort(np.concatenate(group.strata)), np.arange(group.width))


@pytest.mark.parametrize("name", ALL)
def test_every_column_of_a_weight_is_in_a_group(name):
    analysis = analysed(name)
    grouped = np.concatenate([np.zeros(0, int), *(group.units for group in analysis.groups)])
    for weight in analysis.graph.initializers:
        layout = analysis.coupling.values.get(weight)
        for digit in layout.digits.values() if layout else ():
            if digit.labels is not None:
                atoms = digit.labels[digit.labels > 0]
                assert np.isin(analysis.coupling.column[analysis.coupling.strong[atoms]], grouped).all()


@pytest.mark.parametrize("name", ALL)
@PLANS
@given(st.data())
def test_units_of_a_group_are_exchangeable(name, data):
    """What decides whether a group may lose units is how many, not which: any level of any units will do."""
    analysis = analysed(name)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    for group in laws.free(analysis):
        for level in {1, group.spare}:
            cut = laws.close(analysis, laws.units(group, level, rng))
            assert analysis.coupling.faults(cut.gone) == [], (group.name, level)


@pytest.mark.parametrize("name", ALL)
def test_groups_are_found_again(name):
    again = grouping.find(slim.analyze(ALL[name].build()).coupling)
    assert [(g.name, g.width, g.members) for g in again] == [
        (g.name, g.width, g.members) for g in analysed(name).groups
    ]


def test_equal_constants_that_an_exporter_merged_do_not_couple():
    text = """(float[2,3,4,4] x) => (float[2,5,4,4] y) {
        a = Conv(x, w1, shared)
        b = Conv(a, w2, shared)
        y = Conv(b, w3)
    }"""
    analysis = slim.analyze(Net(text, "w1 8x3x1x1, shared 8, w2 8x8x1x1, w3 5x8x1x1").build())
    assert [set(group.members) for group in laws.free(analysis)] == [
        {"w1:0", "shared:0", "w2:1"},
        {"w2:0", "shared~1:0", "w3:1"},
    ]
    cut = laws.close(analysis, laws.free(analysis)[0].units[:3])
    result = laws.written(analysis, cut)
    assert {tensor.dims[0] for tensor in result.graph.initializer if tensor.name.startswith("shared")} == {5, 8}


def test_a_file_with_one_initializer_for_two_keeps_one_where_both_are_cut_alike():
    """The two uses of `b` in zoo net siamese lose the same units, so the written file shares them again."""
    analysis = analysed("siamese")
    cut = laws.close(analysis, laws.free(analysis)[0].units[:3])
    names = [tensor.name for tensor in laws.written(analysis, cut).graph.initializer]
    assert sorted(names) == ["b", "b2", "w", "w2"]


def test_names_do_not_depend_on_the_order_of_initializers():
    model = ALL["attention"].build()
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors[::-1])
    turned = {(g.width, frozenset(g.members)) for g in slim.analyze(model).groups}
    assert turned == {(g.width, frozenset(g.members)) for g in analysed("attention").groups}


def test_a_shared_batch_axis_is_no_channel():
    """A batch of two that happens to be as long as a weight's axis ties nothing."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> n (float[8,8] x) => (float[8,5] y) <float[8,8] w = {0.5}> {'
        " h = MatMul(x, w) y = MatMul(h, v) }".replace("= {0.5}", "").replace("<float[8,8] w >", "")
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (8, 8)), ("v", (8, 5))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    assert [group.members for group in laws.free(slim.analyze(model))] == [("w:1", "v:0")]


# --- layouts ----------------------------------------------------------------------------------------------------------


def stated(coupling):
    """Yield every set of digits that something reads together, and where."""
    for name, value in coupling.values.items():
        yield name, list(value.digits.values())
    for record in coupling.records.contractions:
        yield coupling.where(record.node), list(record.value.digits.values())
    for term in coupling.records.terms:
        yield coupling.where(term.node), [*term.digits, *term.within]


@pytest.mark.parametrize("name", ALL)
def test_what_a_digit_depends_on_stands_beside_it(name):
    for where, digits in stated(analysed(name).coupling):
        keys = {d.key for d in digits}
        assert all(key in keys for d in digits for key in d.deps), where


def test_a_part_that_nothing_cuts_stays():
    """Maxima and means over channels are joined: neither map can go, so the weight that reads them stays whole."""
    coupling = analysed("spatial_attention").coupling
    (digit,) = coupling.values["w2"].axes[1]
    assert digit.labels is None


@pytest.mark.parametrize("sizes", ["sizes = Shape(h)", "s = Shape(h) sizes = Gather(s, [0, 1])", "sizes = Size(h)"])
def test_a_size_that_is_put_out_stays(sizes):
    text = f"(float[batch,6] x) => (float[batch,3] y, int64[] sizes) {{ h = MatMul(x, w1) y = MatMul(h, w2) {sizes} }}"
    model = Net(text, "w1 6x8, w2 8x3").build()
    model.graph.output[1].type.tensor_type.ClearField("shape")
    (hidden, _) = slim.analyze(model).groups
    assert hidden.pin is not None
    assert hidden.pin.reason == "has its size computed with"


def test_parts_in_many_rows_are_tracked_in_bounds():
    """Six parts, each with cells of its own rows along another axis: labels of one by those of all would not fit."""
    parts = "".join(f"h{k} = MatMul(x, w{k}) r{k} = Reshape(h{k}, [2, 40, 8]) " for k in range(6))
    joined = ", ".join(f"r{k}" for k in range(6))
    net = f"(float[2,6] x) => (float[2,240,3] y) {{ {parts} c = Concat<axis=1>({joined}) y = MatMul(c, v) }}"
    found = slim.analyze(Net(net, "w0 w1 w2 w3 w4 w5 6x320, v 8x3").build())
    assert found.coupling.relations.count < 10_000


def test_a_vector_declared_empty_is_no_open_dimension():
    text = "(float[2,3,4] x, int64[0] axes) => (float[1,1,1] y) { y = ReduceSum<keepdims=1>(x, axes) }"
    shapes = slim.analyze(Net(text, opset=18).build()).graph.shapes
    assert not shapes.dynamic
    assert shapes.nominal.inputs == {"x": (2, 3, 4), "axes": (0,)}


def test_optional_outputs_that_nobody_reads_keep_their_names():
    (attention,) = [n for n in analysed("cached_attention").graph.nodes if n.op_type == "Attention"]
    assert [v.name for v in attention.outputs] == ["a", "present_key", "present_value"]


def test_scales_that_are_computed_are_no_channels():
    """Scales of a Resize may be joined from constants: they are settings, whose positions nothing may cut."""
    text = """(float[1,3,8,8] x) => (float[1,2,16,16] y) {
        h = Conv (x, w1)
        s = Concat <axis = 0> ([1.0, 1.0], [2.0, 2.0])
        r = Resize <mode = "nearest"> (h, , s)
        y = Conv (r, w2)
    }"""
    analysis = slim.analyze(Net(text, "w1 8x3x1x1, w2 2x8x1x1").build())
    assert [(group.name, group.width) for group in analysis.groups if group.pin is None] == [("w1:0", 8)]


@pytest.mark.parametrize("first", [True, False])
def test_a_slice_up_to_the_size_of_another_tensor_is_told_what_stays(first, tmp_path):
    """The tensor whose size is read may be cut, or the one that is sliced: neither takes anything from the other."""
    text = """(float[batch,6] x) => (float[batch,3] y) {
        h = MatMul(x, w1) g = MatMul(x, w2) s = Shape(g) b = Slice(h, [0, 0], s) y1 = MatMul(b, w3) y2 = MatMul(g, w4)
        y = Add(y1, y2)
    }"""
    analysis = slim.analyze(Net(text, "w1 6x8, w2 6x8, w3 8x3, w4 8x3").build())
    one, other = laws.free(analysis)
    found = removal(analysis.coupling, (one if first else other).units[::3])
    onnx.save(laws.written(analysis, found), tmp_path / "m.onnx")
    assert verify(found, tmp_path / "m.onnx").passed


def grouped(many):
    """Two key-value heads that four query heads share; ``many`` repeats them."""
    return Net(
        "(float[2,3,6] x) => (float[2,3,5] y) {{"
        " q = MatMul(x, wq) q4 = Reshape(q, [2,3,4,4]) qh = Transpose<perm=[0,2,1,3]>(q4)"
        " k = MatMul(x, wk) k2 = Reshape(k, [2,3,2,4]) kt = Transpose<perm=[0,2,3,1]>(k2) {}"
        " v = MatMul(x, wv) v2 = Reshape(v, [2,3,2,4]) vt = Transpose<perm=[0,2,1,3]>(v2) {}"
        " s = MatMul(qh, km) p = Softmax<axis=-1>(s) a = MatMul(p, vm) t = Transpose<perm=[0,2,1,3]>(a)"
        " r = Reshape(t, [2,3,16]) y = MatMul(r, wo) }}".format(
            *(many.format(x=x, m=m, shape=shape) for x, m, shape in (("kt", "km", "4,3"), ("vt", "vm", "3,4")))
        ),
        "wq 6x16, wk 6x8, wv 6x8, wo 16x5",
    )


REPEATED = {
    "Expand": "{m}u = Unsqueeze({x}, [2]) {m}e = Expand({m}u, [2,2,2,{shape}]) {m} = Reshape({m}e, [2,4,{shape}])",
    "Concat": "{m}u = Unsqueeze({x}, [2]) {m}e = Concat<axis=2>({m}u, {m}u) {m} = Reshape({m}e, [2,4,{shape}])",
    "Tile": "{m}u = Unsqueeze({x}, [2]) {m}e = Tile({m}u, [1,1,2,1,1]) {m} = Reshape({m}e, [2,4,{shape}])",
    "Gather": "{m} = Gather<axis=1>({x}, [0,0,1,1])",
}


@pytest.mark.parametrize("spelling", REPEATED)
def test_key_value_heads_of_scores_and_of_values_go_together(spelling):
    analysis = slim.analyze(grouped(REPEATED[spelling]).build())
    feed, shapes = laws.analysis_inputs(analysis), []
    for heads in (group for group in laws.free(analysis) if group.rows):
        cut = removal(analysis.coupling, heads.units[:1])
        small = laws.written(analysis, cut)
        shapes.append({tensor.name: list(tensor.dims) for tensor in small.graph.initializer})
        laws.assert_close(laws.run(small, feed)["y"], laws.run(laws.masked(cut), feed)["y"], spelling)
    wanted = {"wq": [6, 8], "wk": [6, 4], "wv": [6, 4], "wo": [8, 5]}
    assert [wanted.items() <= sizes.items() for sizes in shapes].count(True) == 1


def test_cells_of_which_a_slice_takes_none():
    """Rotary positions over all of a head leave a rest of no width (Phi-3)."""
    text = """(float[n, s, 6] x) => (float[n, s, 3] y) {
        a = MatMul(x, w1) h = Reshape(a, [0, 0, 4, 8]) t = Slice(h, [0], [8], [3]) e = Slice(h, [8], [9], [3])
        g = Tanh(t) c = Concat<axis=3>(g, e) f = Reshape(c, [0, 0, 32]) y = MatMul(f, w2)
    }"""
    analysis = slim.analyze(Net(text, "w1 6x32, w2 32x3").build())
    assert {group.width for group in analysis.groups if group.pin is None} >= {4}


def test_rows_that_lie_the_other_way_round_stay():
    """Two layers give the same table, one row by row, the other column by column: neither is rows of the other's."""
    text = """(float[2,6] x) => (float[2,5] y) {
        h = MatMul(x, w1) r = Relu(h) a = MatMul(r, w2) b = Reshape(a, [2,3,4]) c = Transpose<perm=[0,2,1]>(b)
        d = MatMul(r, w3) e = Reshape(d, [2,4,3]) f = Add(c, e) g = Relu(f) i = Reshape(g, [2,12]) y = MatMul(i, w4)
    }"""
    feed = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    analysis = laws.assert_cut_is_masked(Net(text, "w1 6x8, w2 w3 8x12, w4 12x5").build(), [{"x": feed}])
    assert [group.name for group in laws.free(analysis)] == ["w1:1"]
    stays = {group.pin.reason for group in analysis.groups if group.pin and set(group.members) & {"w2:1", "w3:1"}}
    assert stays == {CROSSWISE}


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [0, 1])
def test_queries_stay_where_each_sees_as_far_as_its_place_lets_it(causal):
    text = f"""(float[2,4,6] x) => (float[2,5,4] y) {{
        t = Transpose<perm=[0,2,1]>(x) m = MatMul(t, places) n = Transpose<perm=[0,2,1]>(m) q = MatMul(n, wq)
        k = MatMul(x, wk) v = MatMul(x, wv) a = Attention<q_num_heads=2, kv_num_heads=2, is_causal={causal}>(q, k, v)
        o = MatMul(a, wo) u = Transpose<perm=[0,2,1]>(o) y = MatMul(u, back)
    }}"""
    net = Net(text, "places 4x6, wq wk wv 6x8, wo 8x5, back 6x4", opset=23)
    feed = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    analysis = laws.assert_cut_is_masked(net.build(), [{"x": feed}])
    assert (group_of(analysis, "places:1").pin is None) == (not causal)


def test_heads_are_cut_whose_keys_and_values_are_learnt():
    text = """(float[2,4,6] x) => (float[2,4,5] y) {
        a = MatMul(x, wq) b = Reshape(a, [2,4,4,4]) q = Transpose<perm=[0,2,1,3]>(b) o = Attention(q, k, v)
        t = Transpose<perm=[0,2,1,3]>(o) z = Reshape(t, [2,4,12]) y = MatMul(z, wo)
    }"""
    feed = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    net = Net(text, "wq 6x16, k 2x2x7x4, v 2x2x7x3, wo 12x5", opset=23)
    analysis = laws.assert_cut_is_masked(net.build(), [{"x": feed}])
    assert {group.members for group in laws.free(analysis)} >= {("wq:1", "k:3"), ("k:1", "v:1"), ("v:3", "wo:0")}
