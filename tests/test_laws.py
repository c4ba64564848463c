"""The laws: what must hold of every net and every valid removal, judged by onnxruntime and by onnx."""

import math
import re
from collections.abc import Collection

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from nets.fused import plain
from nets.operators import EXAMPLES, UNCHECKED, UNRUNNABLE, is_only_counted
from nets.zoo import NETS as ZOO
from onnxslim_learn.coupling.operators.table import DOMAINS
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.plans import origin
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.rewrite.slim import cut, slim
from onnxslim_learn.workflow import slim as api
from tests import laws
from tests.laws import ALL, CUT, NETS, PLANS, WHOLE, analysed, draw_removal
from tests.random_graphs import graphs

NETS_CUT = [pytest.param(name, marks=pytest.mark.slow if plain(name) in EXAMPLES else ()) for name in CUT]
"""All that can be cut; single operators only in the slow run, where a law is about whole nets."""


def slimmed(removal: Removal) -> onnx.ModelProto:
    return ir.to_proto(slim(removal))


def weights(model: onnx.ModelProto) -> int:
    return sum(math.prod(t.dims) for t in model.graph.initializer if not t.name.endswith((".mask", ".one", laws.OPEN)))


def assert_slim_is_mask(removal: Removal) -> None:
    small, reference = slimmed(removal), laws.masked(removal)
    assert weights(small) < weights(reference), "nothing was removed"
    for feed in laws.input_sets(small):
        found, wanted = laws.run(small, feed), laws.run(reference, feed)
        assert list(found) == list(wanted)
        for name in wanted:
            laws.assert_close(found[name], wanted[name], name)


# --- slim = mask ------------------------------------------------------------------------------------------------------


def test_nets_of_which_nothing_can_go_are_known():
    assert {name for name in ALL if plain(name) == name and not laws.free(analysed(name))} == WHOLE


@pytest.mark.parametrize("name", ALL)
def test_normal_form_computes_the_same(name):
    source, normal = ALL[name].build(), laws.normal(analysed(name))
    for feed in laws.input_sets(source):
        wanted, found = laws.run(source, feed), laws.run(normal, feed)
        assert list(found) == list(wanted)
        for output in wanted:
            laws.assert_close(found[output], wanted[output], output)


@pytest.mark.parametrize("name", CUT)
@PLANS
@given(st.data())
def test_slim_is_mask(name, data):
    assert_slim_is_mask(draw_removal(data.draw, analysed(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", CUT)
@laws.examples(30)
@given(st.data())
def test_slim_is_mask_for_many_plans(name, data):
    assert_slim_is_mask(draw_removal(data.draw, analysed(name)))


def check_random_graph(data, strategy=graphs()):  # noqa: B008
    analysis = api.analyze(data.draw(strategy))
    if laws.free(analysis):
        assert_slim_is_mask(draw_removal(data.draw, analysis))


@laws.examples(25)
@given(st.data())
def test_slim_is_mask_for_random_graphs(data):
    check_random_graph(data)


@pytest.mark.slow
def test_slim_is_mask_for_many_random_graphs(request):
    """Of 30 nodes and more; ``--graphs 10000`` looks at that many (an hour or two)."""

    @settings(max_examples=request.config.getoption("--graphs"))
    @given(st.data())
    def large_graphs_hold_the_law(data):
        check_random_graph(data, graphs(least=30, most=60))

    large_graphs_hold_the_law()


FLAT = {("MaxUnpool", "i"), ("routed_by_groups", "at"), *(("segment_sum", name) for name in "st")}
"""Net and tensor that holds flat positions, sizes, or places that nobody reads: they count what is left, and differ."""

RESCALED = ".rescaled"
"""How the name of the node ends that multiplies a mean over what was cut."""

DRAWN = {"Bernoulli"}
"""Nets with tensors that are drawn anew in every run; what verification compares is given the same ones."""


@pytest.mark.parametrize("name", [one for one in NETS_CUT if plain(str(one.values[0])) not in DRAWN])
@PLANS
@given(st.data())
def test_every_tensor_is_the_cut_of_the_masked_one(name, data):
    flat = {tensor for net, tensor in FLAT if net == plain(name)}
    assert_tensors_are_cuts(analysed(name), draw_removal(data.draw, analysed(name)), flat)


def assert_tensors_are_cuts(analysis: api.Analysis, removal: Removal, but: Collection[str] = ()) -> None:
    small, reference = laws.exposed(slimmed(removal)), laws.exposed(laws.masked(removal))
    feed = laws.analysis_inputs(analysis)
    found, wanted = laws.run(small, feed), laws.run(reference, feed)
    places = removal.coupling.records.places
    known = [n for n in found if n in wanted and n in removal.coupling.values and n not in places]
    shared = [n for n in known if n not in but]
    smaller = small.ByteSize() < reference.ByteSize()  # units inside a node lie on no tensor between nodes
    assert smaller or any(found[n].shape != wanted[n].shape for n in shared)
    for n in shared:
        stays = laws.kept(removal, n).all()
        seen = found.get(f"{n}{RESCALED}", found[n])
        laws.assert_close(seen, wanted[n] if stays else cut(wanted[n], removal.coupling.values[n], removal), n)


def free_names(name: str, *, sensitive: bool) -> set[str]:
    return {group.name for group in laws.free(analysed(name, sensitive=sensitive))}


SENSITIVE = [name for name in ZOO if free_names(name, sensitive=True) > free_names(name, sensitive=False)]


def test_nets_with_axes_that_are_normalised_over_are_known():
    assert {"layer_norm", "layer_norm_decomposed", "convnext", "group_norm", "spatial_attention"} <= set(SENSITIVE)


@pytest.mark.parametrize("name", [name for name in NETS if plain(name) in SENSITIVE])
@PLANS
@given(st.data())
def test_cutting_axes_that_are_normalised_over(name, data):
    """What reaches no such axis is exact as ever; what does is a valid file with the price that was told."""
    analysis = analysed(name, sensitive=True)
    removal = draw_removal(data.draw, analysis)
    if removal.exact:
        assert_slim_is_mask(removal)
    result, whole = laws.written(analysis, removal), ALL[name].build()
    for feed in laws.input_sets(whole):
        found, wanted = laws.run(result, feed), laws.run(whole, feed)
        assert all(np.isfinite(values).all() for values in found.values())
        assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in wanted.items()}
    again = api.analyze(result, inputs=analysis.graph.shapes.nominal.inputs)
    assert again.price(again.whole) == analysis.price(removal)


@pytest.mark.parametrize("name", ["layer_norm", "convnext", "group_norm"])
def test_a_cut_of_normalised_axes_is_called_inexact(name):
    analysis = analysed(name, sensitive=True)
    (group, *_) = [g for g in laws.free(analysis) if analysed(name).group(g.name).pin]
    cut = laws.close(analysis, laws.units(group, 1, np.random.default_rng(0)))
    assert laws.valid(cut)
    assert not cut.exact
    assert analysis.whole.exact


# --- axes are true ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CUT)
@PLANS
@given(st.data())
def test_removed_positions_reach_only_removed_positions(name, data):
    assert_only_removed_positions_are_reached(analysed(name), draw_removal(data.draw, analysed(name)))


def assert_only_removed_positions_are_reached(analysis: api.Analysis, removal: Removal) -> None:
    """Noise in all weights at removed positions moves what layouts say is removed, and nothing else, not by a bit."""
    quiet = laws.exposed(laws.masked(removal))
    noisy = onnx.ModelProto()
    noisy.CopyFrom(quiet)
    rng = np.random.default_rng(0)
    for tensor in noisy.graph.initializer:
        if tensor.name in removal.coupling.values:
            values = onnx.numpy_helper.to_array(tensor)
            shaken = np.where(laws.kept(removal, tensor.name), values, noise(rng, values))
            tensor.CopyFrom(onnx.numpy_helper.from_array(shaken.astype(values.dtype), tensor.name))
    feed = laws.analysis_inputs(analysis)
    before, after = laws.run(quiet, feed), laws.run(noisy, feed)
    moved = False
    for n in before:
        if n in removal.coupling.values:
            stays = laws.kept(removal, n)
            same = np.array_equal if stays.all() else lambda a, b, stays=stays: np.array_equal(a[stays], b[stays])
            assert same(before[n], after[n]), n
            moved |= not np.array_equal(before[n], after[n])
    assert moved


QUIET = 16
"""Bound of noise in quantized weights: onnxruntime's kernels saturate where two neighbouring products pass 16 bits."""


def noise(rng, values):
    """Other values that fit where these are: as large, of one sign where these are (gains, variances, scales)."""
    scale = max(1, np.abs(values).max())
    if values.dtype.kind != "f":
        return rng.integers(-QUIET, QUIET, values.shape)
    return rng.uniform(0.5, 2, values.shape) * scale if (values > 0).all() else rng.normal(0, scale, values.shape)


# --- costs are true ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CUT)
@PLANS
@given(st.data())
def test_price_of_a_plan_is_the_price_of_its_file(name, data):
    assert_price_is_the_price_of_the_file(analysed(name), draw_removal(data.draw, analysed(name)))


def assert_price_is_the_price_of_the_file(analysis: api.Analysis, removal: Removal) -> None:
    again = api.analyze(laws.written(analysis, removal), inputs=analysis.graph.shapes.nominal.inputs)
    assert again.price(again.whole) == analysis.price(removal)
    assert analysis.price(removal)["params"] < analysis.price(analysis.whole)["params"]


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_empty_plan_gives_the_same_bytes(name, tmp_path):
    source = tmp_path / "source.onnx"
    onnx.save(ALL[name].build(), source)
    api.slim(api.analyze(source), Plan({}, {})).save(tmp_path / "slim.onnx", check=False)
    assert (tmp_path / "slim.onnx").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", NETS_CUT)
@PLANS
@given(st.data())
def test_file_keeps_all_but_widths(name, data):
    source = described(name)
    analysis = api.analyze(source)
    assert_file_keeps_all_but_widths(source, laws.written(analysis, draw_removal(data.draw, analysis)), plain(name))


def described(name: str) -> onnx.ModelProto:
    """Return a net whose file says more than it must."""
    source = ALL[name].build()
    source.producer_name, source.producer_version, source.doc_string = "maker", "3.1", "What it is."
    source.model_version = 7
    onnx.helper.set_model_props(source, {"author": "somebody", "task": "a test"})
    return source


def assert_file_keeps_all_but_widths(source: onnx.ModelProto, result: onnx.ModelProto, name: str) -> None:
    if name not in UNCHECKED:
        onnx.checker.check_model(result, full_check=True)
    listed = {tensor.name for tensor in source.graph.initializer}
    assert list(result.graph.input) == [info for info in source.graph.input if info.name not in listed]
    assert list(result.graph.output) == list(source.graph.output)
    assert {o.domain: o.version for o in result.opset_import}.items() <= {
        o.domain: o.version for o in source.opset_import
    }.items()
    props = {prop.key: prop.value for prop in result.metadata_props if prop.key != origin.KEY}
    assert props == {prop.key: prop.value for prop in source.metadata_props}
    for field in ("ir_version", "producer_name", "producer_version", "model_version", "doc_string"):
        assert getattr(result, field) == getattr(source, field), field
    assert result.graph.name == source.graph.name
    used = {name for node in all_nodes(result.graph) for name in node.input} | {
        info.name for info in result.graph.output
    }
    assert {tensor.name for tensor in result.graph.initializer} <= used


SIZED = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}


def all_nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from all_nodes(body)


@pytest.mark.parametrize("name", NETS_CUT)
@PLANS
@given(st.data())
def test_topology_stays(name, data):
    assert_topology_stays(analysed(name), draw_removal(data.draw, analysed(name)))


def assert_topology_stays(analysis: api.Analysis, removal: Removal) -> None:
    """Same operators in the same order; but an uneven Slice becomes a Gather, and two kinds of nodes join them.

    A Where corrects a computed size, and a factor a mean over what was cut.
    """
    before = laws.normal(analysis).graph.node
    after = laws.written(analysis, removal).graph.node
    stated = {node.input[slot] for node in after for slot in [SIZED.get(node.op_type, 9)] if len(node.input) > slot}
    after = [node for node in after if not (node.op_type == "Where" and node.output[0] in stated)]
    after = [node for node in after if not node.name.endswith(RESCALED)]
    assert [node.output for node in after] == [node.output for node in before]
    for old, new in zip(before, after, strict=True):
        assert new.op_type == old.op_type or (old.op_type, new.op_type) == ("Slice", "Gather")


# --- slim twice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS_CUT)
@PLANS
@given(st.data())
def test_slim_twice_is_slim_by_the_intersection(name, data):
    both, first = (draw_removal(data.draw, analysed(name)) for _ in range(2))
    assert_slim_twice_is_slim(analysed(name), both, first)


def assert_slim_twice_is_slim(analysis: api.Analysis, both: Removal, first: Removal) -> None:
    """What two removals share is cut first, then the rest of one of them."""
    first = Removal(analysis.coupling, first.gone & both.gone)
    first = laws.close(analysis, np.flatnonzero(whole_columns(first)))
    if not first.gone.any() or not laws.valid(first):  # the file of no removal is the source, in its own bases
        first = both
    again = api.analyze(laws.written(analysis, first))
    second = laws.close(again, columns_left(again, first, both))
    assert laws.valid(second)
    one, two = slimmed(both), slimmed(second)
    wanted = {
        t.name: onnx.numpy_helper.to_array(t) for t in one.graph.initializer if t.name in analysis.coupling.values
    }
    found = {t.name: onnx.numpy_helper.to_array(t) for t in two.graph.initializer if t.name in wanted}
    assert set(found) == set(wanted)
    for tensor, values in wanted.items():
        assert np.array_equal(found[tensor], values), tensor
    for feed in laws.input_sets(one):
        a, b = laws.run(one, feed), laws.run(two, feed)
        assert all(np.array_equal(a[output], b[output]) for output in a)


def whole_columns(removal):
    """Columns of which every class is removed."""
    coupling = removal.coupling
    whole = np.ones(int(coupling.column.max()) + 1, bool)
    whole[coupling.column[~removal.gone]] = False
    return whole


def columns_left(again, first, both):
    """Columns of a model slimmed by `first` that `both` removes beyond it, found on the positions of its weights."""
    coupling = again.coupling
    lost, left = np.zeros(coupling.size, bool), np.zeros(coupling.size, bool)
    for name in again.graph.initializers:
        origin, layout = first.coupling.values.get(name), coupling.values.get(name)
        if origin is None or layout is None:
            continue
        places = np.arange(math.prod(origin.shape)).reshape(origin.shape)
        gone = ~np.isin(cut(places, origin, first), cut(places, origin, both))
        keys = list(layout.digits)
        gone = gone.reshape([d.size for d in layout.digits.values()])
        for digit in layout.digits.values():
            if digit.labels is not None:
                own = [keys.index(k) for k in (*digit.deps, digit.key)]
                slices = gone.all(axis=tuple(a for a in range(len(keys)) if a not in own))
                slices = slices.transpose(np.argsort(np.argsort(own)))
                lost[coupling.strong[digit.labels[slices]]] = True
                left[coupling.strong[digit.labels[~slices]]] = True
    for _ in range(2):  # rows of rows
        lost |= ((coupling.membership.T @ lost.astype(int)) > 0) & ((coupling.membership.T @ left.astype(int)) == 0)
    left |= coupling.is_row & ~lost
    return np.setdiff1d(coupling.column[lost], coupling.column[left])


# --- operators --------------------------------------------------------------------------------------------------------


def operators_of(model):
    graphs = (model.graph, *model.functions)
    return {f"{node.domain}.{node.op_type}".lstrip(".") for graph in graphs for node in graph.node}


def test_every_operator_with_a_rule_has_an_example():
    declared = {
        f"{domain}.{op}".lstrip(".")
        for domain, table in DOMAINS.items()
        if domain != "ai.onnx"
        for op, row in table.items()
        if not is_only_counted(row)
    }
    covered = set().union(*(operators_of(net.build()) for net in ALL.values()))
    assert declared - covered == set(UNRUNNABLE)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_holds_its_operator_and_no_net_does(name):
    assert name in operators_of(EXAMPLES[name].build())
    assert not any(name in operators_of(net.build()) for net in ZOO.values())


@pytest.mark.parametrize("name", UNRUNNABLE)
def test_operator_without_example_cannot_run(name):
    """Two inputs of the shapes these operators take: if onnxruntime runs it one day, it needs an example."""
    more = ", a" if "Add" in name else ""
    shape = "8" if "." in name else "2,4,8"
    text = f"n (float[2,4,8] a, float[{shape}] b) => (float[2,4,k] y) {{ y = {name}(a, b{more}) }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 28, "com.microsoft" : 1]> {text}')
    with pytest.raises(ort_errors.NotImplemented):
        laws.run(model, laws.feeds(model))


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_valid_and_its_output_depends_on_its_input(name):
    model = EXAMPLES[name].build()
    if name not in UNCHECKED:
        onnx.checker.check_model(model, full_check=True)
    first, second = (laws.run(model, laws.feeds(model, seed))["y"] for seed in (0, 1))
    assert np.isfinite(first).all()
    assert np.std(first - second) > 0.01
    assert np.std(first) < 10


# --- unknown operators ------------------------------------------------------------------------------------------------

UNKNOWN = """<ir_version: 8, opset_import: ["" : 17, "maker" : 1]> net (float[2,3] x) => (float[2,5] y)
<float[3,8] w1, float[8,6] w2, float[6,7] w3, float[7,5] w4, float[8] pair> {
    a = MatMul(x, w1)
    b, c = maker.Twist(a, pair)
    h = Tanh(b)
    d = MatMul(h, w2)
    e = MatMul(d, w3)
    y = MatMul(e, w4)
}"""
"""w1 ends in an operator of a domain without rules, and w2 begins behind it; w3 and w4 are far from it."""


@pytest.fixture
def unknown():
    model = onnx.parser.parse_model(re.sub(r"<float\[3,8\].*?>", "", UNKNOWN, flags=re.S))
    rng = np.random.default_rng(0)
    shapes = {"w1": (3, 8), "w2": (8, 6), "w3": (6, 7), "w4": (7, 5), "pair": (8,)}
    for name, shape in shapes.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    for name in ("b", "c"):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 8]))
    return api.analyze(model)


def test_unknown_operator_pins_what_it_touches_and_is_named(unknown):
    assert unknown.opaque == {"Twist": 1}
    pins = {group.name: group.pin.reason if group.pin else "" for group in unknown.groups}
    assert pins == {
        "w1:1": "feeds Twist, which has no rule",
        "w2:1": "",
        "w3:1": "",
        "w4:1": "is the graph output y",
    }
    (twist,) = [node for node in unknown.graph.nodes if node.op_type == "Twist"]
    assert all(not d.labels for v in twist.outputs for d in unknown.coupling.values[str(v.name)].digits.values())
