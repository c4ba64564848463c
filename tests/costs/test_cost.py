"""Costs are true: they equal counts made without the package, and their gradients equal finite differences."""

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import inliner, numpy_helper

from nets.notation import Net
from nets.zoo import NETS
from onnxslim_learn.data.random_inputs import random_inputs
from onnxslim_learn.workflow import slim
from tests import laws
from tests.counted_macs import macs_by_output
from tests.laws import ALL, CUT, PLANS, ZOO_CUT, analysed, draw_removal

STEP = 1e-4
CURVED = 1e-4
"""Relative error of a central difference of that step: costs are products of few widths, their third order is small."""

STATED = {onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING}
"""Types of initializers that are settings and not parameters."""


# --- an independent count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_macs_are_counted_on_concrete_shapes(name):
    analysis = analysed(name)
    model = inliner.inline_local_functions(NETS[name].build())
    counted = macs_by_output(model, random_inputs(analysis.coupling, analysis.graph.shapes.nominal))
    owners = {node.name: str(node.outputs[0].name) for node in analysis.graph.nodes}
    by_node = analysis.costs["macs"].by_node(np.ones(analysis.coupling.size))
    found = {owners[node]: round(macs) for node, macs in by_node.items()}
    assert sorted(found.values()) == sorted(counted.values())
    assert found == counted or NETS[name].build().functions, "a node of a function is named by who inlines it"
    assert analysis.price(analysis.whole)["macs"] == sum(counted.values()) > 0


def parameters(model):
    """Return the parameters of a file; scalars are settings."""
    tensors = [*model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors += [attribute.t for attribute in node.attribute]
            tensors[-1].name = node.output[0]
    indices = {name for node in model.graph.node for name in node.input[1:] if node.op_type == "Gather"}
    return [numpy_helper.to_array(t) for t in tensors if t.dims and t.data_type not in STATED and t.name not in indices]


MORE = {
    "group_norm": 8,  # ones and zeros serve two normalisations, of which a plan may cut one
    "lstm": 24,  # initial states, made by ConstantOfShape, are initializers in normal form
    "attention_dynamic": 1,  # so is the root of the head size
    "standardised_weight": -32,  # statistics and affine parameters go into the weight
    "bias_without_key": -16,  # zeros go into the bias
}
"""Parameters that normal form, and so every file written, has beyond the source, in single precision."""


@pytest.mark.parametrize("name", NETS)
def test_parameters_are_counted_on_the_file(name):
    analysis = analysed(name)
    arrays, more = parameters(NETS[name].build()), MORE.get(name, 0)
    price = analysis.price(analysis.whole)
    sizes = (sum(a.size for a in arrays) + more, sum(a.nbytes for a in arrays) + 4 * more)
    assert (price["params"], price["bytes"]) == sizes


@pytest.mark.parametrize("name", ZOO_CUT)
@PLANS
@given(st.data())
def test_price_of_a_plan_is_counted_on_its_file(name, data):
    analysis = analysed(name)
    removal = draw_removal(data.draw, analysis)
    arrays = parameters(laws.written(analysis, removal))
    price = analysis.price(removal)
    assert (price["params"], price["bytes"]) == (sum(a.size for a in arrays), sum(a.nbytes for a in arrays))


# --- value, gradient, parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_value_is_the_sum_over_nodes(name):
    alive = np.random.default_rng(0).uniform(0.2, 1, analysed(name).coupling.size)
    for found in analysed(name).costs.values():
        assert math.isclose(found.value(alive), sum(found.by_node(alive).values()), rel_tol=1e-12)
        assert found.value(alive) <= found.value(np.ones_like(alive))


@pytest.mark.parametrize("name", ALL)
def test_gradient_is_the_finite_difference(name):
    rng = np.random.default_rng(0)
    alive = rng.uniform(0.3, 1, analysed(name).coupling.size)
    for cost, found in analysed(name).costs.items():
        gradient = found.gradient(alive)
        assert gradient.shape == alive.shape
        for _ in range(3):
            way = rng.normal(size=alive.shape)
            difference = (found.value(alive + STEP * way) - found.value(alive - STEP * way)) / (2 * STEP)
            assert abs(difference - gradient @ way) <= CURVED * np.abs(gradient * way).sum(), cost


@pytest.mark.parametrize("name", CUT)
def test_gradient_of_a_unit_that_can_go_is_positive(name):
    analysis = analysed(name)
    for cost, found in analysis.costs.items():
        gradient = found.gradient(np.ones(analysis.coupling.size))
        for group in laws.free(analysis):
            if not group.rows:
                assert gradient[np.isin(analysis.coupling.column, group.units)].sum() > 0, (cost, group.name)


def test_two_layers_by_hand():
    text = "(float[4,3] x) => (float[4,5] y) {h = MatMul(x, w1) a = Add(h, b1) r = Relu(a) y = MatMul(r, w2) }"
    analysis = slim.analyze(Net(text, "w1 3x8, b1 8, w2 8x5").build())
    (group,) = laws.free(analysis)
    cut = laws.close(analysis, group.units[:3])
    assert analysis.price(analysis.whole) == {"macs": 4 * 8 * (3 + 5), "params": 72, "bytes": 288}
    assert analysis.price(cut) == {"macs": 4 * 5 * (3 + 5), "params": 45, "bytes": 180}
    inside = np.isin(analysis.coupling.column, group.units)
    for share in (1, 1 / 16):  # gates leave less than one unit
        alive = np.where(inside, share, 1.0)
        assert analysis.costs["macs"].gradient(alive)[inside].tolist() == [32] * 8
        assert analysis.costs["params"].gradient(alive)[inside].tolist() == [9] * 8


def test_weights_that_share_a_tensor_count_once():
    analysis = analysed("tied_embedding")
    assert analysis.price(analysis.whole)["params"] == 12 * 8 + 2 * 8 * 16
