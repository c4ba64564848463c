"""A command runs in a process of its own, so that native code that crashes ends in a sentence, too.

onnxruntime divides by zero, or takes more memory than there is, where a file asks for that; the system ends the process
then, and no exception tells of it. On systems that cannot say where a signal comes from, commands run where they are.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from onnxslim_learn.errors import printable
from onnxslim_learn.runtime import stopping

if TYPE_CHECKING:
    from collections.abc import Mapping

STOPPED = 128  # an exit code above is that of a signal
REFUSED = 2
PATIENCE = 3  # signals to end, after which the command is ended whatever it does
ROOM = 256  # bytes of a stage's name
PR_SET_PDEATHSIG = 1  # of Linux's prctl
_stage: list[mmap.mmap] = []


def split() -> None:
    """Go on in a process of its own, while this one waits for it and ends as it does."""
    if not (sys.platform == "linux" and hasattr(signal, "sigwaitinfo")) or _stage:
        return
    _stage.append(mmap.mmap(-1, ROOM))
    heard = {*stopping.stops(), signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    waiting = os.getpid()
    child = os.fork()
    if child:
        code = _wait(child, heard)
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != waiting:  # it ended before that was said
        os._exit(STOPPED + signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def note(stage: str, share: float = 0.0, numbers: Mapping[str, float] | None = None) -> None:
    """Remember the stage that runs, for the sentence that tells of a crash."""
    for page in _stage:
        page[:] = stage.encode("utf-8", "replace")[:ROOM].ljust(ROOM, b"\0")


def _wait(child: int, heard: set[signal.Signals | int]) -> int:
    """The exit code of a child; signals that came to this process alone are passed on, and the third ends the child.

    So what never returns to Python, and hears nothing, ends, too.
    """
    asked: list[int] = []
    while True:
        told = signal.sigwaitinfo(heard)
        if told.si_signo != signal.SIGCHLD:
            asked.append(told.si_signo)
            last = len(asked) >= PATIENCE
            if last or told.si_code <= 0:  # from a process; a terminal tells the child, too
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL if last else told.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            killed = code == -signal.SIGKILL and len(asked) >= PATIENCE
            return code if code >= 0 else _crashed(asked[-1] if killed else -code)


def _crashed(number: int) -> int:
    """Say that a signal ended the command; returns the exit code."""
    stage = _stage[0][:].rstrip(b"\0").decode("utf-8", "replace")
    during = f" while {stage}" if stage else ""
    if number in stopping.stops():  # as the child was ending already, so that it did not say so itself
        said = "interrupted."
    elif number == signal.SIGKILL:
        said = f"killed{during}, by the system if memory ran out. Give smaller shapes with --input, or fewer samples."
    else:
        said = (
            f"onnxruntime or another library crashed{during} ({signal.Signals(number).name}): it cannot run this model"
            " on such inputs. Give samples with --data, or other sizes with --input."
        )
    with suppress(OSError):
        print("onnxslim-learn:", printable(said), file=sys.stderr, flush=True)
    return STOPPED + number if number in (signal.SIGKILL, *stopping.stops()) else REFUSED
