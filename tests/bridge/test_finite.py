"""Gradients are finite where values are: at zeros, ties and limits, for every function of the table."""

import itertools
from collections import Counter

import pytest
import torch
from torch import fx

from nets.forms import NETS as FORMS
from nets.operators import EXAMPLES, VARIANTS
from nets.zoo import NETS as ZOO
from onnxslim_learn.bridge.module import bridge
from onnxslim_learn.bridge.ops import DOMAINS
from onnxslim_learn.coupling.normal_form import load
from tests.bridge.test_module import tensors_of
from tests.laws import input_sets

LIMITS = (0.0, 1.0, -1.0, 0.5, 1e-30, 1e4)
"""Where slopes are infinite, ties, and where functions overflow."""

STEEP = {
    **dict.fromkeys(["Acos", "Acosh", "Asin", "Atanh", "Cosh", "Exp", "Log", "Reciprocal", "Sinh", "Sqrt"], ()),
    **dict.fromkeys(["GlobalLpPool", "LpNormalization", "MeanVarianceNormalization"], ()),
    **dict.fromkeys(["ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"], ()),
    "Pow": (0.5, -1.0, 0.0, 2.0),
    "Div": (0.0, 1e-30, -1.0),
    "Max": (0.0, 1.0),
    "Min": (0.0, 1.0),
}
"""Functions that have an infinite slope, or two of them, somewhere -> what their second input is tried at."""

ENOUGH = 6
"""Calls of a function that are tried."""

LEFT_OUT = {"Bernoulli", "MaxRoiPool"}
"""Those that refuse what is no probability, or no place."""


def assert_finite(function, inputs, settings):
    """Assert that the gradient of what is finite is finite; says whether there is any."""
    outputs = flat(function(*inputs, **settings))
    outputs = [y[torch.isfinite(y)] for y in outputs if y.requires_grad and y.is_floating_point()]
    outputs = [y.sum() for y in outputs if len(y)]
    asked = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    if not outputs or not asked:
        return False
    for gradient in torch.autograd.grad(sum(outputs), asked, allow_unused=True):
        assert gradient is None or bool(torch.isfinite(gradient).all())
    return True


def flat(x):
    """The tensors of an output."""
    return [x] if isinstance(x, torch.Tensor) else [y for part in x for y in flat(part)] if isinstance(x, tuple) else []


def test_steep_functions_have_finite_gradients():
    for name, others in STEEP.items():
        pairs = [[x for x in pair if x is not None] for pair in itertools.product(LIMITS, others or (None,))]
        inputs = [[torch.full((2, 3, 4, 4), x, requires_grad=True) for x in pair] for pair in pairs]
        assert any([assert_finite(DOMAINS[""][name], one, {}) for one in inputs]), name  # noqa: C419


def test_what_nothing_reads_has_no_gradient():
    x = torch.tensor([-1.0, 0.0, 4.0], requires_grad=True)
    log, where = DOMAINS[""]["Log"], DOMAINS[""]["Where"]
    where(x > 0, log(x), torch.zeros(3)).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.25]


class Calls(fx.Interpreter):
    """Runs a module and keeps what functions are called with."""

    def __init__(self, module):
        super().__init__(module)
        self.calls = []

    def call_function(self, target, args, kwargs):
        self.calls.append((target, args, kwargs))
        return super().call_function(target, args, kwargs)


def variations(args):
    """Arguments of which all numbers, the first or the last ones are set to a limit."""
    floats = [k for k, x in enumerate(args) if isinstance(x, torch.Tensor) and x.is_floating_point()]
    for value, at in itertools.product(
        LIMITS, {tuple(floats), tuple(floats[:1]), tuple(floats[-1:])} if floats else ()
    ):
        yield [
            (torch.full_like(x, value) if k in at else x.detach().clone()).requires_grad_(x.requires_grad)
            if k in floats
            else x
            for k, x in enumerate(args)
        ]


@pytest.mark.slow
def test_every_function_of_the_table_has_finite_gradients():
    reached, seen = set(), Counter()
    names = {function: name for table in DOMAINS.values() for name, function in table.items()}
    for net in {**ZOO, **EXAMPLES, **VARIANTS, **FORMS}.values():
        model = net.build()
        calls = Calls(bridge(load(model)))
        calls.run(*tensors_of(calls.module, next(iter(input_sets(model)))))
        for function, args, settings in calls.calls:
            seen[function] += 1
            if names.get(function, "") in {"", *LEFT_OUT} or seen[function] > ENOUGH:
                continue
            for inputs in variations(args):
                if assert_finite(function, inputs, settings):
                    reached.add(names[function])
    assert len(reached) > 110  # others put out integers, or have no example with weights before it
