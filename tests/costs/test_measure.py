import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from onnxslim_learn.costs import attribution
from onnxslim_learn.costs import measure as measure_module
from onnxslim_learn.costs.attribution import LAYOUT, OTHER
from onnxslim_learn.costs.measure import CPU, Latency, Timings, compare, measure, open_session, per_node
from onnxslim_learn.errors import InputError

HEAD = '<ir_version: 9, opset_import: ["": 18]>'


def matmul_net(width):
    net = parser.parse_model(f"{HEAD} net (float[N,{width}] x) => (float[N,{width}] y) {{ [mm] y = MatMul(x, w) }}")
    net.graph.initializer.append(numpy_helper.from_array(np.ones((width, width), np.float32) / width, "w"))
    return net


def conv_net(named=True):
    net = parser.parse_model(
        f"""{HEAD}
        net (float[N,3,56,56] x) => (float[N,64,56,56] y) {{
            [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            [middle] b = Relu(a)
            [last] y = Conv <pads = [1, 1, 1, 1]> (b, w2)
        }}"""
    )
    for name, shape in (("w1", (64, 3, 3, 3)), ("w2", (64, 64, 3, 3))):
        net.graph.initializer.append(numpy_helper.from_array(np.full(shape, 0.01, np.float32), name))
    for node in net.graph.node if not named else ():
        node.name = ""
    return net


def branch_net():
    return parser.parse_model(
        f"""{HEAD}
        net (float[64,64] x, bool c) => (float[64,64] y, float[64,64] z) <int64 n = {{4}}, bool go = {{1}}> {{
            [choice] y = If (c) <
                then_branch = yes () => (float[64,64] p) {{ [product] p = MatMul(x, x) }},
                else_branch = no () => (float[64,64] q) {{ [bend] q = Tanh(x) }}
            >
            [loop] z = Loop (n, go, x) <
                body = turn (int64 i, bool on, float[64,64] s) => (bool off, float[64,64] t) {{
                    [keep] off = Identity(on)
                    [power] r = MatMul(s, s)
                    [bound] t = Tanh(r)
                }}
            >
        }}"""
    )


def function_net():
    return parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18, "own": 1]>
        net (float[N,4096] x) => (float[N,4096] y) { [call] a = own.bend(x) [again] b = own.bend(a) [end] y = Neg(b) }
        <domain: "own", opset_import: ["": 18]> bend (x) => (z) { u = Exp(x) v = Sin(u) z = Tanh(v) }"""
    )


def image(batch=1):
    return {"x": np.ones((batch, 3, 56, 56), np.float32)}


def saved(net, folder, name="net.onnx"):
    path = Path(folder) / name
    onnx.save(net, path)
    return path


def one_sentence(error):
    """Whether an error reads as one line: what is wrong, and at most one sentence more on what to do."""
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and text.count(". ") <= 1


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, which no profile may be left in."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    yield
    assert list(cwd.iterdir()) == []


def test_import_leaves_the_runtimes_alone():
    code = "import sys, onnxslim_learn.costs.measure; print({'onnx', 'onnxruntime', 'torch'} & set(sys.modules))"
    root = Path(measure_module.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_open_session_computes_at_the_shapes_of_the_feeds(tmp_path, as_bytes, batch):
    net = matmul_net(8)
    session = open_session(net.SerializeToString() if as_bytes else saved(net, tmp_path))
    (y,) = session.run(None, {"x": np.full((batch, 8), 2, np.float32)})
    np.testing.assert_allclose(y, np.full((batch, 8), 2), rtol=1e-6)  # a mean of eight equal numbers


def test_open_session_optimises_unless_told_not_to(tmp_path):
    def events(optimize):
        session = open_session(
            conv_net().SerializeToString(), optimize=optimize, profile_to=tmp_path / f"profile-{optimize}"
        )
        session.run(None, image())
        profile = Path(session.end_profiling())
        assert profile.parent == tmp_path
        return profile.read_text()

    assert '"middle_kernel_time"' in events(False)
    assert '"middle_kernel_time"' not in events(True)


def test_open_session_fixes_the_threads():
    options = open_session(matmul_net(8).SerializeToString(), threads=2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level) == (2, 1, 4)


def unknown_operator():
    info = helper.make_tensor_value_info("x", 1, [1]), helper.make_tensor_value_info("y", 1, [1])
    return helper.make_model(helper.make_graph([helper.make_node("Foo", ["x"], ["y"])], "net", info[:1], info[1:]))


@pytest.mark.parametrize(
    ("model", "options", "told"),
    [
        ("nowhere.onnx", {}, "nowhere.onnx"),
        (b"", {}, "model: onnxruntime must accept"),
        (b"no protobuf", {}, "model: onnxruntime must accept"),
        (unknown_operator().SerializeToString(), {}, "Foo"),
        (matmul_net(8).SerializeToString(), {"provider": "MagicExecutionProvider"}, CPU),
        (matmul_net(8).SerializeToString(), {"threads": 0}, "threads"),
    ],
)
def test_open_session_refuses_in_one_sentence(model, options, told):
    with pytest.raises(InputError) as error:
        open_session(model, **options)
    assert one_sentence(error)
    assert told in str(error.value)
    assert "ONNXRuntimeError" not in str(error.value)


def test_measure_times_paired_rounds(tmp_path):
    parts = []
    models = [saved(matmul_net(8), tmp_path, "a.onnx"), str(saved(matmul_net(16), tmp_path, "b.onnx"))]
    feeds = [{"x": np.ones((2, width), np.float32)} for width in (8, 16)]
    timings = measure(models, feeds, seconds=0.05, progress=parts.append)
    rounds, columns = timings.ms.shape
    assert 10 <= rounds <= 2000
    assert columns == len(timings.load_ms) == 2
    assert (timings.ms > 0).all()
    assert len(parts) == rounds
    assert parts == sorted(parts)
    assert parts[-1] == 1
    for latency, load_ms, column in zip(timings.latencies(), timings.load_ms, timings.ms.T, strict=True):
        assert latency.low_ms <= latency.median_ms <= latency.high_ms
        assert (latency.runs, latency.threads, latency.provider) == (rounds, 1, CPU)
        assert latency.load_ms == load_ms > 0
        assert latency.median_ms == pytest.approx(np.median(column))


def test_latency_gives_the_throughput_of_a_batch():
    assert Latency(4.0, 3.0, 5.0, 10, 1, CPU, 1.0).throughput(8) == 2000


def test_latencies_are_quantiles_of_the_columns():
    timings = Timings(np.stack([np.arange(101.0), np.arange(101.0) * 2], axis=1), (1.0, 2.0), 3, CPU)
    assert timings.latencies() == [
        Latency(50.0, 10.0, 90.0, 101, 3, CPU, 1.0),
        Latency(100.0, 20.0, 180.0, 101, 3, CPU, 2.0),
    ]


def test_a_much_larger_product_is_slower(tmp_path):
    models = [saved(matmul_net(width), tmp_path, f"{width}.onnx") for width in (32, 1024)]
    feeds = [{"x": np.ones((64, width), np.float32)} for width in (32, 1024)]
    timings = measure(models, feeds, seconds=0.1)
    small, large = timings.latencies()
    assert large.median_ms > 2 * small.median_ms  # 1024 times the multiplications
    assert compare(timings, 1).median > 2
    assert compare(timings, 0, base=1).median < 0.5


class FakeSession:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def run(self, _, feeds):
        self.log.append(self.name)


def test_rounds_shuffle_all_models_and_stop_at_the_limits():
    log = []
    runs = [(FakeSession(name, log), {}) for name in range(3)]
    assert measure_module._rounds(runs, 0.0, lambda part: None).shape == (10, 3)
    orders = [tuple(log[start : start + 3]) for start in range(0, len(log), 3)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len(set(orders)) > 1
    assert measure_module._rounds(runs, math.inf, lambda part: None).shape == (2000, 3)


def test_warm_up_waits_until_the_times_settle(monkeypatch):
    session = open_session(matmul_net(8).SerializeToString())

    def runs(times):
        left = list(times)
        monkeypatch.setattr(measure_module, "_run", lambda session, feeds: left.pop(0))
        measure_module._warm_up(b"", session, {}, seconds=60.0)
        return len(times) - len(left)

    assert runs([1.0] * 99) == 5
    assert runs([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0] + [1.0] * 99) > 9
    assert runs([2.0 ** -float(step) for step in range(99)]) == 50


@pytest.mark.parametrize(
    ("feeds", "told"),
    [
        ([], "0 for 1 models"),
        ([{}], "x tensor(float)"),
        ([{"x": np.ones((1, 9), np.float32)}], "invalid dimensions"),
        ([{"x": np.ones((1, 8))}], "tensor(double)"),
        ([{"x": np.ones((1, 8), np.float32), "z": np.ones(1)}], "z"),
    ],
)
def test_measure_refuses_feeds_in_one_sentence(tmp_path, feeds, told):
    with pytest.raises(InputError) as error:
        measure([saved(matmul_net(8), tmp_path)], feeds)
    assert one_sentence(error)
    assert told in str(error.value)


def timings_of(ms):
    return Timings(np.asarray(ms, np.float64), (0.0,) * np.shape(ms)[1], 1, CPU)


def test_compare_repeats_itself_and_knows_its_seed():
    timings = timings_of(np.random.default_rng(3).lognormal(size=(40, 3)))
    first = compare(timings, 2)
    assert first == compare(timings, 2)
    assert len({compare(timings, 2, resamples=20, seed=seed) for seed in range(5)}) > 1
    assert first.low < first.median < first.high
    assert first.median == pytest.approx(np.median(timings.ms[:, 2] / timings.ms[:, 0]))


def test_compare_cancels_what_a_round_shares():
    weather = np.random.default_rng(0).lognormal(sigma=2, size=(30, 1))
    ratio = compare(timings_of(weather * [1.0, 0.75]), 1)
    np.testing.assert_allclose([ratio.median, ratio.low, ratio.high], 0.75, rtol=1e-12)  # one rounding each


def test_compare_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        noise = rng.lognormal(sigma=0.2, size=51)
        ratio = compare(timings_of(np.stack([np.ones(51), 0.8 * noise], axis=1)), 1, resamples=400)
        held += ratio.low <= 0.8 <= ratio.high
    assert 0.88 <= held / 200 <= 0.99  # 95 % nominal; three standard errors of 200 draws are 4.6 %


def attributed(rows):
    return sum(row.share for row in rows if row.name not in (LAYOUT, OTHER))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_per_node_gives_fused_time_to_the_convolutions(tmp_path, as_bytes):
    path = saved(conv_net(), tmp_path)
    before = path.read_bytes()
    rows = per_node(before if as_bytes else path, image(), runs=5)
    assert attributed(rows) >= 0.9
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert [(row.name, row.op_type) for row in rows[:2]] == [("last", "Conv"), ("first", "Conv")]
    assert [row.ms for row in rows] == sorted((row.ms for row in rows), reverse=True)
    assert path.read_bytes() == before


def test_per_node_names_what_the_file_leaves_unnamed(tmp_path):
    rows = per_node(saved(conv_net(named=False), tmp_path), image(), runs=5)
    assert attributed(rows) >= 0.9
    assert [(row.name, row.op_type) for row in rows[:2]] == [("y", "Conv"), ("a", "Conv")]


def test_per_node_reads_weights_from_other_files(tmp_path):
    path = tmp_path / "outside.onnx"
    onnx.save(conv_net(named=False), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert attributed(per_node(path, image(), runs=5)) >= 0.9
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError) as error:
        per_node(path, image(), runs=5)
    assert one_sentence(error)


def test_per_node_runs_a_large_file_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(measure_module, "_MOST_BYTES", 0)
    path = saved(conv_net(named=False), tmp_path)
    assert measure_module._named(path, onnx.load(path)) == (path, False)
    rows = per_node(path, image(), runs=5)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert attributed(per_node(saved(conv_net(), tmp_path), image(), runs=5)) >= 0.9


def test_per_node_gives_the_nodes_of_subgraphs_their_own_time():
    feeds = {"x": np.eye(64, dtype=np.float32), "c": np.array(True)}
    rows = {row.name: row for row in per_node(branch_net().SerializeToString(), feeds)}
    assert {"choice", "product", "loop", "power", "bound"} <= set(rows)
    assert "bend" not in rows
    assert sum(row.share for row in rows.values()) == pytest.approx(1)


def test_per_node_gives_the_nodes_of_a_function_to_its_call():
    rows = per_node(function_net().SerializeToString(), {"x": np.ones((64, 4096), np.float32)}, runs=5)
    assert {(row.name, row.op_type) for row in rows} == {("call", "bend"), ("again", "bend"), ("end", "Neg")}


def test_per_node_refuses_in_one_sentence_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(measure_module.tempfile, "tempdir", str(tmp_path / "temporary"))
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
            per_node(model, feeds, **options)
        assert one_sentence(error)
    per_node(path, image(), runs=1)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_names_become_unique_and_stay_where_they_are():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="one"),
        helper.make_node("Relu", ["b"], ["one"]),
        helper.make_node("Relu", ["one"], ["c"], name="one_2"),
        helper.make_node("Relu", ["c"], ["d"]),
    ]
    assert measure_module._give_names(nodes)
    assert [node.name for node in nodes] == ["one", "one_3", "one_4", "one_2", "d"]
    assert not measure_module._give_names(nodes)


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
    own = measure_module._own_times(events)
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
