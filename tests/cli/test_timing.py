"""The commands profile and demo."""

import html
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from onnxslim_learn.runtime import timing
from onnxslim_learn.workflow import slim
from tests.cli.folder import BRIEF, strict

REFUSALS = [
    # arguments, exit code, words in the sentence
    # models
    ("profile residual.onnx nowhere.onnx", 2, "nowhere.onnx: no such file"),
    # results
    ("profile residual.onnx --json residual.onnx", 2, "--json residual.onnx: is read"),
    ("profile residual.onnx --html residual.onnx", 2, "--html residual.onnx: is read"),
    ("demo -o folder", 2, "-o folder: is a folder"),
    # input shapes
    (f"profile global_pool.onnx --seconds {BRIEF} --input x:999999999x3x99x99", 2, "longer --input"),
    # the runtime
    *((f"profile residual.onnx --threads {text}", 2, f"--threads {text}") for text in ("0", "-1", "1.5", "100000")),
    *((f"profile residual.onnx --seconds {text}", 2, f"--seconds {text}") for text in ("0", "-1", "nan", "inf", "x")),
    ("profile residual.onnx --provider Abacus", 2, "--provider Abacus CPUExecutionProvider"),
    ("profile residual.onnx --threads 1,", 2, "--threads positive ''"),
    ("profile residual.onnx --batch 0", 2, "--batch positive '0'"),
    ("profile residual.onnx --batch 4", 2, "--batch 4: residual.onnx x 2x3x8x8 only open first axis"),
    ("profile residual.onnx --input z:1x2", 2, "--input z: no model x"),
    ("profile residual.onnx --compare", 2, "--compare: only one two"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_refusals(refused, arguments, code, words):
    refused(arguments, code, words)


TABLES = [
    # arguments, exit code, phrases on standard output
    (f"profile residual.onnx slim.onnx --seconds {BRIEF}", 0, ["residual.onnx", "slim.onnx", "against the first"]),
    (f"profile chain.onnx --seconds {BRIEF} --per-node", 0, ["Time by node: CPU, 1 thread", "Conv", "layout:"]),
    (f"profile global_pool.onnx --seconds {BRIEF} --batch 2,4 --io-binding", 0, ["batch 2,", "batch 4,", "At x 4x3x"]),
    (f"profile residual.onnx --seconds {BRIEF} --threads 1,2", 0, ["CPU, 1 thread;", "CPU, 2 threads;", "peak memory"]),
    (f"profile residual.onnx multi_io.onnx --seconds {BRIEF}", 0, ["residual.onnx", "multi_io.onnx"]),
]


@pytest.mark.parametrize(("arguments", "code", "phrases"), TABLES)
def test_results_go_to_standard_output_alone(shown, arguments, code, phrases):
    shown(arguments, code, phrases)


JSON = [
    # arguments without --json, exit code, keys
    (f"profile residual.onnx slim.onnx --seconds {BRIEF} --per-node", 0, "models settings"),
]


@pytest.mark.parametrize(("arguments", "code", "keys"), JSON)
def test_json_is_all_of_standard_output_or_a_file_beside_the_tables(machine_read, arguments, code, keys):
    machine_read(arguments, code, keys)


def test_compare_answers_with_the_exit_code(run, monkeypatch):
    def timed(models, feeds, **settings):
        return timing.Timings(np.array([[2.0, 1.0, 4.0]] * 20)[:, : len(models)], (1.0,) * len(models), 1, "CPU")

    monkeypatch.setattr(timing, "measure", timed)
    code, out, _ = run("profile residual.onnx slim.onnx --compare")
    assert code == 0
    assert "slim.onnx is faster than residual.onnx: 2.00 times as fast (2.00 to 2.00)." in out
    code, out, _ = run("profile residual.onnx slim.onnx thin.onnx --compare")
    assert code == 1
    assert "thin.onnx is slower than residual.onnx: it takes 2.00 times as long (2.00 to 2.00)." in out
    assert run("profile residual.onnx slim.onnx thin.onnx")[0] == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("analyze residual.onnx", ["w1:0", "MACs that would go with each group"]),
        (f"slim residual.onnx -o new.onnx --target macs=0.5 --seconds {BRIEF}", ["Units of each group", "Layers"]),
        ("apply residual.onnx slim.json -o new.onnx --no-latency", ["Layers"]),
        ("verify residual.onnx slim.onnx --plan slim.json", ["computes"]),
        (f"profile residual.onnx slim.onnx --per-node --seconds {BRIEF}", ["Time of a run", "Time by node"]),
    ],
)
def test_a_page_holds_what_the_terminal_shows(run, line, words):
    code, out, err = run(f"{line} --html new.html")
    assert (code, err) == (0, "")
    page = html.unescape(Path("new.html").read_text())
    assert [word for word in words if word not in page] == []
    shown = {word for row in out.splitlines() if row.startswith("│") for word in row.strip("│").split("│")}
    assert [word for word in shown if word.strip() not in page] == []


def test_the_demo_tells_the_whole_story(run, monkeypatch):
    monkeypatch.setattr(timing, "measure", partial(timing.measure, seconds=BRIEF))
    code, out, err = run("demo -o new.onnx --json new.json")
    assert (code, err) == (0, "")
    told = strict(Path("new.json").read_text())
    assert told["after"]["macs"] <= told["target"]["macs"] * told["before"]["macs"]
    assert told["before"]["accuracy"] > 0.95
    assert told["after"]["accuracy"] > 0.5  # not retrained, yet far above the 0.1 of guessing
    assert f"{100 * told['after']['accuracy']:.1f} % after" in out
    assert slim.analyze("new.onnx").groups
