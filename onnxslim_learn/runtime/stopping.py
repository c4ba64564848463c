"""Runs of onnxruntime end when the process is told to end: a file may make one that never would by itself.

Python hears a signal only after a call into onnxruntime has returned. A thread hears it at once, and tells the call.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import RunOptions

_running: set[RunOptions] = set()


@contextmanager
def running() -> Iterator[RunOptions]:
    """Options for a run, which is told to end if a signal comes that the process is to end at."""
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = 4
    _running.add(options)
    try:
        yield options
    finally:
        _running.discard(options)


@contextmanager
def ending_at(signals: Collection[int]) -> Iterator[None]:
    """End all runs when one of these signals comes; their handlers must be Python's. For the main thread alone."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)  # set_wakeup_fd asks for that
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(ours, frozenset(signals)), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()
        listener.join()
        ours.close()


def _listen(ours: socket.socket, signals: Collection[int]) -> None:
    while came := ours.recv(1):
        if came[0] in signals:
            for options in list(_running):
                options.terminate = True
