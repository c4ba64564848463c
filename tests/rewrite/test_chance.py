"""Models that draw noise are verified: both get the same, of the distribution that is asked for."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxslim_learn.coupling.removal import removal
from onnxslim_learn.rewrite import chance
from onnxslim_learn.workflow import slim
from tests import laws

N = helper.make_node
DRAWN = {
    "normal like": (N("RandomNormalLike", ["x"], ["z"], mean=2.0, scale=3.0), 2.0, 3.0),
    "normal": (N("RandomNormal", [], ["z"], shape=[2, 50, 40], mean=-1.0, scale=0.5), -1.0, 0.5),
    "uniform like": (N("RandomUniformLike", ["x"], ["z"], low=-1.0, high=1.0), 0.0, 1 / np.sqrt(3)),
    "uniform": (N("RandomUniform", [], ["z"], shape=[2, 50, 40]), 0.5, 1 / np.sqrt(12)),
}


def model(node):
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
        for n, s in (("a", (40, 12)), ("b", (12, 3)))
    ]
    nodes = [node, N("Add", ["x", "z"], ["s"]), N("MatMul", ["s", "a"], ["h"]), N("Relu", ["h"], ["r"])]
    nodes += [N("MatMul", ["r", "b"], ["y"])]
    ends = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [2, 50, 40]), ("y", [2, 50, 3]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("name", DRAWN)
def test_noise_of_the_distribution_is_the_same_in_every_run(name, tmp_path):
    node, mean, deviation = DRAWN[name]
    proto = model(node)
    proto.graph.output.append(helper.make_tensor_value_info("z", 1, [2, 50, 40]))
    onnx.save(proto, tmp_path / "m.onnx")
    same = onnx.load(chance.without(tmp_path / "m.onnx", tmp_path / "same"))
    feeds = {"x": np.ones((2, 50, 40), np.float32)}
    one, other = (laws.run(same, feeds)["z"] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert abs(one.mean() - mean) < 0.1 * deviation
    assert abs(one.std() - deviation) < 0.1 * deviation
    assert len(np.unique(one)) > 0.9 * one.size


@pytest.mark.parametrize("name", DRAWN)
def test_a_model_that_draws_noise_is_cut_and_verified(name, tmp_path):
    onnx.save(model(DRAWN[name][0]), tmp_path / "m.onnx")
    _, check = slim.slim_to(slim.analyze(tmp_path / "m.onnx"), {"macs": 0.5}, tmp_path / "s.onnx")
    assert check.passed
    assert check.undecided == 0
    assert DRAWN[name][0].op_type in [node.op_type for node in onnx.load(tmp_path / "s.onnx").graph.node]


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_left_of_noise_is_cut_and_has_the_numbers_of_the_original(name, tmp_path):
    proto = model(DRAWN[name][0])
    first = N("MatMul", ["v", "c"], ["x"])
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(40, dtype=np.float32) * 2, "c"))
    proto.graph.input[0].name = "v"
    proto.graph.node.insert(0, first)
    onnx.save(proto, tmp_path / "m.onnx")
    analysis = slim.analyze(tmp_path / "m.onnx")
    (group,) = [group for group in analysis.groups if len(group.units) == 40]
    plan = slim.describe(analysis, removal(analysis.coupling, group.units[1:9]), {})
    slim.slim(analysis, plan).save(tmp_path / "s.onnx")  # checks that slimmed = masked
    drawn = chance.left(removal(analysis.coupling, group.units[1:9]))
    numbers = {}
    for file, left in (("m", None), ("s", drawn)):
        same = onnx.load(chance.without(tmp_path / f"{file}.onnx", tmp_path / file, left))
        same.graph.output.append(helper.make_tensor_value_info("z", 1, None))
        numbers[file] = laws.run(same, {"v": np.ones((2, 50, 40), np.float32)})["z"]
    assert numbers["s"].shape == (2, 50, 32)
    stays = [k for k in range(40) if (numbers["m"][..., k, None] == numbers["s"]).all((0, 1)).any()]
    assert len(stays) == 32


def test_numbers_that_a_seed_tells_are_not_cut(tmp_path):
    proto = model(N("RandomNormalLike", ["w"], ["z"], seed=1.0))
    proto.graph.node.insert(0, N("MatMul", ["x", "c"], ["w"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(40, dtype=np.float32), "c"))
    reasons = [group.pin.reason for group in slim.analyze(proto).groups if group.pin is not None]
    assert any("draws numbers by a seed" in reason for reason in reasons)


def test_noise_that_a_function_of_the_file_draws_is_the_same_for_both(tmp_path):
    proto = model(N("Noise", ["x"], ["z"], domain="mine"))
    body = [N("RandomNormalLike", ["v"], ["n"])]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("mine", "Noise", ["v"], ["n"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    onnx.save(proto, tmp_path / "m.onnx")
    _, check = slim.slim_to(slim.analyze(tmp_path / "m.onnx"), {"macs": 0.5}, tmp_path / "s.onnx")
    assert check.passed
