"""Stored normalisations are folded where that makes a basis free, and nowhere else."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxslim_learn as osl
from onnxslim_learn.bases.find import spaces
from onnxslim_learn.bases.fold import folded
from onnxslim_learn.workflow import slim as api
from tests.bases.rotated import assert_same, turned
from tests.laws import PLANS, draw_removal
from tests.test_laws import assert_slim_is_mask

BOTTLENECK = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[batch, 3, 6, 6] x) => (float[batch, 4] y) {
 a = Conv(x, wa)
 s = BatchNormalization(a, ga, ba, ma, va)
 b = Conv(s, wb, cb)
 c = BatchNormalization(b, gb, bb, mb, vb)
 d = Relu(c)
 e = Conv(d, we)
 f = BatchNormalization(e, ge, be, me, ve)
 t = Add(s, f)
 g = Conv(t, wg)
 h = Relu(g)
 p = GlobalAveragePool(h)
 q = Flatten(p)
 y = Gemm(q, wy)
}
"""
SIZES = {"wa": (6, 3, 1, 1), "wb": (10, 6, 1, 1), "cb": (10,), "we": (6, 10, 1, 1), "wg": (8, 6, 1, 1), "wy": (8, 4)}


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    built, rng = onnx.parser.parse_model(BOTTLENECK), np.random.default_rng(0)
    widths = {"a": 6, "b": 10, "e": 6}
    sizes = SIZES | {f"{kind}{k}": (width,) for k, width in widths.items() for kind in "gbmv"}
    for name, size in sizes.items():
        array = rng.normal(size=size)
        array = np.abs(array) + 0.5 if name[0] == "v" else array
        built.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return built


@PLANS
@given(data=st.data())
def test_norms_of_a_stream_are_folded_and_others_stay(model, data):
    analysis = api.analyze(model)
    other = folded(analysis)
    assert [s.name for s in spaces(analysis.coupling, analysis.groups)] == []
    assert [s.name for s in spaces(other.coupling, other.groups)] == ["wa:0|0"]
    assert sum(node.op_type == "BatchNormalization" for node in other.graph.nodes) == 1
    assert_same(analysis, other)
    assert_same(analysis, turned(other))
    assert_slim_is_mask(draw_removal(data.draw, turned(other)))


def test_a_plan_for_folded_norms_is_replayed(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx")
    samples = {"x": np.random.default_rng(0).normal(size=(32, 3, 6, 6)).astype(np.float32)}
    places = {"output": tmp_path / "s.onnx", "plan_out": tmp_path / "p.json", "no_latency": True}
    first = osl.slim(tmp_path / "m.onnx", macs=0.6, multiple=1, data=samples, **places)
    assert "wa:0" in first.plan.groups
    assert first.report["bases"] == ["wa:0"]
    assert osl.verify(tmp_path / "m.onnx", tmp_path / "s.onnx", tmp_path / "p.json").passed
    osl.apply(tmp_path / "m.onnx", tmp_path / "p.json", data=samples, output=tmp_path / "a.onnx", no_latency=True)
    shapes = [[t.dims for t in onnx.load(tmp_path / name).graph.initializer] for name in ("s.onnx", "a.onnx")]
    assert shapes[0] == shapes[1]
