"""How far a command is, told while it runs: by a bar on a terminal, by lines, or in a file."""

from __future__ import annotations

import re
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from onnxslim_learn.cli import guard
from onnxslim_learn.report.format import STEP, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnxslim_learn.array_types import Watcher

TURN = re.compile(r"( from step)? \d+ of \d+$")  # of a stage that runs several times


@contextmanager
def progress(
    stages: Sequence[str], *, quiet: bool = False, verbose: bool = False, log: Log | None = None
) -> Iterator[Watcher]:
    """Tell of stages before and while they run: on standard error if that is a terminal or if asked to, and in a file.

    All are listed when the first begins: by then, options that do not fit have been refused.

    Args:
        stages: Those that will run, as far as is known.
        quiet: Say nothing on standard error.
        verbose: Say it by lines, to terminals and files alike.
        log: Where everything is written.
    """
    place = Place(stages)
    watchers: list[Watcher] = [guard.note]
    watchers += [] if log is None else [_listed(place, log.tell, log.write)]
    if verbose and not quiet:
        watchers.append(_lines(place))
    with _bar(place, shown=not quiet and not verbose) as bar:
        watchers.append(bar)

        def tell(stage: str, share: float, numbers: Mapping[str, float]) -> None:
            for watcher in watchers:
                watcher(stage, share, numbers)

        yield tell


class Place:
    """Which of the stages runs.

    Attributes:
        stages: Those that will run, as far as is known.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages = list(stages)

    def told(self, stage: str) -> str:
        """A stage with its number."""
        name = TURN.sub("", stage)
        if name not in self.stages:
            return stage
        return f"{self.stages.index(name) + 1} of {len(self.stages)}: {stage}"


def _listed(place: Place, watcher: Watcher, say: Callable[[str], None]) -> Watcher:
    """A watcher before whose first stage all are listed."""
    todo = [f"stages: {', '.join(place.stages)}"] if place.stages else []

    def tell(stage: str, share: float, numbers: Mapping[str, float]) -> None:
        while todo:
            say(todo.pop())
        watcher(stage, share, numbers)

    return tell


def _lines(place: Place) -> Watcher:
    """A line on standard error for every stage that begins."""
    last = [""]

    def say(text: str) -> None:
        print(f"onnxslim-learn: {text}", file=sys.stderr)

    def tell(stage: str, share: float, numbers: Mapping[str, float]) -> None:
        if stage != last[0]:
            last[0] = stage
            say(place.told(stage))

    return _listed(place, tell, say)


@contextmanager
def _bar(place: Place, *, shown: bool) -> Iterator[Watcher]:
    """A bar on standard error where that is a terminal, with times passed and left, and a line of numbers below."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if not shown or not console.is_terminal:
        yield lambda stage, share, numbers: None
        return
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    left = TimeRemainingColumn(compact=True)
    described, after = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
    bar = Progress(described, BarColumn(), TimeElapsedColumn(), left, after, console=console)
    below = Text(no_wrap=True, overflow="ellipsis")
    with Live(Group(bar, below), console=console, transient=True) as live:
        tasks: list[Any] = []

        def tell(stage: str, share: float, numbers: Mapping[str, float]) -> None:
            if share == 0 and not numbers:
                for task in tasks:
                    bar.update(task, visible=False)
                tasks.append(bar.add_task(place.told(stage), total=None, left=""))
                below.plain = ""
                live.refresh()
                return
            bar.update(tasks[-1], total=1.0, completed=share, left="left")
            below.plain = step(numbers)

        yield _listed(place, tell, lambda text: console.print(text[:1].upper() + text[1:]))


class Log:
    """A file of all that a command told, with times.

    Attributes:
        file: Where it is written.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self._last = ("", -1, 0.0)

    def write(self, text: str) -> None:
        """Write lines, each with the time."""
        now = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        self.file.writelines(f"{now} {line}".rstrip() + "\n" for line in text.splitlines())
        self.file.flush()

    def tell(self, stage: str, share: float, numbers: Mapping[str, float]) -> None:
        """Write that a stage began, every whole per cent of it, and all numbers."""
        name, percent, begun = self._last
        if share == 0 and not numbers and (stage != name or percent):
            self._last = (stage, 0, time.monotonic())
            self.write(stage)
            return
        if not numbers and stage == name and int(100 * share) <= percent:
            return
        self._last = (stage, int(100 * share), begun)
        others = (f"{key} {value:.6g}" for key, value in numbers.items() if key not in STEP)
        said = "".join(f", {one}" for one in (step(numbers), *others) if one)
        passed = time.monotonic() - begun
        left = f", {passed / share - passed:.0f} s left" if 0 < share < 1 else ""
        self.write(f"{stage}: {100 * share:.0f} %{said}{left}")


@contextmanager
def logging(path: str | None) -> Iterator[Log | None]:
    """A log in a file; ``None`` without one."""
    if path is None:
        yield None
        return
    with Path(path).open("w", encoding="utf-8") as file:
        yield Log(file)
