"""Multiply-accumulates of plain and fused contractions, counted from the shapes of a run and nothing of the package."""

import math

from onnx import numpy_helper

from tests import laws


def shapes_of(model, inputs):
    """Return the shape of every tensor, from a run."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {name: array.shape for name, array in {**arrays, **inputs, **laws.run(laws.exposed(model), inputs)}.items()}


def conv(node, x, w, *rest, y):
    return math.prod(y) * math.prod(w[1:])


def conv_transpose(node, x, w, *rest, y):
    return math.prod(x) * math.prod(w[1:])


def gemm(node, a, b, *rest, y):
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(y) * (a[0] if transposed else a[1])


def matmul(node, a, b, y):
    return math.prod(y) * a[-1]


def fused_matmul(node, a, b, *rest, y):
    """Row vectors of A, which may lie along its columns."""
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(y) * a[-2 if transposed else -1]


def einsum(node, *inputs, y):
    (equation,) = [attribute.s.decode() for attribute in node.attribute if attribute.name == "equation"]
    terms = equation.replace(" ", "").split("->")[0].split(",")
    sizes = {c: n for term, shape in zip(terms, inputs, strict=True) for c, n in zip(term, shape, strict=True)}
    return math.prod(sizes.values())


def recurrent(node, x, w, r, *rest, y):
    """Every step multiplies the input by W and the state by R, for each direction."""
    return x[0] * x[1] * (math.prod(w) + math.prod(r))


MACS = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "FusedConv": conv,
    "Gemm": gemm,
    "FusedGemm": gemm,
    "MatMul": matmul,
    "FusedMatMul": fused_matmul,
    "Einsum": einsum,
    "LSTM": recurrent,
    "GRU": recurrent,
}


def macs_by_output(model, inputs):
    """Return the multiply-accumulates of every node that has some, by its first output."""
    shapes = shapes_of(model, inputs)
    return {
        node.output[0]: MACS[node.op_type](
            node, *[shapes[tensor] if tensor else () for tensor in node.input], y=shapes[node.output[0]]
        )
        for node in model.graph.node
        if node.op_type in MACS
    }
