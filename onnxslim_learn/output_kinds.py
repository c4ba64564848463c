"""What an output is, by its numbers, its name and the graph: metrics, losses and samples go by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxslim_learn.array_types import Array

ONE = 1e-3  # probabilities sum to one, and rows are of one length, this exactly
GAP = 10.0  # between deviations of channels: from there on they are of two scales
CONSTANT = 1e-6  # deviation over magnitude: what does not vary over samples is judged by its magnitude
WIDE = 32  # columns: wider tables are read as embeddings, narrower ones as classes, where nothing else tells
ENOUGH = 8  # rows: fewer tell nothing of columns
SHARED = 0.5  # variance of the mean of a row, times columns over their variance: classes share less, other columns 1
PLACED = 2.0  # deviations: columns that lie so far apart each have a place of their own
PEAK = 0.6  # lead of the largest number of a row over the next, in deviations; among normal ones it is 0.3 to 0.45
VOCABULARY = 1000  # classes of a token, where no name tells
LOGITS = ("logit", "score", "class", "label", "prob")
EMBEDDINGS = ("embed", "feature", "hidden", "pool", "vector")
PLACES = ("box", "coord", "landmark", "keypoint", "offset")


def kind(output: Array, name: str = "", hint: str = "") -> str:
    """Tell what an output is from the original's numbers ``(samples, ...)``; metrics, losses and samples go by it.

    - ``probabilities``: of classes ``(samples, classes)`` or tokens ``(samples, tokens, classes)``; they sum to one.
    - ``logits``: the same as logarithms, up to a constant.
    - ``labels``: ``(samples, labels)``, probabilities that each stand alone.
    - ``embeddings``: ``(samples, features)``, compared with one another by their direction.
    - ``number``: one for each sample.
    - ``choices``: whole numbers and truths, such as the class that an ArgMax in the graph chooses.
    - ``numbers``: anything else, such as boxes, images, hidden states, and several quantities that each stand alone.

    A table ``(samples, columns)`` is read by what tells first:

    1. rows that sum to one are probabilities, their logarithms logits;
    2. what the graph says: a sigmoid's numbers are labels, a normalisation's embeddings, what a softmax or an ArgMax in
       the graph reads are logits; rows of one length are embeddings; and the name (boxes, embeddings);
    3. numbers from 0 to 1 are labels; others without a sign are quantities if there are few columns, else features;
    4. rows whose columns sum to nearly the same are logits, if there are eight: the gradient of a cross-entropy sums to
       zero over classes, so that training leaves that sum alone. Of a digits net, the mean of a row varies by 0.04 to
       0.07 of what columns that have nothing to do with each other would make of it, of a net of 1,000 classes by 0.2;
    5. a name (logits, scores), and peaks: one number that stands out in every row, and not always the same one;
    6. columns of different scales, or that lie far apart from one another, are quantities;
    7. narrow tables are logits, and those of 32 columns or more embeddings.

    Args:
        output: The numbers, of as many samples as there are.
        name: Of the output; it decides where numbers may be one thing or the other.
        hint: What the last operator puts out, as one of these words; it counts where numbers do not contradict. Or
            ``quantities``: a narrow table is ``numbers`` if its name does not say otherwise.
    """
    if output.dtype.kind in "iub":
        return "choices"
    if output.dtype.kind == "f" and output.ndim and output.size == len(output) > 0:
        return "number"
    if output.dtype.kind != "f" or output.ndim not in (2, 3) or output.shape[-1] < 2 or not output.size:
        return "numbers"
    if distributed(output):
        return "probabilities"
    if distributed(np.exp(np.minimum(output, 1.0))):  # of a LogSoftmax
        return "logits"
    hint = "" if hint == "labels" and not shares(output) else hint
    if hint == "quantities" and output.shape[-1] < WIDE and not any(word in name.lower() for word in LOGITS):
        hint = "numbers"
    told, read = (("labels", "embeddings", "logits", "numbers"), _table) if output.ndim == 2 else (("logits",), _tokens)
    return hint if hint in told else read(output, name.lower())


def distributed(x: Any, axis: int = -1) -> bool:
    """Tell whether an array, or a tensor of torch, holds probabilities that sum to one along an axis."""
    return bool((x >= 0).all()) and float(abs(x.sum(axis) - 1).max()) < ONE


def shares(x: Array) -> bool:
    """Whether all numbers lie between 0 and 1."""
    return bool((x >= 0).all() and (x <= 1).all())


def _table(rows: Array, name: str) -> str:
    lengths = np.linalg.norm(rows, axis=1)
    if len(rows) > 1 and lengths.std() < ONE * lengths.mean():
        return "embeddings"
    if any(word in name for word in PLACES):
        return "numbers"
    return "embeddings" if any(word in name for word in EMBEDDINGS) else _unnamed(rows, name)


def _unnamed(rows: Array, name: str) -> str:
    """A table of which nothing but its numbers, or a name of classes, tells."""
    wide = rows.shape[1] >= WIDE
    if (rows >= 0).all() and not any(word in name for word in LOGITS):
        return "labels" if rows.max() <= 1 else "embeddings" if wide else "numbers"
    if any(word in name for word in LOGITS) or _competing(rows) or (wide and _peaked(rows)):
        return "logits"
    if _quantities(rows):
        return "numbers"
    return "embeddings" if wide else "logits"


def _competing(rows: Array) -> bool:
    """Whether columns sum to nearly the same in every row, as those of classes do that were trained together."""
    spread = rows.var(axis=0).mean()
    return len(rows) >= ENOUGH and rows.shape[1] * rows.mean(axis=1).var() < SHARED * spread


def _quantities(rows: Array) -> bool:
    """Whether columns have scales, or places, of their own."""
    if len(rows) < ENOUGH:
        return False
    middle, spread = rows.mean(axis=0), rows.std(axis=0)
    moving = spread[spread > CONSTANT * np.abs(rows).max()]
    apart = np.median(np.abs(middle - np.median(middle)))
    scaled = rows.shape[1] < WIDE and len(moving) > 1 and moving.max() > GAP * moving.min()
    return bool(scaled or apart > PLACED * np.median(spread))


def told_by_labels(output: Array, labels: Sequence[Array | None]) -> str:
    """What labels say that an output ``(samples, columns)`` is: a word of :func:`kind`, or empty.

    Args:
        output: The numbers.
        labels: Of the samples, in batches: a class for each, or as many numbers as the output has columns.
    """
    known = [one for one in labels if one is not None]
    if output.ndim != 2 or output.shape[1] < 2 or not known or len(known) < len(labels):
        return ""
    if all(one.ndim == 1 and one.dtype.kind in "iu" for one in known):
        classes = np.concatenate(known)
        return "logits" if classes.min() >= 0 and classes.max() < output.shape[1] else ""
    real = all(one.dtype.kind == "f" and one.shape[1:] == output.shape[1:] for one in known)
    shares = real and all((one >= 0).all() and (one <= 1).all() for one in known)  # of classes, or several at a time
    return "numbers" if real and not shares else ""


def _tokens(rows: Array, name: str) -> str:
    if any(word in name for word in (*EMBEDDINGS, *PLACES)):
        return "numbers"
    named = any(word in name for word in LOGITS)
    peaked = rows.shape[2] >= VOCABULARY and _peaked(rows.reshape(-1, rows.shape[2]))
    return "logits" if named or peaked else "numbers"


def _peaked(rows: Array) -> bool:
    """Whether one number of a row stands out, and not the same ones in all rows."""
    centred = rows - rows.mean(axis=0) if len(rows) > WIDE // 8 else rows
    top = np.partition(centred, -2, axis=1)[:, -2:]
    lead: Array = (top[:, 1] - top[:, 0]) / np.maximum(centred.std(axis=1), 1e-12)
    return float(lead.mean()) > PEAK


def classifies(output: Array, name: str = "", hint: str = "") -> bool:
    """Whether an output reads as that of a classifier: classes of whole samples (see :func:`kind`)."""
    return output.ndim == 2 and kind(output, name, hint) in ("logits", "probabilities")


def log_probabilities(x: Array) -> Array:
    """Logarithms of what are probabilities, or logits, of ``(..., classes)``."""
    if distributed(x):
        return np.log(np.maximum(x, 1e-30))
    shifted = x - x.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
