"""What every command has in common: its options are keywords, its stages are timed, and it ends with a verdict."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from onnxslim_learn import settings as declared
from onnxslim_learn.commands import about, models, verdict
from onnxslim_learn.commands.asked import Asked, Change, words
from onnxslim_learn.commands.case import Case
from onnxslim_learn.errors import TargetError
from onnxslim_learn.keywords import Keywords, takes
from onnxslim_learn.keywords import keywords as fields_of
from onnxslim_learn.report import notebook
from onnxslim_learn.workflow.options import ReportSettings

if TYPE_CHECKING:
    from onnxslim_learn.array_types import Watcher

R = TypeVar("R")


@dataclass
class Clock:
    """A watcher that takes the time of stages, and passes on what it is told.

    Attributes:
        watcher: Whom it tells.
        seconds: Stage -> how long it took, all its turns together, in the order of their first.
    """

    watcher: Watcher | None
    seconds: dict[str, float] = field(default_factory=dict)
    _running: tuple[str, float] | None = None

    def __call__(self, stage: str, share: float, numbers: Mapping[str, float]) -> None:
        """Take note."""
        if share == 0 and not numbers:
            self.stop()
            self._running = stage, time.monotonic()
        if self.watcher is not None:
            self.watcher(stage, share, numbers)

    def stop(self) -> None:
        """End the stage that is running."""
        if self._running is not None:
            stage, begun = self._running
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - begun
            self._running = None


def command(name: str, taken: type | Keywords, **fixed: Change) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Make a public command of a function that takes its options as its last argument.

    Options become keywords (:func:`onnxslim_learn.keywords.takes`); what it returns gets the time of its stages and a
    verdict, and is written where ``html`` and ``json`` say.

    Args:
        name: What the command line calls it.
        taken: Its options.
        **fixed: Options that the command line needs to do the same.
    """
    keywords = taken if isinstance(taken, Keywords) else fields_of(taken)

    def decorate(act: Callable[..., R]) -> Callable[..., R]:
        inner = takes(keywords)(act)
        *places, _ = (one for one in inspect.signature(act).parameters if one != "progress")
        signature = _Signature(name, keywords, tuple(places), fixed)

        @functools.wraps(inner)
        def public(*given: Any, progress: Watcher | None = None, **more: Any) -> R:
            try:
                with notebook.watching(progress) as watcher:
                    clock = Clock(watcher)
                    result: Any = inner(*given, progress=clock, **more)
            except TargetError as error:
                if error.changes:
                    error.next = signature.asked(given, more).line(**error.changes)
                raise
            clock.stop()
            if result is not None:
                asked = signature.asked(given, more)
                result.ends(lambda report: _ending(asked, result, clock, report))
                result.told(_reported(keywords, more))
            return result  # type: ignore[no-any-return]

        return public

    return decorate


def _ending(asked: Asked, result: Any, clock: Clock, report: Mapping[str, Any]) -> dict[str, Any]:
    """What stands at the end of a report."""
    stages = [{"name": stage, "seconds": round(seconds, 3)} for stage, seconds in clock.seconds.items()]
    told = verdict.of(Case(asked, report, result))
    return {"verdict": told, "stages": stages, "run": about.run(asked, told["written"])}


@dataclass(frozen=True)
class _Signature:
    """What a command takes.

    Attributes:
        name: What the command line calls it.
        keywords: Its options.
        places: What is given by its place; of a single one there may be several.
        fixed: Options that the command line needs to do the same.
    """

    name: str
    keywords: Keywords
    places: tuple[str, ...]
    fixed: Mapping[str, Change]

    def asked(self, given: Sequence[Any], more: Mapping[str, Any]) -> Asked:
        """What was asked for, in the words of the command line."""
        known = self.keywords.where(more)
        if len(self.places) == 1:
            several = [one for value in given for one in (value if isinstance(value, list | tuple) else [value])]
            named = [(self.places[0], value) for value in several]
        else:
            named = [*zip(self.places, given, strict=False)]
        named += [(place, more[place]) for place in self.places if place in more]
        files = tuple(_file(value, place) for place, value in named if place not in known and value is not None)
        options = {name: value for name, value in more.items() if name not in self.places}
        options |= {place: value for place, value in named if place in known}
        words_given = declared.words(known, options) | {name: words(name, one) for name, one in self.fixed.items()}
        writes = tuple(option for option, one in known.items() if one.option.writes)
        needs = tuple(option for option, one in known.items() if one.option.required)
        carried_out = "apply" if self.name == "slim" and len(files) > 1 else self.name
        return Asked(carried_out, files, words_given, writes, needs)


def _file(value: Any, place: str) -> str:
    """A file as it is given, or what stands for it."""
    return str(models.read(value) or place.upper())


def _reported(keywords: Keywords, more: Mapping[str, Any]) -> ReportSettings:
    """Where the report is written."""
    asked = declared.with_file(keywords.where(more), more)
    return declared.build(ReportSettings, {name: asked.get(name) for name in declared.options(ReportSettings)})
