"""The time of every node of a file: attributed, complete, and nothing is left behind."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxslim_learn.errors import InputError
from onnxslim_learn.latency import attribution
from onnxslim_learn.latency import node_times as nodes_module
from onnxslim_learn.latency.attribution import LAYOUT, OTHER
from onnxslim_learn.latency.node_times import per_node
from tests.runtime.timed_nets import branch_net, conv_net, function_net, image, matmul_net, one_sentence, saved


def timed(model, feeds, **options):
    (rows,) = per_node([model], [feeds], **options)
    return rows


def attributed(rows):
    return sum(row.share for row in rows if row.name not in (LAYOUT, OTHER))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_per_node_gives_fused_time_to_the_convolutions(tmp_path, as_bytes):
    path = saved(conv_net(), tmp_path)
    before = path.read_bytes()
    rows = timed(before if as_bytes else path, image(), runs=5)
    assert attributed(rows) >= 0.9
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert [(row.name, row.op_type) for row in rows[:2]] == [("last", "Conv"), ("first", "Conv")]
    assert [row.ms for row in rows] == sorted((row.ms for row in rows), reverse=True)
    assert path.read_bytes() == before


def test_models_in_turns_keep_their_own_nodes(tmp_path):
    paths = [saved(conv_net(), tmp_path, "a.onnx"), saved(matmul_net(512), tmp_path, "b.onnx")]
    feeds = [image(), {"x": np.ones((64, 512), np.float32)}]
    first, second = per_node(paths, feeds, runs=5)
    assert {row.name for row in first} == {row.name for row in timed(paths[0], feeds[0], runs=5)}
    assert [(row.name, row.op_type) for row in second] == [("mm", "MatMul")]


def test_per_node_names_what_the_file_leaves_unnamed(tmp_path):
    rows = timed(saved(conv_net(named=False), tmp_path), image(), runs=5)
    assert attributed(rows) >= 0.9
    assert [(row.name, row.op_type) for row in rows[:2]] == [("y", "Conv"), ("a", "Conv")]


def test_per_node_reads_weights_from_other_files(tmp_path):
    path = tmp_path / "outside.onnx"
    onnx.save(conv_net(named=False), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert attributed(timed(path, image(), runs=5)) >= 0.9
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError) as error:
        timed(path, image(), runs=5)
    assert one_sentence(error)


def test_per_node_runs_a_large_file_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes_module, "_MOST_BYTES", 0)
    path = saved(conv_net(named=False), tmp_path)
    assert nodes_module._named(path, onnx.load(path)) == (path, False)
    rows = timed(path, image(), runs=5)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert attributed(timed(saved(conv_net(), tmp_path), image(), runs=5)) >= 0.9


def test_per_node_gives_the_nodes_of_subgraphs_their_own_time():
    feeds = {"x": np.eye(64, dtype=np.float32), "c": np.array(True)}
    rows = {row.name: row for row in timed(branch_net().SerializeToString(), feeds)}
    assert {"choice", "product", "loop", "power", "bound"} <= set(rows)
    assert "bend" not in rows
    assert sum(row.share for row in rows.values()) == pytest.approx(1)


def test_per_node_gives_the_nodes_of_a_function_to_its_call():
    rows = timed(function_net().SerializeToString(), {"x": np.ones((64, 4096), np.float32)}, runs=5)
    assert {(row.name, row.op_type) for row in rows} == {("call", "bend"), ("again", "bend"), ("end", "Neg")}


def test_per_node_refuses_in_one_sentence_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes_module.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = saved(conv_net(), tmp_path)
    for model, feeds, options in (
        ("nowhere.onnx", {}, {}),
        (b"no protobuf", {}, {}),
        (path, {"x": np.ones((1, 4, 56, 56), np.float32)}, {}),
        (path, image(), {"runs": 0}),
        (path, image(), {"provider": "MagicExecutionProvider"}),
    ):
        with pytest.raises(InputError) as error:
            timed(model, feeds, **options)
        assert one_sentence(error)
    timed(path, image(), runs=1)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_names_become_unique_and_stay_where_they_are():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="one"),
        helper.make_node("Relu", ["b"], ["one"]),
        helper.make_node("Relu", ["one"], ["c"], name="one_2"),
        helper.make_node("Relu", ["c"], ["d"]),
    ]
    assert nodes_module._give_names(nodes)
    assert [node.name for node in nodes] == ["one", "one_3", "one_4", "one_2", "d"]
    assert not nodes_module._give_names(nodes)


def test_own_time_leaves_out_what_runs_inside():
    def event(name, start, length):
        return {"name": f"{name}_kernel_time", "ts": start, "dur": length, "args": {"op_name": name}}

    events = [
        event("Loop", 0, 100),
        event("If", 10, 50),
        event("Add", 20, 30),
        event("Add", 70, 5),
        event("Mul", 100, 7),
    ]
    own = nodes_module._own_times(events)
    assert own == {("Loop", "Loop"): 45, ("If", "If"): 20, ("Add", "Add"): 35, ("Mul", "Mul"): 7}


@pytest.mark.parametrize(
    ("event", "row"),
    [
        (("fc", "MatMul"), ("fc", "MatMul")),
        (("fused fc", "FusedGemm"), ("fc", "MatMul")),
        (("fc/MatmulTransposeFusion//MatMulScaleFusion/", "FusedMatMul"), ("fc", "MatMul")),
        (("fc/MatMulAddFusion", "Gemm"), ("fc", "MatMul")),
        (("flat_new_reshape", "Reshape"), ("flat", "Reshape")),
        (("r_nchwc", "Conv"), ("conv", "Conv")),  # named after the tensor of the activation it absorbed
        (("s_bn_nchwc", "Conv"), ("norm", "BatchNormalization")),  # a normalisation with no convolution to join
        (("InsertedPrecisionFreeCast_r_nchwc", "Conv"), ("conv", "Conv")),  # single precision inside a half one
        (("ReorderInput_token_3", "ReorderInput"), (LAYOUT, "ReorderInput")),
        (("Transpose_9", "Transpose"), (LAYOUT, "Transpose")),
        (("Skip", "SkipLayerNormalization"), ("fc", "MatMul")),  # known only by what it computes
        (("Before", "Mystery"), ("fc", "MatMul")),  # known only by what it leads to
        (("Unknown_7", "Mystery"), (OTHER, "Mystery")),
    ],
)
def test_events_go_to_the_nodes_they_come_from(event, row):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["m"], name="pool"),
        helper.make_node("BatchNormalization", ["m", "a", "b", "d", "e"], ["s"], name="norm"),
        helper.make_node("Reshape", ["s", "shape"], ["t"], name="flat"),
        helper.make_node("MatMul", ["t", "v"], ["y"], name="fc"),
    ]
    optimised = [helper.make_node("Mystery", ["t"], ["inner"], name="Before")]
    optimised.append(helper.make_node("SkipLayerNormalization", ["inner"], ["y"], name="Skip"))
    events = {("r_nchwc", "Conv"), ("m_nchwc", "MaxPool"), event}
    assert attribution.attribute(events, nodes, optimised)[event] == row
