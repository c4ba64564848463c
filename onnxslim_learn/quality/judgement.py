"""How good a written model is against the original, on samples that were held back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxslim_learn.array_types import Array, Feeds, sample_count
from onnxslim_learn.metrics import DESTROYED, Block, Channels, Deviation, accuracy, comparable, deviation, total, worst
from onnxslim_learn.output_kinds import told_by_labels
from onnxslim_learn.quality.detections import Detections, detections
from onnxslim_learn.runtime.left_out import left_out_of_outputs
from onnxslim_learn.runtime.session import FAITHFUL, open_session

if TYPE_CHECKING:
    from pathlib import Path

    from onnxslim_learn.quality.metric import Metric


@dataclass(frozen=True)
class Samples:
    """What models are judged on.

    Attributes:
        name: Where they come from.
        feeds: Inputs by name, in batches.
        labels: What outputs should be, for every batch, or ``None``.
        made_up: Whether they are made up, so that what is measured on them says little about real ones.
        doubts: Why they are hardly what the model was made for.
        cure: The options that cure that, by name.
        fitted: How many samples models are fitted to.
        held_back: Whether these are none of them.
    """

    name: str
    feeds: Sequence[Feeds]
    labels: Sequence[Array | None] = ()
    made_up: bool = False
    doubts: Sequence[str] = ()
    cure: Mapping[str, str] = field(default_factory=dict)
    fitted: int = 0
    held_back: bool = True


def of_outputs(
    outputs: Mapping[str, Any], matched: Mapping[str, Any] | None, samples: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What outputs, and detections, say of a result that nothing else judged; ``None`` where nothing was compared.

    Args:
        outputs: Deviations by name, as plain data.
        matched: Detections, likewise.
        samples: On which: as :meth:`onnxslim_learn.data.source.Source.used` tells.
    """
    if not outputs:
        return None
    telling = [
        {**block, "output": name, "kind": output["kind"]}
        for name, output in outputs.items()
        for block in output["blocks"]
        if block["tells"]
    ]
    least = min(telling, key=lambda block: block["explained"], default=None)
    shares = [] if matched is None else [matched["kept"], matched["true"], *matched["classes"].values()]
    kept = [block["explained"] for block in telling] + [left for left in shares if left is not None]
    gone = samples["inputs"] == "given" and min(kept, default=1.0) < DESTROYED
    return {**samples, "worst": least, "outputs": outputs, "detections": matched, "destroyed": gone, "metric": None}


@dataclass(frozen=True)
class Measured:
    """What a metric says.

    Attributes:
        name: The metric.
        before, after: Its value for the original and for the model.
        higher_is_better: Whether higher is better.
        ratio: What is left of it: 1 where nothing is lost.
    """

    name: str
    before: float
    after: float
    higher_is_better: bool
    ratio: float

    @property
    def signed(self) -> float:
        """The metric of the model; more is better."""
        return self.after if self.higher_is_better else -self.after


@dataclass(frozen=True)
class Judgement:
    """How good a model is.

    Attributes:
        data: Where the samples come from.
        samples: How many there are.
        made_up: Whether they are made up: then nothing here is a verdict.
        outputs: Every output against the original's.
        detections: What it detects against what the original does, if it is a detector of a known family.
        metric: What the metric that was asked for says.
        doubts: Why the samples are hardly what the model was made for.
        accuracy: Share of samples of which the model finds the label, if there are labels that are classes.
        fitted: How many samples the model was fitted to.
        held_back: Whether those that judge it are none of them.
        cure: The options that cure what doubts are about, by name.
    """

    data: str
    samples: int
    made_up: bool
    outputs: dict[str, Deviation]
    detections: Detections | None = None
    metric: Measured | None = None
    doubts: tuple[str, ...] = ()
    accuracy: float | None = None
    fitted: int = 0
    held_back: bool = True
    cure: Mapping[str, str] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, Block] | None:
        """The output and the block of which least is explained."""
        return worst(self.outputs)

    @property
    def destroyed(self) -> bool:
        """Whether a block is destroyed, or most detections are lost, as far as real samples tell."""
        lost = self.detections is not None and self.detections.destroyed
        return not self.made_up and (lost or any(d.destroyed for d in self.outputs.values()))

    def nearer_than(self, other: Judgement) -> bool:
        """Whether outputs are nearer to the original's than another model's, and the metric, if any, is no worse."""
        lost = [0.0 if one.metric is None else -one.metric.signed for one in (self, other)]
        return lost[0] <= lost[1] and total(self.outputs) < total(other.outputs)

    @property
    def quality(self) -> float | None:
        """The share of the metric that is left, or else the least share of variance explained."""
        if self.metric is not None:
            return self.metric.ratio
        return None if self.worst is None else self.worst[1].explained

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        data: dict[str, Any] = {"data": self.data, "samples": self.samples, "doubts": list(self.doubts)}
        data |= {"cure": dict(self.cure), "fitted": self.fitted, "held_back": self.held_back}
        data["inputs"] = "made-up" if self.made_up else "given"
        told = {name: None if one is None else asdict(one) for name, one in self._parts().items()}
        name, block = self.worst or ("", None)
        least = None if block is None else {"output": name, "kind": self.outputs[name].kind, **asdict(block)}
        outputs = {name: asdict(d) for name, d in self.outputs.items()}
        return {**data, "worst": least, "destroyed": self.destroyed, "outputs": outputs, **told}

    def _parts(self) -> dict[str, Detections | Measured | None]:
        return {"detections": self.detections, "metric": self.metric}


def judge(
    original: Path | bytes,
    model: Path | bytes,
    samples: Samples,
    channels: Mapping[str, Channels],
    metric: Metric | None = None,
) -> Judgement:
    """Run both models in onnxruntime and compare what they put out.

    Args:
        original: The one to compare with, as a file or serialized.
        model: The one that is judged, likewise.
        samples: What to judge on.
        channels: Where the channels of outputs lie.
        metric: What else to measure.

    Raises:
        InputError: If the metric fails.
    """
    wanted, actual = sides = [_outputs(side, samples.feeds) for side in (original, model)]
    missing = left_out_of_outputs(lambda feed: _outputs(original, [feed]), samples.feeds)
    counted = [missing.without(side, range(len(samples.feeds))) for side in sides]
    apart = deviation(counted[0], counted[1], _labelled(channels, wanted, samples.labels))
    measured = None
    if metric is not None:
        before, after = (metric(side, samples.labels) for side in sides)
        measured = Measured(metric.name, before, after, metric.higher, metric.ratio(before, after))
    count = sample_count(samples.feeds)
    known = detections(wanted, actual)
    told: dict[str, Any] = {"doubts": tuple(samples.doubts), "accuracy": accuracy(actual, samples.labels)}
    told |= {"fitted": samples.fitted, "held_back": samples.held_back, "cure": samples.cure}
    return Judgement(samples.name, count, samples.made_up, apart, known, measured, **told)


def _labelled(
    channels: Mapping[str, Channels], outputs: Mapping[str, Array], labels: Sequence[Array | None]
) -> dict[str, Channels]:
    """Channels, with what labels say of the first output."""
    name = next(iter(outputs), "")
    hint = told_by_labels(outputs[name], labels) if name else ""
    first = channels.get(name, Channels(None))
    return {**channels, name: replace(first, hint=first.hint or hint)} if hint else dict(channels)


def _outputs(model: Path | bytes, feeds: Sequence[Feeds]) -> dict[str, Array]:
    """Outputs by name over all samples; those whose shape differs between samples are left out."""
    session = open_session(model, threads=os.cpu_count() or 1, optimize=FAITHFUL)
    names = [one.name for one in session.get_outputs()]
    runs = [session.run(None, dict(feed)) for feed in feeds]
    every = {name: [np.asarray(a) for a in arrays] for name, *arrays in zip(names, *runs, strict=True)}
    return comparable(every, [sample_count([feed]) for feed in feeds])
