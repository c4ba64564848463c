"""A method to zero weights of one's own: a function of a cut and moments; a mask, and the weights that stay."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import METHODS

HALF = 0.5


def largest(cut, seen):
    """The largest weights go."""
    mask = cut.keep(-(seen.matrix**2))
    return mask, seen.matrix * mask


def norm(path):
    """Sum of squares of all weights of more than one axis."""
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return sum(float(np.square(array).sum()) for array in arrays if array.ndim > 1)


@pytest.mark.parametrize("method", [largest, f"{__name__}:largest", "largest"])
def test_it_chooses_what_is_zero(tmp_path, method):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    asked = {"ratio": HALF, "samples": 16, "no_latency": True}
    with METHODS.having("largest", largest):
        mine = osl.sparsify(
            tmp_path / "net.onnx", output=tmp_path / "mine.onnx", json=tmp_path / "told.json", method=method, **asked
        )
    assert mine.passed
    osl.sparsify(tmp_path / "net.onnx", output=tmp_path / "small.onnx", method="magnitude", **asked)
    assert norm(tmp_path / "mine.onnx") < norm(tmp_path / "small.onnx")
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["asked"]["method"].endswith("largest")
    assert told["asked"]["method"] in {row["method"] for row in told["layers"]}


def test_what_is_misspelt_is_told(tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    with METHODS.having("largest", largest), pytest.raises(InputError, match="Did you mean largest"):
        osl.sparsify(tmp_path / "net.onnx", output=tmp_path / "out.onnx", method="largst", ratio=HALF)
