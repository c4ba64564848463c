"""The command sparsify: what it refuses, what it says, and the fields of its JSON."""

import onnx
import pytest

from tests.cli.folder import BRIEF

SPARSIFY = "sparsify residual.onnx -o new.onnx --no-latency"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (SPARSIFY, "--ratio unstructured 0.75"),
        (f"{SPARSIFY} --ratio 2", "--ratio 2: 0 to 1"),
        (f"{SPARSIFY} --ratio nan", "--ratio nan"),
        (f"{SPARSIFY} --ratio 0.5 --pattern 4:2", "--pattern 4:2: N:M"),
        (f"{SPARSIFY} --ratio 0.75 --pattern 2:4", "--ratio 0.75: 2:4 0.5"),
        (f"{SPARSIFY} --ratio 0.5 --method taste", "--method taste: admm"),
        (f"{SPARSIFY} --ratio 0.5 --protect nothing", "--protect nothing: w0"),
        ("sparsify residual.onnx -o residual.onnx --ratio 0.5", "-o residual.onnx: is read"),
    ],
)
def test_refusals(refused, arguments, words):
    refused(arguments, 2, words)


def test_tables(shown):
    phrases = ["weights that are not zero", "sparse initializer", "unstructured, admm, shares: heurist", "Not faster"]
    shown(f"sparsify residual.onnx -o new.onnx --ratio 0.75 --seconds {BRIEF} --samples 32", 0, phrases[:3])


def test_json(machine_read):
    keys = "model output inputs asked trials before after sparsity files empty latency samples deviation layers"
    found = machine_read(f"{SPARSIFY} --pattern 2:4 --samples 32", 0, keys)
    assert found["asked"]["ratio"] is None
    assert found["files"]["two_of_four"] < found["files"]["plain"] == found["after"]["bytes"]
    assert found["after"]["nonzero_macs"] < found["after"]["macs"] == found["before"]["macs"]
    zeros = {row["name"]: row["zeros"] for row in found["layers"]}
    file = {t.name: t for t in onnx.load("new.onnx").graph.initializer}
    assert all((onnx.numpy_helper.to_array(file[n]) == 0).sum() == z for n, z in zeros.items())
    dense = [row["name"] for row in found["layers"] if not row["zeros"]]
    assert dense == ["w0"], "three input channels fill no group of four"
