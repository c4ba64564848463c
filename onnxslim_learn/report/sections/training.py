"""What training did, for reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.report.blocks import Block, Line, Lines, Point, Scatter, Section, Table, Text
from onnxslim_learn.report.format import before_and_after, count, loss, ms, plural, share
from onnxslim_learn.report.sections import latency, quality, repair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIDES = (("cut", "cut"), ("result", "trained"))
READ = (
    "Further left it is cheaper, further down it answers more as the original does: the best lie in the corner below "
    "left. Full points on the line are worth keeping; of a ring, another is as cheap and as near, and better in one."
)
POINTS = 200  # of a curve, at most
TWO = 2  # points make a curve
PARTS = {"alive": "units alive of each group", "sparsity": "share of zeros of each weight"}
"""What stands in a history before the names of parts -> what it is."""
WATCHED = {
    "loss": "loss",
    "held": "loss on samples held back",
    "right": "right on samples held back, share",
    "metric": "metric on samples held back",
    "cost": "cost if adopted, share",
    "alive": "units alive, share",
    "sparsity": "zeros, share",
    "rate": "learning rate",
    "term": "structure term, costs times strengths",
    "strength": "weight of the term, or pace of lowering strengths",
}
"""A number of a step -> what it is; charts come in this order."""
ADOPTED = (
    "Cost and units are what would be left if those without strength at that moment were cut. They may come back: "
    "widths are decided at the end, within what was asked for."
)
NAMES = {"structure": "structure learning", "finetune": "fine-tuning"}
MEANWHILE = {"structure": ", while units that will go lose their strength"}


def blocks(training: Mapping[str, Any] | None, titles: Mapping[str, str] | None = None) -> list[Block]:
    """How far outputs are from the original's before and after fine-tuning, and what was done.

    Args:
        training: What was trained, if anything was.
        titles: Group -> what it is called, where that is not its name.
    """
    if training is None:
        return []
    rows = [
        (f"{name}, {said}", *repair.cells(d))
        for name in training["result"]["outputs"]
        for side, said in SIDES
        for d in [training[side]["outputs"][name]]
    ]
    samples = plural(training["result"]["samples"], "sample")
    table = [Table(f"Outputs on {samples} that training did not see", repair.HEADS, tuple(rows))] if rows else []
    return [*table, Text("\n".join(_said(training))), *_learnt(training, titles or {})]


def _learnt(training: Mapping[str, Any], titles: Mapping[str, str]) -> list[Block]:
    """Every number that was watched while training, a chart each."""
    stages = {name: training.get(stage, {}).get("history", []) for stage, name in NAMES.items()}
    return [chart for name, history in stages.items() for chart in watched(name, history, titles)]


def watched(name: str, history: Sequence[Mapping[str, Any]], titles: Mapping[str, str] | None = None) -> list[Block]:
    """What changed from step to step of a stage of training, a chart for each number and for each group's units."""
    title, charts = f"{name[:1].upper()}{name[1:]}", dict[str, list[Line]]()
    for key in dict.fromkeys([*WATCHED, *(key for row in history for key in row if key != "step")]):
        points = [(float(row["step"]), float(row[key])) for row in history if isinstance(row.get(key), int | float)]
        kept = (*points[: -1 : max(len(points) // POINTS, 1)], *points[-1:])
        part, slash, whose = key.partition("/")
        drawn = charts.setdefault(f"{title}: {PARTS.get(part, part)}" if slash else f"{title}, step by step", [])
        if len({y for _, y in kept}) > 1 and kept not in [one.points for one in drawn if one.label == WATCHED["loss"]]:
            drawn.append(Line((titles or {}).get(whose, whose) or WATCHED.get(key, key), kept))
    said = {f"{title}, step by step": ADOPTED} if any("cost" in row for row in history) else {}
    return [Lines(told, said.get(told, ""), ("step", "value"), tuple(lines)) for told, lines in charts.items() if lines]


def rollouts(search: Mapping[str, Any] | None) -> list[Block]:
    """What the roll-outs of an agent earned, one after the other."""
    rewards = (search or {}).get("rewards") or []
    if len(rewards) < TWO:
        return []
    line = Line("reward", tuple((float(k + 1), float(reward)) for k, reward in enumerate(rewards)))
    return [Lines("Roll-outs", "", ("roll-out", "reward"), (line,))]


def learner(data: Mapping[str, Any]) -> list[str]:
    """Which learner it was, in the report of one."""
    return [f"Learnt by {data['learner']}."] if "learner" in data else []


def _said(training: Mapping[str, Any]) -> list[str]:
    lines = []
    for stage, name in NAMES.items():
        history = training.get(stage, {}).get("history", [])
        if history:
            first, last = history[0], history[-1]
            steps = plural(int(last["step"]) + 1, "step")
            losses = f"loss {loss(first['loss'])} to {loss(last['loss'])}{MEANWHILE.get(stage, '')}"
            lines.append(f"{steps} of {name} on {training['data']}: {losses}.")
            lines += [*gated(training[stage]), *taken_back(training[stage])]
    cycles = training.get("cycles")
    if cycles:
        whole = cycles["original"]
        both = f"{count(whole['macs'])} MACs and {count(whole['params'])} parameters"
        lines.append(f"Before is {cycles['cut']}, which cycle {cycles['count']} cut; the original has {both}.")
    cut, result = training["cut"], training["result"]
    if result["accuracy"] is not None:
        lines.append(
            f"Right on {result['accuracy']:.2%} of samples held back; the original on {result['original_accuracy']:.2%}"
            f", the cut model before fine-tuning on {cut['accuracy']:.2%}."
        )
    metric = result.get("metric")
    if metric is not None:
        side = "" if metric["higher_is_better"] else " (lower is better)"
        values = f"{metric['before']:.4g} for the original, {metric['after']:.4g} now"
        lines.append(f"{metric['name']} on samples held back: {values}{side}.")
    return lines


def gated(stage: Mapping[str, Any]) -> list[str]:
    """That gates were chosen, and for the sake of which groups."""
    names = stage.get("unscaled", [])
    if not names:
        return []
    others = f" and {plural(len(names) - 1, 'other group')}" if names[1:] else ""
    return [f"Gates told the strengths: units of {names[0]}{others} have no scales (--regularizer)."]


def taken_back(stage: Mapping[str, Any]) -> list[str]:
    """That a stage of training was in vain, if it was."""
    held = stage.get("held")
    if held is None or held["kept"] == "after":
        return []
    losses = f"loss {loss(held['before'])} before, {loss(held['after'])} after"
    which = "even on samples that it was trained on" if held["trained_on"] else "on samples held back"
    return [f"The last training did worse {which} ({losses}) and was undone. Try a lower --learning-rate."]


def widened(data: Mapping[str, Any]) -> list[Block]:
    """What the command expand did."""
    rows = before_and_after(data, "bytes of weights")
    if data["latency"] is not None:
        old, new = data["latency"]["before_ms"], data["latency"]["after_ms"]
        how = latency.clock(data["latency"]) if data["latency"]["measured"] else "estimated"
        rows.append((f"latency, {how}", ms(old), ms(new), f"{new / old:.3f}"))
    said = [f"Widths of {plural(len(data['groups']), 'group')} times {data['factor']:.3f}."]
    check = data["verify"]
    if check is None:
        said.append("The weights that grew were drawn anew: the model must be trained.")
    else:
        said.append(
            f"It computes what it did: difference at most {check['max_rel_diff']:.1e} of the output's magnitude."
        )
    table = Table("", ("", "before", "after", "ratio"), tuple(rows))
    return [Section("change", (table, Text("\n".join(said))))]


def sweep(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """What several strengths leave."""
    names = [f"{float(format(row['strength'], '.3g')):g}" for row in rows]
    return compared(names, rows, ("strength", "Strengths"))


def targets(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """What several targets leave."""
    return compared([Path(row["output"]).stem for row in rows], rows, ("name", "Models"))


def compared(names: Sequence[str], rows: Sequence[Mapping[str, Any]], words: tuple[str, str]) -> list[Block]:
    """Several models of one: what they cost and how far they are from the original."""
    cells, points = [], []
    for name, row in zip(names, rows, strict=True):
        left, far = row["after"]["macs"] / max(row["before"]["macs"], 1), row["relative"]
        size_left = row["after"]["params"] / max(row["before"]["params"], 1)
        right = "-" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
        best, file = "yes" if row["pareto"] else "no", row["output"] or "-"
        kept = quality.kept(row.get("quality"))
        cells.append((f"{name}\n  {file}", share(left), share(size_left), kept, f"{far:.3f}", right, best))
        text = f"{share(left)} of the MACs, relative L2 {far:.3f}" + ("" if right == "-" else f", right on {right}")
        text = text if row["output"] else "nothing was cut"
        points.append(Point(name, left, far, text, row["pareto"]))
    heads = (f"{words[0]}, and its file", "MACs", "parameters", "worst block", "relative L2", "right", "worth keeping")
    axes = "share of the MACs that is left", "distance to the original's outputs (relative L2)"
    said = f"Each point is a model, with its {words[0]}. {READ}"
    chart = Scatter("What is left, and how far it is", said, axes, (".0%", ".4~g"), tuple(points))
    apart = len({(point.x, point.y) for point in points}) > 1
    return [Section("compared", (*([chart] if apart else []), Table(words[1], heads, tuple(cells))))]
