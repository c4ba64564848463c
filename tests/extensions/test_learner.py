"""A learner of one's own: a dataclass of settings, whose fields are its options, and a function of a job."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import onnx
import pytest

import onnxslim_learn as osl
from nets.zoo import NETS
from onnxslim_learn.analysis import analyze
from onnxslim_learn.cli import commands
from onnxslim_learn.errors import InputError
from onnxslim_learn.learners import table
from onnxslim_learn.learners.finetune import finetune
from onnxslim_learn.learners.settings import FinetuneSteps, LearnSettings
from onnxslim_learn.readers import share
from onnxslim_learn.registry import LEARNERS
from onnxslim_learn.settings import option, options, part
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


@dataclass(frozen=True)
class TrainedSettings:
    """What can be asked of a learner that only trains."""

    length: FinetuneSteps = part(FinetuneSteps)


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


def test_what_is_trained_is_told_by_its_name(net):
    def trained(job):
        """Train, as learners of the package do."""
        return finetune(job)

    trained.settings = TrainedSettings
    result = learn(net, learner=trained, finetune_steps=1)
    assert result.report["learner"] == result.report["training"]["learner"] == LEARNERS.told(trained)


def test_its_options_are_its_own(net, declared):
    assert table.known()["left"].default == USUAL
    assert table.build({"learner": "thin", "left": "0.7"})[1] == ThinSettings(LEFT)
    with pytest.raises(InputError, match="left: is for thinning, not for learner finetune"):
        table.build({"learner": "finetune", "left": LEFT})
    with pytest.raises(InputError, match="left 0: nothing would stay"):
        learn(net, learner="thin", left=0)
    with pytest.raises(InputError, match="Did you mean thin"):
        learn(net, learner="thim")


# --- a learner that stands in no row ----------------------------------------------------------------------------------

MINE = '''
from dataclasses import dataclass

from onnxslim_learn.readers import share
from onnxslim_learn.settings import option
from onnxslim_learn.workflow import slim


@dataclass(frozen=True)
class Settings:
    left: float = option(0.5, "share of the MACs that stays", metavar="SHARE", read=share)


def thin(job):
    """Cut by magnitude, and train nothing."""
    return slim.slim_to(job.analysis, {"macs": job.wanted.left}, job.output)


thin.settings = Settings
'''
LINE = ["learn", "net.onnx", "-o", "thin.onnx", "--no-latency", "--samples", "16", "--json", "told.json"]


@pytest.fixture
def folder(net, monkeypatch):
    """A working folder with a net, a module that has a learner, and a package that names it by an entry point."""
    (net.parent / "thinning.py").write_text(MINE)
    about = net.parent / "site" / "thinner-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: thinner\nVersion: 1.0\n")
    points = "[onnxslim_learn.learners]\nthinner = thinning:thin\n[onnxslim_learn.protocols]\nodd = thinning:odd\n"
    (about / "entry_points.txt").write_text(points)
    monkeypatch.chdir(net.parent)
    monkeypatch.syspath_prepend(about.parent)
    monkeypatch.syspath_prepend(net.parent)
    yield net.parent
    sys.modules.pop("thinning", None)
    if "thinner" in LEARNERS:
        LEARNERS.remove("thinner")


def thinned(folder, learner):
    """What was written is what the option asked for, and the report names the learner."""
    told = json.loads((folder / "told.json").read_text())
    written = analyze(folder / "thin.onnx")
    assert told["learner"] == learner
    assert written.price(written.whole)["macs"] == told["after"]["macs"]
    assert USUAL * told["before"]["macs"] < told["after"]["macs"] <= LEFT * told["before"]["macs"]


@pytest.mark.parametrize("learner", ["thinning:thin", "thinner"])
def test_on_the_command_line_its_options_are_flags(folder, learner, capsys):
    assert commands.main([*LINE, "--learner", learner, "--left", str(LEFT)]) == 0
    thinned(folder, learner)
    assert f"Learnt by {learner}." in capsys.readouterr().out


@pytest.mark.parametrize("learner", ["thinning:thin", "thinner"])
@pytest.mark.parametrize("named", ["there", "on the line"])
def test_a_file_of_options_holds_its_own(folder, learner, named):
    there = named == "there"
    (folder / "o.toml").write_text(f"left = {LEFT}\n" + (f'learner = "{learner}"\n' if there else ""))
    assert commands.main([*LINE, "--config", "o.toml", *([] if there else ["--learner", learner])]) == 0
    thinned(folder, learner)


@pytest.mark.parametrize("learner", ["thinning:thin", "thinner"])
def test_in_python_they_are_keywords(folder, learner):
    learn(folder / "net.onnx", learner=learner, left=LEFT, json="told.json")
    thinned(folder, learner)


@pytest.mark.parametrize("learner", ["thinning:thin", "thinner"])
def test_help_tells_its_options(folder, learner, capsys):
    with pytest.raises(SystemExit):
        commands.main(["learn", "net.onnx", "--learner", learner, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{learner}: Cut by magnitude, and train nothing" in said
    assert "--left SHARE share of the MACs that stays (default 0.5)" in said


def test_help_lists_what_is_installed_and_imports_nothing_of_it(folder):
    code = "from onnxslim_learn.cli import main; import sys\ntry: main(['learn', '--help'])\n"
    code += "finally: print('thinning' in sys.modules)"
    path = os.pathsep.join([str(folder / "site"), *sys.path])
    asked = {"capture_output": True, "text": True, "env": {**os.environ, "PYTHONPATH": path}}
    said = " ".join(subprocess.run([sys.executable, "-c", code], check=True, **asked).stdout.split())
    assert "thinner (of thinner), or module:function" in said
    assert "odd (of thinner)" in said
    assert said.endswith("False")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--learner thinning:thin --lefd 0.7", "unrecognized arguments: --lefd 0.7. Did you mean --left?"),
        ("--learner thinning:thin --left 7", "--left: expected a number between 0 and 1, but got '7'"),
        ("--learner thinning:thin --strength 2", "--strength: is for structure learning, not for --learner thinning"),
        ("--learner finetune --left 0.7", "unrecognized arguments: --left 0.7"),
        ("--learner thinning:thick", "--learner thinning:thick: cannot be imported, since thinning"),
        ("--learner thinker", "Did you mean thinner?"),
        ("--learner", "argument --learner: expected one argument. See onnxslim-learn learn --help"),
    ],
)
def test_what_cannot_be_asked_of_it_is_told_in_a_sentence(folder, line, words, capsys):
    assert commands.main([*LINE, *line.split()]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@dataclass(frozen=True)
class EveryonesSettings:
    """Settings with an option that learn has for every learner."""

    loss: str = option("distill", "what is minimised")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EveryonesSettings, "its option loss is one that every learner has"),
        (int, "its settings are <class 'int'>. Give a dataclass"),
        ("thinning:Nothing", "its settings thinning:Nothing cannot be imported"),
    ],
)
def test_settings_that_cannot_be_used_are_told(folder, settings, words):
    with LEARNERS.having("odd", thin, settings=settings), pytest.raises(InputError, match=re.escape(words)):
        learn(folder / "net.onnx", learner="odd")


def test_the_options_of_the_learners_of_the_package_stand_beside_those_of_all():
    assert [name for row in LEARNERS.values() for name in table.of(row) if name in options(LearnSettings)] == []
