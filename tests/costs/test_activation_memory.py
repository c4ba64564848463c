"""Peak memory equals a simulation of the file that a plan writes, and its gradient is the finite difference."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nets.notation import Net
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.workflow import slim
from tests import laws
from tests.laws import PLANS, analysed, draw_removal

NETS = ["residual", "concat", "depthwise", "attention", "grouped", "bottleneck"]

VIEWS = ("Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze")


def simulated(model, inputs):
    """The most bytes alive, from a run: every value holds its buffer until its last reader, or a view's, is done."""
    sizes = {name: array.nbytes for name, array in {**inputs, **laws.run(laws.exposed(model), inputs)}.items()}
    weights = {tensor.name for tensor in model.graph.initializer}
    buffer = {name: name for name in sizes}
    for node in model.graph.node:
        if node.op_type in VIEWS and node.input[0] not in weights:
            buffer |= dict.fromkeys(node.output, buffer[node.input[0]])
    steps = [{buffer[name] for name in (*n.input, *n.output) if name in buffer} for n in model.graph.node]
    ends = {buffer[value.name] for value in model.graph.output}
    most = 0
    for at in range(len(steps)):
        before = {buffer[value.name] for value in model.graph.input}.union(*steps[: at + 1])
        after = ends.union(*steps[at:])
        most = max(most, sum(sizes[name] for name in before & after))
    return most


@pytest.mark.parametrize("name", NETS)
@PLANS
@given(st.data())
def test_peak_is_that_of_the_file_written(name, data):
    analysis = analysed(name)
    removal = draw_removal(data.draw, analysis)
    inputs = random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    alive = (~removal.gone).astype(float)
    assert round(analysis.memory.value(alive)) == simulated(laws.written(analysis, removal), inputs)
    assert sum(analysis.memory.by_value(alive).values()) == pytest.approx(analysis.memory.value(alive))


@pytest.mark.parametrize("name", NETS)
def test_gradient_is_the_finite_difference(name):
    rng = np.random.default_rng(0)
    cost = analysed(name).memory
    alive = rng.uniform(0.5, 1, analysed(name).coupling.size)
    way = rng.normal(size=alive.shape)
    difference = (cost.value(alive + 1e-6 * way) - cost.value(alive - 1e-6 * way)) / 2e-6
    assert difference == pytest.approx(cost.gradient(alive) @ way, rel=1e-4, abs=1e-6)


def test_a_chain_by_hand():
    text = (
        "(float[4,3] x) => (float[4,5] y) { h = MatMul(x, w1) r = Relu(h) s = Reshape(r, [4, -1]) y = MatMul(s, w2) }"
    )
    analysis = slim.analyze(Net(text, "w1 3x8, w2 8x5").build())
    assert analysis.memory.value(np.ones(analysis.coupling.size)) == 4 * (4 * 8 + 4 * 8)
    (group,) = laws.free(analysis)
    half = (~laws.close(analysis, group.units[:4]).gone).astype(float)
    assert analysis.memory.value(half) == 4 * (4 * 4 + 4 * 5)


def test_the_input_stays_without_the_block_that_reads_it_first():
    body = "a = MatMul(x, w1) r = Relu(a) b = MatMul(r, w2) s = Add(x, b) y = MatMul(s, w3)"
    analysis = slim.analyze(Net(f"(float[4,8] x) => (float[4,3] y) {{ {body} }}", "w1 8x6, w2 6x8, w3 8x3").build())
    (block,) = analysis.coupling.blocks
    gone = analysis.whole.gone.copy()
    gone[analysis.coupling.strong[block.atom]] = True
    assert analysis.memory.by_value((~gone).astype(float)) == {"x": 4 * 4 * 8, "y": 4 * 4 * 3}


WITHOUT = ["residual", "convnext", "class_token", "swiglu", "swiglu_fused", "c2f", "windows"]


@pytest.mark.parametrize("name", WITHOUT)
def test_peak_without_blocks_is_that_of_the_file_written(name):
    """Every set of a few blocks, with all units: a sum of which one side is left takes none."""
    analysis = analysed(name)
    able = [block for block in analysis.coupling.blocks if block.atom][:4]
    assert able
    inputs = random_inputs(analysis.coupling, analysis.graph.shapes.nominal)
    for count in range(len(able) + 1):
        for blocks in itertools.combinations(able, count):
            removal = laws.close(analysis, np.array([analysis.coupling.column_of(block) for block in blocks], int))
            alive = (~removal.gone).astype(float)
            assert round(analysis.memory.value(alive)) == simulated(laws.written(analysis, removal), inputs)


def test_a_target_on_memory_is_met():
    analysis = analysed("residual")
    whole = analysis.memory.value(np.ones(analysis.coupling.size))
    for share in (0.8, 0.5):
        plan = slim.plan(analysis, {"memory": share})
        slimmed = slim.slim(analysis, plan)
        assert analysis.memory.value((~slimmed.removal.gone).astype(float)) <= share * whole
