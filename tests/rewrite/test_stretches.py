"""Stretches: checked one after the other they say what the models say as a whole, and no fault passes between them."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from nets.fused import plain
from nets.notation import Net
from nets.operators import EXAMPLES
from onnxslim_learn.coupling.removal import removal
from onnxslim_learn.rewrite import stretches, verify
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import CUT, PLANS, analysed, draw_removal

NETS = [pytest.param(name, marks=pytest.mark.slow if plain(name) in EXAMPLES else ()) for name in CUT]
DEEP = " ".join(
    f"h{k} = MatMul(a{k}, w{k}) r{k} = Relu(h{k}) d{k} = MatMul(r{k}, v{k}) a{k + 1} = Add(d{k}, a{k})"
    for k in range(8)
)
WEIGHTS = ", ".join(f"w{k} 6x10, v{k} 10x6" for k in range(8))


def deep(scale=1.0):
    """Residual blocks one after the other, whose numbers grow by a factor in each."""
    model = Net(f"(float[2,6] a0) => (float[2,6] a8) {{ {DEEP} }}", WEIGHTS).build()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(scale), tensor.name))
    return model


def halved(analysis):
    """Half of every group that can be cut."""
    units = [group.units[part[: len(part) // 2]] for group in laws.free(analysis) for part in group.strata]
    return removal(analysis.coupling, np.concatenate(units))


@pytest.mark.parametrize("name", NETS)
@PLANS
@given(st.data())
def test_every_stretch_of_a_true_cut_agrees(name, data):
    analysis = analysed(name)
    cut = draw_removal(data.draw, analysis)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(stretches, "NODES", 2):
        onnx.save(laws.written(analysis, cut), Path(folder) / "m.onnx")
        for check, reference, _ in stretches.compared(cut, Path(folder) / "m.onnx", laws.analysis_inputs(analysis)):
            assert check.passed or check.chaotic, check
            assert reference.passed or reference.chaotic, reference


@pytest.mark.parametrize("spoilt", range(0, 16, 5))
def test_a_wrong_weight_fails_in_whichever_stretch_it_is(spoilt, tmp_path, monkeypatch):
    monkeypatch.setattr(stretches, "NODES", 3)
    analysis = slim.analyze(deep())
    cut = halved(analysis)
    small = laws.written(analysis, cut)
    onnx.save(small, tmp_path / "true.onnx")
    feed = laws.analysis_inputs(analysis)
    true = list(stretches.compared(cut, tmp_path / "true.onnx", feed))
    assert len(true) >= 7
    assert all(check.passed and reference.passed for check, reference, _ in true)
    tensor = small.graph.initializer[spoilt]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    onnx.save(small, tmp_path / "wrong.onnx")
    wrong = list(stretches.compared(cut, tmp_path / "wrong.onnx", feed))
    assert sum(not check.passed for check, *_ in wrong) == 1


def test_a_model_whose_numbers_run_away_is_verified_in_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(stretches, "NODES", 4)
    analysis = slim.analyze(deep(scale=1e4))
    cut = halved(analysis)
    onnx.save(laws.written(analysis, cut), tmp_path / "m.onnx")
    verified = verify.verify(cut, tmp_path / "m.onnx")
    assert verified.passed
    assert verified.stretches > 4


def test_a_large_model_is_never_opened_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(stretches, "NODES", 4)
    monkeypatch.setattr(verify, "LARGEST", 100)
    monkeypatch.setattr(verify, "_open", None)
    analysis = slim.analyze(deep())
    cut = halved(analysis)
    onnx.save(laws.written(analysis, cut), tmp_path / "m.onnx")
    for real in ([], [laws.analysis_inputs(analysis)]):
        verified = verify.verify(cut, tmp_path / "m.onnx", real)
        assert verified.passed
        assert verified.stretches > 4
