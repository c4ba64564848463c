"""How a process is told to end: runs of onnxruntime, too, and not in the middle of what must not be cut in two.

A file may make a run that never ends by itself, and Python hears a signal only after a call into onnxruntime has
returned. A thread hears it at once, and tells the call.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxruntime import RunOptions

_running: set[RunOptions] = set()

STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, kill, a closed terminal


def stops() -> list[int]:
    """The numbers of signals that end a run, on this system."""
    return [getattr(signal, name) for name in STOPS if hasattr(signal, name)]


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


@contextmanager
def held_back() -> Iterator[None]:
    """Let a block come to its end before a signal is heeded; a second one is heeded at once.

    Where signals do not reach, in other threads than the main one, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in stops()}
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            before[number](number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
    if came:
        before[came[0]](came[0], None)
