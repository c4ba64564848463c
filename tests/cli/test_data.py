"""Samples on the command line: real ones are verified on, and what does not fit is refused before any work."""

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxslim_learn.workflow import slim
from tests.cli.folder import SLIM, answered, strict
from tests.data import photos

VERIFY = "verify residual.onnx slim.onnx --plan slim.json"
VERIFY_TRAINED = "verify trained.onnx new.onnx --plan p.json"
BATCH = 2  # the model fixes it


@pytest.fixture
def samples(prepared):
    """Files with samples beside the models; made once."""
    shape = slim.analyze(prepared / "residual.onnx").graph.shapes.nominal.inputs["x"]
    x = np.random.default_rng(0).random((20, *shape[1:])).astype(np.float32)
    np.savez(prepared / "samples.npz", x=x, labels=np.arange(20))
    np.savez(prepared / "thin.npz", x=x[:, :2])
    (prepared / "loader.py").write_text("import numpy\ndef broken(batch_size):\n    raise OSError('no disk')\n")
    (prepared / "photos").mkdir(exist_ok=True)
    for k in range(BATCH):
        Image.new("RGB", (50, 40), (200, 100 * k, 0)).save(prepared / "photos" / f"{k}.png")
    return x


@pytest.mark.parametrize("line", [SLIM, VERIFY, "apply residual.onnx slim.json -o new.onnx --no-latency"])
@pytest.mark.parametrize(
    ("flags", "batches"),
    [("--data samples.npz", 4), ("--input-range -1,1 --samples 6", 3), ("--data photos --mean 0.5 --scale 1", 1)],
)
def test_samples_are_verified_on(samples, run, line, flags, batches):
    _, plain, _ = run(f"{VERIFY} --json -")
    code, out, err = run(f"{line} {flags} --json -")
    assert code == 0, err
    assert strict(out)["verify"]["runs"] == strict(plain)["verify"]["runs"] + batches


def test_what_is_verified_on_are_the_samples(samples, run, monkeypatch):
    seen = []
    verify = slim.checking.verify

    def watched(removal, slimmed, real):
        seen.extend(real)
        return verify(removal, slimmed, real)

    monkeypatch.setattr(slim.checking, "verify", watched)
    assert run(f"{VERIFY} --data samples.npz --samples 5")[0] == 0
    assert [len(feed["x"]) for feed in seen] == [BATCH, BATCH]
    assert {bytes(row) for feed in seen for row in feed["x"]} <= {bytes(row) for row in samples}


REFUSALS = [
    ("--data thin.npz", "thin.npz x 2 3 axis"),
    ("--data nowhere.npz", "nowhere.npz"),
    ("--data loader:broken", "loader:broken OSError disk"),
    ("--data folder", "folder images"),
    ("--data residual.onnx", "residual.onnx .npz module:function"),
    ("--data samples.npz --mean 0.5", "--mean samples.npz"),
    ("--data samples.npz --input-range 0,1", "--input-range --data"),
    ("--image-size 32", "--image-size --data"),
    ("--input-range 1,0", "--input-range 1,0"),
    ("--input-range 1", "--input-range 0,1"),
    ("--input-range 0,1 --input-range 0,1", "--input-range 2 x 3"),
    ("--data photos --mean 0.5,x", "--mean 0.5,x"),
    ("--data photos --mean 0.5,0.5", "--mean 2 rgb"),
    ("--data photos --image-size 8x8x8", "--image-size HxW"),
    ("--data photos --scale 2", "--scale"),
    ("--data samples.npz --samples 0", "--samples 0"),
    ("--data samples.npz --samples 1", "samples.npz 2"),
]


@pytest.mark.parametrize(("flags", "words"), REFUSALS)
def test_samples_that_do_not_fit_are_refused(samples, refused, flags, words):
    refused(f"{SLIM} {flags}", 2, words)


# --- choosing and repairing -------------------------------------------------------------------------------------------


def test_repair_is_told_and_can_be_left_out(samples, run):
    code, out, err = run(f"{SLIM} --data samples.npz --json -")
    assert code == 0, err
    told = strict(out)
    assert told["repair"]["samples"] == len(samples)
    assert told["repair"]["after"]["y"]["relative"] <= told["repair"]["before"]["y"]["relative"]
    assert told["choice"]["criterion"] == "obs"
    assert answered(run(f"{SLIM} --data samples.npz --no-repair --json -"))["repair"] is None
    assert answered(run(f"{SLIM} --no-repair --json -"))["choice"]["criterion"] == "energy"


def test_made_up_inputs_are_matched_to_stored_statistics(samples, run):
    code, out, err = run(f"{SLIM} --match-statistics --samples 32 --json -")
    assert code == 0, err
    assert "--match-statistics" not in err
    assert "statistics" in strict(out)["repair"]["data"]


def test_statistics_that_were_stored_are_told_of(samples, run):
    assert "--match-statistics" in run(SLIM)[1]
    assert "--match-statistics" not in run(f"{SLIM} --no-repair")[1]
    assert "--match-statistics" not in run(f"{SLIM} --data samples.npz")[1]


def test_matching_is_for_made_up_inputs(samples, run):
    code, _, err = run(f"{SLIM} --match-statistics --data samples.npz")
    assert code == 2
    assert "--data" in err


def test_verify_says_what_was_repaired(samples, run):
    assert run(f"{SLIM} --data samples.npz --plan-out new.json")[0] == 0
    line = "verify residual.onnx new.onnx --plan new.json"
    repaired = answered(run(f"{line} --json -"))["repaired"]
    assert repaired
    assert f"{len(repaired)} repaired weights compared as cut" in " ".join(run(line)[1].split())
    assert answered(run(f"{VERIFY} --json -"))["repaired"] == []


def test_samples_that_are_not_as_in_training_are_refused_or_told(run, refused):
    onnx.save(photos.exported(), "trained.onnx")
    np.savez("pixels.npz", image=photos.prepared(photos.photographs(64, 1)[0], (0.0,), (1.0,), 1.0))
    line = "slim trained.onnx -o new.onnx --target macs=0.5 --no-latency --sensitivity-seconds 0"
    line += " --data pixels.npz --plan-out p.json"
    refused(line, 2, "pixels.npz first normalisation 0.485,0.456,0.406 --as-given")
    code, out, err = run(f"{line} --as-given")
    assert code == 0, err
    assert out.startswith("Quality:")
    assert "Doubtful samples: pixels.npz" in " ".join(out.split())
    assert "onnxslim-learn: pixels.npz" in err
    for other in ("sparsify trained.onnx -o s.onnx --ratio 0.5 --no-latency", VERIFY_TRAINED):
        assert "onnxslim-learn: pixels.npz" in run(f"{other} --data pixels.npz --as-given")[2]
    (doubt,) = answered(run(f"{line} --as-given --json -"))["quality"]["doubts"]
    assert "first normalisation" in doubt
