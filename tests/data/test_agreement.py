"""Samples that are not what a file says it was made for are doubted, with what cures it; proper ones never are."""

import json
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import parser
from PIL import Image

from onnxslim_learn import demo
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.data import input_range
from onnxslim_learn.data.open import open_source
from onnxslim_learn.data.options import DataSettings
from onnxslim_learn.data.recipes import COLOURED, RAW, SIGNED, UNIT, usual
from onnxslim_learn.errors import InputError
from tests.data import photos
from tests.data.models import HEADER
from tests.laws import ALL, analysed

PIXELS, CLASSES = photos.photographs(32, seed=1)
IMAGENET = "mean 0.485,0.456,0.406 std 0.229,0.224,0.225"
PREPARED = {"mean": photos.MEAN, "std": photos.STD}


@pytest.fixture(scope="module")
def net():
    return load(photos.exported())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(place / f"{number}.png")
    return place


def refusal(spec, graph, **options):
    with pytest.raises(InputError) as error:
        open_source(spec, graph, DataSettings(**options))
    return str(error.value)


def doubts(spec, graph, **options):
    return open_source(spec, graph, DataSettings(**options)).doubts


@pytest.mark.parametrize("count", [2, 8, 32])
def test_samples_as_in_training_are_not_doubted(net, folder, count):
    assert doubts({"image": photos.prepared(PIXELS[:count])}, net) == ()
    assert doubts(folder, net, samples=count, **PREPARED) == ()


def test_photographs_without_mean_and_deviation_are_refused_with_the_options_that_cure_it(net, folder):
    said = refusal(folder, net)
    assert said.startswith(f"{folder}: ")
    assert IMAGENET in said
    assert "as_given" in said


def test_what_is_refused_can_be_meant(net, folder):
    (said,) = doubts(folder, net, as_given=True)
    assert "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in said


@pytest.mark.parametrize("given", [UNIT, RAW, SIGNED, *COLOURED, replace(RAW, mean=(9.0,), colour="bgr")])
def test_options_that_are_advised_lead_from_those_that_were_given_to_what_is_meant(given):
    for way in usual(PIXELS[:2].transpose(0, 3, 1, 2), given):
        advice = way.advice(given)
        if options := advice.options:
            told = re.sub("[⟨⟩]", "", advice.said).split(" ")
            assert told == ["Give", *(word for pair in options.items() for word in pair)]
            numbers = {key: tuple(map(float, options[key].split(","))) for key in ("mean", "std") if key in options}
            scale, colour = float(options.get("scale", given.scale)), options.get("colour", given.colour)
            reached = replace(given, scale=scale, colour=colour, **numbers)
        else:
            assert advice.said.startswith("Leave ")
            reached = UNIT
        assert reached == replace(way, name=reached.name)


@pytest.mark.parametrize(
    ("mean", "std", "scale"), [((0.0,), (1.0,), 255), ((0.0,), (1.0,), 1), ((103.939, 116.779, 123.68), (1.0,), 1)]
)
def test_arrays_prepared_otherwise_are_refused_with_a_formula(net, mean, std, scale):
    said = refusal({"image": photos.prepared(PIXELS, mean, std, scale)}, net)
    if scale == 255:
        assert "Store (pixels / 255 - 0.485,0.456,0.406) / 0.229,0.224,0.225" in said
    assert "nats" in said


def test_a_small_mismatch_is_told_and_not_refused(net):
    (said,) = doubts({"image": photos.prepared(PIXELS, (0.5,), (0.5,))}, net)
    assert "mean and deviation of ImageNet" in said


def test_inputs_of_another_kind_are_told(net):
    (said,) = doubts({"image": np.full((16, 3, 24, 24), 5, np.float32)}, net)
    assert "not of the model's kind" in said


def test_classes_tell_where_normalisations_are_folded():
    folded = load(photos.exported(folded=True))
    good = {"image": photos.prepared(PIXELS), "labels": CLASSES}
    assert doubts(good, folded) == ()
    (said,) = doubts({"image": photos.prepared(PIXELS, (0.5,), (0.5,)), "labels": CLASSES}, folded)
    assert "classes right" in said
    assert doubts({"image": photos.prepared(PIXELS, (0.5,), (0.5,)), "labels": CLASSES[::-1] * 0}, folded) == ()


@pytest.mark.parametrize("count", [1, 4, 64])
def test_the_demo_is_not_doubted(count):
    graph, held = load(demo.model_path()), demo.held_out()
    assert doubts({name: held[name][:count] for name in ("image", "labels")}, graph) == ()


@pytest.mark.parametrize("name", ALL)
def test_nets_that_nobody_trained_tell_nothing(name):
    """Statistics that were set, not estimated, are no reason to doubt any numbers."""
    graph = analysed(name).graph
    rng = np.random.default_rng(0)
    sample = graph.shapes.nominal
    if any(onnx.helper.tensor_dtype_to_np_dtype(kind).kind != "f" for kind in sample.dtype.values()):
        return
    for draw in (rng.standard_normal, rng.random):
        arrays = {name: draw(sample.inputs[name]).astype(np.float32) for name in sample.inputs}
        assert doubts(lambda arrays=arrays: [arrays] * 8, graph) == ()


# --- ranges -----------------------------------------------------------------------------------------------------------

NORMALISES = """net (float[n, 3, 8, 8] image) => (float[n, 3, 8, 8] y)
    <float k = {0.003921569}> { s = Mul(image, k) y = Relu(s) }"""
QUANTIZED = """net (float[n, 3, 8, 8] image) => (float[n, 3, 8, 8] y)
    <float k = {0.007843}, int8 zero = {0}>
    { q = QuantizeLinear(image, k, zero) y = DequantizeLinear(q, k, zero) }"""
RANGES = [
    (NORMALISES, 255.0, 1.0, "0 to 255 (its first layers)"),
    (QUANTIZED, 1.0, 255.0, "-1 to 0.996 (its quantization)"),
    (QUANTIZED, 1.0, 1 / 255, "its quantization"),
]


@pytest.mark.parametrize(("text", "good", "bad", "words"), RANGES)
def test_numbers_of_another_magnitude_are_refused(text, good, bad, words):
    graph = load(parser.parse_model(HEADER + text))
    rows = np.random.default_rng(0).random((16, 3, 8, 8)).astype(np.float32)
    assert doubts({"image": rows * np.float32(good)}, graph) == ()
    assert words in refusal({"image": rows * np.float32(bad)}, graph)


SCALED = "net (float[n, 9] x) => (float[n, 9] y) <float k = {{0.001}}> {{ s = Mul(x, k) y = {}(s) }}"
CLIPPED = """net (float[n, 9] x) => (float[n, 9] y) <float a = {-1}, float b = {1}> { s = Clip(x, a, b) y = Relu(s) }"""


def test_what_is_no_image_may_have_any_scale_but_not_lie_beyond_limits():
    rows = np.random.default_rng(0).normal(0, 1, (16, 9)).astype(np.float32)
    for factor in (1, 1e-3, 1e6):
        assert doubts({"x": rows * np.float32(factor)}, load(parser.parse_model(HEADER + SCALED.format("Relu")))) == ()
    clipped = load(parser.parse_model(HEADER + CLIPPED))
    assert doubts({"x": rows * np.float32(1e-3)}, clipped) == ()
    assert "its clipping" in refusal({"x": rows * np.float32(1e4)}, clipped)


def test_the_range_is_solved_from_what_the_first_normalisation_has_stored(net):
    told = input_range.implied(net, "image")
    rows = photos.prepared(PIXELS)
    assert np.abs(told.mean - rows.mean((0, 2, 3))).max() < 0.2
    assert told.deviation == pytest.approx(rows.std((0, 2, 3)), rel=0.25)
    assert told.low < -0.9
    assert told.high > 0.9


# --- metadata ---------------------------------------------------------------------------------------------------------

OPEN = """net (float[n, 3, height, width] images) => (float[n, 3] y)
    { y = ReduceMean<axes=[2,3],keepdims=0>(images) }"""
ULTRALYTICS = {"stride": "32", "task": "detect", "names": "{0: 'a'}", "imgsz": "[96, 160]", "batch": "1"}
PROCESSOR = {"image_mean": list(photos.MEAN), "image_std": list(photos.STD), "rescale_factor": 1 / 255}
SAID = [
    (ULTRALYTICS, "96x160 rgb from 0 to 1"),
    ({"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}, "bgr from 0 to 255"),
    ({"Image.BitmapPixelFormat": "Rgb8", "Image.NominalPixelRange": "Normalized_1_1"}, "mean [0.5] and std [0.5]"),
    ({"preprocessor_config": json.dumps({**PROCESSOR, "size": 64})}, "64x64 rgb from 0 to 1, mean [0.485, 0.456"),
    ({key: json.dumps(value) for key, value in PROCESSOR.items()}, "std [0.229, 0.224, 0.225]"),
    ({"preprocessor_config": json.dumps({**PROCESSOR, "do_normalize": False})}, "224x224 rgb from 0 to 1"),
    ({"author": "somebody", "stride": "a"}, "224x224 rgb from 0 to 1"),
]


def spoken(entries):
    return load(photos.with_metadata(parser.parse_model(HEADER + OPEN), **entries))


@pytest.mark.parametrize(("entries", "words"), SAID)
def test_metadata_set_defaults(entries, words, folder):
    assert words in open_source(folder, spoken(entries)).name


def test_costs_are_counted_at_the_size_that_metadata_say():
    assert spoken(ULTRALYTICS).shapes.nominal.inputs["images"] == (1, 3, 96, 160)
    told = input_range.implied(spoken(ULTRALYTICS), "images")
    assert (told.low, told.high) == (0, 1)


def test_samples_are_held_against_metadata(folder):
    graph = spoken(ULTRALYTICS)
    rows = PIXELS.transpose(0, 3, 1, 2).astype(np.float32)
    assert "Ultralytics" in refusal({"images": rows}, graph)
    assert doubts({"images": rows.repeat(4, 2).repeat(6, 3) / 255}, graph) == ()
    (said,) = doubts(folder, graph, **PREPARED)
    assert "Leave --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 out" in said


def test_size_and_colours_are_held_against_metadata(folder):
    graph = spoken(ULTRALYTICS)
    (size,) = doubts(folder, graph, image_size=(64, 64))
    assert "Give --image-size 96x160" in size
    (colour,) = doubts(folder, graph, colour="bgr")
    assert "Give --colour rgb" in colour
    assert doubts(folder, graph, image_size=(96, 128)) == ()
    assert "Store images of 96x160" in doubts({"images": np.zeros((2, 3, 32, 32), np.float32)}, graph)[0]


def test_axes_say_where_channels_lie(folder):
    model = parser.parse_model(HEADER + OPEN.replace("n, 3, height, width", "n, 3, 8, 3"))
    model.graph.input[0].type.tensor_type.shape.dim[3].denotation = "DATA_CHANNEL"
    graph = load(model)
    assert next(open_source(folder, graph).batches()).inputs["images"].shape[1:] == (3, 8, 3)
    look = open_source(folder, graph).name
    assert "3x8 rgb" in look
