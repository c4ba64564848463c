"""Bridged modules compute what onnxruntime computes, and every parameter gets a gradient."""

import numpy as np
import onnx
import pytest
import torch

from onnxslim_learn import api
from onnxslim_learn.train.module import bridge
from onnxslim_learn.train.tensors import parameters
from tests.exports import EXPORTERS, export
from tests.laws import analysis_inputs, run

RELATIVE = 1e-4
"""Float32 kernels of two libraries differ by the order of summation, which deep nets amplify."""


def call(module, feeds):
    """Run a module on arrays; returns arrays by output name."""
    found = module(*(torch.from_numpy(np.array(feeds[name])) for name in module.meta["inputs"]))
    return {name: value.detach().numpy() for name, value in found.items()}


def gap(found, wanted):
    """Return the largest difference of two sets of outputs, relative to the largest magnitude of each output."""
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
    return max(
        float(np.abs(found[n].astype(np.float64) - v).max(initial=0) / max(np.abs(v).max(initial=0), 1e-6))
        for n, v in wanted.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["resnet18", "resnet18_bn", "mobilenet_v3_large_dyn", "bert_dyn"])
def test_exported_nets_equal_onnxruntime_and_train(name, exporter, tmp_path):
    path = export(name, exporter, tmp_path)
    found = api.analyze(path)
    module, feeds = bridge(found), analysis_inputs(found)
    assert gap(call(module, feeds), run(onnx.load(path), feeds)) < RELATIVE
    outputs = module(*(torch.from_numpy(value) for value in feeds.values()))
    sum(value.square().sum() for value in outputs.values()).backward()
    trained = parameters(module)
    names = {name for name, tensor in found.graph.initializers.items() if len(tensor.const_value.shape) > 1}
    assert names & set(trained)
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained.values())
