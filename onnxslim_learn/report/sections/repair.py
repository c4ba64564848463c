"""What choosing by samples and repair did, for reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxslim_learn.repair.sequential import UNCHANGED
from onnxslim_learn.report.blocks import Block, Line, Lines, Table, Text
from onnxslim_learn.report.format import count, held_back, percent, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxslim_learn.repair.sequential import Repaired
    from onnxslim_learn.workflow.slimmed import Finetuned

ALL = 1.0  # is lost: what is more says nothing more
ROUNDED = 1.01  # of a number that is told in three digits, not to be less than it is
NAMED = 3  # layers passed over for one reason that are told by name
SIDES = ("original", "cut", "repaired")
HEADS = ("output against the original's", "worst block", "cosine", "relative L2", "KL", "same class")


def as_data(repaired: Repaired | None, data: str, finetuned: Finetuned | None = None) -> dict[str, Any] | None:
    """Repair, and training after it, as plain data; ``data`` names the samples."""
    if repaired is None:
        return None
    return {
        "data": data,
        "inputs": "made-up" if repaired.made_up else "given",
        "samples": repaired.samples,
        "held_back": repaired.held_back,
        "kept": repaired.kept,
        "accuracy": None if repaired.accuracy is None else dict(zip(SIDES, repaired.accuracy, strict=True)),
        "before": {name: asdict(d) for name, d in repaired.before.items()},
        "after": {name: asdict(d) for name, d in repaired.after.items()},
        "finetune": None if finetuned is None else asdict(finetuned),
        "nodes": {
            name: {"method": f.method, "before": f.before, "after": f.after} for name, f in repaired.nodes.items()
        },
        "left": {one.name: one.reason for one in repaired.passed_over if one.reason != UNCHANGED},
        "passed_over": [asdict(one) for one in repaired.passed_over],
    }


def blocks(repair: Mapping[str, Any] | None) -> list[Block]:
    """How far outputs are from the original's with and without repair, and what was done to the layers."""
    if repair is None:
        return []
    sides = {"cut": repair["before"], "repaired": repair["after"], "trained": (repair["finetune"] or {}).get("after")}
    rows = [
        (f"{name}, {label}", *cells(side[name]))
        for name in repair["after"]
        for label, side in sides.items()
        if side and name in side
    ]
    where = held_back(repair)
    title = f"Outputs on {'made-up inputs, which say little about yours' if _made_up(repair) else where}"
    table = Table(title, HEADS, tuple(rows)) if rows else None
    return [*([table] if table else []), Text("\n".join([*_said(repair), *_trained(repair["finetune"])]))]


def _made_up(repair: Mapping[str, Any]) -> bool:
    return bool(repair["inputs"] == "made-up")


def cells(d: Mapping[str, Any]) -> tuple[str, ...]:
    """A deviation as the cells under all heads but the first."""
    classes = ("-", "-") if d["kl"] is None else (f"{d['kl']:.2g}", percent(d["agreement"]))
    return (percent(max(d["worst"], 0.0)), f"{d['cosine']:.4f}", f"{d['relative']:.3f}", *classes)


def _said(repair: Mapping[str, Any]) -> list[str]:
    if not repair["kept"]:
        return ["Repair made outputs worse on held-back samples, so the weights stay as they were cut."]
    methods = Counter(node["method"] for node in repair["nodes"].values())
    plain = methods.pop("plain", 0)
    done = ", ".join(f"{count} by {method}" for method, count in methods.most_common())
    samples = plural(repair["samples"], "sample") + (f" of {repair['data']}" if _made_up(repair) else "")
    refitted = f"Repaired {plural(sum(methods.values()), 'layer')} on {samples}: {done}."
    lines = [refitted if done else "Repaired no layer."]
    if repair["accuracy"]:
        told = ", ".join(f"{side} {percent(repair['accuracy'][side])}" for side in SIDES)
        lines.append(f"Right on held-back samples with labels: {told}.")
    if plain:
        lines.append(f"{plural(plain, 'layer')} kept the plain weights: nothing did better on held-back samples.")
    return [*lines, *_passed_over(repair["passed_over"])]


def _trained(finetune: Mapping[str, Any] | None) -> list[str]:
    if finetune is None:
        return []
    steps = plural(finetune["steps"], "step")
    if finetune["kept"]:
        return [f"Trained all weights for {steps} towards the original's outputs."]
    why = "outputs came no nearer on held-back samples" if finetune["after"] else "the loss was no number any more"
    return [f"Training for {steps} was undone: {why}."]


def _passed_over(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every reason why layers were not refitted, with the first few of them."""
    reasons: dict[str, list[str]] = {}
    for layer in layers:
        reasons.setdefault(layer["reason"], []).append(layer["name"])
    some = {why: ", ".join([*names[:NAMED], *["..."] * (len(names) > NAMED)]) for why, names in reasons.items()}
    return [f"{plural(len(n), 'layer')} not refitted: {why} ({some[why]})." for why, n in reasons.items()]


def curves(choice: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[Block]:
    """What every group loses by itself at several widths, all groups on one scale."""
    known, lines = choice.get("curves") or {}, []
    for group in groups:
        points = {int(kept): min(max(loss, 0.0), ALL) for kept, loss in (known.get(group["name"]) or {}).items()}
        if points:
            how = "" if group["name"] in choice.get("measured", known) else ", predicted"
            lines.append(Line(f"{group['title']}{how}", tuple(sorted(points.items())), group.get("kept")))
    axes = ("units that stay", "loss after repair")
    said = "To the right: units that stay. Up: the loss after repair, up to 1: of the outputs' variance, or divergence."
    said += " The dashed line is the width that was chosen." if any(line.chosen is not None for line in lines) else ""
    title = "What every group loses by itself"
    drawn: list[Block] = [Lines(title, said, axes, tuple(lines), logarithmic=True)] if lines else []
    allocated = _allocated(choice)
    return [Text(allocated), *drawn] if allocated else drawn


def _allocated(choice: Mapping[str, Any]) -> str:
    """How the cut was shared out among groups, where samples had a say."""
    trials, work = choice.get("trials"), choice.get("work")
    if not work:
        return ""
    tried = f"{choice['allocation']}, the best of {plural(len(trials), 'allocation')} tried" if trials else "all alike"
    return f"Widths: {tried}."


def unmeasured(choice: Mapping[str, Any]) -> list[str]:
    """What could not be measured with the work, or in the seconds, that were allowed, a sentence for each limit."""
    if not (work := choice.get("work")):
        return []
    said, (measured, groups), (done, planned) = [], work["groups"], work["points"]
    if work["seconds"] is not None:
        said.append(
            f"Measuring stopped after {work['seconds']:g} s, with {done} of {planned} measurements; the others take "
            f"some {work['rest']:.0f} s. The same command goes on from there, without --sensitivity-seconds to the end."
        )
    if measured < groups:
        which = f"{groups - measured} of {plural(groups, 'group')}" if measured else f"all {plural(groups, 'group')}"
        rest = "was predicted" if choice.get("trials") else "was not measured, so widths are all alike"
        enough = f": the work of {_work(work['work'])} ended. --work {_enough(work)} measures all"
        said.append(f"What {which} lose by a cut {rest}{enough if work['seconds'] is None else ''}.")
    return said


def _enough(work: Mapping[str, Any]) -> str:
    """Work that does for all groups."""
    return _work(work["all_measured"] * ROUNDED)


def _work(amount: float) -> str:
    """Work as the option takes it."""
    return count(amount).replace(" ", "")
