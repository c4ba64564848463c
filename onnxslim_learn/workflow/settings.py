"""What can be asked of the commands: every field is a flag of the command line and a keyword in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from onnxslim_learn.costs import targets
from onnxslim_learn.data.options import SampleSettings
from onnxslim_learn.errors import InputError
from onnxslim_learn.readers import AUTO, any_number, listed, number, port, positive, printable, provider, threads, whole
from onnxslim_learn.registry import METHODS, PROTOCOLS, SPREAD, UNIFORM
from onnxslim_learn.runtime.settings import SECONDS, RuntimeSettings
from onnxslim_learn.settings import Option, declared, option, part
from onnxslim_learn.workflow.options import (
    BASES,
    CONFIG,
    CRITERION,
    DEVICE,
    EMPTY,
    GRAPH,
    LOSSLESS_TOO,
    MULTIPLE,
    NO_LATENCY,
    PATTERN,
    PLAN_OUT,
    PROTECT,
    SENSITIVE,
    SENSITIVITY,
    SPARSE_INITIALIZERS,
    TARGET,
    WORK,
    WORKERS,
    ClockSettings,
    DistillationSettings,
    InputSettings,
    LimitSettings,
    QualitySettings,
    RepairSettings,
    ReportSettings,
    ResultSettings,
    output,
)


@dataclass(frozen=True)
class AnalyzeSettings:
    """What can be asked of ``analyze``.

    Attributes:
        why: Groups, residual blocks or axes to explain, or pairs of axes with a comma between them.
        allow_sensitive: Whether normalised axes count as cuttable.
        device: A machine to estimate latency for.
        graph: Where the coupling is written as a graph.
        dataflow: Where the dataflow is.
    """

    inputs: InputSettings = part(InputSettings)
    why: tuple[str, ...] = option(
        (),
        "only explain by a path why a group, block or axis (name:axis) cannot go, or why two are coupled (repeatable)",
        metavar="GROUP|BLOCK|AXIS,AXIS",
        repeat=True,
    )
    allow_sensitive: bool = option(False, "treat normalised axes as cuttable (not exact)")
    device: Any = declared(None, DEVICE)
    graph: str | None = declared(None, replace(GRAPH, help=f"write what is cut together as a graph: {GRAPH.help}"))
    dataflow: str | None = declared(None, replace(GRAPH, help=f"write what depends on what as a graph: {GRAPH.help}"))
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class SlimSettings:
    """What can be asked of ``slim``.

    Attributes:
        target: Name -> cost -> bound; one, with an empty name, unless a cost lists several numbers.
        lossless: Whether exactly what changes no output is cut.
        criterion: What scores units.
        bases: Whether axes that meet linear maps alone are rotated to principal directions first.
        plan_out: Where the plan is written.
        work: Multiply-accumulates to spend on what each group's width is worth.
        sensitivity_seconds: After which measuring that stops.
        workers: Where trials run.
    """

    result: ResultSettings = part(ResultSettings)
    target: Mapping[str, Mapping[str, float | str]] = declared(
        {}, replace(TARGET, gather=targets.each, beside=targets.marks)
    )
    lossless: bool = option(False, "no target: cut exactly what changes no output")
    criterion: str | None = declared(None, CRITERION)
    bases: str = declared("principal", BASES)
    limits: LimitSettings = part(LimitSettings)
    plan_out: str | None = declared(None, PLAN_OUT)
    work: float | None = declared(None, WORK)
    sensitivity_seconds: float | None = declared(None, SENSITIVITY)
    workers: int | str | None = declared(None, WORKERS)
    clock: ClockSettings = part(ClockSettings)
    repair: RepairSettings = part(RepairSettings)
    distillation: DistillationSettings = part(DistillationSettings)
    quality: QualitySettings = part(QualitySettings)
    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings)
    runtime: RuntimeSettings = part(RuntimeSettings)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class LosslessLimits:
    """What may be cut where nothing must change.

    Attributes:
        protect: Regular expressions; groups they find stay whole.
        allow_empty: Whether whole branches may go.
    """

    protect: tuple[str, ...] = declared((), PROTECT)
    allow_empty: bool = declared(False, EMPTY)


@dataclass(frozen=True)
class LosslessSettings:
    """What can be asked of ``slim --lossless``.

    Attributes:
        plan_out: Where the plan is written.
    """

    result: ResultSettings = part(ResultSettings)
    limits: LosslessLimits = part(LosslessLimits)
    plan_out: str | None = declared(None, PLAN_OUT)
    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings)
    runtime: RuntimeSettings = part(RuntimeSettings)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class PlanSettings:
    """What can be asked where only is chosen what to keep.

    Attributes:
        target: Cost -> bound.
        criterion: What scores units.
        bases: Whether axes that meet linear maps alone are rotated to principal directions first.
        device: A machine to estimate latency for.
        work: Multiply-accumulates to spend on what each group's width is worth.
        sensitivity_seconds: After which measuring that stops.
        workers: Where trials run.
    """

    target: Mapping[str, float | str] = declared({}, TARGET)
    criterion: str | None = declared(None, CRITERION)
    bases: str = declared("principal", BASES)
    limits: LimitSettings = part(LimitSettings)
    work: float | None = declared(None, WORK)
    sensitivity_seconds: float | None = declared(None, SENSITIVITY)
    workers: int | str | None = declared(None, WORKERS)
    device: Any = declared(None, DEVICE)
    repair: RepairSettings = part(RepairSettings)
    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings)


@dataclass(frozen=True)
class ZeroSettings:
    """Which weights are zeroed in one go.

    Attributes:
        ratio: Share of all maskable weights that goes; ``None`` where the pattern fixes it.
        pattern: Where zeros may be, as :func:`onnxslim_learn.sparse.patterns.parse` reads it.
        method: What chooses zeros.
        protocol: How shares are spread over layers; by default ``heurist``, or ``uniform`` for patterns with a fixed
            share or whole units.
        protect: Regular expressions of weights and nodes that stay dense.
        search_work: Multiply-accumulates for measuring curves where the protocol is ``search``.
        search_seconds: After which no further round of that is begun.
    """

    ratio: float | None = option(None, "share of the weights that goes, from 0 to 1", read=any_number)
    pattern: str = declared("unstructured", PATTERN)
    method: str = option(
        "admm",
        f"what chooses zeros (default admm): {METHODS.listed()}",
        metavar="NAME",
    )
    protocol: str | None = option(
        None,
        f"how the ratio is spread over layers (default heurist): {PROTOCOLS.listed(lambda row: not row.learnt)}",
        metavar="NAME",
    )
    protect: tuple[str, ...] = option(
        (), "weights whose name, or whose node's, matches stay dense", metavar="REGEX", repeat=True
    )
    search_work: float = option(
        4e12, "multiply-accumulates to spend on --protocol search (default 4T)", metavar="N", read=targets.many
    )
    search_seconds: float | None = option(
        None,
        "begin no further round of --protocol search after this time (default: no limit)",
        metavar="S",
        read=number,
    )

    def target(self) -> float:
        """The share that goes.

        Raises:
            InputError: If none was given, or one that the pattern does not have.
        """
        from onnxslim_learn.sparse import patterns

        fixed = patterns.parse(self.pattern).ratio
        METHODS.load(self.method)
        if self.protocol is not None and PROTOCOLS.row(self.protocol).learnt:
            raise InputError(f"⟨protocol⟩ {self.protocol}: is for learn. Choose another protocol.")
        if fixed is not None:
            if self.ratio is not None and abs(self.ratio - fixed) > 1e-9:
                raise InputError(f"⟨ratio⟩ {self.ratio:g}: the pattern {self.pattern} zeroes {fixed:g}. Leave it out.")
            if self.protocol not in (None, UNIFORM):
                raise InputError(
                    f"⟨protocol⟩ {self.protocol}: the pattern {self.pattern} fixes all shares. Leave it out."
                )
            return fixed
        if self.ratio is None:
            raise InputError(f"⟨ratio⟩: the pattern {self.pattern} needs one. For example 0.75.")
        if not 0 <= self.ratio <= 1:
            raise InputError(f"⟨ratio⟩ {self.ratio:g}: expected a share of the weights from 0 to 1. For example 0.75.")
        return self.ratio

    def spread(self) -> str:
        """The protocol."""
        from onnxslim_learn.sparse import patterns

        fixed = patterns.parse(self.pattern)
        return self.protocol or (UNIFORM if fixed.kind in ("n:m", patterns.UNITS) else SPREAD)


@dataclass(frozen=True)
class SparsifySettings:
    """What can be asked of ``sparsify``.

    Attributes:
        zeros: Which weights are zeroed.
        lossless: Whether units that change no output any more are cut.
        sparse_initializers: Whether sparse initializers are written where they are smaller.
        workers: Where trials of the protocol ``search`` run.
    """

    result: ResultSettings = part(ResultSettings)
    zeros: ZeroSettings = part(ZeroSettings)
    workers: int | str | None = declared(None, replace(WORKERS, help=f"of --protocol search, {WORKERS.help}"))
    lossless: bool = declared(False, LOSSLESS_TOO)
    sparse_initializers: bool = declared(False, SPARSE_INITIALIZERS)
    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings)
    runtime: RuntimeSettings = part(RuntimeSettings)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class ExpandSettings:
    """What can be asked of ``expand``.

    Attributes:
        output: Where the wider model is written.
        target: Cost -> bound.
        like: The model that fractions are of.
        multiple: Widths are multiples of this.
        protect: Regular expressions; groups they find keep their width.
        fresh: Whether weights that grow are drawn anew.
        seed: Determines how weights are shared out.
        no_latency: Whether models are not timed.
        config: A file of options.
        device: A machine to estimate latency for.
    """

    output: str | None = output("where to write the wider model")
    target: Mapping[str, float | str] = declared(
        {},
        replace(
            TARGET,
            help="budget: 1.5 or 150% is a share of --like, numbers with a unit and those above 1000 are absolute, a"
            " latency is on this machine, or on that of --device (repeatable)",
            gather=targets.budgets,
            required=True,
        ),
    )
    like: Any = option(None, "the model that fractions are of: the original, before slim", metavar="MODEL", reads=True)
    multiple: int | str = declared(
        AUTO,
        replace(MULTIPLE, help="widths are multiples of N; auto (default): of the steps of this machine's kernels"),
    )
    protect: tuple[str, ...] = option((), "groups that keep their width", metavar="REGEX", repeat=True)
    fresh: bool = option(False, "draw the weights that grow anew, to train from scratch")
    seed: int = option(0, "of how weights are shared out (default 0)", metavar="N", read=whole)
    no_latency: bool = declared(False, NO_LATENCY)
    config: str | None = declared(None, CONFIG)
    inputs: InputSettings = part(InputSettings)
    device: Any = declared(None, DEVICE)
    runtime: RuntimeSettings = part(RuntimeSettings)
    report: ReportSettings = part(ReportSettings)


OTHER_MODEL = Option("take a plan that was made for another file, such as one of other weights")


@dataclass(frozen=True)
class ApplySettings:
    """What can be asked of ``apply``.

    Attributes:
        other_model: Whether the plan may be of another file.
    """

    other_model: bool = declared(False, OTHER_MODEL)
    result: ResultSettings = part(ResultSettings)
    repair: RepairSettings = part(RepairSettings)
    distillation: DistillationSettings = part(DistillationSettings)
    quality: QualitySettings = part(QualitySettings)
    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings)
    runtime: RuntimeSettings = part(RuntimeSettings)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class VerifySettings:
    """What can be asked of ``verify``.

    Attributes:
        plan: The plan of which the slimmed model was made.
        other_model: Whether it may be of another file.
    """

    plan: Any = option(None, "the plan that made it", metavar="PLAN", required=True, reads=True)
    other_model: bool = declared(False, OTHER_MODEL)
    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class ViewSettings:
    """What can be asked of ``view``.

    Attributes:
        port: Where the page is served.
        open: Whether it opens in a browser.
        measure: Whether what widths are worth on this machine is measured first.
        allow_sensitive: Whether normalised axes can be cut.
        criterion: What ranks units.
        work: Multiply-accumulates to spend on what each group's width is worth.
    """

    port: int | None = option(
        None, "port to serve the page at (default: one that is free)", metavar="N", read=port, decides=False
    )
    open: bool = option(False, "open the page in a browser", decides=False)
    measure: bool = option(False, "first measure what widths are worth on this machine: latency follows them, too")
    allow_sensitive: bool = declared(False, SENSITIVE)
    criterion: str | None = declared(None, CRITERION)
    work: float | None = declared(
        None,
        replace(
            WORK,
            help="multiply-accumulates to spend on finding out what each group's width loses (default 150G, or two"
            " runs over all samples of --data where that is more; 0: costs alone)",
        ),
    )
    clock: ClockSettings = part(ClockSettings)
    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings)
    runtime: RuntimeSettings = part(RuntimeSettings)
    report: ReportSettings = part(ReportSettings)


SEVERAL = "N[,N...]"


@dataclass(frozen=True)
class ProfileSettings:
    """What can be asked of ``profile``.

    Attributes:
        threads: Numbers of threads, each of which is timed.
        provider: Execution providers, likewise.
        batch: Sizes of the first axis where the file leaves it open, likewise.
        io_binding: Whether inputs and outputs stay on the device.
        per_node: Whether every node is timed, too.
        compare: Whether all models have to be faster than the first.
        seconds: Time for the rounds of one setting.
    """

    inputs: InputSettings = part(InputSettings)
    threads: tuple[int, ...] = option((1,), "threads (default 1)", metavar=SEVERAL, read=listed(threads), between=",")
    provider: tuple[str, ...] = option(
        ("CPUExecutionProvider",),
        "cpu (default), cuda, or full names",
        metavar="P[,P...]",
        read=listed(provider),
        between=",",
    )
    batch: tuple[int, ...] = option(
        (),
        "samples per run, where the file leaves the first axis of inputs open",
        metavar=SEVERAL,
        read=listed(positive),
        between=",",
    )
    io_binding: bool = option(False, "keep inputs and outputs on the device")
    per_node: bool = option(False, "also show the time of every node")
    compare: bool = option(False, "exit with 1 unless all are faster than the first")
    seconds: float = declared(2.0, SECONDS)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class CachesSettings:
    """What can be asked of ``caches``.

    Attributes:
        output: Where the model is written.
        narrow: Whether caches are narrowed after a cut; else their heads are opened before one.
    """

    output: str | None = output("where to write the model")
    narrow: bool = option(False, "after a cut: leave caches the heads that stay (the caller's caches change)")
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class CalibrateSettings:
    """What can be asked of ``calibrate``.

    Attributes:
        output: Where the device is written.
        name: What it is called.
    """

    output: str | None = output("write the device as TOML, for --device", required=False)
    name: str = option("this machine", "what to call it", metavar="NAME", read=printable)
    runtime: RuntimeSettings = part(RuntimeSettings, seconds=10.0)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class DemoSettings:
    """What can be asked of ``demo``.

    Attributes:
        output: Where the slimmed net is kept.
    """

    output: str | None = output("keep the slimmed demo model here", required=False)
    report: ReportSettings = part(ReportSettings)


@dataclass(frozen=True)
class LoadSettings:
    """What can be asked where samples are opened."""

    inputs: InputSettings = part(InputSettings)
    samples: SampleSettings = part(SampleSettings)
