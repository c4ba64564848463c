"""No command overwrites what it reads, or writes one file twice: derived names and folders included."""

import shutil

import numpy as np
import onnx
import pytest

from nets.zoo import NETS
from onnxslim_learn.cli.commands import main


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with models and data under names that commands would write."""
    monkeypatch.chdir(tmp_path)
    model = NETS["residual"].build()
    for name in ("m.onnx", "m-0.5.onnx", "m.wide1.onnx", "m.thin1.onnx", "m-1.onnx", "run/m.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        onnx.save(model, tmp_path / name)
    np.savez(tmp_path / "d.npz", x=np.zeros((64, 3, 8, 8), np.float32))
    shutil.copy("d.npz", "v.npz")
    (tmp_path / "c.toml").write_text("steps = 3\n")
    (tmp_path / "e.toml").write_text("seed = 3\n")
    (tmp_path / "device.json").write_text("{}")
    return tmp_path


LEARN = "--steps 2 --finetune-steps 2 --data d.npz --no-latency"
MEET = {
    "slim m-0.5.onnx -o m.onnx --target macs=0.7,0.5": "-o m.onnx: writes m-0.5.onnx beside it",
    "slim m.onnx -o x.onnx --target macs=0.7,0.5 --plan-out p.json --json p-0.7.json": "--json p-0.7.json",
    f"learn m.wide1.onnx -o m.onnx --target macs=0.5 --cycles 2 {LEARN}": "-o m.onnx: writes m.wide1.onnx beside it",
    f"learn m.thin1.onnx -o m.onnx --target macs=0.5 --cycles 2 {LEARN}": "-o m.onnx: writes m.thin1.onnx beside it",
    f"learn m-1.onnx -o m.onnx --strength 1 --sweep 2 {LEARN}": "-o m.onnx: writes m-1.onnx beside it",
    f"learn run/m.onnx -o x.onnx --target macs=0.5 --checkpoint-dir run {LEARN}": "--checkpoint-dir run: lies there",
    f"learn m.onnx -o run/x.onnx --target macs=0.5 --checkpoint-dir run {LEARN}": "-o run/x.onnx: lies in the folder",
    "slim m.onnx -o d.npz --target macs=0.5 --data d.npz": "-o d.npz: is read",
    "slim m.onnx -o x.onnx --target macs=0.5 --data d.npz --json d.npz": "--json d.npz: is read",
    "slim m.onnx -o x.onnx --target macs=0.5 --device device.json --html device.json": "--html device.json: is read",
    f"learn m.onnx -o x.onnx --target macs=0.5 --val-data v.npz --json v.npz {LEARN}": "--json v.npz: is read",
    f"learn m.onnx -o x.onnx --target macs=0.5 --config c.toml --plan-out c.toml {LEARN}": "--plan-out c.toml: is read",
    f"learn m.onnx -o m-1.onnx --teacher m-1.onnx --target macs=0.5 {LEARN}": "-o m-1.onnx: is read",
    "expand m.onnx -o m-1.onnx --like m-1.onnx --target macs=1.0": "-o m-1.onnx: is read",
    "expand m.onnx -o x.onnx --target macs=1.5 --config e.toml --json e.toml": "--json e.toml: is read",
    f"learn m.onnx -o x.onnx --target macs=0.5 --checkpoint-dir . {LEARN}": "--checkpoint-dir .: lies there",
}


@pytest.mark.parametrize("line", MEET)
def test_what_is_read_and_written_is_refused_before_any_work(place, capsys, line):
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    for words in MEET[line].split(": "):
        assert words in said
    assert said.count("\n") == 1
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before
