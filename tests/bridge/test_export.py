"""Weights flow back into the file by name: exactly, and nothing else changes."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from nets.notation import Net
from nets.zoo import feeds
from onnxslim_learn.bridge.export import export, updated
from onnxslim_learn.bridge.initializers import parameters
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.errors import InputError
from tests.bridge.test_module import NORMED, TIED, assert_alike, call, tensors_of
from tests.laws import NETS, run

BARE = {"bare_constants", "branch", "function"}
"""Nets that keep weights elsewhere than in initializers of the main graph."""


def computed(model, graph):
    """Return the parameters that a file computes from others, and that are computed ahead at load."""
    made = {name for node in model.graph.node if node.op_type != "Constant" for name in node.output}
    return made & set(parameters(bridge(graph)))


def nudge(module):
    """Change every parameter a little; returns names of what changed."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in parameters(module).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return set(parameters(module))


def weights_of(model):
    """Return the tensors of a model's main graph by name, as bytes; Constant nodes count by their output."""
    tensors = {t.name: t for t in model.graph.initializer}
    constants = {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    return {
        name: (t.data_type, tuple(t.dims), numpy_helper.to_array(t).tobytes())
        for name, t in (tensors | constants).items()
    }


@pytest.mark.parametrize("name", sorted(NETS))
def test_an_untouched_module_writes_the_same_bytes(name, tmp_path):
    source = tmp_path / "in.onnx"
    onnx.save(NETS[name].build(), source)
    graph = load(source)
    export(bridge(graph), graph, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_file_computes_what_the_module_computes(name):
    model = NETS[name].build()
    graph = load(model)
    module = bridge(graph)
    changed = nudge(module)
    written = updated(module, graph)
    onnx.checker.check_model(written)
    ahead = computed(model, graph)
    if not ahead:
        assert [n.op_type for n in written.graph.node] == [n.op_type for n in model.graph.node]
    inputs = feeds(model)
    assert_alike(call(module, inputs), run(written, inputs))
    before, after = weights_of(model), weights_of(written)
    assert [key for key in after if key in before] == [key for key in before if key in after]
    assert set(after) - set(before) <= set(graph.clones) | ahead  # vectors of one value, set apart
    assert ahead or set(before) <= set(after)
    if name not in BARE:
        assert {key for key in after if before.get(key) != after[key]} == changed
    assert all(before[key][:2] == after[key][:2] for key in before if key in after)


FRESH = """(float[batch, 3, 5, 5] x) => (float[batch, 4, 1, 1] y)
  <float[4] one = {1, 1, 1, 1}, float[4] zero = {0, 0, 0, 0}> {
  mean = Identity(zero)
  scale = Identity(one)
  a = Conv(x, w)
  b = BatchNormalization(a, one, zero, mean, scale)
  c = Conv(b, v)
  y = BatchNormalization(c, scale, mean, zero, one)
}"""


def test_vectors_that_an_exporter_merged_by_copying_one_train_by_themselves():
    model = Net(FRESH, "w 4x3x3x3, v 4x4x3x3").build()
    graph = load(model)
    module = bridge(graph, norms="batch").train()
    inputs = feeds(model)
    for _ in range(2):
        sum(value.square().sum() for value in module(*tensors_of(module, inputs)).values()).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(0 if parameter.grad is None else 0.1 * parameter.grad.sign())
                parameter.grad = None
    written = updated(module, graph)
    onnx.checker.check_model(written)
    assert_alike(call(module.eval(), inputs), run(written, inputs))


def test_bridging_the_written_file_gives_the_weights_bit_for_bit(tmp_path):
    graph = load(NETS["residual"].build())
    module = bridge(graph)
    nudge(module)
    export(module, graph, tmp_path / "out.onnx")
    again = parameters(bridge(load(tmp_path / "out.onnx")))
    assert set(again) == set(parameters(module))
    assert all(torch.equal(value, again[name]) for name, value in parameters(module).items())


def test_tied_weights_stay_tied():
    graph = load(TIED.build())
    module = bridge(graph)
    nudge(module)
    written = updated(module, graph)
    assert [t.name for t in written.graph.initializer] == [t.name for t in TIED.build().graph.initializer]
    assert [list(n.input) for n in written.graph.node] == [list(n.input) for n in TIED.build().graph.node]


MERGED = Net(
    """(float[4,3,6,6] x) => (float[4,5,6,6] y)
       <float[8] ones = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0},
        float[8] zeros = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}> {
        a = Conv<kernel_shape=[1,1]>(x, w1)
        n = BatchNormalization(a, ones, zeros, zeros, ones)
        r = Relu(n)
        b = Conv<kernel_shape=[1,1]>(r, w2)
        m = BatchNormalization(b, ones, zeros, zeros, ones)
        s = Relu(m)
        y = Conv<kernel_shape=[1,1]>(s, w3)
    }""",
    "w1 8x3x1x1, w2 8x8x1x1, w3 5x8x1x1",
)


def test_vectors_of_one_value_that_an_exporter_merged_train_apart():
    model = MERGED.build()
    graph = load(model)
    module = bridge(graph, norms="batch")
    assert updated(module, graph) == model
    scales = [name for name in parameters(module) if name.startswith(("ones", "zeros"))]
    assert len(scales) == 4
    module(torch.randn(4, 3, 6, 6))
    nudge(module)
    module.eval()
    written = updated(module, graph)
    onnx.checker.check_model(written)
    inputs = feeds(model)
    assert_alike(call(module, inputs), run(written, inputs))
    assert len(written.graph.initializer) == len(model.graph.initializer) + 6
    again = load(written)
    assert not again.clones
    assert_alike(call(bridge(again), inputs), call(module, inputs), {})


def test_running_statistics_are_written():
    graph = load(NORMED.build())
    module = bridge(graph, norms="batch", freeze=["."])
    module(torch.randn(4, 3, 6, 6))
    before, after = weights_of(NORMED.build()), weights_of(updated(module, graph))
    assert {name for name in before if before[name] != after[name]} == {"m", "v"}


def test_half_precision_is_rounded_to_the_nearest():
    graph = load(NETS["half"].build())
    module = bridge(graph)
    nudge(module)
    after = weights_of(updated(module, graph))
    for name, parameter in parameters(module).items():
        kind, shape, data = after[name]
        assert kind == onnx.TensorProto.FLOAT16
        wanted = parameter.detach().numpy().astype(np.float16)
        assert shape == wanted.shape
        assert data == wanted.tobytes()


def test_external_data_stays_external(tmp_path):
    model = NETS["residual"].build()
    source = tmp_path / "in.onnx"
    onnx.save(model, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = load(source)
    module = bridge(graph)
    nudge(module)
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "out.onnx"
    export(module, graph, target)
    assert target.stat().st_size < (tmp_path / "there" / "out.onnx.data").stat().st_size + 10_000
    inputs = feeds(model)
    assert_alike(call(module, inputs), run(onnx.load(target), inputs))
    assert_alike(call(bridge(load(target)), inputs), call(module, inputs), {})


def test_sparse_weights_are_written_dense():
    model = TIED.build()
    (tensor,) = (t for t in model.graph.initializer if t.name == "w")
    dense = numpy_helper.to_array(tensor).copy()
    dense[np.abs(dense) < 0.3] = 0
    places = np.flatnonzero(dense)
    values = numpy_helper.from_array(dense.reshape(-1)[places], "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64)), dense.shape)
    model.graph.initializer.remove(tensor)
    model.graph.sparse_initializer.append(sparse)
    data = model.SerializeToString()
    graph = load(model)
    module = bridge(graph)
    assert updated(module, graph) == onnx.ModelProto.FromString(data)
    nudge(module)
    written = updated(module, graph)
    assert not written.graph.sparse_initializer
    inputs = feeds(TIED.build())
    assert_alike(call(module, inputs), run(written, inputs))


def test_a_function_used_twice_keeps_its_weights():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]> net (float[2,3] x) => (float[2,3] y)
           <float[3,3] w = {1.0, 2.0, 0.5, 0.1, 1.5, 0.3, 0.7, 0.9, 0.2}> {
            a = MatMul(x, w)
            b = own.layer(a)
            y = own.layer(b)
        }
        <domain: "own", opset_import: ["": 17]> layer (x) => (y) {
            v = Constant<value = float[3,3] {1.0, 0.5, 0.25, 2.0, 1.0, 0.5, 0.1, 0.2, 0.3}>()
            y = MatMul(x, v)
        }"""
    )
    graph = load(model)
    module = bridge(graph)
    assert set(parameters(module)) == {"w"}
    nudge(module)
    inputs = {"x": np.ones((2, 3), np.float32)}
    assert_alike(call(module, inputs), run(updated(module, graph), inputs))


def test_weights_that_ran_away_are_refused():
    graph = load(TIED.build())
    module = bridge(graph)
    with torch.no_grad():
        parameters(module)["w"].fill_(torch.nan)
    with pytest.raises(InputError, match="initializer w: training made it infinite or NaN"):
        updated(module, graph)
