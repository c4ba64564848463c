"""A model run in stretches computes what it computes in one."""

import numpy as np
import onnx_ir as ir
import pytest

from nets.notation import Net
from nets.zoo import NETS
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.runtime import executor
from onnxslim_learn.runtime.executor import Runner
from tests.laws import RELATIVE, analysed


def stretches(name, every):
    graph = analysed(name).graph
    feeds = [random_inputs(analysed(name).coupling, graph.shapes.analysis, seed) for seed in range(2)]
    found = Runner(graph.model.clone(), feeds, ())
    for stop in range(every, len(found.nodes), every):
        found.run_to(stop)
    found.finish()
    return {str(v.name): found.get(str(v.name)) for v in graph.model.graph.outputs}


@pytest.mark.parametrize("name", NETS)
def test_stretches_give_the_outputs_of_the_whole(name):
    whole, parts = stretches(name, 10**6), stretches(name, 2)
    for output, arrays in whole.items():
        for a, b in zip(arrays, parts[output], strict=True):
            if a.dtype.kind == "f":
                assert np.abs(a - b).max(initial=0) <= RELATIVE[a.dtype.name] * np.abs(a).max(initial=1), output
            else:
                assert np.array_equal(a, b), output


def test_sizes_that_a_stretch_computes_from_its_inputs_are_sizes():
    """onnx takes sizes of a tensor of an unknown number of axes for none at all."""
    text = """(float[n, 3, h, w] x) => (float[n, 3, u, v] y) {
        r = Relu(x) m = Shape<start=2>(r) half = Div(m, {2}) sizes = Concat<axis=0>([1, 3], half)
        y = Resize(table, , , sizes)
    }"""
    model = Net(text, "table 1x3x9x9", opset=18).build()
    feeds = [{"x": np.random.default_rng(0).standard_normal((1, 3, 8, 6)).astype(np.float32)}]
    runner = Runner(load(model).model.clone(), feeds, ())
    runner.run_to(1)
    runner.finish()
    assert runner.get("y")[0].shape == (1, 3, 4, 3)


def test_sizes_put_together_from_a_shape_and_from_lengths_outside_are_sizes():
    """onnxruntime takes them for none where it does not know how many the latter are."""
    text = """(float[b, 3, h, w] x) => (float[b, 4, h, w] y) {
        n = Shape<start=2, end=3>(x) m = Shape<start=3, end=4>(x)
        c = Conv<strides=[2,2]>(x, w1) r = LeakyRelu(c)
        s = Shape<start=0, end=2>(r) t = Concat<axis=0>(n, m) u = Concat<axis=0>(s, t) y = Resize(r, , , u)
    }"""
    graph = load(Net(text, "w1 4x3x1x1", opset=18).build())
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 6)).astype(np.float32)
    for stop in range(len(graph.nodes)):
        runner = Runner(graph.model.clone(), [{"x": x}, {"x": x[:1]}], ())
        runner.run_to(stop)
        runner.finish()
        assert [array.shape for array in runner.get("y")] == [(2, 4, 8, 6), (1, 4, 8, 6)]


def test_only_what_later_nodes_need_is_held():
    graph = analysed("residual").graph
    found = Runner(graph.model.clone(), [random_inputs(analysed("residual").coupling, graph.shapes.analysis)], ())
    for stop in range(1, len(found.nodes) + 1):
        found.run_to(stop)
        needed = {str(v.name) for node in found.nodes[stop:] for v in node.inputs if v is not None}
        assert set(found._held) <= needed | found.outputs


def test_activations_beyond_the_limit_lie_on_disk(monkeypatch):
    name = "residual"
    in_memory = stretches(name, 1)
    monkeypatch.setattr(executor, "IN_MEMORY", 1000)
    on_disk = stretches(name, 1)
    assert any(isinstance(a, np.memmap) for arrays in on_disk.values() for a in arrays)
    for output, arrays in in_memory.items():
        assert all(np.array_equal(a, b) for a, b in zip(arrays, on_disk[output], strict=True))


def test_weights_may_change_until_their_node_runs():
    name = next(n for n in NETS if any(node.op_type == "Conv" for node in analysed(n).graph.nodes))
    graph = analysed(name).graph
    model = graph.model.clone()
    place = next(k for k, node in enumerate(model.graph) if node.op_type == "Conv")
    found = Runner(model, [random_inputs(analysed(name).coupling, graph.shapes.analysis)], ())
    found.run_to(place)
    weight = list(model.graph)[place].inputs[1]
    weight.const_value = ir.tensor(np.zeros(weight.const_value.shape, np.float32), name=weight.name)
    found.kept.add(str(list(model.graph)[place].outputs[0].name))
    found.run_to(place + 1)
    (output,) = found.get(str(list(model.graph)[place].outputs[0].name))
    assert np.ptp(output, axis=(0, 2, 3)).max() == 0


@pytest.mark.parametrize(("limit", "value"), [("HANDED", 1), ("HANDED", 1 << 40), ("WEIGHTS", 0)])
@pytest.mark.parametrize("name", ["residual", "attention"])
def test_values_that_are_handed_out_batch_by_batch_are_those_of_a_whole_run(name, limit, value, monkeypatch):
    analysis = analysed(name)
    model = analysis.graph.model
    feeds = [random_inputs(analysis.coupling, analysis.graph.shapes.analysis, seed) for seed in range(3)]
    names = {str(v.name) for v in [*model.graph.inputs, *model.graph.outputs]}
    names |= {str(node.outputs[0].name) for node in list(model.graph)[::2]}
    whole = Runner(model.clone(), feeds, names)
    whole.finish()
    monkeypatch.setattr(executor, limit, value)
    seen = {one: {} for one in names}
    for batch, values in executor.streamed(model.clone(), feeds, names):
        for one, array in values.items():
            assert batch not in seen[one], "handed out twice"
            seen[one][batch] = array
    for one, arrays in seen.items():
        assert list(arrays) == [0, 1, 2]
        for a, b in zip(arrays.values(), whole.get(one), strict=True):
            assert np.abs(a - b).max(initial=0) <= RELATIVE["float32"] * np.abs(b).max(initial=1), one


def test_where_nothing_is_asked_for_nothing_is_handed_out():
    """As of a model whose weights are all quantized."""
    graph = analysed("residual").graph
    feeds = [random_inputs(analysed("residual").coupling, graph.shapes.analysis)]
    assert list(executor.streamed(graph.model.clone(), feeds, [])) == []


def test_what_is_handed_out_and_not_needed_is_not_held():
    graph = analysed("residual").graph
    found = Runner(graph.model.clone(), [random_inputs(analysed("residual").coupling, graph.shapes.analysis)], ())
    inside = [str(v.name) for node in found.nodes for v in node.outputs]
    handed = [name for _, values in found.taken(len(found.nodes), inside) for name in values]
    assert set(handed) == set(inside)
    assert set(found._held) <= found.outputs
