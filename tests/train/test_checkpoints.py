"""Checkpoints: two are kept, each with a checksum, and a damaged newest one falls back."""

import logging

import pytest
import torch

from onnxslim_learn.errors import InputError
from onnxslim_learn.train import checkpoints
from onnxslim_learn.train.checkpoints import Checkpoint
from onnxslim_learn.train.run_manifest import begin


def write(folder, *steps):
    for step in steps:
        checkpoints.save(folder, Checkpoint({"w": torch.full((4,), float(step))}, {"step": step}))


def test_two_are_kept_and_the_newest_is_read(tmp_path):
    write(tmp_path, 1, 2, 30)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"step_{step:08d}.{kind}" for step in (2, 30) for kind in ("json", "safetensors")
    ]
    found = checkpoints.load(tmp_path)
    assert found.facts["step"] == 30
    assert (found.tensors["w"] == 30).all()


DAMAGE = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    "other text": lambda content: b"[" * 10_000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_of_a_damaged_newest_one_the_one_before_is_taken_and_it_is_said(tmp_path, caplog, kind, damage):
    write(tmp_path, 1, 2)
    newest = tmp_path / f"step_00000002.{kind}"
    newest.write_bytes(damage(newest.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load(tmp_path).facts["step"] == 1
    (record,) = caplog.records
    assert "step_00000002.json: is damaged" in record.getMessage()
    assert "of step 1" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_where_none_is_whole_it_is_refused(tmp_path):
    write(tmp_path, 1, 2)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoints.load(tmp_path)
    assert checkpoints.load(tmp_path / "nothing") is None


@pytest.mark.parametrize("name", ["run.json", "plan.json", "result.onnx", "structure/alive_10"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_files_of_others_is_no_place_for_checkpoints(tmp_path, name, resume):
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("{}")
    with pytest.raises(InputError, match="holds files that are no checkpoints"):
        begin(tmp_path, {}, resume=resume)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [mine]
    assert mine.read_text() == "{}"


def test_a_folder_of_a_run_is_taken_again(tmp_path):
    begin(tmp_path / "run", {"⟨steps⟩": 4}, resume=False)
    begin(tmp_path / "run", {"⟨steps⟩": 4}, resume=True)
    with pytest.raises(InputError, match="steps 4, not 5"):
        begin(tmp_path / "run", {"⟨steps⟩": 5}, resume=True)
    begin(tmp_path / "run", {"⟨steps⟩": 5}, resume=False)
