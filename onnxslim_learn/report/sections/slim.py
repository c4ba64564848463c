"""What each command reports, from its plain data: paragraphs, tables and charts."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from onnxslim_learn.readers import AUTO
from onnxslim_learn.report.blocks import Bar, Bars, Block, Section, Table, Text
from onnxslim_learn.report.format import (
    amount,
    before_and_after,
    count,
    ms,
    percent,
    plural,
    provider,
    shapes,
    share,
    size,
    times,
)
from onnxslim_learn.report.sections import groups, latency, network, quality, repair, training
from onnxslim_learn.report.sections.groups import called, repeats, titled
from onnxslim_learn.report.sections.pinned import ONE, because, inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LARGEST = 40  # groups in a chart; tables have all
MEMBERS = 2  # parameter axes named in a row; the rest are counted

# What a name or a row may hold -> what it means; said where it occurs.
LEGEND = (
    (r"", "Each row is what must be cut together, and its name: the first parameter axis (name:axis) that it ties."),
    (
        r"\(x \d+\)",
        "x N: so many blocks have groups alike; the first is named, shares are those of all (--verbose lists each).",
    ),
    (
        r"",
        "MACs and parameters: what would go with all its units. What lies between two groups counts for both, so that"
        " a column may add up to more than 100 %.",
    ),
    (r" rows?$", "Rows are whole heads or groups of a convolution; their cells go with them."),
    (r"/\d+'*$", "name:axis/N: the N rows that the axis is made of."),
    (r"@\d+'*$", "name:axis@N: the group that position N of the axis belongs to; other groups have the rest."),
    (r"'$", "A ' tells groups of the same name apart."),
)


def analysis(data: Mapping[str, Any], *, settable: bool = True) -> list[Block]:
    """An overview: totals, then one row per group, then what the words mean.

    Args:
        data: The overview.
        settable: Whether the command has an option for the input shapes.
    """
    if "why" in data:
        return [Section("costs", (_summary(data, settable),)), Section("why", tuple(why(data["why"])))]
    free = _free(data["groups"], data["counted"]) if data["groups"] else Text("Nothing can be cut.")
    return [
        Section("costs", (_summary(data, settable),)),
        Section("groups", (free,)),
        Section("pinned", tuple(_pinned(data))),
        Section("blocks", tuple(_residual(data))),
        Section("where", tuple(latency.estimated(data))),
        Section("groups", (*_legend(data), _carried(data))),
    ]


def _carried(data: Mapping[str, Any]) -> Bars:
    """The groups with most of the MACs, those that cannot be cut among them."""
    rows = [(0, row) for row in data["groups"]] + [(1, row) for row in _working(data)]
    rows = sorted(rows, key=lambda one: -one[1]["macs_share"])[:LARGEST]
    bars = tuple(Bar(row["title"], row["macs_share"], share(row["macs_share"]), kind) for kind, row in rows)
    return Bars("MACs that would go with each group", ("can be cut", "cannot be cut"), bars)


def _summary(data: Mapping[str, Any], settable: bool) -> Text:
    costs = data["costs"]
    sizes = shapes(data["inputs"])
    told, assumed = data["values"], data["inputs_assumed"]
    if opened := [name for name in assumed if name not in told]:
        how = "; set it with --input" if settable else ""
        sizes += f" (assumed: the file leaves {', '.join(opened)} open{how})"
    if told:
        how = "; set it with --value" if settable else ""
        guessed = f" (assumed: it chooses a branch{how})" if any(name in told for name in assumed) else ""
        sizes += "; " + ", ".join(f"{name} = {value}" for name, value in told.items()) + guessed
    first = f"{data['model']}: {plural(data['nodes'], 'node')}" + (f"; {sizes}" if sizes else "")
    counted = ", ".join(f"{amount(costs[one['name']], one['unit'])} {one['title']}" for one in data["counted"])
    counted += (
        f", {size(costs['file_bytes'])} on disk, {size(costs['peak_activation_bytes'])} of activations at the peak"
    )
    if data["device"]:
        counted += f"\nabout {ms(costs['latency_ms'])} on {latency.machine(data['device'])}"
    return Text(f"{first}\n{counted}\n")


def _units(row: Mapping[str, Any]) -> str:
    return plural(row["width"], "row") if row["rows"] else str(row["width"])


def _free(rows: Sequence[Mapping[str, Any]], counted: Sequence[Mapping[str, str]]) -> Table:
    """The groups that can be cut."""
    heads = {one["title"]: f"{one['name']}_share" for one in counted}
    heads |= {"latency": "latency_share"} if "latency_share" in rows[0] else {}
    folded, each = _largest_first(repeats(rows)), _largest_first([[row] for row in rows])
    cells = tuple((titled(alike), *(share(sum(r[key] for r in alike)) for key in heads.values())) for alike in folded)
    opened = tuple((titled(one) + _ties(one[0]), *(share(one[0][key]) for key in heads.values())) for one in each)
    return Table("Groups that can be cut", ("group, and its name", *heads), cells, opened=opened)


def _largest_first(folded: Iterable[list[Mapping[str, Any]]]) -> list[list[Mapping[str, Any]]]:
    """Groups that are alike, those with the largest saving first."""
    return sorted(folded, key=lambda alike: -sum(row["macs_share"] for row in alike))


def _ties(row: Mapping[str, Any]) -> str:
    """What else a group ties."""
    others = [m for m in row["members"] if m != row["name"]]
    more = [f"and {len(others) - MEMBERS} more"] if len(others) > MEMBERS else []
    listed = "".join(f"\n    {line}" for line in (*others[:MEMBERS], *more))
    return f"\n  ties{listed}" if others else ""


def _residual(data: Mapping[str, Any]) -> list[Block]:
    """The residual blocks that can go as a whole."""
    free = [row for row in data["blocks"] if row["prunable"]]
    held = [row for row in data["blocks"] if not row["prunable"]]
    blocks: list[Block] = []
    if free:
        heads = {one["title"]: f"{one['name']}_share" for one in data["counted"]}
        folded, each = _alike_blocks(free), [[row] for row in free]
        cells, opened = (
            tuple((titled(alike), *(share(sum(r[key] for r in alike)) for key in heads.values())) for alike in rows)
            for rows in (folded, each)
        )
        title = "Residual blocks that can go as a whole (--drop-blocks, --only blocks)"
        blocks.append(Table(title, ("block, and its name", *heads), cells, opened=opened))
    for _, alike in itertools.groupby(sorted(held, key=_reason), _reason):
        rows = list(alike)
        said = f"{plural(len(rows), 'more residual block')} cannot go as a whole: {rows[0]['title']}"
        blocks.append(Text(f"{said}{', for one,' if len(rows) > 1 else ''} {rows[0]['reason']}."))
    return blocks


def _reason(row: Mapping[str, Any]) -> list[str]:
    """What reasons of one kind begin with."""
    return str(row["reason"]).split()[:2]


def _alike_blocks(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Blocks that do the same in layer after layer, together."""
    return repeats([{**row, "role": "blocks", "width": 1} for row in rows])


def _working(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The pinned groups that carry MACs and have units to lose."""
    return [row for row in data["pinned"] if row["macs"] > 0 and row["reason"] != ONE]


def _pinned(data: Mapping[str, Any]) -> list[Block]:
    shown, carrying = _working(data), sum(row["macs"] > 0 for row in data["pinned"])
    single = carrying - len(shown)
    blocks: list[Block] = []
    if shown:
        cells, opened = (
            tuple((titled(alike), share(sum(r["macs_share"] for r in alike)), because(alike[0])) for alike in folded)
            for folded in (_largest_first(repeats(shown)), _largest_first([[row] for row in shown]))
        )
        heads = ("group, and its name", "MACs", "because")
        blocks.append(Table("Groups that cannot be cut", heads, cells, (0, 2), opened=opened))
    notes = []
    if single:
        notes.append(f"{plural(single, 'more group')} cannot be cut: one unit is all there is.")
    if idle := len(data["pinned"]) - carrying:
        verb = "carries" if idle == 1 else "carry"
        notes.append(f"{plural(idle, 'more group')} {verb} no MACs (kernel, position, vocabulary) and cannot be cut.")
    if data["unknown_operators"]:
        named = ", ".join(f"{name} ({number})" for name, number in data["unknown_operators"].items())
        notes.append(f"Operators without a rule, which pin what they touch: {named}.")
    notes += [inside(row) for row in data["bodies"]]
    return [*blocks, Text("\n".join(notes))] if notes else blocks


def _legend(data: Mapping[str, Any]) -> list[Block]:
    """What the words in the tables mean, as far as they occur."""
    shown = [*data["groups"], *_working(data)]
    texts = [text for row in shown for text in (row["name"], _units(row))] + [called(a) for a in repeats(shown)]
    said = [sentence for pattern, sentence in LEGEND if any(re.search(pattern, text) for text in texts)]
    return [Text("\n" + "\n".join(said))] if said else []


def why(answers: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Block]:
    """Explanations as chains."""
    blocks: list[Block] = []
    for question, steps in answers.items():
        if not steps:
            nothing = "no operator ties these" if "," in question else "it can be cut, nothing holds it"
            blocks.append(Text(f"{question}: {nothing}", title=True))
            continue
        lines = [
            f"  {step['source']}\n    through {step['node']}" + (f" ({step['op_type']})" if step["op_type"] else "")
            for step in steps
        ]
        blocks += [Text(f"Why {question}", title=True), Text("\n".join([*lines, f"  {steps[-1]['target']}"]))]
    return blocks


def outcome(data: Mapping[str, Any]) -> list[Block]:
    """Before and after side by side, what the check found, and every layer's width."""
    before, after, timed = data["before"], data["after"], data["latency"]
    rows = before_and_after(data, "bytes on disk")
    if timed:
        ratio = times(timed["ratio"], timed["low"], timed["high"])
        rows.append(("latency", ms(before["latency_ms"]), ms(after["latency_ms"]), ratio))
    table = Table("", ("", "before", "after", "ratio"), tuple(rows))
    changed = [
        *training.learner(data),
        *_cut(data),
        *_dropped(data),
        *_turned(data),
        *_symbols(data),
        *_merged(data["merged"]),
        *_folded(data["lossless"]),
    ]
    return [
        Section("quality", tuple(_quality(data))),
        Section("change", (table, Text("\n".join(changed)))),
        Section("time", tuple(_told(_timed(data)))),
        Section("check", tuple(_told(_checked(data)))),
        Section("blocks", tuple(_went(data))),
        Section("time", tuple(latency.targeted(data.get("latency_target")))),
        Section("repair", tuple(repair.blocks(data["repair"]))),
        Section("losses", tuple(repair.curves(data["choice"], data["groups"]) if _cut(data) else ())),
        Section(
            "training",
            tuple(training.blocks(data.get("training"), {group["name"]: group["title"] for group in data["groups"]})),
        ),
        Section("widths", tuple(groups.bars(data))),
        Section("time", tuple(latency.nodes(data["node_times"]))),
        Section("layers", tuple(_layers(data))),
    ]


def _told(lines: Sequence[str]) -> list[Block]:
    """Sentences, if there are any."""
    return [Text("\n".join(lines))] if lines else []


def targets(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """What several targets leave: side by side, then each as if it had been asked for alone."""
    return [*training.targets(rows), *_each(rows)]


def strengths(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """What several strengths leave, likewise."""
    return [*training.sweep(rows), *_each(rows)]


def _each(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Every one of several models that was written, by itself."""
    blocks = list[Block]()
    for row in [one for one in rows if "report" in one]:
        parts = (*outcome(row["report"]), *groups.widths(row["report"]), *network.picture(row["report"]))
        told = (Text(f"\n{row['output']}", title=True), *parts)
        blocks.append(Section("each", (Section("each", told, str(row["output"])),)))
    return blocks


def _quality(data: Mapping[str, Any]) -> list[Block]:
    """How good a cut is, or that nobody knows; what is trained is told by what training found."""
    if data["quality"] is not None and not data.get("training"):
        return quality.blocks(data["quality"])
    changed = (_cut(data) or data["blocks"]) and not data["lossless"] and not data.get("training")
    return [Text(f"Quality: not measured, since there are no samples. {quality.ASK}")] if changed else []


def _symbols(data: Mapping[str, Any]) -> list[str]:
    """Symbols that stayed, and how they are cut."""
    symbols = [group for group in data["groups"] if group["role"] == "symbols" and group["kept"] == group["width"]]
    count = sum(group["width"] for group in symbols)
    return [f"Kept: {plural(count, 'symbol')} of the input; --only symbols cuts them."] if symbols else []


def _dropped(data: Mapping[str, Any]) -> list[str]:
    """How many residual blocks went."""
    blocks = data["blocks"]
    return [f"{plural(len(blocks), 'residual block')} went as a whole."] if blocks else []


def _went(data: Mapping[str, Any]) -> list[Block]:
    """Which residual blocks went, what that saved and what it lost."""
    if not data["blocks"]:
        return []
    heads = {one["title"]: f"{one['name']}_share" for one in data["counted"]}
    lost = ("lost with those chosen before",) if any(row["lost"] is not None for row in data["blocks"]) else ()
    cells = tuple(
        (titled([row]), *(share(row[key]) for key in heads.values()), *(f"{row['lost']:.2g}" for _ in lost))
        for row in data["blocks"]
    )
    return [Table("Residual blocks that went", ("block, and its name", *heads, *lost), cells)]


def _cut(data: Mapping[str, Any]) -> list[str]:
    groups = data["groups"]
    parts = [group["kept"] / group["width"] for group in groups if group["kept"] < group["width"]]
    if not parts:
        return []
    least, most = percent(min(parts)), percent(max(parts))
    span = least if least == most else f"between {least} and {most}"
    whose = "its" if len(parts) == 1 else "their"
    return [f"{len(parts)} of {plural(len(groups), 'group')} narrowed, to {span} of {whose} units."]


def _turned(data: Mapping[str, Any]) -> list[str]:
    """How many groups were rotated before they were cut."""
    said = "before the cut, which changes no output: their units are directions now."
    return [f"{plural(len(data['bases']), 'group')} rotated to principal directions {said}"] if data["bases"] else []


def missed(rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Targets that the file misses, a sentence each."""
    return [
        f"the result's {row['title']}: expected at most {amount(row['bound'], row['unit'])}, but got"
        f" {amount(row['got'], row['unit'])}. It is written all the same."
        for row in rows or ()
        if not row["met"]
    ]


def _merged(merged: Mapping[str, Any] | None) -> list[str]:
    """How many units were merged into others, and what was dropped instead."""
    if merged is None:
        return []
    units = sum(merged["units"].values())
    lines = [f"{plural(units, 'unit')} of {plural(len(merged['units']), 'group')} folded into similar ones that stay."]
    return lines + [f"{name}: units were dropped, not folded: {why}." for name, why in merged["dropped"].items()]


def _checked(data: Mapping[str, Any]) -> list[str]:
    return checked(data["verify"], lossless=bool(data["lossless"]))


def _folded(folded: Mapping[str, Any] | None) -> list[str]:
    """What a lossless cut did with constants, and what it had to leave."""
    if folded is None:
        return []
    lines = []
    if folded["biased"]:
        lines.append(f"Constants of cut units are now in the biases of {plural(len(folded['biased']), 'node')}.")
    if folded["mapped"]:
        where = plural(len(folded["mapped"]), "node")
        lines.append(f"Where padding makes constants differ at borders, a map is added: after {where}.")
    lines += [f"{name}: dead units stay: {why}." for name, why in folded["left"].items()]
    return lines


def _timed(data: Mapping[str, Any]) -> list[str]:
    """How latency was measured, and what to do where nothing was won."""
    timed = data["latency"]
    if not timed:
        return []
    where = f"on {plural(timed['threads'], 'thread')} of {provider(timed['provider'])}"
    counted = "" if timed["inputs"] == data["inputs"] else f" (MACs are counted at {shapes(data['inputs'])})"
    paired = timed["rounds"] and f"medians of {timed['rounds']} paired rounds"
    lines = [
        f"Latency at {shapes(timed['inputs'])}{counted} {where}: {latency.clock(timed)},"
        f" {paired or 'as the target was met'}; the ratio with its 95 % interval.{latency.other_clock(timed)}"
        f"{latency.stopped(timed)}{latency.unoptimized(timed)}"
    ]
    lines += chosen_again(data["timed"])
    if timed["faster"] is not True and data["after"]["macs"] < data["before"]["macs"]:
        lines.append(f"{_not_faster(timed)} {_advice(data['multiple'])}")
    return lines


def chosen_again(tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which widths were tried because others were slower than the original."""
    if not tried:
        return []
    first, *rest = (f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})" for one in tried)
    others = ", ".join(f"in multiples of {one['multiple']} {said}" for one, said in zip(tried[1:], rest, strict=True))
    return [
        f"Widths on the steps of this machine's kernels took {first} of the original's time, so they were chosen"
        f" again: {others}. The fastest is what was taken."
    ]


def _not_faster(timed: Mapping[str, Any]) -> str:
    """That nothing was won, and where the time goes."""
    why = latency.as_before(timed["unchanged"])
    return f"{'Slower' if timed['faster'] is False else 'Not measurably faster'}{why and f': {why}'}."


def _advice(multiple: int | str) -> str:
    """What to do where nothing was won."""
    if multiple != AUTO:
        return "Widths between the steps of this machine's kernels are slow: leave out --multiple."
    return "See profile --per-node, or ask for time itself with --target latency=0.7."


def checked(check: Mapping[str, Any], *, lossless: bool = False) -> list[str]:
    """What the comparison in onnxruntime found; a lossless cut is compared with the original itself."""
    inputs = plural(check["runs"], "input")
    if not check["exact"]:
        return [
            f"Not exact: normalised axes were cut. Outputs deviate from the original by {check['change']:.1e} of their"
            f" magnitude on {inputs}."
        ]
    sentence = (
        f"difference at most {check['max_abs_diff']:.1e} ({check['max_rel_diff']:.1e} of the output's magnitude)"
        if check["max_abs_diff"]
        else "identical outputs"
    )
    how = f", in {check['stretches']} stretches one after the other," if check.get("stretches", 1) > 1 else ""
    lines = [f"Verified on {inputs}{how} against the {'' if lossless else 'masked '}original: {sentence}."]
    if check["noise"] is not None:
        lines.append(
            f"This net amplifies rounding: one rounding error in its inputs moves them by {check['noise']:.1e}."
        )
    return lines


def _layers(data: Mapping[str, Any]) -> list[Block]:
    """Every layer before and after."""
    rows = []
    for layer in data["layers"]:
        (old, new), (macs, left) = layer["shapes"], layer["macs"]
        widths = ["x".join(map(str, shape)) if shape else "" for shape in (old, new)]
        rows.append((layer["name"], layer["op_type"], *widths, count(macs), count(left), f"{left / macs:.3f}"))
    heads = ("layer", "operator", "weight before", "after", "MACs before", "after", "ratio")
    return [Table("Layers", heads, tuple(rows), (0, 1), page_only=True)] if rows else []


def verified(data: Mapping[str, Any]) -> list[Block]:
    """What the command verify found."""
    check = data["verify"]
    verdict = "computes" if check["passed"] else "does NOT compute"
    under = "" if data["lossless"] else " under the plan's mask"
    first = f"{data['slimmed']} {verdict} what {data['original']} computes{under}."
    if data["repaired"]:
        first += f" {plural(len(data['repaired']), 'repaired weight')} compared as cut, all else as written."
    if not check["passed"]:
        complaint = check["complaint"]
        return [Section("check", (Text(f"{first}\n{complaint[:1].upper()}{complaint[1:]}."),))]
    return [Section("check", (Text("\n".join([first, *checked(check, lossless=data["lossless"])])),))]
