"""Normalised streams become sums of squares, which are the same in any basis: outputs stay, and the stream is free."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nets.fused import fused
from onnxslim_learn.bases import norms
from onnxslim_learn.bases.find import spaces
from onnxslim_learn.workflow import slim as api
from tests.bases.rotated import assert_same, turned
from tests.laws import PLANS, draw_removal
from tests.test_laws import assert_slim_is_mask

WIDTH, HIDDEN = 8, 12

STREAM = """
 t = MatMul(x, w_in)
 s0 = Add(t, b_in)
 s1 = Add(s0, positions)
 {first}
 a1 = MatMul(n1, w1)
 a2 = Add(a1, b1)
 a3 = Relu(a2)
 a4 = MatMul(a3, w2)
 a5 = Add(a4, b2)
 s2 = Add(s1, a5)
 {second}
 g1 = Gemm(p2, w3, b3)
 g2 = Tanh(g1)
 g3 = MatMul(g2, w4)
 s3 = Add(s2, g3)
 {third}
 {end}
"""

LAYER = "{out} = LayerNormalization<axis = -1, epsilon = 0.01>({of}, gamma{k}, beta{k})"
ROOT = "{out} = RMSNormalization<axis = -1, epsilon = 0.01>({of}, gamma{k})"
SIMPLE = "{out} = SimplifiedLayerNormalization<axis = -1, epsilon = 0.01>({of}, gamma{k})"
SPELLED = """
 q{k} = Pow({of}, two)
 m{k} = ReduceMean<axes = [-1]>(q{k})
 e{k} = Add(m{k}, eps)
 r{k} = Sqrt(e{k})
 o{k} = Div(unit, r{k})
 h{k} = Mul({of}, o{k})
 {out} = Mul(gamma{k}, h{k})"""
SPELLED_LAYER = """
 m{k} = ReduceMean<axes = [2]>({of})
 c{k} = Sub({of}, m{k})
 q{k} = Mul(c{k}, c{k})
 v{k} = ReduceMean<axes = [2]>(q{k})
 e{k} = Add(eps, v{k})
 r{k} = Sqrt(e{k})
 h{k} = Div(c{k}, r{k})
 d{k} = Mul(h{k}, gamma{k})
 {out} = Add(d{k}, beta{k})"""
END = "m = ReduceMean<axes = [1], keepdims = 0>(n3)\n y = MatMul(m, head)"
LATE_END = "m = ReduceMean<keepdims = 0>(n3, one)\n y = MatMul(m, head)"


def net(norm: str = LAYER, version: int = 17, end: str = END, **other: str) -> onnx.ModelProto:
    """Return a model of two perceptrons beside a stream that is normalised before each, and at the end."""
    first, second, third = (
        norm.format(out=out, of=of, k=k) for k, (of, out) in enumerate([("s1", "n1"), ("s2", "n2"), ("s3", "n3")])
    )
    second += "\n p2 = Reshape(n2, flat)"
    text = STREAM.format(first=first, second=second, third=third, end=end)
    text = text.replace("MatMul(g2, w4)", "MatMul(g2, w4)\n g4 = Reshape(g3, folded)").replace(
        "Add(s2, g3)", "Add(s2, g4)"
    )
    for old, new in other.items():
        text = text.replace({"middle": " a1 = MatMul(n1, w1)", "last": " s3 = Add(s2, g4)"}[old], new)
    head = f'<ir_version: 8, opset_import: ["" : {version}]>\n net (float[2, 5, 6] x) => (float[2, 4] y) {{'
    model = onnx.parser.parse_model(f"{head}{text}}}")
    rng = np.random.default_rng(0)
    sizes = {"w_in": (6, WIDTH), "b_in": (WIDTH,), "positions": (1, 5, WIDTH), "w1": (WIDTH, HIDDEN), "b1": (HIDDEN,)}
    sizes |= {"w2": (HIDDEN, WIDTH), "b2": (WIDTH,), "w3": (WIDTH, HIDDEN), "b3": (HIDDEN,), "w4": (HIDDEN, WIDTH)}
    sizes |= {"head": (WIDTH, 4)} | {f"{name}{k}": (WIDTH,) for name in ("gamma", "beta") for k in range(3)}
    arrays = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    arrays |= {"flat": np.array([10, WIDTH]), "folded": np.array([2, 5, WIDTH]), "one": np.array([1])}
    arrays |= {n: np.array(x, np.float32) for n, x in {"two": 2.0, "eps": 0.01, "unit": 1.0}.items()}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items() if n in used)
    return model


NETS = {
    "layer": net(),
    "layer_18": net(version=18, end=LATE_END),
    "layer_extended": fused(net(), "extended"),
    "simplified": net(SIMPLE),
    "simplified_extended": fused(net(SIMPLE), "extended"),
    "rms": net(ROOT, 23, LATE_END),
    "rms_spelled": net(SPELLED, 13),
    "layer_spelled": net(SPELLED_LAYER, 13),
}


@pytest.mark.parametrize("name", NETS)
@PLANS
@given(st.data())
def test_streams_become_free_and_are_cut(name, data):
    analysis = api.analyze(NETS[name])
    other = norms.without(analysis)
    streams = [s for s in spaces(other.coupling, other.groups) if s.size == WIDTH]
    assert len(streams) == 1
    assert not [s for s in spaces(analysis.coupling, analysis.groups) if s.size == WIDTH]
    assert_same(analysis, other)
    assert_same(analysis, turned(other))
    assert_slim_is_mask(draw_removal(data.draw, turned(other)))


UNFIT = {
    "what reads the stream as it is": {"middle": " a1 = MatMul(s1, w1)"},
    "a function of what was normalised": {"middle": " q1 = Relu(n1)\n a1 = MatMul(q1, w1)"},
    "what was normalised in the stream": {"last": " r3 = Add(s2, g4)\n s3 = Add(r3, n1)"},
    "weights of two readers": {
        "end": "m1 = MatMul(n3, w1)\n m2 = Add(m1, b1)\n m3 = Relu(m2)\n y = ReduceMean<axes = [1], keepdims = 0>(m3)"
    },
    "a function of the stream": {"last": " r3 = Add(s2, g4)\n s3 = Relu(r3)"},
}


@pytest.mark.parametrize("what", UNFIT)
def test_streams_that_something_else_meets_stay(what):
    asked = dict(UNFIT[what])
    model = net(end=asked.pop("end", END), **asked)
    model.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    analysis = api.analyze(model)
    assert norms.without(analysis) is analysis
