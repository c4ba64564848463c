"""How good a result is: the verdict, first of all, and the figures behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxslim_learn.metrics import DESTROYED
from onnxslim_learn.report.blocks import Block, Text
from onnxslim_learn.report.format import percent, plural, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GOOD = 0.9  # of its variance: where every block keeps as much, the result is near the original
ENOUGH = 30  # real samples that a verdict, and a repair that can be trusted, take
FEW = 8  # samples held back, of so many: fewer may happen to agree
ASK = f"Give {ENOUGH} or more real ones with --data for a verdict and a better result."
DECIDED = {  # figures that are shares of decisions -> what is the same
    "agreement": "of the decisions of {} are the original's",
    "nearness": "of the nearness of neighbours is left in {}",
    "read": "of the samples are read the same by {}, all steps together",
}
UNITS = {"labels": "labels", "choices": "choice"}  # of which there is one for a sample, or an entry
CHOICES = "choices"  # outputs of which the share is told that is the same
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
    left, what = weakest(quality)
    return f"Quality: {_word(left)}{_as_far(quality)}. At least {what}, {where}.{f' {ASK}' if few(quality) else ''}"


def few(quality: Mapping[str, Any]) -> bool:
    """Whether so few real samples were held back that little can be said."""
    return bool(quality["inputs"] != "made-up" and quality.get("samples", FEW) < FEW)


def tells_little(quality: Mapping[str, Any]) -> bool:
    """Whether other samples would tell more."""
    return few(quality) or bool(quality["worst"] is None and quality.get("outputs"))


def _as_far(quality: Mapping[str, Any]) -> str:
    return f" as far as {plural(quality['samples'], 'sample')} can tell" if few(quality) else ""


def _untold(quality: Mapping[str, Any]) -> str:
    """Why nothing tells how good a result is."""
    if quality.get("outputs"):
        return "unknown, since no output of the original differs from sample to sample"
    return "no output could be compared"


def weakest(quality: Mapping[str, Any]) -> tuple[float, str]:
    """The least share that is left of variance, decisions and detections, and of what; 1 where nothing tells."""
    shares = [(1.0, "of what could be compared is left")]
    worst = quality["worst"]
    if worst is not None and worst.get("kind") != CHOICES:
        shares.append((worst["explained"], f"of the variance of {_named(worst)} is left"))
    for name, output in (quality.get("outputs") or {}).items():
        if not any(block["tells"] for block in output["blocks"]):
            continue
        told = {"agreement": output["agreement"], **output["figures"]}
        shares += [
            (told[key], words.format(_called(name))) for key, words in DECIDED.items() if told.get(key) is not None
        ]
    shares += _detected(quality.get("detections"))
    left, what = min(shares)
    return left, f"{share(max(left, 0.0))} {what}"


def smallest_good(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of several models, the one with the fewest MACs that is good; ``None`` where none is."""
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
    word = f"{_word(left)}{_as_far(quality)}"
    if fault(quality, least):
        word = f"less than the {least:g} asked for"
    what = f"at least {what}" if left >= GOOD else f"only {what}, and good is from {share(GOOD)}"
    return f"{word}, {what}{beside}"


def _little(quality: Mapping[str, Any]) -> str:
    """What is destroyed even on made-up inputs, if anything is."""
    left, what = weakest(quality)
    return f"only {what}" if left < DESTROYED else ""


def of_outputs(
    outputs: Mapping[str, Any], matched: Mapping[str, Any] | None, samples: int | None = None, *, real: bool
) -> dict[str, Any]:
    """What outputs, and detections, on so many samples, real or made up, say of a result that nothing else judged."""
    telling = [
        {**block, "output": name, "kind": output["kind"]}
        for name, output in outputs.items()
        for block in output["blocks"]
        if block["tells"]
    ]
    worst = min(telling, key=lambda block: block["explained"], default=None)
    kept = [block["explained"] for block in telling] + [left for left, _ in _detected(matched)]
    told = {"inputs": "given" if real else "made-up", "worst": worst, "outputs": outputs, "detections": matched}
    count = {} if samples is None else {"samples": samples}
    return {**told, **count, "destroyed": real and min(kept, default=1.0) < DESTROYED, "metric": None}


def _word(left: float) -> str:
    """How good a result is that keeps so much and is not destroyed."""
    return "good" if left >= GOOD else "lower"


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
    return (*quality["doubts"], *gone)


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
    if "top5" in more:
        said.append(f"in the first five {share(more['top5'])}")
    if "read" in more:
        said.append(f"all steps together the same {share(more['read'])}")
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
    return [] if output["kind"] == CHOICES else [f"variance kept {', '.join(kept)}"]


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
