import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from onnxslim_learn.errors import InputError
from onnxslim_learn.runtime import session
from onnxslim_learn.runtime import timing as measure_module
from onnxslim_learn.runtime.session import CPU
from onnxslim_learn.runtime.timing import Latency, Ratio, Rounds, Timings, compare, measure, open_session
from tests.runtime.timed_nets import conv_net, image, matmul_net, one_sentence, saved


def test_import_leaves_the_runtimes_alone():
    code = "import sys, onnxslim_learn.runtime.timing; print({'onnx', 'onnxruntime', 'torch'} & set(sys.modules))"
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


@pytest.fixture
def failing(monkeypatch):
    """Let onnxruntime fail at more than a level of optimisations of the model of that size in bytes."""

    def fail(level, size):
        import onnxruntime as ort

        whole, limit = session.session_type(), getattr(ort.GraphOptimizationLevel, level)

        def opened(model, options, **how):
            if len(model) == size and int(options.graph_optimization_level) > int(limit):
                raise RuntimeError("it cannot be optimised")
            return whole(model, options, **how)

        monkeypatch.setattr(session, "session_type", lambda: opened)

    return fail


@pytest.mark.parametrize(("level", "told"), [("ORT_ENABLE_BASIC", "basic"), ("ORT_DISABLE_ALL", "none")])
def test_what_cannot_be_optimised_is_opened_with_fewer_optimisations(failing, level, told):
    small, large = (matmul_net(width).SerializeToString() for width in (8, 16))
    feeds = [{"x": np.ones((1, width), np.float32)} for width in (8, 16)]
    assert measure([small, large], feeds, seconds=0).optimizations == "all"
    failing(level, len(large))
    assert open_session(small).get_session_options().graph_optimization_level.name == "ORT_ENABLE_ALL"
    assert open_session(large).get_session_options().graph_optimization_level.name == level
    timings = measure([small, large], feeds, seconds=0)
    assert (timings.optimizations, timings.ms.shape[1]) == (told, 2)


def test_all_are_timed_with_the_optimisations_of_the_one_that_has_fewest(failing, monkeypatch):
    small, large = (matmul_net(width).SerializeToString() for width in (8, 16))
    failing("ORT_ENABLE_BASIC", len(large))
    levels = []
    monkeypatch.setattr(
        measure_module,
        "warm_up",
        lambda model, session, *_: levels.append(session.get_session_options().graph_optimization_level.name),
    )
    measure([small, large], [{"x": np.ones((1, width), np.float32)} for width in (8, 16)], seconds=0)
    assert levels == ["ORT_ENABLE_BASIC"] * 2


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


def test_rounds_shuffle_all_models_and_stop_at_the_limits():
    log = []
    runs = [partial(log.append, name) for name in range(3)]
    assert measure_module._rounds(runs, Rounds(2000, 0.0), lambda part: None).shape == (2, 10, 3)
    orders = [tuple(log[start : start + 3]) for start in range(0, len(log), 3)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len(set(orders)) > 1
    assert measure_module._rounds(runs, Rounds(2000, math.inf), lambda part: None).shape == (2, 2000, 3)


def test_counted_rounds_are_all_timed_unless_they_take_far_too_long(tmp_path):
    runs = [lambda: None, lambda: None]
    assert measure_module._rounds(runs, Rounds(25, math.inf, counted=True), lambda part: None).shape == (2, 25, 2)
    model, feed = saved(matmul_net(8), tmp_path), {"x": np.ones((1, 8), np.float32)}
    for seconds, done in ((60.0, 25), (0.0, 10)):
        timings = measure([model, model], [feed, feed], seconds=Rounds(25, seconds, counted=True))
        assert (len(timings.ms), timings.stopped, compare(timings, 1).stopped) == (done, done < 25, done < 25)
    assert not measure([model], [feed], seconds=0).stopped, "seconds that are asked for are no mishap"


def test_warm_up_waits_until_the_times_settle(monkeypatch):
    session = open_session(matmul_net(8).SerializeToString())

    def runs(times):
        left = list(times)
        monkeypatch.setattr(measure_module, "_time", lambda run: left.pop(0))
        measure_module.warm_up(b"", session, session.run, seconds=60.0)
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
    assert first.median == pytest.approx(np.median(timings.ms[:, 2]) / np.median(timings.ms[:, 0]))


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


@pytest.mark.parametrize(
    ("low", "high", "faster"),
    [(0.5, 0.9, True), (1.1, 2.0, False), (0.9, 1.1, None), (1, 2, None), (0.992, 0.998, None)],
)
def test_only_an_interval_beside_one_decides(low, high, faster):
    assert Ratio((low + high) / 2, low, high).faster is faster


def test_bound_runs_are_timed(tmp_path):
    path = saved(matmul_net(8), tmp_path)
    assert (measure([path], [{"x": np.ones((1, 8), np.float32)}], bind=True, seconds=0.01).ms > 0).all()
    with pytest.raises(InputError, match="x"):
        measure([path], [{"x": np.ones((1, 9), np.float32)}], bind=True)
