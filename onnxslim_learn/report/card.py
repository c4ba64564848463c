"""What stands first on a page: whether it did what was asked, how good and how fast it is, and what to try next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnxslim_learn.report.format import amount, at_least, count, ms, percent, plural, share, size
from onnxslim_learn.report.sections import quality

GOOD, FAIR, BAD, PLAIN = "good", "fair", "bad", ""

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Tile:
    """One figure.

    Attributes:
        label: What it is.
        value: The figure.
        more: What else there is to say of it.
        state: Whether it is good.
    """

    label: str
    value: str
    more: str = ""
    state: str = PLAIN


@dataclass(frozen=True)
class Card:
    """The verdict.

    Attributes:
        headline: In one sentence.
        state: Whether it is good.
        tiles: The figures.
        limits: What limited it, in sentences.
        next: The ``command`` to try next, and ``why``.
    """

    headline: str
    state: str
    tiles: tuple[Tile, ...]
    limits: tuple[str, ...]
    next: Mapping[str, str] | None


def card(report: Report) -> Card | None:
    """The card of a report; ``None`` where it has no verdict."""
    verdict = report.get("verdict")
    if verdict is None:
        return None
    tiles = tuple(tile for row in TILES for tile in row(report))
    state, headline = next(filter(None, (row(report) for row in HEADLINES)))
    return Card(headline, state, tiles, tuple(verdict["limited_by"]), verdict["next"])


# --- tiles ------------------------------------------------------------------------------------------------------------


def _met(report: Report) -> Iterator[Tile]:
    """What was asked for, and what came out."""
    for row in report["verdict"]["met"] or ():
        got = amount(row["got"], row["unit"])
        asked = f"{row['asked']:g}" if row["relative"] else amount(row["bound"], row["unit"])
        value = got if row["share"] is None else f"{row['share']:.3f}"
        file = f"{row['file']}: " if "file" in row else ""
        state, word = (GOOD, "met") if row["met"] else (BAD, "missed")
        more = word if row["share"] is None else f"of the original's ({got}): {word}"
        yield Tile(f"{file}{row['title']}, at most {asked} asked", value, more, state)


def _quality(report: Report) -> Iterator[Tile]:
    """What is left of the worst block."""
    kept, told = report["verdict"]["kept"], report["verdict"]["quality"]
    if kept is None:
        if told:
            yield Tile("Quality", "unknown", told, FAIR)
        return
    state = BAD if kept["destroyed"] else GOOD if kept["good"] and kept["real"] else FAIR
    where = "" if kept["real"] else " on made-up inputs, which say little about yours"
    where += ", on few samples" if kept["few"] and kept["held_back"] else ""
    where += "" if kept["held_back"] else ", on the samples that it was made with"
    yield Tile("Quality, where it is worst", at_least(kept["share"]), kept["said"].partition("% ")[2] + where, state)


def _accuracy(report: Report) -> Iterator[Tile]:
    """Right answers, where there are labels."""
    before, after = next((pair for pair in _right(report) if None not in pair), (None, None))
    if before is not None and after is not None:
        yield Tile("Right on held-out samples", share(after), f"the original on {share(before)}")


def _right(report: Report) -> Iterator[tuple[float | None, float | None]]:
    """Shares of right answers, of the original and of the result, wherever they are told."""
    yield report.get("before", {}).get("accuracy"), report.get("after", {}).get("accuracy")
    trained = (report.get("training") or {}).get("result") or {}
    yield trained.get("original_accuracy"), trained.get("accuracy")
    repair = report.get("repair") or {}
    known = repair.get("accuracy") or {}
    tuned = repair.get("finetune") or {}
    yield known.get("original"), tuned.get("accuracy") if tuned.get("kept") else known.get(_standing(repair))


def _standing(repair: Report) -> str:
    """Which weights stand after a repair."""
    return "repaired" if repair.get("kept") else "cut"


def _speed(report: Report) -> Iterator[Tile]:
    """How fast it is."""
    timed = report["verdict"]["faster"]
    if timed is None:
        return
    state = {True: GOOD, False: BAD, None: FAIR}[timed.get("faster")]
    state, file = (PLAIN if "base" in timed else state), f"{timed['file']}: " if "file" in timed else ""
    known = report.get("latency") or {}
    span = f" ({known['low']:.3f} to {known['high']:.3f})" if "low" in known else ""
    word = "" if timed.get("faster") is not None else ", not measurably faster"
    base = timed.get("base", "the first" if "settings" in report else "the original")
    more = f"{timed['ratio']:.3f} of the time of {base}{span}{word}"
    yield Tile(f"{file}speed, the slowest" if file else "Speed", f"{1 / timed['ratio']:.2f} times as fast", more, state)


def _sides(report: Report) -> Iterator[Tile]:
    """Costs before and after, but those that were bounded."""
    before, after = report.get("before"), report.get("after")
    if before is None or after is None:
        return
    told = {row["cost"] for row in report["verdict"]["met"] or ()}
    for one in report["counted"]:
        if one["name"] not in told | {"bytes"}:
            old, new = before[one["name"]], after[one["name"]]
            yield Tile(_heading(one), amount(new, one["unit"]), f"before {amount(old, one['unit'])}{_ratio(old, new)}")
    if "bytes" not in told:
        yield Tile(
            "File", size(after["bytes"]), f"before {size(before['bytes'])}{_ratio(before['bytes'], after['bytes'])}"
        )
    if before.get("latency_ms") and after.get("latency_ms"):
        yield Tile("Latency", ms(after["latency_ms"]), f"before {ms(before['latency_ms'])}")


def _heading(cost: Report) -> str:
    return str(cost["title"])[:1].upper() + str(cost["title"])[1:]


def _ratio(old: float, new: float) -> str:
    return f", {new / old:.3f} of it" if old else ""


def _whole(report: Report) -> Iterator[Tile]:
    """What an analysed model costs, and how much of it can go."""
    if "costs" not in report:
        return
    costs = report["costs"]
    for one in report["counted"]:
        yield Tile(_heading(one), amount(costs[one["name"]], one["unit"]))
    yield Tile("File", size(costs["file_bytes"]), f"{size(costs['peak_activation_bytes'])} of activations at the peak")
    if report["device"]:
        yield Tile("Latency, estimated", ms(costs["latency_ms"]), f"on {report['device']['name']}")
    units = sum(row["width"] for row in report["groups"])
    yield Tile("Units that can be cut", count(units), f"in {plural(len(report['groups']), 'group')}")
    held = sum(row["macs"] > 0 for row in report["pinned"])
    yield Tile("Groups that cannot be cut", str(held), "of those that carry MACs")


def _timed(report: Report) -> Iterator[Tile]:
    """How long models take."""
    for setting in report.get("settings", ())[:1]:
        for one in setting["timings"]:
            yield Tile(
                str(one["model"]), ms(one["median_ms"]), f"10 % to 90 %: {one['low_ms']:.3g} to {ms(one['high_ms'])}"
            )


def _zeros(report: Report) -> Iterator[Tile]:
    """How many zeros there are."""
    if "sparsity" in report:
        yield Tile("Zero weights", share(report["sparsity"]), f"of {plural(len(report['layers']), 'layer')}")


TILES: tuple[Callable[[Report], Iterator[Tile]], ...] = (
    _met, _quality, _accuracy, _speed, _zeros, _sides, _whole, _timed,
)  # fmt: skip
"""What makes the tiles, in their order; each where it applies."""


# --- the headline -----------------------------------------------------------------------------------------------------


def _failed(report: Report) -> tuple[str, str] | None:
    check = report.get("verify") or {"passed": True}
    return None if check["passed"] else (BAD, f"The check failed: {check['complaint']}.")


def _swept(report: Report) -> tuple[str, str] | None:
    """Of several strengths or targets, which lie far apart on purpose, the one that is of use."""
    rows = report.get("strengths") or report.get("targets") or []
    judged = any(row.get("quality") for row in rows)
    if not rows or ("targets" in report and not judged):
        return None
    tried = plural(len(rows), "target" if "targets" in report else "strength")
    if not any(row["output"] for row in rows):
        return FAIR, f"No unit went at any of {tried}."
    best = quality.smallest_good(rows)
    if best is None:
        return FAIR, f"{tried} tried: nothing that was cut is good."
    left = share(best["after"]["macs"] / max(best["before"]["macs"], 1))
    known = report["verdict"]["kept"] is not None and report["verdict"]["kept"]["real"]
    sure = quality.good(best["quality"])
    seems = "is" if sure else "looks"
    said = f"{tried} tried: the smallest that {seems} good is {best['output']}, with {left} of the MACs"
    return (GOOD if sure else FAIR, f"{said}.") if known else (FAIR, f"{said}; on real inputs, nobody knows yet.")


def _destroyed(report: Report) -> tuple[str, str] | None:
    kept = report["verdict"]["kept"]
    return (BAD, f"Destroyed: only {kept['said']}.") if kept and kept["destroyed"] else None


def _bounded(report: Report) -> tuple[str, str] | None:
    rows = report["verdict"]["met"]
    if not rows:
        return None
    if missed := [row["title"] for row in rows if not row["met"]]:
        return BAD, f"The target was missed: {', '.join(dict.fromkeys(missed))}."
    return _judged("Every target was met" if len(rows) > 1 else "The target was met", report)


def _sparse(report: Report) -> tuple[str, str] | None:
    if "sparsity" not in report:
        return None
    zeros = f"{share(report['sparsity'])} of the weights of {plural(len(report['layers']), 'layer')} are zero"
    return _judged(zeros, report)


def _judged(what: str, report: Report) -> tuple[str, str]:
    """What was done, and how good the result is."""
    kept = report["verdict"]["kept"]
    if kept is None and report["verdict"]["quality"] is None:
        return GOOD, f"{what}."
    if kept is None or not kept["real"]:
        return FAIR, f"{what}; how good the result is on real inputs, nobody knows yet."
    if kept["good"]:
        return GOOD, f"{what}, and at least {kept['said']}."
    if kept["share"] < quality.GOOD:
        return FAIR, f"{what}, but only {kept['said']}."
    if not kept["held_back"]:
        return FAIR, f"{what}; how good the result is on other samples than it was made with, nobody knows yet."
    so_few = plural(kept["samples"], "sample")
    return (
        FAIR,
        f"{what}, and at least {kept['said']}; {so_few} held back can only tell that at least {kept['surely']}.",
    )


def _cuttable(report: Report) -> tuple[str, str] | None:
    if "costs" not in report:
        return None
    groups = report["groups"]
    if not groups:
        return FAIR, "Nothing can be cut."
    largest = max(groups, key=lambda row: row["macs_share"])
    said = f"{plural(len(groups), 'group')} can be cut, the largest with {percent(largest['macs_share'])} of the MACs."
    return GOOD, said


def _compared(report: Report) -> tuple[str, str] | None:
    timed = report["verdict"]["faster"]
    if timed is None or "base" in timed:
        return None
    speeds = {True: (GOOD, "Faster"), False: (BAD, "Slower"), None: (FAIR, "Not measurably faster")}
    state, word = speeds[timed["faster"]]
    return state, f"{word}: {timed['ratio']:.3f} of the time."


def _checked(report: Report) -> tuple[str, str] | None:
    return (GOOD, "It computes what it should.") if report.get("verify") else None


def _beside(report: Report) -> tuple[str, str] | None:
    if "other" not in report:
        return None
    before, after = report["before"], report["after"]
    ratios = {one["title"]: after[one["name"]] / max(before[one["name"]], 1) for one in report["counted"]}
    parts = [f"{ratio:.3f} of the {title}" for title, ratio in ratios.items()]
    return PLAIN, f"{report['other']} has {' and '.join(parts)} of {report['model']}."


def _taken(report: Report) -> tuple[str, str] | None:
    """How long models take that were timed, in the first of the settings."""
    for setting in report.get("settings", ()):
        (first, *_) = setting["timings"]
        if pairs := setting["comparisons"]:
            told = (f"{pair['model']} is {1 / pair['ratio']:.2f} times as fast" for pair in pairs)
            return PLAIN, f"Beside {first['model']}, {', '.join(told)}."
        return PLAIN, f"A run takes {ms(first['median_ms'])}."
    return None


def _calibrated(report: Report) -> tuple[str, str] | None:
    """What a machine computes and moves in a second."""
    if not {"gflops", "gbytes"} <= report.keys():
        return None
    computed, moved = (count(report[key] * 1e9) for key in ("gflops", "gbytes"))
    return PLAIN, f"In a second this machine computes up to {computed}FLOP, and moves {moved}B."


def _done(_: Report) -> tuple[str, str] | None:
    return PLAIN, "Done."


HEADLINES: tuple[Callable[[Report], tuple[str, str] | None], ...] = (
    _failed, _swept, _destroyed, _bounded, _sparse, _cuttable, _compared, _beside, _checked, _taken, _calibrated, _done,
)  # fmt: skip
"""The first that applies heads the card."""
