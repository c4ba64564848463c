"""Models that are large: very many small nodes, and decoders whose weights are a file with nothing written in it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

SIZES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2}  # bytes of a number


def chain(path: Path, nodes: int, width: int = 8) -> Path:
    """Write residual blocks of two convolutions each, one after the other, of so many nodes in all."""
    rng = np.random.default_rng(0)
    listed, weights, x = [], [], "x"
    for k in range(nodes // 4):
        for name in (f"w{k}", f"v{k}"):
            array = 0.1 * rng.standard_normal((width, width, 1, 1), np.float32)
            weights.append(onnx.numpy_helper.from_array(array, name))
        listed += [
            helper.make_node("Conv", [x, f"w{k}"], [f"c{k}"]),
            helper.make_node("Relu", [f"c{k}"], [f"r{k}"]),
            helper.make_node("Conv", [f"r{k}", f"v{k}"], [f"d{k}"]),
            helper.make_node("Add", [f"d{k}", x], [f"a{k}"]),
        ]
        x = f"a{k}"
    shape = ["N", width, 8, 8]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", x)]
    return _written(helper.make_graph(listed, "chain", ends[:1], ends[1:], weights), path)


@dataclass
class Decoder:
    """A decoder with grouped queries, gated hidden units and RMS norms, as exporters spell it.

    Its weights lie in ``<path>.data``, a file that is as long as they are and takes no place on a disk.

    Attributes:
        layers: How many.
        width: Units of the residual stream.
        heads: Query heads.
        groups: Key-value heads.
        hidden: Hidden units of a layer.
        vocabulary: Tokens.
        kind: Type of the weights, as ONNX counts it.
    """

    layers: int
    width: int
    heads: int
    groups: int
    hidden: int
    vocabulary: int
    kind: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    offset: int = 0
    data: str = ""

    def write(self, path: Path) -> Path:
        """Write the model and its file of weights."""
        self.data = f"{path.name}.data"
        x = self._add("Gather", [self._weight("embedding", self.vocabulary, self.width), "ids"], "x")
        for number in range(self.layers):
            name = f"layers.{number}"
            x = self._add("Add", [x, self._attention(self._norm(x, f"{name}.norm1"), f"{name}.attention")], f"{name}.a")
            x = self._add("Add", [x, self._mlp(self._norm(x, f"{name}.norm2"), f"{name}.mlp")], f"{name}.b")
        self._matmul(self._norm(x, "norm"), "head", self.width, self.vocabulary, "logits")
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
        logits = helper.make_tensor_value_info("logits", self.kind, ["batch", "sequence", self.vocabulary])
        with (path.parent / self.data).open("wb") as file:
            file.truncate(self.offset)
        return _written(helper.make_graph(self.nodes, "decoder", [ids], [logits], self.weights), path)

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"/{output}/{operator}", **attributes))
        return output

    def _weight(self, name: str, *shape: int) -> str:
        tensor = onnx.TensorProto(name=name, data_type=self.kind, dims=shape, data_location=TensorProto.EXTERNAL)
        length = int(np.prod(shape)) * SIZES[self.kind]
        for key, value in (("location", self.data), ("offset", self.offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        self.offset += -(-length // 4096) * 4096
        return name

    def _constant(self, name: str, value: object) -> str:
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _matmul(self, x: str, name: str, inputs: int, outputs: int, output: str) -> str:
        return self._add("MatMul", [x, self._weight(f"{name}.weight", inputs, outputs)], output)

    def _norm(self, x: str, name: str) -> str:
        wide = self._add("Cast", [x], f"{name}.wide", to=TensorProto.FLOAT)
        mean = self._add("ReduceMean", [self._add("Mul", [wide, wide], f"{name}.squares")], f"{name}.mean", axes=[-1])
        shifted = self._add("Add", [mean, self._constant(f"{name}.epsilon", np.float32(1e-5))], f"{name}.shifted")
        scaled = self._add("Div", [wide, self._add("Sqrt", [shifted], f"{name}.root")], f"{name}.scaled")
        narrow = self._add("Cast", [scaled], f"{name}.narrow", to=self.kind)
        return self._add("Mul", [narrow, self._weight(f"{name}.weight", self.width)], f"{name}.out")

    def _heads(self, x: str, name: str, count: int, order: list[int]) -> str:
        each = self.width // self.heads
        flat = self._matmul(x, name, self.width, count * each, f"{name}.flat")
        parts = self._constant(f"{name}.parts", np.array([0, 0, count, each], np.int64))
        rows = self._add(
            "Transpose", [self._add("Reshape", [flat, parts], f"{name}.rows")], f"{name}.heads", perm=order
        )
        if count == self.heads:
            return rows
        place = self._constant(f"{name}.place", np.array([2], np.int64))
        often = self._constant(f"{name}.often", np.array([1, 1, self.heads // count, 1, 1], np.int64))
        last = [each, -1] if order[-1] == 1 else [-1, each]
        joined = self._constant(f"{name}.joined", np.array([0, self.heads, *last], np.int64))
        many = self._add("Tile", [self._add("Unsqueeze", [rows, place], f"{name}.one"), often], f"{name}.many")
        return self._add("Reshape", [many, joined], f"{name}.repeated")

    def _attention(self, x: str, name: str) -> str:
        q = self._heads(x, f"{name}.q", self.heads, [0, 2, 1, 3])
        k = self._heads(x, f"{name}.k", self.groups, [0, 2, 3, 1])
        v = self._heads(x, f"{name}.v", self.groups, [0, 2, 1, 3])
        scale = np.array((self.width // self.heads) ** -0.5, helper.tensor_dtype_to_np_dtype(self.kind))
        scores = self._add(
            "Mul", [self._add("MatMul", [q, k], f"{name}.raw"), self._constant(f"{name}.by", scale)], f"{name}.s"
        )
        mixed = self._add("MatMul", [self._add("Softmax", [scores], f"{name}.p", axis=-1), v], f"{name}.mixed")
        back = self._add("Transpose", [mixed], f"{name}.back", perm=[0, 2, 1, 3])
        whole = self._constant(f"{name}.whole", np.array([0, 0, self.width], np.int64))
        joined = self._add("Reshape", [back, whole], f"{name}.joined")
        return self._matmul(joined, f"{name}.o", self.width, self.width, f"{name}.out")

    def _mlp(self, x: str, name: str) -> str:
        gate = self._matmul(x, f"{name}.gate", self.width, self.hidden, f"{name}.g")
        bent = self._add("Mul", [gate, self._add("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.silu")
        up = self._matmul(x, f"{name}.up", self.width, self.hidden, f"{name}.u")
        return self._matmul(
            self._add("Mul", [bent, up], f"{name}.gu"), f"{name}.down", self.hidden, self.width, f"{name}.out"
        )


def _written(graph: onnx.GraphProto, path: Path) -> Path:
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path
