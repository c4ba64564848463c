"""Metrics that compare outputs with labels, or judge them by themselves: by name, or functions of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxslim_learn.array_types import Array
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.labels import collated
from onnxslim_learn.metrics import TOP
from onnxslim_learn.registry import METRICS


@dataclass(frozen=True)
class Metric:
    """A number that tells how good outputs are.

    Attributes:
        name: As it was asked for.
        function: Takes the outputs, an array ``(samples, ...)`` or, of several, such arrays by name, and the labels of
            all samples, as :func:`onnxslim_learn.labels.collated` makes them, or ``None``.
        higher: Whether higher is better.
    """

    name: str
    function: Callable[[Any, Any], Any]
    higher: bool = True

    def __call__(self, outputs: Mapping[str, Array], labels: Sequence[Array | None]) -> float:
        """Judge outputs by name; labels come in batches.

        Raises:
            InputError: If the function fails, or gives no finite number.
        """
        known = [one for one in labels if one is not None]
        given = collated(np.concatenate(known)) if known and len(known) == len(labels) else None
        predictions = next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
        try:
            value = float(self.function(predictions, given))
        except InputError:
            raise
        except Exception as error:
            said = f"{type(error).__name__} ({reason(error)})"
            raise InputError(f"metric {self.name}: it raised {said}. Correct it.") from error
        if not np.isfinite(value):
            raise InputError(f"metric {self.name}: it gave {value}, which is no number to compare. Correct it.")
        return value

    def lost(self, outputs: Mapping[str, Array], labels: Sequence[Array | None]) -> float:
        """The same as a number that is lower where outputs are better."""
        return -self(outputs, labels) if self.higher else self(outputs, labels)

    def ratio(self, before: float, after: float) -> float:
        """What is left of a value: 1 where nothing is lost, less the worse it is."""
        better, worse = (after, before) if self.higher else (before, after)
        if worse == better:
            return 1.0
        return better / worse if worse > 0 else float(better > worse)


def metric(spec: str | Callable[..., Any]) -> Metric:
    """The metric of a name, or of ``module:function``; higher is better unless ``higher_is_better`` of it is false.

    Raises:
        InputError: If there is none.
    """
    row = METRICS.row(spec)
    function = METRICS.load(spec)
    return Metric(row.name, function, bool(getattr(function, "higher_is_better", True)))


# --- metrics by name --------------------------------------------------------------------------------------------------


def accuracy(predictions: Any, labels: Array | None) -> float:
    """Share of samples whose label has the largest output, or is what the model chooses."""
    rows, labels = _classes("accuracy", predictions, labels)
    chosen = rows if rows.shape == labels.shape else rows.argmax(axis=-1)
    return float((chosen == labels).mean())


def top5(predictions: Any, labels: Array | None) -> float:
    """Share of samples whose label is among the five largest outputs."""
    rows, labels = _classes("top5", predictions, labels)
    if rows.shape == labels.shape:
        raise InputError("metric top5: the model puts out one choice, not how likely classes are. Use accuracy.")
    best = np.argsort(rows, axis=-1)[..., -TOP:]
    return float((best == labels[..., None]).any(axis=-1).mean())


def _classes(name: str, predictions: Any, labels: Array | None) -> tuple[Array, Array]:
    """The outputs ``(samples, ..., classes)``, or choices ``(samples, ...)``, that labels belong to, and these.

    Labels are classes ``(samples, ...)`` or ``(samples, 1)``, or for each sample a row of zeros with a single one.
    """
    arrays = predictions.values() if isinstance(predictions, Mapping) else [predictions]
    if labels is None:
        raise InputError(f"metric {name}: needs labels, but the samples have none. Give them with ⟨data⟩.")
    labels = _whole(labels)
    rows = isinstance(labels, np.ndarray) and labels.dtype.kind in "iu"
    fits = [a for a in arrays if rows and (a.shape[:-1] == labels.shape or _chosen(a, labels))]
    if not fits:
        said = f"labels {labels.shape}" if rows else "these labels"
        raise InputError(f"metric {name}: no output has classes for {said}. Give module:function.")
    return fits[0], labels


def _whole(labels: Any) -> Any:
    """Labels as whole numbers where they are rows of ones and zeros, or columns of such numbers."""
    if not isinstance(labels, np.ndarray) or labels.ndim < 2 or labels.dtype.kind not in "fiub":
        return labels
    if labels.shape[-1] == 1:
        return _whole(labels[..., 0]) if labels.dtype.kind in "iu" else labels
    single = bool(((labels == 0) | (labels == 1)).all() and (labels.sum(-1) == 1).all())
    return labels.argmax(axis=-1) if single else labels


def _chosen(output: Array, labels: Array) -> bool:
    """Whether an output is the classes themselves."""
    return output.dtype.kind in "iu" and output.shape == labels.shape
