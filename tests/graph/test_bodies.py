"""Loops that surely never end are refused before anything runs them; those that a condition ends are not."""

import onnx
import onnx_ir as ir
import pytest

from onnxslim_learn.errors import InputError
from onnxslim_learn.graph.load import load

FOR = "more = Identity(going)"
WHILE = """
    size = ReduceSum <keepdims = 0> (next)
    most = Constant <value = float {9.0}> ()
    more = Less(size, most)
"""
INNER = """
    many = Constant <value = int64 {65536}> ()
    twice = Loop(many, going, state) <body = inner (int64 j, bool on, float[4] old) => (bool still, float[4] new) {
        still = Identity(on)
        new = Identity(old)
    }>
    more = Identity(going)
"""


def looping(trips, condition, begun="true"):
    """A net that adds one to its input again and again."""
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x) => (float[4] y) <int64 trips = {{{trips}}}, bool begun = {{{int(begun == "true")}}}> {{
            y = Loop(trips, begun, x) <body = body (int64 i, bool going, float[4] state)
                => (bool more, float[4] next) {{
                one = Constant <value = float {{1.0}}> ()
                next = Add(state, one)
                {condition}
            }}>
        }}
    """)


@pytest.mark.parametrize(("trips", "condition"), [(2**62, FOR), (2**24 + 1, FOR), (65536, INNER)])
def test_loops_that_nothing_ends_are_refused(trips, condition):
    with pytest.raises(InputError, match=r"\(Loop\): it runs its body \d+ times"):
        load(looping(trips, condition))


@pytest.mark.parametrize(
    ("trips", "condition", "begun"),
    [(2**63 - 1, WHILE, "true"), (2**62, FOR, "false"), (2**10, FOR, "true"), (16, INNER, "true"), (-1, FOR, "true")],
)
def test_loops_that_end_are_not(trips, condition, begun):
    graph = load(looping(trips, condition, begun))
    assert [value.shape for value in graph.model.graph.outputs] == [ir.Shape([4])]
