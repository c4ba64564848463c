"""Every zoo net is a valid model whose outputs depend on its inputs."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from nets import representatives
from nets.forms import NETS as FORMS
from nets.operators import EXAMPLES, is_only_counted
from nets.variants import VARIANTS
from nets.zoo import NETS, feeds
from onnxslim_learn.coupling.operators.table import DOMAINS, row


@pytest.mark.parametrize("name", NETS)
def test_net_is_valid(name):
    onnx.checker.check_model(NETS[name].build(), full_check=True)


@pytest.mark.parametrize("name", NETS)
def test_net_is_the_same_on_every_build(name):
    assert NETS[name].build() == NETS[name].build()


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_finite_and_depend_on_inputs(name):
    model = NETS[name].build()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    first, second = (session.run(None, feeds(model, seed)) for seed in (0, 1))
    for info, a, b in zip(model.graph.output, first, second, strict=True):
        assert np.isfinite(a).all(), info.name
        assert np.std(a - b) > 0.01, info.name
        assert np.std(a) < 10, info.name


# --- representatives --------------------------------------------------------------------------------------------------


def rules(model):
    """Rules of the operator table that a model's nodes have, by name."""
    rows = [row("" if n.domain == "ai.onnx" else n.domain, n.op_type) for g in graphs_of(model) for n in g.node]
    return {name_of(found) for found in rows}


def graphs_of(model):
    return (model.graph, *model.functions)


def name_of(operator):
    return f"{operator.rule.__module__}.{operator.rule.__qualname__}"


def test_representatives_are_nets_and_each_is_listed_once():
    assert {*representatives.ZOO} <= {*NETS, *VARIANTS}
    assert {*representatives.OPERATORS} <= {*EXAMPLES}
    assert {*representatives.FORMS} <= {*FORMS}
    listed = [*representatives.ZOO, *representatives.OPERATORS]
    assert len(listed) == len({*listed})


def test_every_rule_of_the_operator_table_has_a_representative():
    nets = {**NETS, **VARIANTS, **EXAMPLES}
    shown = set().union(*(rules(nets[name].build()) for name in (*representatives.ZOO, *representatives.OPERATORS)))
    assert {name_of(row) for table in DOMAINS.values() for row in table.values() if not is_only_counted(row)} <= shown
