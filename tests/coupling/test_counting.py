"""What only counts positions is no group: it is pinned, and what meets it stays."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxslim_learn.workflow import slim

N = helper.make_node
POSITIONS = {
    "from a shape": [
        N("Shape", ["h"], ["s"]),
        N("Gather", ["s", "last"], ["n"]),
        N("Range", ["zero", "n", "one"], ["p"]),
    ],
    "as a constant": [N("Identity", ["places"], ["p"])],
}


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_are_not_offered(name):
    """A channel is scaled by its number, which the numbers that stay would no longer be."""
    nodes = [
        N("MatMul", ["x", "w1"], ["h"]),
        *POSITIONS[name],
        N("Cast", ["p"], ["f"], to=TensorProto.FLOAT),
        N("Sin", ["f"], ["q"]),
        N("Mul", ["h", "q"], ["m"]),
        N("MatMul", ["m", "w2"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    weights = [constant(n, rng.standard_normal(s).astype(np.float32)) for n, s in (("w1", (6, 8)), ("w2", (8, 3)))]
    weights += [constant("last", 2), constant("zero", 0), constant("one", 1), constant("places", np.arange(8))]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [2, 5, 6]), ("y", [2, 5, 3]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    found = slim.analyze(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    (held,) = [group for group in found.groups if "w1:1" in group.members]
    assert held.pin is not None
    assert "free axis" in held.pin.reason
