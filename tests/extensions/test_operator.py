"""An operator of one's own: a rule for its axes, and a torch function to train; the file says what it computes."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxslim_learn.analysis import analyze
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.coupling.operators.elementwise import elementwise
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import OPERATORS, register_operator
from onnxslim_learn.workflow import slim

DOMAIN, NAME = "my.domain", "Wave"
WIDTH = 8


def wave(x):
    """A sine, in torch."""
    return torch.sin(x)


def model():
    """Return a small net with the operator between two layers; the file holds what it computes as a function."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    function = helper.make_function(DOMAIN, NAME, ["x"], ["y"], [helper.make_node("Sin", ["x"], ["y"])], opsets[:1])
    rng = np.random.default_rng(0)
    weights = {"w1": (4, WIDTH), "b1": (WIDTH,), "w2": (WIDTH, 3)}
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype("f4"), n) for n, s in weights.items()]
    nodes = [
        helper.make_node("Gemm", ["a", "w1", "b1"], ["h"], "first"),
        helper.make_node(NAME, ["h"], ["s"], "wave", domain=DOMAIN),
        helper.make_node("MatMul", ["s", "w2"], ["z"], "last"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", w]) for name, w in (("a", 4), ("z", 3))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)


@pytest.fixture
def declared():
    """Declare the operator for a test."""
    yield register_operator(DOMAIN, NAME, elementwise, torch=wave)
    OPERATORS.remove(f"{DOMAIN}:{NAME}")


def run(path, feeds):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def test_its_model_is_analysed_and_slimmed(tmp_path, declared):
    onnx.save(model(), tmp_path / "net.onnx")
    found = analyze(tmp_path / "net.onnx")
    (group,) = (group for group in found.groups if group.pin is None)
    assert (group.width, found.opaque) == (WIDTH, {})
    assert [node.op_type for node in found.graph.nodes] == ["Gemm", NAME, "MatMul"]
    slimmed, check = slim.slim_to(found, {"params": 0.6}, tmp_path / "slim.onnx")
    assert check.passed
    assert analyze(tmp_path / "slim.onnx").group(group.name).width == len(slimmed.plan.groups[group.name])
    assert run(tmp_path / "slim.onnx", {"a": np.zeros((2, 4), "f4")}).shape == (2, 3)


def test_its_model_is_trained(tmp_path, declared):
    onnx.save(model(), tmp_path / "net.onnx")
    feeds = {"a": np.random.default_rng(1).normal(size=(5, 4)).astype("f4")}
    module = bridge(analyze(tmp_path / "net.onnx"))
    outputs = module(torch.from_numpy(feeds["a"]))
    found = outputs["z"] if isinstance(outputs, dict) else outputs
    np.testing.assert_allclose(found.detach().numpy(), run(tmp_path / "net.onnx", feeds), rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in module.parameters())


def test_without_it_the_function_in_the_file_counts(tmp_path):
    onnx.save(model(), tmp_path / "net.onnx")
    assert [node.op_type for node in analyze(tmp_path / "net.onnx").graph.nodes] == ["Gemm", "Sin", "MatMul"]


def test_declaring_it_twice_is_refused(declared):
    with pytest.raises(InputError, match=r"my.domain:Wave: there is one of this name already"):
        register_operator(DOMAIN, NAME, elementwise)
