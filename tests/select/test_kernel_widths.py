"""Widths between steps go, those on steps and the whole stay, and only where kernels have steps."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnxslim_learn.runtime import kernels
from onnxslim_learn.runtime.session import CPU, create, session_options
from onnxslim_learn.select import budget, kernel_widths
from onnxslim_learn.select.kernel_widths import undominated
from onnxslim_learn.workflow import expand, slim
from tests.laws import analysed


def choices(name):
    analysis = analysed(name)
    found = budget.choices(analysis.coupling, analysis.groups, np.zeros(analysis.coupling.columns), budget.Freedom())
    return analysis, found


@pytest.mark.parametrize("step", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("name", ["residual", "concat", "bottleneck"])
def test_widths_of_convolutions_are_on_steps(name, step):
    analysis, before = choices(name)
    for old, new in zip(before, undominated(analysis.coupling, before, {"Conv": step}), strict=True):
        assert new.group is old.group
        assert new.kept == tuple(k for k in old.kept if k % step == 0 or k == old.group.width)
    for old, new in zip(before, undominated(analysis.coupling, before, {"Conv": step}, below=True), strict=True):
        assert new.kept == tuple(k for k in old.kept if k % step == 0 or 2 * k <= step or k == old.group.width)


def test_units_of_several_channels_count_as_many():
    analysis, before = choices("attention")
    spans = [budget.span(analysis.coupling, choice.group) for choice in before]
    assert max(spans) > 1, "a head has several channels"
    for old, new, span in zip(before, undominated(analysis.coupling, before, {"MatMul": 4}), spans, strict=True):
        assert new.kept == tuple(k for k in old.kept if k * span % 4 == 0 or k == old.group.width)


def test_other_kernels_have_no_say():
    analysis, before = choices("residual")
    assert [c.kept for c in undominated(analysis.coupling, before, {"MatMul": 8})] == [c.kept for c in before]


def test_depthwise_kernels_have_steps_of_their_own():
    analysis, before = choices("depthwise")
    after = undominated(analysis.coupling, before, {"depthwise": 4})
    narrowed = [len(new.kept) < len(old.kept) for old, new in zip(before, after, strict=True)]
    assert any(narrowed)
    assert not all(narrowed)


# --- the steps of this machine ----------------------------------------------------------------------------------------

WIDTHS = (3, 20, 64, 160)


def chained():
    """A net of convolutions, one depthwise, and a product, of several widths."""
    shapes = {f"w{k}": (b, a, 3, 3) for k, (a, b) in enumerate(itertools.pairwise(WIDTHS))}
    shapes |= {"d": (WIDTHS[-1], 1, 3, 3), "g": (WIDTHS[-1], 40), "h": (40, 10)}
    nodes = ["h0 = Conv <pads = [1,1,1,1]> (x, w0)", "r0 = Relu (h0)"]
    nodes += ["h1 = Conv <pads = [1,1,1,1]> (r0, w1)", "r1 = Relu (h1)"]
    nodes += ["h2 = Conv <pads = [1,1,1,1]> (r1, w2)", "r2 = Relu (h2)"]
    nodes += [f"h3 = Conv <pads = [1,1,1,1], group = {WIDTHS[-1]}> (r2, d)", "p = GlobalAveragePool (h3)"]
    nodes += ["f = Flatten (p)", "a = MatMul (f, g)", "b = Relu (a)", "y = MatMul (b, h)"]
    head = '<ir_version: 8, opset_import: ["": 17]> net (float[1,3,12,12] x) => (float[1,10] y)'
    model = parser.parse_model(f"{head} {{ {' '.join(nodes)} }}")
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return model


def layouts(path, folder):
    """How many convolutions onnxruntime computes in blocks, and how many one channel after the other."""
    options = session_options()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    create(path.read_bytes(), options, CPU)
    domains = [n.domain for n in onnx.load(folder / "optimized.onnx").graph.node if "Conv" in n.op_type]
    return domains.count("com.microsoft.nchwc"), len(domains)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_cut_leaves_convolutions_in_blocks(share, tmp_path):
    onnx.save(chained(), tmp_path / "net.onnx")
    analysis = slim.analyze(tmp_path / "net.onnx")
    slimmed = slim.slim(analysis, slim.plan(analysis, {"macs": share}, multiple="auto", criterion="l2"))
    slimmed.save(tmp_path / "slim.onnx")
    assert layouts(tmp_path / "slim.onnx", tmp_path) == layouts(tmp_path / "net.onnx", tmp_path)


@pytest.mark.parametrize("block", [1, 8, 16])
def test_widths_are_on_steps_and_reach_what_any_width_does(block, monkeypatch):
    monkeypatch.setattr(kernels, "block", lambda: block)
    analysis = slim.analyze(chained())
    whole = analysis.price(analysis.whole)["macs"]
    for share in (0.02, 0.1, 0.3, 0.5, 0.9):
        plans = [slim.plan(analysis, {"macs": share}, multiple=m, criterion="l2") for m in ("auto", 1)]
        taken = [analysis.price(slim.realize(analysis, plan))["macs"] / whole for plan in plans]
        assert max(taken) <= share
        assert taken[0] > 0.8 * share
        if share < 0.3:
            continue
        kept = {name: len(units) for name, units in plans[0].groups.items()}
        assert all(kept[name] % 4 == 0 for name in ("w1:0", "w2:0", "g:1") if name in kept)
        assert kept.get("w2:0", 0) % max(block, 4) == 0
    assert slim.plan(analysis, {"macs": 0.5}, multiple="auto") == slim.plan(analysis, {"macs": 0.5}, multiple="auto")


@pytest.mark.parametrize("name", ["residual", "depthwise", "attention", "lstm"])
def test_what_any_width_reaches_steps_reach_too(name):
    analysis = analysed(name)
    least = min_macs(analysis, multiple=1)
    assert min_macs(analysis, multiple="auto") == least


def min_macs(analysis, multiple):
    """The least multiply-accumulates that a target may ask for."""
    with pytest.raises(slim.TargetError) as raised:
        slim.plan(analysis, {"macs": 1e-9}, multiple=multiple, criterion="l2")
    return raised.value.missed["macs"][0]


def test_narrow_groups_have_finer_steps():
    steps = kernel_widths.ladder()
    for by_width in steps.values():
        widths = sorted(by_width)
        assert widths[0] == 0
        assert sorted(by_width.values()) == [by_width[width] for width in widths]
        assert all(width >= 2 * by_width[width] for width in widths[1:])


def test_what_grows_does_so_in_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "block", lambda: 16)
    analysis = slim.analyze(chained())
    asked = expand.Widening({"macs": 2.0 * analysis.price(analysis.whole)["macs"]}, multiple="auto")
    widths = expand.expand(analysis, asked, tmp_path / "wide.onnx").widths
    assert all(after % 4 == 0 for _, after in widths.values())
    assert widths["w2:0"][1] % 16 == 0
