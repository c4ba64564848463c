"""Choosing by samples: bounds hold, no choice is worse than narrowing all groups alike, and time is kept to."""

import numpy as np
import pytest

from onnxslim_learn.data.open import open_source
from onnxslim_learn.runtime import cache, parallel
from onnxslim_learn.select import allocation, sensitivity
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.workflow import slim
from tests.laws import analysed

NETS = ["residual", "depthwise", "squeeze_excite"]


def calibration(name, seconds):
    """Samples of a zoo net."""
    analysis = analysed(name)
    rng = np.random.default_rng(0)
    shapes = analysis.graph.shapes.analysis.inputs
    data = {value: rng.standard_normal((64, *shape[1:])).astype(np.float32) for value, shape in shapes.items()}
    return Calibration(analysis.coupling, open_source(data, analysis.graph), seconds=seconds)


@pytest.mark.parametrize("name", NETS)
def test_measured_widths_meet_the_target_and_do_no_worse_than_uniform_ones(name):
    analysis, known = analysed(name), calibration(name, 20)
    plan = slim.plan(analysis, {"macs": 0.6}, calibration=known)
    assert plan.provenance["after"]["macs"] <= 0.6 * plan.provenance["before"]["macs"]
    trials = plan.provenance["trials"]
    assert set(allocation.WAYS) < set(trials)
    assert trials[plan.provenance["allocation"]] == min(trials.values())
    assert plan.provenance["criterion"] == "obs"
    assert all(len(points) >= 1 for points in known.curves.points.values())


def test_without_time_all_groups_are_narrowed_alike():
    known = calibration("residual", 0)
    plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=known)
    assert plan.provenance["allocation"] == "uniform"
    assert known.curves.points == {}


def test_too_little_time_measures_nothing_rather_than_noise():
    known = calibration("residual", 1e-6)
    plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=known)
    assert plan.provenance["allocation"] == "uniform"
    assert known.curves.points == {}


def test_what_was_measured_once_serves_the_next_target(monkeypatch):
    analysis, known = analysed("residual"), calibration("residual", 60)
    slim.plan(analysis, {"macs": 0.7}, calibration=known)
    points = {name: dict(p) for name, p in known.curves.points.items()}

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(sensitivity, "loss", never)
    slim.plan(analysis, {"macs": 0.5}, calibration=known)
    assert known.curves.points == points


def test_a_run_that_was_stopped_goes_on_from_what_was_kept_on_disk(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "whole"))
    whole = calibration("residual", 60)
    slim.plan(analysed("residual"), {"macs": 0.6}, calibration=whole)
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "parts"))
    monkeypatch.setattr(parallel, "WORKERS", 1)
    loss, left = sensitivity.loss, iter(range(3))

    def stopped(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return loss(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sensitivity, "loss", stopped)
        slim.plan(analysed("residual"), {"macs": 0.6}, calibration=calibration("residual", 60))
    calls = []
    monkeypatch.setattr(sensitivity, "loss", lambda *arguments: calls.append(1) or loss(*arguments))
    again = calibration("residual", 60)
    slim.plan(analysed("residual"), {"macs": 0.6}, calibration=again)
    assert again.curves.points == whole.curves.points
    assert len(calls) == sum(map(len, whole.curves.points.values())) - 3


def test_other_samples_have_losses_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.PLACE, str(tmp_path))
    first, other = calibration("residual", 60), calibration("residual", 60)
    slim.plan(analysed("residual"), {"macs": 0.6}, calibration=first)
    other.feeds[0] = {name: array + 1 for name, array in other.feeds[0].items()}
    slim.plan(analysed("residual"), {"macs": 0.6}, calibration=other)
    assert other.curves.points != first.curves.points


def test_losses_grow_with_what_goes():
    analysis, known = analysed("residual"), calibration("residual", 60)
    slim.plan(analysis, {"macs": 0.7}, calibration=known)
    for points in known.curves.points.values():
        widths = sorted(points)
        if len(widths) > 2:
            assert points[widths[0]] > points[widths[-1]]
