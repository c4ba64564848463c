"""Residual blocks: which are found, and that a net without some of them computes what the masked net computes."""

import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxslim_learn as osl
from nets.exports import build, export
from nets.zoo import NETS as ZOO
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.workflow import slim as workflow
from tests import laws
from tests.laws import NETS, PLANS, analysed, draw_removal

BLOCKS = {
    "residual": ["w1:block", "w3:block"],
    "convnext": ["w1:block"],
    "c2f": ["w1:block"],
    "windows": ["w1:block"],
    "swiglu": ["wg:block"],
    "swiglu_fused": ["w1:block"],
    "tied_embedding": ["w1:block"],
    "layer_norm": ["w1:block"],
    "attention_dynamic": ["wq:block"],
    "class_token": ["w1:block"],
    "pinned_by_input": ["w1:block"],
    "function": ["w1:block", "w2:block"],
}
"""Net -> its residual blocks that can go; all other nets of the zoo have none."""


def dropped(removal: Removal, blocks) -> Removal:
    """A removal that some blocks go with, too."""
    gone = removal.gone.copy()
    for block in blocks:
        gone[removal.coupling.strong[block.atom]] = True
    return Removal(removal.coupling, gone)


def able(analysis):
    return [block for block in analysis.coupling.blocks if not block.pin]


def test_the_blocks_of_the_zoo_are_known():
    assert {name: found for name in ZOO if (found := [b.name for b in able(analysed(name))])} == BLOCKS


@pytest.mark.parametrize("name", [name for name in NETS if laws.plain(name) in BLOCKS])
@PLANS
@given(st.data())
def test_nets_without_some_blocks_are_the_masked_ones(name, data):
    analysis = analysed(name)
    chosen = data.draw(st.lists(st.sampled_from(able(analysis)), min_size=1, unique=True))
    narrowed = data.draw(st.booleans()) and bool(laws.free(analysis))
    removal = dropped(draw_removal(data.draw, analysis) if narrowed else analysis.whole, chosen)
    small, reference = ir.to_proto(slim(removal)), laws.masked(removal)
    lifted = laws.masked(removal, lift=True)
    onnx.checker.check_model(small)
    assert len(small.graph.node) < len(analysis.graph.nodes)
    for feed in laws.input_sets(small):
        wanted, source = laws.run(reference, feed), laws.run(NETS[name].build(), feed)
        for output, array in laws.run(small, feed).items():
            laws.assert_close(array, wanted[output], output)
        for output, array in laws.run(lifted, feed).items():
            laws.assert_close(array, source[output], f"{output} without masks")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter", "count"), [("resnet18_dyn", "legacy", 5), ("bert_dyn", "dynamo", 8)])
def test_exported_nets_without_some_blocks_are_the_masked_ones(name, exporter, count, tmp_path):
    analysis = workflow.analyze(export(name, exporter, tmp_path))
    assert len(able(analysis)) == count
    removal = dropped(analysis.whole, able(analysis)[::2])
    small, reference = ir.to_proto(slim(removal)), laws.masked(removal)
    feed = {key: value.numpy() for key, value in build(name)[1].items()}
    wanted = laws.run(reference, feed)
    for output, array in laws.run(small, feed).items():
        laws.assert_close(array, wanted[output], output)


@pytest.mark.parametrize("name", [name for name in NETS if laws.plain(name) in BLOCKS])
def test_a_plan_names_blocks_and_is_replayed(name, tmp_path):
    analysis = analysed(name)
    removal = dropped(analysis.whole, able(analysis))
    plan = osl.Plan.from_json(workflow.describe(analysis, removal, {}).to_json())
    assert plan.blocks == tuple(block.name for block in able(analysis))
    assert plan.groups == {}
    slimmed = workflow.slim(analysis, plan)
    assert (slimmed.removal.gone == removal.gone).all()
    assert slimmed.save(tmp_path / "slim.onnx").passed
    again = workflow.analyze(tmp_path / "slim.onnx")
    assert again.price(again.whole) == analysis.price(removal) == plan.provenance["after"]
    alive = (~removal.gone).astype(float)
    counted = {row.name: round(analysis.cost(row.name).value(alive)) for row in analysis.counted}
    assert counted == again.price(again.whole), "presence factors into costs"
    assert workflow.verify(analysis, tmp_path / "slim.onnx", plan).passed
