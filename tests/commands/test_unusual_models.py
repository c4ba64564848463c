"""Models without inputs, with outputs that are no tensors, and larger than memory are cut, or refused in a sentence."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxslim_learn as osl
from nets.notation import Net
from nets.zoo import NETS
from onnxslim_learn.errors import InputError, reason


def without_inputs(model):
    (given,) = model.graph.input
    shape = [dim.dim_value or 1 for dim in given.type.tensor_type.shape.dim]
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, given.name))
    del model.graph.input[:]


def beside(operator, make_type):
    """Let a model put its output out once more, as another type than a tensor."""

    def change(model):
        model.graph.node.append(helper.make_node(operator, [model.graph.output[0].name], ["kept"]))
        held = make_type(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        model.graph.output.append(helper.make_value_info("kept", held))

    return change


CHANGES = {
    "without inputs": without_inputs,
    "a sequence": beside("SequenceConstruct", helper.make_sequence_type_proto),
    "an optional tensor": beside("Optional", helper.make_optional_type_proto),
}


@pytest.mark.parametrize("change", CHANGES)
def test_unusual_models_are_cut(tmp_path, change):
    model = NETS["residual"].build()
    CHANGES[change](model)
    onnx.save(model, tmp_path / "net.onnx")
    result = osl.slim(tmp_path / "net.onnx", macs=0.7, output=tmp_path / "slim.onnx", samples=16, no_latency=True)
    assert result.passed
    whole, cut = (ort.InferenceSession(tmp_path / name) for name in ("net.onnx", "slim.onnx"))
    feed = {one.name: np.ones(one.shape, np.float32) for one in whole.get_inputs()}
    outputs = [session.run(None, feed) for session in (whole, cut)]
    assert [type(one) for one in outputs[0]] == [type(one) for one in outputs[1]]
    assert outputs[0][0].shape == outputs[1][0].shape


def test_samples_for_a_model_without_inputs_are_refused(tmp_path):
    model = NETS["residual"].build()
    without_inputs(model)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(InputError, match=r"the model has no inputs that samples could feed"):
        osl.slim(tmp_path / "net.onnx", macs=0.7, output=tmp_path / "slim.onnx", data={"x": np.ones((4, 3, 8, 8), "f")})


def test_that_memory_does_not_suffice_is_said_in_plain_words():
    said = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Expand node. Name:'' Status "
        "Message: /onnxruntime_src/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
        "onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 68719476736\n"
    )
    assert reason(RuntimeError(said)) == "a node (Expand) needs 68719476736 bytes at once, more memory than there is"


def product(inputs, outputs, *more):
    """Two layers, whose first reads an input or a constant."""
    rng = np.random.default_rng(0)
    sizes = {"x": (4, 6), "a": (6, 8), "b": (8, 5)}
    weights = {n: rng.normal(size=size).astype(np.float32) for n, size in sizes.items() if n not in inputs}
    nodes = [["MatMul", "x a", "h"], ["Relu", "h", "r"], ["MatMul", "r b", "y"], *more]
    graph = helper.make_graph(
        [helper.make_node(op, read.split(), [out], out) for op, read, out in nodes],
        "product",
        [helper.make_tensor_value_info(name, 1, sizes[name]) for name in inputs],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_model_without_inputs_is_widened(tmp_path):
    onnx.save(product([], [helper.make_tensor_value_info("y", 1, [4, 5])]), tmp_path / "net.onnx")
    result = osl.expand(tmp_path / "net.onnx", macs=1.5, output=tmp_path / "wide.onnx", no_latency=True)
    assert result.report["after"]["macs"] > result.report["before"]["macs"]
    before, after = (ort.InferenceSession(tmp_path / name).run(None, {})[0] for name in ("net.onnx", "wide.onnx"))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("command", ["slim", "sparsify", "expand"])
def test_a_model_that_puts_out_a_sequence_alone_is_taken(tmp_path, command):
    sequence = helper.make_tensor_sequence_value_info("s", 1, None)
    onnx.save(product(["x"], [sequence], ["SequenceConstruct", "y y", "s"]), tmp_path / "net.onnx")
    asked = {"slim": {"macs": 0.6, "samples": 4}, "sparsify": {"ratio": 0.5, "samples": 4}, "expand": {"macs": 1.5}}
    result = getattr(osl, command)(
        tmp_path / "net.onnx", output=tmp_path / "new.onnx", no_latency=True, **asked[command]
    )
    assert result.passed
    x = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    assert len(ort.InferenceSession(tmp_path / "new.onnx").run(None, {"x": x})[0]) == 2


def test_a_model_that_puts_out_a_sequence_beside_a_tensor_is_learned():
    weights = {"w": (6, 8), "v": (8, 12), "u": (12, 3)}
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        net (float[n,6] x) => (seq(float[n,8]) inner, float[n,3] y) {
            a = MatMul(x, w) r = Relu(a) inner = SequenceConstruct(r, r) b = MatMul(r, v) s = Relu(b) y = MatMul(s, u)
        }""")
    arrays = [onnx.numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()]
    model.graph.initializer.extend(arrays)
    result = osl.learn(model, macs=0.8, steps=2, finetune_steps=2, samples=8, no_latency=True)
    assert result.report["verify"]["passed"]


def test_a_weight_that_is_put_out_is_told_like_other_outputs():
    """The newer exporter puts out constants so; nothing computes them."""
    text = (
        "(float[n,6] x) => (float[n,3] y, float[3] k) { h = MatMul(x, w1) r = Relu(h) z = MatMul(r, w2) y = Mul(z, k) }"
    )
    model = Net(text, "w1 6x16, w2 16x3, k 3").build()
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    made = osl.slim(model, macs=0.6, data={"x": x}, latency=False)
    assert made.report["verify"]["complaint"] == ""
    learnt = osl.learn(model, macs=0.6, data={"x": x}, steps=2, finetune_steps=2, latency=False)
    assert learnt.report["verify"]["complaint"] == ""


def test_edges_are_no_samples_though_their_axis_comes_first():
    """As many are listed in pairs along another axis: a batch of nodes beside a batch of edges fits no list."""
    text = """(float[n,6] x, int64[2,m] pairs, float[m,2] gaps) => (float[n,3] y) {
        h = MatMul(x, w1) r = Relu(h) f = Gather(pairs, [0]) s = Squeeze(f, [0]) g = Gather(r, s) e = MatMul(gaps, w3)
        p = Mul(g, e) t = ReduceMean<axes=[0], keepdims=1>(p) q = Add(r, t) y = MatMul(q, w2)
    }"""
    model = Net(text, "w1 6x16, w2 16x3, w3 2x16").build()
    assert osl.slim(model, macs=0.6, latency=False).report["verify"]["complaint"] == ""
