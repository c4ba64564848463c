"""Look at a model in a browser, choose widths by hand, and take the plan home."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from onnxslim_learn.array_types import Stage, Watcher, staged
from onnxslim_learn.commands import models
from onnxslim_learn.commands.asked import words
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import Result
from onnxslim_learn.commands.slim import measured
from onnxslim_learn.errors import InputError, PlanError
from onnxslim_learn.report import page, records
from onnxslim_learn.report.blocks import flat
from onnxslim_learn.report.format import plural
from onnxslim_learn.report.sections import view as pages
from onnxslim_learn.report.served import Served
from onnxslim_learn.report.side_by_side import beside
from onnxslim_learn.select.by_hand import ByHand, by_hand
from onnxslim_learn.select.schedule import WORK
from onnxslim_learn.workflow import samples as sampling
from onnxslim_learn.workflow.options import RepairSettings
from onnxslim_learn.workflow.settings import ViewSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.commands.asked import Change
    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.data.source import Source
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.report.blocks import Block

BOTH = 2  # models, at most


@dataclass(frozen=True, eq=False, repr=False)
class View(Result):
    """A model to be looked at, and what makes plans of widths that are chosen by hand.

    Attributes:
        choice: Its groups, in the order in which their units go, and what they lose.
        port: Where the page is served; a free port by default.
        opens: Whether the page opens in a browser.
    """

    choice: ByHand = field(kw_only=True)
    port: int | None = field(default=None, kw_only=True)
    opens: bool = field(default=False, kw_only=True)

    def plan_of(self, widths: dict[str, int]) -> Plan:
        """The plan that keeps so many units of groups, and all of those that are not named.

        Raises:
            PlanError: If a group cannot have that width.
        """
        return self.choice.plan(widths)

    def shown(self) -> list[Block]:
        """What a terminal tells: costs, and what losses rest on."""
        return [*flat(pages.summary(self.report))]

    def served(self) -> Served:
        """The page on this machine, not yet answering: ``serve_forever`` does.

        Raises:
            InputError: If the port cannot be had.
        """
        render = partial(page.render, self.title, self.report, self.page())
        return Served(lambda plans: render(plans=plans), self._posted, self.port)

    def stay(self, say: Callable[[str], None]) -> None:
        """Serve the page until somebody ends it with Ctrl-C."""
        with self.served() as server:
            say(f"{server.url}\nOnly this machine reaches it, with that token. Ctrl-C ends it.")
            if self.opens:
                webbrowser.open(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return

    def _posted(self, given: Any) -> str:
        """The text of the plan of the widths that a page posts."""
        widths = given.get("widths") if isinstance(given, dict) else None
        if not isinstance(widths, dict) or not all(type(width) is int for width in widths.values()):
            raise PlanError("expected widths, a whole number for each group. Load the page again.")
        return self.plan_of(widths).to_json()


@command("view", ViewSettings)
def view(*given: Model, progress: Watcher | None = None, settings: ViewSettings) -> View:
    """Make the page of a model on which widths are chosen by hand; with a second model, both side by side.

    Args:
        given: Paths of one or two ``.onnx`` files, models in memory, or analyses of them.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Returns:
        The page, which ``stay`` serves until it is interrupted.

    Raises:
        InputError: If a model or a keyword cannot be used.
    """
    given = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
    if not 0 < len(given) <= BOTH:
        raise InputError(f"view: takes one model, or two to compare, but got {len(given)}. Leave some out.")
    claim(settings, *map(models.present, given))
    sampling.check(settings.samples)
    machine, stage = models.device(settings.clock.device), staged(progress)
    if settings.measure and machine is not None:
        raise InputError("⟨measure⟩: measures this machine, and ⟨device⟩ is another. Leave one of them out.")
    stage("analyzing")
    sensitive = settings.allow_sensitive
    analysis, source = models.sampled(given[0], settings.inputs, settings.samples, sensitive=sensitive, machine=machine)
    other = None
    if len(given) > 1:
        other = models.understood(given[1], settings.inputs, sensitive=sensitive, machine=machine)
    if settings.measure:
        analysis, _ = measured(analysis, settings.runtime, settings.clock.measure_seconds, stage)
    choice, losses = _choice(analysis, source, settings, stage)
    report = _report(analysis, other, choice) | {"view": {"losses": losses, "options": _options(settings)}}
    title = " ".join(["view", *map(models.named, given)])
    return View(title, report, pages.blocks, pages.rows, choice=choice, port=settings.port, opens=settings.open)


def _choice(analysis: Analysis, source: Source | None, settings: ViewSettings, stage: Stage) -> tuple[ByHand, str]:
    """What can be chosen, and what the losses of that rest on."""
    if settings.work == 0 and source is None:
        return by_hand(analysis, settings.criterion), "unknown: --work 0"
    source = source or sampling.gathered(analysis, settings.samples, stage, repair=RepairSettings())
    if sampling.run_away(analysis, source):
        return by_hand(analysis, settings.criterion), "unknown: the model's numbers are none on made-up inputs"
    work = WORK if settings.work is None and source is not None and source.synthetic else settings.work
    known = sampling.calibration(analysis, source, settings.samples, repair=True, work=work)
    choice = by_hand(analysis, settings.criterion, known, stage("finding losses"))
    return choice, _rests_on(choice, source)


def _rests_on(choice: ByHand, source: Source | None) -> str:
    """What losses rest on, in a sentence."""
    if not choice.curves or source is None:
        return "unknown: more --work finds it out"
    measured, groups = len(choice.measured), plural(len(choice.curves), "group")
    how = "measured"
    if measured < len(choice.curves):
        how = f"measured of {measured} of {groups}, predicted of the others" if measured else "predicted"
    where = "made-up inputs, which say little about yours: give --data" if source.synthetic else source.name
    return f"the sum of what each group loses by itself, after repair; {how}, on {where}"


def _options(settings: ViewSettings) -> list[str]:
    """Words of this command that one which cuts has, too."""
    data, shapes = settings.samples.data, settings.inputs.input
    told: dict[str, Change] = {"data": None if data is None else str(data)}
    told |= {"allow_sensitive": settings.allow_sensitive}
    told["input"] = [f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items()]
    return [word for name, one in told.items() for word in words(name, one)]


def _report(analysis: Analysis, other: Analysis | None, choice: ByHand) -> dict[str, Any]:
    """What there is to tell of a model, or of two."""
    curves = {name: {str(kept): lost for kept, lost in curve.items()} for name, curve in choice.curves.items()}
    report = records.overview(analysis) | {"choice": {"criterion": choice.criterion, "curves": curves}}
    return report if other is None else beside(report, analysis, other)
