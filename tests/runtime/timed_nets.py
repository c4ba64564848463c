"""Nets to time, and what every refusal reads like."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

HEAD = '<ir_version: 9, opset_import: ["": 18]>'


def matmul_net(width):
    net = parser.parse_model(f"{HEAD} net (float[N,{width}] x) => (float[N,{width}] y) {{ [mm] y = MatMul(x, w) }}")
    net.graph.initializer.append(numpy_helper.from_array(np.ones((width, width), np.float32) / width, "w"))
    return net


def conv_net(named=True):
    net = parser.parse_model(
        f"""{HEAD}
        net (float[N,3,56,56] x) => (float[N,64,56,56] y) {{
            [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            [middle] b = Relu(a)
            [last] y = Conv <pads = [1, 1, 1, 1]> (b, w2)
        }}"""
    )
    for name, shape in (("w1", (64, 3, 3, 3)), ("w2", (64, 64, 3, 3))):
        net.graph.initializer.append(numpy_helper.from_array(np.full(shape, 0.01, np.float32), name))
    for node in net.graph.node if not named else ():
        node.name = ""
    return net


def branch_net():
    return parser.parse_model(
        f"""{HEAD}
        net (float[64,64] x, bool c) => (float[64,64] y, float[64,64] z) <int64 n = {{4}}, bool go = {{1}}> {{
            [choice] y = If (c) <
                then_branch = yes () => (float[64,64] p) {{ [product] p = MatMul(x, x) }},
                else_branch = no () => (float[64,64] q) {{ [bend] q = Tanh(x) }}
            >
            [loop] z = Loop (n, go, x) <
                body = turn (int64 i, bool on, float[64,64] s) => (bool off, float[64,64] t) {{
                    [keep] off = Identity(on)
                    [power] r = MatMul(s, s)
                    [bound] t = Tanh(r)
                }}
            >
        }}"""
    )


def function_net():
    return parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18, "own": 1]>
        net (float[N,4096] x) => (float[N,4096] y) { [call] a = own.bend(x) [again] b = own.bend(a) [end] y = Neg(b) }
        <domain: "own", opset_import: ["": 18]> bend (x) => (z) { u = Exp(x) v = Sin(u) z = Tanh(v) }"""
    )


def image(batch=1):
    return {"x": np.ones((batch, 3, 56, 56), np.float32)}


def saved(net, folder, name="net.onnx"):
    path = Path(folder) / name
    onnx.save(net, path)
    return path


def one_sentence(error):
    """Whether an error reads as one line: what is wrong, and at most one sentence more on what to do."""
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and text.count(". ") <= 1
