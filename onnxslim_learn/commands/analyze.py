"""Show what can be cut, what cannot and why."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.analysis import Analysis
from onnxslim_learn.array_types import Watcher, staged
from onnxslim_learn.commands import models
from onnxslim_learn.commands.command import command
from onnxslim_learn.commands.files import claim
from onnxslim_learn.commands.results import Reported
from onnxslim_learn.coupling import explain
from onnxslim_learn.report import graph_files, records
from onnxslim_learn.report.sections import slim as pages
from onnxslim_learn.workflow.graphs import coupling_graph, dataflow
from onnxslim_learn.workflow.settings import AnalyzeSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnxslim_learn.commands.models import Model
    from onnxslim_learn.coupling.explain import Step
    from onnxslim_learn.report.blocks import Block


class Understood(Analysis, Reported):
    """An analysis, and what it reports."""

    @property
    def title(self) -> str:  # type: ignore[override]
        """The command and the file."""
        return f"analyze {self.graph.source or 'model'}"

    @cached_property
    def report(self) -> dict[str, Any]:  # type: ignore[override]
        """What there is to report, as plain data: what ``analyze ⟨json⟩`` writes."""
        report = records.overview(self)
        ending = vars(self).get("ending")
        return report if ending is None else {**report, **ending(report)}

    def ends(self, ending: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Add to the report what stands at its end: when it is looked at, if nobody has."""
        if "report" in vars(self):
            super().ends(ending)
        vars(self)["ending"] = ending

    @staticmethod
    def blocks(report: Mapping[str, Any]) -> list[Block]:
        """Tell a report as tables and charts."""
        return pages.analysis(report)

    @staticmethod
    def rows(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The groups, those that cannot go included."""
        return [*report["groups"], *report["pinned"]]

    def why(self, question: str) -> list[Step]:
        """Explain by a path why a group (or tensor axis) cannot go, or why ``axis,axis`` are coupled.

        Raises:
            InputError: If the question names nothing.
        """
        return explain.why(self.coupling, self.groups, question)


@command("analyze", AnalyzeSettings)
def analyze(model: Model, *, progress: Watcher | None = None, settings: AnalyzeSettings) -> Understood:
    """Understand a model: what can be cut, what cannot and why, and what everything costs.

    Args:
        model: Path of an ``.onnx`` file, or a model in memory.
        progress: Called with the name of a stage, the share of it that is done, and numbers.
        settings: Its keywords, below.

    Raises:
        InputError: If the model or a keyword cannot be used.
    """
    claim(settings, models.present(model))
    machine = models.device(settings.device)
    for parameter in ("graph", "dataflow"):
        if (file := getattr(settings, parameter)) is not None:
            graph_files.check(Path(file), f"⟨{parameter}⟩")
    staged(progress)("analyzing")
    analysis = models.understood(model, settings.inputs, sensitive=settings.allow_sensitive, machine=machine)
    answer = Understood(*(getattr(analysis, one.name) for one in fields(Analysis)))
    if settings.why:
        answer.report["why"] = {text: [asdict(step) for step in answer.why(text)] for text in settings.why}
    if settings.graph is not None:
        graph_files.save(coupling_graph(answer), Path(settings.graph))
    if settings.dataflow is not None:
        graph_files.save(dataflow(answer), Path(settings.dataflow))
    return answer
