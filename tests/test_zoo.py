"""Every zoo net is a valid model whose outputs depend on its inputs."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from nets.zoo import NETS, feeds


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
