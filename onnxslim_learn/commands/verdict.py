"""What stands at the end of every command: whether it did what was asked, what limited it, and what to try next.

Rows of two tables decide: of :data:`LIMITS` all whose condition holds are told, of :data:`NEXT` the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxslim_learn.commands.asked import line
from onnxslim_learn.coupling import selection
from onnxslim_learn.readers import AUTO
from onnxslim_learn.readers import share as share_of
from onnxslim_learn.registry import MICROSECONDS
from onnxslim_learn.report.format import plural, share
from onnxslim_learn.report.sections import groups, quality, repair
from onnxslim_learn.report.sections import slim as pages
from onnxslim_learn.rewrite import save

if TYPE_CHECKING:
    from onnxslim_learn.commands.asked import Asked, Change

MUCH = 0.1  # of a model is worth a sentence
MOST = 3  # groups that are named
SPARE = 0.02  # of what a target allows, left unused, is worth a sentence
STRONGER = 10  # times the highest strength that left everything: the middle of the next ones
SMALLER, NEARER = 0.8, 0.5  # the next target: this share of it, or so far on the way back to the original
CUTS = ("slim", "apply", "learn")
SAMPLES = "SAMPLES"  # where a command line needs them
GIVE = "(SAMPLES: a folder of images, an .npz file, or module:function)"


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
    def each(self) -> list[Case]:
        """One case for every model that is reported by itself."""
        reports = [row["report"] for row in self.several if "report" in row]
        return [replace(self, report=report) for report in reports or [self.report]]

    @property
    def judged(self) -> list[Mapping[str, Any] | None]:
        """How good every model that was written is."""
        return [self._judged(row) for row in self.several or [self.report]]

    def _judged(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """How good one model is: as it was judged, else by its outputs on samples that were held back."""
        trained = (row.get("training") or {}).get("result") or {}
        outputs = row.get("deviation") or trained.get("outputs")
        if row.get("quality") or not outputs:
            return row.get("quality")
        matched = row.get("detections") or trained.get("detections")
        return quality.of_outputs(outputs, matched, real="data" in self.asked.options)

    @property
    def unknown(self) -> bool:
        """Whether nothing tells how good what was cut is on real inputs."""
        return "data" not in self.asked.options and bool(self.changed)

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
    def faster(self) -> bool:
        """Whether what was written is faster, or was not timed."""
        timed = _timed(self.report)
        return timed is None or timed["faster"] is True

    def again(self, **changes: Change) -> str:
        """The same command with other options."""
        return self.asked.line(**changes)

    def kept(self, *names: str) -> dict[str, Change]:
        """Options that another command is given, too."""
        return {name: self.asked.options[name][1::2] for name in names if self.asked.options.get(name)}


Line: TypeAlias = Callable[[Case], str]


def beside(path: str, name: str) -> str:
    """Another file beside one."""
    file = Path(path)
    return str(file.with_name(f"{file.stem}-{name}.onnx"))


def of(case: Case) -> dict[str, Any]:
    """The verdict on a command, as plain data."""
    timed = _slowest(case)
    following = next((row for row in NEXT if case.asked.command in row.after and row.when(case)), None)
    return {
        "met": _met(case),
        "quality": _quality(case),
        "kept": _kept(case),
        "faster": timed,
        "limited_by": list(dict.fromkeys(told for limit in LIMITS for one in case.each for told in limit(one))),
        "next": None if following is None else {"why": following.why, "command": following.line(case)},
        "written": _written(case),
    }


def _met(case: Case) -> list[Mapping[str, Any]] | None:
    """What was asked for and what came out; of several models, which file each row is of."""
    rows: list[Mapping[str, Any]]
    rows = [{"file": str(row["output"]), **one} for row in case.several for one in _bounds(row.get("report") or {})]
    return rows or _bounds(case.report) or None


def _bounds(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A row for every cost that was bounded."""
    return (report.get("verdict") or {}).get("met") or []


def _slowest(case: Case) -> dict[str, Any] | None:
    """How a model's time compares with the original's, and where it goes; of several models, the slowest one's."""
    several = [row for row in case.several if "report" in row]
    files = [{"file": str(row["output"])} for row in several] or [{}]
    told = []
    for named, one in zip(files, case.each, strict=True):
        if (timed := _timed(one.report)) is not None:
            more = _of(one.report, timed) | ({"unchanged": timed["unchanged"]} if timed.get("unchanged") else {})
            told.append({**named, "ratio": timed["ratio"], "faster": timed["faster"], **more})
    return max(told, key=lambda one: one["ratio"], default=None)


def _of(report: Mapping[str, Any], timed: Mapping[str, Any]) -> dict[str, Any]:
    """What a wider model has to do, of what that has which it is timed against: it may take longer for more."""
    if "base_macs" not in timed:
        return {}
    return {"base": timed["base"], "macs": report["after"]["macs"] / max(timed["base_macs"], 1)}


def _timed(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a model's time compares with that of another, where there is one of each."""
    pairs = [pair for setting in report.get("settings", ()) for pair in setting["comparisons"]]
    timed = pairs[0] if len(pairs) == 1 else report.get("speed") or report.get("latency")
    return timed if timed and "ratio" in timed else None


def _quality(case: Case) -> str | None:
    """How good the result is, in a sentence; the worst of several."""
    if not case.changed:
        return None
    worst = _worst(case)
    if worst is None and case.judged[0] is None and "data" in case.asked.options:
        return "not judged"
    return quality.told(worst if worst is not None else case.judged[0], case.least)


def _worst(case: Case) -> Mapping[str, Any] | None:
    """How good the worst result is, of those that were judged."""
    known = [one for one in case.judged if one is not None and one["worst"] is not None]
    return min(known, key=lambda one: quality.weakest(one)[0], default=None)


def _kept(case: Case) -> dict[str, Any] | None:
    """The least that is left of anything that was compared, and of what; of the worst of several results."""
    worst = _worst(case) if case.changed else None
    if worst is None:
        return None
    left, what = quality.weakest(worst)
    real = worst["inputs"] != "made-up"
    return {"share": max(left, 0.0), "said": what, "good": left >= quality.GOOD, "real": real} | {
        "destroyed": worst["destroyed"]
    }


def _written(case: Case) -> list[str]:
    """The files that were written, those that hold weights beside a model's, too."""
    names = [name for name in case.asked.written() if name != "-"]
    names = _files(case) + [name for name in names if not (case.several and name == case.asked.value("output"))]
    return [str(file) for name in names for file in save.files(Path(name))]


# --- what limited it --------------------------------------------------------------------------------------------------


def _pinned(case: Case) -> Iterator[str]:
    """Groups that cannot go and hold much of the model."""
    rows = [row for row in case.report.get("pinned", ()) if row["macs_share"] > MUCH and row["reason"] != pages.ONE]
    alike = sorted(groups.repeats(rows), key=lambda rows: -sum(row["macs_share"] for row in rows))
    for rows in alike[:MOST]:
        carried = share(min(sum(row["macs_share"] for row in rows), 1.0))
        yield f"{groups.called(rows)} (named {rows[0]['name']}), with up to {carried} of the MACs, cannot be cut: " + (
            f"{pages.because(rows[0])}."
        )


def _bodies(case: Case) -> Iterator[str]:
    """Graphs inside nodes that hold much of the model."""
    for row in case.report.get("bodies", ()):
        if max(row["macs_share"], row["params_share"]) > MUCH:
            yield pages.inside(row)


def _protected(case: Case) -> Iterator[str]:
    """Groups that options keep whole, or nearly."""
    plan = getattr(case.result, "plan", None)
    if plan is None:
        return
    analysis, told = case.result.analysis, plan.provenance
    protect, only, keep = (told.get(name) or () for name in ("protect", "only", "keep"))
    free = [group for group in analysis.free_groups() if group.pin is None]
    whole = len(free) - sum(group.pin is None for group in analysis.free_groups(protect, only))
    if whole:
        flags = " and ".join([*(["--protect"] if protect else []), *(["--only"] if only else [])])
        yield f"{whole} of {plural(len(free), 'group')} that could be cut stay whole by {flags}."
    if keep:
        least = selection.shares(free, analysis.titles, dict(keep))
        held = [name for name in least if len(plan.groups.get(name, ())) <= least[name] * _width(free, name) + 1]
        if held := [name for name in held if name in plan.groups]:
            yield f"{plural(len(held), 'group')} kept the least that --keep allows."


def _width(groups: Any, name: str) -> int:
    return next(int(group.width) for group in groups if group.name == name)


def _narrowest(case: Case) -> Iterator[str]:
    """Groups that could not become narrower."""
    multiple = case.report.get("multiple", 1)
    multiple = 1 if multiple == AUTO else multiple
    rows = [g for g in case.report.get("groups", ()) if "kept" in g and g["kept"] < g["width"]]
    if narrow := [g for g in rows if g["kept"] <= multiple]:
        said = "one unit" if multiple == 1 else f"{multiple} units, the least multiple of {multiple}"
        yield f"{plural(len(narrow), 'group')} of {len(case.report['groups'])} ended at {said}."


def _steps(case: Case) -> Iterator[str]:
    """Widths that only come in steps, where less was cut off or won for it."""
    multiple = case.report.get("multiple", 1)
    steps = "on the steps of this machine's kernels" if multiple == AUTO else f"multiples of {multiple}"
    narrowed = any(g.get("kept", g["width"]) < g["width"] for g in case.report.get("groups", ()))
    for row in _bounds(case.report) if multiple != 1 and narrowed else ():
        if row["relative"] and row["share"] < (1 - SPARE) * float(row["asked"]):
            yield f"Widths are {steps}: {row['title']} ended at {row['share']:.3f}, under the {row['asked']:g} allowed."
    yield from pages.chosen_again(case.report.get("timed") or ())


def _work(case: Case) -> Iterator[str]:
    """What could not be measured with the work, or in the seconds, that were allowed."""
    yield from repair.unmeasured(case.report.get("choice") or {})


LIMITS: tuple[Callable[[Case], Iterator[str]], ...] = (_pinned, _bodies, _protected, _narrowest, _steps, _work)
"""What may hold a model up: each tells sentences where it does."""


# --- what to try next -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Next:
    """A command to try next.

    Attributes:
        after: The commands after which.
        when: Whether it helps.
        why: What it is for.
        line: The command line.
    """

    after: tuple[str, ...]
    when: Callable[[Case], bool]
    why: str
    line: Line


def _targets(factor: Callable[[Mapping[str, Any]], float]) -> Line:
    """The same command with targets that are so many times what they were."""

    def line_of(case: Case) -> str:
        return case.again(target=[f"{row['cost']}={_moved(row, factor(row))}" for row in case.report["verdict"]["met"]])

    return line_of


def _moved(row: Mapping[str, Any], factor: float) -> str:
    """A bound that is moved: a share in whole per cent, an amount in three digits."""
    if row["relative"]:
        return f"{round(factor * row['asked'], 2):g}"
    moved = f"{factor * float(str(row['asked']).removesuffix('ms')):.3g}"
    return moved + ("ms" if row["unit"] == MICROSECONDS else "")


def _tune(case: Case) -> str:
    """Fine-tuning of what was written."""
    return line(
        "learn",
        case.output,
        output=beside(case.output, "tuned"),
        learner="finetune",
        teacher=case.asked.value("like") or case.model,
        data=case.asked.value("data") or SAMPLES,
        **case.kept("mean", "std", "size", "input_range", "scale", "layout"),
    )


def _cut(case: Case) -> str:
    """Half of a model."""
    kept = case.kept("input", "value", "device")
    kept |= {"allow_sensitive": True} if case.asked.options.get("allow_sensitive") else {}
    return line("slim", case.model, output=beside(case.model, "slim"), target="macs=0.5", data=SAMPLES, **kept)


def _bounded(case: Case) -> bool:
    return bool(_bounds(case.report))


def _relative(case: Case) -> bool:
    return all(row["relative"] for row in case.report["verdict"]["met"])


def _delicate(case: Case) -> bool:
    return any(row["delicate"] for row in case.report["pinned"]) and not case.asked.options.get("allow_sensitive")


def _files(case: Case) -> list[str]:
    return [str(row["output"]) for row in case.several if row["output"]]


_ROOM = "There may be room to cut more"
_SLOW = "It is not faster"

NEXT: tuple[Next, ...] = (
    Next(
        ("analyze",),
        lambda case: not case.report["groups"] and _delicate(case),
        "Nothing can be cut exactly. To cut normalised axes, too, which is not exact",
        lambda case: case.again(allow_sensitive=True),
    ),
    Next(
        ("analyze",),
        lambda case: bool(case.report["groups"]),
        f"To cut half of the multiply-accumulates, judged on inputs of your own {GIVE}",
        _cut,
    ),
    Next(
        ("slim", "learn"),
        lambda case: _bounded(case) and not all(row["met"] for row in case.report["verdict"]["met"]),
        "To meet the target, ask for less",
        _targets(lambda row: 1.0 if row["met"] else row["bound"] / row["got"]),
    ),
    Next(
        (*CUTS, "sparsify"),
        lambda case: case.unknown,
        f"To know how good it is, and to make it better, give {quality.ENOUGH} or more real inputs {GIVE}",
        lambda case: case.again(data=SAMPLES),
    ),
    Next(
        ("slim", "apply", "sparsify"),
        lambda case: case.lacking and "targets" not in case.report,
        "To win back what was lost, give more samples, or train it to do as the original does",
        _tune,
    ),
    Next(
        ("slim", "learn"),
        lambda case: case.lacking and _bounded(case) and _relative(case),
        "To keep more, cut less",
        _targets(lambda row: 1 + NEARER * (1 / row["asked"] - 1)),
    ),
    Next(
        ("slim", "learn"),
        lambda case: not case.faster and case.report.get("multiple", AUTO) not in (AUTO, 8),
        f"{_SLOW}. At widths that kernels like",
        lambda case: case.again(multiple=None),
    ),
    Next(
        (*CUTS, "sparsify"),
        lambda case: not case.faster and case.asked.value("output") is not None,
        f"{_SLOW}. To see where the time goes",
        lambda case: line("profile", case.model, case.output, per_node=True),
    ),
    Next(
        ("slim",),
        lambda case: bool(case.report.get("lossless")),
        "To cut more than what changes nothing",
        lambda case: case.again(lossless=None, target="macs=0.5", data=case.asked.value("data") or SAMPLES),
    ),
    Next(
        ("learn",),
        lambda case: bool(case.several) and not _files(case),
        "No unit went at any of them. At higher strengths, with more --steps",
        lambda case: case.again(strength=f"{STRONGER * max(row['strength'] for row in case.several):g}"),
    ),
    Next(
        ("slim", "learn"),
        lambda case: bool(case.several),
        "To see how fast they are",
        lambda case: line("profile", case.model, *_files(case)),
    ),
    Next(("slim", "learn"), _bounded, _ROOM, _targets(lambda row: SMALLER)),
    Next(
        ("apply",),
        lambda case: case.asked.value("output") is not None and len(case.asked.files) > 1,
        "To check it again",
        lambda case: line("verify", case.model, case.output, plan=case.asked.files[1]),
    ),
    Next(
        ("learn", "sparsify"),
        lambda case: case.asked.value("output") is not None,
        "To make it faster, too, cut channels",
        lambda case: line(
            "slim", case.output, output=beside(case.output, "slim"), target="macs=0.5", data=case.asked.value("data")
        ),
    ),
    Next(("expand",), lambda case: True, f"To train it to do more with its new units {GIVE}", _tune),
    Next(
        ("verify",),
        lambda case: not case.result.passed,
        "To make it anew",
        lambda case: line("apply", case.model, case.asked.value("plan") or "PLAN", output=case.asked.files[1]),
    ),
    Next(
        ("verify",),
        lambda case: "data" not in case.asked.options,
        f"To check it on inputs of your own, too {GIVE}",
        lambda case: case.again(data=SAMPLES),
    ),
    Next(("verify",), lambda case: True, "To see how fast it is", lambda case: line("profile", *case.asked.files)),
    Next(
        ("profile",),
        lambda case: "per_node" not in case.asked.options,
        "To see where the time goes",
        lambda case: case.again(per_node=True),
    ),
    Next(
        ("profile",),
        lambda case: True,
        f"To cut it to half of its time {GIVE}",
        lambda case: line("slim", case.model, output=beside(case.model, "slim"), target="latency=0.5", data=SAMPLES),
    ),
    Next(
        ("calibrate",),
        lambda case: case.asked.value("output") is not None,
        "To see where the time of a model goes on it",
        lambda case: line("analyze", "MODEL.onnx", device=case.output),
    ),
    Next(
        ("caches",),
        lambda case: case.asked.value("narrow") is None,
        "To cut heads of keys and values with their caches, and narrow these afterwards",
        lambda case: line("slim", case.output, output=beside(case.output, "slim"), target="params=0.7"),
    ),
    Next(
        ("caches",),
        lambda case: True,
        "To see what else can go",
        lambda case: line("analyze", case.output),
    ),
    Next(("calibrate",), lambda case: True, "To keep it", lambda case: case.again(output="device.toml")),
    Next(("demo",), lambda case: True, "To look at a model of your own", lambda case: line("analyze", "MODEL.onnx")),
)
"""The first row that fits is told."""
