"""A run that would never end ends when the process is told to."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import onnx, numpy as np
from onnxslim_learn.cli.shell import answer
from onnxslim_learn.runtime.session import open_session

model = onnx.parser.parse_model('''
    <ir_version: 8, opset_import: ["" : 17]>
    net (int64 trips, float[4] x) => (float[4] y) {
        yes = Constant <value = bool {1}> ()
        y = Loop(trips, yes, x) <body = body (int64 i, bool going, float[4] state) => (bool more, float[4] next) {
            more = Identity(going)
            next = Identity(state)
        }>
    }
''')
session = open_session(model.SerializeToString())

def act():
    print("running", flush=True)
    session.run(None, {"trips": np.array(2**62), "x": np.ones(4, np.float32)})

raise SystemExit(answer(act))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_without_end_is_stopped_by_a_signal(number):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said) == (128 + number, "onnxslim-learn: interrupted.\n")
