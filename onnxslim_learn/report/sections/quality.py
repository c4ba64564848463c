"""How good a result is: the verdict, first of all, and the figures behind it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxslim_learn import lower_bounds
from onnxslim_learn.metrics import DESTROYED
from onnxslim_learn.report.blocks import Block, Text
from onnxslim_learn.report.format import at_least, percent, plural, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

GOOD = 0.9  # of its variance: where every block keeps as much, the result is near the original
SURE = 0.8  # which samples must leave no less possible than, for a result to be called good
ENOUGH = 64  # real samples, a quarter of which can be so sure where they all agree
FEW = 8  # samples held back, of so many: fewer may happen to agree
ASK = f"Give {ENOUGH} or more real ones with --data for a verdict and a better result."
DECIDED = {  # figures that are shares of decisions -> what is the same
    "agreement": "of the decisions of {} are the original's",
    "nearness": "of the nearness of neighbours is left in {}",
    "read": "of the samples are read the same by {}, all steps together",
    "matched": "of the detections in {} are matched, by squares of their scores",
}
SHARES = {  # figures that are told by the share alone
    "top5": "in the first five",
    "read": "all steps together the same",
    "matched": "detections matched",
}
UNITS = {"labels": "labels", "choices": "choice"}  # of which there is one for a sample, or an entry
CHOICES = ("choices", "detections")  # outputs of which the share is told that is the same
LITTLE = "On made-up inputs (says little about yours):"


def blocks(quality: Mapping[str, Any] | None) -> list[Block]:
    """The verdict and its figures."""
    if quality is None:
        return []
    told = [line for line in (*_outputs(quality), *_detections(quality), *_metric(quality)) if line]
    return [Text("\n".join([verdict(quality), *(f"  {line}" for line in told)]))]


def verdict(quality: Mapping[str, Any]) -> str:
    """What there is to say of a result in a sentence or two."""
    if quality["inputs"] == "made-up":
        even = f" Even on these, {_little(quality)}." if _little(quality) else ""
        return f"Quality on real inputs: unknown, since inputs were made up.{even} {ASK}\n{LITTLE}"
    where = f"on {plural(quality['samples'], 'sample')} held back of {quality['data']}"
    if quality["worst"] is None:
        return f"Quality: {_untold(quality)} {where}."
    if quality["destroyed"]:
        return f"Quality: DESTROYED. {destroyed(quality)} {where[:1].upper()}{where[1:]}."
    _, what = weakest(quality)
    least = f"At least {what}, {where if quality['held_back'] else f'on {_alone(quality)}'}."
    more = f" Give {needed(quality)} or more with --data." if few(quality) else ""
    return f"Quality: {word(quality)}. {least}{_surely(quality)}{more}"


def few(quality: Mapping[str, Any]) -> bool:
    """Whether so few real samples were held back that little can be said, or none."""
    if quality["inputs"] == "made-up":
        return False
    good = quality["worst"] is not None and weakest(quality)[0] >= GOOD
    return not quality["held_back"] or quality["samples"] < FEW or (good and surest(quality)[0] < SURE)


def good(quality: Mapping[str, Any]) -> bool:
    """Whether much is left, and the samples that tell are enough to say so."""
    return weakest(quality)[0] >= GOOD and not few(quality)


def tells_little(quality: Mapping[str, Any]) -> bool:
    """Whether other samples would tell more."""
    return few(quality) or bool(quality["worst"] is None and quality.get("outputs"))


def needed(quality: Mapping[str, Any]) -> int:
    """How many samples to give for a verdict that is sure, or a better result: the same share will be held back."""
    given = quality["samples"] + quality["fitted"] * quality["held_back"]
    for_one = given / quality["samples"] if quality["held_back"] else 4.0
    _, seems, _ = min(_bounds(quality))
    least = for_one * lower_bounds.enough(seems, SURE) if seems >= GOOD else ENOUGH
    return int(2 ** math.ceil(math.log2(max(least, 2 * given, ENOUGH))))


def word(quality: Mapping[str, Any]) -> str:
    """How good a result is that is not destroyed, and judged on real samples."""
    if weakest(quality)[0] < GOOD:
        return "lower"
    if not quality["held_back"]:
        return "unknown"
    return "looks good" if few(quality) else "good"


def _alone(quality: Mapping[str, Any]) -> str:
    """Samples of which none could be held back."""
    count = quality["samples"]
    return "the one sample that it was made with" if count == 1 else f"the {count} samples that it was made with"


def _surely(quality: Mapping[str, Any]) -> str:
    """How little samples held back leave possible, where that is too little, in a sentence."""
    if word(quality) != "looks good":
        return ""
    least, what = surest(quality)
    so_few = f"{plural(quality['samples'], 'sample')} can only tell"
    return f" Of others like them, {so_few} that at least {what}." if least > 0 else f" {so_few} of themselves."


def _untold(quality: Mapping[str, Any]) -> str:
    """Why nothing tells how good a result is."""
    outputs = quality.get("outputs") or {}
    if any(output["kind"] == "detections" and not output["figures"] for output in outputs.values()):
        return "unknown, since the original lists too few detections"
    if outputs:
        return "unknown, since no output of the original differs from sample to sample"
    return "no output could be compared"


def weakest(quality: Mapping[str, Any]) -> tuple[float, str]:
    """The least share that is left of variance, decisions and detections, and of what; 1 where nothing tells."""
    worst, shares = quality["worst"], [(1.0, "of what could be compared is left")]
    if worst is not None and worst.get("kind") not in CHOICES:
        shares.append((worst["explained"], f"of the variance of {_named(worst)} is left"))
    shares += _decided(quality)
    shares += _detected(quality.get("detections"))
    left, what = min(shares)
    return left, f"{at_least(left)} {what}"


def surest(quality: Mapping[str, Any]) -> tuple[float, str]:
    """The least share that the samples leave possible of others like them, and of what."""
    least, _, what = min(_bounds(quality))
    return max(least, 0.0), f"{at_least(least)} {what}"


def _bounds(quality: Mapping[str, Any]) -> Iterator[tuple[float, float, str]]:
    """What is surely left and what seems left, of everything that was compared, in parts or as a whole."""
    yield 1.0, 1.0, "of what could be compared is left"
    for name, output in (quality.get("outputs") or {}).items():
        for block in output["blocks"] if output["kind"] not in CHOICES else ():
            if block["tells"]:
                said = f"of the variance of {_named({**block, 'output': name})} is left"
                yield block["sure"], block["explained"], said
    count, matched = quality["samples"], quality.get("detections") or {"kept": None, "true": None, "shown": 0}
    decided = [(left, count, what) for left, what in _decided(quality)]
    decided += [(matched["kept"], matched["shown"], "of the scores of the original's detections is left")]
    decided += [(matched["true"], count, "of the scores of its own detections is what the original gives")]
    for left, of, what in decided:
        if left is not None:
            yield lower_bounds.of_decisions(left, of), left, what


def _decided(quality: Mapping[str, Any]) -> list[tuple[float, str]]:
    """The shares of decisions that are the same, of outputs that differ from sample to sample."""
    shares = []
    for name, output in (quality.get("outputs") or {}).items():
        told = {"agreement": output["agreement"], **output["figures"]}
        told = told if any(block["tells"] for block in output["blocks"]) else {}
        shares += [
            (told[key], words.format(_called(name))) for key, words in DECIDED.items() if told.get(key) is not None
        ]
    return shares


def smallest_good(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of several models, the one with the fewest MACs of which much is left; ``None`` where none is."""
    good = [row for row in rows if row["output"] and row.get("quality") and weakest(row["quality"])[0] >= GOOD]
    return min(good, key=lambda row: row["after"]["macs"], default=None)


def _detected(matched: Mapping[str, Any] | None) -> list[tuple[float, str]]:
    """What is left of the scores of detections, of all and of every class, where there are enough to tell."""
    if matched is None:
        return []
    of = f"of the scores of the original's {matched['original']} detections is left ({matched['matched']} are found)"
    told = [(matched["kept"], of), (matched["true"], "of the scores of its own detections is what the original gives")]
    told += [
        (kept, f"of the scores of detections of class {name} is left") for name, kept in matched["classes"].items()
    ]
    return [(left, words) for left, words in told if left is not None]


def told(quality: Mapping[str, Any] | None, least: float | None = None) -> str:
    """What there is to say of a result in a few words, where so much was to be left."""
    if quality is None:
        return "not measured, since there are no samples"
    if quality["inputs"] == "made-up":
        even = f"; even on these, {_little(quality)}" if _little(quality) else ""
        return f"unknown on real inputs, since inputs were made up{even}"
    if quality["worst"] is None:
        return _untold(quality)
    left, what = weakest(quality)
    if quality["destroyed"]:
        return f"DESTROYED, only {what}"
    metric = quality["metric"]
    beside = "" if metric is None else f"; {metric['name']} {metric['before']:.4g} before, {metric['after']:.4g} after"
    said = f"less than the {least:g} asked for" if fault(quality, least) else word(quality)
    what = f"at least {what}" if left >= GOOD else f"only {what}, and good is from {share(GOOD)}"
    return f"{said}, {what}{doubted(quality)}{beside}"


def doubted(quality: Mapping[str, Any]) -> str:
    """Why what seems good may be less, in a half sentence; empty where nothing says so."""
    if not quality["held_back"]:
        return f", on {_alone(quality)}"
    if word(quality) != "looks good":
        return ""
    least, what = surest(quality)
    so_few = plural(quality["samples"], "sample")
    return f", but {so_few} held back can only tell that at least {what}" if least > 0 else f", of {so_few} held back"


def _little(quality: Mapping[str, Any]) -> str:
    """What is destroyed even on made-up inputs, if anything is."""
    left, what = weakest(quality)
    return f"only {what}" if left < DESTROYED else ""


def _called(name: str) -> str:
    """An output, so that its name reads as one."""
    return name if name.startswith("output") else f"output {name}"


def _named(block: Mapping[str, Any]) -> str:
    """A block of an output."""
    return _called(str(block["output"])) + ("" if block["channels"] == "all" else f"[{block['channels']}]")


def destroyed(quality: Mapping[str, Any]) -> str:
    """Which outputs are of no use any more, or that most detections are lost."""
    gone = [
        _named({"output": name, **block})
        for name, output in quality["outputs"].items()
        for block in output["blocks"]
        if block["explained"] < DESTROYED
    ]
    advice = "Cut less, give more samples, or train the result (learn)"
    if not gone:
        return f"Only {weakest(quality)[1]}. {advice}."
    kept = share(max(quality["worst"]["explained"], 0.0))
    return f"Of {', '.join(gone)}, less than half of the original is left ({kept} at worst). {advice}."


def kept(quality: Mapping[str, Any] | None) -> str:
    """The variance that is left of the worst block in a word."""
    if quality is None or quality["worst"] is None:
        return "-"
    made_up = " (made-up inputs)" if quality["inputs"] == "made-up" else ""
    word = "destroyed" if quality["destroyed"] else share(max(quality["worst"]["explained"], 0.0))
    return f"{word}{made_up}"


def notes(quality: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What must not be missed."""
    if quality is None:
        return ()
    gone = [f"the result is destroyed. {destroyed(quality)}"] if quality["destroyed"] else []
    doubts = quality["doubts"] if quality["inputs"] == "given" else ()  # of made-up inputs the verdict says enough
    return (*doubts, *gone)


def fault(quality: Mapping[str, Any] | None, least: float | None) -> str | None:
    """What a result lacks, if that is less than the share that was asked for."""
    if quality is None or least is None:
        return None
    metric = quality["metric"]
    if metric is not None:
        left, what = metric["ratio"], metric["name"]
    elif quality["worst"] is None:
        return f"nothing tells whether the result keeps the {least:g} asked for: {_untold(quality)}."
    else:
        left, what = quality["worst"]["explained"], "the variance of the worst block"
    if left >= least:
        return None
    return f"the result keeps {max(left, 0.0):.3g} of {what}, but {least:g} was asked for. It is written all the same."


def _outputs(quality: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {', '.join(figures(output))}" for name, output in quality["outputs"].items()]


def figures(output: Mapping[str, Any]) -> list[str]:
    """What tells of an output, by what it is."""
    said, more = [], output["figures"]
    if output["agreement"] is not None:
        unit = "token" if "perplexity" in more else UNITS.get(output["kind"], "class")
        said.append(f"same {unit} {share(output['agreement'])}")
    if output["kl"] is not None:
        said.append(f"divergence {output['kl']:.2g}")
    said += [f"{words} {share(more[key])}" for key, words in SHARES.items() if key in more]
    if "perplexity" in more:
        said.append(f"perplexity {more['perplexity']:.3g} (the original's own: {more['original_perplexity']:.3g})")
    if output["kind"] == "embeddings":
        said.append(f"cosine of rows {output['cosine']:.4f}")
    if "retrieval" in more:
        said.append(f"same nearest neighbour {share(more['retrieval'])}, nearness {share(more['nearness'])}")
    if output["kind"] == "number":
        said.append(f"correlation {output['cosine']:.4f}")
    if "error" in more:
        said.append(f"error {more['error']:.3f} deviations")
    return [*said, *_variance(output)]


def _variance(output: Mapping[str, Any]) -> list[str]:
    """How much of every block's variance is left."""
    parts = [f"[{b['channels']}] {percent(max(b['explained'], 0.0))}" for b in output["blocks"]]
    kept = parts if len(parts) > 1 else [percent(max(output["worst"], 0.0))]
    return [] if output["kind"] in CHOICES else [f"variance kept {', '.join(kept)}"]


def _detections(quality: Mapping[str, Any]) -> list[str]:
    matched = quality["detections"]
    if matched is None:
        return []
    if matched["precision"] is None:
        return [f"detections ({matched['layout']}): the original finds nothing on these inputs"]
    said = f"{matched['matched']} of the original's {matched['original']} are found"
    scores = "" if matched["kept"] is None else f", with {share(matched['kept'])} of their scores"
    precision = f"mean average precision against them {matched['precision']:.3f}"
    return [f"detections ({matched['layout']}): {said}{scores}; {precision}"]


def _metric(quality: Mapping[str, Any]) -> list[str]:
    metric = quality["metric"]
    if metric is None:
        return []
    direction = "" if metric["higher_is_better"] else " (lower is better)"
    return [f"{metric['name']}: {metric['before']:.4g} before, {metric['after']:.4g} after{direction}"]
