"""What a real shell proposes for what is typed so far."""

import shutil
import subprocess
import sys

import pytest

from onnxslim_learn.cli import commands
from onnxslim_learn.registry import CRITERIA

ASK = r"""
source new.sh
complete=$(complete -p onnxslim-learn | sed 's/.*-F \([^ ]*\).*/\1/')
COMP_WORDS=("$@") COMP_CWORD=$(( $# - 1 )) COMPREPLY=()
$complete onnxslim-learn "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
echo "${COMPREPLY[@]}"
"""
TYPED = [
    ("s", {"slim", "sparsify"}),
    ("slim --mult", {"--multiple"}),
    ("slim --quie", {"--quiet"}),
    ("slim --criterion wa", {name for name in CRITERIA if name.startswith("wa")}),
    ("slim --layout n", {"nchw", "nhwc"}),
    ("slim --target par", {"params="}),
    ("learn --learner fine", {"finetune"}),
    ("slim residual.on", {"residual.onnx"}),
]


def test_only_known_shells_are_helped(refused):
    refused("--print-completion fish", 2, "--print-completion fish bash zsh")


def test_bash_completes_commands_options_names_and_files(run):
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    code, script, err = run("--print-completion bash")
    assert (code, err) == (0, "")
    with open("new.sh", "w") as file:
        file.write(script)
    for typed, proposed in TYPED:
        words = [bash, "--norc", "-c", ASK, "ask", "onnxslim-learn", *typed.split(" ")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) == proposed, typed


def test_completion_costs_nothing_at_start(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert run("--version")[0] == 0
    assert commands.main(["--print-completion", "bash"]) == 2
