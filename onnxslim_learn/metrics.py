"""How far outputs are from the original's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_learn.array_types import Array

ONE = 1e-3  # probabilities sum to one this exactly


@dataclass(frozen=True)
class Deviation:
    """How far one output is from the original's over all samples.

    Attributes:
        cosine: Mean cosine between the output of a sample and the original's.
        relative: L2 norm of the difference over that of the original, over all samples; by itself if that is all zero.
        kl: Mean Kullback-Leibler divergence from the original in nats, where the output is one of a classifier
            (probabilities, or numbers ``(samples, classes)`` that are read as logits), else ``None``.
        agreement: Share of samples with the same largest class, for the same outputs.
    """

    cosine: float
    relative: float
    kl: float | None = None
    agreement: float | None = None


def deviation(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, Deviation]:
    """Compare outputs ``(samples, ...)`` by name with the original's; outputs of another shape are left out."""
    return {
        name: _one(array.astype(np.float64), found[name].astype(np.float64))
        for name, array in wanted.items()
        if name in found and found[name].shape == array.shape and array.size
    }


def accuracy(outputs: Mapping[str, Array], labels: Sequence[Array | None]) -> float | None:
    """Share of samples of which the first output ``(samples, classes)`` is largest at the label.

    ``None`` without a class for every sample. Labels come in batches.
    """
    known = [one for one in labels if one is not None and one.ndim == 1 and one.dtype.kind in "iu"]
    first = next(iter(outputs.values()), None)
    if not known or len(known) < len(labels) or first is None or first.ndim != 2 or first.shape[1] < 2:
        return None
    return float((first.argmax(axis=1) == np.concatenate(known)).mean()) if len(first) == sum(map(len, known)) else None


def _one(wanted: Array, found: Array) -> Deviation:
    a, b = (np.nan_to_num(x.reshape(len(x), -1)) for x in (wanted, found))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.where(norms > 0, (a * b).sum(axis=1) / np.maximum(norms, 1e-300), (norms == 0) & (a == b).all(axis=1))
    relative = float(np.linalg.norm(a - b)) / (float(np.linalg.norm(a)) or 1.0)
    if not classifies(wanted):
        return Deviation(float(cosine.mean()), relative)
    p, q = (log_probabilities(x) for x in (a, b))
    kl = float((np.exp(p) * (p - q)).sum(axis=1).mean())
    same = float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
    return Deviation(float(cosine.mean()), relative, kl, same)


def classifies(output: Array) -> bool:
    """Whether an output reads as that of a classifier: floating-point ``(samples, classes)``."""
    return output.ndim == 2 and output.shape[1] >= 2 and output.dtype.kind == "f"


def log_probabilities(x: Array) -> Array:
    """Logarithms of what are probabilities, or logits, of ``(samples, classes)``."""
    if (x >= 0).all() and np.abs(x.sum(axis=1) - 1).max() < ONE:
        return np.log(np.maximum(x, 1e-30))
    shifted = x - x.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
