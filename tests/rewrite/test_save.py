"""Saving loses nothing: the file appears whole and checked, or nothing changes."""

import contextlib

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from nets.notation import Net
from onnxslim_learn.errors import InputError, VerifyError
from onnxslim_learn.plans.plan import Plan
from onnxslim_learn.rewrite import save
from onnxslim_learn.runtime import atomic
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import ALL

NAME = "residual"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.onnx"
    onnx.save(ALL[NAME].build(), path)
    return path


@pytest.fixture
def external(tmp_path):
    """A file whose weights lie beside it, under a name and in a folder of their own."""
    path = tmp_path / "external.onnx"
    (tmp_path / "weights").mkdir()
    onnx.save(ALL[NAME].build(), path, save_as_external_data=True, location="weights/all.bin", size_threshold=0)
    return path


def slimmed(path, target=0.5):
    analysis = slim.analyze(path)
    return slim.slim(analysis, slim.plan(analysis, {"macs": target}))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def same_results(one, other):
    """Tell whether two files compute the same."""
    a, b = (onnx.load(path) for path in (one, other))
    found, wanted = laws.run(a, laws.feeds(a)), laws.run(b, laws.feeds(b))
    return all(np.array_equal(found[name], wanted[name]) for name in wanted)


# --- whole and checked ------------------------------------------------------------------------------------------------


def test_an_output_that_is_a_weight_keeps_its_type(tmp_path):
    """The newer exporter puts out constants so; onnx.checker wants every output to have a type."""
    text = "(float[n,6] x) => (float[n,3] y, float[3] k) { h = MatMul(x, w1) z = MatMul(h, w2) y = Mul(z, k) }"
    onnx.save(Net(text, "w1 6x8, w2 8x3, k 3").build(), tmp_path / "source.onnx")
    assert slimmed(tmp_path / "source.onnx").save(tmp_path / "slim.onnx").passed
    onnx.checker.check_model(str(tmp_path / "slim.onnx"))


def test_save_writes_one_file_and_reports_the_check(source, tmp_path):
    before = set(files(tmp_path))
    found = slimmed(source).save(tmp_path / "slim.onnx")
    assert set(files(tmp_path)) == before | {"slim.onnx"}
    assert found.passed
    assert found.max_rel_diff <= found.tolerance
    assert found.change > 0.01
    onnx.checker.check_model(str(tmp_path / "slim.onnx"), full_check=True)


def test_saving_twice_gives_the_same_bytes(source, tmp_path):
    slimmed(source).save(tmp_path / "one.onnx")
    slimmed(source).save(tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_one_slimmed_model_can_be_saved_twice(source, tmp_path):
    model = slimmed(source)
    model.save(tmp_path / "one.onnx")
    model.save(tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_model_in_memory_is_saved_as_its_file_is(source, tmp_path):
    slimmed(source).save(tmp_path / "one.onnx")
    slimmed(ALL[NAME].build()).save(tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_file_that_is_there_is_replaced(source, tmp_path):
    (tmp_path / "slim.onnx").write_text("something else")
    slimmed(source).save(tmp_path / "slim.onnx")
    onnx.checker.check_model(str(tmp_path / "slim.onnx"))


def test_file_grows_with_its_weights_only(source, tmp_path):
    """A slimmed file has no second copy of anything: it is smaller than its source by the weights it lost."""
    model = slimmed(source)
    model.save(tmp_path / "slim.onnx")
    price, whole = (model.analysis.price(cut)["bytes"] for cut in (model.removal, model.analysis.whole))
    lost = source.stat().st_size - (tmp_path / "slim.onnx").stat().st_size
    assert lost > 0.9 * (whole - price)


# --- or nothing changes -----------------------------------------------------------------------------------------------


def spoil(model):
    """Give one weight of a slimmed model other values."""
    tensor = model.model.graph.initializers["w1"]
    values = tensor.const_value.numpy() + np.float32(1)
    tensor.const_value = ir.tensor(values, name="w1")


def test_a_result_that_differs_is_not_written(source, tmp_path):
    model = slimmed(source)
    spoil(model)
    (tmp_path / "slim.onnx").write_text("what was there")
    before = files(tmp_path)
    with pytest.raises(VerifyError) as caught:
        model.save(tmp_path / "slim.onnx")
    assert "y" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before


def test_a_result_that_differs_is_found_later_too(source, tmp_path):
    model = slimmed(source)
    good = model.save(tmp_path / "good.onnx")
    spoil(model)
    model.save(tmp_path / "bad.onnx", check=False)
    assert good.passed
    assert slim.verify(model.analysis, tmp_path / "good.onnx", model.plan).passed
    assert not slim.verify(model.analysis, tmp_path / "bad.onnx", model.plan).passed


def test_a_result_that_onnx_refuses_is_not_written(source, tmp_path):
    model = slimmed(source)
    model.model.graph[0].op_type = "Convolution"
    before = files(tmp_path)
    with pytest.raises(VerifyError, match="Convolution"):
        model.save(tmp_path / "slim.onnx", check=False)
    assert files(tmp_path) == before


def test_size_of_the_file_is_known_before_it_is_written(source, tmp_path):
    model = slimmed(source)
    told, before = model.file_bytes(), files(tmp_path)
    assert files(tmp_path) == before
    model.save(tmp_path / "slim.onnx")
    assert (tmp_path / "slim.onnx").stat().st_size == told


def test_places_that_cannot_be_written_are_refused_by_name(source, tmp_path):
    model = slimmed(source)
    before = files(tmp_path)
    for place in (tmp_path, tmp_path / "no" / "such" / "slim.onnx", tmp_path / "source.onnx" / "slim.onnx"):
        with pytest.raises(InputError) as caught:
            model.save(place)
        assert str(place.name) in str(caught.value)
    assert files(tmp_path) == before


# --- weights beside the file ------------------------------------------------------------------------------------------


def test_weights_beside_the_source_stay_beside_the_result(external, source, tmp_path):
    slimmed(external).save(tmp_path / "slim.onnx")
    proto = onnx.load(tmp_path / "slim.onnx", load_external_data=False)
    places = {entry.value for t in proto.graph.initializer for entry in t.external_data if entry.key == "location"}
    assert places == {"slim.onnx.data"}
    slimmed(source).save(tmp_path / "inside.onnx")
    assert same_results(tmp_path / "slim.onnx", tmp_path / "inside.onnx")
    size = save.size_on_disk(tmp_path / "slim.onnx")
    assert size == sum((tmp_path / name).stat().st_size for name in ("slim.onnx", "slim.onnx.data"))


def test_empty_plan_of_a_file_with_weights_beside_it_computes_the_same(external, tmp_path):
    slim.slim(slim.analyze(external), Plan({}, {})).save(tmp_path / "slim.onnx")
    (tmp_path / "weights" / "all.bin").rename(tmp_path / "weights" / "moved.bin")
    copy = onnx.load(tmp_path / "slim.onnx")
    assert np.array_equal(laws.run(copy, laws.feeds(copy))["y"], laws.run(ALL[NAME].build(), laws.feeds(copy))["y"])


def test_weights_are_found_from_another_folder(external, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "weights")
    analysis = slim.analyze("../external.onnx")
    slim.slim(analysis, slim.plan(analysis, {"macs": 0.5})).save("slim.onnx")
    assert (tmp_path / "weights" / "slim.onnx.data").is_file()
    onnx.checker.check_model(str(tmp_path / "weights" / "slim.onnx"), full_check=True)


@pytest.mark.parametrize("beside", [False, True])
def test_a_file_can_be_slimmed_in_place(source, external, tmp_path, beside):
    """Weights are read when they are written: the source must not be gone by then."""
    path = external if beside else source
    slimmed(path).save(tmp_path / "elsewhere.onnx")
    slimmed(path).save(path)
    assert same_results(path, tmp_path / "elsewhere.onnx")


def weights(path):
    """Names of the files that hold a model's weights."""
    return {file.name for file in save.files(path)[1:]}


def test_a_kill_between_two_renames_leaves_a_model_with_its_own_weights(external, tmp_path, monkeypatch):
    """Whatever was renamed by then, what lies under the model's name computes what one of the two models does."""
    old, new = slimmed(external), slimmed(external, 0.8)
    old.save(tmp_path / "old.onnx")
    new.save(tmp_path / "new.onnx")
    target = tmp_path / "out" / "slim.onnx"
    target.parent.mkdir()
    old.save(target)
    for after in range(3):
        steps = iter(range(after))

        def killed(draft, place, steps=steps, **how):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            atomic.replace(draft, place, **how)

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(save, "replace", killed)
            new.save(target)
        assert same_results(target, tmp_path / ("new.onnx" if after == 2 else "old.onnx")), after
    assert set(files(target.parent)) == {"slim.onnx", *weights(target)}


def test_written_over_and_over_a_model_has_one_file_of_weights(external, tmp_path):
    one, other, target = slimmed(external), slimmed(external, 0.8), tmp_path / "out" / "slim.onnx"
    target.parent.mkdir()
    one.save(target)
    first = files(target.parent)
    assert set(first) == {"slim.onnx", "slim.onnx.data"}
    one.save(target)
    assert files(target.parent) == first
    other.save(target)
    second = files(target.parent)
    assert "slim.onnx.data" not in second
    assert set(second) == {"slim.onnx", *weights(target)}
    other.save(target)
    assert files(target.parent) == second
    one.save(target)
    assert files(target.parent) == first


def test_weights_that_belong_to_somebody_else_stay(external, tmp_path):
    target, theirs = tmp_path / "slim.onnx", tmp_path / "slim.onnx.data"
    theirs.write_bytes(b"theirs")
    slimmed(external).save(target)
    assert theirs.read_bytes() == b"theirs"
    slimmed(external).save(tmp_path / "other.onnx")
    assert same_results(target, tmp_path / "other.onnx")
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(target.read_bytes())
    with pytest.raises(InputError, match=r"which .*copy.onnx needs"):
        slimmed(copy, 0.8).save(target)


def test_text_is_written_in_one_step_or_not_at_all(tmp_path):
    atomic.write_text(tmp_path / "plan.json", "first")
    atomic.write_text(tmp_path / "plan.json", "second")
    assert files(tmp_path) == {"plan.json": b"second"}
    with pytest.raises(InputError):
        atomic.write_text(tmp_path / "no" / "plan.json", "third")
    assert files(tmp_path) == {"plan.json": b"second"}
