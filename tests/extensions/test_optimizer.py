"""An optimizer of one's own: a function of groups of parameters and a rate, which gives an optimizer of torch."""

import onnx
import pytest
import torch

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import OPTIMIZERS

RATES = []


def plain(groups, rate):
    """Follow gradients without momentum."""
    RATES.append(rate)
    return torch.optim.SGD(groups, lr=rate)


plain.rate = 0.25


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The working folder, with a net."""
    monkeypatch.chdir(tmp_path)
    onnx.save(NETS["residual"].build(), "net.onnx")
    return "net.onnx"


def trained(net, optimizer):
    return osl.learn(
        net, learner="finetune", finetune_steps=1, samples=16, latency=False, output="new.onnx", optimizer=optimizer
    )


@pytest.mark.parametrize("optimizer", [plain, f"{__name__}:plain"])
def test_it_takes_the_steps_at_the_rate_that_it_says(net, optimizer):
    RATES.clear()
    recipe = trained(net, optimizer).report["training"]["finetune"]["recipe"]
    assert RATES == [0.25]
    assert (recipe["optimizer"], recipe["rate"]) == (f"{__name__}:plain", 0.25)


def test_what_is_none_is_refused(net):
    with pytest.raises(InputError, match=r"optimizer adm: expected sgd, adam, or module:function\. Did you mean adam"):
        trained(net, "adm")


def test_those_of_the_package_are_of_torch():
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(2))]}]
    kinds = {name: type(row.load()(parameters, row.rate)).__name__ for name, row in OPTIMIZERS.items()}
    assert kinds == {"sgd": "SGD", "adam": "AdamW"}
