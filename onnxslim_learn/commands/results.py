"""What commands return: a report as data, and for those that write a model the model."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from onnxslim_learn.errors import InputError
from onnxslim_learn.report import figures, page
from onnxslim_learn.report.blocks import flat, in_sections
from onnxslim_learn.report.format import before_and_after, ms, share
from onnxslim_learn.report.sections import network, verdict
from onnxslim_learn.rewrite import save
from onnxslim_learn.runtime import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    import pandas

    from onnxslim_learn.analysis import Analysis
    from onnxslim_learn.plans.plan import Plan
    from onnxslim_learn.report.blocks import Block, Section
    from onnxslim_learn.rewrite.verify import Verification
    from onnxslim_learn.workflow.options import ReportSettings

Blocks: TypeAlias = Callable[[Any], Sequence["Block"]]
Rows: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]

WORSE = 3  # exit code of a result that is worse than was asked for


class Reported:
    """What has a report.

    Attributes:
        title: The command and the files it was given.
        report: What there is to report, as plain data: what ``--json`` writes.
        blocks: Tells the report as tables and charts.
        rows: Of the report, for :meth:`to_frame`.
        passed: Whether what was checked holds.
        failure: Exit code of the command line where it does not.
        notes: Sentences beside the report.
    """

    title: str
    report: dict[str, Any]
    blocks: Blocks
    rows: Rows
    passed: bool = True
    failure: int = 1
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows of the report as a table of pandas.

        Raises:
            InputError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise InputError("to_frame: needs pandas. Install onnxslim-learn[frames].") from error
        return pandas.DataFrame([dict(row) for row in self.rows(self.report)])

    def to_html(self) -> str:
        """Return the report as a page with charts."""
        return page.render(self.title, self.report, self.page())

    def _repr_html_(self) -> str:
        """The page in a frame: what notebooks show."""
        return f'<iframe srcdoc="{html.escape(self.to_html())}" style="width:100%;height:40em;border:0"></iframe>'

    def page(self) -> list[Section]:
        """What the page of a report shows, in its sections."""
        ending = [*verdict.widths(self.report), *network.blocks(self.report)]
        return in_sections([*self.blocks(self.report), *ending])

    def in_short(self) -> str:
        """The verdict in one line."""
        return verdict.line(self.report, self.title)

    def shown(self) -> list[Block]:
        """The report as tables and charts, and what was done at its end."""
        return [*flat(self.blocks(self.report)), *flat(verdict.blocks(self.report))]

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.report, indent=1) + "\n"

    def stay(self, say: Callable[[str], None]) -> None:
        """What goes on after the result was shown, until somebody ends it; by default nothing.

        Args:
            say: Called with what there is to say of it.
        """

    def ends(self, ending: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Add to the report what stands at its end, made of what it says."""
        self.report.update(ending(self.report))

    def told(self, where: ReportSettings) -> Self:
        """The same result, its report written where that was asked for."""
        if where.html is not None:
            atomic.write_text(Path(where.html), self.to_html())
        if where.json is not None:
            atomic.write_text(Path(where.json), self.to_json())
        if where.report_dir is not None:
            figures.save(Path(where.report_dir), self.page())
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Result(Reported):
    """What a command found; see :class:`Reported`."""

    title: str
    report: dict[str, Any]
    blocks: Blocks
    rows: Rows
    passed: bool = True
    notes: tuple[str, ...] = ()
    failure: int = 1

    def __repr__(self) -> str:
        return f"<{self.title}: {len(self.rows(self.report))} rows>"


@dataclass(frozen=True, eq=False, repr=False)
class ModelResult(Result):
    """A model that a command made, verified.

    Attributes:
        file: Where it lies; in a place that goes with the result unless ``output`` was given.
        analysis: The model it was made of.
        plan: What was kept, where channels were cut.
        verification: How it was checked, where it was compared with the masked original.
    """

    file: Path = field(kw_only=True)
    analysis: Analysis = field(kw_only=True)
    plan: Plan | None = field(default=None, kw_only=True)
    verification: Verification | None = field(default=None, kw_only=True)
    place: TemporaryDirectory[str] | None = field(default=None, kw_only=True)

    @property
    def model(self) -> onnx.ModelProto:
        """The model in memory."""
        import onnx

        return onnx.load(self.file)

    def save(self, path: str | Path) -> ModelResult:
        """Write the model to another place, too; it is verified already.

        Raises:
            InputError: If the place cannot be written.
        """
        source = self.analysis.graph.source
        if source is not None:
            save.spare(source, Path(path))
        save.copy(self.file, Path(path))
        return self

    def __repr__(self) -> str:
        return "\n".join([f"<{self.title}", *_costs(self.report), *_checks(self.report)]) + ">"


def _costs(report: Mapping[str, Any]) -> Iterator[str]:
    """A line for the costs before and after."""
    before, after = report["before"], report["after"]
    sides = [f"{title} {old} -> {new}" for title, old, new, _ in before_and_after(report, "file")]
    if before.get("latency_ms") and after.get("latency_ms"):
        sides.append(f"latency {ms(before['latency_ms'])} -> {ms(after['latency_ms'])}")
    yield "  " + ", ".join(sides)


def _checks(report: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the verification, and for how far outputs are from the original's."""
    check = report.get("verify")
    if check:
        said = "verified" if check["passed"] else "not verified"
        yield f"  {said} on {check['runs']} inputs, largest relative difference {check['max_rel_diff'] or 0:.1e}"
    repair = report.get("repair")
    far = report.get("deviation") or (repair or {}).get("after" if (repair or {}).get("kept") else "before") or {}
    if far:
        worst = max(far, key=lambda name: far[name]["relative"])
        yield f"  output {worst} is {share(far[worst]['relative'])} from the original's on held-back samples"


# --- places -----------------------------------------------------------------------------------------------------------


@contextmanager
def place(output: str | Path | None, name: str) -> Iterator[tuple[Path, TemporaryDirectory[str] | None]]:
    """Where a model is written: what was asked for, or a file in a folder that lives as long as the result."""
    if output is not None:
        yield Path(output), None
        return
    folder = TemporaryDirectory(prefix=atomic.PREFIX)
    try:
        yield Path(folder.name, name), folder
    except BaseException:
        folder.cleanup()
        raise
