"""A source yields what its file, folder or function holds, in batches the model accepts, the same every time."""

import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.errors import InputError
from tests.data.models import graph

COUNT = 11
RNG = np.random.default_rng(0)
IMAGES = RNG.random((COUNT, 3, 8, 6)).astype(np.float32)
ROWS = RNG.random((COUNT, 5)).astype(np.float32)
LABELS = np.arange(COUNT)


def joined(source, name, limit=None, axis=0):
    return np.concatenate([batch.inputs[name] for batch in source.batches(limit)], axis)


def opened(spec, model, **options):
    return open_source(spec, graph(model), DataSettings(**options))


def by_label(source, name):
    """The samples in the order of their labels, which are their numbers in the file."""
    labels = np.concatenate([batch.labels for batch in source.batches()])
    return joined(source, name)[np.argsort(labels)]


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


# --- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_sample_comes_once_with_its_label(save, tmp_path):
    save(tmp_path / "a.npz", image=IMAGES, labels=LABELS)
    source = opened(tmp_path / "a.npz", "image", batch_size=4)
    assert (source.count, source.synthetic, source.labelled) == (COUNT, False, True)
    assert [batch.count for batch in source.batches()] == [4, 4, 3]
    np.testing.assert_array_equal(by_label(source, "image"), IMAGES)


def test_a_source_starts_over_and_is_the_same_every_time(tmp_path):
    path = saved(tmp_path / "a.npz", image=IMAGES)
    source = opened(path, "image")
    np.testing.assert_array_equal(joined(source, "image"), joined(source, "image"))
    np.testing.assert_array_equal(joined(source, "image"), joined(opened(path, "image"), "image"))


@pytest.mark.parametrize("limit", [0, 1, 4, 5, COUNT, 99])
def test_a_limit_takes_the_first_samples(limit):
    source = opened({"image": IMAGES}, "image", batch_size=4)
    whole = joined(source, "image")
    found = [batch.inputs["image"] for batch in source.batches(limit)]
    np.testing.assert_array_equal(np.concatenate([whole[:0], *found]), whole[:limit])


def test_fewer_samples_are_spread_over_the_file():
    """Files are often sorted by class: the first samples alone would show one class only."""
    many = np.repeat(np.arange(1000.0, dtype=np.float32)[:, None], 5, 1)
    source = opened({"x": many}, "table", samples=100)
    chosen = joined(source, "x")[:, 0]
    assert len(set(chosen.tolist())) == source.count == 100
    assert [100 < np.sum(chosen // 500 == half) * 3 < 200 for half in (0, 1)] == [True, True]


def test_a_seed_chooses_other_samples():
    one, other = (joined(opened({"x": ROWS}, "table", samples=4, seed=seed), "x") for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_a_fixed_batch_is_filled_and_what_is_left_over_dropped():
    source = opened({"x": ROWS, "labels": LABELS}, "four", batch_size=3)
    assert [batch.inputs["x"].shape for batch in source.batches()] == [(4, 5)] * 2
    assert source.count == 8
    assert [batch.count for batch in source.batches(5)] == [4, 4]


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("order", "CF")
def test_an_array_without_a_name_goes_to_the_only_input(suffix, order, tmp_path):
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, np.asarray(IMAGES, order=order))
    source = opened(path, "image")
    assert sorted(map(bytes, joined(source, "image"))) == sorted(map(bytes, IMAGES))


def test_files_that_are_not_compressed_are_mapped_not_read(tmp_path):
    from onnxslim_learn.data.arrays import read

    path = saved(tmp_path / "a.npz", image=IMAGES, other=np.float32(2))
    assert isinstance(read(path)["image"], np.memmap)
    np.testing.assert_array_equal(read(path)["image"], IMAGES)
    assert read(path)["other"] == 2


@pytest.mark.parametrize(
    ("model", "dtype", "expected"),
    [
        ("image", np.float64, np.float32),
        ("image", np.float16, np.float32),
        ("image", np.uint8, np.float32),
        ("image", np.int64, np.float32),
        ("half", np.float32, np.float16),
        ("pixels", np.uint8, np.uint8),
        ("pixels", np.int64, np.uint8),
    ],
)
def test_numbers_become_the_declared_type_and_keep_their_value(model, dtype, expected):
    values = RNG.integers(0, 256, (3, 3, 8, 6)).astype(dtype)
    source = opened({"image": values, "labels": LABELS[:3]}, model)
    found = by_label(source, "image")
    assert found.dtype == expected
    np.testing.assert_array_equal(found.astype(np.float64), values.astype(np.float64))


def test_several_inputs_keep_together():
    source = opened(
        {"ids": LABELS[:, None] % 9 + np.zeros((1, 4), np.int64), "mask": np.ones((COUNT, 4), bool)}, "text"
    )
    for batch in source.batches():
        assert {array.dtype for array in batch.inputs.values()} == {np.dtype(np.int64)}
    pairs = opened({"a": ROWS, "b": ROWS[:, :3]}, "two", batch_size=2)
    for batch in pairs.batches():
        np.testing.assert_array_equal(batch.inputs["a"][:, :3], batch.inputs["b"])


def test_samples_may_lie_along_another_axis_and_some_inputs_have_none():
    state = np.stack([ROWS, ROWS + 1])
    source = opened({"x": ROWS, "state": state, "scale": np.float32(3)}, "state", batch_size=4)
    for batch in source.batches():
        assert batch.inputs["scale"] == 3
        np.testing.assert_array_equal(batch.inputs["state"][0], batch.inputs["x"])
        np.testing.assert_array_equal(batch.inputs["state"][1], batch.inputs["x"] + 1)
    assert sum(batch.count for batch in source.batches()) == COUNT


def test_an_input_called_labels_is_an_input():
    source = opened({"x": ROWS, "labels": ROWS}, "named")
    assert not source.labelled
    assert set(next(source.batches()).inputs) == {"x", "labels"}


# --- functions --------------------------------------------------------------------------------------------------------


def test_a_function_may_yield_any_portions_of_any_kind():
    def portions():
        yield ROWS[:2]
        yield {"x": ROWS[2:3]}
        yield ROWS[3:].tolist()

    source = opened(portions, "table", batch_size=4)
    assert source.count is None
    assert [batch.count for batch in source.batches()] == [4, 4, 3]
    np.testing.assert_array_equal(joined(source, "x"), ROWS)


@pytest.mark.parametrize("item", [(ROWS, LABELS), ({"x": ROWS}, LABELS), {"x": ROWS, "labels": LABELS}])
def test_a_function_may_yield_labels(item):
    source = opened(lambda: [item], "table")
    assert source.labelled
    np.testing.assert_array_equal(by_label(source, "x"), ROWS)


def test_samples_of_different_sizes_never_share_a_batch():
    sizes = [(8, 6), (8, 6), (4, 4), (8, 6)]
    source = opened(lambda: (np.zeros((1, 3, *size)) for size in sizes), "open", batch_size=2)
    assert [batch.inputs["image"].shape for batch in source.batches()] == [(2, 3, 8, 6), (1, 3, 4, 4), (1, 3, 8, 6)]


def test_a_function_that_takes_the_batch_size_gets_it():
    asked = []

    def named(batch_size=1):
        asked.append(batch_size)
        return [ROWS]

    def needed(size):
        asked.append(size)
        return [ROWS]

    for function in (named, needed):
        opened(function, "table", batch_size=7)
    assert set(asked) == {7}


def test_an_endless_function_is_read_up_to_the_samples_asked_for():
    def endless():
        while True:
            yield ROWS

    assert sum(batch.count for batch in opened(endless, "table", samples=25).batches()) == 25


def test_a_function_is_named_by_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    (tmp_path / "loader_of_rows.py").write_text("import numpy\ndef rows():\n    yield numpy.ones((3, 5))\n")
    assert joined(opened("loader_of_rows:rows", "table"), "x").shape == (3, 5)
    assert sys.path == before


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """Six images in two classes, each of one colour, of different sizes; one is hidden deeper, one file is no image."""
    for k in range(6):
        path = tmp_path / "photos" / ("cats", "dogs")[k % 2] / ("deep" if k == 5 else "") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12 + k, 9), (40 * k, 10, 200)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def colours(source):
    """Every image's colour, by channel, and its class."""
    for batch in source.batches():
        for image, label in zip(batch.inputs["image"], batch.labels, strict=True):
            flat = image.reshape(3, -1) if image.shape[0] == 3 else image.reshape(-1, 3).T
            assert np.all(flat == flat[:, :1])
            yield (*flat[:, 0].tolist(), int(label))


def test_a_folder_of_images_is_read_with_its_classes(photos):
    source = opened(photos, "pixels")
    assert (source.count, source.labelled) == (6, True)
    assert sorted(colours(source)) == [(40 * k, 10, 200, k % 2) for k in range(6)]


@pytest.mark.parametrize(
    ("model", "options", "formula"),
    [
        ("image", {}, lambda p: p / 255),
        ("last", {}, lambda p: p / 255),
        ("image", {"scale": 1.0}, lambda p: p),
        ("image", {"mean": (0.5,), "std": (0.25,)}, lambda p: (p / 255 - 0.5) / 0.25),
        ("image", {"mean": (0.1, 0.2, 0.3), "std": (1, 2, 4)}, lambda p: (p / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4]),
        ("image", {"colour": "bgr", "mean": (0.1, 0.2, 0.3)}, lambda p: p[::-1] / 255 - [0.1, 0.2, 0.3]),
        ("pixels", {"colour": "bgr"}, lambda p: p[::-1]),
    ],
)
def test_pixels_become_numbers_as_asked(model, options, formula, photos):
    found = sorted(found[:3] for found in colours(opened(photos, model, **options)))
    expected = sorted(tuple(formula(np.array([40.0 * k, 10, 200])).tolist()) for k in range(6))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_images_are_resized_by_their_shorter_side_and_cut_in_the_middle(tmp_path):
    wide = np.zeros((8, 18, 3), np.uint8)
    wide[:, 6:12] = 255  # the middle third, as wide as the model wants
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.all(joined(opened(tmp_path, "pixels"), "image") == 255)
    Image.fromarray(wide.repeat(2, 0).repeat(2, 1)).save(tmp_path / "wide.png")
    found = joined(opened(tmp_path, "pixels"), "image")
    assert np.all(found[..., 1:-1] == 255)


def test_a_grey_model_gets_grey_images(photos):
    source = opened(photos, "grey")
    assert next(source.batches()).inputs["image"].shape == (6, 1, 8, 6)
    luma = [(0.299 * 40 * k + 0.587 * 10 + 0.114 * 200) / 255 for k in range(6)]
    found = sorted(image[0, 0, 0] for image in joined(source, "image"))
    np.testing.assert_allclose(found, luma, atol=1 / 255)


def test_an_open_size_is_what_was_asked_for_else_nominal(photos):
    assert next(opened(photos, "open", image_size=(10, 7)).batches()).inputs["image"].shape == (6, 3, 10, 7)
    nominal = graph("open").shapes.nominal.inputs["image"]
    assert next(opened(photos, "open").batches()).inputs["image"].shape == (6, *nominal[1:])


def test_open_sizes_that_have_no_name_may_differ():
    """Some exporters write a question mark or -1 for every open size."""
    net = graph("open").model.clone()
    net.graph.inputs[0].shape = ir.Shape([-1, 3, "?", "?"])
    loaded = load(ir.to_proto(net), {"image": (1, 3, 10, 20)})
    assert loaded.shapes.nominal.inputs["image"] == (1, 3, 10, 20)
    source = open_source({"image": np.zeros((2, 3, 30, 40))}, loaded)
    assert joined(source, "image").shape == (2, 3, 30, 40)


def test_images_outside_of_classes_have_no_labels(photos):
    Image.new("RGB", (8, 8)).save(photos / "stray.png")
    assert not opened(photos, "image").labelled


def test_a_turned_photo_is_turned_back(tmp_path):
    image = Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8)[:, None] * 30, 6, 1)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    found = joined(opened(tmp_path, "pixels"), "image")
    np.testing.assert_array_equal(found[0], np.moveaxis(np.asarray(image), -1, 0))


# --- what cannot be used ----------------------------------------------------------------------------------------------

BAD_ARRAYS = {
    "channels missing": ("image", {"image": IMAGES[:, 0]}, "image float32 11 x 8 x 6 batch 3 Add"),
    "too many channels": ("image", {"image": IMAGES.repeat(2, 1)}, "axis 1 3 6"),
    "channels last": ("image", {"image": IMAGES.transpose(0, 2, 3, 1)}, "11 x 8 x 6 x 3 array.transpose(0,"),
    "one name wrong": ("image", {"img": IMAGES}, "img image Name"),
    "one missing": ("two", {"a": ROWS}, "a b inputs"),
    "one too many": ("image", {"image": IMAGES, "ids": LABELS}, "ids image"),
    "counts differ": ("two", {"a": ROWS, "b": ROWS[:4, :3]}, "a 11 b 4"),
    "labels short": ("image", {"image": IMAGES, "labels": LABELS[:5]}, "labels 5 11"),
    "labels are text": ("image", {"image": IMAGES, "labels": np.array(["cat"] * COUNT)}, "labels sample"),
    "no samples": ("image", {"image": IMAGES[:0]}, "0 x 3 least"),
    "not a number": ("image", {"image": np.where(IMAGES > 0.9, np.nan, IMAGES)}, "image NaN"),
    "infinite": ("image", {"image": np.where(IMAGES > 0.9, np.inf, IMAGES)}, "image infinity"),
    "overflow": ("half", {"image": IMAGES * 1e6}, "image float16"),
    "floats as indices": ("text", {"ids": ROWS, "mask": ROWS}, "ids float32 int64"),
    "negative pixels": ("pixels", {"image": -LABELS[:, None, None, None] + np.zeros((1, 3, 8, 6), int)}, "-10 uint8"),
    "two lengths": ("text", {"ids": np.zeros((2, 3), int), "mask": np.ones((2, 4), int)}, "seq 3 4 mask"),
    "too few for a batch": ("four", {"x": ROWS[:3]}, "4 samples"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_do_not_fit_are_refused_in_one_sentence(case, tmp_path):
    model, arrays, words = BAD_ARRAYS[case]
    path = saved(tmp_path / "bad.npz", **arrays)
    assert_refused(path, model, f"{path} {words}")


def assert_refused(spec, model, words, **options):
    with pytest.raises(InputError) as error:
        list(opened(spec, model, **options).batches())
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence[-1] == "."
    assert [word for word in words.split() if word not in sentence] == [], sentence


def failing():
    yield ROWS
    raise RuntimeError("the disk is gone")


BAD_FILES = {
    "text.npz": b"no archive",
    "text.npy": b"no array",
    "cut.npz": None,
    "objects.npy": None,
    "objects.npz": None,
    "empty.npz": None,
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_without_arrays_are_refused_in_one_sentence(name, tmp_path):
    path = tmp_path / name
    things = np.array([{"a": 1}], object)
    if name == "cut.npz":
        np.savez(path, image=IMAGES)
        path.write_bytes(path.read_bytes()[:-50])
    elif name.startswith("objects"):
        (np.save if name.endswith("npy") else np.savez)(path, things)
    elif name == "empty.npz":
        np.savez(path)
    else:
        path.write_bytes(BAD_FILES[name])
    assert_refused(path, "image", str(path))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere.npz", "nowhere.npz no such file"),
        ("nowhere", "nowhere .npz folder module:function"),
        ("no_such_module:rows", "no_such_module:rows module:function"),
        ("json:rows", "json:rows rows"),
        ("json:__doc__", "json:__doc__ str"),
        (failing, "RuntimeError disk"),
        (lambda: 3, "TypeError"),
        (lambda: [], "no samples"),
        (lambda: ["text"], "x float32"),
        (lambda: [ROWS[:, :4]], "n x 5 axis 1"),
    ],
)
def test_what_is_no_source_is_refused_in_one_sentence(spec, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(spec, "table", words)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("table", {}, "x float32 .npz"),
        ("two", {}, "a b .npz"),
        ("image", {"image_size": (9, 9)}, "image_size 9x9 8 x 6"),
        ("image", {"mean": (0.1, 0.2)}, "mean 2 rgb"),
        ("image", {"colour": "grey"}, "colour grey 3"),
        ("grey", {"std": (0.1, 0.2, 0.3)}, "std 3 grey"),
        ("pixels", {"scale": 255.0}, "scale uint8"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_one_sentence(model, options, words, photos):
    assert_refused(photos, model, words, **options)


def test_a_broken_image_is_named(photos):
    (photos / "cats" / "9.png").write_bytes(b"broken")
    assert_refused(photos, "image", "9.png Convert")


def test_an_image_of_sixteen_bits_is_refused_not_flattened(tmp_path):
    Image.fromarray(np.full((8, 8), 30000, np.uint16)).save(tmp_path / "a.png")
    assert_refused(tmp_path, "image", "a.png 8 bits")


def test_an_empty_folder_is_refused(tmp_path):
    assert_refused(tmp_path, "image", f"{tmp_path} no images .png")


def test_options_for_images_are_refused_elsewhere():
    assert_refused({"x": ROWS}, "table", "mean folders", mean=(0.5,))


def test_a_size_that_the_file_leaves_open_can_be_said():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        n (float[batch,3,h,w] x) => (float[batch,5] y) { f = Flatten(x) y = MatMul(f, weight) }""")
    weight = np.ones((3 * 64, 5), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    images = np.ones((6, 3, 4, 16), np.float32)
    with pytest.raises(InputError, match=r"Give axis 2 a length of 8, or give input x:1x3x4x16"):
        open_source({"x": images}, load(model))
    assert open_source({"x": images}, load(model, {"x": (1, 3, 4, 16)})).count == 6
