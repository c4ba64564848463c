"""A device of one's own: a row with two numbers, a file, or a function that makes one."""

import pytest

from onnxslim_learn.costs.devices import Device, load
from onnxslim_learn.errors import InputError
from onnxslim_learn.registry import DEVICES

BOARD = (
    "from onnxslim_learn.costs.devices import Device\n\n\ndef board():\n    return Device('board', 10, 5, node_us=2)\n"
)


def test_a_row_a_function_and_a_file_name_a_device(tmp_path, monkeypatch):
    (tmp_path / "mine_device.py").write_text(BOARD)
    (tmp_path / "board.toml").write_text("gflops = 10\ngbytes = 5\n")
    monkeypatch.chdir(tmp_path)
    with DEVICES.having("shelf", Device, gflops=100, gbytes=50):
        assert load("shelf") == Device("shelf", 100, 50)
    assert load("mine_device:board") == Device("board", 10, 5, node_us=2)
    assert load("board.toml") == Device("board", 10, 5)


def test_what_is_no_device_is_refused():
    with DEVICES.having("nothing", dict), pytest.raises(InputError, match="expected a Device, but got a dict"):
        load("nothing")
