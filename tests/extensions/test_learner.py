"""A learner of one's own: a dataclass of settings, whose fields are its options, and a function of a job."""

import json
from dataclasses import dataclass
from typing import ClassVar

import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.analysis import analyze
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners import table
from onnxslim_learn.registry import LEARNERS
from onnxslim_learn.settings import option, share
from onnxslim_learn.workflow import slim

LEFT, USUAL = 0.7, 0.5


@dataclass(frozen=True)
class ThinSettings:
    """What can be asked of thinning.

    Attributes:
        left: Share of the multiply-accumulates that stays.
    """

    TITLE: ClassVar = ("thinning", "what may be asked of it")

    left: float = option(USUAL, "share of the MACs that stays", metavar="SHARE", read=share, purpose="thinning")

    def check(self, shared):
        """Refuse what cannot be asked for together."""
        if self.left == 0:
            raise InputError("⟨left⟩ 0: nothing would stay. Give more.")


def thin(job):
    """Cut by magnitude, and train nothing."""
    job.stage("thinning")
    return slim.slim_to(job.analysis, {"macs": job.wanted.left}, job.output)


@pytest.fixture
def declared():
    """Declare the learner for a test."""
    with LEARNERS.having("thin", thin, settings=ThinSettings, extra="train") as row:
        yield row


@pytest.fixture
def net(tmp_path):
    """A net in a file."""
    onnx.save(NETS["residual"].build(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def learn(net, **asked):
    return osl.learn(net, output=net.with_name("thin.onnx"), no_latency=True, samples=16, **asked)


@pytest.mark.parametrize("learner", ["thin", thin])
def test_it_is_carried_out_and_told(net, declared, learner):
    stages = []
    result = learn(
        net, learner=learner, left=LEFT, json=net.with_name("told.json"), progress=lambda *told: stages.append(told[0])
    )
    told = json.loads(net.with_name("told.json").read_text())
    assert result.passed
    assert "thinning" in stages
    assert told["after"]["macs"] <= LEFT * told["before"]["macs"]
    written = analyze(net.with_name("thin.onnx"))
    assert written.price(written.whole)["macs"] == told["after"]["macs"]


def test_its_options_are_its_own(net, declared):
    assert table.known()["left"].default == USUAL
    assert table.build({"learner": "thin", "left": "0.7"})[1] == ThinSettings(LEFT)
    with pytest.raises(InputError, match="left: is for thinning, not for learner finetune"):
        table.build({"learner": "finetune", "left": LEFT})
    with pytest.raises(InputError, match="left 0: nothing would stay"):
        learn(net, learner="thin", left=0)
    with pytest.raises(InputError, match="Did you mean thin"):
        learn(net, learner="thim")
