"""Models that are large: very many small nodes, and decoders whose weights are a file with nothing written in it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

SIZES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.UINT8: 1}  # bytes of a number
DOMAINS = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
PATTERN = (1 << 22) - 3  # numbers after which made-up weights repeat: a prime, so that no two rows are alike


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

    def fill(self, path: Path) -> Path:
        """Give a written model's weights numbers: gains about one, matrices that keep the scale, bytes of any kind."""
        rng = np.random.default_rng(0)
        normal, anything = rng.standard_normal(PATTERN, np.float32), rng.integers(0, 256, PATTERN).astype(np.uint8)
        with (path.parent / self.data).open("r+b") as file:
            for tensor in (t for t in self.weights if t.external_data):
                (offset,) = (int(entry.value) for entry in tensor.external_data if entry.key == "offset")
                file.seek(offset)
                gains = len(tensor.dims) == 1 or tensor.name.endswith(".scales")
                numbers = 0.02 * (1 + 0.3 * normal) if gains else normal * float(tensor.dims[0]) ** -0.5
                numbers = anything if tensor.data_type == TensorProto.UINT8 else numbers * (50 if gains else 1)
                numbers = numbers.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
                left = int(np.prod(tensor.dims))
                while left:
                    file.write(numbers[:left].tobytes())
                    left -= min(left, PATTERN)
        return path

    def _weight(self, name: str, *shape: int, kind: int = 0) -> str:
        kind = kind or self.kind
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        length = int(np.prod(shape)) * SIZES[kind]
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


@dataclass
class FusedDecoder(Decoder):
    """The same in onnxruntime's operators, as its builders write it: grouped attention with rotary positions inside.

    Attributes:
        past: Whether keys and values of former positions are inputs, and those of all positions outputs.
        block: Inputs of a layer that share a scale where its weights have four bits each; 0 for plain layers.
        longest: Most positions.
    """

    past: bool = False
    block: int = 0
    longest: int = 512
    caches: list[list[onnx.ValueInfoProto]] = field(default_factory=lambda: [[], []])

    def write(self, path: Path) -> Path:
        """Write the model and its file of weights."""
        self.data = f"{path.name}.data"
        self._lengths()
        x = self._add("Gather", [self._weight("embedding", self.vocabulary, self.width), "ids"], "x")
        gain = self._weight("layers.0.norm1.weight", self.width)
        normed = self._add("SimplifiedLayerNormalization", [x, gain], "normed", axis=-1, epsilon=1e-5)
        for number in range(self.layers):
            name = f"layers.{number}"
            after = f"layers.{number + 1}.norm1" if number + 1 < self.layers else "norm"
            normed, x = self._skip(x, self._attention(normed, f"{name}.attention"), f"{name}.norm2")
            normed, x = self._skip(x, self._mlp(normed, f"{name}.mlp"), after)
        self._matmul(normed, "head", self.width, self.vocabulary, "logits")
        size, whole = ["batch_size", "sequence_length"], TensorProto.INT64
        given = [helper.make_tensor_value_info("ids", whole, size)]
        given.append(helper.make_tensor_value_info("mask", whole, ["batch_size", "total_sequence_length"]))
        logits = helper.make_tensor_value_info("logits", self.kind, [*size, self.vocabulary])
        with (path.parent / self.data).open("wb") as file:
            file.truncate(self.offset)
        ends = [[*given, *self.caches[0]], [logits, *self.caches[1]]]
        return _written(helper.make_graph(self.nodes, "decoder", *ends, self.weights), path)

    def _lengths(self) -> None:
        """How many positions every sequence has, less one, and how many there are at most."""
        one = self._constant("one", np.array(1, np.int64))
        axes = self._constant("axes", np.array([1], np.int64))
        count = self._add("ReduceSum", ["mask", axes], "count", keepdims=0)
        self._add("Cast", [self._add("Sub", [count, one], "last")], "seqlens", to=TensorProto.INT32)
        size = self._add("Gather", [self._add("Shape", ["mask"], "mask.shape"), one], "mask.length", axis=0)
        self._add("Cast", [size], "total_length", to=TensorProto.INT32)
        half = self.width // self.heads // 2
        angles = np.outer(np.arange(self.longest), 1e4 ** (-np.arange(half) / half))
        for name, table in (("cosine", np.cos(angles)), ("sine", np.sin(angles))):
            self._constant(name, table.astype(helper.tensor_dtype_to_np_dtype(self.kind)))

    def _skip(self, x: str, y: str, name: str) -> tuple[str, str]:
        outputs = [f"{name}.out", "", "", f"{name}.sum"]
        gain = self._weight(f"{name}.weight", self.width)
        self.nodes.append(
            helper.make_node(
                "SkipSimplifiedLayerNormalization",
                [x, y, gain],
                outputs,
                name=f"/{name}/Skip",
                domain="com.microsoft",
                epsilon=1e-5,
            )
        )
        return outputs[0], outputs[3]

    def _matmul(self, x: str, name: str, inputs: int, outputs: int, output: str) -> str:
        if not self.block:
            return super()._matmul(x, name, inputs, outputs, output)
        blocks = inputs // self.block
        packed = self._weight(f"{name}.weight", outputs, blocks, self.block // 2, kind=TensorProto.UINT8)
        parts = [x, packed, self._weight(f"{name}.scales", outputs, blocks)]
        parts.append(self._weight(f"{name}.zeros", outputs, -(-blocks // 2), kind=TensorProto.UINT8))
        sizes = {"K": inputs, "N": outputs, "bits": 4, "block_size": self.block, "domain": "com.microsoft"}
        return self._add("MatMulNBits", parts, output, **sizes)

    def _attention(self, x: str, name: str) -> str:
        each = self.width // self.heads
        counts = {"q": self.heads, "k": self.groups, "v": self.groups}
        q, k, v = (self._matmul(x, f"{name}.{c}", self.width, n * each, f"{name}.{c}.out") for c, n in counts.items())
        pasts, presents = ([f"{end}.{name}.{c}" for c in "kv"] for end in ("past", "present"))
        for names, length, infos in (
            (pasts, "past_sequence_length", self.caches[0]),
            (presents, "total_sequence_length", self.caches[1]),
        ):
            size = ["batch_size", self.groups, length, each]
            infos += [helper.make_tensor_value_info(n, self.kind, size) for n in names if self.past]
        outputs = [f"{name}.mixed", *(presents if self.past else ())]
        listed = [q, k, v, *(pasts if self.past else ["", ""]), "seqlens", "total_length", "cosine", "sine"]
        counted = {"num_heads": self.heads, "kv_num_heads": self.groups, "do_rotary": 1}
        self.nodes.append(
            helper.make_node(
                "GroupQueryAttention", listed, outputs, name=f"/{name}/Grouped", domain="com.microsoft", **counted
            )
        )
        return self._matmul(outputs[0], f"{name}.o", self.width, self.width, f"{name}.out")


def _written(graph: onnx.GraphProto, path: Path) -> Path:
    path.write_bytes(helper.make_model(graph, opset_imports=DOMAINS, ir_version=8).SerializeToString())
    return path
