"""Detections that a model lists itself: rows of box, score and class, in one output or in several that share rows.

So put out what ends in a TopK or a NonMaxSuppression: RT-DETR, the detectors of torchvision and of TensorFlow, YOLO
with its suppression built in. Where in the list a detection stands says nothing, and two nets seldom list as many, so
rows are matched by class and overlap. Lists are told by shapes and numbers:

* one output ``(samples, rows, 6)`` of corners, score, class;
* boxes ``(samples, rows, 4)``, scores ``(samples, rows)`` and whole numbers of the same shape, classes; without these,
  scores have to fall along a list.

Boxes are corners, or centre and size, for nearly all rows; scores lie between 0 and 1. Other outputs that begin with
the same two axes, such as masks, follow the rows, and so does the count of detections. A model of one image at a time
may leave the axis of samples out, and lists of several lengths are filled up with rows whose score is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.output_kinds import ONE, distributed, shares

OVERLAP = 0.5  # intersection over union of what is one object
ORDERED = 0.9  # share of boxes whose third and fourth numbers are the larger ones, from which these are corners
INSIDE = 0.9  # share of boxes in units of the picture that lie in it; of four numbers from 0 to 1 each, a quarter would
BEYOND = 0.1  # of the picture: so far may a box that is listed reach beyond it
LONGEST = 1200  # rows of one list that are matched: the best
CLASSES = 10_000  # whole numbers from there on count something else
FEW = 4  # detections of which fewer tell nothing
JOINED = 6  # columns of a list that is one output
CALLED = ("class", "label")


@dataclass(frozen=True)
class Listing:
    """Which outputs list detections.

    Attributes:
        boxes: That of boxes, or of all there is to a row.
        scores: That of scores; the same if there is one output.
        classes: That of classes, likewise; ``None`` if there is one class.
        followers: Others that go by the rows: they are not compared.
        cornered: Whether boxes are corners, else centre and size.
    """

    boxes: str
    scores: str
    classes: str | None
    followers: frozenset[str] = frozenset()
    cornered: bool = True

    @property
    def names(self) -> list[str]:
        """The outputs that are matched."""
        return list(dict.fromkeys(name for name in (self.boxes, self.scores, self.classes) if name is not None))

    def rows(self, outputs: Mapping[str, Array], sample: int) -> Array:
        """One sample's detections ``(rows, 6)`` as corners, score, class, best first, in an order of their own."""
        return self._laid(*(outputs[name][sample].astype(np.float64) for name in self.names))

    def _laid(self, boxes: Array, scores: Array | None = None, classes: Array | None = None) -> Array:
        if scores is not None:
            classes = np.zeros_like(scores) if classes is None else classes
            boxes = np.concatenate((boxes, scores[:, None], classes[:, None]), axis=1)
        rows = np.nan_to_num(boxes[boxes[:, 4] > 0])
        corners = rows[:, :4] if self.cornered else corners_of(rows)
        rows = np.concatenate((corners, rows[:, 4:5], np.maximum(np.rint(rows[:, 5:6]), 0)), axis=1)
        laid: Array = rows[np.lexsort((*rows.T[:4], rows[:, 5], -rows[:, 4]))][:LONGEST]
        return laid


def listing(outputs: Mapping[str, Array], *, ordered: bool = True) -> Listing | None:
    """The list among outputs ``(samples, ...)``; ``None`` where none holds what may be one.

    Args:
        outputs: The original's.
        ordered: Whether boxes have to be some, too.
    """
    for name, array in outputs.items():
        if array.ndim == 3 and array.size and array.dtype.kind == "f" and array.shape[2] in (4, JOINED):
            known = _joined(name, array) if array.shape[2] == JOINED else _apart(name, outputs)
            boxes = None if known is None else _ordered(array[..., :4][_scored(known, outputs)])
            boxes = boxes if boxes == "corners" or array.shape[2] == 4 else None
            if known is not None and (boxes is not None or not ordered):
                beside = _followers(outputs, array.shape[:2]) - set(known.names)
                return Listing(known.boxes, known.scores, known.classes, beside, boxes != "sizes")
    return None


def share(known: Listing, wanted: Mapping[str, Array], actual: Mapping[str, Array]) -> tuple[float, bool]:
    """How much of what is listed is matched, by squares of scores, and whether the original lists enough to tell.

    Of the original's detections and of the model's own, the lesser share; no detection counts for more than the other
    side gives it, and none twice. Squares of scores, since hundreds of rows that say nothing may fill a list up.
    """
    if any(name not in actual or actual[name].ndim != wanted[name].ndim for name in known.names):
        return 0.0, True
    both, sums, count = np.zeros(2), np.zeros(2), np.zeros(2)
    for sample in range(len(wanted[known.boxes])):
        sides = [_once(known.rows(outputs, sample)) for outputs in (wanted, actual)]
        scores = np.stack([rows[places, 4] for rows, places in zip(sides, _pairs(*sides), strict=True)])
        both += (scores * scores.min(axis=0)).sum(axis=1)
        sums += [float(np.square(rows[:, 4]).sum()) for rows in sides]
        count += [len(rows) for rows in sides]
    told = [float(a / b) for a, b, n in zip(both, sums, count, strict=True) if n >= FEW]
    return min(told, default=1.0), bool(count[0] >= FEW)


def _once(rows: Array) -> Array:
    """Rows, best first, that do not overlap better ones of their class: a TopK alone lists an object several times."""
    covered = (rows[:, None, 5] == rows[None, :, 5]) & (overlaps(rows[:, :4], rows[:, :4]) > OVERLAP)
    stays = np.ones(len(rows), bool)
    for k in range(len(rows)):
        if stays[k]:
            stays[k + 1 :] &= ~covered[k, k + 1 :]
    left: Array = rows[stays]
    return left


def _pairs(wanted: Array, actual: Array) -> tuple[Array, Array]:
    """Rows of both that are the same object: the model's in turn, each with what it overlaps most and is left."""
    overlap = np.where(wanted[:, None, 5] == actual[None, :, 5], overlaps(wanted[:, :4], actual[:, :4]), 0.0)
    same = list[tuple[int, int]]()
    for k in np.flatnonzero(overlap.max(axis=0, initial=0.0) > OVERLAP):
        best = int(overlap[:, k].argmax())
        if overlap[best, k] > OVERLAP:
            same.append((best, int(k)))
            overlap[best] = 0
    one, other = np.array(same, int).reshape(-1, 2).T
    return one, other


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of all pairs of boxes; of one and the same box, however small, 1."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    sizes = [np.maximum(x[:, 2:] - x[:, :2], 0).prod(axis=1) for x in (a, b)]
    part = shared / np.maximum(sizes[0][:, None] + sizes[1][None] - shared, 1e-12)
    same: Array = np.where((a[:, None] == b[None]).all(axis=2), 1.0, part)
    return same


def corners_of(boxes: Array) -> Array:
    """Centre and size as corners."""
    centre, half = boxes[:, :2], boxes[:, 2:4] / 2
    corners: Array = np.concatenate((centre - half, centre + half), axis=1)
    return corners


# --- what is a list ---------------------------------------------------------------------------------------------------


def _joined(name: str, rows: Array) -> Listing | None:
    """A list that is one output."""
    return Listing(name, name, name) if _likely(rows[..., 4]) and _whole(rows[..., 5]) else None


def _apart(boxes: str, outputs: Mapping[str, Array]) -> Listing | None:
    """Boxes, with scores and classes beside them."""
    beside = {name: a for name, a in outputs.items() if a.shape == outputs[boxes].shape[:2]}
    whole = [name for name, a in beside.items() if _whole(a)]
    scores = [name for name, a in beside.items() if a.dtype.kind == "f" and _likely(a) and name not in whole]
    whole.sort(key=lambda name: (not any(word in name.lower() for word in CALLED), float(beside[name].max())))
    for name in scores:
        falling = beside[name].shape[1] > 1 and bool((np.diff(beside[name], axis=1) <= 0).all())
        if whole or falling:
            return Listing(boxes, name, whole[0] if whole else None)
    return None


def _scored(known: Listing, outputs: Mapping[str, Array]) -> Array:
    """Which rows are detections."""
    scores = outputs[known.scores]
    where: Array = (scores[..., 4] if known.scores == known.boxes else scores) > 0
    return where


def _ordered(boxes: Array) -> str | None:
    """Whether boxes ``(rows, 4)`` are told by ``corners``, or centres and ``sizes``; ``None`` if by neither."""
    if not len(boxes) or distributed(boxes):  # four classes of a token, of which the likeliest stands beside
        return None
    ways = {"corners": boxes[:, 2:] >= boxes[:, :2], "sizes": boxes[:, 2:] >= 0}
    way = next((way for way, right in ways.items() if right.all(axis=1).mean() >= ORDERED), None)
    return way if way == "corners" or placed(boxes, BEYOND) else None


def placed(boxes: Array, slack: float = ONE) -> bool:
    """Whether numbers ``(places, 4)`` may be centre and size: pixels, or boxes that lie in the picture."""
    if not boxes.size or boxes.min() < -ONE or boxes.max() > 1 + ONE:
        return True
    corners = corners_of(boxes)
    return float(((corners >= -slack) & (corners <= 1 + slack)).all(axis=1).mean()) > INSIDE


def _likely(scores: Array) -> bool:
    """Whether numbers may be scores, some of something."""
    return bool(scores.size) and shares(scores) and bool(scores.any())


def _whole(numbers: Array) -> bool:
    """Whether numbers may be those of classes."""
    real = numbers.size and numbers.dtype.kind in "iuf" and numbers.min() >= 0 and numbers.max() < CLASSES
    return bool(real and (numbers == np.rint(numbers)).all())


def _followers(outputs: Mapping[str, Array], leading: tuple[int, ...]) -> frozenset[str]:
    """Outputs by rows of a list, and how many rows of it there are."""
    rows = {name for name, a in outputs.items() if a.ndim > 1 and a.shape[:2] == leading}
    counts = {name for name, a in outputs.items() if a.size == leading[0] and _whole(a) and a.max() <= leading[1]}
    return frozenset(rows | counts)


# --- lists of several batches -----------------------------------------------------------------------------------------

Parts = Mapping[str, Sequence[Array]]  # outputs by name, an array for each batch


def filled(arrays: Parts, counts: Sequence[int] = ()) -> tuple[Parts, frozenset[str]]:
    """Outputs in batches of which lists have one length and an axis of samples, and the outputs by rows of such.

    Args:
        arrays: Outputs.
        counts: Samples of every batch; without, none is taken to leave the axis of samples out.
    """
    for name, parts in arrays.items():
        width = {(part.ndim, part.shape[-1] if part.ndim else 0, part.dtype.kind) for part in parts}
        if width & {(3, 4, "f"), (3, JOINED, "f"), (2, 4, "f"), (2, JOINED, "f")} and len(width) == 1:
            bare = parts[0].ndim == 2
            if bare and [len(part) for part in parts] == list(counts or map(len, parts)) and set(counts) != {1}:
                continue  # a row for each sample
            mine = _by_rows(arrays, name, bare=bare)
            joined = {one: np.concatenate(its) for one, its in mine.items()}
            if listing(joined, ordered=False) is not None:
                return {**arrays, **{one: list(its) for one, its in mine.items()}}, frozenset(mine)
    return arrays, frozenset()


def _by_rows(arrays: Parts, name: str, *, bare: bool) -> dict[str, list[Array]]:
    """The outputs that share rows with one, with an axis of samples, filled up to one length."""
    leading = 1 if bare else 2
    shapes = [part.shape[:leading] for part in arrays[name]]
    most = max(shape[-1] for shape in shapes)
    mine = dict[str, list[Array]]()
    for other, parts in arrays.items():
        alike = [part.shape[:leading] for part in parts] == shapes and len({p.shape[leading:] for p in parts}) == 1
        if alike and parts[0].dtype.kind in "iubf":
            laid = [part[None] if bare else part for part in parts]
            mine[other] = [np.pad(a, [(0, 0), (0, most - a.shape[1]), *[(0, 0)] * (a.ndim - 2)]) for a in laid]
    return mine
