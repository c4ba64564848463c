"""What a detector finds, matched with what the original finds: layouts that are known, suppression, average precision.

The original's detections are taken for truth: no labels are needed, and a detector that finds nothing any more scores
zero however near its pixels are. Layouts are told by shapes and numbers:

* YOLOv8 to v12: ``(samples, 4 + classes, places)``, boxes as centre and size, more channels may follow;
* YOLOv5 to v7: ``(samples, places, 5 + classes)``, the fifth tells whether there is anything;
* YOLOv10 and others without duplicates: ``(samples, places, 6)``, corners, score, class; lists of several outputs,
  such as a TopK or a NonMaxSuppression leaves: see :mod:`onnxslim_learn.detection_lists`;
* SSD: boxes ``(samples, places, 4)`` and scores ``(samples, places, classes)``; DETR: likewise, with logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.detection_lists import FEW, OVERLAP, Listing, corners_of, listing, overlaps, placed
from onnxslim_learn.metrics import DESTROYED
from onnxslim_learn.output_kinds import ONE, distributed, log_probabilities

SURE = 0.25  # score from which a detection of the original counts as truth
FLOOR = 0.05  # below, detections only lengthen lists
MOST = 300  # detections of one sample
NOTHING = 0.5  # mean probability from which the first or last class says that there is nothing
CORNERED = 0.9  # share of boxes whose third and fourth numbers are the larger ones, from which these are corners

Boxes = tuple[Array, Array]  # corners ``(places, 4)``, scores ``(places, classes)``


@dataclass(frozen=True)
class Detections:
    """What a model detects against the original.

    Attributes:
        layout: The family whose layout the outputs have.
        original: Detections of the original over 0.25.
        matched: Those of them that the model finds over 0.25, too, in the same class and place.
        precision: Mean average precision over classes, the original's detections being the truth; ``None`` where it
            finds nothing on the samples.
        kept: Share of the scores of the original's detections that the model gives the same objects, none of them more
            than it had; ``None`` where there are too few to tell.
        classes: The same of every class that has enough detections, by its number.
        true: Share of the scores of the model's own detections that the original gives the same objects, likewise.
        shown: Samples in which the original detects something.
    """

    layout: str
    original: int
    matched: int
    precision: float | None
    kept: float | None = None
    classes: dict[int, float] = field(default_factory=dict)
    true: float | None = None
    shown: int = 0

    @property
    def destroyed(self) -> bool:
        """Whether less than half of the scores is left, of all or of a class, or true, where that can be told."""
        shares = [share for share in (self.kept, self.true, *self.classes.values()) if share is not None]
        return min(shares, default=1.0) < DESTROYED


@dataclass(frozen=True)
class _Found:
    """What one side finds of what the other one does, of one class or of several.

    Attributes:
        precision: Average precision; the mean over classes.
        scores: Those of the true detections.
        given: Those that the same objects are given; 0 where they are not found.
    """

    precision: float
    scores: Array
    given: Array

    @property
    def kept(self) -> float | None:
        """The share of the scores that is left, none higher than it was; ``None`` where there are too few to tell."""
        kept = np.minimum(self.given, self.scores).sum()
        return float(kept / self.scores.sum()) if len(self.scores) >= FEW else None


@dataclass(frozen=True)
class _Layout:
    """A known layout, how one sample's boxes and scores are read, and of which outputs, if lengths may differ."""

    name: str
    read: Callable[[Mapping[str, Array], int], Boxes]
    lists: tuple[str, ...] | None = None

    def readable(self, wanted: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
        """Whether another model's outputs have it, too."""
        if self.lists is not None:
            return all(name in actual and actual[name].ndim == wanted[name].ndim for name in self.lists)
        return all(name in actual and actual[name].shape == a.shape for name, a in wanted.items())


def detections(wanted: Mapping[str, Array], actual: Mapping[str, Array]) -> Detections | None:
    """Match what a model detects with what the original does; ``None`` where no layout is known.

    Args:
        wanted: The original's outputs ``(samples, ...)`` by name.
        actual: The model's.
    """
    layout = _layout(wanted)
    if layout is None or not layout.readable(wanted, actual):
        return None
    count = len(next(iter(wanted.values())) if layout.lists is None else wanted[layout.lists[0]])
    truth, guessed = ([_kept(*layout.read(side, k)) for k in range(count)] for side in (wanted, actual))
    matches, back = _by_class(truth, guessed), _by_class(guessed, truth)
    every, true = (_together(list(side.values())) for side in (matches, back))
    classes = {which: one.kept for which, one in matches.items() if one.kept is not None}
    hits, precision = int((every.given > SURE).sum()), every.precision if matches else None
    shown = sum(bool((scores > SURE).any()) for _, scores, _ in truth)
    return Detections(layout.name, len(every.scores), hits, precision, every.kept, classes, true.kept, shown)


# --- layouts ----------------------------------------------------------------------------------------------------------


def _layout(outputs: Mapping[str, Array]) -> _Layout | None:
    listed = listing(outputs)
    if listed is not None:
        return _list(listed)
    arrays = {name: a for name, a in outputs.items() if a.ndim == 3 and a.size and a.dtype.kind == "f"}
    for name, a in arrays.items():
        layout = _single(name, a)
        if layout is not None:
            return layout
    for boxes, b in arrays.items():
        for scores, s in arrays.items():
            if boxes != scores and b.shape[2] == 4 and s.shape[:2] == b.shape[:2] and s.shape[2] > 1 and _sized(b):
                return _pair(boxes, b, scores, s)
    return None


def _list(listed: Listing) -> _Layout:
    """Detections that the model lists itself."""
    name = "YOLOv10" if len(listed.names) == 1 else "list"
    return _Layout(name, lambda side, k: _listed(listed.rows(side, k)), tuple(listed.names))


def _single(name: str, a: Array) -> _Layout | None:
    """A layout that is one output."""
    rows, columns = a.shape[1:]
    if distributed(a, 1) or distributed(a, 2):
        return None
    if 5 <= rows < columns and _shares(a[:, 4]) and placed(a[:, :4].transpose(0, 2, 1).reshape(-1, 4)):
        end = next((k for k in range(4, rows) if not _shares(a[:, k])), rows)
        return _Layout("YOLOv8", lambda side, k: (corners_of(side[name][k, :4].T), side[name][k, 4:end].T))
    if rows <= columns or columns < 6 or not _shares(a[..., 4]):
        return None
    if not _shares(a[..., 5:]) or not placed(a[..., :4].reshape(-1, 4)):
        return None
    return _Layout("YOLOv5", lambda side, k: _gated(side[name][k]))


def _pair(boxes: str, b: Array, scores: str, s: Array) -> _Layout:
    """Boxes and scores apart; scores may be logits, and a class may say that there is nothing."""
    cornered = float((b[..., 2:] >= b[..., :2]).all(axis=-1).mean()) > CORNERED and not _shares(s - 2)
    summed = _shares(s) and np.abs(s.sum(axis=-1) - 1).max() < ONE
    likely = s if summed else np.exp(log_probabilities(s.astype(np.float64)))
    share = likely.mean(axis=(0, 1))
    empty = {0: 0, 1: len(share) - 1}[int(share[-1] > share[0])]
    softmax = not _shares(s) and share[empty] > NOTHING

    def read(side: Mapping[str, Array], k: int) -> Boxes:
        raw = side[scores][k].astype(np.float64)
        if softmax:
            raw = np.exp(log_probabilities(raw))
        elif not _shares(s):
            raw = 1 / (1 + np.exp(-np.clip(raw, -50, 50)))
        if summed or softmax:
            raw = raw.copy()
            raw[:, empty] = 0
        coordinates = side[boxes][k]
        return (coordinates if cornered else corners_of(coordinates)), raw

    return _Layout("SSD" if _shares(s) else "DETR", read)


def _sized(boxes: Array) -> bool:
    """Whether numbers ``(..., 4)`` may be boxes at all: four logits beside their probabilities have no size."""
    wide = (boxes[..., 2:] >= 0).all(axis=-1), (boxes[..., 2:] >= boxes[..., :2]).all(axis=-1)
    return not distributed(boxes, -1) and max(float(one.mean()) for one in wide) > CORNERED


def _shares(a: Array) -> bool:
    """Whether all numbers lie between 0 and 1."""
    return bool(a.min() >= -ONE and a.max() <= 1 + ONE)


def _gated(rows: Array) -> Boxes:
    """Rows of centre, size, whether there is anything, and classes."""
    return corners_of(rows[:, :4]), rows[:, 4:5] * rows[:, 5:]


def _listed(rows: Array) -> Boxes:
    """Rows of corners, score, class, maybe none."""
    classes = rows[:, 5].astype(int)
    scores = np.zeros((len(rows), int(classes.max(initial=0)) + 1))
    scores[np.arange(len(rows)), classes] = rows[:, 4]
    return rows[:, :4], scores


# --- matching ---------------------------------------------------------------------------------------------------------

Kept = tuple[Array, Array, Array]  # boxes, scores, classes of one sample, best first


def _kept(boxes: Array, scores: Array) -> Kept:
    """The best detections that do not overlap others of their class."""
    places, classes = np.nonzero(scores > FLOOR)
    best = np.argsort(-scores[places, classes], kind="stable")[: 4 * MOST]
    places, classes = places[best], classes[best]
    chosen: list[int] = []
    overlap = overlaps(boxes[places], boxes[places])
    for k in range(len(places)):
        alike = [j for j in chosen if classes[j] == classes[k]]
        if not alike or overlap[k, alike].max() <= OVERLAP:
            chosen.append(k)
    chosen = chosen[:MOST]
    return boxes[places[chosen]], scores[places[chosen], classes[chosen]], classes[chosen]


def _by_class(truth: list[Kept], guessed: list[Kept]) -> dict[int, _Found]:
    """What is found of every class that occurs."""
    classes = sorted({int(c) for _, scores, labels in truth for c in labels[scores > SURE]})
    return {which: _found(truth, guessed, which) for which in classes}


def _together(matches: list[_Found]) -> _Found:
    """The same of several classes."""
    sides = [
        np.concatenate([np.zeros(0), *arrays]) for arrays in ([f.scores for f in matches], [f.given for f in matches])
    ]
    return _Found(float(np.mean([one.precision for one in matches])) if matches else 0.0, *sides)


def _found(truth: list[Kept], guessed: list[Kept], which: int) -> _Found:
    """Match what is found of one class, best first, with what the original finds; each object once."""
    marks, scores, given = list[tuple[float, bool]](), list[Array](), list[Array]()
    for (true_boxes, true_scores, true_classes), (boxes, its_scores, classes) in zip(truth, guessed, strict=True):
        real = (true_classes == which) & (true_scores > SURE)
        its = np.zeros(int(real.sum()))
        for box, score in zip(boxes[classes == which], its_scores[classes == which], strict=True):
            overlap = np.where(its == 0, overlaps(box[None], true_boxes[real])[0], 0.0)
            hit = bool(overlap.size and overlap.max() > OVERLAP)
            if hit:
                its[int(overlap.argmax())] = score
            marks.append((float(score), hit))
        scores, given = [*scores, true_scores[real]], [*given, its]
    total = sum(map(len, scores))
    return _Found(_average_precision(marks, total), np.concatenate(scores), np.concatenate(given))


def _average_precision(marks: list[tuple[float, bool]], total: int) -> float:
    """Average precision of scored detections that hit or miss, where so many are true."""
    hits = np.array([hit for _, hit in sorted(marks, key=lambda mark: -mark[0])], bool)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[hits].sum() / total)
