"""A command that has ended: what it was told to do, what it reports, and what that says of its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.readers import share as share_of
from onnxslim_learn.report.sections import quality

if TYPE_CHECKING:
    from onnxslim_learn.commands.asked import Asked, Change

CUTS = ("slim", "apply", "learn")


@dataclass(frozen=True)
class Case:
    """A command that has ended.

    Attributes:
        asked: What it was told to do.
        report: What it reports.
        result: What it returns.
    """

    asked: Asked
    report: Mapping[str, Any]
    result: Any

    @property
    def model(self) -> str:
        """The file it began with."""
        return self.asked.files[0] if self.asked.files else "MODEL.onnx"

    @property
    def output(self) -> str:
        """The file it wrote, or what it may be called."""
        return str(self.asked.value("output") or beside(self.model, "slim"))

    @property
    def several(self) -> list[Mapping[str, Any]]:
        """A row for each of several models that were asked for; empty where there is one."""
        return self.report.get("targets") or self.report.get("strengths") or []

    @property
    def outputs(self) -> list[str]:
        """The files of several models that were asked for, those that were written."""
        return [str(row["output"]) for row in self.several if row["output"]]

    @property
    def plans(self) -> list[str]:
        """Their plans, likewise."""
        return [str(row["plan"]) for row in self.several if row.get("plan")]

    @property
    def each(self) -> list[Case]:
        """One case for every model that is reported by itself."""
        reports = [row["report"] for row in self.several if "report" in row]
        return [replace(self, report=report) for report in reports or [self.report]]

    @property
    def bounds(self) -> list[Mapping[str, Any]]:
        """A row for every cost that was bounded; of several models those of the smallest."""
        return min((bounds(one.report) for one in self.each), key=lambda rows: [row["got"] for row in rows])

    @property
    def judged(self) -> list[Mapping[str, Any] | None]:
        """How good every model that was written is."""
        return [row.get("quality") for row in self.several or [self.report]]

    @property
    def doubts(self) -> list[str]:
        """Why the samples are hardly what the model was made for."""
        return list(dict.fromkeys(doubt for one in self.judged if one for doubt in one.get("doubts") or ()))

    @property
    def cure(self) -> dict[str, str]:
        """The options that doubts advise: keyword -> value; empty where what was given as it is has to change."""
        return {name: value for one in self.judged if one for name, value in (one.get("cure") or {}).items()}

    @property
    def unknown(self) -> bool:
        """Whether nothing, or little, tells how good what was cut is on real inputs."""
        little = any(one is not None and quality.tells_little(one) for one in self.judged)
        return ("data" not in self.asked.options or little) and bool(self.changed)

    @property
    def changed(self) -> bool:
        """Whether outputs are others than those of the original."""
        return not self.report.get("lossless") and self.asked.command in (*CUTS, "sparsify", "demo")

    @property
    def worst(self) -> float:
        """The least share that is left of what any model says; 1 where nobody knows."""
        return min([quality.weakest(one)[0] for one in self.judged if one], default=1.0)

    @property
    def least(self) -> float | None:
        """The share that was to be left of the metric, else of the variance of the worst block."""
        asked = self.asked.value("min_quality")
        return None if asked is None else share_of(asked)

    @property
    def lacking(self) -> bool:
        """Whether less is left than is good, or than was asked for."""
        lacks = any(one and quality.fault(one, self.least) for one in self.judged)
        return self.changed and (lacks or self.worst < quality.GOOD)

    @property
    def needed(self) -> int:
        """How many real samples tell how good it is."""
        return max([quality.needed(one) for one in self.judged if one and quality.few(one)], default=quality.ENOUGH)

    @property
    def faster(self) -> bool:
        """Whether what was written is faster, or was not timed."""
        timed = compared(self.report)
        return timed is None or timed["faster"] is True

    def again(self, **changes: Change) -> str:
        """The same command with other options."""
        return self.asked.line(**changes)

    def kept(self, *names: str) -> dict[str, Change]:
        """Options that another command is given, too."""
        return {name: self.asked.options[name][1::2] for name in names if self.asked.options.get(name)}


def beside(path: str, name: str) -> str:
    """Another file beside one."""
    file = Path(path)
    return str(file.with_name(f"{file.stem}-{name}.onnx"))


def compared(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a model's time compares with that of another, where there is one of each."""
    pairs = [pair for setting in report.get("settings", ()) for pair in setting["comparisons"]]
    timed = pairs[0] if len(pairs) == 1 else report.get("speed") or report.get("latency")
    return timed if timed and "ratio" in timed else None


def bounds(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A row for every cost that was bounded."""
    return (report.get("verdict") or {}).get("met") or []
