"""Residual blocks that go: the ones that lose least, as many as were asked for, alone or beside widths."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxslim_learn as osl
from onnxslim_learn import demo
from onnxslim_learn.coupling import selection
from onnxslim_learn.coupling.removal import Removal
from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.repair.targets import Record
from onnxslim_learn.rewrite import stretches
from onnxslim_learn.rewrite.slim import slim as cut
from onnxslim_learn.select import blocks, sensitivity
from onnxslim_learn.workflow import slim as workflow
from tests import laws

MODEL = demo.model_path()
TIMELESS = {"no_latency": True}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "calibration.npz"
    np.savez(path, **{name: array[:96] for name, array in demo.calibration().items()})
    return str(path)


def slimmed(samples, **settings):
    return osl.slim(MODEL, data=samples, **TIMELESS, **settings)


@pytest.mark.slow
def test_the_block_that_loses_least_goes_first(samples):
    result = slimmed(samples, drop_blocks=1)
    analysis = workflow.analyze(MODEL)
    feeds = [{"image": part} for part in np.split(np.load(samples)["image"], 12)]
    record = Record(analysis.graph.model, feeds, 1024, whole=True)
    losses = {}
    for block in analysis.coupling.blocks:
        gone = analysis.whole.gone.copy()
        gone[analysis.coupling.strong[block.atom]] = True
        removal = Removal(analysis.coupling, gone)
        losses[block.name] = sensitivity.loss(removal, cut(removal), record)
    (chosen,) = result.plan.blocks
    assert len(losses) == 3
    assert losses[chosen] <= 1.2 * min(losses.values()), "other samples may decide otherwise between two alike"
    assert losses[chosen] < max(losses.values()) / 2
    assert result.plan.groups == {}
    assert result.verification.passed


def test_a_large_model_is_not_repaired_to_tell_what_a_block_loses(monkeypatch):
    monkeypatch.setattr(stretches, "LARGEST", 0)
    analysis = workflow.analyze(MODEL)
    record = Record(analysis.graph.model, [{"image": part} for part in np.split(demo.held_out()["image"][:16], 4)], 64)
    gone = analysis.whole.gone.copy()
    gone[analysis.coupling.strong[analysis.coupling.blocks[0].atom]] = True
    removal = Removal(analysis.coupling, gone)
    judged = np.concatenate([record.feeds[k]["image"] for k in record.judged])
    found = sensitivity.repaired(removal, cut(removal), record)["logits"]
    np.testing.assert_allclose(found, laws.run(ir.to_proto(cut(removal)), {"image": judged})["logits"], atol=1e-4)


@pytest.mark.slow
def test_repair_makes_up_for_a_block(samples):
    result, images = slimmed(samples, drop_blocks=1), demo.held_out()["image"]
    unrepaired = slimmed(samples, plan=result.plan, no_repair=True)
    assert result.report["repair"]["kept"]
    original, plain, repaired = (
        laws.run(onnx.load(path), {"image": images})["logits"] for path in (MODEL, unrepaired.file, result.file)
    )
    lost = [float(((found - original) ** 2).mean()) for found in (plain, repaired)]
    assert lost[1] < lost[0] / 4


@pytest.mark.slow
def test_so_many_blocks_go_beside_widths(samples):
    result = slimmed(samples, macs=0.4, drop_blocks=2)
    assert len(result.plan.blocks) == 2
    assert result.plan.groups
    assert result.report["after"]["macs"] <= 0.4 * result.report["before"]["macs"]
    assert sorted(result.plan.blocks) == sorted(row["name"] for row in result.report["blocks"])
    assert not {row["name"] for row in result.report["groups"]} & set(_inside(result))
    assert osl.apply(MODEL, result.plan, no_repair=True, **TIMELESS).plan.blocks == result.plan.blocks


def _inside(result):
    removal = workflow.realize(result.analysis, result.plan)
    return [group.name for group in result.analysis.groups if group.lies_in(removal.without)]


@pytest.mark.slow
def test_blocks_alone_meet_a_target_and_none_goes_in_vain(samples):
    result = slimmed(samples, macs=0.5, only=["blocks"])
    assert result.plan.groups == {}
    analysis, bound = result.analysis, 0.5 * result.report["before"]["macs"]
    assert result.report["after"]["macs"] <= bound
    for name in result.plan.blocks:
        gone = analysis.whole.gone.copy()
        for block in analysis.coupling.blocks:
            if block.name in result.plan.blocks and block.name != name:
                gone[analysis.coupling.strong[block.atom]] = True
        assert analysis.price(Removal(analysis.coupling, gone))["macs"] > bound
    with pytest.raises(TargetError, match="cannot be reached"):
        slimmed(samples, macs=0.05, only=["blocks"])


@pytest.mark.slow
def test_samples_decide_how_many_blocks_go_beside_widths(samples):
    result = slimmed(samples, macs=0.3, drop_blocks="auto")
    told = result.plan.provenance["blocks"]
    assert len(result.plan.blocks) == int(min(told["trials"], key=told["trials"].get))
    assert "0" in told["trials"]
    assert len(told["trials"]) > 1
    assert result.report["after"]["macs"] <= 0.3 * result.report["before"]["macs"]


def test_only_blocks_means_no_units_of_modules_called_so():
    analysis = workflow.analyze(MODEL)
    moved = {name: replace(title, modules=("blocks.0",)) for name, title in analysis.titles.items()}
    chosen = selection.only(analysis.groups, moved, ["blocks"], analysis.block_titles.values())
    assert all(group.pin is not None for group in chosen)
    free = {group.name for group in analysis.groups if group.pin is None}
    inside = selection.only(analysis.groups, moved, ["blocks[.]"], analysis.block_titles.values())
    assert {group.name for group in inside if group.pin is None} == free


def test_what_cannot_be_dropped_is_refused(samples):
    analysis = workflow.analyze(MODEL)
    with pytest.raises(InputError, match=r"the model has 3 residual blocks that can go\. Give at most 3"):
        slimmed(samples, drop_blocks=4)
    with pytest.raises(InputError, match="measured on samples"):
        workflow.plan(analysis, {"macs": 0.5}, drop_blocks=1)
    with pytest.raises(InputError, match="expected a number, or auto"):
        workflow.plan(analysis, {"macs": 0.5}, drop_blocks=-1)
    with pytest.raises(InputError, match="Give one of them"):
        slimmed(samples, drop_blocks="auto")
    assert blocks.decide(None, (), 0, None) == blocks.Decided()
