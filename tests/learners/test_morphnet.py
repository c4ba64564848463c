"""MorphNet's terms against golden numbers and finite differences; what is learnt against its target."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nets.notation import Net
from onnxslim_learn.analysis import analyze
from onnxslim_learn.bridge import gates, initializers
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.costs import channels
from onnxslim_learn.costs.devices import load
from onnxslim_learn.costs.roofline import roofline
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners.morphnet import strengths
from onnxslim_learn.learners.morphnet.learner import bonds, ties
from onnxslim_learn.learners.morphnet.logistic_gates import Gates
from onnxslim_learn.learners.morphnet.structure import structure
from onnxslim_learn.plans.realize import realize
from onnxslim_learn.select.search import solve
from tests.laws import analysed

GOLDEN = Net(
    """(float[1, 3, 17, 19] x) => (float[1, 2, 9, 10] y3, float[1, 2, 17, 19] y4) {
      a1 = Conv<pads=[3, 2, 3, 2]>(x, w1)
      n1 = BatchNormalization(a1, s1, t1, m1, v1)
      a2 = Conv(x, w2)
      n2 = BatchNormalization(a2, s2, t2, m2, v2)
      c = Concat<axis=1>(n1, n2)
      a3 = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(c, w3)
      n3 = BatchNormalization(a3, s3, t3, m3, v3)
      y3 = Conv(n3, h3)
      a4 = Conv(c, w4)
      n4 = BatchNormalization(a4, s4, t4, m4, v4)
      y4 = Conv(n4, h4)
    }""",
    "w1 13x3x7x5, w2 23x3x1x1, w3 29x36x3x3, w4 31x36x1x1, h3 2x29x1x1, h4 2x31x1x1,"
    "s1 t1 m1 v1 13, s2 t2 m2 v2 23, s3 t3 m3 v3 29, s4 t4 m4 v4 31",
)
"""An image into two convolutions, both joined into two more; the heads only end the graph."""

GAMMAS = {
    "s1": [0.8] * 7 + [0.2] * 6,
    "s2": [-0.7] * 11 + [0.1] * 12,
    "s3": [0.6] * 10 + [-0.3] * 19,
    "s4": [-0.5] * 17 + [-0.4] * 14,
}
NUMBERS = {  # cost and term of every operator, in FLOPs and weights
    "a1": (474810, 461244.0, 735, 714.0),
    "a2": (21318, 17248.2, 33, 26.7),
    "a3": (291600, 595512.0, 1620, 3308.4),
    "a4": (197676, 336372.2, 306, 520.7),
}
NANOSECONDS = {  # likewise, on a P100: of these the first and the last are bound by computing, the others by moving
    "a1": (51.054840, 49.596129),
    "a2": (24.890711, 15.854645),
    "a3": (45.540985, 51.543716),
    "a4": (63.448086, 55.443169),
}
ALIVE, SUMS = {"a1": 7, "a2": 11, "a3": 10, "a4": 17}, {"s1": 6.8, "s2": 8.9, "s3": 11.7, "s4": 14.1}


def part(cost, owner):
    """Return what one operator or weight has of a cost."""
    return replace(cost, coefficients=cost.coefficients * np.array([name == owner for name in cost.owners]))


def golden(how="max"):
    found = analyze(GOLDEN.build())
    module = bridge(found)
    with torch.no_grad():
        for name, values in GAMMAS.items():
            initializers.parameters(module)[name].copy_(torch.tensor(values))
    space = structure(found, "macs", {}, {})
    return found, space, strengths.read(module, found, space.groups, "gamma", how=how)


def terms(space, read, cost, removal):
    """Return a cost's value and regularization term."""
    values = read().detach().numpy().astype(np.float64)
    slopes = replace(space, cost=cost).slopes(removal) * cost.value(np.ones(space.analysis.coupling.size))
    return cost.value((~removal.gone).astype(float)), float(slopes @ values)


@pytest.mark.parametrize("node", NUMBERS)
def test_costs_and_terms_are_golden(node):
    found, space, read = golden()
    values = read().detach().numpy().astype(np.float64)
    removal = space.removal(values, values <= 0.45)
    assert space.alive(removal)[node] == ALIVE[node]
    macs, params = found.costs["macs"], found.costs["params"]
    flops, flop_term, size, size_term = NUMBERS[node]
    assert np.multiply(2, terms(space, read, part(macs, node), removal)) == pytest.approx((flops, flop_term), rel=1e-6)
    weight = f"w{node[1]}"
    assert terms(space, read, part(params, weight), removal) == pytest.approx((size, size_term), rel=1e-6)
    outputs = part(channels.channels(found.coupling), node)
    assert terms(space, read, outputs, removal) == pytest.approx((ALIVE[node], SUMS[f"s{node[1]}"]), rel=1e-6)


@pytest.mark.parametrize("node", NANOSECONDS)
def test_latency_and_its_term_are_golden(node):
    _, space, read = golden()
    values = read().detach().numpy().astype(np.float64)
    removal = space.removal(values, values <= 0.45)
    whole = roofline(space.analysis.coupling, load("P100"))
    alone = replace(whole, macs=part(whole.macs, node), moved=part(whole.moved, node))
    assert np.multiply(1e3, terms(space, read, alone, removal)) == pytest.approx(NANOSECONDS[node], rel=1e-6)


def test_alive_counts_are_written_as_morphnet_does():
    _, space, read = golden()
    values = read().detach().numpy().astype(np.float64)
    text = space.alive_json(space.removal(values, values <= 0.45))
    assert text == '{\n  "a1": 7,\n  "a2": 11,\n  "a3": 10,\n  "a4": 17,\n  "y3": 2,\n  "y4": 2\n}'


def test_layers_are_called_by_their_weights():
    net = "(float[batch, 3, 6, 6] x) => (float[batch, 4, 4, 4] y) { a = Conv(x, w1) r = Relu(a) y = Conv(r, w2) }"
    named = Net(net, "w1 8x3x3x3, w2 4x8x1x1").build()
    for node, weight, name in zip(
        named.graph.node[::2], ("w1", "w2"), ("net.conv1.weight", "conv2/kernel:0"), strict=True
    ):
        next(one for one in named.graph.initializer if one.name == weight).name = name
        node.input[1] = name
    space = structure(analyze(named), "macs", {}, {})
    counts = space.alive(space.analysis.whole, by_weight=True)
    assert counts == {"net.conv1": 8, "conv2": 4}


MEMBERS = torch.tensor([[0.1, 0.3, 0.6, 0.2], [0.2, 0.4, 0.5, 0.1], [0.3, 0.2, 0.0, 0.25]])
COMBINED = {
    "max": [0.3, 0.4, 0.6, 0.25],
    "l2": [0.374165, 0.538516, 0.781024, 0.335410],
    "probabilistic": [0.496, 0.664, 0.8, 0.46],
}


@pytest.mark.parametrize("how", COMBINED)
def test_combiners_are_golden(how):
    units = torch.arange(1, 5).repeat(3)
    found = strengths.combine(MEMBERS.reshape(-1), units, 4, how)
    torch.testing.assert_close(found, torch.tensor(COMBINED[how]), rtol=0, atol=2e-6)


ALIGNED = Net(
    """(float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) {
      a = Conv(x, wa)
      b = Conv(x, wb)
      c = Conv(x, wc)
      d = Conv(x, wd)
      one = Concat<axis=1>(a, b)
      other = Concat<axis=1>(c, d)
      s = Add(one, other)
      y = Conv(s, h)
    }""",
    "wa 2x3x1x1, wb 5x3x1x1, wc 3x3x1x1, wd 4x3x1x1, h 2x7x1x1",
)


def test_parts_that_overlap_are_cut_where_any_ends():
    """Alignments [[2, 5], [3, 4]] make groups of 2, 1 and 4 (a group of one unit cannot be cut)."""
    assert sorted(group.width for group in analyze(ALIGNED.build()).groups if "h:1" in group.members[-1]) == [1, 2, 4]


@pytest.mark.parametrize("cost", ["macs", "params", "bytes"])
@pytest.mark.parametrize(
    "name", ["residual", "depthwise", "concat", "attention", "residual-extended", "attention-extended"]
)
def test_the_term_is_the_gradient_of_the_cost(name, cost):
    """Against the cost of a structure in which a unit's classes are half there."""
    analysis = analysed(name)
    space = structure(analysis, cost, {}, {})
    removal = analysis.whole
    slopes = space.slopes(removal)
    for unit in range(0, len(slopes), max(len(slopes) // 5, 1)):
        alive = np.ones(analysis.coupling.size)
        carried = (space.carried == unit + 1).any(axis=1)
        high, low = alive + 1e-3 * carried, alive - 1e-3 * carried
        difference = (space.cost.value(high) - space.cost.value(low)) / 2e-3 / space.total
        assert slopes[unit] == pytest.approx(difference, rel=1e-4, abs=1e-9)


def test_depthwise_counts_twice_where_asked():
    analysis = analysed("depthwise")
    plain = structure(analysis, "macs", {}, {})
    twice = structure(analysis, "macs", {}, {}, double=True)
    more = (twice.slopes(analysis.whole) - plain.slopes(analysis.whole)) * plain.total
    assert more.max() > 0
    depthwise = [n for n in analysis.graph.nodes if n.attributes.get_int("group", 1) > 1]
    known = analysis.costs["macs"].by_node(np.ones(analysis.coupling.size))
    each = {known[n.name] / n.inputs[1].shape[0] for n in depthwise}
    assert set(np.unique(more.round(6))) <= {0.0, *each}


# --- strengths --------------------------------------------------------------------------------------------------------


def lasso(weight, axis, l1):
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    return l1 * np.abs(rows).mean(1) + (1 - l1) * np.sqrt((rows**2).mean(1))


@pytest.mark.parametrize("l1", [0.0, 0.3, 1.0])
def test_group_lasso_is_means_over_a_filter(l1):
    found = analyze(ALIGNED.build())
    module = bridge(found)
    space = structure(found, "macs", {}, {})
    read = strengths.read(module, found, space.groups, "group-lasso", l1=l1)
    values = dict(zip([g.name for g in space.groups], np.split(read().detach().numpy(), space.ends[1:-1]), strict=True))
    w = {name: p.detach().numpy() for name, p in initializers.parameters(module).items()}
    wanted = np.maximum(lasso(w["wa"], 0, l1), lasso(w["wc"], 0, l1)[:2])
    np.testing.assert_allclose(values["wa:0"], wanted, rtol=1e-5)


def test_a_filter_of_zeros_has_a_finite_gradient():
    parameter = torch.nn.Parameter(torch.zeros(3, 4))
    part_ = strengths.StrengthPart(parameter, 0, torch.arange(1, 4), 0.5)
    for how in ("max", "l2"):
        strengths.combine(part_.strengths(), part_.units, 3, how).sum().backward()
    assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("how", ["max", "l2"])
def test_lowering_is_the_proximal_operator(how):
    """It minimises ½‖x - m‖² + amount·r(x); no point nearby is better."""
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.uniform(0, 1, 12))
    units = torch.tensor([1, 2, 3, 1, 2, 3, 1, 1, 0, 2, 1, 4])
    amounts = torch.tensor([0.4, 1.5, 0.1, 0.2], dtype=torch.float64)
    found = strengths.lowered(values, units, amounts, how)
    known = units > 0

    def energy(x):
        return 0.5 * (x - values)[known].square().sum() + (amounts * strengths.combine(x, units, 4, how)).sum()

    least = energy(found)
    assert found[8] == values[8]
    for _ in range(300):
        other = (found + torch.from_numpy(rng.normal(0, 0.05, 12))).clamp_min(0)
        assert energy(other) >= least - 1e-12
    assert (found == 0).any()


@pytest.mark.parametrize("how", ["max", "l2"])
@pytest.mark.parametrize("kind", ["gamma", "group-lasso"])
def test_taking_off_the_distance_leaves_exactly_nothing(kind, how):
    analysis = analysed("residual")
    module = bridge(analysis)
    space = structure(analysis, "macs", {}, {})
    read = strengths.read(module, analysis, space.groups, kind, how=how)
    before, distances = read().detach().clone(), read.distances().detach().clone()
    chosen = torch.arange(len(distances)) % 2 == 0
    read.lower(torch.where(chosen, distances * (1 + 1e-5), distances * 0))
    after = read().detach()
    assert (after[chosen] == 0).all()
    torch.testing.assert_close(after[~chosen], before[~chosen])


def test_gates_learn_what_their_expectation_says():
    """A gate's mean is sigmoid(logit); its gradient on average that of the mean."""
    analysis = analysed("residual")
    module = bridge(analysis)
    space = structure(analysis, "macs", {}, {})
    learnt = Gates(module, analysis, space.groups, tau=0.1)
    with torch.no_grad():
        learnt.logits.copy_(torch.linspace(-1.5, 1.5, learnt.count))
    torch.manual_seed(0)
    means, slopes = torch.zeros(learnt.count), torch.zeros(learnt.count)
    for _ in range(4000):
        learnt.draw()
        means += torch.cat([g.detach() for g in gates.gates(module).values()]) / 4000
        learnt.logits.grad = None
        for gate in learnt.gates:
            gate.grad = torch.ones_like(gate)
        learnt.hand_on()
        slopes += learnt.logits.grad / 4000
    p = torch.sigmoid(learnt.logits.detach())
    torch.testing.assert_close(means, p, rtol=0, atol=0.03)
    torch.testing.assert_close(slopes, p * (1 - p), rtol=0, atol=0.05)
    assert all(gate.grad is None for gate in learnt.gates)


def test_groups_are_tied_by_force():
    found = analyze(GOLDEN.build())
    groups = [group for group in found.groups if group.pin is None]
    with pytest.raises(InputError, match="not equally many"):
        bonds(groups, ["w[12]:0"])
    with pytest.raises(InputError, match="finds 0 groups"):
        bonds(groups, ["nothing"])
    assert torch.equal(ties(groups, []), torch.arange(sum(g.width for g in groups)))


def test_tied_units_live_and_die_together():
    analysis = analysed("dense")
    module = bridge(analysis)
    space = structure(analysis, "macs", {}, {})
    same = space.groups[:2]
    found = ties(space.groups, bonds(space.groups, [f"^({same[0].name}|{same[1].name})$"]))
    read = strengths.read(module, analysis, space.groups, "gamma", ties=found)
    alone = strengths.read(bridge(analysis), analysis, space.groups, "gamma")
    at = [int(space.ends[space.groups.index(g)]) for g in same]
    parts = [slice(a, a + same[0].width) for a in at]
    assert torch.equal(read()[parts[0]], read()[parts[1]])
    torch.testing.assert_close(read()[parts[0]], torch.maximum(alone()[parts[0]], alone()[parts[1]]))
    read.lower(torch.where(torch.arange(read.count) < at[1], read.distances() * 1.01, 0.0))
    assert (read()[parts[1]] == 0).all()


def test_a_decided_structure_fills_its_bounds():
    analysis = analysed("residual")
    macs = analysis.costs["macs"]
    bound = 0.5 * macs.value(np.ones(analysis.coupling.size))
    space = structure(analysis, "macs", {"macs": (macs, bound)}, {"macs": 0.5})
    ratios = np.random.default_rng(0).uniform(0, 1, int(space.ends[-1]))
    removal = space.decided(ratios)
    assert macs.value((~removal.gone).astype(float)) <= bound
    plan = space.plan(removal, {})
    assert np.array_equal(realize(analysis, plan).gone, removal.gone)
    widths = [len(plan.groups.get(g.name, range(g.width))) for g in space.groups]
    for k, choice in enumerate(space.search.choices):
        after = choice.kept.index(widths[k]) + 1
        if after < len(choice.kept):
            assert not space.search.fits([*widths[:k], choice.kept[after], *widths[k + 1 :]])
    level = space.level(ratios)
    assert space.search.fits(space.widths(ratios <= level))
    assert not space.search.fits(space.widths(ratios < level))


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_no_group_falls_far_below_narrowing_all_alike(share):
    analysis = analysed("residual")
    macs = analysis.costs["macs"]
    bound = 0.5 * macs.value(np.ones(analysis.coupling.size))
    space = structure(analysis, "macs", {"macs": (macs, bound)}, {"macs": 0.5})
    alike, found = solve(space.search), space.above(share)
    ratios = np.random.default_rng(0).uniform(0, 1, int(space.ends[-1]))
    plan = found.plan(found.decided(ratios), {})
    for group, width in zip(space.groups, alike, strict=True):
        assert len(plan.groups.get(group.name, range(group.width))) >= share * width


def test_units_of_groups_that_are_as_narrow_as_may_be_are_left_alone():
    analysis = analysed("residual")
    macs = analysis.costs["macs"]
    bound = 0.5 * macs.value(np.ones(analysis.coupling.size))
    space = structure(analysis, "macs", {"macs": (macs, bound)}, {"macs": 0.5}).above(0.75)
    dead = np.zeros(int(space.ends[-1]), bool)
    assert space.open(dead).all()
    for k, (start, choice) in enumerate(zip(space.ends, space.search.choices, strict=False)):
        dead[start : start + choice.group.width - min(choice.kept)] = True
        still = space.open(dead)
        assert not still[: space.ends[k + 1]].any()
        assert still[space.ends[k + 1] :].all()


def test_what_is_given_back_goes_to_the_narrowest_where_all_are_dead():
    analysis = analysed("residual")
    macs = analysis.costs["macs"]
    bound = 0.5 * macs.value(np.ones(analysis.coupling.size))
    space = structure(analysis, "macs", {"macs": (macs, bound)}, {"macs": 0.5})
    plan = space.plan(space.decided(np.full(int(space.ends[-1]), -1.0)), {})
    shares = [len(plan.groups.get(g.name, range(g.width))) / g.width for g in space.groups]
    one = max(1 / group.width for group in space.groups)
    assert max(shares) - min(shares) <= 2 * one, "but for a unit that did not fit, and one more"


def test_tied_groups_keep_the_same_units_within_bounds():
    analysis = analysed("dense")
    macs = analysis.costs["macs"]
    bound = 0.5 * macs.value(np.ones(analysis.coupling.size))
    space = structure(analysis, "macs", {"macs": (macs, bound)}, {"macs": 0.5})
    same = space.groups[:2]
    tied = bonds(space.groups, [f"^({same[0].name}|{same[1].name})$"])
    ratios = np.random.default_rng(0).uniform(0, 1, int(space.ends[-1]))[ties(space.groups, tied).numpy()]
    plan = space.plan(replace(space, bonds=tied).above(0.75).decided(ratios), {})
    assert plan.groups[same[0].name] == plan.groups[same[1].name]
