"""Every operator of the graph table runs in torch, and computes what onnxruntime computes."""

import inspect

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from nets.forms import NETS as FORMS
from nets.fused import plain
from nets.operators import UNRUNNABLE, is_only_counted
from nets.zoo import NETS as ZOO
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.bridge.ops import DOMAINS, shape_numbers
from onnxslim_learn.coupling.normal_form import load
from onnxslim_learn.coupling.operators.table import CONTRIB, TABLE
from onnxslim_learn.workflow import slim
from tests.bridge.test_module import assert_alike, call, tensors_of
from tests.laws import ALL, analysed, input_sets, normal, run

OPERATORS = [*TABLE, *(f"com.microsoft.{name}" for name, row in CONTRIB.items() if not is_only_counted(row))]
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial")
"""Operators whose draws differ between libraries."""


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_of_the_graph_table_has_a_torch_function(name):
    domain, _, op_type = name.rpartition(".")
    assert op_type in DOMAINS[domain]


@pytest.mark.parametrize("op_type", [*shape_numbers.TABLE, *shape_numbers.SOURCES])
def test_arithmetic_on_sizes_takes_every_attribute_of_its_operators(op_type):
    versions = (s for s in onnx.defs.get_all_schemas_with_history() if (s.name, s.domain) == (op_type, ""))
    attributes = {name for schema in versions if schema.since_version >= 7 for name in schema.attributes}
    function = {**shape_numbers.TABLE, **shape_numbers.SOURCES}[op_type]
    assert attributes <= set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", [name for name in ALL if plain(name) not in (*RANDOM, "Bernoulli")])
def test_nets_compute_what_onnxruntime_computes(name):
    analysis = analysed(name)
    module, model = bridge(analysis), normal(analysis)
    for feeds in input_sets(model):
        assert_alike(call(module, feeds), run(model, feeds))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_nets_compute_the_same_with_channels_last_in_memory(name):
    analysis = analysed(name)
    module, model = bridge(analysis).requires_grad_(False), normal(analysis)
    inputs = tensors_of(module, next(iter(input_sets(model))))
    last = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    for wanted, other in zip(module(*inputs).values(), module(*last).values(), strict=True):
        assert torch.allclose(
            wanted.double(), other.double(), rtol=1e-3, atol=1e-4 * float(wanted.double().abs().max())
        )


def test_bernoulli_draws_what_is_certain():
    analysis = analysed("Bernoulli")  # onnxruntime draws the opposite: 1 where the probability is 0
    module, model = bridge(analysis), normal(analysis)
    for feeds in input_sets(model):
        wanted = ReferenceEvaluator(model).run(None, feeds)
        assert_alike(call(module, feeds), dict(zip(module.meta["outputs"], wanted, strict=True)))


@pytest.mark.parametrize(
    ("text", "mean", "deviation"),
    [
        ("RandomNormal<shape=[100, 100], mean=3.0, scale=0.5>()", 3.0, 0.5),
        ("RandomNormalLike<mean=-2.0, scale=2.0>(x)", -2.0, 2.0),
        ("RandomUniform<shape=[100, 100], low=1.0, high=5.0>()", 3.0, 4 / 12**0.5),
        ("RandomUniformLike<low=-1.0, high=0.0>(x)", -0.5, 1 / 12**0.5),
        ("Multinomial<sample_size=100, dtype=6>(x)", 49.5, (100**2 / 12) ** 0.5),
        ("Bernoulli(x)", 0.25, (0.25 * 0.75) ** 0.5),
    ],
)
def test_draws_have_their_distribution_and_follow_the_seed(text, mean, deviation):
    kind = "int32" if "Multinomial" in text else "float"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net (float[100,100] x) => ({kind}[100,100] y) {{ y = {text} }}'
    )
    module = bridge(load(model))
    feeds = {"x": np.full((100, 100), 0.25, np.float32)}
    torch.manual_seed(0)
    drawn = call(module, feeds)["y"]
    assert abs(drawn.mean() - mean) < 5 * deviation / 100  # 10 000 draws: five standard errors
    assert abs(drawn.std() / deviation - 1) < 0.05
    torch.manual_seed(0)
    assert np.array_equal(call(module, feeds)["y"], drawn)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_forms_of_onnxruntimes_own_operators(name):
    analysis = slim.analyze(FORMS[name].build())
    module, model = bridge(analysis), normal(analysis)
    for feeds in input_sets(model):
        if name.endswith("_batch_first"):  # a layout that onnxruntime lacks on the CPU
            wanted = ReferenceEvaluator(model).run(None, feeds)
            assert_alike(call(module, feeds), dict(zip(module.meta["outputs"], wanted, strict=True)))
        else:
            assert_alike(call(module, feeds), run(model, feeds))


def test_operators_that_onnxruntime_cannot_run_are_checked_against_their_formula():
    x, b, s = (torch.randn(2, 3, 8) for _ in range(3))
    own = "com.microsoft."
    made = {name: DOMAINS[name.rpartition(".")[0]].get(name.rpartition(".")[2]) for name in UNRUNNABLE}
    assert torch.allclose(made[f"{own}BiasAdd"](x, b[0, 0], s), x + b[0, 0] + s)
    assert torch.allclose(made[f"{own}BiasDropout"](x, b[0, 0], s, 0.5), x + b[0, 0] + s)
    left, right = (x + b[0, 0]).chunk(2, -1)
    assert torch.allclose(made[f"{own}BiasSplitGelu"](x, b[0, 0]), left * torch.nn.functional.gelu(right))
    assert torch.allclose(made["SwiGLU"](x, b), x * torch.sigmoid(x) * b)
    assert len(made) == 4
