"""The commands apply and verify: plans they refuse, and that plans replay."""

import json
from pathlib import Path

import onnx
import pytest

from tests.cli.folder import APPLY, SLIM

REFUSALS = [
    # arguments, exit code, words in the sentence
    # models
    ("verify residual.onnx nowhere.onnx --plan slim.json", 2, "nowhere.onnx: no such file the slimmed model"),
    ("verify residual.onnx text.onnx --plan slim.json", 2, "text.onnx:"),
    ("verify residual.onnx multi_io.onnx --plan slim.json", 2, "multi_io.onnx: inputs image vector x"),
    # results
    (f"{APPLY} slim.json --json slim.json", 2, "--json slim.json: is read"),
    ("verify residual.onnx slim.onnx --plan slim.json --json slim.onnx", 2, "--json slim.onnx: is read"),
    # plans
    (f"{APPLY} nowhere.json", 2, "nowhere.json: no such file"),
    (f"{APPLY} folder", 2, "folder: is a folder"),
    (f"{APPLY} slim.onnx", 2, "slim.onnx: not a text file"),
    (f"{APPLY} cut.json", 2, "cut.json: not JSON line"),
    (f"{APPLY} list.json", 2, "list.json: format list"),
    (f"{APPLY} old.json", 2, "old.json: format 'onnxslim-learn plan 0'"),
    (f"{APPLY} no-widths.json", 2, "no-widths.json: 'widths'"),
    (f"{APPLY} odd-tensors.json", 2, "odd-tensors.json: 'tensors'"),
    (f"{APPLY} odd-provenance.json", 2, "odd-provenance.json: 'provenance'"),
    (f"{APPLY} wide.json", 2, "w1:0: 12 13"),
    (f"{APPLY} far.json", 2, "w1:0: below 12 99"),
    (f"{APPLY} swapped.json", 2, "tensor 'tensors' 'groups' disagree"),
    (f"{APPLY} output.json", 2, "graph output y"),
    (f"{APPLY} chain.json", 2, "chain.json another file chain.onnx residual.onnx --other-model"),
    (f"{APPLY} chain.json --other-model", 2, "chain.json w1:0: 12 8 another file chain.onnx"),
    ("verify chain.onnx slim.onnx --plan slim.json", 2, "slim.json another file residual.onnx --other-model"),
    ("apply chain.onnx slim.json -o new.onnx --other-model", 2, "no such group residual.onnx"),
    ("verify residual.onnx slim.onnx --plan chain.json --other-model", 2, "w1:0: chain.onnx"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS)
def test_refusals(refused, arguments, code, words):
    refused(arguments, code, words)


TABLES = [
    # arguments, exit code, phrases on standard output
    (f"{APPLY} slim.json", 0, ["Verified on 2 inputs"]),
    (f"{APPLY} bom.json", 0, ["Verified on 2 inputs"]),  # as editors on Windows save it
    ("verify residual.onnx slim.onnx --plan slim.json", 0, ["slim.onnx computes what residual.onnx computes"]),
    ("verify residual.onnx thin.onnx --plan slim.json", 1, ["thin.onnx does NOT compute", "Output y"]),
    (
        "verify residual.onnx flatten_gemm.onnx --plan slim.json",
        1,
        ["does NOT compute", "Output y has shape 2x5, but 2x5x8x8 is wanted."],
    ),
]


@pytest.mark.parametrize(("arguments", "code", "phrases"), TABLES)
def test_results_go_to_standard_output_alone(shown, arguments, code, phrases):
    shown(arguments, code, phrases)


JSON = [
    # arguments without --json, exit code, keys
    (f"{APPLY} slim.json", 0, "model output inputs before after latency layers verify groups pinned unknown_operators"),
    ("verify residual.onnx slim.onnx --plan slim.json", 0, "original slimmed verify"),
    ("verify residual.onnx thin.onnx --plan slim.json", 1, "original slimmed verify"),
    ("verify residual.onnx flatten_gemm.onnx --plan slim.json", 1, "original slimmed verify"),
]


@pytest.mark.parametrize(("arguments", "code", "keys"), JSON)
def test_json_is_all_of_standard_output_or_a_file_beside_the_tables(machine_read, arguments, code, keys):
    machine_read(arguments, code, keys)


def test_a_plan_replays_to_the_same_bytes(run):
    run(f"{SLIM} --plan-out new.json")
    assert run("apply residual.onnx new.json -o new2.onnx --no-latency")[0] == 0
    assert Path("new2.onnx").read_bytes() == Path("new.onnx").read_bytes()
    assert run("verify residual.onnx new2.onnx --plan new.json")[0] == 0


def test_a_plan_that_says_of_no_file_is_carried_out_with_a_note(run):
    plan = json.loads(Path("slim.json").read_text())
    del plan["provenance"]["sha256"]
    Path("former.json").write_text(json.dumps(plan))
    code, _, err = run(f"{APPLY} former.json --no-repair")
    assert code == 0, err
    assert "former.json: does not say for which file it was made" in err


def test_a_plan_is_carried_out_on_other_weights_where_that_is_asked_for(run):
    model = onnx.load("residual.onnx")
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, "other.onnx")
    line = "apply other.onnx slim.json -o new.onnx --no-latency --no-repair"
    assert run(line)[0] == 2
    assert run(f"{line} --other-model")[0] == 0
