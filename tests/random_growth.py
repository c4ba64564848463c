"""A graph that grows node by node under hypothesis, and is run as it grows: shapes are known and values stay small."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import strategies as st
from onnx import helper

from nets.notation import draw_weight

T = TypeVar("T")
Shape = tuple[int, ...]

OPSET = 17
LARGEST = 3072  # elements of a tensor that a piece may start from
LOUD = 3.0  # a tensor of a larger root mean square is scaled back to one


@dataclass
class Growing:
    """A graph under construction, with the value of every tensor on one random input."""

    draw: st.DrawFn
    rng: np.random.Generator
    batch: int  # what Reshape targets say for the batch axis: 2, or 0 (copy) when it is dynamic
    values: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)  # not consumed yet

    def choose(self, options: Sequence[T]) -> T:
        """Draw one of `options`; examples shrink towards the first."""
        return self.draw(st.sampled_from(options))

    def pick(self, fits: Callable[[Shape], bool]) -> str | None:
        """Draw a tensor whose shape `fits`, most often one not consumed yet; None where none fits."""
        fitting = [name for name, value in self.values.items() if value.size <= LARGEST and fits(value.shape)]
        fresh = [name for name in fitting if name in self.leaves]
        if fresh and self.choose([True, True, True, False]):
            fitting = fresh
        return self.choose(fitting[::-1]) if fitting else None

    def shape(self, name: str) -> Shape:
        """Return the shape of a tensor, with batch 2."""
        return self.values[name].shape

    def weight(self, shape: Shape, op: str, operand: int = 1) -> str:
        """Return an initializer for that operand of `op`, now and then one that serves another node."""
        alike = [n for n, w in self.weights.items() if w.shape == shape and n.startswith(f"{op}_{operand}")]
        if alike and self.choose([False] * 4 + [True]):
            return self.choose(alike)
        return self.constant(draw_weight(self.rng, shape, op, operand).astype(np.float32), f"{op}_{operand}")

    def constant(self, values: object, prefix: str = "constant") -> str:
        """Return an initializer of these values; Python integers become int64."""
        name = f"{prefix}_{len(self.weights)}"
        self.weights[name] = np.asarray(values)
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        """Append a node, return its output."""
        return self.node_many(op, *inputs, outputs=1, **attributes)[0]

    def node_many(self, op: str, *inputs: str, outputs: int, **attributes: object) -> list[str]:
        """Append a node, return its outputs."""
        names = [f"{op.lower()}_{len(self.nodes)}{'abc'[i] if outputs > 1 else ''}" for i in range(outputs)]
        node = helper.make_node(op, inputs, names, name=names[0], **attributes)
        self.nodes.append(node)
        self.values.update(zip(names, run_node(node, {**self.values, **self.weights}), strict=True))
        self.leaves = [name for name in self.leaves if name not in inputs] + names
        return [self._quieter(name) for name in names]

    def _quieter(self, name: str) -> str:
        size = float(np.sqrt(np.mean(np.square(self.values[name]))))
        return self.node("Mul", name, self.constant(np.float32(1 / size))) if size > LOUD else name

    def reshape(self, x: str, *target: int) -> str:
        """Append a Reshape to ``[batch, *target]``."""
        return self.node("Reshape", x, self.constant([self.batch, *target]))


def run_node(node: onnx.NodeProto, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run one node in onnxruntime."""
    given = {name: values[name] for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in given.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    model = new_model(helper.make_graph([node], "node", inputs, outputs))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, given)


def new_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """Wrap a graph."""
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)])
