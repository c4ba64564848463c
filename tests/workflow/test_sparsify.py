"""Whole models: exact zeros in the file, what is protected, what the search finds, and what the report says."""

import numpy as np
import onnx
import pytest

from nets.zoo import NETS, feeds
from onnxslim_learn.data.open import open_source
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import METHODS
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.runtime.timing import open_session
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.sparse import layer_ratios, one_shot, patterns, ratio_search, storage
from onnxslim_learn.sparse.maskable import layers
from onnxslim_learn.workflow import slim as api
from onnxslim_learn.workflow import sparsify
from onnxslim_learn.workflow.settings import ZeroSettings

SAMPLES = 64


def analyzed(tmp_path, net):
    onnx.save(NETS[net].build(), tmp_path / "net.onnx")
    return api.analyze(tmp_path / "net.onnx")


def calibration(found, samples=SAMPLES):
    rng = np.random.default_rng(0)
    shapes = found.graph.shapes.nominal.inputs
    batch = next(iter(shapes.values()))[0]
    data = {n: rng.standard_normal((samples // batch * batch, *s[1:])).astype("f") for n, s in shapes.items()}
    return Calibration(found.coupling, open_source(data, found.graph))


def arrays(path):
    return {t.name: onnx.numpy_helper.to_array(t) for t in storage.inside(path).graph.initializer}


@pytest.mark.parametrize("method", METHODS)
def test_the_file_holds_exactly_the_zeros_asked_for(tmp_path, method):
    found = analyzed(tmp_path, "residual")
    made = sparsify.sparsify(found, ZeroSettings(0.6, method=method, protect=("w5",)), calibration(found))
    made.save(tmp_path / "s.onnx")
    before, after = arrays(tmp_path / "net.onnx"), arrays(tmp_path / "s.onnx")
    shares = layer_ratios.heurist([layer.size for layer in made.layers], 0.6)
    for layer, share in zip(made.layers, shares, strict=True):
        assert (after[layer.name] == 0).sum() == round(share * layer.size)
    assert (after["w5"] != 0).all()
    if method in ("wanda", "magnitude"):
        assert all(np.array_equal(after[n][after[n] != 0], before[n][after[n] != 0]) for n in before if n != "w5")


def test_updated_weights_keep_outputs_nearer(tmp_path):
    found = analyzed(tmp_path, "residual")
    known = calibration(found, 128)
    off = {m: sparsify.sparsify(found, ZeroSettings(0.6, method=m), known).deviation["y"].relative for m in METHODS}
    assert max(off["admm"], off["sparsegpt"]) < 0.8 * min(off["wanda"], off["magnitude"])


@pytest.mark.parametrize("net", ["grouped", "conv_transpose", "einsum", "lstm", "depthwise", "siamese", "half"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_all_kinds_of_layers(tmp_path, net, pattern):
    found = analyzed(tmp_path, net)
    asked = ZeroSettings(None if pattern == "2:4" else 0.5, pattern)
    made = sparsify.sparsify(found, asked, calibration(found))
    made.save(tmp_path / "s.onnx")
    after = arrays(tmp_path / "s.onnx")
    for layer in made.layers:
        assert patterns.holds(after[layer.name], patterns.parse(pattern), layer)
        if pattern == "unstructured":
            assert (after[layer.name] == 0).sum() == round(made.ratios[layer.name] * layer.size)
    assert {p.method for p in made.done.values()} <= {"admm", "magnitude"}


def test_sparse_initializers_go_through_onnxruntime_and_back(tmp_path):
    found = analyzed(tmp_path, "residual")
    made = sparsify.sparsify(found, ZeroSettings(0.9), calibration(found))
    dense = made.save(tmp_path / "dense.onnx")
    sparse = made.save(tmp_path / "sparse.onnx", sparse=True)
    proto = onnx.load(tmp_path / "sparse.onnx")
    assert len(proto.graph.sparse_initializer) == sparse.tensors > 0
    assert sparse.sparse == (tmp_path / "sparse.onnx").stat().st_size < dense.plain
    assert dense.plain == (tmp_path / "dense.onnx").stat().st_size
    x = feeds(NETS["residual"].build())
    runs = [open_session(tmp_path / f"{n}.onnx", optimize=False).run(None, x)[0] for n in ("dense", "sparse")]
    assert np.array_equal(*runs)
    again = api.analyze(tmp_path / "sparse.onnx").graph.initializers
    for layer in made.layers:
        assert np.array_equal(again[layer.name].const_value.numpy(), made.array(layer))


def test_ratios_at_the_ends(tmp_path):
    found = analyzed(tmp_path, "chain")
    for ratio in (0.0, 1.0):
        made = sparsify.sparsify(found, ZeroSettings(ratio, protocol="uniform"), calibration(found))
        made.save(tmp_path / "s.onnx")
        assert patterns.sparsity([made.array(layer) for layer in made.layers]) == ratio


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (ZeroSettings(), "ratio"),
        (ZeroSettings(1.5), "ratio 1.5"),
        (ZeroSettings(0.75, "2:4"), "ratio 0.75"),
        (ZeroSettings(None, "2:4", protocol="search"), "protocol search"),
        (ZeroSettings(0.5, method="guess"), "method guess"),
        (ZeroSettings(0.5, protocol="guess"), "protocol guess"),
    ],
)
def test_what_does_not_fit_is_refused(asked, words):
    with pytest.raises(InputError, match=words):
        asked.target()


def test_allocation_takes_from_what_loses_least():
    sizes = [100, 400, 100]
    steep, flat = {1.0: 0.0, 0.2: 4.0, 0.1: 9.0}, {1.0: 0.0, 0.2: 0.04, 0.1: 0.09}
    shares = ratio_search.allocate([steep, flat, steep], sizes, 0.7)
    assert sum(n * r for n, r in zip(sizes, shares, strict=True)) == pytest.approx(0.7 * 600)
    assert shares[1] > 0.85 > shares[0] == pytest.approx(shares[2])
    low, high = layer_ratios.bounds(0.7)
    bound = ratio_search.allocate([steep, flat, steep], sizes, 0.7, (low, high))
    assert all(low - 1e-9 <= r <= high + 1e-9 for r in bound)


def test_allocation_is_the_best_of_a_grid():
    sizes = [50, 80, 120]
    rng = np.random.default_rng(0)
    curves = [{1.0: 0.0, 0.5: a, 0.25: 4 * a, 0.1: 12 * a} for a in rng.uniform(0.1, 2, 3)]

    def loss(shares):
        return sum(
            float(ratio_search.interpolated(c, np.array([1 - r]))[0]) for c, r in zip(curves, shares, strict=True)
        )

    found = loss(ratio_search.allocate(curves, sizes, 0.6))
    grid = np.linspace(0.0, 0.95, 60)
    best = min(loss((a, b, c)) for a in grid for b in grid if 0 <= (c := (0.6 * 250 - 50 * a - 80 * b) / 120) <= 0.95)
    assert found <= best * 1.02


def test_search_measures_without_changing_and_is_no_worse_than_what_it_starts_from(tmp_path):
    found = analyzed(tmp_path, "residual")
    record = Record(found.graph.model, calibration(found, 32).feeds, 512, 2)
    listed, recipe = layers(found.graph.model), one_shot.OneShotSettings({}, patterns.parse("unstructured"))
    dense = ratio_search.Dense(found.whole, listed, record, recipe)
    before = {layer.name: found.graph.initializers[layer.name].const_value for layer in listed}
    curves = ratio_search.measure(dense, 0.7)
    assert all(found.graph.initializers[name].const_value is tensor for name, tensor in before.items())
    assert all(len(curve) > 3 for curve in curves.values())
    assert all(curve[min(curve)] >= curve[max(d for d in curve if d < 1)] for curve in curves.values())
    best = ratio_search.search(dense, 0.7)
    assert best.trials[best.protocol] == min(best.trials.values())
    assert set(best.trials) >= {"uniform", "heurist", "least loss"}


@pytest.mark.slow
def test_a_search_finds_the_same_on_workers(tmp_path):
    found = analyzed(tmp_path, "residual")
    known, asked = calibration(found, 32), ZeroSettings(0.7, protocol="search")
    done = []
    for place in (None, 2):
        known.workers = place
        told = sparsify.sparsify(found, asked, known)
        done.append((told.protocol, told.ratios, told.trials))
    assert done[0] == done[1]


def test_dead_units_are_cut_and_nothing_changes(tmp_path):
    found = analyzed(tmp_path, "residual")
    made = sparsify.sparsify(
        found, ZeroSettings(0.5, "units", "magnitude", protect=("w0", "w2", "w4", "w5")), calibration(found)
    )
    made.save(tmp_path / "whole.onnx")
    stored = made.save(tmp_path / "cut.onnx", lossless=True)
    assert {name: kept for name, (_, kept) in stored.cut.items()} == {"w1:0": 6, "w3:0": 5}
    x = feeds(NETS["residual"].build())
    runs = [open_session(tmp_path / f"{n}.onnx", optimize=False).run(None, x)[0] for n in ("whole", "cut")]
    assert np.abs(runs[0] - runs[1]).max() < 1e-5 * np.abs(runs[0]).max()
    whole, cut = (api.analyze(tmp_path / f"{n}.onnx") for n in ("whole", "cut"))
    assert cut.price(cut.whole)["macs"] < 0.7 * whole.price(whole.whole)["macs"]
    assert stored.plain == (tmp_path / "cut.onnx").stat().st_size
