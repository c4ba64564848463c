"""Choosing by samples: bounds hold, no choice is worse than narrowing all groups alike, and work is kept to."""

import itertools

import numpy as np
import pytest

from onnxslim_learn.costs.devices import load
from onnxslim_learn.data.open import open_source
from onnxslim_learn.runtime import cache, parallel
from onnxslim_learn.select import allocation, schedule, sensitivity
from onnxslim_learn.select.calibration import Calibration
from onnxslim_learn.select.trial_cost import TrialCost
from onnxslim_learn.workflow import slim
from tests.laws import ALL, analysed

NETS = ["residual", "depthwise", "squeeze_excite"]


def calibration(name, **allowed):
    """Samples of a zoo net."""
    analysis = analysed(name)
    rng = np.random.default_rng(0)
    shapes = analysis.graph.shapes.analysis.inputs
    data = {value: rng.standard_normal((64, *shape[1:])).astype(np.float32) for value, shape in shapes.items()}
    return Calibration(analysis.coupling, open_source(data, analysis.graph), **allowed)


@pytest.mark.parametrize("name", NETS)
def test_measured_widths_meet_the_target_and_do_no_worse_than_uniform_ones(name):
    analysis, known = analysed(name), calibration(name)
    plan = slim.plan(analysis, {"macs": 0.6}, calibration=known)
    assert plan.provenance["after"]["macs"] <= 0.6 * plan.provenance["before"]["macs"]
    trials = plan.provenance["trials"]
    assert set(allocation.WAYS) < set(trials)
    assert trials[plan.provenance["allocation"]] == min(trials.values())
    assert plan.provenance["criterion"] == "obs"
    assert all(len(points) >= 1 for points in known.curves.points.values())


@pytest.mark.parametrize("cost", ["params", "bytes", "memory", "latency"])
def test_the_same_losses_serve_whatever_is_bounded(cost):
    model = slim.analyze(ALL["residual"].build(), device=load("V100"))
    one, other = calibration("residual"), calibration("residual")
    first, second = (
        slim.plan(model, {name: 0.8}, calibration=known).provenance for name, known in (("macs", one), (cost, other))
    )
    assert other.curves.points == one.curves.points != {}
    assert second["curves"] == first["curves"]
    assert second["trials"][second["allocation"]] == min(second["trials"].values())


@pytest.mark.parametrize("nothing", [{"work": 0}, {"seconds": 0}])
def test_without_work_or_time_all_groups_are_narrowed_alike(nothing):
    known = calibration("residual", **nothing)
    plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=known)
    assert plan.provenance["allocation"] == "uniform"
    assert known.curves.points == {}


def test_work_that_is_not_enough_to_try_anything_is_told_with_what_would_be():
    little = calibration("residual", work=1.0)
    plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=little)
    assert plan.provenance["allocation"] == "uniform"
    assert plan.provenance["trials"] == {}
    assert little.curves.points == {}
    enough = calibration("residual", work=plan.provenance["work"]["all_measured"])
    plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=enough)
    measured, groups = plan.provenance["work"]["groups"]
    assert measured == groups > 1
    assert plan.provenance["trials"]


@pytest.mark.parametrize("name", NETS)
def test_where_work_does_not_do_for_all_groups_the_costliest_are_measured_and_the_rest_is_told_by_scores(name):
    analysis = analysed(name)
    enough = slim.plan(analysis, {"macs": 0.6}, calibration=calibration(name, work=1.0)).provenance["work"]
    for share in (0.9, 0.6):
        some = calibration(name, work=share * enough["all_measured"])
        plan = slim.plan(analysis, {"macs": 0.6}, calibration=some)
        measured, groups = plan.provenance["work"]["groups"]
        if 0 < measured < groups:
            break
    else:
        raise AssertionError("no share of the work measures some groups and not others")
    trials = plan.provenance["trials"]
    assert {"uniform"} < set(trials)
    assert trials[plan.provenance["allocation"]] == min(trials.values())
    whole = np.ones(analysis.coupling.size)
    slope = analysis.costs["macs"].gradient(whole)
    carried = {g.name: slope[analysis.coupling.close(one_column(analysis, g))].sum() for g in analysis.groups}
    first = max((g.name for g in analysis.groups if g.pin is None), key=lambda one: carried[one])
    assert first in some.curves.points


@pytest.mark.parametrize("small", [True, False])
def test_all_groups_are_measured_by_themselves_where_that_takes_little(small, monkeypatch):
    monkeypatch.setattr(schedule, "WORK", 0.0)
    monkeypatch.setattr(schedule, "RUNS", 8)
    monkeypatch.setattr(schedule, "SMALL", np.inf if small else 0.0)
    plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=calibration("residual"))
    measured, groups = plan.provenance["work"]["groups"]
    assert measured == (groups if small else 0)


@pytest.mark.parametrize("enough", [True, False])
def test_one_way_is_tried_beside_all_groups_alike_where_that_takes_little(enough, monkeypatch):
    monkeypatch.setattr(schedule, "WORK", 0.0)
    monkeypatch.setattr(schedule, "RUNS", 0)
    coupling, known = analysed("residual").coupling, calibration("residual")
    once = schedule.affordable(coupling, calibration("residual", work=1.0), 1).trials(TrialCost.of(coupling))[0]
    monkeypatch.setattr(schedule, "SMALL", 2 * once if enough else 1.99 * once)
    plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=known)
    assert len(plan.provenance.get("trials", ())) == (2 if enough else 0)
    assert plan.provenance["work"]["groups"][0] == 0


def test_a_plan_tells_what_groups_lose_at_all_of_their_widths():
    known = calibration("residual", work=2e9)
    told = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=known).provenance
    assert set(told["measured"]) == set(known.curves.points)
    assert set(told["curves"]) == {group.name for group in analysed("residual").free_groups() if group.pin is None}
    assert 0 < len(told["measured"]) < len(told["curves"])
    for name, curve in told["curves"].items():
        losses = [curve[width] for width in sorted(curve, key=int)]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] == 0
        for width, loss in known.curves.points.get(name, {}).items():
            assert curve[str(width)] >= max(loss, 0) * (1 - 1e-6)


def one_column(analysis, group):
    """The columns of a group."""
    columns = np.zeros(analysis.coupling.columns, bool)
    columns[group.units] = True
    return columns


def test_more_work_measures_what_less_does_and_more():
    plans = {}
    for work in (1e9, 4e9, 2e12):
        known = calibration("residual", work=work)
        slim.plan(analysed("residual"), {"macs": 0.6}, calibration=known)
        plans[work] = {(name, kept) for name, points in known.curves.points.items() for kept in points}
    sizes = [len(points) for points in plans.values()]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_what_was_measured_once_serves_the_next_target(monkeypatch):
    analysis, known = analysed("residual"), calibration("residual")
    slim.plan(analysis, {"macs": 0.7}, calibration=known)
    points = {name: dict(p) for name, p in known.curves.points.items()}

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(sensitivity, "loss", never)
    slim.plan(analysis, {"macs": 0.5}, calibration=known)
    assert known.curves.points == points


def test_a_run_that_was_stopped_goes_on_from_what_was_kept_on_disk(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "whole"))
    whole = calibration("residual")
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
        slim.plan(analysed("residual"), {"macs": 0.6}, calibration=calibration("residual"))
    calls = []
    monkeypatch.setattr(sensitivity, "loss", lambda *arguments: calls.append(1) or loss(*arguments))
    again = calibration("residual")
    slim.plan(analysed("residual"), {"macs": 0.6}, calibration=again)
    assert again.curves.points == whole.curves.points
    assert len(calls) == sum(map(len, whole.curves.points.values())) - 3


def test_other_samples_have_losses_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.PLACE, str(tmp_path))
    first, other = calibration("residual"), calibration("residual")
    slim.plan(analysed("residual"), {"macs": 0.6}, calibration=first)
    other.feeds[0] = {name: array + 1 for name, array in other.feeds[0].items()}
    slim.plan(analysed("residual"), {"macs": 0.6}, calibration=other)
    assert other.curves.points != first.curves.points


def test_a_limit_in_seconds_is_told_and_the_same_command_goes_on_to_the_end(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "whole"))
    whole = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=calibration("residual"))
    monkeypatch.setenv(cache.PLACE, str(tmp_path / "parts"))
    done, planned = [], 1
    while not done or done[-1] < planned:
        clock = itertools.count()
        monkeypatch.setattr(sensitivity, "perf_counter", lambda clock=clock: next(clock))
        plan = slim.plan(analysed("residual"), {"macs": 0.6}, calibration=calibration("residual", seconds=10))
        count, planned = plan.provenance["work"]["points"]
        assert count > (done[-1] if done else 0)
        assert plan.provenance["work"]["seconds"] == (None if count == planned else 10)
        done.append(count)
    assert len(done) > 1
    assert plan.to_json() == whole.to_json()


def test_losses_grow_with_what_goes():
    analysis, known = analysed("residual"), calibration("residual")
    slim.plan(analysis, {"macs": 0.7}, calibration=known)
    for points in known.curves.points.values():
        widths = sorted(points)
        if len(widths) > 2:
            assert points[widths[0]] > points[widths[-1]]
