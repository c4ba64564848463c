"""Whole branches that go: the law slim = mask holds, the graph shrinks, costs are those of the file."""

import numpy as np
import pytest

import onnxslim_learn as osl
from nets.frames import DOMAIN, ort
from nets.notation import Net, random_bytes
from nets.zoo import NETS
from onnxslim_learn.coupling.branches import foresee
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.workflow import slim
from onnxslim_learn.workflow import slim as workflow

PARTS = Net(
    """(float[2,6] x) => (float[2,5] y) {
        a = MatMul(x, w1) p, q = Split<axis=1>(a, [4, 6]) b = Gemm(p, w2, b2) c = Gemm(q, w3, b3)
        s = Add(b, c) y = MatMul(s, w4)
    }""",
    "w1 6x10, w2 4x7, b2 7, w3 6x7, b3 7, w4 7x5",
)

IN_4_BITS = Net(
    f"""(float[2,4,6] x) => (float[2,4,5] y) <{random_bytes("v2", 48, 1, 8)}, {random_bytes("v3", 8, 3, 8)}> {{
        f = MatMul(x, w1) a = {ort("MatMulNBits")}<K=16, N=48, bits=4, block_size=16>(f, v2, s2)
        b = {ort("MatMulNBits")}<K=48, N=8, bits=4, block_size=16>(a, v3, s3, , , b3)
        c = MatMul(x, w4) d = Add(b, c) y = MatMul(d, w5)
    }}""",
    "w1 6x16, s2 48x1, s3 8x3, b3 8, w4 6x8, w5 8x5",
    opset=21,
    domains=DOMAIN,
)

# Net -> the groups that can go as a whole.
VANISHING = {
    "residual": {"w1:0", "w3:0"},
    "concat": {"w1:0", "w2:0"},
    "squeeze_excite": {"w2:0"},
    "c2f": {"w0:0@0", "w0:0@8", "w1:0"},
    "swiglu": {"wg:1"},
    "layer_norm": {"w1:1"},
    "attention_dynamic": {"wq:1/4", "wv:1"},
    "class_token": {"w1:1"},
    "parts": {"w1:1@0", "w1:1@4"},
    "in 4 bits": {"v3:1"},
}


def emptied(found, group):
    columns = np.zeros(found.coupling.columns, bool)
    columns[group.units] = True
    return Removal(found.coupling, found.coupling.close(columns))


def can_vanish(found, group):
    cut = emptied(found, group)
    return not found.coupling.faults(cut.gone, empty=True) and not foresee(cut).problem


@pytest.mark.parametrize("name", VANISHING)
def test_dropped_branches_compute_what_the_masked_net_computes(name, tmp_path):
    found = osl.analyze({**NETS, "parts": PARTS, "in 4 bits": IN_4_BITS}[name].build())
    free = [group for group in found.groups if group.pin is None and can_vanish(found, group)]
    assert {group.name for group in free} == VANISHING[name]
    for group in free:
        cut = emptied(found, group)
        plan = slim.describe(found, cut, {"allow_empty": True})
        slimmed = workflow.slim(found, osl.Plan.from_json(plan.to_json()))
        assert slimmed.save(tmp_path / "slim.onnx").passed
        again = osl.analyze(tmp_path / "slim.onnx")
        assert len(again.graph.nodes) <= len(found.graph.nodes)
        assert again.price(again.whole)["params"] < found.price(found.whole)["params"]
        assert again.price(again.whole) == found.price(cut) == plan.provenance["after"]


def test_a_chain_keeps_one_unit_of_every_group(tmp_path):
    found = osl.analyze(NETS["chain"].build())
    (group,) = [group for group in found.groups if group.pin is None]
    assert "would be constant" in foresee(emptied(found, group)).problem


def test_branches_go_only_when_allowed():
    found = osl.analyze(NETS["residual"].build())
    target = {"params": 0.015}
    with pytest.raises(osl.TargetError):
        osl.plan(found, target)
    plan = osl.plan(found, target, allow_empty=True)
    assert any(not kept for kept in plan.groups.values())
    assert plan.provenance["after"]["params"] < plan.provenance["before"]["params"]


def test_what_was_empty_before_a_cut_is_no_branch_that_went(tmp_path):
    text = """(float[2,4] x) => (float[2,3] y) {
        h = MatMul(x, w1)
        none = Slice(h, [2], [2], [0])
        seen = Shape(none)
        all = Concat<axis = 0>(none, h)
        r = Relu(all)
        y = MatMul(r, w2)
    }"""
    found = osl.analyze(Net(text, "w1 4x8, w2 8x3").build())
    slimmed = workflow.slim(found, osl.plan(found, {"params": 0.5}, repair=False))
    assert slimmed.save(tmp_path / "slim.onnx").passed
    again = osl.analyze(tmp_path / "slim.onnx")
    assert again.price(again.whole)["params"] <= 28
