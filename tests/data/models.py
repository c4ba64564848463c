"""Small models, one for each way to declare inputs; what they compute does not matter here."""

import functools

import onnx

from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.graph.load import Graph

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'

MODELS = {
    "image": "net (float[batch, 3, 8, 6] image) => (float[batch, 3] y) "
    "{ y = ReduceMean<axes=[2,3],keepdims=0>(image) }",
    "open": "net (float[batch, 3, height, width] image) => (float[batch, 3] y) "
    "{ y = ReduceMean<axes=[2,3],keepdims=0>(image) }",
    "grey": "net (float[n, 1, 8, 6] image) => (float[n, 1] y) { y = ReduceMean<axes=[2,3],keepdims=0>(image) }",
    "last": "net (float[n, 8, 6, 3] image) => (float[n, 3] y) { y = ReduceMean<axes=[1,2],keepdims=0>(image) }",
    "pixels": "net (uint8[n, 3, 8, 6] image) => (float[n, 3] y) "
    "{ x = Cast<to=1>(image) y = ReduceMean<axes=[2,3],keepdims=0>(x) }",
    "half": "net (float16[n, 3, 8, 6] image) => (float16[n, 3] y) { y = ReduceMean<axes=[2,3],keepdims=0>(image) }",
    "four": "net (float[4, 5] x) => (float[4, 5] y) { y = Relu(x) }",
    "table": "net (float[n, 5] x) => (float[n, 5] y) { y = Relu(x) }",
    "two": "net (float[n, 5] a, float[n, 3] b) => (float[n, 8] y) { y = Concat<axis=1>(a, b) }",
    "text": "net (int64[n, seq] ids, int64[n, seq] mask) => (float[n, seq, 4] y) <float[9, 4] table = "
    f"{{{','.join('0.5' for _ in range(36))}}}> "
    "{ e = Gather<axis=0>(table, ids) m = Cast<to=1>(mask) a = Constant<value_ints=[2]>() "
    "u = Unsqueeze(m, a) y = Mul(e, u) }",
    "state": "net (float[n, 5] x, float[2, n, 5] state, float scale) => (float[2, n, 5] y) "
    "{ z = Add(x, state) y = Mul(z, scale) }",
    "named": "net (float[n, 5] x, float[n, 5] labels) => (float[n, 5] y) { y = Add(x, labels) }",
}
"""Name -> ONNX text without the header."""


@functools.cache
def graph(name: str) -> Graph:
    """The normal form of a model; shared, so do not change it."""
    return load(onnx.parser.parse_model(HEADER + MODELS[name]))


def written(text: str) -> Graph:
    """The normal form of a model given as text."""
    return load(onnx.parser.parse_model(HEADER + text))
