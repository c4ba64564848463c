"""What changes no output goes, all of it, and nothing else: judged by the original itself in onnxruntime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from nets.fused import LEVELS, fused
from onnxslim_learn.coupling.layout import over
from onnxslim_learn.errors import InputError
from onnxslim_learn.select.weight_slices import slices
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import NETS, PLANS, ZOO_CUT
from tests.random_graphs import graphs

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[{batch},3,{side},{side}] image) => (float[{batch},5] logits)
<float[8,3,3,3] w1, float[8] g1, float[8] b1, float[8] m1, float[8] v1,
 float[8,1,3,3] wd, float[8] bd, float[6,8,1,1] w2, float[6] b2, float[7,6,3,3] w3, float[7] b3,
 float[7,9] w4, float[9] b4, float[9,5] w5>
{{
    a = Conv<pads: ints = [1,1,1,1]>(image, w1)
    b = BatchNormalization(a, g1, b1, m1, v1)
    c = Relu(b)
    d = Conv<pads: ints = [1,1,1,1], group: int = 8>(c, wd, bd)
    e = Relu(d)
    f = Conv(e, w2, b2)
    g = Relu(f)
    h = Conv<pads: ints = [1,1,1,1], strides: ints = [2,2]>(g, w3, b3)
    i = Relu(h)
    j = GlobalAveragePool(i)
    k = Flatten(j)
    l = MatMul(k, w4)
    m = Add(l, b4)
    n = Relu(m)
    logits = MatMul(n, w5)
}}
"""


def net(changes, batch=2, side=8):
    """The net with random weights, of which some are then set: name -> (index, value)."""
    model = onnx.parser.parse_model(NET.format(batch=batch, side=side))
    rng = np.random.default_rng(0)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["v1"] = np.abs(weights["v1"]) + 0.5
    for name, index, value in changes:
        weights[name][index] = value
    del model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def cut(model, **settings):
    analysis = slim.analyze(model)
    return analysis, slim.slim_lossless(analysis, **settings)


def widths(slimmed):
    shapes = {n: tuple(v.shape) for n, v in slimmed.model.graph.initializers.items()}
    return shapes["w1"][0], shapes["w2"][0], shapes["w3"][0], shapes["w4"][1]


def assert_same(model, slimmed, inputs=None):
    small = ir.to_proto(slimmed.model)
    if all(not node.domain for node in small.graph.node):
        onnx.checker.check_model(small, full_check=True)
    for feed in inputs or laws.input_sets(model):
        wanted, found = laws.run(model, feed), laws.run(small, feed)
        assert {n: v.shape for n, v in wanted.items()} == {n: v.shape for n, v in found.items()}
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-5 * max(1, np.abs(wanted[name]).max()))


CASES = {
    "zero filters": ([("w2", 3, 0), ("b2", 3, 0), ("w3", [0, 4], 0), ("b3", [0, 4], -1)], (8, 5, 5, 9)),
    "a constant through padding": ([("w2", [1, 4], 0), ("b2", [1, 4], [0.7, 1.5])], (8, 4, 7, 9)),
    "gains of zero": ([("g1", [2, 5], 0), ("b1", [2, 5], [0.9, -0.3])], (6, 6, 7, 9)),
    "a kernel of zeros": ([("wd", 6, 0), ("bd", 6, 0.4)], (7, 6, 7, 9)),
    "hidden units": ([("w4", (slice(None), [0, 8]), 0), ("b4", [0, 8], [2, -1])], (8, 6, 7, 7)),
    "units nobody reads": ([("w5", 4, 0), ("w3", (slice(None), 2), 0)], (8, 5, 7, 8)),
    "a last constant into no bias": ([("w3", 6, 0), ("b3", 6, 3)], (8, 6, 6, 9)),
    "nothing": ([], (8, 6, 7, 9)),
    "a zero row of one of two producers": ([("w1", 1, 0), ("g1", 1, 1), ("b1", 1, 1)], (7, 6, 7, 9)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [2, "batch"])
def test_what_is_dead_goes_and_outputs_stay(name, batch):
    changes, wanted = CASES[name]
    model = net(changes, batch)
    _, slimmed = cut(model)
    assert widths(slimmed) == wanted
    assert_same(model, slimmed)


def lost(analysis, slimmed):
    """Return how many units every group lost that lost some, largest first."""
    counts = [group.width - len(slimmed.plan.groups.get(group.name, range(group.width))) for group in analysis.groups]
    return sorted((count for count in counts if count), reverse=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("level", LEVELS)
def test_the_same_goes_from_a_fused_file(name, level):
    plain, whole = net(CASES[name][0]), fused(net(CASES[name][0]), level)
    analysis, slimmed = cut(whole)
    assert lost(analysis, slimmed) == lost(*cut(plain))
    assert_same(whole, slimmed)
    assert not slimmed.folded.left


def test_a_map_is_made_from_ones_where_one_convolution_pads():
    _, slimmed = cut(net(CASES["a constant through padding"][0]))
    assert slimmed.folded.mapped
    assert max(v.const_value.size for n, v in slimmed.model.graph.initializers.items() if "constant" in n) == 7 * 9


def test_constants_at_open_borders_stay_and_the_rest_goes():
    zero, constant = 2, 4
    model = net([("w2", [zero, constant], 0), ("b2", [zero, constant], [-1, 1])], 2, "side")
    _, slimmed = cut(model)
    assert widths(slimmed) == (8, 5, 7, 9)
    assert list(slimmed.folded.left) == ["w2:0"]
    rng = np.random.default_rng(0)
    assert_same(model, slimmed, [{"image": rng.normal(size=(2, 3, n, n)).astype(np.float32)} for n in (5, 8, 13)])


def test_one_unit_stays_of_a_group_that_is_dead_as_a_whole():
    model = net([("w4", slice(None), 0), ("b4", slice(None), 0.5)])
    _, slimmed = cut(model)
    assert widths(slimmed) == (8, 6, 1, 1)  # nobody reads what the dead layer is made from
    assert "w4:1" in slimmed.folded.left
    assert_same(model, slimmed)


def test_protected_groups_stay():
    _, slimmed = cut(net(CASES["hidden units"][0]), protect=["w4"])
    assert widths(slimmed) == (8, 6, 7, 9)


def test_a_gate_that_moves_a_constant_keeps_it():
    """Squeeze-excite multiplies a constant channel by what depends on the image."""
    analysis = slim.analyze(NETS["squeeze_excite"].build())
    for seed in range(4):
        dead, _ = killed(analysis, seed, 1.0)
        assert_same(dead, slim.slim_lossless(slim.analyze(dead)))


def killed(analysis, seed, bias=0.0):
    """The model with some units of a random group dead: all they are made from is zero; and the group."""
    rng = np.random.default_rng(seed)
    free = laws.free(analysis)
    group = free[rng.integers(len(free))]
    units = laws.units(group, max(1, group.levels // 3), rng)
    removal = laws.close(analysis, units)
    model = laws.normal(analysis)
    arrays = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    for part in slices(analysis.coupling):
        if not part.summed and analysis.coupling.removed(part.labels, removal.gone).any():
            layout = analysis.coupling.values[part.name]
            stays = np.ones(layout.shape, bool)
            for digit in layout.digits.values():
                if digit.labels is part.labels:
                    stays &= spread(removal, layout, digit)
            arrays[part.name][~stays] = bias if part.array.shape[1] == 1 else 0
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    return model, group


def spread(removal, layout, digit):
    """Which elements of a parameter one digit keeps."""
    keys, sizes = [d.key for d in layout.digits.values()], {d.key: d.size for d in layout.digits.values()}
    return over(removal.kept(digit), (*digit.deps, digit.key), keys, sizes).reshape(layout.shape)


KINDS = ("attention", "mlp", "residual", "depthwise")


@pytest.mark.parametrize("name", [name for name in ZOO_CUT if any(kind in name for kind in KINDS)])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_zoo_nets_with_dead_units_stay_the_same(name, bias):
    analysis = laws.analysed(name)
    for seed in range(3):
        dead, _ = killed(analysis, seed, bias)
        assert_same(dead, slim.slim_lossless(slim.analyze(dead)))


def test_dead_heads_go():
    analysis = laws.analysed("attention")
    heads = next(g for g in laws.free(analysis) if g.rows)
    removal = laws.close(analysis, heads.units[:1])
    model = laws.normal(analysis)
    coupling = analysis.coupling
    for tensor in model.graph.initializer:
        layout = coupling.values.get(tensor.name)
        if layout is None or len(layout.axes) < 2 or tensor.name != output_projection(coupling):
            continue
        array = numpy_helper.to_array(tensor).copy()
        for digit in layout.digits.values():
            if digit.labels is not None:
                array[~spread(removal, layout, digit)] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    slimmed = slim.slim_lossless(slim.analyze(model))
    assert_same(model, slimmed)
    assert len(slimmed.plan.groups[heads.name]) == heads.width - 1
    assert heads.name not in slimmed.folded.left


def output_projection(coupling):
    """The last weight that is multiplied with."""
    weights = [v.name for node in coupling.nodes for v in node.inputs if v is not None and v.is_initializer()]
    return [n for n in weights if n in coupling.values and len(coupling.values[n].axes) == 2][-1]


@PLANS
@given(st.data())
def test_random_graphs_with_dead_units_stay_the_same(data):
    analysis = slim.analyze(data.draw(graphs()))
    if laws.free(analysis):
        dead, _ = killed(analysis, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 1.0])))
        assert_same(dead, slim.slim_lossless(slim.analyze(dead)))


def test_a_plan_replays_and_verifies(tmp_path):
    model = net([change for changes, _ in CASES.values() for change in changes])
    onnx.save(model, tmp_path / "model.onnx")
    analysis = slim.analyze(tmp_path / "model.onnx")
    slimmed = slim.slim_lossless(analysis)
    check = slimmed.save(tmp_path / "slim.onnx")
    assert check.passed
    assert check.change < 1e-5
    again = slim.slim(analysis, slimmed.plan)
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "slim.onnx").read_bytes()
    assert slim.verify(analysis, tmp_path / "slim.onnx", slimmed.plan).passed
    broken = onnx.load(tmp_path / "slim.onnx")
    bias = next(t for t in broken.graph.initializer if t.name == "b3")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, "b3"))
    onnx.save(broken, tmp_path / "broken.onnx")
    assert not slim.verify(analysis, tmp_path / "broken.onnx", slimmed.plan).passed


def test_normalised_axes_are_refused():
    analysis = slim.analyze(NETS["layer_norm"].build(), allow_sensitive=True)
    with pytest.raises(InputError, match="lossless"):
        slim.slim_lossless(analysis)


def test_a_shared_bias_is_not_changed_for_others():
    """Two convolutions share a bias; only one takes a constant over."""
    shapes = {"p": (4, 3, 1, 1), "b": (4,), "q": (4, 4, 1, 1)}
    rng = np.random.default_rng(1)
    weights = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    weights["p"][2] = 0
    weights["b"][2] = 1
    nodes = [
        helper.make_node("Conv", ["x", "p", "b"], ["a"]),
        helper.make_node("Conv", ["a", "q", "b"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, 1, [2, c, 4, 4]) for n, c in (("x", 3), ("y", 4))]
    initializers = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], initializers),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    _, slimmed = cut(model)
    assert slimmed.plan.widths
    assert_same(model, slimmed)


def test_a_scale_that_is_spelled_as_a_convolution_may_be_zero():
    """A depthwise convolution of one tap: a number per channel."""
    rng = np.random.default_rng(0)
    shapes = {"p": (6, 3, 1, 1), "s": (6, 1, 1, 1), "b": (6,), "q": (4, 6, 1, 1)}
    weights = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    weights["s"][[1, 4]] = 0
    text = """<ir_version: 8, opset_import: ["" : 17]> n (float[2,3,4,4] x) => (float[2,4,4,4] y) {
        a = Conv(x, p)
        c = Conv<group: int = 6>(a, s, b)
        y = Conv(c, q)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    _, slimmed = cut(model)
    assert slimmed.model.graph.initializers["q"].shape[1] == 4
    assert_same(model, slimmed)


LSTM = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[5,2,3] x) => (float[2,4] y)
<float[1,24,3] w, float[1,24,6] r, float[1,48] b, float[6,4] fc>
{
    all, last = LSTM<hidden_size: int = 6>(x, w, r, b)
    flat = Squeeze(last)
    y = MatMul(flat, fc)
}
"""


@pytest.mark.parametrize("recurrent", [1.0, 1e-3, 0.0])
def test_a_hidden_unit_that_the_cell_reads_itself_is_not_dead(recurrent):
    model = onnx.parser.parse_model(LSTM)
    rng, shapes = np.random.default_rng(0), {"w": (1, 24, 3), "r": (1, 24, 6), "b": (1, 48), "fc": (6, 4)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["fc"][2] = 0
    arrays["r"][:, :, 2] *= recurrent
    del model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    _, slimmed = cut(model)
    assert slimmed.model.graph.initializers["fc"].shape[0] == (6 if recurrent else 5)
    assert_same(model, slimmed)
