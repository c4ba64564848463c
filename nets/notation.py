"""How a zoo net is written: ONNX text, and one line of weight shapes.

The text is what `onnx.parser` reads, without the header, and with one liberty: an operand may be a literal.
`[2, -1]` is a vector and `{0}` a scalar, of int64, or of float where a point appears.
Weights are named in a side table, `"w1 8x3x3x3, s t m v 8"`, and filled at random: no two channels are alike, gains and
variances stay near one, and activations keep their scale from layer to layer.
"""

import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

SIZES = {"batch": 2, "seq": 5, "height": 8, "width": 8}
"""What `feeds` puts for a dynamic dimension of this name."""

GAINS = {
    *(("BatchNormalization", 1), ("BatchNormalization", 4)),
    *(("InstanceNormalization", 1), ("LayerNormalization", 1), ("GroupNormalization", 1)),
    *((op, operand) for op in ("Mul", "Div") for operand in (0, 1)),
}
"""Operands (operator, position) that must stay positive, near one."""

_LITERAL = re.compile(r"(?<=[(,])\s*(\[[-\d., ]*\]|\{[-\d. ]+\})")


@dataclass(frozen=True)
class Net:
    """One zoo net: `text` without a header, `weights` as `names shape[:dtype]` separated by commas."""

    text: str
    weights: str = ""
    opset: int = 17
    dtype: str = "float32"
    domains: str = ""
    listed: bool = False  # the initializers are graph inputs too
    bare: bool = False  # Constant nodes in place of initializers, and no node has a name

    def build(self) -> onnx.ModelProto:
        """Return a fresh model; the same one on every call."""
        literals: list[onnx.TensorProto] = []
        text = _LITERAL.sub(partial(_name_literal, literals), self.text)
        model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {self.opset}{self.domains}]> net {text}')
        model.graph.initializer.extend([*literals, *self._filled(model.graph)])
        if self.listed:
            model.graph.input.extend(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                for tensor in model.graph.initializer
            )
        if self.bare:
            constants = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
            nodes = [*constants, *model.graph.node]
            del model.graph.initializer[:], model.graph.node[:]
            model.graph.node.extend(nodes)
        else:
            for node in model.graph.node:
                node.name = node.name or node.output[0]
        return model

    def _filled(self, graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
        rng = np.random.default_rng(zlib.crc32(self.text.encode()))
        for entry in filter(str.strip, self.weights.split(",")):
            *names, shape = entry.split()
            dims, _, dtype = shape.partition(":")
            for name in names:
                values = draw_weight(rng, tuple(map(int, dims.split("x"))), *_first_use(graph, name))
                values = np.rint(values * 100).clip(-127, 127) if dtype == "int8" else values
                yield numpy_helper.from_array(values.astype(dtype or self.dtype), name)


def random_bytes(name: str, *shape: int) -> str:
    """Return a declared weight of random bytes, as it stands in a net's text."""
    values = np.random.default_rng(len(name)).integers(0, 256, np.prod(shape))
    return f"uint8[{','.join(map(str, shape))}] {name} = {{{', '.join(map(str, values))}}}"


def draw_weight(rng: np.random.Generator, shape: tuple[int, ...], op: str, operand: int) -> np.ndarray:
    """Return random values fit for that operand of `op`: a gain, a scale of quantization, a bias or a matrix."""
    if op in ("QuantizeLinear", "DequantizeLinear") and operand == 1:
        return rng.uniform(0.005, 0.015, shape)
    if (op, operand) in GAINS:
        return rng.uniform(0.5, 1.5, shape)
    if math.prod(shape) == max(shape, default=1):
        return rng.uniform(-0.1, 0.5, shape)  # mostly positive: few units die in a Relu
    if op == "Gather":
        return rng.normal(0, 1, shape)
    fan_in = {"MatMul": shape[-2], "Gemm": shape[-2], "Einsum": shape[-2], "LSTM": shape[-1], "GRU": shape[-1]}
    return rng.normal(0, fan_in.get(op, math.prod(shape[1:])) ** -0.5, shape)


def feeds(model: onnx.ModelProto, seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    """Return random inputs for `model`; `sizes` sets dynamic dimensions by name.

    Floats are standard normal. Integers are row numbers where they index an initializer, and 0 or 1 elsewhere.
    """
    rng = np.random.default_rng(seed)
    given = {tensor.name: tensor for tensor in model.graph.initializer}
    rows = {
        n.input[1]: given[n.input[0]].dims[0] for n in model.graph.node if n.op_type == "Gather" and n.input[0] in given
    }
    values = {}
    for info in model.graph.input:
        if info.name in given:
            continue
        tensor = info.type.tensor_type
        shape = [(SIZES | sizes)[d.dim_param] if d.dim_param else d.dim_value for d in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        floating = np.issubdtype(dtype, np.floating)
        drawn = rng.normal(size=shape) if floating else rng.integers(0, rows.get(info.name, 2), shape)
        values[info.name] = np.asarray(drawn, dtype)
    return values


def _name_literal(literals: list[onnx.TensorProto], match: re.Match[str]) -> str:
    text, name = match[1], f"literal_{len(literals)}"
    values = json.loads(text if text[0] == "[" else text[1:-1])
    literals.append(numpy_helper.from_array(np.array(values, "float32" if "." in text else "int64"), name))
    return f" {name}"


def _first_use(graph: onnx.GraphProto, name: str) -> tuple[str, int]:
    return next((node.op_type, list(node.input).index(name)) for node in graph.node if name in node.input)
