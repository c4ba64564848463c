"""Options that several commands have, and the parts of settings that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxslim_learn.costs import targets
from onnxslim_learn.readers import (
    AUTO,
    multiple_of,
    number_or_auto,
    pattern,
    place,
    seconds,
    share,
    some_seconds,
    whole,
)
from onnxslim_learn.registry import COSTS, CRITERIA, DEVICES, METRICS
from onnxslim_learn.runtime.settings import TIMING
from onnxslim_learn.settings import Option, declared, option

# --- parts of the help: their titles, and what is said there ----------------------------------------------------------

OUTPUT = ("output", "")
QUALITY = ("quality", "the weights that stay, and what the result is judged by")

# --- options that several commands have -------------------------------------------------------------------------------

TARGET = Option(
    f"{COSTS.listed(lambda row: row.bounded)}; at most 1 is a fraction, more is absolute: macs=0.5, macs=300M,"
    " latency=4ms (repeatable)",
    metavar="COST=NUMBER",
    repeat=True,
    gather=targets.targets,
    entry=targets.entry,
    keys=targets.Boundable(),
)
DEVICE = Option(
    "estimate latency for a machine: a file that calibrate wrote, or one of " + ", ".join(DEVICES.names()),
    metavar="FILE|NAME",
    reads=True,
)
INPUT = Option(
    "shape of an input whose dimensions the file leaves open, for costs and latency (repeatable)",
    metavar="NAME:1x3x224x224",
    repeat=True,
    gather=targets.shapes,
    entry=targets.shape,
    also=("inputs",),
)
VALUE = Option(
    "value of an input that chooses a branch of the model: that branch is analysed, cut and checked"
    " (repeatable; numbers with commas for an input of several)",
    metavar="NAME=16000",
    repeat=True,
    gather=targets.given,
    entry=targets.value,
    also=("values",),
)
MULTIPLE = Option(
    "keep widths a multiple of N; auto (default): of the steps of this machine's kernels, 1: any width",
    metavar="N|auto",
    read=multiple_of,
)
PROTECT = Option("groups whose name or members match stay whole", metavar="REGEX", read=pattern, repeat=True)
ONLY = Option(
    "cut only groups with this role or name, or that lie in modules it finds",
    metavar="REGEX",
    read=pattern,
    repeat=True,
)
KEEP = Option(
    "groups of which REGEX finds anything keep at least this share of their units",
    metavar="REGEX=0.7",
    repeat=True,
    gather=targets.shares,
    entry=targets.value,
)
SENSITIVE = Option("also cut normalised axes (not exact)")
EMPTY = Option("whole branches may go; else one unit always stays")
DROP_BLOCKS = Option(
    "let N residual blocks go as a whole, those that lose least; auto: as many as turn out best beside widths"
    " (--only blocks: blocks alone)",
    metavar="N|auto",
    read=number_or_auto,
)
NO_LATENCY = Option("do not time the models", decides=False)
NO_REPAIR = Option("leave the weights that stay as they are")
BASES = Option(
    "principal (default): where there are samples and at most 1 GiB of weights, axes that meet linear maps alone are"
    " first rotated to the directions that matter most, which changes no output; none: all units stay what they are",
    metavar="NAME",
    choices=("principal", "none"),
)
CRITERION = Option(
    f"what scores units: {', '.join(CRITERIA.names())} (default obs; energy with --no-repair and no"
    " --data, and for more than 1 GiB of weights)",
    metavar="NAME",
    read=CRITERIA.checked,
)
WORK = Option(
    "multiply-accumulates to spend on finding out what each group's width is worth (default 150G with --data, or two"
    " runs over all samples where that is more, or what measuring every group takes, or else trying one way beside all"
    " groups alike, if that is no more than 400G; else 0: all groups alike)",
    metavar="N",
    read=targets.many,
)
SENSITIVITY = Option(
    "stop measuring what widths are worth after this time, and go on from there next time (default: no limit)",
    metavar="S",
    read=some_seconds,
)
WORKERS = Option(
    "where trials run: N processes, or a Dask cluster at tcp://HOST:PORT (default: threads of this process)",
    metavar="N|ADDRESS",
    read=place,
    decides=False,
)
PLAN_OUT = Option("write the plan as JSON", metavar="FILE", writes=True, decides=False)
GRAPH = Option(".graphml, .dot or .json", metavar="FILE", writes=True, decides=False)
CONFIG = Option("options in a TOML file; those given here win", metavar="FILE", reads=True, decides=False)
PATTERN = Option(
    "where zeros may be: unstructured (default), N:M as in 2:4, RxC blocks as in 4x1, or units", metavar="NAME"
)
LOSSLESS_TOO = Option("also cut units that change no output any more")
SPARSE_INITIALIZERS = Option("write weights as sparse initializers where that is smaller")


def output(what: str, *, required: bool = True) -> Any:
    """The file of a result; in Python it stays in memory without one."""
    return option(
        None, what, metavar="FILE" if not required else "OUT", short="-o", required=required, writes=True, decides=False
    )


@dataclass(frozen=True)
class ReportSettings:
    """Where a report is written.

    Attributes:
        html: A page with charts.
        json: The report as data; the command line takes ``-`` for standard output.
        report_dir: Charts and the network as SVG and PNG, tables as CSV.
    """

    TITLE: ClassVar = OUTPUT

    html: str | None = option(
        None, "write the result as a page with charts", metavar="FILE", writes=True, decides=False
    )
    json: str | None = option(
        None,
        "write the result as JSON to a file, or - for standard output",
        metavar="FILE|-",
        writes=True,
        decides=False,
    )
    report_dir: str | None = option(
        None,
        "write charts and the network as SVG and PNG and tables as CSV into a folder (extra report)",
        metavar="DIR",
        keeps=True,
        decides=False,
        extra="report",
    )


@dataclass(frozen=True)
class InputSettings:
    """At which sizes a model is looked at.

    Attributes:
        input: Graph input -> shape.
        value: Graph input -> its value, where it chooses a branch or a size.
    """

    TITLE: ClassVar = ("model", "what its file leaves open")

    input: Mapping[str, tuple[int, ...]] = declared({}, INPUT)
    value: Mapping[str, Any] = declared({}, VALUE)


@dataclass(frozen=True)
class ResultSettings:
    """What becomes of a result.

    Attributes:
        output: Where it is written; ``None`` keeps it in memory.
        no_latency: Whether models are not timed.
    """

    output: str | None = output("where to write the slimmed model")
    no_latency: bool = declared(False, NO_LATENCY)


@dataclass(frozen=True)
class RepairSettings:
    """What becomes of the weights that stay.

    Attributes:
        no_repair: Whether they stay as they are.
        match_statistics: Whether made-up samples are fitted to the statistics of batch normalisations.
    """

    TITLE: ClassVar = QUALITY

    no_repair: bool = declared(False, NO_REPAIR)
    match_statistics: bool = option(
        False,
        "without --data: fit made-up inputs to the statistics of batch normalisations (needs the extra train)",
    )


@dataclass(frozen=True)
class DistillationSettings:
    """How weights are trained after repair.

    Attributes:
        finetune_steps: For how long; 0 for not at all.
    """

    TITLE: ClassVar = QUALITY

    finetune_steps: int = option(
        0,
        "after repair, train all weights for N steps towards the original's outputs on the same samples; stands where"
        " outputs come nearer on samples held back (default 0; 300 are a start; needs --data and the extra train)",
        metavar="N",
        read=whole,
    )


@dataclass(frozen=True)
class QualitySettings:
    """What a result is judged by, on real samples that were held back.

    Attributes:
        metric: A metric by name, or a function of outputs and labels; higher is better unless its attribute
            ``higher_is_better`` is false. It also decides between allocations, and whether a repair stands.
        min_quality: The least share that is left of the metric, else of the variance of the worst block of an output.
    """

    TITLE: ClassVar = QUALITY

    metric: Any = option(
        None,
        f"{', '.join(METRICS.names())}, or module:function of outputs and labels: told before and after on held-back"
        " samples; decides between allocations and about repair (needs --data)",
        metavar="NAME",
    )
    min_quality: float | None = option(
        None,
        "exit with 3 if less is left on held-back samples: of the metric, else of the variance of the worst block of an"
        " output (needs --data); the file is written all the same",
        metavar="X",
        read=share,
    )


@dataclass(frozen=True)
class LimitSettings:
    """What may be cut, and how far.

    Attributes:
        multiple: Widths are multiples of this.
        protect: Regular expressions; groups they find stay whole.
        only: Regular expressions; all groups but those that they name, or that lie in modules they find, stay whole.
        keep: Regular expression -> share of its units that a group at least keeps of which it finds anything.
        allow_sensitive: Whether axes that are normalised over are cut, too.
        allow_empty: Whether whole branches may go.
        drop_blocks: How many residual blocks go, or ``auto``.
    """

    TITLE: ClassVar = ("limits", "what may go, and how far")

    multiple: int | str = declared(AUTO, MULTIPLE)
    protect: tuple[str, ...] = declared((), PROTECT)
    only: tuple[str, ...] = declared((), ONLY)
    keep: Mapping[str, float] = declared({}, KEEP)
    allow_sensitive: bool = declared(False, SENSITIVE)
    allow_empty: bool = declared(False, EMPTY)
    drop_blocks: int | str | None = declared(None, DROP_BLOCKS)


@dataclass(frozen=True)
class ClockSettings:
    """What latency is counted by.

    Attributes:
        measure_seconds: After which measuring what widths are worth on this machine stops.
        device: A machine to estimate for instead.
    """

    TITLE: ClassVar = TIMING

    measure_seconds: float | None = option(
        None,
        "with --target latency: stop measuring what widths are worth here after this time (default: no limit)",
        metavar="S",
        read=seconds,
        decides=False,
    )
    device: Any = declared(None, DEVICE)
