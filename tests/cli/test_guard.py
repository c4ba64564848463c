"""A command whose native code crashes ends in a sentence; all else is as without the process between."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxslim_learn.cli import guard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands run where they are")
START = "import os, signal, sys, time; from onnxslim_learn.cli import guard; guard.split(); guard.note('analyzing'); "


def start(code):
    return subprocess.Popen(
        [sys.executable, "-c", START + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("crash", [signal.SIGFPE, signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_told_with_its_stage(crash):
    process = start(f"os.kill(os.getpid(), {int(crash)})")
    _, err = process.communicate(timeout=60)
    assert process.returncode == guard.REFUSED
    (line,) = err.splitlines()
    assert f"crashed while analyzing ({crash.name})" in line


def test_exit_codes_and_outputs_are_passed_on():
    process = start("print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert process.communicate(timeout=60) == ("out\n", "err\n")
    assert process.returncode == 3


def test_signals_are_passed_on():
    process = start("signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('up', flush=True); time.sleep(60)")
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 5


def test_the_third_signal_ends_what_hears_none():
    process = start(
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print('up', flush=True); time.sleep(60)"
    )
    assert process.stdout.readline() == "up\n"
    for _ in range(guard.PATIENCE):
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # the same signal is heard once as long as it waits
    assert process.communicate(timeout=60) == ("", "onnxslim-learn: interrupted.\n")
    assert process.returncode == guard.STOPPED + signal.SIGTERM


def test_a_stop_that_comes_as_the_command_ends_is_no_crash():
    process = start(f"os.kill(os.getpid(), {int(signal.SIGTERM)})")
    assert process.communicate(timeout=60) == ("", "onnxslim-learn: interrupted.\n")
    assert process.returncode == guard.STOPPED + signal.SIGTERM


def test_the_command_ends_with_the_process_that_was_started():
    process = start("print(os.getpid(), flush=True); time.sleep(60)")
    child = int(process.stdout.readline())
    assert child != process.pid
    process.kill()
    process.wait(timeout=60)
    for _ in range(200):
        if not runs(child):
            return
        time.sleep(0.05)
    pytest.fail("it goes on")


def runs(number):
    """Whether a process is there, and not one that only waits for its exit code to be asked for."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
