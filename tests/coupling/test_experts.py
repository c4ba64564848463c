"""Mixtures of experts: which units go together, how many must stay, what they cost, and forms that only GPUs run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from nets.forms import NETS as OPERATORS
from nets.notation import Net
from nets.variants import VARIANTS
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.errors import TargetError
from onnxslim_learn.select import planner
from onnxslim_learn.workflow import slim as api
from tests import laws
from tests.bridge.test_module import call

EXPERTS, HIDDEN, WIDTH, K, TOKENS = 6, 10, 8, 2, 8


def mixture(settings: str, inputs: str, weights: str) -> Net:
    return Net(
        f"""(float[2,4,6] x) => (float[2,4,5] y) <float[2,4,{WIDTH}] z> {{
            a = MatMul(x, w1) f = Reshape(a, [-1, {WIDTH}]) p = MatMul(f, wr)
            z = com.microsoft.MoE<k={K}, {settings}>(a, p, {inputs}) y = MatMul(z, w2)
        }}""",
        f"w1 6x{WIDTH}, w2 {WIDTH}x5, wr {WIDTH}x{EXPERTS}, {weights}",
        domains=', "com.microsoft" : 1',
    )


FORMS = {
    "plain": mixture('activation_type="relu"', "u, ub, d, db", "u 6x10x8, ub 6x10, d 6x8x10, db 6x8"),
    "third": mixture('activation_type="silu", normalize_routing_weights=1', "u, , d, , v", "u v 6x10x8, d 6x8x10"),
    "gate apart": mixture(
        'activation_type="swiglu", activation_alpha=1.5', "u, ub, d, , v, vb", "u v 6x10x8, ub vb 6x10, d 6x8x10"
    ),
    "gates first": mixture('activation_type="geglu", swiglu_fusion=2', "u, ub, d", "u 6x20x8, ub 6x20, d 6x8x10"),
}
"""All but the first are run by GPUs alone."""


class MoE(OpRun):
    """The operator in numpy, expert by expert and token by token."""

    op_domain = "com.microsoft"

    def _run(self, x, router, u, ub=None, d=None, db=None, v=None, vb=None, **given):
        settings = {name: value for name, value in given.items() if value is not None}
        kind, fusion = settings["activation_type"], settings.get("swiglu_fusion", 0)
        sigmoid, normalize = (lambda t: 1 / (1 + np.exp(-t))), settings.get("normalize_routing_weights", 0)
        rows = x.reshape(-1, x.shape[-1])
        out = np.zeros_like(rows)
        for t, row in enumerate(rows):
            chosen = np.argsort(-router[t], kind="stable")[: settings["k"]]
            chances = np.exp(router[t] - router[t].max())
            shares = chances[chosen] / chances[chosen if normalize else slice(None)].sum()
            for e, share in zip(chosen, shares, strict=True):
                first = u[e] @ row + (0 if ub is None else ub[e])
                third = 1 if v is None else v[e] @ row + (0 if vb is None else vb[e])
                if fusion == 2:
                    first, third = np.split(first, 2)
                made = {
                    "relu": lambda t: np.maximum(t, 0),
                    "silu": lambda t: t * sigmoid(t),
                    "swiglu": lambda t: t * sigmoid(t * settings.get("activation_alpha", 1)),
                    "geglu": lambda t: 0.5 * t * (1 + np.tanh((2 / np.pi) ** 0.5 * (t + 0.044715 * t**3))),
                }[kind](first) * third
                out[t] += share * (d[e] @ made + (0 if db is None else db[e]))
        return (out.reshape(x.shape).astype(x.dtype),)


def compute(model, feeds):
    return ReferenceEvaluator(model, new_ops=[MoE]).run(None, feeds)[0]


@pytest.mark.parametrize("name", FORMS)
@laws.examples(20)
@given(st.data())
def test_slim_is_mask_in_every_form(name, data):
    analysis = api.analyze(FORMS[name].build())
    removal = laws.draw_removal(data.draw, analysis)
    small, reference = laws.written(analysis, removal), laws.masked(removal)
    feeds = laws.feeds(small)
    laws.assert_close(compute(small, feeds), compute(reference, feeds), name)


@pytest.mark.parametrize("name", FORMS)
def test_torch_computes_the_formula(name):
    analysis = api.analyze(FORMS[name].build())
    model = laws.normal(analysis)
    feeds = laws.feeds(model)
    laws.assert_close(call(bridge(analysis), feeds)["y"], compute(model, feeds), name)


def group(analysis, role):
    (found,) = [g for g in analysis.groups if analysis.titles[g.name].role == role]
    return found


def test_as_many_experts_stay_as_a_token_meets():
    analysis = api.analyze(FORMS["plain"].build())
    experts = group(analysis, "experts")
    assert (experts.width, experts.floor, experts.pin) == (EXPERTS, K, None)
    few, fewer = (laws.close(analysis, experts.units[left:]) for left in (K, K - 1))
    assert laws.valid(few)
    assert analysis.coupling.faults(fewer.gone) == ["node z (MoE): 2 of its units must stay, not 1"]
    bound = analysis.price(few)["params"]
    assert len(planner.plan(analysis, {"params": bound}, only=["^experts$"]).groups[experts.name]) == K
    with pytest.raises(TargetError, match="cannot be reached"):
        planner.plan(analysis, {"params": bound - 1}, only=["^experts$"])


def test_hidden_units_go_from_each_expert_by_themselves():
    analysis = api.analyze(FORMS["plain"].build())
    hidden = next(g for g in analysis.groups if g.name == "u:1")
    assert (hidden.width, len(hidden.strata)) == (EXPERTS * HIDDEN, EXPERTS)
    places = [part[number] for number, part in enumerate(hidden.strata)]  # another unit of every expert
    removal = laws.close(analysis, hidden.units[places])
    assert laws.valid(removal)
    assert not laws.valid(laws.close(analysis, hidden.units[places[:1]]))
    stays = laws.kept(removal, "u")[:, :, 0]
    assert ((~stays).sum(axis=1) == 1).all()
    assert set(np.nonzero(~stays)[1]) == set(range(EXPERTS))


def test_a_token_pays_for_the_experts_it_meets_and_the_file_for_all():
    analysis = api.analyze(FORMS["plain"].build())
    whole = analysis.price(analysis.whole)
    router = TOKENS * WIDTH * EXPERTS
    assert whole["macs"] == TOKENS * (6 * WIDTH + WIDTH * 5 + K * 2 * WIDTH * HIDDEN) + router
    experts = group(analysis, "experts")
    fewer = analysis.price(laws.close(analysis, experts.units[:3]))
    assert fewer["macs"] == whole["macs"] - router // 2
    each = 2 * WIDTH * HIDDEN + HIDDEN + WIDTH + WIDTH  # with biases, and its column of the router
    assert fewer["params"] == whole["params"] - 3 * each
    hidden = next(g for g in analysis.groups if g.name == "u:1")
    narrow = laws.close(analysis, np.concatenate([hidden.units[part[:5]] for part in hidden.strata]))
    assert analysis.price(narrow)["macs"] == whole["macs"] - TOKENS * K * 2 * WIDTH * HIDDEN // 2


def test_work_is_halved_by_narrower_experts_and_parameters_by_fewer_too():
    analysis = api.analyze(FORMS["plain"].build())
    hidden, experts = next(g for g in analysis.groups if g.name == "u:1"), group(analysis, "experts")
    work = planner.plan(analysis, {"macs": 0.7}).groups
    assert len(work[hidden.name]) < hidden.width
    assert len(work.get(experts.name, range(EXPERTS))) > len(work[hidden.name]) / HIDDEN
    size = planner.plan(analysis, {"params": 0.5}).groups
    assert len(size[experts.name]) < EXPERTS
    assert len(size[hidden.name]) < hidden.width


def test_an_expert_that_does_nothing_keeps_its_share_of_tokens():
    model = FORMS["plain"].build()
    for tensor in model.graph.initializer:
        if tensor.name in ("d", "db"):
            values = numpy_helper.to_array(tensor).copy()
            values[1] = 0  # of one expert all is silent, of each of the others one hidden unit
            if tensor.name == "d":
                values[:, :, 3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    groups = api.slim_lossless(api.analyze(model)).plan.groups
    assert {name: len(kept) for name, kept in groups.items()} == {"u:1": EXPERTS * (HIDDEN - 1)}


def test_experts_stay_whose_places_are_read_as_numbers():
    known = VARIANTS["routed_experts"]
    text = known.text.replace("float[2,4,5] y)", "float[2,4,5] y, float[8,1] n)").replace(
        "flat = Reshape", "c = Cast<to=1>(chosen) n = ReduceSum(c, [-1]) flat = Reshape"
    )
    pins = [
        {group.name: group.pin and group.pin.reason for group in api.analyze(net.build()).groups}
        for net in (known, Net(text, known.weights))
    ]
    assert [pin["router:1"] for pin in pins] == [None, "has its place read by ReduceSum"]


@pytest.mark.parametrize("first", ["u", "v"])
def test_layers_that_share_the_weights_of_experts_are_cut_alike(first):
    text = f"""(float[2,4,6] x) => (float[2,4,5] y) {{
        a = MatMul(x, w1) f = Reshape(a, [-1, 8]) p = MatMul(f, wr) q = MatMul(f, wq)
        b = com.microsoft.MoE<k=2, activation_type="relu">(a, p, u, , d)
        c = com.microsoft.MoE<k=2, activation_type="relu">(b, q, {first}, , d) y = MatMul(c, w2)
    }}"""
    weights = f"w1 6x8, wr wq 8x6, {' '.join(sorted({'u', first}))} 6x10x8, d 6x8x10, w2 8x5"
    laws.assert_cut_is_masked(Net(text, weights, domains=', "com.microsoft" : 1').build(), [])


@pytest.mark.parametrize(("name", "units"), [("MoE", 24), ("QMoE_blocks", 8), ("QMoE_rows", 0)])
def test_hidden_units_of_experts_go_alone_or_in_blocks_that_share_a_scale(name, units):
    widths = {group.name: group.width for group in laws.free(api.analyze(OPERATORS[name].build()))}
    assert widths.get("u:1", 0) == units
