"""How the command line answers, whatever the command: what goes where, and how it ends.

Results go to standard output, progress to standard error. Exit codes: 0 done; 1 a check failed or a target cannot be
reached; 2 bad usage or bad input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import InputError, SlimError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.costs.devices import Device
    from onnxslim_learn.report.blocks import Block
    from onnxslim_learn.workflow.latency_target import Watch

OUTPUTS = {"-o": "output", "--plan-out": "plan_out", "--html": "html", "--json": "json"}  # flag -> option
SHOWN = ("loss", "regularization", "term", "cost", "alive")  # numbers of a step that the progress bar has room for
DEBUG = "ONNXSLIM_LEARN_DEBUG"
DEFECT = 70  # as in sysexits.h: an internal software error
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, kill, a closed terminal


def answer(act: Callable[[], int]) -> int:
    """Carry out a command; returns its exit code, or that of what went wrong, which is said in one sentence."""
    with _stoppable() as stopped:
        try:
            return act()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except BaseException as error:
            if os.environ.get(DEBUG) or isinstance(error, SystemExit | GeneratorExit):
                raise
            sentence, code = ("interrupted.", 128 + stopped[0]) if stopped else _failure(error)
            print("onnxslim-learn:", sentence, *getattr(error, "__notes__", ()), file=sys.stderr)
            return code


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
    known = [getattr(signal, name) for name in STOPS if hasattr(signal, name)] if here else []
    before = {number: signal.getsignal(number) for number in known}
    heard = [number for number in known if before[number] != signal.SIG_IGN]  # nohup ignores SIGHUP
    for number in heard:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _failure(error: BaseException) -> tuple[str, int]:
    """One sentence and the exit code for what went wrong."""
    if isinstance(error, SlimError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return "out of memory. Give smaller shapes with --input, or a machine with more.", 2
    if isinstance(error, OSError):
        return f"{error.filename or 'output'}: {error.strerror}. Check the place and its free space.", 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", 130
    said = (str(error).strip().splitlines() or [""])[0]
    return f"a defect of ours, {type(error).__name__}: {said}. Please report it; {DEBUG}=1 shows where.", DEFECT


@contextmanager
def progress() -> Iterator[Callable[[str], Callable[..., None]]]:
    """A progress bar on standard error: call it with a stage's name to get a function of the share done.

    That function takes what there is to say beside it, too.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: list[Any] = []

        def stage(name: str) -> Callable[..., None]:
            for task in tasks:
                bar.update(task, visible=False)
            task = bar.add_task(name, total=None)
            tasks.append(task)

            def done(share: float, said: str = "") -> None:
                bar.update(task, total=1.0, completed=share, description=f"{name} {said}".rstrip())

            return done

        yield stage


def watching(stage: Callable[[str], Callable[..., None]]) -> Callable[[str, int], Callable[..., None]]:
    """What shows training on a progress bar: for a stage's name and steps a function of the step and its numbers."""

    def watch(name: str, steps: int) -> Callable[[int, Mapping[str, float]], None]:
        done = stage(name)

        def show(step: int, numbers: Mapping[str, float]) -> None:
            said = ", ".join(f"{key} {numbers[key]:.3g}" for key in SHOWN if key in numbers)
            done((step + 1) / steps, said)

        return show

    return watch


def emit(data: dict[str, Any], options: argparse.Namespace, blocks: Sequence[Block]) -> None:
    """Write a result as a page and as JSON where asked for, and print it unless JSON takes standard output."""
    from onnxslim_learn.report import html, terminal
    from onnxslim_learn.rewrite import save

    if options.html:
        files = [vars(options).get(name) for name in ("model", "original", "slimmed", "output")]
        about = [options.command, *filter(None, files), *vars(options).get("models", [])]
        save.write_text(Path(options.html), html.page(" ".join(about), blocks))
    text = json.dumps(data, indent=1) + "\n"
    if options.json == "-":
        sys.stdout.write(text)
        return
    if options.json:
        save.write_text(Path(options.json), text)
    terminal.show(blocks)


def claim(options: argparse.Namespace, *read: str) -> None:
    """Refuse result files that cannot be written, that are read as well, or that are named twice, before any work.

    Args:
        options: The command line's options.
        read: Files that the command reads.

    Raises:
        InputError: With the option at fault.
    """
    from onnxslim_learn.rewrite import save
    from onnxslim_learn.runtime import timing

    if getattr(options, "provider", None):
        timing.check_provider(options.provider)
    taken = {file.resolve(): "is read by this command" for name in read for file in save.files(Path(name))}
    for flag, name in OUTPUTS.items():
        text = getattr(options, name, None)
        if text is None or (text == "-" and flag == "--json"):
            continue
        path = Path(text)
        if text in ("", "-"):
            raise InputError(f"{flag} {text!r}: is no file name. Give one.")
        save.check_target(path, flag)
        if path.resolve() in taken:
            raise InputError(f"{flag} {text}: {taken[path.resolve()]}. Give another name.")
        taken[path.resolve()] = f"is written by {flag} as well"
        if flag == "-o":
            taken.setdefault(path.resolve().with_name(f"{path.name}.data"), "may hold the weights of -o")


def device(options: argparse.Namespace) -> Device | None:
    """The machine that was given."""
    from onnxslim_learn.costs.devices import load

    return None if options.device is None else load(options.device)


def watch(options: argparse.Namespace, found: Analysis, stage: Any) -> tuple[Analysis, Watch]:
    """What widths are worth on this machine, and how to time what is made of them."""
    from onnxslim_learn.latency.profile import Setting
    from onnxslim_learn.workflow import latency_target

    return latency_target.prepare(
        found,
        Setting(options.threads, options.provider),
        seconds=options.seconds,
        measure_seconds=options.measure_seconds,
        stage=stage,
    )
