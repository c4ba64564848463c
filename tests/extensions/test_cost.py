"""A cost of one's own: a function of a coupling that answers with a sum over nodes of coefficient times widths."""

import json

import numpy as np
import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.cli import commands
from onnxslim_learn.costs.polynomial import polynomial
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.morphnet.structure import structure
from onnxslim_learn.registry import COSTS
from onnxslim_learn.report.format import amount
from onnxslim_learn.select import planner
from onnxslim_learn.workflow import slim

ENERGY = '''
from onnxslim_learn.costs.polynomial import polynomial
from onnxslim_learn.registry import COSTS


@COSTS.register("energy", unit="pJ", title="energy")
def energy(coupling):
    """Three picojoules for a multiply-accumulate."""
    nodes = coupling.nodes
    terms = ((str(nodes[t.node].name), 3 * t.coefficient, t.digits) for t in coupling.records.terms)
    return polynomial("energy", coupling, terms)
'''
HALF = 0.5


def energy(coupling):
    """Three picojoules for a multiply-accumulate."""
    nodes = coupling.nodes
    terms = ((str(nodes[t.node].name), 3 * t.coefficient, t.digits) for t in coupling.records.terms)
    return polynomial("energy", coupling, terms)


def test_a_target_bounds_it():
    analysis = slim.analyze(NETS["residual"].build())
    plan = osl.plan(analysis, {energy: HALF}, repair=False)
    price = analysis.price(slim.realize(analysis, plan))
    name = f"{__name__}:energy"
    assert price[name] == 3 * price["macs"]
    assert plan.provenance["target"] == {name: HALF}
    assert plan.provenance["after"][name] <= HALF * plan.provenance["before"][name]
    assert plan.groups == osl.plan(analysis, {"macs": HALF}, repair=False).groups


def test_a_name_is_told_with_its_unit_everywhere():
    with COSTS.having("energy", energy, unit="pJ"):
        analysis = slim.analyze(NETS["residual"].build())
        price = analysis.price(analysis.whole)
        assert price["energy"] == 3 * price["macs"]
        assert [row.unit for row in analysis.counted] == ["", "", "bytes", "pJ"]
    assert "energy" not in slim.analyze(NETS["residual"].build()).costs


def test_on_the_command_line_it_is_named_by_its_module(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_cost.py").write_text(ENERGY)
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    line = "slim net.onnx -o slim.onnx --no-repair --no-latency --json told.json --target"
    try:
        assert commands.main([*line.split(), "mine_cost:energy=0.5"]) == 0
        told = json.loads((tmp_path / "told.json").read_text())
        assert told["after"]["energy"] <= HALF * told["before"]["energy"]
        rows = [row for row in capsys.readouterr().out.splitlines() if "energy" in row]
        assert any(amount(told["before"]["energy"], "pJ") in row for row in rows), rows
        assert commands.main(["analyze", "net.onnx"]) == 0
        assert "energy" in capsys.readouterr().out
        assert commands.main([*line.split(), "enrgy=0.5"]) == 2
        assert "Did you mean energy?" in capsys.readouterr().err
    finally:
        COSTS.remove("energy")


def test_a_learner_charges_it():
    analysis = slim.analyze(NETS["residual"].build())
    mine = structure(analysis, energy, {}, {})
    slopes = structure(analysis, "macs", {}, {}).slopes(analysis.whole)
    assert np.allclose(mine.slopes(analysis.whole), slopes), "shares of the whole are those of the macs"


def test_what_may_not_be_bounded_or_charged_is_refused():
    analysis = slim.analyze(NETS["residual"].build())
    with pytest.raises(InputError, match="channels: only learners charge for it"):
        planner.plan(analysis, {"channels": HALF})
    with COSTS.having("energy", energy, charged=False), pytest.raises(InputError, match="cannot be charged"):
        structure(analysis, "energy", {}, {})
    with pytest.raises(InputError, match="latency: needs a device"):
        planner.plan(analysis, {"latency": HALF})
