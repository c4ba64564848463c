"""How far outputs are from the original's: block by block, and by what the output is.

One figure over a whole output lets large numbers hide small ones: of a detector, pixels hide scores. So an output is
split into blocks of channels that mean one thing, and every block is judged by the share of its own variance over
samples that is explained.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxslim_learn import detection_lists, lower_bounds
from onnxslim_learn.array_types import Array
from onnxslim_learn.output_kinds import CONSTANT, GAP, WIDE, kind, log_probabilities, shares

DESTROYED = 0.5  # of its variance: a block of which less is explained
TOP = 5


@dataclass(frozen=True)
class Channels:
    """Along which axis the channels of an output lie, and where one meaning ends and the next begins.

    Attributes:
        axis: The axis; ``None`` where the graph does not tell.
        cuts: Positions between blocks; where there is none, channels of one scale are a block.
        hint: What the last operator puts out, as a word of :func:`kind`; empty where that says nothing.
        tokens: Whether the model takes tokens, so that every step of a sequence of classes is an answer by itself;
            else all steps are one, such as a line of text or speech.
    """

    axis: int | None
    cuts: tuple[int, ...] = ()
    hint: str = ""
    tokens: bool = False


@dataclass(frozen=True)
class Block:
    """Channels of an output that mean one thing, against the original's.

    Attributes:
        channels: Which, such as ``0:4``; ``all`` if there is one block only.
        explained: Share of the variance over samples that is explained: 1 minus the mean squared error over it; of
            choices, the share that is the same.
        spread: The original's standard deviation over samples.
        tells: Whether that says anything: what is the same for all samples, before and after, would be so of any model.
        sure: The least share that these samples leave possible (:mod:`onnxslim_learn.lower_bounds`).
    """

    channels: str
    explained: float
    spread: float
    tells: bool = True
    sure: float = 0.0


@dataclass(frozen=True)
class Deviation:
    """How far one output is from the original's over all samples.

    Attributes:
        cosine: Mean cosine between the output of a sample and the original's; of one number per sample, their
            correlation.
        relative: L2 norm of the difference over that of the original, over all samples; by itself if that is all zero.
        kl: Mean Kullback-Leibler divergence from the original in nats, where the output is a distribution.
        agreement: Share of samples, or tokens, with the same largest class, for the same outputs.
        kind: What the output is: see :func:`kind`; ``detections`` if they are listed in it.
        figures: What else tells of such an output: ``top5``, ``perplexity`` and ``original_perplexity``,
            ``matched`` (share of detections in a list that both sides give, see :mod:`onnxslim_learn.detection_lists`),
            ``retrieval`` (share of samples whose nearest other sample is the same), ``nearness`` (how near the one that
            is found is, see :func:`_retrieval`), ``error`` in deviations, ``read`` (share of samples that are read the
            same, see :func:`_read`).
        blocks: Every block.
        worst: Least share of variance explained, over blocks.
        destroyed: Whether that is less than half.
    """

    cosine: float
    relative: float
    kl: float | None = None
    agreement: float | None = None
    kind: str = "numbers"
    figures: dict[str, float] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    worst: float = 1.0
    destroyed: bool = False


def deviation(
    wanted: Mapping[str, Array], actual: Mapping[str, Array], channels: Mapping[str, Channels] | None = None
) -> dict[str, Deviation]:
    """Compare outputs ``(samples, ...)`` by name with the original's; outputs of another shape are left out.

    Detections that are listed, in whatever order, are one output by the name of that of their scores.

    Args:
        wanted: The original's.
        actual: The others.
        channels: Where the channels of an output lie, as the graph tells.
    """
    known, listed = channels or {}, detection_lists.listing(wanted)
    told = {} if listed is None else {listed.scores: _listed(listed, wanted, actual)}
    alike = [name for name, array in wanted.items() if name in actual and actual[name].shape == array.shape]
    rest = [name for name in alike if listed is None or name not in {*listed.names, *listed.followers}]
    if not told and any(wanted[name].dtype.kind == "f" for name in rest):  # what seemed classes
        rest = [name for name in rest if wanted[name].dtype.kind == "f"]
    return told | {name: _one(name, wanted[name], actual[name], known.get(name)) for name in rest if wanted[name].size}


def comparable(arrays: Mapping[str, Sequence[Array]], counts: Sequence[int] = ()) -> dict[str, Array]:
    """What can be compared of outputs ``(samples, ...)`` in batches, as one by name: numbers, or else choices.

    Beside lists of detections, which are filled up to one length, stand their classes.

    Args:
        arrays: Name -> an array for each batch; those whose shapes differ are left out.
        counts: Samples of every batch, where they are known.
    """
    every, rows = detection_lists.filled({n: [np.atleast_1d(a) for a in parts] for n, parts in arrays.items()}, counts)
    alike = {name: parts for name, parts in every.items() if len({part.shape[1:] for part in parts}) == 1}
    numbers = {name: parts for name, parts in alike.items() if parts[0].dtype.kind == "f" or name in rows}
    chosen = {name: parts for name, parts in alike.items() if parts[0].dtype.kind in "iub"}
    return {name: np.concatenate(parts) for name, parts in (numbers or chosen).items()}


def loss(
    wanted: Mapping[str, Array], actual: Mapping[str, Array], channels: Mapping[str, Channels] | None = None
) -> float:
    """One number for all outputs: mean divergence of those that are distributions, unexplained variance of others."""
    return total(deviation(wanted, actual, channels))


def total(deviations: Mapping[str, Deviation]) -> float:
    """One number for all outputs: divergence of distributions, mean share of variance that is lost of others."""
    lost = [
        float(np.mean([1 - block.explained for block in d.blocks])) if d.kl is None else d.kl
        for d in deviations.values()
    ]
    return float(np.mean(lost)) if lost else 0.0


def worst(deviations: Mapping[str, Deviation]) -> tuple[str, Block] | None:
    """The block of which least is explained, and its output; ``None`` where none tells."""
    every = [(name, block) for name, d in deviations.items() for block in d.blocks if block.tells]
    return min(every, key=lambda one: one[1].explained, default=None)


def accuracy(outputs: Mapping[str, Array], labels: Sequence[Array | None]) -> float | None:
    """Share of samples of which the first output ``(samples, classes)`` is largest at the label, or is the label.

    ``None`` without a class for every sample. Labels come in batches.
    """
    known = [one for one in labels if one is not None and one.ndim == 1 and one.dtype.kind in "iu"]
    first = next(iter(outputs.values()), None)
    if not known or len(known) < len(labels) or first is None or len(first) != sum(map(len, known)):
        return None
    if first.ndim == 2 and first.shape[1] > 1 and first.dtype.kind == "f":
        first = first.argmax(axis=1)
    whole = first.ndim == 1 and first.dtype.kind in "iu"
    return float((first == np.concatenate(known)).mean()) if whole else None


# --- one output -------------------------------------------------------------------------------------------------------


def _one(name: str, wanted: Array, actual: Array, channels: Channels | None) -> Deviation:
    a, b = (np.nan_to_num(x.astype(np.float64)) for x in (wanted, actual))
    flat = [x.reshape(len(x), -1) for x in (a, b)]
    what = kind(wanted if wanted.dtype.kind in "iub" else a, name, channels.hint if channels else "")
    shared, classes = what == "logits", what in ("logits", "probabilities")
    parts = blocks(_free(a) if shared else a, _free(b) if shared else b, channels, alike=classes)
    cosine, relative = float(_cosines(*flat).mean()), _norm(a - b) / (_norm(a) or 1.0)
    kl = agreement = None
    figures: dict[str, float] = {}
    if what in ("logits", "probabilities"):
        kl, agreement, figures = _distribution(a, b)
        if a.ndim == 3 and a.shape[2] >= WIDE and channels is not None and not channels.tokens:
            figures["read"] = _read(a, b)
    elif what == "labels":
        kl, agreement = _labels(a, b)
    elif what == "choices":
        agreement = float((a == b).mean())
        sure = lower_bounds.of_decisions(agreement, len(a))
        parts = (Block("all", agreement, float(a.std(axis=0).max()), bool((a != a[0]).any()), sure),)
    elif what == "embeddings":
        figures = _retrieval(a, b)
    elif what == "number" and len(a) > 1:
        cosine, figures = _single(flat[0][:, 0], flat[1][:, 0])
    least = min(block.explained for block in parts)
    return Deviation(cosine, relative, kl, agreement, what, figures, parts, least, least < DESTROYED)


def _listed(known: detection_lists.Listing, wanted: Mapping[str, Array], actual: Mapping[str, Array]) -> Deviation:
    """Detections in whatever order: the share that is matched stands for variance."""
    share, enough = detection_lists.share(known, wanted, actual)
    scores = wanted[known.scores].astype(np.float64)
    varies = any(bool((wanted[name] != wanted[name][:1]).any()) for name in known.names) or share < 1 - CONSTANT
    block = Block("all", share, float(scores.std()), enough and varies, lower_bounds.of_decisions(share, len(scores)))
    told = {"matched": share} if enough else {}
    return Deviation(share, 1 - share, None, None, "detections", told, (block,), share, enough and share < DESTROYED)


def _free(logits: Array) -> Array:
    """Logits without what they have in common, which says nothing."""
    shifted: Array = logits - logits.mean(axis=-1, keepdims=True)
    return shifted


def _norm(x: Array) -> float:
    return float(np.linalg.norm(x.reshape(-1)))


def _cosines(a: Array, b: Array) -> Array:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alike = (norms == 0) & (a == b).all(axis=1)
    cosines: Array = np.where(norms > 0, (a * b).sum(axis=1) / np.maximum(norms, 1e-300), alike)
    return cosines


def _distribution(a: Array, b: Array) -> tuple[float, float, dict[str, float]]:
    """Divergence, agreement, and what else tells, of classes of samples or of tokens."""
    p, q = (log_probabilities(x) for x in (a, b))
    kl = float((np.exp(p) * (p - q)).sum(axis=-1).mean())
    first = p.argmax(axis=-1)
    figures: dict[str, float] = {}
    if a.shape[-1] > TOP:
        best = np.argpartition(b, -TOP, axis=-1)[..., -TOP:]
        figures["top5"] = float((best == first[..., None]).any(axis=-1).mean())
    if a.ndim == 3:
        entropy = float(-(np.exp(p) * p).sum(axis=-1).mean())
        figures |= {
            "perplexity": float(np.exp(min(entropy + kl, 700.0))),
            "original_perplexity": float(np.exp(entropy)),
        }
    return kl, float((first == b.argmax(axis=-1)).mean()), figures


def _read(a: Array, b: Array) -> float:
    """The share of samples of which the classes of all steps say the same.

    As connectionist temporal classification reads them (Graves et al. 2006): repetitions are one, and the most frequent
    class is what stands between others.
    """
    sides = [x.argmax(axis=-1) for x in (a, b)]
    nothing = np.bincount(sides[0].ravel()).argmax()

    def texts(steps: Array) -> list[list[int]]:
        new = np.concatenate((np.ones((len(steps), 1), bool), steps[:, 1:] != steps[:, :-1]), axis=1)
        return [row[kept].tolist() for row, kept in zip(steps, new & (steps != nothing), strict=True)]

    return float(np.mean([one == other for one, other in zip(*map(texts, sides), strict=True)]))


def _labels(a: Array, b: Array) -> tuple[float, float]:
    """Summed divergence of probabilities that each stand alone; share of samples with the same ones over half."""
    p, q = (np.clip(x, 1e-7, 1 - 1e-7) for x in (a, b))
    kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1)
    return float(kl.mean()), float(((a > 0.5) == (b > 0.5)).all(axis=1).mean())


def _retrieval(a: Array, b: Array) -> dict[str, float]:
    """How samples find their nearest other one, by cosine: the share that find the same, and how near what is found is.

    Nearness is the original's cosine with the one that is found, from 0, as near as the others are on average, to 1,
    the nearest: where several are nearly as near, which of them is found says little, least of all among few samples.
    """
    if len(a) < 3:
        return {}
    alike = [_unit(rows) @ _unit(rows).T for rows in (a, b)]
    others = ~np.eye(len(a), dtype=bool)
    first, second = (np.where(others, cosines, -np.inf).argmax(axis=1) for cosines in alike)
    best, chosen = (alike[0][np.arange(len(a)), k] for k in (first, second))
    mean = np.average(alike[0], axis=1, weights=others)
    near = np.where(first == second, 1.0, (chosen - mean) / np.maximum(best - mean, 1e-12))
    return {"retrieval": float((first == second).mean()), "nearness": float(np.clip(near, 0, 1).mean())}


def _unit(rows: Array) -> Array:
    """Rows at a length of one."""
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return unit


def _single(a: Array, b: Array) -> tuple[float, dict[str, float]]:
    """Correlation, and the root mean squared error in deviations."""
    spread = max(float(a.std()), 1e-300)
    both = float(a.std() * b.std())
    correlation = float(((a - a.mean()) * (b - b.mean())).mean()) / both if both > 0 else float((a == b).all())
    return correlation, {"error": min(float(np.sqrt(np.square(a - b).mean())) / spread, 1e9)}


# --- blocks -----------------------------------------------------------------------------------------------------------


def blocks(wanted: Array, actual: Array, channels: Channels | None = None, *, alike: bool = False) -> tuple[Block, ...]:
    """Judge every block of an output ``(samples, ...)`` by itself.

    Beside scores, other blocks count by the square of the largest score at their place: boxes around nothing are noise.

    Args:
        wanted: The original's.
        actual: The other.
        channels: Where channels lie, as the graph tells.
        alike: Whether all channels mean one thing, as classes do, of which those that no sample shows hardly vary.
    """
    if wanted.ndim < 2:
        return (_judged("all", wanted, actual),)
    axis = _axis(wanted) if channels is None or channels.axis is None else channels.axis
    width = wanted.shape[axis]
    if channels is not None and channels.cuts:
        ends = (0, *channels.cuts, width)
        parts = [np.arange(start, stop) for start, stop in itertools.pairwise(ends)]
    else:
        parts = [np.arange(width)] if alike else by_scale(wanted, axis)
    if len(parts) == 1:
        return (_judged("all", wanted, actual),)
    sides = [(wanted.take(part, axis), actual.take(part, axis)) for part in parts]
    scores = [a for a, _ in sides if shares(a)]
    most = np.concatenate(scores, axis).max(axis=axis, keepdims=True) if 0 < len(scores) < len(sides) else None
    weights = [None if most is None or shares(a) else np.broadcast_to(most**2, a.shape) for a, _ in sides]
    return tuple(_judged(_runs(part), *pair, w) for part, pair, w in zip(parts, sides, weights, strict=True))


def by_scale(output: Array, axis: int) -> list[Array]:
    """Positions along an axis, split where numbers differ in scale; all between 0 and 1 are of one, however rare."""
    rest = tuple(k for k in range(output.ndim) if k != axis)
    spread, low, high = output.std(axis=rest), output.min(axis=rest), output.max(axis=rest)
    varying = np.flatnonzero(spread > CONSTANT * np.maximum(np.abs(low), np.abs(high)))
    order = varying[np.argsort(spread[varying])]
    if len(order) < 2:
        return [np.arange(output.shape[axis])]
    steps = np.flatnonzero(spread[order][1:] > GAP * spread[order][:-1]) + 1
    parts = np.split(order, steps)
    scores = [part for part in parts if low[part].min() >= 0 and high[part].max() <= 1]
    others = [part for part in parts if low[part].min() < 0 or high[part].max() > 1]
    joined = [*others, *([np.concatenate(scores)] if scores else [])]
    constant = np.setdiff1d(np.arange(output.shape[axis]), varying)
    joined[0] = np.concatenate((joined[0], constant))  # they neither vary nor say anything of a scale
    return sorted((np.sort(part) for part in joined), key=lambda part: int(part[0]))


def _axis(output: Array) -> int:
    """Where channels lie if nothing tells: the shorter axis of two, else the first after the samples."""
    return 1 + int(output.shape[2] < output.shape[1]) if output.ndim == 3 else 1


def _judged(channels: str, wanted: Array, actual: Array, weights: Array | None = None) -> Block:
    """Judge one block, with weights of its numbers where they do not all count alike."""
    apart = wanted - wanted.mean(axis=0) if len(wanted) > 1 else wanted - wanted.mean()
    freedom = len(wanted) / max(len(wanted) - 1, 1)
    squares, sizes, errors = (_squares(x, weights) for x in (apart, wanted, wanted - actual))
    variance, magnitude, error = (float(x.mean()) for x in (freedom * squares, sizes, errors))
    varies = variance > CONSTANT**2 * magnitude
    scale = variance if varies else magnitude
    explained = 1 - error / scale if scale > 0 else float(error == 0)
    sure = lower_bounds.of_variance(errors, freedom * squares if varies else sizes)
    tells = varies or explained < 1 - CONSTANT
    return Block(channels, max(explained, -1e9), float(np.sqrt(variance)), tells, max(sure, -1e9))


def _squares(x: Array, weights: Array | None) -> Array:
    """The mean square of every sample; the mean of these is that of all numbers."""
    squares = np.square(x)
    if weights is not None and weights.any():
        squares *= weights / weights.mean()
    each: Array = squares.reshape(len(x), -1).mean(axis=1)
    return each


def _runs(part: Array) -> str:
    """Positions in words: ``0:4``, or ``0:4,9:80``."""
    pieces = np.split(part, np.flatnonzero(np.diff(part) > 1) + 1)
    return ",".join(f"{piece[0]}:{piece[-1] + 1}" for piece in pieces)
