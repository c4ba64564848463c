"""Small files that ask for much: memory, work, or nodes without end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.any_file.case import Case

Nodes = list[onnx.NodeProto]


def constant(name: str, value: object) -> onnx.NodeProto:
    """A node that puts out a value."""
    return helper.make_node("Constant", [], [name], name, value=numpy_helper.from_array(np.asarray(value)))


def doubling(levels: int) -> Nodes:
    """A value that is joined with itself again and again."""
    names = ["c", *(f"d{k}" for k in range(levels))]
    return [helper.make_node("Concat", [a, a], [b], f"join{b}", axis=2) for a, b in itertools.pairwise(names)]


def expanded(elements: int) -> Nodes:
    """A value of so many elements, of a few bytes in the file."""
    return [
        constant("size", [elements]),
        helper.make_node("ConstantOfShape", ["size"], ["ones"], "ones"),
        helper.make_node("ReduceSum", ["ones"], ["total"], "total", keepdims=0),
        helper.make_node("Add", ["c", "total"], ["z"], "shift"),
    ]


def branches(count: int) -> Nodes:
    """Many branches that meet in one sum."""
    names = [f"b{k}" for k in range(count)]
    return [*(helper.make_node("Relu", ["c"], [n], n) for n in names), helper.make_node("Sum", names, ["z"], "sum")]


def tiled(times: int) -> Nodes:
    """A value that is repeated so often."""
    return [
        constant("repeats", [1, 1, times, 1]),
        helper.make_node("Tile", ["c", "repeats"], ["z"], "tile"),
    ]


ASKING: dict[str, Nodes] = {
    "40 doublings": doubling(40),
    "28 doublings": doubling(28),
    "a constant of 2**34 elements": expanded(2**34),
    "a constant of 2**31 elements": expanded(2**31),
    "2000 branches into one sum": branches(2000),
    "a value repeated 2**32 times": tiled(2**32),
    "a value repeated 2**26 times": tiled(2**26),
    "a padding of 2**32": [
        helper.make_node(
            "Constant", [], ["p"], "p", value=numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 2**32, 0]))
        ),
        helper.make_node("Pad", ["c", "p"], ["z"], "pad"),
    ],
    "an enlargement of 2**32": [
        helper.make_node(
            "Constant", [], ["s"], "s", value=numpy_helper.from_array(np.array([1, 1, 2**16, 2**16], np.float32))
        ),
        helper.make_node("Resize", ["c", "", "s"], ["z"], "resize"),
    ],
    "a range of 2**40": [
        constant("from", 0),
        constant("to", 2**40),
        constant("by", 1),
        helper.make_node("Range", ["from", "to", "by"], ["r"], "range"),
        helper.make_node("ReduceMax", ["r"], ["m"], "max", keepdims=0),
        helper.make_node("Cast", ["m"], ["f"], "cast", to=1),
        helper.make_node("Add", ["c", "f"], ["z"], "shift"),
    ],
}


def asking(nodes: Nodes) -> onnx.ModelProto:
    """A convolution, and nodes behind it that ask for much."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(8, 3, 3, 3)).astype(np.float32), "w")
    last = nodes[-1].output[0]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), *nodes]
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"], "pool"))
    outputs = [helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph(nodes, "asking", [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])], outputs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


LINES = ("analyze bad.onnx", "slim bad.onnx -o new.onnx --target macs=0.6 --samples 2 --no-latency --work 1k")


def cases() -> Iterator[Case]:
    """Every file that asks for much, looked at and cut."""
    for name, nodes in ASKING.items():
        for line in LINES:
            yield Case(f"{name}: {line.split()[0]}", line, _written(nodes), ("bad", "--target"))


def _written(nodes: Nodes) -> Callable[[Path], None]:
    return lambda folder: onnx.save(asking(nodes), folder / "bad.onnx")
