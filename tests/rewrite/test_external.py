"""Weights that lie beside the file, the smallest too, are read from there, whatever operators the file has."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxslim_learn as osl
from nets.forms import NETS as FORMS
from nets.zoo import NETS, feeds
from onnxslim_learn.errors import InputError
from onnxslim_learn.rewrite import save

CASES = {"residual": NETS["residual"], "swiglu": NETS["swiglu"], "BiasGelu": FORMS["BiasGelu"]}


@pytest.mark.parametrize("name", CASES)
def test_files_whose_weights_are_all_outside_are_cut(name, tmp_path, monkeypatch):
    folder = tmp_path / "there"
    folder.mkdir()
    outside = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    onnx.save(CASES[name].build(), folder / "net.onnx", **outside)
    monkeypatch.chdir(tmp_path)
    result = osl.slim("there/net.onnx", params=0.8, output="slim.onnx", samples=16, no_latency=True)
    assert result.passed
    assert all(file.is_file() for file in save.files(tmp_path / "slim.onnx"))
    session = ort.InferenceSession("slim.onnx")
    (whole,) = ort.InferenceSession("there/net.onnx").run(None, feed := feeds(CASES[name].build(), seed=0))
    assert session.run(None, feed)[0].shape == whole.shape


@pytest.mark.parametrize("threshold", [0, 1024])
def test_files_whose_weights_are_outside_are_widened_and_sparsified(tmp_path, threshold):
    """Weights that stay as they are lie outside to the end."""
    source, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    outside = {"save_as_external_data": True, "location": "net.data", "size_threshold": threshold}
    onnx.save(NETS["residual"].build(), source, **outside)
    feed = feeds(NETS["residual"].build(), seed=0)
    whole = ort.InferenceSession(source).run(None, feed)
    result = osl.expand(source, macs=1.5, output=out, no_latency=True)
    assert result.report["after"]["macs"] > result.report["before"]["macs"]
    for one, other in zip(whole, ort.InferenceSession(out).run(None, feed), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)
    assert osl.sparsify(source, ratio=0.5, output=out, samples=16, no_latency=True).passed
    assert ort.InferenceSession(out).run(None, feed)[0].shape == whole[0].shape


def hub(folder, data_folder):
    """Write a net as a hub's cache keeps it: links of a snapshot into a folder of files named by their contents."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "1f" / "onnx"
    for path in (blobs, snapshot, data_folder):
        path.mkdir(parents=True, exist_ok=True)
    onnx.save(NETS["swiglu"].build(), blobs / "0a", save_as_external_data=True, location="net.onnx_data")
    (blobs / "net.onnx_data").rename(data_folder / "0b")
    (snapshot / "net.onnx").symlink_to("../../../blobs/0a")
    (snapshot / "net.onnx_data").symlink_to(data_folder / "0b")
    return snapshot / "net.onnx"


def test_links_of_a_cache_are_followed(tmp_path):
    source = hub(tmp_path, tmp_path / "blobs")
    result = osl.slim(source, params=0.8, output=tmp_path / "slim.onnx", samples=16, no_latency=True)
    assert result.passed
    assert osl.verify(source, tmp_path / "slim.onnx", plan=result.plan).passed
    feed = feeds(NETS["swiglu"].build(), seed=0)
    assert all(np.isfinite(out).all() for out in ort.InferenceSession(tmp_path / "slim.onnx").run(None, feed))


def test_links_that_lead_elsewhere_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"its weights must be in .*blobs, not in .*elsewhere.* Copy them there"):
        osl.analyze(hub(tmp_path, tmp_path / "elsewhere"))
