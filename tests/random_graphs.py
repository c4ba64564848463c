"""Random valid models over feature maps and tokens, plain and fused, as a hypothesis strategy."""

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from nets.fused import LEVELS, fused
from tests.random_growth import Growing, new_model
from tests.random_pieces import PIECES, is_map, is_tokens

_WEIGHTED = [piece for piece, weight in PIECES.items() for _ in range(weight)]


def head(g: Growing, x: str) -> str:
    """Append a small head from `x` to ``[N, 4]``."""
    shape = g.shape(x)
    if is_map(shape) and g.choose([True, False]):
        x = g.node("Conv", x, g.weight((8, shape[1], 1, 1), "Conv"), g.weight((8,), "Conv", 2))
    if len(shape) > 2:
        x = g.node("ReduceMean", x, axes=[1] if is_tokens(shape) else list(range(2, len(shape))), keepdims=0)
    return g.node("Gemm", x, g.weight((g.shape(x)[1], 4), "Gemm"), g.weight((4,), "Gemm", 2))


def outputs(g: Growing) -> list[str]:
    """Consume every leaf: one may be an output as it is, the others meet in one sum of heads."""
    tap = g.choose([[], [], g.leaves[-1:]]) if g.nodes else []
    heads = [head(g, x) for x in g.leaves if x not in tap]
    while len(heads) > 1:
        heads = [g.node("Add", *heads[:2]), *heads[2:]]
    return [*heads, *tap]


@st.composite
def graphs(draw: st.DrawFn, least: int = 5, most: int = 40) -> onnx.ModelProto:
    """Draw a valid float32 model of about `least` to `most` nodes, as it is or as onnxruntime fuses it.

    It has one or two inputs and outputs, and every tensor leads to an output. The batch is 2, or dynamic (named batch).
    """
    batch = draw(st.sampled_from([2, 0]))
    g = Growing(draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))), batch)
    given = draw(st.sampled_from([["map"], ["map"], ["tokens"], ["map", "tokens"]]))
    shapes = {"map": (2, draw(st.sampled_from([3, 8])), 8, 8), "tokens": (2, draw(st.sampled_from([5, 16])), 8)}
    for name in given:
        g.values[name] = g.rng.normal(size=shapes[name]).astype(np.float32)
        g.leaves.append(name)
    goal = draw(st.integers(least, most))
    while len(g.nodes) < least or len(g.nodes) + 4 * len(g.leaves) < goal:
        g.choose(_WEIGHTED)(g)
    results = outputs(g)
    model = new_model(
        helper.make_graph(
            g.nodes,
            "random",
            [_info(g, name) for name in given],
            [_info(g, name) for name in results],
            [numpy_helper.from_array(values, name) for name, values in g.weights.items()],
        )
    )
    onnx.checker.check_model(model, full_check=True)
    level = draw(st.sampled_from([None, *LEVELS]))
    return fused(model, level) if level else model


def _info(g: Growing, name: str) -> onnx.ValueInfoProto:
    _, *rest = g.shape(name)
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [g.batch or "batch", *rest])
