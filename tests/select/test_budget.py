"""Budgets are met from below, use all they may, and say what they cannot reach."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim_learn.errors import InputError, TargetError
from onnxslim_learn.registry import CRITERIA
from onnxslim_learn.select import criteria
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import PLANS, ZOO_CUT, analysed

BY_WEIGHTS = [name for name, row in CRITERIA.items() if not row.samples and name != "folding"]
COSTS = ["macs", "params", "bytes"]
OWN_AXES = ["residual", "bottleneck", "dense", "unet", "flatten_gemm", "swiglu", "attention", "squeeze_excite"]
"""Nets of which every group is wider than the multiples asked for, and fills the axes it is on but for joined ones."""


def least(analysis, **settings):
    """Return the smallest costs that a search reaches, read off its complaint."""
    with pytest.raises(TargetError) as caught:
        slim.plan(analysis, dict.fromkeys(COSTS, 1e-9), **settings)
    return {name: int(best) for name, best in re.findall(r"(\w+)=\S+ .*?the best is (\d+)", str(caught.value))}


def draw_targets(draw, analysis):
    """Draw one to three targets, each between the least and all."""
    reach, before = least(analysis), analysis.price(analysis.whole)
    names = draw(st.lists(st.sampled_from(COSTS), min_size=1, max_size=3, unique=True))
    return {name: reach[name] + draw(st.floats(0, 1)) * (before[name] - reach[name]) for name in names}


def decided(analysis, plan):
    """Return the columns that a plan decided to remove, without the cells that went with a row."""
    lost = {group.name: columns_of(analysis, group.name, plan.groups.get(group.name)) for group in laws.free(analysis)}
    rows = np.concatenate([np.zeros(0, int), *(c for name, c in lost.items() if analysis.group(name).rows)])
    went_with_rows = np.setdiff1d(analysis.coupling.column[laws.close(analysis, rows).gone], rows)
    return np.setdiff1d(np.concatenate([np.zeros(0, int), *lost.values()]), went_with_rows)


def columns_of(analysis, name, kept):
    group = analysis.group(name)
    return group.units[np.setdiff1d(np.arange(group.width), range(group.width) if kept is None else kept)]


# --- from below -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO_CUT)
@PLANS
@given(st.data())
def test_every_target_is_met_by_a_valid_plan(name, data):
    analysis = analysed(name)
    wanted = draw_targets(data.draw, analysis)
    plan = slim.plan(analysis, wanted, criterion=data.draw(st.sampled_from(list(BY_WEIGHTS))))
    price = analysis.price(slim.realize(analysis, plan))
    assert all(price[cost] <= bound * (1 + 1e-9) for cost, bound in wanted.items())  # as the search compares
    assert plan.provenance["after"] == price


@pytest.mark.parametrize("name", ZOO_CUT)
@PLANS
@given(st.data())
def test_no_group_can_get_a_step_back(name, data):
    """One more step of any one group, of the best of its removed units, breaks a bound."""
    analysis = analysed(name)
    wanted = draw_targets(data.draw, analysis)
    scores = criteria.scores(analysis, analysis.groups, "l1")
    removed = decided(analysis, slim.plan(analysis, wanted, criterion="l1"))
    for group in laws.free(analysis):
        gone = [part[np.isin(group.units[part], removed)] for part in group.strata]
        if not any(len(part) for part in gone):
            continue
        back = [
            part[np.argsort(-scores[group.units[part]], kind="stable")][: len(whole) // group.levels]
            for part, whole in zip(gone, group.strata, strict=True)
        ]
        cut = laws.close(analysis, np.setdiff1d(removed, group.units[np.concatenate(back)]))
        if laws.valid(cut):
            price = analysis.price(cut)
            assert any(price[cost] > bound for cost, bound in wanted.items()), group.name


@pytest.mark.parametrize("name", ZOO_CUT)
def test_a_target_that_is_met_already_removes_nothing(name):
    assert slim.plan(analysed(name), {"macs": 1.0, "params": 1.0}).groups == {}


@pytest.mark.parametrize("name", ZOO_CUT)
def test_a_lower_target_never_keeps_more_of_the_cost(name):
    analysis = analysed(name)
    reach, before = least(analysis)["macs"], analysis.price(analysis.whole)["macs"]
    bounds = np.linspace(reach, before, 7)
    after = [slim.plan(analysis, {"macs": max(bound, 2)}).provenance["after"]["macs"] for bound in bounds]
    assert after == sorted(after)


def test_a_fraction_is_of_the_original_and_a_larger_number_is_absolute():
    analysis = analysed("residual")
    macs = analysis.price(analysis.whole)["macs"]
    assert slim.plan(analysis, {"macs": 0.5}).groups == slim.plan(analysis, {"macs": macs / 2}).groups


def test_the_worst_units_go():
    analysis = analysed("chain")
    (group,) = laws.free(analysis)
    for criterion in BY_WEIGHTS:
        scores = criteria.scores(analysis, analysis.groups, criterion)[group.units]
        kept = slim.plan(analysis, {"macs": 0.5}, criterion=criterion).groups[group.name]
        assert set(kept) == set(np.argsort(scores)[4:])


# --- what cannot be reached -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO_CUT)
def test_the_best_that_is_named_can_be_reached_and_nothing_below(name):
    analysis = analysed(name)
    reach = least(analysis)
    assert set(reach) == set(COSTS)
    plan = slim.plan(analysis, reach)
    assert plan.provenance["after"] == reach
    for cost in COSTS:
        with pytest.raises(TargetError):
            slim.plan(analysis, {cost: reach[cost] - 1})


def test_what_is_protected_is_not_touched_and_costs_reach():
    analysis = analysed("residual")
    plan = slim.plan(analysis, {"macs": 0.5}, protect=["^w1:0$", "^w3:0$"])
    assert set(plan.groups) == {"w0:0"}
    assert least(analysis, protect=["w0"])["macs"] > least(analysis)["macs"]


def test_protecting_a_member_protects_its_group():
    plan = slim.plan(analysed("residual"), {"macs": 0.7}, protect=["^w5:1$"])
    assert plan.groups
    assert "w0:0" not in plan.groups


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"protect": ["nothing like it"]}, "no group matches"),
        ({"protect": ["("]}, "not a regular expression"),
        ({"multiple": 0}, "positive"),
        ({"criterion": "hope"}, "hope"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        slim.plan(analysed("residual"), {"macs": 0.5}, **settings)


@pytest.mark.parametrize("target", [{"macs": 0}, {"macs": -1}, {"macs": float("nan")}, {"speed": 0.5}])
def test_targets_that_make_no_sense_are_refused(target):
    with pytest.raises(InputError, match=next(iter(target))):
        slim.plan(analysed("residual"), target)


# --- multiples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiple", [2, 4])
@pytest.mark.parametrize("name", OWN_AXES)
def test_cut_axes_are_multiples(name, multiple):
    analysis = analysed(name)
    reach, before = least(analysis, multiple=multiple)["macs"], analysis.price(analysis.whole)["macs"]
    for share in (0.0, 0.3, 0.6, 0.9):
        plan = slim.plan(analysis, {"macs": reach + share * (before - reach)}, multiple=multiple)
        lengths = [np.asarray(kept).size for axes in plan.tensors.values() for kept in axes.values()]
        assert lengths
        assert all(length % multiple == 0 for length in lengths)


def test_a_group_narrower_than_the_multiple_stays_whole():
    analysis = analysed("bottleneck")
    plan = slim.plan(analysis, least(analysis, multiple=12), multiple=12)
    assert {name: len(kept) for name, kept in plan.groups.items()} == {"w0:0": 12, "w3:0": 12}
