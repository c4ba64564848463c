"""How the command line answers, whatever the command: what goes where, and how it ends.

Results go to standard output, progress to standard error. Exit codes: 0 done; 1 a check failed or a target cannot be
reached; 2 bad usage or bad input; 3 the result is worse than --min-quality.
"""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import SlimError, printable, reason
from onnxslim_learn.runtime import stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnxslim_learn.cli.progress import Log
    from onnxslim_learn.cli.table import ShellSettings

DEBUG = "ONNXSLIM_LEARN_DEBUG"
DEFECT = 70  # as in sysexits.h: an internal software error


def answer(act: Callable[[], int]) -> int:
    """Carry out a command; returns its exit code, or that of what went wrong, which is said in one sentence."""
    with _stoppable() as stopped:
        try:
            return act()
        except BaseException as error:
            if isinstance(error, BrokenPipeError) and (unread := [one for one in (1, 2) if _unread(one)]):
                for one in unread:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), one)
                return 0
            if os.environ.get(DEBUG) or isinstance(error, SystemExit | GeneratorExit):
                raise
            sentence, code = ("interrupted.", 128 + stopped[0]) if stopped else _failure(error)
            told = printable(" ".join([sentence, *getattr(error, "__notes__", ())]))
            print("onnxslim-learn:", told, file=sys.stderr)
            if following := getattr(error, "next", ""):
                print(f"  {printable(following)}", file=sys.stderr)
            return code


def _unread(descriptor: int) -> bool:
    """Whether what is written there goes to a pipe that nobody reads any more; true where the system does not tell."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextmanager
def errors_only(name: str) -> Iterator[None]:
    """Keep warnings of a library, which speak to programmers, off the terminal while a block runs."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Raise ``KeyboardInterrupt`` when told to end, so that ``finally`` cleans up; yields the signals that came.

    Libraries that are being imported turn the exception into others, which only the signals tell from defects.
    """
    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (stopping.stops() if here else [])}
    heard = [number for number in before if before[number] != signal.SIG_IGN]  # nohup ignores SIGHUP
    for number in heard:
        signal.signal(number, stop)
    try:
        with stopping.ending_at(heard) if here else nullcontext():
            yield came
    finally:
        for number in heard:
            signal.signal(number, before[number])


@contextmanager
def logged(log: Log | None) -> Iterator[None]:
    """Write to a log what went wrong while a block ran, too."""
    try:
        yield
    except BaseException as error:
        if log is not None and not isinstance(error, SystemExit | GeneratorExit):
            log.write(_failure(error)[0])
        raise


# As libraries say it, oneDNN last.
_NO_MEMORY = re.compile("bad.alloc|allocate memory|out of memory|could not create a primitive", re.IGNORECASE)


def _failure(error: BaseException) -> tuple[str, int]:
    """One sentence and the exit code for what went wrong."""
    if isinstance(error, SlimError):
        from onnxslim_learn.cli.parser import flag

        return error.told(flag), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", 130
    said = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or _NO_MEMORY.search(said):
        told = f" ({reason(error)})" if said else ""
        return f"out of memory{told}. Give smaller shapes with --input, or a machine with more.", 2
    if isinstance(error, ImportError) and str(error.path).endswith(tuple(EXTENSION_SUFFIXES)):
        return f"{said}. Free memory, or install the library again.", 2
    if isinstance(error, OSError):
        return f"{error.filename or 'output'}: {error.strerror or said}. Check the place and its free space.", 2
    return f"a defect of ours, {type(error).__name__}: {said}. Please report it; {DEBUG}=1 shows where.", DEFECT


def show(result: Any, told: ShellSettings, log: Log | None, *, printed: bool) -> None:
    """Print a result: as JSON, as tables, or in one line."""
    from onnxslim_learn.report import terminal

    for note in result.notes:
        if not told.quiet or not result.passed:
            print("onnxslim-learn:", printable(note), file=sys.stderr)
        if log is not None:
            log.write(note)
    if log is not None:
        log.write(terminal.plain(result.shown()))
    if printed:
        sys.stdout.write(result.to_json())
    elif told.quiet:
        print(printable(result.in_short()))
    else:
        terminal.show(result.shown(), opened=told.verbose)
