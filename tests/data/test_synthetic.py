"""Made-up inputs stay in the range they say, fit the model, and are smooth; ranges are read off the first layers."""

import numpy as np
import onnxruntime as ort
import pytest

from nets.notation import Net
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.coupling.solver import couple
from onnxslim_learn.data import input_range, noise
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.synthetic import synthetic
from onnxslim_learn.errors import InputError
from onnxslim_learn.workflow import slim
from tests.data.models import MODELS, graph, written


def made(model, **options):
    return synthetic(couple(graph(model), sensitive=False), DataSettings(**{"samples": 6, **options}))


def test_a_number_that_several_frequencies_multiply_has_no_range_for_each():
    text = """(float[n] time) => (float[n, 3] y) {
        t = Unsqueeze(time, [1]) p = Mul(t, [1.0, 0.1, 0.01]) s = Sin(p) c = Cos(p)
        b = Concat<axis=1>(s, c) y = MatMul(b, w)
    }"""
    model = load(Net(text, "w 6x3").build())
    (batch,) = synthetic(couple(model, sensitive=False), DataSettings(samples=4)).batches()
    assert batch.inputs["time"].shape == (4,)


def joined(source, name):
    return np.concatenate([batch.inputs[name] for batch in source.batches()])


@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_on_what_is_made_up_for_it(name):
    source = made(name)
    session = ort.InferenceSession(graph(name).data)
    assert source.synthetic
    assert not source.labelled
    assert "made-up" in source.name
    counts = []
    for batch in source.batches():
        session.run(None, batch.inputs)
        counts.append(batch.count)
    assert sum(counts) == source.count


@pytest.mark.parametrize("name", ["image", "text", "state", "pixels"])
def test_samples_depend_on_the_seed_and_their_number_not_on_batches(name):
    first = next(iter(graph(name).shapes.nominal.inputs))
    one, other = (joined(made(name, batch_size=size), first) for size in (2, 5))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, joined(made(name, seed=1), first))


def test_a_range_given_is_kept_for_each_channel_and_used():
    bounds = ((0.0, 1.0), (-3.0, -1.0), (10.0, 30.0))
    images = joined(made("image", input_range=bounds, samples=64), "image")
    for channel, (low, high) in enumerate(bounds):
        values = images[:, channel]
        assert values.min() >= low
        assert values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low)
        np.testing.assert_allclose((values.mean() - low) / (high - low), input_range.PHOTOGRAPH[0], atol=0.1)
        np.testing.assert_allclose(values.std() / (high - low), input_range.PHOTOGRAPH[1], atol=0.1)
    with pytest.raises(InputError, match="2 pairs, but image has 3 channels"):
        made("image", input_range=bounds[:2])


def test_channels_last_and_whole_pixels():
    images = joined(made("last", input_range=((0.0, 1.0), (5.0, 6.0), (9.0, 10.0))), "image")
    assert [int(images[..., channel].min()) for channel in range(3)] == [0, 5, 9]
    pixels = joined(made("pixels", samples=30), "image")
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels) > 200


def test_indices_are_valid_and_all_used_masks_are_ones():
    source = made("text", samples=32)
    assert np.unique(joined(source, "ids")).tolist() == list(range(9))
    assert np.all(joined(source, "mask") == 1)


def test_images_are_smooth():
    """Neighbours differ far less than pixels far apart; in white noise both differ as much."""
    images = joined(made("open", samples=8, input_range=((-9.0, 9.0),)), "image")
    near = np.mean(np.square(np.diff(images, axis=-1)))
    far = np.mean(np.square(images[..., : -images.shape[-1] // 2] - images[..., images.shape[-1] // 2 :]))
    assert near < 0.02 * far


def test_a_field_has_no_mean_and_unit_variance():
    found = noise.field(np.random.default_rng(0), (20, 30), 2.0)
    np.testing.assert_allclose([found.mean(), found.std()], [0, 1], atol=1e-9)


HEAD = "net (float[n, 3, 8, 8] x) => (float[n, 3, 8, 8] y)"


def head(weights, nodes, declared=HEAD):
    return written(f"{declared} <{weights}> {{ {nodes} }}")


IMPLIED = {
    "mean and deviation taken out": (
        "float[1,3,1,1] m = {0.485, 0.456, 0.406}, float[1,3,1,1] s = {0.229, 0.224, 0.225}",
        "a = Sub(x, m) b = Div(a, s) y = Relu(b)",
        (0, 1),
    ),
    "pixels over 255": ("float s = {255.0}", "a = Div(x, s) y = Relu(a)", (0, 255)),
    "pixels times 1/255": ("float s = {0.003921568}", "a = Mul(s, x) y = Relu(a)", (0, 255)),
    "pixels around 127.5": (
        "float s = {127.5}, float one = {1.0}",
        "a = Div(x, s) b = Sub(a, one) y = Relu(b)",
        (0, 255),
    ),
    "means in pixels": (
        "float[3,1,1] m = {123.7, 116.3, 103.5}",
        "a = Sub(x, m) y = Relu(a)",
        (0, 255),
    ),
    "twice minus one": ("float t = {2.0}, float one = {1.0}", "a = Mul(x, t) b = Sub(a, one) y = Relu(b)", (0, 1)),
    "around zero": ("float h = {0.5}, float s = {2.0}", "a = Add(x, h) b = Mul(a, s) y = Relu(b)", (-1, 1)),
    "clipping": ("float l = {-3.0}, float h = {7.0}", "y = Clip(x, l, h)", (-3, 7)),
    "clipping after a shift": (
        "float l = {-3.0}, float h = {7.0}, float t = {2.0}",
        "a = Mul(x, t) y = Clip(a, l, h)",
        (-1.5, 3.5),
    ),
    "quantization": (
        "float s = {0.5}, uint8 z = {10}",
        "a = QuantizeLinear(x, s, z) y = DequantizeLinear(a, s, z)",
        (-5, 122.5),
    ),
    "batch normalisation of pixels": (
        "float[3] o = {1.0, 2.0, 1.0}, float[3] m = {120.0, 110.0, 100.0}, float[3] v = {3000.0, 3100.0, 3300.0}",
        "y = BatchNormalization(x, o, m, m, v)",
        (0, 255),
    ),
    "batch normalisation of something": (
        "float[3] o = {1.0, 1.0, 1.0}, float[3] m = {-500.0, 0.0, 0.0}, float[3] v = {4.0, 4.0, 4.0}",
        "y = BatchNormalization(x, o, o, m, v)",
        (-505, 5),
    ),
    "nothing": ("float one = {1.0}", "a = Relu(x) y = Sub(a, one)", None),
    "a gain used twice": ("float s = {255.0}", "a = Div(x, s) b = Relu(x) y = Add(a, b)", None),
}


@pytest.mark.parametrize("case", IMPLIED)
def test_the_first_layers_imply_a_range(case):
    weights, nodes, expected = IMPLIED[case]
    found = input_range.implied(head(weights, nodes), "x")
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_allclose([found.low.min(), found.high.max()], expected, rtol=1e-6)


def test_whole_numbers_compared_with_all_candidates_are_below_their_number():
    one_hot = head(
        "int64[1,1,5] all = {0, 1, 2, 3, 4}, int64[1] last = {2}",
        "u = Unsqueeze(x, last) e = Equal(u, all) y = Cast<to=1>(e)",
        "net (int64[n, 7] x) => (float[n, 7, 5] y)",
    )
    source = synthetic(couple(one_hot, sensitive=False), DataSettings(samples=40))
    assert np.unique(joined(source, "x")).tolist() == [0, 1, 2, 3, 4]


def test_mean_and_deviation_are_those_the_first_layers_take_out():
    """The nets before these layers saw inputs of this mean and deviation."""
    weights, nodes, _ = IMPLIED["mean and deviation taken out"]
    for asked in ((), ((0.0, 1.0),)):
        options = DataSettings(samples=200, input_range=asked)
        images = joined(synthetic(couple(head(weights, nodes), sensitive=False), options), "x")
        assert (images.min(), images.max()) == (0, 1)
        np.testing.assert_allclose(images.mean((0, 2, 3)), [0.485, 0.456, 0.406], atol=0.05)
        np.testing.assert_allclose(images.std((0, 2, 3)), [0.229, 0.224, 0.225], atol=0.05)


@pytest.mark.parametrize("shape", ["n, 4", "n, 4, 9", "n, 7, 6, 4"])
def test_columns_have_each_the_mean_and_deviation_that_are_taken_out(shape):
    axis = shape.split(", ").index("4")
    laid = ",".join("4" if k == axis else "1" for k in range(axis, shape.count(",") + 1))
    weights = f"float[{laid}] m = {{-50.0, 0.0, 20.0, 300.0}}, float[{laid}] d = {{1.0, 2.0, 3.0, 9.0}}"
    nodes, signature = "a = Sub(x, m) y = Div(a, d)", f"net (float[{shape}] x) => (float[{shape}] y)"
    found = joined(synthetic(couple(head(weights, nodes, signature), sensitive=False), DataSettings(samples=100)), "x")
    others = tuple(k for k in range(found.ndim) if k != axis)
    np.testing.assert_allclose(found.mean(others), [-50, 0, 20, 300], atol=2)
    np.testing.assert_allclose(found.std(others), [1, 2, 3, 9], rtol=0.2)


def test_a_guess_is_called_one():
    assert "guess" in made("image").name
    assert "guess" not in made("image", input_range=((0.0, 1.0),)).name
    assert "0 to 255" in made("pixels").name


def test_recordings_are_smooth_along_time():
    recording = written("net (float[n, time] x) => (float[n, time] y) { y = Relu(x) }")
    spectrogram = written("net (float[n, 16, time] x) => (float[n, 16, time] y) { y = Relu(x) }")
    for one in (recording, spectrogram):
        found = joined(synthetic(couple(one, sensitive=False), DataSettings(samples=16)), "x")
        assert np.mean(np.square(np.diff(found, axis=-1))) < 0.05 * found.var()


@pytest.mark.parametrize(
    "moved", ["t = Identity(kind)", "t = Gather<axis=1>(kind, [0])", "t = Identity(kind) u = Identity(t)"]
)
def test_texts_are_those_that_an_encoder_of_categories_knows(moved, tmp_path):
    """An encoder refuses others: so nothing could be analysed, since a run alone tells the shape that it makes."""
    text = f"""(string[n,1] kind, float[n,2] x) => (float[n,4] y) {{
        {moved} e = ai.onnx.ml.OneHotEncoder<cats_strings=["red", "green", "blue"], zeros=0>(t)
        s = Reshape(e, [-1, 3]) c = Concat<axis=1>(s, x) h = MatMul(c, w1) r = Relu(h) y = MatMul(r, w2)
    }}"""
    model = Net(text, "w1 5x12, w2 12x4", domains=', "ai.onnx.ml" : 3').build()
    analysis = slim.analyze(model)
    (batch,) = synthetic(analysis.coupling, DataSettings(samples=4)).batches()
    assert set(batch.inputs["kind"].ravel()) == {"red"}
    assert slim.slim(analysis, slim.plan(analysis, {"macs": 0.6})).save(tmp_path / "slim.onnx").passed
