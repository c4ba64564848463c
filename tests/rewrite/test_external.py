"""Weights that lie beside the file, the smallest too, are read from there, whatever operators the file has."""

import onnx
import onnxruntime as ort
import pytest

import onnxslim_learn as osl
from nets.forms import NETS as FORMS
from nets.zoo import NETS, feeds

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
    assert (tmp_path / "slim.onnx.data").is_file()
    session = ort.InferenceSession("slim.onnx")
    (whole,) = ort.InferenceSession("there/net.onnx").run(None, feed := feeds(CASES[name].build(), seed=0))
    assert session.run(None, feed)[0].shape == whole.shape
