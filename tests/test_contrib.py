"""Fused, attention, recurrent and quantized operators in all their forms: slim = mask on tiny nets of one each."""

import functools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nets.forms import NETS, REFERENCE
from onnxslim_learn.rewrite.slim import slim
from onnxslim_learn.workflow import slim as api
from tests import laws

OPAQUE = {
    "RotaryEmbedding_partial": "RotaryEmbedding",
    "onnx_RotaryEmbedding_partial": "RotaryEmbedding",
}
"""Forms without a rule: they pin what they touch."""


@functools.cache
def analysed(name):
    return api.analyze(NETS[name].build())


def run(name, model, feed):
    if name not in REFERENCE:
        return laws.run(model, feed)
    from onnx.reference import ReferenceEvaluator

    outputs = ReferenceEvaluator(model).run(None, feed)
    return dict(zip([info.name for info in model.graph.output], outputs, strict=True))


@pytest.mark.parametrize("name", NETS)
def test_net_runs_and_depends_on_its_input(name):
    model = NETS[name].build()
    first, second = (run(name, model, laws.feeds(model, seed))["y"] for seed in (0, 1))
    assert np.isfinite(first).all()
    assert np.std(first - second) > 0.01


@pytest.mark.parametrize("name", NETS)
def test_forms_without_a_rule_are_known(name):
    assert list(analysed(name).opaque) == ([OPAQUE[name]] if name in OPAQUE else [])


@pytest.mark.parametrize("name", REFERENCE)
def test_onnxruntime_cannot_run(name):
    model = NETS[name].build()
    with pytest.raises(Exception, match=r"not supported|NOT_IMPLEMENTED"):
        laws.run(model, laws.feeds(model))


@pytest.mark.parametrize("name", NETS)
@laws.examples(8)
@given(st.data())
def test_slim_is_mask(name, data):
    removal = laws.draw_removal(data.draw, analysed(name))
    small, reference = ir.to_proto(slim(removal)), laws.masked(removal)
    assert small.ByteSize() < reference.ByteSize(), "nothing was removed"
    feed = laws.feeds(small)
    found, wanted = run(name, small, feed), run(name, reference, feed)
    laws.assert_close(found["y"], wanted["y"], name)


GROUPED = [name for name in NETS if "GroupQueryAttention" in name or name.endswith("gqa")]


@pytest.mark.parametrize("name", GROUPED)
def test_query_heads_go_from_every_key_value_head_alike(name):
    analysis = analysed(name)
    (grouped,) = (node for node in analysis.graph.nodes if node.op_type in ("Attention", "GroupQueryAttention"))
    counts = [int(a.value) for key, a in grouped.attributes.items() if key.endswith("num_heads")]
    queries = [g for g in laws.free(analysis) if "query heads" in analysis.titles[g.name].text]
    if counts and max(counts) == min(counts):
        assert not queries
        return
    (group,) = queries
    removal = laws.close(analysis, laws.units(group, 1, np.random.default_rng(0)))
    small = ir.to_proto(slim(removal))
    before, after = ({i.name: i.dims for i in m.graph.initializer} for m in (NETS[name].build(), small))
    assert after["w1"][1] < before["w1"][1]
    assert all(after[w] == before[w] for w in ("wk", "wv") if w in before)  # every key-value head stays
    feed = laws.feeds(small)
    laws.assert_close(run(name, small, feed)["y"], run(name, laws.masked(removal), feed)["y"], name)
