"""Models side by side: settings are crossed, shapes go where they belong, and what is told fits together."""

import onnx
import pytest

from nets.zoo import NETS
from onnxslim_learn.errors import InputError
from onnxslim_learn.latency.profile import RuntimeSetting, profile, settings, understood
from onnxslim_learn.report.sections.profile import distinct
from onnxslim_learn.runtime.session import CPU

BRIEF = 0.01  # seconds


@pytest.fixture
def models(tmp_path):
    def models(*names):
        paths = [tmp_path / f"{name}.onnx" for name in names]
        for name, path in zip(names, paths, strict=True):
            onnx.save(NETS[name].build(), path)
        return paths

    return models


def test_settings_are_crossed():
    assert settings([1, 2], [CPU], []) == [RuntimeSetting(1), RuntimeSetting(2)]
    assert [(s.threads, s.batch, s.bind) for s in settings([1, 2], [CPU], [3, 4], bind=True)] == [
        *((1, 3, True), (1, 4, True), (2, 3, True), (2, 4, True))
    ]


def test_what_is_told_fits_together(models):
    paths = models("global_pool", "chain", "residual")
    told = profile(understood(paths, {}), [RuntimeSetting()], seconds=BRIEF, per_node=True)
    (setting,) = told["settings"]
    assert told["models"] == [one["model"] for one in setting["timings"]] == [str(path) for path in paths]
    base, *rest = setting["timings"]
    for one, compared in zip(rest, setting["comparisons"], strict=True):
        assert (compared["base"], compared["model"]) == (base["model"], one["model"])
        assert compared["low"] <= compared["ratio"] <= compared["high"]
        assert compared["ratio"] == pytest.approx(one["median_ms"] / base["median_ms"])
        assert compared["faster"] in {None, compared["ratio"] < 1}
    for one in setting["timings"]:
        assert one["low_ms"] <= one["median_ms"] <= one["high_ms"]
        assert one["runs_per_second"] == pytest.approx(1000 / one["median_ms"])
        assert one["samples_per_second"] is None
        assert sum(node["share"] for node in one["nodes"]) == pytest.approx(1)


def test_a_batch_goes_to_open_first_axes(models):
    paths = models("global_pool")
    told = profile(understood(paths, {"x": (1, 3, 12, 10)}), settings([1], [CPU], [2, 5]), seconds=BRIEF)
    for batch, setting in zip((2, 5), told["settings"], strict=True):
        (one,) = setting["timings"]
        assert one["inputs"] == {"x": [batch, 3, 12, 10]}
        assert one["inputs_assumed"] == []
        assert one["samples_per_second"] == pytest.approx(batch * one["runs_per_second"])


def test_sizes_that_neither_file_nor_command_gives_are_assumed(models):
    paths = models("global_pool")
    for setting in (RuntimeSetting(), RuntimeSetting(batch=2)):
        ((one,),) = [s["timings"] for s in profile(understood(paths, {}), [setting], seconds=BRIEF)["settings"]]
        assert one["inputs_assumed"] == ["x"]  # height and width


def test_what_one_model_fixes_and_another_leaves_open_is_alike_for_both(models, tmp_path):
    (opened,) = models("global_pool")
    model = onnx.load(opened)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, 3, 12, 10), strict=True):
        dim.dim_value = size
    fixed = tmp_path / "fixed.onnx"
    onnx.save(model, fixed)
    for paths in ([fixed, opened], [opened, fixed]):
        told = profile(understood(paths, {}), [RuntimeSetting()], seconds=BRIEF)["settings"][0]["timings"]
        assert [one["inputs"] for one in told] == [{"x": [1, 3, 12, 10]}] * 2
        assert [one["inputs_assumed"] for one in told] == [[], []]


def test_shapes_go_to_the_models_that_have_the_input(models):
    paths = models("global_pool", "multi_io")
    told = profile(understood(paths, {"x": (1, 3, 9, 9)}), [RuntimeSetting()], seconds=BRIEF)
    shapes = [one["inputs"] for one in told["settings"][0]["timings"]]
    assert shapes[0] == {"x": [1, 3, 9, 9]}
    assert set(shapes[1]) == {"image", "vector"}


@pytest.mark.parametrize(
    ("name", "setting", "shapes", "words"),
    [
        ("residual", RuntimeSetting(batch=8), {}, "batch 8: residual.onnx x 2x3x8x8"),
        ("residual", RuntimeSetting(), {"z": (1, 2)}, "input z: no model x"),
    ],
)
def test_what_cannot_be_is_refused(models, name, setting, shapes, words):
    with pytest.raises(InputError) as refused:
        profile(understood(models(name), shapes), [setting], seconds=BRIEF)
    assert [word for word in words.split() if word not in str(refused.value)] == []


def test_stages_are_told(models):
    stages = []
    chain = understood(models("chain"), {})
    profile(chain, [RuntimeSetting()], seconds=BRIEF, stage=lambda name: stages.append(name) or (lambda s: None))
    assert stages == ["timing", "measuring memory"]  # each names what takes a while


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/m.onnx"], ["m.onnx"]),
        (["a/m.onnx", "a/n.onnx"], ["m.onnx", "n.onnx"]),
        (["x/a/m.onnx", "y/a/m.onnx"], ["x/a/m.onnx", "y/a/m.onnx"]),
        (["a/m.onnx", "m.onnx"], ["a/m.onnx", "m.onnx"]),
        (["m.onnx", "m.onnx"], ["m.onnx", "m.onnx"]),
    ],
)
def test_names_are_as_short_as_they_tell_apart(paths, names):
    assert [distinct(paths)[path] for path in paths] == names
