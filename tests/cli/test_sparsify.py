"""The command sparsify: what it refuses, what it says, and the fields of its JSON."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxslim_learn import demo
from tests.cli.folder import BRIEF

DEMO = Path(demo.__file__).parent
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


NAMED = {"2:4": "TensorRT skips", "4x1 --ratio 0.5": "skips zeros of 4x1", "units --ratio 0.2": "slim --lossless has"}


@pytest.mark.parametrize("how", NAMED)
def test_runtimes_are_named(shown, how):
    shown(f"sparsify residual.onnx -o new.onnx --pattern {how} --samples 32 --no-latency", 0, [NAMED[how]])


def test_of_one_sample_none_is_held_back(shown):
    with np.load(DEMO / "calibration.npz") as arrays:
        np.savez("one.npz", **{name: array[:1] for name, array in arrays.items()})
    line = f"sparsify {DEMO / 'digits.onnx'} -o new.onnx --ratio 0.5 --method magnitude --no-latency --data one.npz"
    shown(line, 0, ["on the same samples that it was fitted to, of one.npz", "on the one sample that it was made with"])


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_samples_that_judge_and_those_fitted_to_are_all_there_are(machine_read, count):
    """Nothing but zeros of a few weights: all that is compared is the same, and few samples may happen to agree."""
    with np.load(DEMO / "calibration.npz") as arrays:
        np.savez("some.npz", **{name: array[:count] for name, array in arrays.items()})
    line = f"sparsify {DEMO / 'digits.onnx'} -o new.onnx --ratio 0.01 --no-latency --data some.npz"
    found = machine_read(line, 0, "samples quality verdict")
    samples, told = found["samples"], found["quality"]
    assert samples["count"] == count == samples["judged"] + samples["fitted"] * samples["held_back"]
    assert (told["samples"], told["fitted"], told["held_back"]) == tuple(
        samples[k] for k in ("judged", "fitted", "held_back")
    )
    word = "unknown, " if count == 1 else "looks good, "
    assert found["verdict"]["quality"].startswith(word)
    assert (found["verdict"]["kept"]["good"], found["verdict"]["kept"]["few"]) == (False, True)


def test_json(machine_read):
    keys = "model output inputs asked trials before after sparsity files empty latency samples deviation layers dense"
    found = machine_read(f"{SPARSIFY} --pattern 2:4 --samples 32", 0, keys)
    assert found["asked"]["ratio"] is None
    assert found["files"]["two_of_four"] < found["files"]["plain"] == found["after"]["bytes"]
    assert found["after"]["nonzero_macs"] < found["after"]["macs"] == found["before"]["macs"]
    zeros = {row["name"]: row["zeros"] for row in found["layers"]}
    file = {t.name: t for t in onnx.load("new.onnx").graph.initializer}
    assert all((onnx.numpy_helper.to_array(file[n]) == 0).sum() == z for n, z in zeros.items())
    dense = [row["name"] for row in found["layers"] if not row["zeros"]]
    assert dense == ["w0"], "three input channels fill no group of four"


def arrays(path):
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def promised(path):
    return {one.key: one.value for one in onnx.load(path).metadata_props}.get("onnxslim_learn.sparsity")


def test_counts_are_those_of_the_files(machine_read):
    keys = "model output inputs asked trials before after sparsity files empty latency samples deviation layers dense"
    found = machine_read(f"{SPARSIFY} --pattern units --ratio 0.5 --samples 32 --lossless", 0, keys)
    assert found["cut"]
    for side, path in (("before", "residual.onnx"), ("after", "new.onnx")):
        assert found[side]["nonzero_params"] == sum(np.count_nonzero(a) for a in arrays(path).values() if a.ndim)
        assert found[side]["nonzero_macs"] <= found[side]["macs"]


def test_a_file_says_that_it_is_sparse_as_long_as_it_is(run):
    quick = "--no-latency --samples 32"
    assert run(f"sparsify residual.onnx -o new.onnx --pattern 2:4 {quick}")[0] == 0
    zeros = {name: array == 0 for name, array in arrays("new.onnx").items()}
    line = "learn new.onnx -o tuned.onnx --learner finetune --teacher residual.onnx --finetune-steps 3 --batch-size 8"
    assert run(f"{line} {quick}")[0] == 0
    tuned = arrays("tuned.onnx")
    assert all((tuned[name][zero] == 0).all() for name, zero in zeros.items() if tuned[name].ndim > 1)
    assert any((tuned[name] != array).any() for name, array in arrays("new.onnx").items())
    assert promised("new.onnx") == promised("tuned.onnx") == "2:4"
    assert run(f"slim new.onnx -o cut.onnx --target macs=0.6 {quick}")[0] == 0
    assert promised("cut.onnx") is None, "repair has made weights of what was zero"


def test_whole_units_are_zeroed_where_they_can_be_cut(machine_read):
    keys = "model output inputs asked trials before after sparsity files empty latency samples deviation layers dense"
    found = machine_read(f"{SPARSIFY} --pattern units --ratio 0.5 --samples 32", 0, keys)
    assert "w5" in found["dense"], "its units are the output"
    assert all(row["empty"]["output_channels"] for row in found["layers"])
