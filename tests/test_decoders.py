"""Decoders as exporters and onnxruntime's builders write them: heads and hidden units go, exactly, at all lengths."""

from functools import partial

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

import onnxslim_learn as osl
from nets.large import Decoder, FusedDecoder
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.rewrite import stretches, verify
from onnxslim_learn.workflow import slim

SHAPE = (2, 128, 8, 4, 96, 50, TensorProto.FLOAT)
FEW = (2, 128, 8, 2, 192, 50, TensorProto.FLOAT)
SPELLINGS = {
    "plain": partial(Decoder, *SHAPE),
    "fused": partial(FusedDecoder, *SHAPE),
    "fused, cached": partial(FusedDecoder, *FEW, past=True),
    "four bits": partial(FusedDecoder, *FEW, past=True, block=16),
}


def ran(path, batch, length, former):
    """Logits of a decoder: of new positions after former ones, where it takes these."""
    session, rng = ort.InferenceSession(path), np.random.default_rng(0)
    inputs = {info.name: info for info in session.get_inputs()}
    former *= any(name.startswith("past") for name in inputs)
    feed = {"ids": rng.integers(0, 50, (batch, length)), "mask": np.ones((batch, former + length), np.int64)}
    caches = {n: (batch, i.shape[1], former, i.shape[3]) for n, i in inputs.items() if n.startswith("past")}
    feed |= {name: rng.standard_normal(shape, np.float32) for name, shape in caches.items()}
    return session.run(None, {name: feed[name] for name in inputs})[0]


def weights(path):
    return {tensor.name: tensor.dims for tensor in onnx.load(path, load_external_data=False).graph.initializer}


LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("plain", "fused")]


@pytest.mark.parametrize("spelling", ["fused, cached", "four bits", *LONG])
def test_decoders_are_cut_in_heads_and_hidden_units(spelling, tmp_path, monkeypatch):
    decoder = SPELLINGS[spelling]()
    source = decoder.fill(decoder.write(tmp_path / "decoder.onnx"))
    result = osl.slim(source, params=0.8, output=tmp_path / "slim.onnx", no_repair=True, no_latency=True, multiple=1)
    assert result.passed
    monkeypatch.setattr(verify, "LARGEST", 100)
    monkeypatch.setattr(stretches, "NODES", 8)
    again = osl.verify(source, tmp_path / "slim.onnx", result.plan)
    assert again.passed
    assert again.verification.stretches >= 4  # masks and lengths, which all blocks read, are made anew for each
    before, after = (weights(path) for path in (source, tmp_path / "slim.onnx"))
    for name in ("attention.q", "mlp.up"):
        assert np.prod(after[f"layers.0.{name}.weight"]) < np.prod(before[f"layers.0.{name}.weight"])
    for batch, length, former in ((1, 1, 0), (2, 7, 0), (1, 3, 6)):
        found = ran(tmp_path / "slim.onnx", batch, length, former)
        assert found.shape == ran(source, batch, length, former).shape
        assert np.isfinite(found).all()


@pytest.mark.parametrize("named", [False, True])
def test_a_mask_is_as_long_as_former_and_new_positions(named, tmp_path):
    source = SPELLINGS["fused, cached"]().write(tmp_path / "decoder.onnx")
    model = onnx.load(source, load_external_data=False)
    for info in (*model.graph.input, *model.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param == "total_sequence_length":
                total = "past_sequence_length + sequence_length"
                dim.dim_param = total if named or info.name != "mask" else "s7"
    onnx.save(model, source)
    for sample in slim.analyze(source).graph.shapes.samples:
        former = sample.inputs["past.layers.0.attention.k"][2]
        assert sample.inputs["mask"][1] == former + sample.inputs["ids"][1]


def test_key_value_heads_stay_as_the_caches_that_are_given(tmp_path):
    analysis = slim.analyze(SPELLINGS["fused, cached"]().write(tmp_path / "decoder.onnx"))
    held = {group.name: group.pin.reason for group in analysis.groups if group.pin is not None}
    for name in "kv":
        reason = held[f"layers.1.attention.{name}.weight:1/2"]
        assert "reads graph input past.layers.1.attention.k: a cache. The command caches opens its heads" in reason


def test_what_is_left_without_a_block_is_counted_from_a_file_where_weights_lie_beside(tmp_path):
    analysis = slim.analyze(SPELLINGS["fused, cached"]().write(tmp_path / "decoder.onnx"))
    (block, *_) = analysis.free_blocks()
    gone = analysis.whole.gone.copy()
    gone[analysis.coupling.strong[block.atom]] = True
    before, after = (analysis.price(Removal(analysis.coupling, cut)) for cut in (analysis.whole.gone, gone))
    assert before["params"] - after["params"] == 3 * 128 * 192
