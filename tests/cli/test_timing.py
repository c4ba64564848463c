"""The commands profile and demo."""

from functools import partial
from pathlib import Path

import pytest

from onnxslim_learn import api
from onnxslim_learn.costs import measure
from tests.cli.folder import BRIEF, strict

REFUSALS = [
    # arguments, exit code, words in the sentence
    # models
    ("profile residual.onnx nowhere.onnx", 2, "nowhere.onnx: no such file"),
    # results
    ("profile residual.onnx --json residual.onnx", 2, "--json residual.onnx: is read"),
    ("demo -o folder", 2, "-o folder: is a folder"),
    # input shapes
    (f"profile global_pool.onnx --seconds {BRIEF} --input x:999999999x3x99x99", 2, "memory --input"),
    # the runtime
    *((f"profile residual.onnx --threads {text}", 2, f"--threads {text}") for text in ("0", "-1", "1.5", "100000")),
    *((f"profile residual.onnx --seconds {text}", 2, f"--seconds {text}") for text in ("0", "-1", "nan", "inf", "x")),
    ("profile residual.onnx --provider Abacus", 2, "--provider Abacus CPUExecutionProvider"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_refusals(refused, arguments, code, words):
    refused(arguments, code, words)


TABLES = [
    # arguments, exit code, phrases on standard output
    (f"profile residual.onnx slim.onnx --seconds {BRIEF}", 0, ["residual.onnx", "slim.onnx", "against the first"]),
    (f"profile chain.onnx --seconds {BRIEF} --per-node", 0, ["chain.onnx: time by node", "Conv"]),
    (f"profile residual.onnx multi_io.onnx --seconds {BRIEF}", 0, ["residual.onnx", "multi_io.onnx"]),
]


@pytest.mark.parametrize(("arguments", "code", "phrases"), TABLES)
def test_results_go_to_standard_output_alone(shown, arguments, code, phrases):
    shown(arguments, code, phrases)


JSON = [
    # arguments without --json, exit code, keys
    (f"profile residual.onnx slim.onnx --seconds {BRIEF} --per-node", 0, "models ratios"),
]


@pytest.mark.parametrize(("arguments", "code", "keys"), JSON)
def test_json_is_all_of_standard_output_or_a_file_beside_the_tables(machine_read, arguments, code, keys):
    machine_read(arguments, code, keys)


def test_the_demo_tells_the_whole_story(run, monkeypatch):
    monkeypatch.setattr(measure, "measure", partial(measure.measure, seconds=BRIEF))
    code, out, err = run("demo -o new.onnx --json new.json")
    assert (code, err) == (0, "")
    told = strict(Path("new.json").read_text())
    assert told["after"]["macs"] <= told["target"]["macs"] * told["before"]["macs"]
    assert told["before"]["accuracy"] > 0.95
    assert told["after"]["accuracy"] > 0.5  # not retrained, yet far above the 0.1 of guessing
    assert f"{told['after']['accuracy']:.1%} after" in out
    assert api.analyze("new.onnx").groups
