"""Cuts that are surely slower than the original are chosen again, and it is told where their time goes."""

import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.errors import TargetError
from onnxslim_learn.runtime.settings import RuntimeSettings
from onnxslim_learn.runtime.timing import Ratio
from onnxslim_learn.workflow import slim, timed
from onnxslim_learn.workflow.timed import COARSER, SLOWER, by_node, not_slower, unchanged
from tests.laws import analysed


def chosen(ratios, multiple="auto", impossible=()):
    """What is taken where multiples lead to these ratios, and the multiples that were tried."""
    analysis, tried = analysed("residual"), []

    def make(step):
        tried.append(step)
        if step in impossible:
            raise TargetError("cannot be reached.")
        return slim.slim(analysis, slim.plan(analysis, {"macs": 0.6}, multiple=1, criterion="l2"))

    slimmed = not_slower(make, multiple, lambda removal: ratios[tried[-1]])
    return slimmed.plan.provenance, tried


def around(middle, off=0.05):
    return Ratio(middle, middle - off, middle + off)


@pytest.mark.parametrize("first", [around(0.5), around(1.0), around(1.06), around(SLOWER, 0.0)])
def test_what_is_not_surely_slower_stands_and_its_plan_says_nothing_of_time(first):
    provenance, tried = chosen({"auto": first})
    assert tried == ["auto"]
    assert "timed" not in provenance


def test_what_is_surely_slower_is_chosen_again_until_it_is_not():
    provenance, tried = chosen({"auto": around(1.3), 8: around(0.9), 16: around(0.5)})
    assert tried == ["auto", 8]
    assert [one["multiple"] for one in provenance["timed"]] == tried
    assert provenance["timed"][1] == {
        "multiple": 8,
        "ratio": 0.9,
        "low": pytest.approx(0.85),
        "high": pytest.approx(0.95),
    }
    assert provenance["multiple"] == "auto"


def test_where_all_are_slower_the_fastest_is_taken():
    provenance, tried = chosen({"auto": around(1.4), 8: around(1.2), 16: around(1.3)})
    assert tried == ["auto", *COARSER]
    assert min(one["ratio"] for one in provenance["timed"]) == 1.2


def test_multiples_that_do_not_reach_the_target_end_the_choice():
    provenance, tried = chosen({"auto": around(1.4)}, impossible=(8,))
    assert tried == ["auto", 8]
    assert "timed" not in provenance


@pytest.mark.parametrize("multiple", [1, 4])
def test_multiples_that_were_asked_for_are_kept(multiple):
    assert chosen({multiple: around(2.0)}, multiple)[1] == [multiple]


def test_nodes_that_are_as_slow_as_before_are_told_by_operator(tmp_path):
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    analysis = slim.analyze(tmp_path / "net.onnx")
    feeds = random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    nodes = by_node(analysis, tmp_path / "net.onnx", feeds, RuntimeSettings())
    assert {node["name"] for node in nodes} >= {str(n.name) for n in analysis.graph.nodes if n.op_type == "Conv"}
    shares = unchanged(nodes)
    assert set(shares) - {"layout", "(other)", "ReorderInput", "ReorderOutput"} <= {
        n.op_type for n in analysis.graph.nodes
    }
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) <= 1 + 1e-9
    assert by_node(analysis, tmp_path / "net.onnx", feeds, RuntimeSettings(provider="CUDAExecutionProvider")) == []


def test_a_large_model_is_timed_only_where_a_target_asks_for_it(monkeypatch):
    monkeypatch.setattr(timed, "LARGEST", 100)
    result = osl.slim(NETS["residual"].build(), params=0.7, samples=4)
    assert result.passed
    assert "not timed" in result.notes[-1]
    assert result.report["latency"] is None
