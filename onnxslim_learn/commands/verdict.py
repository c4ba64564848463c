"""What stands at the end of every command: whether it did what was asked, what limited it, and what to try next.

Of :data:`LIMITS` all rows whose condition holds are told; what to try next is in
:mod:`onnxslim_learn.commands.next_command`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxslim_learn.commands.case import Case, bounds, compared
from onnxslim_learn.commands.next_command import NEXT
from onnxslim_learn.coupling import selection
from onnxslim_learn.plans.plan import bases_file
from onnxslim_learn.readers import AUTO
from onnxslim_learn.report.format import plural, share
from onnxslim_learn.report.sections import groups, pinned, quality, repair, training
from onnxslim_learn.report.sections import slim as pages
from onnxslim_learn.rewrite import save

MUCH = 0.1  # of a model is worth a sentence
MOST = 3  # groups that are named
SPARE = 0.02  # of what a target allows, left unused, is worth a sentence


def of(case: Case) -> dict[str, Any]:
    """The verdict on a command, as plain data."""
    timed = _slowest(case)
    rows = (row for row in NEXT if case.asked.command in row.after and row.when(case))
    following = next((row for row in rows if row.line(case) != case.again()), None)
    return {
        "met": _met(case),
        "quality": _quality(case),
        "kept": _kept(case),
        "faster": timed,
        "limited_by": _limits(case),
        "next": None
        if following is None
        else {"why": following.why.format(case=case), "command": following.line(case)},
        "written": _written(case),
    }


def _limits(case: Case) -> list[str]:
    """What limited the result; of several models, which of them, where that did not limit all."""
    each = case.each
    files = [str(row["output"]) for row in case.several if "report" in row]
    said = [(told, place) for limit in LIMITS for place, one in enumerate(each) for told in limit(one)]
    whose = {told: sorted({place for text, place in said if text == told}) for told, _ in said}
    return [
        told if len(places) == len(each) else f"{', '.join(files[place] for place in places)}: {told}"
        for told, places in whose.items()
    ]


def _met(case: Case) -> list[Mapping[str, Any]] | None:
    """What was asked for and what came out; of several models, which file each row is of."""
    rows: list[Mapping[str, Any]]
    rows = [{"file": str(row["output"]), **one} for row in case.several for one in bounds(row.get("report") or {})]
    return rows or bounds(case.report) or None


def _slowest(case: Case) -> dict[str, Any] | None:
    """How a model's time compares with the original's, and where it goes; of several models, the slowest one's."""
    several = [row for row in case.several if "report" in row]
    files = [{"file": str(row["output"])} for row in several] or [{}]
    told = []
    for named, one in zip(files, case.each, strict=True):
        if (timed := compared(one.report)) is not None:
            more = _of(one.report, timed) | ({"unchanged": timed["unchanged"]} if timed.get("unchanged") else {})
            told.append({**named, "ratio": timed["ratio"], "faster": timed["faster"], **more})
    return max(told, key=lambda one: one["ratio"], default=None)


def _of(report: Mapping[str, Any], timed: Mapping[str, Any]) -> dict[str, Any]:
    """What a wider model has to do, of what that has which it is timed against: it may take longer for more."""
    if "base_macs" not in timed:
        return {}
    return {"base": timed["base"], "macs": report["after"]["macs"] / max(timed["base_macs"], 1)}


def _quality(case: Case) -> str | None:
    """How good the result is, in a sentence; the worst of several."""
    if not case.changed:
        return None
    worst = _worst(case)
    if worst is None and case.judged[0] is None and "data" in case.asked.options:
        return "not judged"
    told = quality.told(worst if worst is not None else case.judged[0], case.least)
    best = quality.smallest_good(case.several)
    return told if best is None else f"{told} (the worst of {len(case.several)}; good: {best['output']})"


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
    least, of = quality.surest(worst)
    told = {"share": max(left, 0.0), "said": what, "good": quality.good(worst), "real": real}
    told |= {"sure": least, "surely": of, "held_back": worst["held_back"], "samples": worst["samples"]}
    return {**told, "few": quality.few(worst), "destroyed": worst["destroyed"]}


def _written(case: Case) -> list[str]:
    """The files that were written, those that hold weights or rotations beside them, too, and the folder of figures."""
    asked = [name for name in case.asked.written() if name != "-"]
    each = {case.asked.value("output"): case.outputs, case.asked.value("plan_out"): case.plans} if case.several else {}
    names = [Path(file) for name in asked for file in each.get(name, [name])]
    beside = [file for name in names for file in (*save.files(name), bases_file(name)) if file.exists() or file == name]
    folder = [f"{one}/" for one in [case.asked.value("report_dir")] if one is not None]
    return [*map(str, beside), *folder]


# --- what limited it --------------------------------------------------------------------------------------------------


def _doubtful(case: Case) -> Iterator[str]:
    """Samples that are hardly what the model was made for."""
    for doubt in case.doubts:
        yield f"Doubtful samples: {doubt}"


def _pinned(case: Case) -> Iterator[str]:
    """Groups that cannot go and hold much of the model."""
    rows = [row for row in case.report.get("pinned", ()) if row["macs_share"] > MUCH and row["reason"] != pinned.ONE]
    axes: dict[str, Mapping[str, Any]] = {}
    for row in rows:  # of an axis and the rows that it is made of, one tells
        axes.setdefault(row["name"].partition("/")[0], row)
    rows = list(axes.values())
    alike = sorted(groups.repeats(rows), key=lambda rows: -sum(row["macs_share"] for row in rows))
    for rows in alike[:MOST]:
        carried = share(min(sum(row["macs_share"] for row in rows), 1.0))
        yield f"{groups.called(rows)} (named {rows[0]['name']}), with up to {carried} of the MACs, cannot be cut: " + (
            f"{pinned.because(rows[0])}."
        )


def _bodies(case: Case) -> Iterator[str]:
    """Graphs inside nodes that hold much of the model."""
    for row in case.report.get("bodies", ()):
        if max(row["macs_share"], row["params_share"]) > MUCH:
            yield pinned.inside(row)


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
    for row in bounds(case.report) if multiple != 1 and narrowed else ():
        if row["relative"] and row["share"] < (1 - SPARE) * float(row["asked"]):
            yield f"Widths are {steps}: {row['title']} ended at {row['share']:.3f}, under the {row['asked']:g} allowed."
    yield from pages.chosen_again(case.report.get("timed") or ())


def _work(case: Case) -> Iterator[str]:
    """What could not be measured with the work, or in the seconds, that were allowed."""
    yield from repair.unmeasured(case.report.get("choice") or {})


def _in_vain(case: Case) -> Iterator[str]:
    """Training that was undone."""
    told = case.report.get("training") or {}
    yield from training.taken_back(told.get("finetune", told))


LIMITS: tuple[Callable[[Case], Iterator[str]], ...] = (
    _doubtful, _pinned, _bodies, _protected, _narrowest, _steps, _work, _in_vain,
)  # fmt: skip
"""What may hold a model up: each tells sentences where it does."""
